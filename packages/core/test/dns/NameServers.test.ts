import { assert, describe, it } from "@effect/vitest"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect } from "effect"
import * as FakeNameServer from "../harness/FakeNameServer.ts"
import { freePorts } from "../harness/ports.ts"

const name = DomainName.make("web.hosts.test")
const a = (address: string, owner = "web.hosts.test") => ({ type: "A", name: owner, ttl: 60, data: address }) as const

const ask = (respond: FakeNameServer.Respond, type = "A") =>
  Effect.gen(function* () {
    const server = yield* FakeNameServer.start(respond)
    return yield* (yield* NameServers).ask(server, name, type)
  })

const test = (title: string, body: Effect.Effect<void, unknown, NameServers>) =>
  it.live(title, () => Effect.provide(body, NameServers.layerWith({ timeoutMillis: 200, questionsMax: 100 })))

describe("an answer", () => {
  test(
    "has its code, its TTL and its contents, sorted, each once",
    Effect.gen(function* () {
      const answer = yield* ask(() => [{ answers: [a("192.0.2.2"), a("192.0.2.1"), a("192.0.2.2")] }]).pipe(
        Effect.scoped
      )
      assert.deepStrictEqual(answer, {
        rcode: "NOERROR",
        authoritative: true,
        ttlSeconds: 60,
        contents: ["192.0.2.1", "192.0.2.2"]
      })
      const none = yield* ask(() => [{ rcode: "NXDOMAIN", authoritative: false }]).pipe(Effect.scoped)
      assert.deepStrictEqual(none, { rcode: "NXDOMAIN", authoritative: false, ttlSeconds: undefined, contents: [] })
    })
  )

  test(
    "has contents in the text that record sets have, whatever the type",
    Effect.gen(function* () {
      const owner = "web.hosts.test"
      const cases = [
        [{ type: "AAAA", name: owner, data: "2001:0DB8:0:0:0:0:0:1" }, "2001:db8::1"],
        [{ type: "PTR", name: owner, data: "Web.Hosts.test" }, "web.hosts.test."],
        [{ type: "MX", name: owner, data: { preference: 10, exchange: "Mail.test" } }, "10 mail.test."],
        [{ type: "SRV", name: owner, data: { priority: 1, weight: 2, port: 3, target: "x.test" } }, "1 2 3 x.test."],
        [{ type: "TXT", name: owner, data: ['say "hi"', "ü"] }, '"say \\"hi\\"" "\\195\\188"'],
        [
          {
            type: "SOA",
            name: owner,
            data: { mname: "ns1.test", rname: "root.test", serial: 7, refresh: 1, retry: 2, expire: 3, minimum: 4 }
          },
          "ns1.test. root.test. 7 1 2 3 4"
        ]
      ] as const
      for (const [record, text] of cases) {
        const { contents } = yield* ask(() => [{ answers: [structuredClone(record) as never] }], record.type).pipe(
          Effect.scoped
        )
        assert.deepStrictEqual(contents, [text])
      }
    })
  )

  test(
    "is of the name and type asked: what a CNAME leads to is another's",
    Effect.gen(function* () {
      const { contents } = yield* ask(() => [
        {
          answers: [
            { type: "CNAME", name: "web.hosts.test", ttl: 5, data: "other.test" },
            a("192.0.2.9", "other.test"),
            a("192.0.2.1", "WEB.hosts.TEST")
          ]
        }
      ]).pipe(Effect.scoped)
      assert.deepStrictEqual(contents, ["192.0.2.1"])
    })
  )

  test(
    "counts only with our id and our question",
    Effect.gen(function* () {
      const { contents } = yield* ask((question) => [
        { id: 1, answers: [a("192.0.2.66")] },
        { question: { ...question, name: "else.hosts.test" }, answers: [a("192.0.2.67")] },
        { question: { ...question, type: "AAAA" }, answers: [a("192.0.2.68")] },
        { answers: [a("192.0.2.1")] }
      ]).pipe(Effect.scoped)
      assert.deepStrictEqual(contents, ["192.0.2.1"])
    })
  )

  test(
    "that does not fit is fetched over TCP",
    Effect.gen(function* () {
      const many = Array.from({ length: 200 }, (_, i) => a(`192.0.2.${i}`))
      const { contents } = yield* ask((_, over) => (over === "udp" ? [{ truncated: true }] : [{ answers: many }])).pipe(
        Effect.scoped
      )
      assert.strictEqual(contents.length, 200)
    })
  )

  test(
    "is asked for once more when a datagram is lost",
    Effect.gen(function* () {
      let lost = 0
      const { contents } = yield* ask(() => (lost++ === 0 ? [] : [{ answers: [a("192.0.2.1")] }])).pipe(Effect.scoped)
      assert.deepStrictEqual(contents, ["192.0.2.1"])
      assert.strictEqual(lost, 2)
    })
  )
})

describe("no answer", () => {
  test(
    "is said of a server that is silent, one where nobody listens, and one that closes the connection",
    Effect.gen(function* () {
      const servers = yield* NameServers
      const silent = yield* Effect.flip(ask(() => [])).pipe(Effect.scoped)
      assert.strictEqual(silent.reason, "silent")
      const [port = 0] = yield* freePorts(1)
      const unreachable = yield* Effect.flip(servers.ask({ host: "127.0.0.1", port }, name, "A"))
      assert.strictEqual(unreachable.reason, "unreachable")
      assert.include(unreachable.message, `127.0.0.1:${port} to web.hosts.test. A`)
      const garbled = yield* Effect.flip(
        ask((_, over) => (over === "udp" ? [{ truncated: true }] : [{ id: 1 }, { truncated: true }]))
      ).pipe(Effect.scoped)
      assert.strictEqual(garbled.reason, "garbled")
      const nameless = yield* Effect.flip(servers.ask({ host: "no-such-host.invalid", port }, name, "A"))
      assert.strictEqual(nameless.reason, "unreachable")
    })
  )

  test(
    "is said at once when too many questions are under way, and there is room again when they end",
    Effect.gen(function* () {
      const servers = yield* NameServers
      let mute = true
      const server = yield* FakeNameServer.start(() => (mute ? [] : [{ answers: [a("192.0.2.1")] }]))
      const reasons = yield* Effect.forEach(
        Array.from({ length: 150 }, (_, i) => DomainName.make(`h${i}.hosts.test`)),
        (each) => Effect.map(Effect.flip(servers.ask(server, each, "A")), ({ reason }) => reason),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(reasons.filter((reason) => reason === "busy").length, 50)
      assert.strictEqual(reasons.filter((reason) => reason === "silent").length, 100)
      mute = false
      assert.strictEqual((yield* servers.ask(server, name, "A")).rcode, "NOERROR")
    }).pipe(Effect.scoped)
  )

  test(
    "of one server does not keep it from being asked when it is back",
    Effect.gen(function* () {
      const servers = yield* NameServers
      let mute = true
      const server = yield* FakeNameServer.start(() => (mute ? [] : [{ answers: [a("192.0.2.1")] }]))
      yield* Effect.flip(servers.ask(server, name, "A"))
      mute = false
      assert.deepStrictEqual((yield* servers.ask(server, name, "A")).contents, ["192.0.2.1"])
    }).pipe(Effect.scoped)
  )
})
