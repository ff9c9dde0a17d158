/**
 * How a session of protocol 2.0 begins: from the first frame to the moment the
 * server knows who speaks, as states and transitions. Pure but for the nonce,
 * which the caller makes.
 *
 *     greeting ── hello (key, enrol) ──→ challenged ── proof ──→ deciding ──→ welcomed
 *         └────── hello (token, certificate, anonymous) ────────────↗
 *
 * Promises: a nonce is good for one proof on the connection it was made for;
 * what comes out of turn is refused and ends the session; a key is proven
 * before anyone is asked whether it is known. Leaves to others: whether what
 * was shown holds (`server/tcp/Authentication`), and every message after the
 * welcome.
 */
import type { AgentMessage, Hello, Rotate } from "./MessageV2.ts"
import * as Proof from "./Proof.ts"

/** What an agent has shown; keys are proven. */
export type Evidence =
  | { readonly method: "key"; readonly publicKey: string }
  | { readonly method: "enrol"; readonly publicKey: string; readonly token: string }
  | { readonly method: "token"; readonly token: string }
  | { readonly method: "certificate" }
  | { readonly method: "anonymous" }

/** The key that a session proved, and on which nonce. */
export interface ProvenKey {
  readonly publicKey: string
  readonly nonce: string
}

export type State =
  /** Nothing was said. */
  | { readonly _tag: "Greeting" }
  /** The agent has to sign `nonce` with the key of its hello. */
  | {
      readonly _tag: "Challenged"
      readonly nonce: string
      readonly evidence: Extract<Evidence, { readonly publicKey: string }>
    }
  /** What was shown is looked at. Messages wait meanwhile. */
  | { readonly _tag: "Deciding"; readonly key: ProvenKey | undefined }
  | { readonly _tag: "Welcomed"; readonly key: ProvenKey | undefined }
  /** Refused: the connection ends. */
  | { readonly _tag: "Ended" }

export type RefusalCode = "unsupported-version" | "protocol-not-allowed" | "proof-invalid"

export type Step =
  | { readonly _tag: "Challenge"; readonly nonce: string }
  /** To be looked at; the outcome is told by `decided`. */
  | { readonly _tag: "Decide"; readonly evidence: Evidence }
  /** A message for a session that is open. */
  | { readonly _tag: "Take"; readonly message: Request }
  | { readonly _tag: "Refuse"; readonly code: RefusalCode; readonly message: string }

/** What may come after the welcome. */
export type Request = Exclude<AgentMessage, { readonly type: "hello" | "proof" }>

export interface Surroundings {
  readonly makeNonce: () => string
  /** What proofs are bound to, where the connection has such a thing. */
  readonly channel: () => Uint8Array | undefined
}

export interface Transition {
  readonly state: State
  readonly step: Step
}

export const greeting: State = { _tag: "Greeting" }
const welcomed: State = { _tag: "Welcomed", key: undefined }
const ended: State = { _tag: "Ended" }

const refuse = (code: RefusalCode, message: string): Transition => ({
  state: ended,
  step: { _tag: "Refuse", code, message }
})

/** Later minor versions only add what this one passes over. */
const isSupported = (version: string): boolean => /^2\.\d{1,4}$/.test(version)

/** What a message does to a session in `state`. */
export const receive = (state: State, message: AgentMessage, surroundings: Surroundings): Transition => {
  switch (message.type) {
    case "hello":
      return state._tag === "Greeting"
        ? greet(message, surroundings)
        : refuse("protocol-not-allowed", "hello is the first message of a session, and only that")
    case "proof":
      return state._tag === "Challenged"
        ? prove(state, message.signature, surroundings)
        : refuse("protocol-not-allowed", "proof answers a challenge, and there is none open")
    default:
      return state._tag === "Welcomed"
        ? { state, step: { _tag: "Take", message } }
        : refuse("protocol-not-allowed", `${message.type} comes after the welcome; a session begins with hello`)
  }
}

const greet = ({ auth, version }: Hello, { makeNonce }: Surroundings): Transition => {
  if (!isSupported(version)) return refuse("unsupported-version", 'version must be "2.0"')
  switch (auth.method) {
    case "key":
    case "enrol": {
      const nonce = makeNonce()
      return { state: { _tag: "Challenged", nonce, evidence: auth }, step: { _tag: "Challenge", nonce } }
    }
    default:
      return { state: { _tag: "Deciding", key: undefined }, step: { _tag: "Decide", evidence: auth } }
  }
}

const prove = (
  { evidence, nonce }: Extract<State, { readonly _tag: "Challenged" }>,
  signature: string,
  { channel }: Surroundings
): Transition => {
  const { method, publicKey } = evidence
  return Proof.verify({ purpose: method, nonce, publicKey, channel: channel() }, signature)
    ? { state: { _tag: "Deciding", key: { publicKey, nonce } }, step: { _tag: "Decide", evidence } }
    : refuse("proof-invalid", "the signature is not that of this key over this challenge on this connection")
}

/** What was shown holds, or it does not. */
export const decided = (state: State, holds: boolean): State => {
  if (!holds || state._tag !== "Deciding") return ended
  return state.key === undefined ? welcomed : { _tag: "Welcomed", key: state.key }
}

/** Why the key of the session is not replaced by another; undefined when both keys have signed. */
export const refuseRotation = (
  state: State,
  { proof, publicKey, signature }: Rotate,
  { channel }: Surroundings
): Extract<Step, { readonly _tag: "Refuse" }> | undefined => {
  const key = state._tag === "Welcomed" ? state.key : undefined
  if (key === undefined) {
    return { _tag: "Refuse", code: "protocol-not-allowed", message: "only a session that has proved a key replaces it" }
  }
  const claim = { nonce: key.nonce, publicKey, channel: channel() }
  return Proof.verify({ ...claim, purpose: "rotate" }, signature, key.publicKey) &&
    Proof.verify({ ...claim, purpose: "rotate-new" }, proof)
    ? undefined
    : { _tag: "Refuse", code: "proof-invalid", message: "the old key and the new one have both to sign" }
}

/** From now on the session's key is another. */
export const rotated = (state: State, publicKey: string): State =>
  state._tag === "Welcomed" && state.key !== undefined ? { ...state, key: { ...state.key, publicKey } } : state
