import { assert, describe, it } from "@effect/vitest"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { authFailures } from "@prism-dns/core/auth/AuthMetrics"
import { Identities } from "@prism-dns/core/auth/Identities"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import type { AckLevel } from "@prism-dns/core/domain/Host"
import type { ServerMessage } from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Metric, Option, Redacted, Scope } from "effect"
import { IpNetwork } from "effect/net"
import { SqlClient } from "effect/sql"
import type * as Crypto from "node:crypto"
import * as Net from "node:net"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Drain } from "../../src/Drain.ts"
import { Presence } from "../../src/Presence.ts"
import { registrations, sessions } from "../../src/tcp/TcpMetrics.ts"
import { TcpServer, type TcpServerOptions } from "../../src/tcp/TcpServer.ts"
import * as Agent from "../harness/AgentClient.ts"
import * as AgentV2 from "../harness/AgentV2.ts"
import { address, register, reverse, server, zone } from "./layers.ts"

const connect = (options?: Agent.ConnectOptions) => Effect.flatMap(address, (to) => AgentV2.connect(to, options))

/** An agent that is welcomed. */
const open = Effect.fnUntraced(function* (options?: Agent.ConnectOptions) {
  const agent = yield* connect(options)
  const welcome = yield* agent.hello({ method: "anonymous" })
  assert.strictEqual(welcome.type, "welcome")
  return agent
})

/** An agent that says hello with a key and proves it; gives the answer. */
const prove = Effect.fnUntraced(function* (
  agent: AgentV2.AgentV2,
  key: Crypto.KeyObject,
  method: "key" | "enrol" = "key",
  token = "good"
) {
  const publicKey = Proof.exportPublicKey(key)
  const challenge = yield* agent.hello(method === "key" ? { method, publicKey } : { method, publicKey, token })
  if (challenge.type !== "challenge") return challenge
  agent.prove(challenge, key, method)
  return (yield* agent.receive())[0]!
})

/** An agent that is welcomed by its key. */
const openByKey = Effect.fnUntraced(function* (
  key: Crypto.KeyObject,
  method: "key" | "enrol" = "key",
  options?: Agent.ConnectOptions
) {
  const agent = yield* connect(options)
  const welcome = yield* prove(agent, key, method)
  if (welcome.type !== "welcome") return assert.fail(JSON.stringify(welcome))
  return { agent, name: welcome.identity.name }
})

const nameOf = (hostname: string) => DomainName.make(`${hostname}.hosts.prism.test`)

/** What of an acknowledgement tells what has become of the change. */
const short = (messages: ReadonlyArray<ServerMessage>) =>
  messages.map((message) =>
    message.type === "ack"
      ? [
          message.level,
          ...(message.outcome === undefined ? [] : [message.outcome]),
          ...(message.final ? ["final"] : [])
        ].join(" ")
      : message.type === "error"
        ? message.code
        : message.type
  )

/** The next `count` answers to requests; levels that come later are passed over. */
const answers = (agent: AgentV2.AgentV2, count: number): Effect.Effect<ReadonlyArray<ServerMessage>, Error> =>
  Effect.gen(function* () {
    const found: Array<ServerMessage> = []
    while (found.length < count) {
      const [message] = yield* agent.receive()
      if (message!.type === "error" || (message!.type === "ack" && message.level === "accepted")) found.push(message)
    }
    return found
  })

const hostOf = (hostname: string) =>
  Effect.flatMap(Registry, (registry) => Effect.map(registry.findByName(nameOf(hostname)), Option.getOrUndefined))

/** The name servers answer with what stands at the names of a host at this address. */
const serve = (hostname: string, lastByte: number) =>
  Effect.map(Acknowledgements, ({ settle }) => {
    const outcome = { _tag: "Served", atMillis: Date.now(), nodes: [{ node: "ns1", atMillis: Date.now() }] } as const
    settle(zone, nameOf(hostname), 1e9, outcome)
    settle(reverse, DomainName.make(`${lastByte}.0.0.127.in-addr.arpa`), 1e9, outcome)
  })

/** Refusals are written at once, and can be looked at. */
const audited = (options: Partial<TcpServerOptions> = {}) => server(options, "open", Refusals.layer({ flushMillis: 5 }))

const untilAudited = (code: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const find = sql<{ actor: string; peer: string; subject: string; reason: string }>`
      SELECT actor, peer, subject, reason FROM audit_entry WHERE action = 'access.refused' ORDER BY sequence`
    const entries = yield* waitUntil(`${code} is audited`, find, (rows) =>
      rows.some(({ reason }) => reason.startsWith(`${code}: `))
    )
    return entries.find(({ reason }) => reason.startsWith(`${code}: `))!
  })

const countOf = (code: string) =>
  Effect.map(Metric.value(Metric.withAttributes(authFailures, { reason: code })), ({ count }) => count)

/** Sessions that are open, by how it was proven who speaks. */
const openOf = (kind: string) =>
  Effect.map(Metric.value(Metric.withAttributes(sessions, { kind })), ({ value }) => value)

/** Metrics of this test alone. */
const counting = Effect.provideServiceEffect(
  Metric.MetricRegistry,
  Effect.sync(() => new Map())
)

describe("a session", () => {
  it.live("is welcomed with what the agent has to know", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      const welcome = yield* agent.hello({ method: "anonymous" })
      assert.deepInclude(welcome, {
        type: "welcome",
        id: 1,
        version: "2.0",
        identity: { name: "anonymous", kind: "anonymous" },
        observedAddress: "127.0.0.1",
        lease: { durationSeconds: 150, beatSeconds: 60 },
        limits: { frameBytesMax: 65_536, pipelineMax: 64, addressesMax: 16, hostsMax: 100 },
        zones: ["hosts.prism.test."]
      })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("registers a host, is told each level once and in order, and beats", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      assert.deepStrictEqual(short(yield* agent.register("web-1")), ["accepted created", "applied final"])
      yield* serve("web-1", 1)
      assert.deepStrictEqual(short(yield* agent.receive()), ["served"])
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 3 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("says which hosts it has, and has no more when they are released or it ends", () => {
    const told: Array<string> = []
    const presence = Layer.succeed(Presence, {
      come: (fqdn) => void told.push(`${fqdn} came`),
      go: (fqdn) => void told.push(`${fqdn} went`),
      find: () => Effect.succeed(undefined)
    })
    return Effect.gen(function* () {
      const agent = yield* open()
      for (const name of ["web-1", "web-2"]) yield* agent.register(name)
      agent.send({ type: "release", id: agent.nextId(), host: `web-1.${zone}` })
      yield* agent.receive()
      assert.deepStrictEqual(told, [`web-1.${zone} came`, `web-2.${zone} came`, `web-1.${zone} went`])
      agent.client.socket.destroy()
      yield* waitUntil(
        "the other went",
        Effect.sync(() => told.at(-1)),
        (last) => last === `web-2.${zone} went`
      )
    }).pipe(Effect.scoped, Effect.provide(server().pipe(Layer.provide(presence))))
  })

  it.live("of a bearer token owns its hosts by the token's name", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      assert.deepInclude(yield* agent.hello({ method: "token", token: "good" }), {
        type: "welcome",
        identity: { name: "rack-7", kind: "token" }
      })
      yield* agent.register("owned")
      assert.strictEqual((yield* hostOf("owned"))?.owner, "rack-7")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is enrolled by a token once, and proves its key from then on", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const first = yield* openByKey(key, "enrol")
      assert.match(first.name, /^i-[a-z2-7]{16}$/)
      yield* first.agent.register("mine")
      const second = yield* openByKey(key)
      assert.strictEqual(second.name, first.name)
      assert.deepStrictEqual(short(yield* second.agent.register("mine")), ["accepted renewed", "applied final"])
      assert.strictEqual((yield* hostOf("mine"))?.owner, first.name)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("and a client of version 1 beside it notice nothing of each other", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      assert.strictEqual((yield* register("old")).status, "success")
      yield* agent.register("new")
      assert.strictEqual((yield* register("old")).message, "lease renewed")
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 3 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("takes over from version 1 what its token registered there", () =>
    Effect.gen(function* () {
      yield* register("veteran", { fields: { auth_token: "good" }, from: "127.0.0.1" })
      const { agent, name } = yield* openByKey(AgentV2.makeKey(), "enrol")
      assert.deepStrictEqual(short(yield* agent.register("veteran")), ["accepted changed", "applied final"])
      assert.strictEqual((yield* hostOf("veteran"))?.owner, name)
    }).pipe(Effect.scoped, Effect.provide(server({ mode: "optional" })))
  )

  it.live("understands frames that arrive byte by byte, and all at once", () =>
    Effect.gen(function* () {
      const messages = [
        { type: "hello", id: 1, version: "2.0", auth: { method: "token", token: "good" } },
        { type: "register", id: 2, hostname: "split", ack: "accepted" },
        { type: "heartbeat", id: 3 }
      ]
      const bytes = Wire.encodeAll(messages.map((message) => JSON.stringify(message)))
      const dripping = yield* connect()
      for (const byte of bytes) dripping.client.socket.write(new Uint8Array([byte]))
      const answers = short(yield* dripping.receive(3))
      assert.strictEqual(answers[0], "welcome")
      assert.includeMembers(answers, ["accepted created final"])
      const atOnce = yield* connect()
      atOnce.client.socket.write(bytes)
      assert.deepStrictEqual(short(yield* atOnce.receive(3)).slice(0, 2), ["welcome", "accepted renewed final"])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("takes messages that are sent behind the proof, once it is known who sent them", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const publicKey = Proof.exportPublicKey(key)
      const agent = yield* connect()
      const challenge = yield* agent.hello({ method: "enrol", publicKey, token: "good" })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      agent.send(
        {
          type: "proof",
          id: 2,
          signature: Proof.sign({ purpose: "enrol", nonce: challenge.nonce, publicKey, channel: undefined }, key)
        },
        { type: "register", id: 3, hostname: "eager", ack: "accepted" },
        { type: "heartbeat", id: 4 }
      )
      assert.deepStrictEqual(short(yield* agent.receive(2)), ["welcome", "accepted created final"])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("whose agent has ended its side is answered to the end, and nothing is left of it", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const publicKey = Proof.exportPublicKey(key)
      const agent = yield* connect({ allowHalfOpen: true })
      const challenge = yield* agent.hello({ method: "enrol", publicKey, token: "good" })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      agent.prove(challenge, key, "enrol")
      agent.send({ type: "register", id: 3, hostname: "half", ack: "accepted" })
      agent.client.socket.end()
      assert.deepStrictEqual(short(yield* agent.receive(2)), ["welcome", "accepted created final"])
      yield* agent.client.closed
      yield* waitUntil("no session is counted", openOf("key"), (open) => open === 0)
    }).pipe(Effect.scoped, Effect.provide(server()), counting)
  )

  it.live("is answered in the order of its requests", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      const names = Array.from({ length: 100 }, (_, i) => `order-${i}`)
      agent.send(...names.map((hostname, i) => ({ type: "register", id: 10 + i, hostname, ack: "accepted" })))
      const accepted: Array<number> = []
      while (accepted.length < names.length) {
        const [message] = yield* agent.receive()
        if (message!.type === "ack" && message.level === "accepted") accepted.push(message.id)
      }
      assert.deepStrictEqual(
        accepted,
        names.map((_, i) => 10 + i)
      )
    }).pipe(Effect.scoped, Effect.provide(server({ pipelineMax: 8 })))
  )

  it.live("is counted while it is open, by how it was proven who speaks", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* openByKey(AgentV2.makeKey(), "enrol")
      assert.deepStrictEqual(yield* Effect.all([openOf("anonymous"), openOf("key"), openOf("token")]), [1, 1, 0])
      agent.client.socket.destroy()
      yield* waitUntil("it is not counted", openOf("anonymous"), (open) => open === 0)
    }).pipe(Effect.scoped, Effect.provide(server()), counting)
  )
})

describe("whoever is refused", () => {
  const key = AgentV2.makeKey()
  const publicKey = Proof.exportPublicKey(key)

  /** Sends something that is refused before the welcome; gives the error. */
  const refused = Effect.fnUntraced(function* (act: (agent: AgentV2.AgentV2) => Effect.Effect<unknown, Error>) {
    const agent = yield* connect()
    yield* act(agent)
    const error = yield* agent.expect("error")
    assert.deepInclude(error, { closing: true, retryable: false })
    yield* agent.client.closed
    return error.code
  }, Effect.scoped)

  const hello = (auth: object) => (agent: AgentV2.AgentV2) =>
    Effect.sync(() => agent.send({ type: "hello", id: 1, version: "2.0", auth }))

  const cases: ReadonlyArray<
    readonly [what: string, code: string, act: Parameters<typeof refused>[0], subject: string]
  > = [
    ["proves nothing", "protocol-not-allowed", hello({ method: "anonymous" }), ""],
    ["has a token that is none", "token-invalid", hello({ method: "token", token: "bad" }), ""],
    ["has an administrator's token", "token-not-allowed", hello({ method: "token", token: "admin" }), ""],
    ["has no certificate", "certificate-missing", hello({ method: "certificate" }), ""],
    [
      "has a key that nobody enrolled",
      "identity-unknown",
      (agent) =>
        Effect.flatMap(agent.hello({ method: "key", publicKey }), (challenge) =>
          Effect.sync(() => challenge.type === "challenge" && agent.prove(challenge, key, "key"))
        ),
      Proof.fingerprint(publicKey)
    ],
    [
      "does not hold its key",
      "proof-invalid",
      (agent) =>
        Effect.flatMap(agent.hello({ method: "key", publicKey }), (challenge) =>
          Effect.sync(() => challenge.type === "challenge" && agent.prove(challenge, AgentV2.makeKey(), "key"))
        ),
      ""
    ],
    [
      "enrols with a token that is none",
      "token-invalid",
      (agent) =>
        Effect.flatMap(agent.hello({ method: "enrol", publicKey, token: "bad" }), (challenge) =>
          Effect.sync(() => challenge.type === "challenge" && agent.prove(challenge, key, "enrol"))
        ),
      Proof.fingerprint(publicKey)
    ],
    [
      "registers before the welcome",
      "protocol-not-allowed",
      (agent) => Effect.sync(() => agent.send({ type: "register", id: 1, hostname: "early" })),
      ""
    ],
    [
      "beats before the welcome",
      "protocol-not-allowed",
      (agent) => Effect.sync(() => agent.send({ type: "heartbeat", id: 1 })),
      ""
    ]
  ]

  it.live.each(cases)("and %s is told %s, closed, audited and counted; nothing is changed", ([, code, act, subject]) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* refused(act), code)
      assert.deepInclude(yield* untilAudited(code), { actor: "unknown", peer: "127.0.0.1", subject })
      assert.strictEqual(yield* countOf(code), 1)
      const registry = yield* Registry
      assert.deepStrictEqual(yield* registry.list({ limit: 10 }), [])
      assert.deepStrictEqual(yield* (yield* Identities).list({}, { limit: 10 }), [])
    }).pipe(Effect.provide(audited({ mode: "required" })), counting)
  )

  it.live("a proof that is sent again on another connection is refused", () =>
    Effect.gen(function* () {
      const { name } = yield* openByKey(key, "enrol")
      const eavesdropped = yield* connect()
      const challenge = yield* eavesdropped.hello({ method: "key", publicKey })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      const claim = { purpose: "key", nonce: challenge.nonce, publicKey, channel: undefined } as const
      const proof = { type: "proof", id: 2, signature: Proof.sign(claim, key) }
      eavesdropped.send(proof)
      assert.deepInclude(yield* eavesdropped.expect("welcome"), { identity: { name, kind: "key" } })
      const code = yield* refused((agent) =>
        Effect.andThen(
          agent.hello({ method: "key", publicKey }),
          Effect.sync(() => agent.send(proof))
        )
      )
      assert.strictEqual(code, "proof-invalid")
      yield* untilAudited("proof-invalid")
    }).pipe(Effect.scoped, Effect.provide(audited()))
  )

  it.live("a nonce is good for one proof", () =>
    Effect.gen(function* () {
      yield* openByKey(key, "enrol")
      const agent = yield* connect()
      const challenge = yield* agent.hello({ method: "key", publicKey })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      agent.prove(challenge, key, "key")
      agent.prove(challenge, key, "key")
      yield* agent.expect("welcome")
      assert.deepInclude(yield* agent.expect("error"), { code: "protocol-not-allowed", closing: true })
      yield* agent.client.closed
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("a second hello, and a message of version 1 after hello, end the session", () =>
    Effect.gen(function* () {
      for (const message of [
        { type: "hello", id: 9, version: "2.0", auth: { method: "anonymous" } },
        JSON.parse(Agent.message("old")) as object
      ]) {
        const agent = yield* open()
        agent.send(message)
        assert.deepInclude(yield* agent.expect("error"), { code: "protocol-not-allowed", closing: true })
        yield* agent.client.closed
      }
      assert.isUndefined(yield* hostOf("old"))
      yield* waitUntil("no session is counted", openOf("anonymous"), (open) => open === 0)
    }).pipe(Effect.scoped, Effect.provide(server()), counting)
  )

  it.live("a hello on a connection of version 1 is a message that version 1 does not know", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      agent.client.socket.write(Agent.frame("old"))
      yield* agent.client.receive()
      agent.send({ type: "hello", id: 1, version: "2.0", auth: { method: "anonymous" } })
      assert.deepInclude((yield* agent.client.receive())[0], { status: "error", code: "unsupported-version" })
      agent.client.socket.write(Agent.frame("old"))
      assert.deepInclude((yield* agent.client.receive())[0], { status: "success" })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("a version that the server does not speak is refused by its code", () =>
    Effect.gen(function* () {
      const code = yield* refused((agent) =>
        Effect.sync(() => agent.send({ type: "hello", id: 1, version: "3.0", auth: { method: "anonymous" } }))
      )
      assert.strictEqual(code, "unsupported-version")
    }).pipe(Effect.provide(server()))
  )
})

describe("a server without protocol 1", () => {
  const off = (options: Partial<TcpServerOptions> = {}) => audited({ protocol1: false, ...options })

  it.live("refuses version 1 in its words, audited and counted, and registers nothing", () =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(address, (to) => Agent.connect(to))
      client.socket.write(Agent.frame("old", { auth_token: "good" }))
      assert.deepInclude((yield* client.receive())[0], { status: "error", code: "protocol-not-allowed" })
      yield* client.closed
      assert.deepInclude(yield* untilAudited("protocol-not-allowed"), { actor: "unknown", subject: "old" })
      assert.strictEqual(yield* countOf("protocol-not-allowed"), 1)
      assert.isUndefined(yield* hostOf("old"))
    }).pipe(Effect.scoped, Effect.provide(off()), counting)
  )

  it.live("speaks version 2 as ever", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      assert.deepStrictEqual(short(yield* agent.register("new")), ["accepted created", "applied final"])
    }).pipe(Effect.scoped, Effect.provide(off()))
  )

  it.live("says in version 2 what is wrong with bytes of no version", () =>
    Effect.gen(function* () {
      for (const [bytes, code] of [
        [Wire.encode("{"), "bad-json"],
        [Wire.encode("{}"), "invalid"],
        [new Uint8Array([0, 1, 0, 1]), "too-large"],
        [Buffer.from("GET / HTTP/1.1\r\n\r\n"), "not-prism"],
        [Buffer.from("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), "proxy-not-allowed"]
      ] as const) {
        const agent = yield* connect()
        agent.client.socket.write(bytes)
        assert.deepInclude(yield* agent.expect("error"), { code, closing: true })
        yield* agent.client.closed
      }
      yield* untilAudited("proxy-not-allowed")
    }).pipe(Effect.scoped, Effect.provide(off()))
  )

  it.live("tells who is one too many when to come again", () =>
    Effect.gen(function* () {
      yield* open()
      const agent = yield* connect()
      assert.deepInclude(yield* agent.expect("error"), {
        code: "capacity",
        retryable: true,
        retryAfterSeconds: 5,
        closing: true
      })
      yield* agent.client.closed
    }).pipe(Effect.scoped, Effect.provide(off({ connectionsMax: 1 })))
  )
})

describe("a message that cannot be read", () => {
  it.live("is answered with an error of its number, and the session goes on", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      for (const text of [
        "",
        "{",
        "[]",
        "{}",
        '{"type":"dance","id":7}',
        '{"type":"register","id":7,"hostname":"-"}'
      ]) {
        agent.client.socket.write(Wire.encode(text))
      }
      const errors = yield* agent.receive(6)
      assert.deepStrictEqual(
        errors.map((error) => (error.type === "error" ? [error.code, error.id, error.closing] : error)),
        [
          ["empty", undefined, undefined],
          ["bad-json", undefined, undefined],
          ["not-an-object", undefined, undefined],
          ["invalid", undefined, undefined],
          ["invalid", 7, undefined],
          ["invalid", 7, undefined]
        ]
      )
      assert.strictEqual((yield* agent.beat).length, 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("a length that is too large, or a PROXY header, is answered and the connection closed", () =>
    Effect.gen(function* () {
      for (const [bytes, code] of [
        [new Uint8Array([0, 1, 0, 1]), "too-large"],
        [Buffer.from("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), "proxy-not-allowed"],
        [Buffer.from("\r\n\r\n\0\r\nQUIT\n"), "proxy-not-allowed"]
      ] as const) {
        const agent = yield* open()
        agent.client.socket.write(bytes)
        assert.deepInclude(yield* agent.expect("error"), { code, closing: true })
        yield* agent.client.closed
      }
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("levels", () => {
  it.live("come behind the answer, the one that was asked for is final, and later ones still come", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      const expected: Readonly<Record<AckLevel, ReadonlyArray<string>>> = {
        accepted: ["accepted created final", "applied", "served"],
        applied: ["accepted created", "applied final", "served"],
        served: ["accepted created", "applied", "served final"]
      }
      for (const [ack, levels] of Object.entries(expected)) {
        agent.send({ type: "register", id: agent.nextId(), hostname: ack, ack })
        const first = yield* agent.receive(2)
        yield* serve(ack, 1)
        assert.deepStrictEqual(short([...first, ...(yield* agent.receive())]), levels)
      }
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("say when, and how long it took; those that were there before took no time", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* agent.register("timed")
      yield* serve("timed", 1)
      const [served] = yield* agent.receive()
      assert.deepStrictEqual(served?.type === "ack" && served.nodes?.map(({ node }) => node), ["ns1"])
      const again = yield* agent.register("timed", { ack: "applied" })
      const [accepted, applied] = again
      if (accepted?.type !== "ack" || applied?.type !== "ack") return assert.fail(JSON.stringify(again))
      assert.deepInclude(accepted, { outcome: "renewed", addresses: ["127.0.0.1"], ttlSeconds: 60 })
      assert.strictEqual(applied.elapsedMillis, 0)
      assert.isAtMost(Date.parse(applied.at), Date.parse(accepted.at))
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("of a registration that changes nothing come without a transaction of the registry", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const generation = Effect.map(sql`SELECT value FROM registry_generation`, ([row]) => row)
      const first = yield* open()
      yield* first.register("known", { labels: { rack: "7" } })
      const before = yield* generation
      const second = yield* open()
      const again = yield* second.register("known", { labels: { rack: "7" } })
      assert.deepStrictEqual(short(again), ["accepted renewed", "applied final"])
      assert.deepStrictEqual(yield* generation, before)
      yield* second.register("known", { labels: { rack: "8" } })
      assert.notDeepEqual(yield* generation, before)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("of a registration that changes nothing are those of the change that is under way", () =>
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const first = yield* open()
      yield* first.register("warm-up")
      yield* memory.down
      yield* first.register("late", { ack: "accepted" })
      const second = yield* open()
      assert.deepStrictEqual(short(yield* second.register("late", { ack: "accepted" })), ["accepted renewed final"])
      yield* memory.up
      assert.deepStrictEqual(short(yield* first.receive()), ["applied"])
      assert.deepStrictEqual(short(yield* second.receive()), ["applied"])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("of a registration that changes nothing are waited for by nobody once its session is gone", () =>
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const waiting = Effect.sync(() => acknowledgements.size("served"))
      const agent = yield* open()
      // No name server ever says that it is served: the change itself is waited for, for the metric.
      assert.deepStrictEqual(short(yield* agent.register("web-1")), ["accepted created", "applied final"])
      assert.strictEqual(yield* waiting, 1)
      for (let i = 0; i < 3; i++) yield* agent.register("web-1")
      assert.strictEqual(yield* waiting, 4)
      agent.client.socket.destroy()
      yield* waitUntil("what followed it is forgotten", waiting, (tickets) => tickets === 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("end with `parked` when PowerDNS refuses the records", () =>
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const memory = yield* PowerDnsMemory
      const agent = yield* open()
      yield* agent.register("warm-up")
      yield* memory.down
      yield* agent.register("bad", { ack: "accepted" })
      acknowledgements.settle(zone, nameOf("bad"), 1e9, { _tag: "Parked", atMillis: 0, reason: "no such thing" })
      assert.deepStrictEqual(yield* agent.receive(), [
        { type: "parked", id: 3, host: nameOf("bad"), reason: "no such thing" }
      ])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("a registration whose turn has not come", () => {
  it.live("is not written when its connection is gone by then; one that was begun is, and so is one of version 1", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const server = yield* TcpServer
      const done = yield* Deferred.make<void>()
      const held = yield* Effect.forkChild(sql.withTransaction(Deferred.await(done)))
      const begun = yield* open()
      begun.send({ type: "register", id: 3, hostname: "begun", ack: "accepted" })
      // What was sent before somebody else's welcome has been read by then, and the first one taken to its commit.
      yield* open()
      yield* open()
      const left = yield* open()
      left.send({ type: "register", id: 3, hostname: "left", ack: "accepted" })
      const old = yield* Agent.connect(yield* address)
      old.socket.write(Agent.frame("old"))
      yield* open()
      for (const { socket } of [begun.client, left.client, old]) socket.resetAndDestroy()
      yield* waitUntil(
        "their connections are gone",
        Effect.sync(server.connections),
        (connections) => connections === 3
      )
      yield* Deferred.succeed(done, undefined)
      yield* Fiber.join(held)
      const abandoned = Metric.value(Metric.withAttributes(registrations, { result: "abandoned" }))
      yield* waitUntil("it is counted", abandoned, ({ count }) => count === 1)
      yield* waitUntil("the others are there", Effect.all([hostOf("begun"), hostOf("old")]), (hosts) =>
        hosts.every((host) => host !== undefined)
      )
      assert.isUndefined(yield* hostOf("left"))
    }).pipe(Effect.scoped, Effect.provide(server()), counting)
  )

  it.live("is not written when its agent ended its side a while ago, as whoever gives up does; the agent is told", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const done = yield* Deferred.make<void>()
      const held = yield* Effect.forkChild(sql.withTransaction(Deferred.await(done)))
      const begun = yield* open()
      begun.send({ type: "register", id: 3, hostname: "begun", ack: "accepted" })
      yield* open()
      yield* open()
      const agent = yield* open({ allowHalfOpen: true })
      agent.send({ type: "register", id: 3, hostname: "left", ack: "accepted" })
      agent.client.socket.end()
      const endedMillis = performance.now()
      yield* waitUntil(
        "that was a while ago",
        Effect.sync(() => performance.now() - endedMillis),
        (millis) => millis > 2000
      )
      yield* Deferred.succeed(done, undefined)
      yield* Fiber.join(held)
      assert.deepStrictEqual(short(yield* agent.receive()), ["unavailable"])
      yield* waitUntil("the other is there", hostOf("begun"), (host) => host !== undefined)
      assert.isUndefined(yield* hostOf("left"))
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

/** May say any address of the loopback network, and not only that it comes from. */
const fleet = {
  name: "fleet",
  token: Redacted.make("good"),
  role: "agent" as const,
  grant: { ...unlimited, networks: [IpNetwork.fromStringUnsafe("127.0.0.0/8")] }
}

describe("a host of a session", () => {
  it.live("has the addresses, the TTL and the labels that are wished for; what an update leaves out stays", () =>
    Effect.gen(function* () {
      const { agent } = yield* openByKey(AgentV2.makeKey(), "enrol")
      yield* agent.register("wish", { ttlSeconds: 120, labels: { rack: "7" }, addresses: ["127.0.0.1"] })
      assert.deepInclude(yield* hostOf("wish"), {
        ttlSeconds: 120,
        labels: { rack: "7" },
        addresses: [IpAddress.make("127.0.0.1")]
      })
      agent.send({ type: "update", id: agent.nextId(), host: nameOf("wish"), labels: { rack: "8" } })
      assert.deepStrictEqual(short(yield* agent.untilFinal)[0], "accepted changed")
      assert.deepInclude(yield* hostOf("wish"), { ttlSeconds: 120, labels: { rack: "8" } })
      agent.send({ type: "update", id: agent.nextId(), host: nameOf("wish"), ttlSeconds: null, addresses: "observed" })
      yield* agent.untilFinal
      assert.deepInclude(yield* hostOf("wish"), { ttlSeconds: undefined, labels: { rack: "8" } })
      yield* agent.register("wish")
      assert.deepInclude(yield* hostOf("wish"), { ttlSeconds: undefined, labels: {} })
      assert.strictEqual((yield* agent.beat).length, 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is given up at once when it is released, and beats know it no more", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* agent.register("gone")
      agent.send({ type: "release", id: agent.nextId(), host: nameOf("gone") })
      assert.deepStrictEqual(short(yield* agent.untilFinal), ["accepted released", "applied final"])
      assert.strictEqual((yield* hostOf("gone"))?.state, "retired")
      assert.strictEqual((yield* agent.beat).length, 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is as the last of several requests in one go wants it, each made over what those before it left", () =>
    Effect.gen(function* () {
      const { agent } = yield* openByKey(AgentV2.makeKey(), "enrol")
      yield* agent.register("quick", { addresses: ["127.0.0.1"], ack: "accepted" })
      agent.send(
        { type: "register", id: 60, hostname: "quick", addresses: ["127.0.0.2"], ack: "accepted" },
        { type: "update", id: 61, host: nameOf("quick"), labels: { rack: "7" }, ack: "accepted" },
        { type: "update", id: 62, host: nameOf("quick"), ttlSeconds: 90, ack: "accepted" }
      )
      const changed = ["accepted changed final", "accepted changed final", "accepted changed final"]
      assert.deepStrictEqual(short(yield* answers(agent, 3)), changed)
      assert.deepInclude(yield* hostOf("quick"), {
        addresses: [IpAddress.make("127.0.0.2")],
        labels: { rack: "7" },
        ttlSeconds: 90
      })
      agent.send(
        { type: "register", id: 63, hostname: "quick", addresses: ["127.0.0.3"], ack: "accepted" },
        { type: "release", id: 64, host: nameOf("quick"), ack: "accepted" }
      )
      assert.deepStrictEqual(short(yield* answers(agent, 2)), ["accepted changed final", "accepted released final"])
      assert.deepInclude(yield* hostOf("quick"), { state: "retired", addresses: [IpAddress.make("127.0.0.3")] })
    }).pipe(Effect.scoped, Effect.provide(server({}, "open", Refusals.layerNone, { tokens: [fleet] })))
  )

  it.live("may be released again, by a later session of its owner too, and by no other", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const { agent } = yield* openByKey(key, "enrol")
      yield* agent.register("twice")
      const release = { type: "release", id: 40, host: nameOf("twice") }
      const stranger = yield* openByKey(AgentV2.makeKey(), "enrol")
      stranger.agent.send(release)
      assert.deepStrictEqual(short(yield* stranger.agent.receive()), ["host-unknown"])
      const nobody = yield* open()
      nobody.send(release)
      assert.deepStrictEqual(short(yield* nobody.receive()), ["host-unknown"])
      const later = (yield* openByKey(key)).agent
      for (let i = 0; i < 2; i++) {
        later.send(release)
        assert.deepStrictEqual(short(yield* later.untilFinal), ["accepted released", "applied final"])
      }
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("belongs to a session that has no more than it may", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* agent.register("one")
      yield* agent.register("two")
      assert.deepStrictEqual(short(yield* agent.register("three")), ["quota-exceeded"])
      assert.deepStrictEqual(short(yield* agent.register("two")), ["accepted renewed", "applied final"])
    }).pipe(Effect.scoped, Effect.provide(server({ sessionHostsMax: 2 })))
  )

  it.live("belongs to a session that has no more than it may, also where an update brings it", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* connect(), yield* connect()]
      for (const agent of [one, other]) yield* agent.hello({ method: "token", token: "good" })
      yield* one.register("one")
      yield* other.register("other")
      const update = (hostname: string) => {
        other.send({ type: "update", id: 30, host: nameOf(hostname), labels: { rack: "7" } })
        return Effect.map(other.untilFinal, short)
      }
      assert.deepStrictEqual(yield* update("one"), ["quota-exceeded"])
      assert.deepStrictEqual(yield* update("other"), ["accepted changed", "applied final"])
    }).pipe(Effect.scoped, Effect.provide(server({ sessionHostsMax: 1 })))
  )

  it.live("is another's: whoever claims it is told so, audited, and nothing is changed", () =>
    Effect.gen(function* () {
      const { agent, name } = yield* openByKey(AgentV2.makeKey(), "enrol")
      yield* agent.register("claimed")
      const squatter = yield* openByKey(AgentV2.makeKey(), "enrol", { from: "127.0.0.9" })
      // It is free once the other's lease has passed: a machine that was rebuilt goes on asking, and gets it then.
      assert.deepInclude((yield* squatter.agent.register("claimed"))[0], {
        type: "error",
        code: "hostname-taken",
        retryable: true,
        retryAfterSeconds: 60
      })
      assert.deepInclude(yield* untilAudited("hostname-taken"), {
        actor: squatter.name,
        peer: "127.0.0.9",
        subject: nameOf("claimed")
      })
      assert.deepStrictEqual(short(yield* squatter.agent.register("mine", { addresses: ["127.0.0.1"] })), [
        "address-not-allowed"
      ])
      assert.deepStrictEqual(short(yield* squatter.agent.register("wpad")), ["name-reserved"])
      assert.deepInclude(yield* hostOf("claimed"), { owner: name, addresses: [IpAddress.make("127.0.0.1")] })
      assert.isUndefined(yield* hostOf("mine"))
      assert.isUndefined(yield* hostOf("wpad"))
    }).pipe(Effect.scoped, Effect.provide(audited()))
  )
})

describe("an agent that ends its side behind its hello", () => {
  it.live("is answered, then closed, and nothing is left of it", () =>
    Effect.gen(function* () {
      const { connections } = yield* TcpServer
      for (const auth of [{ method: "anonymous" }, { method: "certificate" }, { method: "token", token: "bad" }]) {
        for (const behind of [Buffer.alloc(0), Buffer.from([0xff, 0xff, 0xff, 0xff])]) {
          const agent = yield* connect()
          const hello = Wire.encode(JSON.stringify({ type: "hello", id: 1, version: "2.0", auth }))
          agent.client.socket.end(Buffer.concat([hello, behind]))
          const [first] = yield* agent.receive()
          assert.strictEqual(first!.type, auth.method === "anonymous" ? "welcome" : "error")
          yield* agent.client.closed
        }
      }
      yield* waitUntil(
        "no connection is open",
        Effect.sync(() => connections()),
        (open) => open === 0
      )
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("a beat", () => {
  it.live("names the hosts whose lease is not known any more, once", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* agent.register("kept")
      yield* agent.register("lost")
      ;(yield* Leases).drop(nameOf("lost"), Number.MAX_SAFE_INTEGER)
      assert.deepStrictEqual(yield* agent.beat, [
        { type: "lease-unknown", host: nameOf("lost") },
        { type: "beat", id: 4 }
      ])
      assert.deepStrictEqual(yield* agent.beat, [{ type: "beat", id: 5 }])
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("names a host that was retired, or transferred to someone else", () =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const { agent } = yield* openByKey(AgentV2.makeKey(), "enrol")
      const actor = { name: "ops", peer: undefined }
      yield* agent.register("retired")
      yield* agent.register("given")
      yield* registry.retire(nameOf("retired"), actor, "gone")
      yield* registry.transfer(nameOf("given"), "somebody", actor, "theirs")
      assert.deepStrictEqual(
        (yield* agent.beat).map((message) => (message.type === "lease-unknown" ? message.host : message.type)),
        [nameOf("retired"), nameOf("given"), "beat"]
      )
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is all that a session needs: silent for longer than a frame may take, it lives for one lease", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      assert.deepInclude(yield* agent.expect("error"), {
        code: "timeout",
        message: "nothing was heard for 0.6 s",
        retryable: true,
        closing: true
      })
      yield* agent.client.closed
    }).pipe(
      Effect.scoped,
      Effect.provide(
        server({
          frameTimeout: Duration.millis(100),
          lease: { duration: Duration.millis(600), beatInterval: Duration.millis(200) }
        })
      )
    )
  )
})

describe("who may not go on", () => {
  it.live("is ended at once, by a frame that says why: its key was revoked", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const { agent, name } = yield* openByKey(key, "enrol")
      const other = yield* openByKey(AgentV2.makeKey(), "enrol")
      yield* agent.register("revoked")
      const identities = yield* Identities
      yield* identities.revoke(name, { name: "ops", peer: undefined }, "stolen")
      assert.deepInclude(yield* agent.expect("error"), { code: "identity-revoked", closing: true, retryable: false })
      yield* agent.client.closed
      assert.deepInclude(yield* untilAudited("identity-revoked"), { actor: name, peer: "127.0.0.1", subject: name })
      assert.strictEqual(yield* countOf("identity-revoked"), 1)
      assert.strictEqual((yield* other.agent.beat).length, 1)
      const again = yield* connect()
      assert.deepInclude(yield* prove(again, key), { type: "error", code: "identity-revoked" })
    }).pipe(Effect.scoped, Effect.provide(audited()), counting)
  )

  it.live("is ended when its token has run out", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      yield* agent.hello({ method: "token", token: "good" })
      const message = "the token rack-7 has run out"
      ;(yield* Revocations).announce({ principal: "rack-7", code: "token-expired", message })
      assert.deepInclude(yield* agent.expect("error"), { code: "token-expired", message, closing: true })
      yield* agent.client.closed
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is ended on all its connections", () =>
    Effect.gen(function* () {
      const key = AgentV2.makeKey()
      const first = yield* openByKey(key, "enrol")
      const second = yield* openByKey(key)
      const third = yield* openByKey(key)
      third.agent.client.socket.destroy()
      yield* third.agent.client.closed
      yield* (yield* Identities).revoke(first.name, { name: "ops", peer: undefined }, "stolen")
      for (const { agent } of [first, second]) {
        assert.deepInclude(yield* agent.expect("error"), { code: "identity-revoked" })
        yield* agent.client.closed
      }
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("a key", () => {
  const rotation = (challengeNonce: string, old: Crypto.KeyObject, next: Crypto.KeyObject) => {
    const claim = { nonce: challengeNonce, publicKey: Proof.exportPublicKey(next), channel: undefined }
    return {
      publicKey: claim.publicKey,
      signature: Proof.sign({ ...claim, purpose: "rotate" }, old),
      proof: Proof.sign({ ...claim, purpose: "rotate-new" }, next)
    }
  }

  it.live("is replaced by another that it vouches for, and is never taken again", () =>
    Effect.gen(function* () {
      const [old, next] = [AgentV2.makeKey(), AgentV2.makeKey()]
      const publicKey = Proof.exportPublicKey(old)
      const agent = yield* connect()
      const challenge = yield* agent.hello({ method: "enrol", publicKey, token: "good" })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      agent.prove(challenge, old, "enrol")
      const { identity } = yield* agent.expect("welcome")
      agent.send({ type: "rotate", id: 20, ...rotation(challenge.nonce, next, next) })
      assert.deepInclude(yield* agent.expect("error"), { id: 20, code: "proof-invalid" })
      const good = rotation(challenge.nonce, old, next)
      agent.send({ type: "rotate", id: 21, ...good })
      assert.deepStrictEqual(yield* agent.expect("rotated"), { type: "rotated", id: 21, publicKey: good.publicKey })
      assert.strictEqual((yield* openByKey(next)).name, identity.name)
      assert.deepInclude(yield* prove(yield* connect(), old), { type: "error", code: "identity-revoked" })
      assert.deepInclude(yield* prove(yield* connect(), old, "enrol"), { type: "error", code: "identity-revoked" })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is replaced by no word of a key that was replaced itself, also where a session proved that one before", () =>
    Effect.gen(function* () {
      const [old, next, stolen] = [AgentV2.makeKey(), AgentV2.makeKey(), AgentV2.makeKey()]
      const publicKey = Proof.exportPublicKey(old)
      const proven = Effect.gen(function* () {
        const agent = yield* connect()
        const challenge = yield* agent.hello({ method: "enrol", publicKey, token: "good" })
        if (challenge.type !== "challenge") return assert.fail(challenge.type)
        agent.prove(challenge, old, "enrol")
        return { agent, nonce: challenge.nonce, name: (yield* agent.expect("welcome")).identity.name }
      })
      const [one, other] = [yield* proven, yield* proven]
      one.agent.send({ type: "rotate", id: 20, ...rotation(one.nonce, old, next) })
      yield* one.agent.expect("rotated")
      other.agent.send({ type: "rotate", id: 21, ...rotation(other.nonce, old, stolen) })
      assert.deepInclude(yield* other.agent.expect("error"), { id: 21, code: "identity-revoked" })
      assert.strictEqual((yield* openByKey(next)).name, one.name)
      assert.deepInclude(yield* prove(yield* connect(), stolen), { type: "error", code: "identity-unknown" })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is one key however it is written: one that was replaced does not come back in other letters", () =>
    Effect.gen(function* () {
      const [old, next] = [AgentV2.makeKey(), AgentV2.makeKey()]
      const publicKey = Proof.exportPublicKey(old)
      const agent = yield* connect()
      const challenge = yield* agent.hello({ method: "enrol", publicKey, token: "good" })
      if (challenge.type !== "challenge") return assert.fail(challenge.type)
      agent.prove(challenge, old, "enrol")
      yield* agent.expect("welcome")
      agent.send({ type: "rotate", id: 20, ...rotation(challenge.nonce, old, next) })
      yield* agent.expect("rotated")
      // The last two bits of 43 characters are of no key.
      const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
      const alias = publicKey.slice(0, -1) + alphabet[alphabet.indexOf(publicKey.at(-1)!) + 1]!
      assert.deepStrictEqual(Buffer.from(alias, "base64url"), Buffer.from(publicKey, "base64url"))
      const again = yield* connect()
      assert.deepInclude(yield* again.hello({ method: "enrol", publicKey: alias, token: "good" }), {
        type: "error",
        code: "invalid"
      })
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("is nothing that a token's session could replace", () =>
    Effect.gen(function* () {
      const agent = yield* connect()
      yield* agent.hello({ method: "token", token: "good" })
      agent.send({ type: "rotate", id: 2, ...rotation(Proof.makeNonce(), AgentV2.makeKey(), AgentV2.makeKey()) })
      assert.deepInclude(yield* agent.expect("error"), { id: 2, code: "protocol-not-allowed" })
      assert.strictEqual((yield* agent.beat).length, 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("an agent that takes nothing of what it is sent", () => {
  it.live("is let go, and others are served meanwhile", () =>
    Effect.gen(function* () {
      const deaf = yield* open()
      deaf.client.socket.pause()
      const beat = Wire.encode('{"type":"dance","id":1}')
      const beats = Buffer.concat(Array.from({ length: 500 }, () => beat))
      yield* waitUntil(
        "the server stops reading",
        Effect.sync(() => {
          for (let i = 0; i < 50 && deaf.client.socket.writableLength < 4_000_000; i++) deaf.client.socket.write(beats)
          return deaf.client.socket.writableLength
        }),
        (unsent) => unsent >= 4_000_000
      )
      // Not before: its own lease is as short, and the wait may be longer than that.
      const { agent } = yield* openByKey(AgentV2.makeKey(), "enrol")
      assert.strictEqual((yield* agent.beat).length, 1)
      yield* deaf.client.closed
    }).pipe(
      Effect.scoped,
      Effect.provide(server({ lease: { duration: Duration.seconds(2), beatInterval: Duration.millis(100) } }))
    )
  )
})

describe("a server that drains", () => {
  it.live("tells the sessions that are there, and those that still come", () =>
    Effect.gen(function* () {
      const agent = yield* open()
      yield* (yield* Drain).start
      assert.deepInclude(yield* agent.expect("drain"), { withinSeconds: 3 })
      const late = yield* open()
      yield* late.expect("drain")
      assert.strictEqual((yield* agent.beat).length, 1)
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("answers whom it has sent away until they have gone, also when it takes nobody any more", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(server({}, "open", Refusals.layerNone, { hasOthers: true }), scope)
      const { agent, other } = yield* Effect.gen(function* () {
        const [agent, other] = [yield* open(), yield* open()]
        yield* (yield* Drain).start
        for (const each of [agent, other]) yield* each.expect("drain")
        return { agent, other }
      }).pipe(Effect.provide(context))
      const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      const { host, port } = Context.get(context, TcpServer).address
      yield* waitUntil(
        "nobody is taken any more",
        Effect.callback<boolean>((resume) => {
          const socket = Net.connect({ host, port })
          socket.once("connect", () =>
            resume(
              Effect.as(
                Effect.sync(() => socket.destroy()),
                false
              )
            )
          )
          socket.once("error", () => resume(Effect.succeed(true)))
        }),
        (isRefused) => isRefused
      )
      agent.send({ type: "register", id: 10, hostname: "web", ack: "accepted" })
      assert.deepInclude(yield* agent.expect("ack"), { id: 10, level: "accepted" })
      for (const each of [agent, other]) each.client.socket.end()
      yield* Fiber.join(stopping)
    }).pipe(Effect.scoped)
  )

  it.live(
    "does not carry out what waits for its turn when the agent ends its side: it has gone where it was sent",
    () =>
      Effect.gen(function* () {
        const registry = yield* Registry
        const agent = yield* open({ allowHalfOpen: true })
        yield* (yield* Drain).start
        yield* agent.expect("drain")
        const names = Array.from({ length: 100 }, (_, i) => `gone-${i}`)
        agent.send(...names.map((hostname, i) => ({ type: "register", id: 10 + i, hostname, ack: "accepted" })))
        agent.client.socket.end()
        // Some may have had their turn before.
        let [answer] = yield* agent.receive()
        while (answer!.type === "ack") [answer] = yield* agent.receive()
        assert.deepInclude(answer, { type: "error", code: "unavailable", retryable: true })
        yield* agent.client.closed
        assert.isTrue(Option.isNone(yield* registry.findByName(nameOf("gone-99"))))
      }).pipe(Effect.scoped, Effect.provide(server({ pipelineMax: 8 })))
  )
})
