import { assert, describe, it } from "@effect/vitest"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Duration, Effect, Metric, Option } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { registrationDuration } from "../../src/tcp/TcpMetrics.ts"
import { TcpServer } from "../../src/tcp/TcpServer.ts"
import * as Agent from "../harness/AgentClient.ts"
import { address, connect, register, reverse, server, zone } from "./layers.ts"

const recordsAt = (name: string) =>
  Effect.gen(function* () {
    const client = yield* PowerDnsClient
    const owner = DomainName.make(name)
    const found = yield* client.rrsets(name.endsWith("arpa") ? reverse : zone, [owner])
    return found.map(({ contents, type }) => `${type} ${contents.join(" ")}`)
  })

const untilRecords = (name: string, expected: ReadonlyArray<string>) =>
  waitUntil(
    `${name} has ${expected.join(", ") || "no records"}`,
    recordsAt(name),
    (records) => records.join() === expected.join()
  )

const untilNoConnections = Effect.flatMap(TcpServer, (tcp) =>
  waitUntil(
    "no connection is open",
    Effect.sync(() => tcp.connections()),
    (open) => open === 0
  )
)

const writeAll = (client: Agent.AgentClient, chunks: Iterable<Uint8Array>) =>
  Effect.callback<void>((resume) => {
    const remaining = [...chunks]
    const next = () => {
      const chunk = remaining.shift()
      if (chunk === undefined) resume(Effect.void)
      else client.socket.write(chunk, next)
    }
    next()
  })

describe("framing", () => {
  it.live("a registration is answered when its records are applied", () =>
    Effect.gen(function* () {
      const answer = yield* register("Web-1", { from: "127.0.9.1" })
      assert.deepInclude(answer, {
        status: "success",
        host: "web-1.hosts.prism.test.",
        address: "127.0.9.1",
        level: "applied"
      })
      assert.deepStrictEqual(yield* recordsAt("web-1.hosts.prism.test"), ["A 127.0.9.1"])
      assert.deepStrictEqual(yield* recordsAt("1.9.0.127.in-addr.arpa"), ["PTR web-1.hosts.prism.test."])
    }).pipe(Effect.provide(server()))
  )

  it.live("a frame that comes byte by byte is answered", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      yield* writeAll(
        client,
        [...Agent.frame("drip")].map((byte) => new Uint8Array([byte]))
      )
      assert.strictEqual((yield* client.receive())[0]!.host, "drip.hosts.prism.test.")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("several registrations in one segment are answered in order, each answer whole", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      const names = Array.from({ length: 300 }, (_, i) => `many-${i}`)
      client.socket.write(Buffer.concat(names.map((name) => Agent.frame(name))))
      const answers = yield* client.receive(names.length)
      assert.deepStrictEqual(
        answers.map((answer) => answer.host),
        names.map((name) => `${name}.hosts.prism.test.`)
      )
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("one request gets its answer in one read", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      for (let i = 0; i < 20; i++) {
        client.socket.write(Agent.frame("single"))
        yield* client.receive()
      }
      assert.deepStrictEqual(
        client.answersPerChunk,
        Array.from({ length: 20 }, () => 1)
      )
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("65,536 bytes are accepted, and 65,537 are refused from the prefix and the connection closed", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      const padded = Agent.message("large").replace("}", `,"pad":"${"x".repeat(65_536)}`)
      client.socket.write(Wire.encode(`${padded.slice(0, 65_534)}"}`))
      assert.strictEqual((yield* client.receive())[0]!.status, "success")
      client.socket.write(new Uint8Array([0, 1, 0, 1]))
      assert.deepInclude((yield* client.receive())[0], { status: "error", code: "too-large" })
      yield* client.closed
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("a good frame before a bad prefix in one segment is processed", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      client.socket.write(Buffer.concat([Agent.frame("before"), new Uint8Array([0xff, 0xff, 0xff, 0xff])]))
      const answers = yield* client.receive(2)
      assert.deepStrictEqual(
        answers.map((answer) => answer.status),
        ["success", "error"]
      )
      yield* client.closed
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("HTTP and TLS bytes are told what the port speaks, then closed", () =>
    Effect.gen(function* () {
      for (const bytes of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1])]) {
        const client = yield* connect()
        client.socket.write(bytes)
        assert.deepInclude((yield* client.receive())[0], { status: "error", code: "not-prism" })
        yield* client.closed
      }
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("messages", () => {
  it.live("what is wrong with a message is said, and the connection goes on in sync", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      const bad: ReadonlyArray<[string | Uint8Array, string]> = [
        ["", "empty"],
        ["{", "bad-json"],
        ["[]", "not-an-object"],
        ["{}", "invalid"],
        [Agent.message("-bad-"), "invalid"],
        [Agent.message("hosts.prism.test"), "invalid"],
        [Agent.message("x", { version: "3.0" }), "unsupported-version"],
        ["[".repeat(10_000) + "]".repeat(10_000), "not-an-object"]
      ]
      for (const [payload] of bad) client.socket.write(Wire.encode(payload as string))
      client.socket.write(new Uint8Array([0, 0, 0, 1, 0xff]))
      client.socket.write(Agent.frame("fine"))
      const answers = yield* client.receive(bad.length + 2)
      assert.deepStrictEqual(
        answers.map((answer) => answer.code ?? answer.status),
        [...bad.map(([, code]) => code), "bad-utf8", "success"]
      )
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("10,000 random frames are refused without harm, and a good client beside them notices nothing", () =>
    Effect.gen(function* () {
      const good = yield* connect()
      let seed = 7
      const random = (below: number) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
        return seed % below
      }
      for (let round = 0; round < 10; round++) {
        const client = yield* connect()
        for (let i = 0; i < 1000; i++) {
          const payload = Uint8Array.from({ length: random(60) }, () => random(256))
          client.socket.write(Buffer.concat([new Uint8Array([0, 0, 0, payload.length]), payload]))
        }
        good.socket.write(Agent.frame("good"))
        assert.strictEqual((yield* good.receive())[0]!.status, "success")
        const answers = yield* client.receive(1000)
        assert.isTrue(answers.every((answer) => answer.status === "error"))
        client.socket.destroy()
      }
      good.socket.destroy()
      yield* untilNoConnections
    }).pipe(Effect.scoped, Effect.provide(server()))
  )
})

describe("tokens", () => {
  const mode = (value: "off" | "optional" | "required", anonymous = { ratePerSecond: 1e6, burst: 1e6 }) =>
    server({ mode: value }, { zone: undefined, ...anonymous })

  it.live("required: without one or with a wrong one nothing is registered, and the connection stays usable", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      client.socket.write(Agent.frame("t"))
      client.socket.write(Agent.frame("t", { auth_token: "bad" }))
      client.socket.write(Agent.frame("t", { auth_token: "admin" }))
      client.socket.write(Agent.frame("t", { auth_token: "good" }))
      const answers = yield* client.receive(4)
      assert.deepStrictEqual(
        answers.map((answer) => answer.code ?? answer.status),
        ["token-missing", "token-invalid", "token-not-allowed", "success"]
      )
      const registry = yield* Registry
      const host = yield* registry.findByName(DomainName.make("t.hosts.prism.test"))
      assert.strictEqual(Option.getOrThrow(host).owner, "rack-7")
    }).pipe(Effect.scoped, Effect.provide(mode("required")))
  )

  it.live("optional: a wrong token is refused, none is anonymous", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* register("t", { fields: { auth_token: "bad" } })).code, "token-invalid")
      assert.strictEqual((yield* register("t")).status, "success")
    }).pipe(Effect.provide(mode("optional")))
  )

  it.live("optional: a name registered with a token is not taken by a host without one", () =>
    Effect.gen(function* () {
      yield* register("mine", { fields: { auth_token: "good" }, from: "127.0.9.1" })
      assert.strictEqual((yield* register("mine", { from: "127.0.9.2" })).code, "hostname-taken")
      assert.deepStrictEqual(yield* recordsAt("mine.hosts.prism.test"), ["A 127.0.9.1"])
    }).pipe(Effect.provide(mode("optional")))
  )

  it.live("optional: hosts without a token are held to a rate, and their beats are not", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* register("one")).status, "success")
      assert.deepInclude(yield* register("two"), { status: "error", code: "rate-limited", retryAfterSeconds: 100 })
      assert.strictEqual((yield* register("one")).message, "lease renewed")
    }).pipe(Effect.provide(mode("optional", { ratePerSecond: 0.01, burst: 1 })))
  )

  it.live("optional: nor are the beats that ask the registry, as after a restart", () =>
    Effect.gen(function* () {
      const leases = yield* Leases
      for (const name of ["one", "two"]) assert.strictEqual((yield* register(name)).status, "success")
      for (const name of ["one", "two", "one", "two"]) {
        leases.drop(DomainName.make(`${name}.hosts.prism.test`), Number.MAX_SAFE_INTEGER)
        assert.strictEqual((yield* register(name)).message, "lease renewed")
      }
      assert.strictEqual((yield* register("three")).status, "success")
      assert.strictEqual((yield* register("four")).code, "rate-limited")
    }).pipe(Effect.provide(mode("optional", { ratePerSecond: 0.01, burst: 3 })))
  )
})

describe("connections", () => {
  it.live(
    "clients that close, reset or half-close right after sending are processed, and nothing is left of them",
    () =>
      Effect.gen(function* () {
        const to = yield* address
        yield* Effect.forEach(
          Array.from({ length: 300 }, (_, i) => i),
          (i) => {
            const from = `127.0.${8 + (i >> 7)}.${1 + (i & 127)}`
            const bytes = Agent.frame(`gone-${i}`)
            if (i % 3 < 2) return Agent.sendAndClose(to, bytes, i % 3 === 0 ? "fin" : "reset", { from })
            return Effect.gen(function* () {
              const client = yield* Agent.connect(to, { from, allowHalfOpen: true })
              client.socket.end(bytes)
              assert.strictEqual((yield* client.receive())[0]!.status, "success")
              // The server ends its side too once it has answered.
              client.socket.end()
              yield* client.closed
            }).pipe(Effect.scoped)
          },
          { concurrency: 20 }
        )
        yield* untilNoConnections
        const registry = yield* Registry
        const hosts = yield* waitUntil(
          "all 300 are registered",
          registry.list({ limit: 1000 }),
          (list) => list.length === 300
        )
        for (const host of hosts) {
          const i = Number(host.hostname.slice(5))
          assert.deepStrictEqual([...host.addresses] as Array<string>, [`127.0.${8 + (i >> 7)}.${1 + (i & 127)}`])
        }
      }).pipe(Effect.provide(server()))
  )

  it.live("a client that drips bytes or says nothing is told after the time limit, then closed", () =>
    Effect.gen(function* () {
      const silent = yield* connect()
      const dripping = yield* connect()
      dripping.socket.write(new Uint8Array([0, 0, 0xff]))
      const timer = setInterval(() => dripping.socket.write(new Uint8Array([0x20])), 20)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
      for (const client of [silent, dripping]) {
        assert.deepInclude((yield* client.receive())[0], { status: "error", code: "timeout" })
        yield* client.closed
      }
    }).pipe(Effect.scoped, Effect.provide(server({ frameTimeout: Duration.millis(300), frameBytesMax: 65_536 })))
  )

  it.live("a client that beats in time stays connected beyond the time limit", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      const startMillis = Date.now()
      while (Date.now() - startMillis < 900) {
        client.socket.write(Agent.frame("steady"))
        assert.strictEqual((yield* client.receive())[0]!.status, "success")
        yield* Effect.sleep("50 millis")
      }
    }).pipe(Effect.scoped, Effect.provide(server({ frameTimeout: Duration.millis(300) })))
  )

  it.live("a connection beyond the limit is told so and closed, and room is made when one leaves", () =>
    Effect.gen(function* () {
      const first = yield* connect()
      first.socket.write(Agent.frame("first"))
      yield* first.receive()
      const second = yield* connect()
      assert.deepInclude((yield* second.receive())[0], { status: "error", code: "capacity" })
      yield* second.closed
      first.socket.destroy()
      yield* untilNoConnections
      assert.strictEqual((yield* register("third")).status, "success")
    }).pipe(Effect.scoped, Effect.provide(server({ connectionsMax: 1 })))
  )

  it.live("a client that sends much and reads nothing is not read from without end", () =>
    Effect.gen(function* () {
      const client = yield* connect()
      client.socket.pause()
      const beat = Buffer.concat(Array.from({ length: 500 }, () => Agent.frame("greedy")))
      yield* waitUntil(
        "the server stops reading",
        Effect.sync(() => {
          for (let i = 0; i < 50 && client.socket.writableLength < 4_000_000; i++) client.socket.write(beat)
          return client.socket.writableLength
        }),
        (unsent) => unsent >= 4_000_000
      )
      assert.strictEqual((yield* register("other", { from: "127.0.9.3" })).status, "success")
    }).pipe(Effect.scoped, Effect.provide(server()))
  )

  it.live("on stop, what was read is answered, and no more is accepted", () =>
    Effect.gen(function* () {
      const { client, reading } = yield* Effect.gen(function* () {
        const to = yield* address
        const memory = yield* PowerDnsMemory
        yield* memory.delayNext("300 millis", "patch")
        const connected = yield* Agent.connect(to)
        connected.socket.write(Agent.frame("last"))
        const registry = yield* Registry
        yield* waitUntil("it is registered", registry.list({ limit: 1 }), (list) => list.length === 1)
        return { client: connected, reading: to }
      }).pipe(Effect.provide(server()))
      assert.deepInclude((yield* client.receive())[0], { status: "success", host: "last.hosts.prism.test." })
      yield* client.closed
      assert.strictEqual((yield* Effect.exit(Agent.connect(reading)))._tag, "Failure")
    }).pipe(Effect.scoped)
  )
})

describe("registrations", () => {
  it.live("a host that moves is answered at its new address, its record replaced and its old PTR gone", () =>
    Effect.gen(function* () {
      yield* register("mover", { from: "127.0.9.1" })
      const answer = yield* register("mover", { from: "127.0.9.2" })
      assert.deepInclude(answer, { address: "127.0.9.2", previousAddress: "127.0.9.1", level: "applied" })
      assert.deepStrictEqual(yield* recordsAt("mover.hosts.prism.test"), ["A 127.0.9.2"])
      assert.deepStrictEqual(yield* recordsAt("2.9.0.127.in-addr.arpa"), ["PTR mover.hosts.prism.test."])
      assert.deepStrictEqual(yield* recordsAt("1.9.0.127.in-addr.arpa"), [])
    }).pipe(Effect.provide(server()))
  )

  it.live("a name that ends in a managed zone is not doubled", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* register("web-2.hosts.prism.test")).host, "web-2.hosts.prism.test.")
      assert.strictEqual((yield* register("a.b")).host, "a.b.hosts.prism.test.")
    }).pipe(Effect.provide(server()))
  )

  it.live("with PowerDNS down a registration succeeds at `accepted`, and is published when it is back", () =>
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("warm-up")
      yield* memory.down
      assert.deepInclude(yield* register("patient", { from: "127.0.9.4" }), { status: "success", level: "accepted" })
      yield* memory.up
      yield* untilRecords("patient.hosts.prism.test", ["A 127.0.9.4"])
    }).pipe(Effect.provide(server({ ackTimeout: Duration.millis(100) })))
  )

  it.live("the time until it is applied and served is counted, also when that comes after the answer", () =>
    Effect.gen(function* () {
      const counts = Effect.map(
        Effect.forEach(["accepted", "applied", "served"], (level) =>
          Metric.value(Metric.withAttributes(registrationDuration, { level }))
        ),
        (states) => states.map(({ count }) => count)
      )
      const memory = yield* PowerDnsMemory
      const acknowledgements = yield* Acknowledgements
      yield* memory.down
      assert.deepInclude(yield* register("late", { from: "127.0.9.5" }), { status: "success", level: "accepted" })
      assert.deepStrictEqual(yield* counts, [1, 0, 0])
      yield* memory.up
      yield* waitUntil("it is counted", counts, ([, applied]) => applied === 1)
      for (const [of, name] of [
        [zone, "late.hosts.prism.test"],
        [reverse, "5.9.0.127.in-addr.arpa"]
      ] as const) {
        acknowledgements.settle(of, DomainName.make(name), 1e9, { _tag: "Served", atMillis: 0, nodes: [] })
      }
      assert.deepStrictEqual(yield* counts, [1, 1, 1])
    }).pipe(
      Effect.provide(server({ ackTimeout: Duration.millis(100) })),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
})
