/**
 * The first frames of a connection: who we are, proven in the way that the
 * options allow.
 *
 * A key that a server has confirmed speaks for itself. One that none has
 * confirmed is enrolled with the token; the answer may have been lost, so the
 * same key with the same token is the same identity for the server. Leaves to
 * others: what comes after `welcome`.
 */
import * as Message from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Effect from "effect/Effect"
import { type Connection, ConnectionLost } from "./Connection.ts"
import type { Key, NextKey } from "./KeyStore.ts"

/** What the options give to prove ourselves with. */
export interface Credentials {
  readonly key: Key | undefined
  readonly token: string | undefined
  /** There is a client certificate for connections with TLS. */
  readonly certificate: boolean
}

/** The server said no during the handshake. */
export class HandshakeRefused extends Error {
  readonly _tag = "HandshakeRefused"
  readonly frame: Message.ErrorFrame

  constructor(frame: Message.ErrorFrame) {
    super(frame.message)
    this.frame = frame
  }
}

/** The server says that others serve the name. */
export class Redirected extends Error {
  readonly _tag = "Redirected"
  readonly frame: Message.Redirect

  constructor(frame: Message.Redirect) {
    super(`the servers of ${frame.group} serve ${frame.zone}`)
    this.frame = frame
  }
}

/** Ids of the frames of a handshake; requests begin behind them. */
export const helloId = 0
export const proofId = 1
export const firstRequestId = 2

/** How to prove ourselves, of what there is: a key before a certificate before a token. */
export const authOf = ({ certificate, key, token }: Credentials): Message.Auth => {
  if (key !== undefined) {
    return key.identity === undefined && token !== undefined
      ? { method: "enrol", publicKey: key.publicKey, token }
      : { method: "key", publicKey: key.publicKey }
  }
  if (certificate) return { method: "certificate" }
  return token === undefined ? { method: "anonymous" } : { method: "token", token }
}

const sign = (auth: Message.Auth, key: Key, nonce: string, channel: Uint8Array | undefined): string =>
  Proof.sign(
    { purpose: auth.method === "enrol" ? "enrol" : "key", nonce, publicKey: key.publicKey, channel },
    key.privateKey
  )

export interface Welcomed {
  readonly welcome: Message.Welcome
  /** What the key was proven on, and may be replaced on; undefined where there was none. */
  readonly nonce: string | undefined
}

/** The frame that replaces `key` by `next` on a session that has proven `key` on `nonce`. */
export const rotateFrame = (
  connection: Connection,
  { key, next, nonce }: { readonly key: Key; readonly next: NextKey; readonly nonce: string },
  id: number
): Message.Rotate => {
  const claim = { nonce, publicKey: next.publicKey, channel: connection.channel }
  return {
    type: "rotate",
    id,
    publicKey: next.publicKey,
    signature: Proof.sign({ ...claim, purpose: "rotate" }, key.privateKey),
    proof: Proof.sign({ ...claim, purpose: "rotate-new" }, next.privateKey)
  }
}

/** Runs it to `welcome`. */
export const handshake = Effect.fnUntraced(function* (
  connection: Connection,
  auth: Message.Auth,
  key: Key | undefined,
  client: string,
  wanted: { readonly hostname: string; readonly zone: string | undefined }
): Effect.fn.Return<Welcomed, ConnectionLost | HandshakeRefused | Redirected> {
  connection.send({
    type: "hello",
    id: helloId,
    version: Message.version,
    client,
    hostname: wanted.hostname,
    ...(wanted.zone === undefined ? {} : { zone: wanted.zone }),
    auth
  })
  let nonce: string | undefined
  while (true) {
    const message = yield* connection.receive
    switch (message.type) {
      case "welcome":
        if (message.version.split(".")[0] !== "2") {
          return yield* Effect.fail(
            new ConnectionLost(`the server speaks version ${message.version}`, { foreign: true })
          )
        }
        return { welcome: message, nonce }
      case "challenge":
        // One proof for one question: a server that asks again gets nothing more signed.
        if (key === undefined || nonce !== undefined)
          return yield* Effect.fail(new ConnectionLost("a challenge out of turn"))
        nonce = message.nonce
        connection.send({
          type: "proof",
          id: proofId,
          signature: sign(auth, key, message.nonce, connection.channel)
        })
        break
      case "redirect":
        return yield* Effect.fail(new Redirected(message))
      case "error":
        return yield* Effect.fail(new HandshakeRefused(message))
      case "drain":
        return yield* Effect.fail(new ConnectionLost("the server is about to stop"))
      default:
        break
    }
  }
})
