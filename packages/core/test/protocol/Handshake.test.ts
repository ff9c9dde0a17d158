import { assert, describe, it } from "@effect/vitest"
import * as Handshake from "@prism-dns/core/protocol/Handshake"
import type { AgentMessage, Auth } from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Crypto from "node:crypto"

const makeKey = () => Crypto.generateKeyPairSync("ed25519").privateKey
const key = makeKey()
const publicKey = Proof.exportPublicKey(key)
const other = makeKey()
const nonce = Proof.makeNonce()
const channel = new Uint8Array(32).fill(7)

const plain: Handshake.Surroundings = { makeNonce: () => nonce, channel: () => undefined }
const tls: Handshake.Surroundings = { makeNonce: () => nonce, channel: () => channel }

const hello = (auth: Auth, version = "2.0"): AgentMessage => ({ type: "hello", id: 1, version, auth })
const prove = (claim: Partial<Proof.Claim> = {}, by = key): AgentMessage => ({
  type: "proof",
  id: 2,
  signature: Proof.sign({ purpose: "key", nonce, publicKey, channel: undefined, ...claim }, by)
})
const requests: ReadonlyArray<AgentMessage> = [
  { type: "register", id: 3, hostname: "web-1" },
  { type: "update", id: 3, host: "web-1.hosts.test." },
  { type: "heartbeat", id: 3 },
  { type: "release", id: 3, host: "web-1.hosts.test." },
  { type: "rotate", id: 3, publicKey, signature: "x", proof: "x" }
]

const byKey = { method: "key", publicKey } as const
const enrolling = { method: "enrol", publicKey, token: "t" } as const
const byToken = { method: "token", token: "t" } as const

const challenged = (evidence: typeof byKey | typeof enrolling): Handshake.State => ({
  _tag: "Challenged",
  nonce,
  evidence
})
const deciding: Handshake.State = { _tag: "Deciding", key: undefined }
const proven = { publicKey, nonce }
const welcomed: Handshake.State = { _tag: "Welcomed", key: undefined }
const ended: Handshake.State = { _tag: "Ended" }

type Row = readonly [
  what: string,
  state: Handshake.State,
  message: AgentMessage,
  next: Handshake.State,
  step: string,
  surroundings?: Handshake.Surroundings
]

const states = { greeting: Handshake.greeting, challenged: challenged(byKey), deciding, ended }

const table: ReadonlyArray<Row> = [
  ["hello with a key is challenged", Handshake.greeting, hello(byKey), challenged(byKey), "Challenge"],
  ["hello that enrols is challenged", Handshake.greeting, hello(enrolling), challenged(enrolling), "Challenge"],
  ["hello with a token is looked at", Handshake.greeting, hello(byToken), deciding, "Decide token"],
  [
    "hello with a certificate too",
    Handshake.greeting,
    hello({ method: "certificate" }),
    deciding,
    "Decide certificate"
  ],
  ["hello with nothing too", Handshake.greeting, hello({ method: "anonymous" }), deciding, "Decide anonymous"],
  ["a later minor version is understood", Handshake.greeting, hello(byToken, "2.7"), deciding, "Decide token"],
  ["version 1 is none", Handshake.greeting, hello(byToken, "1.0"), ended, "Refuse unsupported-version"],
  ["version 3 is none", Handshake.greeting, hello(byToken, "3.0"), ended, "Refuse unsupported-version"],
  ["a version of no form is none", Handshake.greeting, hello(byToken, "2"), ended, "Refuse unsupported-version"],
  [
    "a proof over the challenge is looked at",
    challenged(byKey),
    prove(),
    { _tag: "Deciding", key: proven },
    "Decide key"
  ],
  [
    "a proof for enrolment is looked at",
    challenged(enrolling),
    prove({ purpose: "enrol" }),
    { _tag: "Deciding", key: proven },
    "Decide enrol"
  ],
  [
    "a proof for enrolment is none for a key",
    challenged(byKey),
    prove({ purpose: "enrol" }),
    ended,
    "Refuse proof-invalid"
  ],
  ["a proof for a key is none for enrolment", challenged(enrolling), prove(), ended, "Refuse proof-invalid"],
  ["a proof over another nonce", challenged(byKey), prove({ nonce: Proof.makeNonce() }), ended, "Refuse proof-invalid"],
  ["a proof by another key", challenged(byKey), prove({}, other), ended, "Refuse proof-invalid"],
  ["a proof on TLS", challenged(byKey), prove({ channel }), { _tag: "Deciding", key: proven }, "Decide key", tls],
  ["a proof for plain TCP on TLS", challenged(byKey), prove(), ended, "Refuse proof-invalid", tls],
  [
    "a proof for another channel",
    challenged(byKey),
    prove({ channel: new Uint8Array(32) }),
    ended,
    "Refuse proof-invalid",
    tls
  ],
  ["a proof without a challenge", Handshake.greeting, prove(), ended, "Refuse protocol-not-allowed"],
  ["a second proof", { _tag: "Deciding", key: proven }, prove(), ended, "Refuse protocol-not-allowed"],
  ["a proof after the welcome", welcomed, prove(), ended, "Refuse protocol-not-allowed"],
  ["a second hello before the proof", challenged(byKey), hello(byKey), ended, "Refuse protocol-not-allowed"],
  ["a second hello after the welcome", welcomed, hello(byToken), ended, "Refuse protocol-not-allowed"],
  ...requests.map((message): Row => [`${message.type} after the welcome`, welcomed, message, welcomed, "Take"]),
  ...Object.entries(states).flatMap(([name, state]) =>
    requests.map((message): Row => [
      `${message.type} while ${name}`,
      state,
      message,
      ended,
      "Refuse protocol-not-allowed"
    ])
  )
]

describe("the handshake", () => {
  it.each(table.map((row) => [row[0], row] as const))("%s", (_, row) => {
    const [, state, message, next, expected, surroundings = plain] = row
    const transition = Handshake.receive(state, message, surroundings)
    const { step } = transition
    const said = step._tag === "Refuse" ? ` ${step.code}` : step._tag === "Decide" ? ` ${step.evidence.method}` : ""
    assert.deepStrictEqual(transition.state, next)
    assert.strictEqual(`${step._tag}${said}`, expected)
  })

  it("ends with a welcome when what was shown holds, and else for good", () => {
    assert.deepStrictEqual(Handshake.decided({ _tag: "Deciding", key: proven }, true), {
      _tag: "Welcomed",
      key: proven
    })
    assert.deepStrictEqual(Handshake.decided(deciding, true), welcomed)
    assert.deepStrictEqual(Handshake.decided(deciding, false), ended)
    assert.deepStrictEqual(Handshake.decided(Handshake.greeting, true), ended)
  })
})

describe("a rotation", () => {
  const next = Proof.exportPublicKey(other)
  const claim = { nonce, publicKey: next, channel: undefined }
  const rotate = (signature: string, proof: string) =>
    ({ type: "rotate", id: 4, publicKey: next, signature, proof }) as const
  const old = Proof.sign({ ...claim, purpose: "rotate" }, key)
  const fresh = Proof.sign({ ...claim, purpose: "rotate-new" }, other)
  const open: Handshake.State = { _tag: "Welcomed", key: proven }
  const codeOf = (state: Handshake.State, message: ReturnType<typeof rotate>, surroundings = plain) =>
    Handshake.refuseRotation(state, message, surroundings)?.code

  it("needs both signatures, over this session's nonce and channel", () => {
    assert.isUndefined(codeOf(open, rotate(old, fresh)))
    assert.strictEqual(codeOf(open, rotate(fresh, fresh)), "proof-invalid")
    assert.strictEqual(codeOf(open, rotate(old, old)), "proof-invalid")
    assert.strictEqual(codeOf(open, rotate(old, fresh), tls), "proof-invalid")
    assert.strictEqual(
      codeOf({ _tag: "Welcomed", key: { ...proven, nonce: "n" } }, rotate(old, fresh)),
      "proof-invalid"
    )
  })

  it("is for sessions that have proved a key", () => {
    assert.strictEqual(codeOf(welcomed, rotate(old, fresh)), "protocol-not-allowed")
  })

  it("leaves the session with the new key: the old one signs no other", () => {
    const after = Handshake.rotated(open, next)
    assert.deepStrictEqual(after, { _tag: "Welcomed", key: { publicKey: next, nonce } })
    assert.strictEqual(codeOf(after, rotate(old, fresh)), "proof-invalid")
    assert.deepStrictEqual(Handshake.rotated(welcomed, next), welcomed)
  })
})
