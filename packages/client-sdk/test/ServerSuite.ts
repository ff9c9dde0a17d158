/**
 * What an agent may rely on of any server, frame by frame: the fake of the test
 * kit and the real one run it.
 *
 * Leaves out what only one of them can do: DNS, policy, quotas, faults.
 */
import { assert } from "@effect/vitest"
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Effect, type Scope } from "effect"
import * as AgentV2 from "../../server/test/harness/AgentV2.ts"

/** A server that runs. */
export interface Server {
  readonly address: { readonly host: string; readonly port: number }
  /** May be sent as it is, and may enrol. */
  readonly token: string
  /** The zone that is meant where none is said, with its final dot. */
  readonly zone: string
}

/** The name of a host of this suite: each test has its own. */
let names = 0
const nextName = () => `suite-${process.pid}-${(names += 1)}`

type Message = MessageV2.ServerMessage

const isAck = (message: Message): message is MessageV2.Ack => message.type === "ack"
const levelsOf = (messages: ReadonlyArray<Message>) => messages.filter(isAck).map(({ level }) => level)

const open = Effect.fnUntraced(function* (
  server: Server,
  auth: MessageV2.Auth = { method: "token", token: server.token }
) {
  const agent = yield* AgentV2.connect(server.address)
  const welcome = yield* agent.hello(auth)
  if (welcome.type !== "welcome") return yield* Effect.fail(new Error(`no welcome: ${JSON.stringify(welcome)}`))
  return { agent, welcome }
})

const enrol = Effect.fnUntraced(function* (server: Server, key = AgentV2.makeKey()) {
  const agent = yield* AgentV2.connect(server.address)
  const publicKey = Proof.exportPublicKey(key)
  const challenge = yield* agent.hello({ method: "enrol", publicKey, token: server.token })
  assert.strictEqual(challenge.type, "challenge")
  if (challenge.type === "challenge") agent.prove(challenge, key, "enrol")
  return { agent, key, publicKey, welcome: yield* agent.expect("welcome") }
})

/** Proves a key, and gives what comes of it. */
const prove = Effect.fnUntraced(function* (server: Server, key: ReturnType<typeof AgentV2.makeKey>, by = key) {
  const agent = yield* AgentV2.connect(server.address)
  const challenge = yield* agent.hello({ method: "key", publicKey: Proof.exportPublicKey(key) })
  if (challenge.type !== "challenge") return { agent, answer: challenge }
  const claim = {
    purpose: "key" as const,
    nonce: challenge.nonce,
    publicKey: Proof.exportPublicKey(key),
    channel: undefined
  }
  agent.send({ type: "proof", id: agent.nextId(), signature: Proof.sign(claim, by) })
  const [answer] = yield* agent.receive()
  return { agent, answer: answer! }
})

const assertRefused = (message: Message, code: string, fields: { readonly closing?: boolean } = {}) => {
  assert.deepInclude(message, { type: "error", code, retryable: false, ...fields })
}

/** Makes a test of a sentence and of what it does with a server. */
export type Test = (title: string, body: (server: Server) => Effect.Effect<unknown, unknown, Scope.Scope>) => void

export const suite = (name: string, make: Test) => {
  const test: Test = (title, body) => make(`${name}: ${title}`, body)

  test("welcomes a bearer token with what an agent has to know", (server) =>
    Effect.gen(function* () {
      const { welcome } = yield* open(server)
      assert.deepInclude(welcome, { version: "2.0", observedAddress: "127.0.0.1" })
      assert.strictEqual(welcome.identity.kind, "token")
      assert.strictEqual(welcome.zones[0], server.zone)
      assert.isAbove(welcome.lease.durationSeconds, welcome.lease.beatSeconds)
      assert.isAbove(welcome.limits.pipelineMax, 0)
    }))

  test("a register is acknowledged level by level, each once, in order, the one that was asked for as final", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const hostname = nextName()
      const messages = yield* agent.register(hostname, { ack: "served", labels: { rack: "7" } })
      assert.deepStrictEqual(levelsOf(messages), ["accepted", "applied", "served"])
      const [first, , last] = messages.filter(isAck)
      assert.deepInclude(first, {
        host: `${hostname}.${server.zone}`,
        outcome: "created",
        addresses: ["127.0.0.1"]
      })
      assert.strictEqual(last?.final, true)
      assert.isAbove(last?.nodes?.length ?? 0, 0)
    }))

  test("later levels come behind the one that was asked for", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const messages = yield* agent.register(nextName(), { ack: "accepted" })
      assert.deepStrictEqual(levelsOf(messages), ["accepted"])
      assert.deepStrictEqual(levelsOf(yield* agent.receive(2)), ["applied", "served"])
    }))

  test("the same register again is renewed, at the same generation and with the levels it has", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const hostname = nextName()
      const before = (yield* agent.register(hostname, { ack: "served" })).filter(isAck)
      const again = (yield* agent.register(hostname, { ack: "served" })).filter(isAck)
      assert.deepInclude(again[0], { outcome: "renewed", generation: before[0]!.generation })
      assert.deepStrictEqual(levelsOf(again), ["accepted", "applied", "served"])
    }))

  test("an update changes what it names and leaves the rest; the generation grows", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const [created] = (yield* agent.register(nextName(), { ack: "served" })).filter(isAck)
      agent.send({ type: "update", id: agent.nextId(), host: created!.host, ttlSeconds: 45, ack: "accepted" })
      const [changed] = (yield* agent.untilFinal).filter(isAck)
      assert.deepInclude(changed, { outcome: "changed", addresses: ["127.0.0.1"], ttlSeconds: 45 })
      assert.isAbove(changed!.generation, created!.generation)
    }))

  test("an update without a change is renewed", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const [created] = (yield* agent.register(nextName(), { ack: "served" })).filter(isAck)
      agent.send({ type: "update", id: agent.nextId(), host: created!.host, ack: "accepted" })
      const [renewed] = (yield* agent.untilFinal).filter(isAck)
      assert.deepInclude(renewed, { outcome: "renewed", generation: created!.generation })
    }))

  test("a beat is answered, also without a host", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      assert.deepStrictEqual(
        (yield* agent.beat).map(({ type }) => type),
        ["beat"]
      )
      yield* agent.register(nextName(), { ack: "served" })
      assert.deepStrictEqual(
        (yield* agent.beat).map(({ type }) => type),
        ["beat"]
      )
    }))

  test("a release is accepted, and the name is there for a register again", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      const hostname = nextName()
      const [created] = (yield* agent.register(hostname, { ack: "served" })).filter(isAck)
      agent.send({ type: "release", id: agent.nextId(), host: created!.host, ack: "accepted" })
      const [released] = (yield* agent.untilFinal).filter(isAck)
      assert.deepInclude(released, { host: created!.host, outcome: "released", level: "accepted" })
      const again = (yield* agent.register(hostname, { ack: "served" })).filter(isAck)
      assert.deepInclude(again.at(-1), { host: created!.host, level: "served" })
    }))

  test("a host that this session has not registered is `host-unknown`, and the session goes on", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      for (const type of ["update", "release"]) {
        agent.send({ type, id: agent.nextId(), host: `nobody.${server.zone}` })
        const [message] = yield* agent.receive()
        assertRefused(message!, "host-unknown")
      }
      assert.deepStrictEqual(
        (yield* agent.beat).map(({ type }) => type),
        ["beat"]
      )
    }))

  test("what is no message is refused by its id, and the session goes on", (server) =>
    Effect.gen(function* () {
      const { agent } = yield* open(server)
      agent.send({ type: "register", id: 77, hostname: "not_a_name" }, { type: "nonsense", id: 78 })
      const messages = yield* agent.receive(2)
      assertRefused(messages[0]!, "invalid")
      assert.deepInclude(messages[0]!, { id: 77 })
      assertRefused(messages[1]!, "invalid")
      assert.deepStrictEqual(
        (yield* agent.beat).map(({ type }) => type),
        ["beat"]
      )
    }))

  test("anything before hello ends the connection", (server) =>
    Effect.gen(function* () {
      const agent = yield* AgentV2.connect(server.address)
      agent.send({ type: "heartbeat", id: 1 })
      const [message] = yield* agent.receive()
      assertRefused(message!, "protocol-not-allowed", { closing: true })
      yield* agent.client.closed
    }))

  test("a token that is not known ends the connection with its code", (server) =>
    Effect.gen(function* () {
      const agent = yield* AgentV2.connect(server.address)
      assertRefused(yield* agent.hello({ method: "token", token: "nobody's" }), "token-invalid", { closing: true })
      yield* agent.client.closed
    }))

  test("a certificate that is not there ends the connection with its code", (server) =>
    Effect.gen(function* () {
      const agent = yield* AgentV2.connect(server.address)
      assertRefused(yield* agent.hello({ method: "certificate" }), "certificate-missing", { closing: true })
    }))

  test("a key is enrolled with a token, and proves itself from then on", (server) =>
    Effect.gen(function* () {
      const { key, welcome } = yield* enrol(server)
      assert.strictEqual(welcome.identity.kind, "key")
      assert.match(welcome.identity.name, /^i-[a-z2-7]{16}$/)
      const { answer } = yield* prove(server, key)
      assert.deepInclude(answer, { type: "welcome", identity: welcome.identity })
      const again = yield* enrol(server, key)
      assert.strictEqual(again.welcome.identity.name, welcome.identity.name)
    }))

  test("a key that was never enrolled, and a proof by another key, end the connection with their codes", (server) =>
    Effect.gen(function* () {
      const stranger = yield* prove(server, AgentV2.makeKey())
      assertRefused(stranger.answer, "identity-unknown", { closing: true })
      const { key } = yield* enrol(server)
      const forged = yield* prove(server, key, AgentV2.makeKey())
      assertRefused(forged.answer, "proof-invalid", { closing: true })
    }))

  test("a name belongs to its key: another one is refused", (server) =>
    Effect.gen(function* () {
      const owner = yield* enrol(server)
      const hostname = nextName()
      yield* owner.agent.register(hostname, { ack: "accepted" })
      const other = yield* enrol(server)
      const refused = yield* other.agent.register(hostname)
      assert.deepInclude(refused.at(-1)!, { type: "error", code: "hostname-taken" })
    }))

  test("a second session of the same key takes the lease over while the first still holds it", (server) =>
    Effect.gen(function* () {
      const first = yield* enrol(server)
      const hostname = nextName()
      const [created] = (yield* first.agent.register(hostname, { ack: "served" })).filter(isAck)
      const second = yield* prove(server, first.key)
      const [renewed] = (yield* second.agent.register(hostname, { ack: "accepted" })).filter(isAck)
      assert.deepInclude(renewed, { outcome: "renewed", generation: created!.generation })
      first.agent.client.socket.destroy()
      yield* first.agent.client.closed
      const types = (yield* second.agent.beat).map(({ type }) => type)
      assert.notInclude(types, "lease-unknown")
    }))

  test("a key is replaced by one that the old one signs; the old one is refused from then on", (server) =>
    Effect.gen(function* () {
      const { key, welcome } = yield* enrol(server)
      const session = yield* AgentV2.connect(server.address)
      const challenge = yield* session.hello({ method: "key", publicKey: Proof.exportPublicKey(key) })
      if (challenge.type !== "challenge") return assert.fail("no challenge")
      session.prove(challenge, key, "key")
      yield* session.expect("welcome")
      const next = AgentV2.makeKey()
      const publicKey = Proof.exportPublicKey(next)
      const claim = { nonce: challenge.nonce, publicKey, channel: undefined }
      session.send({
        type: "rotate",
        id: session.nextId(),
        publicKey,
        signature: Proof.sign({ ...claim, purpose: "rotate" }, key),
        proof: Proof.sign({ ...claim, purpose: "rotate-new" }, next)
      })
      assert.strictEqual((yield* session.expect("rotated")).publicKey, publicKey)
      const renewed = yield* prove(server, next)
      assert.deepInclude(renewed.answer, { type: "welcome", identity: welcome.identity })
      const old = yield* prove(server, key)
      assertRefused(old.answer, "identity-revoked", { closing: true })
    }))
}
