import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { DnsManager, type DnsManagerOptions } from "@prism-dns/core/dns/DnsManager"
import * as NonTerminals from "@prism-dns/core/dns/NonTerminals"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as Names from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { BackendFailed, Malformed, Unauthorized, Uncertain, Unreachable } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

const manager = (options: Partial<DnsManagerOptions> = {}, zones: ReadonlyArray<Zone.Zone> = T.zones) =>
  T.publisher(options, zones)

const outside = Layer.mergeAll(PowerDnsMemory.layer(), T.sqlite())

type Services =
  | DnsManager
  | Registry
  | Outbox
  | Acknowledgements
  | PowerDnsClient
  | PowerDnsMemory
  | SqlClient.SqlClient

/** Runs on registry, publisher, an empty PowerDNS in memory and an empty database. */
const test = <E>(
  name: string,
  body: Effect.Effect<void, E, Services>,
  options?: Partial<DnsManagerOptions>,
  zones?: ReadonlyArray<Zone.Zone>
) => it.effect(name, () => Effect.provide(body, manager(options, zones).pipe(Layer.provideMerge(outside))))

/** Lets everything run that is to happen within `seconds`. */
const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

/** Contents in PowerDNS at a name, as `TYPE content`, without those of the zone itself. */
const served = (zone: Zone.Zone, name?: DomainName) =>
  Effect.flatMap(PowerDnsClient, (client) =>
    Effect.map(client.exportZone(zone.name), (rrsets) =>
      rrsets
        .filter((each) => (name === undefined ? each.name !== zone.name : each.name === name))
        .flatMap(({ contents, name: at, type }) =>
          contents.map((content) => (name === undefined ? `${at} ${type} ${content}` : `${type} ${content}`))
        )
        .sort()
    )
  )

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

const patches = Effect.flatMap(PowerDnsMemory, (memory) =>
  Effect.map(memory.calls, (calls) => calls.filter(({ operation }) => operation === "patch"))
)

const pending = Effect.flatMap(Outbox, (outbox) => outbox.list({ limit: 10_000 }))

const statusOf = (zone: DomainName) =>
  Effect.flatMap(DnsManager, ({ status }) => Effect.map(status, (all) => all.find((each) => each.zone === zone)!))

describe("publishing", () => {
  it.effect("with a fault of ours says so in the log and the zone's status, and goes on once it is mended", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    return Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      yield* sql`UPDATE published SET content = 'no JSON' WHERE name = ${T.nameOf("web")}`
      lines.length = 0
      yield* register("web", "192.0.2.8")
      yield* pass(10)
      assert.match((yield* statusOf(T.forward.name)).error ?? "", /JSON/)
      yield* sql`UPDATE published SET content = '[]', sent = '*' WHERE name = ${T.nameOf("web")}`
      yield* pass(10)
      assert.deepStrictEqual(lines, [
        "Error publishing failed by a fault of the server, will try again",
        "Info publishing goes on"
      ])
      assert.deepStrictEqual(yield* served(T.forward, T.nameOf("web")), ["A 192.0.2.8"])
    }).pipe(Effect.provide(manager().pipe(Layer.provideMerge(outside), Layer.provide(Logger.layer([logger])))))
  })

  it.effect("held up by an outage is one line in the log, however each attempt fails, and one when it goes on", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    return Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      lines.length = 0
      for (const reason of [
        new Unreachable({ detail: "cannot connect" }),
        new Unreachable({ detail: "left alone for a moment" }),
        new Uncertain({ detail: "no answer within 10s" }),
        new Unreachable({ detail: "cannot connect" })
      ]) {
        yield* memory.failNext(reason, "patch")
      }
      yield* register("web", "192.0.2.8")
      yield* pass(30)
      assert.deepStrictEqual(yield* served(T.forward, T.nameOf("web")), ["A 192.0.2.8"])
      const held = lines.filter((line) => line.includes("held up"))
      const zonesHeld = lines.filter((line) => line.includes("goes on")).length
      assert.strictEqual(held.length, zonesHeld, lines.join("\n"))
      assert.isAtMost(held.length, T.zones.length)
    }).pipe(Effect.provide(manager().pipe(Layer.provideMerge(outside), Layer.provide(Logger.layer([logger])))))
  })

  test(
    "a zone that is gone from PowerDNS comes back with all of its names at the next change, not with that one alone",
    Effect.gen(function* () {
      for (let i = 1; i <= 5; i++) yield* register(`host-${i}`, `192.0.2.${i}`)
      yield* register("left.alone", "192.0.2.6")
      yield* pass(1)
      const before = yield* served(T.forward)
      assert.isAbove(before.length, 5)
      const client = yield* PowerDnsClient
      yield* client.deleteZone(T.forward.name)
      yield* register("host-1", "192.0.2.77")
      yield* pass(5)
      assert.deepStrictEqual(
        yield* served(T.forward),
        before.map((line) => line.replace("A 192.0.2.1", "A 192.0.2.77")).sort()
      )
      assert.deepStrictEqual(yield* pending, [])
    })
  )

  test(
    "a registration becomes A, AAAA and PTR records, its ticket is settled, and nothing is left to do",
    Effect.gen(function* () {
      const { host, ticket } = yield* register("web", ["192.0.2.7", "2001:db8::7"])
      yield* pass(1)
      assert.deepStrictEqual(yield* served(T.forward), [
        "web.hosts.test. A 192.0.2.7",
        "web.hosts.test. AAAA 2001:db8::7"
      ])
      assert.deepStrictEqual(yield* served(T.reverse4), ["7.2.0.192.in-addr.arpa. PTR web.hosts.test."])
      assert.deepStrictEqual(yield* served(T.reverse6, T.pointerOf("2001:db8::7")), ["PTR web.hosts.test."])
      assert.strictEqual((yield* (yield* Acknowledgements).wait(ticket!))._tag, "Applied")
      assert.strictEqual((yield* Acknowledgements).size(), 0)
      assert.deepStrictEqual(yield* pending, [])
      assert.strictEqual((yield* (yield* Registry).publications([host]))[0]?.level, "applied")
      const sent = (yield* patches).length
      yield* pass(60)
      assert.strictEqual((yield* patches).length, sent)
    })
  )

  test(
    "another address replaces the record in one PATCH of one change, and the old pointer goes",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      yield* memory.forgetCalls
      yield* register("web", "192.0.2.8")
      yield* pass(1)
      const sent = yield* patches
      assert.deepStrictEqual(
        sent.filter(({ zone }) => zone === T.forward.name).map(({ changes }) => changes),
        [[{ _tag: "Replace", rrset: RRset.make(T.nameOf("web"), "A", 60, ["192.0.2.8"]) }]]
      )
      assert.strictEqual(sent.length, 2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 192.0.2.8"])
      assert.deepStrictEqual(yield* served(T.reverse4), ["8.2.0.192.in-addr.arpa. PTR web.hosts.test."])
    })
  )

  test(
    "an IPv6 address instead of an IPv4 one comes and goes in the same PATCH",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      yield* memory.forgetCalls
      yield* register("web", "2001:db8::7")
      yield* pass(1)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. AAAA 2001:db8::7"])
      assert.strictEqual((yield* patches).filter(({ zone }) => zone === T.forward.name).length, 1)
    })
  )

  test(
    "a withdrawn host has no records, and is published anew when it returns",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const { ticket } = yield* register("web", "192.0.2.7")
      yield* pass(1)
      yield* sql`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 1`
      yield* outbox.mark(ticket!.places, 1000, 1, "registered")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), [])
      assert.deepStrictEqual(yield* served(T.reverse4), [])
      assert.strictEqual((yield* sql`SELECT name FROM published`).length, 0)
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 192.0.2.7"])
      assert.deepStrictEqual(yield* served(T.reverse4), ["7.2.0.192.in-addr.arpa. PTR web.hosts.test."])
    })
  )

  test(
    "many changes go together in few PATCHes of no more names than the limit",
    Effect.gen(function* () {
      yield* Effect.forEach(
        Array.from({ length: 250 }, (_, i) => i),
        (i) => register(`h${i}`, `192.0.2.${i}`),
        { concurrency: "unbounded" }
      )
      yield* pass(2)
      assert.strictEqual((yield* served(T.forward)).length, 250)
      assert.strictEqual((yield* served(T.reverse4)).length, 250)
      const sent = yield* patches
      assert.isAtMost(sent.length, 8)
      for (const { changes } of sent) assert.isAtMost(changes!.length, 100)
    }),
    { batchNamesMax: 100 }
  )

  test(
    "the first batch of a zone is small, so that it is soon seen to be written",
    Effect.gen(function* () {
      yield* Effect.forEach(
        Array.from({ length: 250 }, (_, i) => i),
        (i) => register(`h${i}`, `192.0.2.${i}`),
        { concurrency: "unbounded" }
      )
      yield* pass(2)
      const sent = yield* patches
      for (const zone of [T.forward.name, T.reverse4.name]) {
        assert.deepStrictEqual(
          sent.filter((patch) => patch.zone === zone).map(({ changes }) => changes!.length),
          [100, 150]
        )
      }
    })
  )

  test(
    "a change that comes while its name is being published is published too",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "192.0.2.7")
      yield* pass(1)
      yield* memory.delayNext("5 seconds", "patch")
      yield* register("web", "192.0.2.8")
      yield* pass(1)
      const { ticket } = yield* register("web", "192.0.2.9")
      yield* pass(10)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 192.0.2.9"])
      assert.deepStrictEqual(yield* served(T.reverse4), ["9.2.0.192.in-addr.arpa. PTR web.hosts.test."])
      assert.strictEqual((yield* (yield* Acknowledgements).wait(ticket!))._tag, "Applied")
      assert.strictEqual((yield* Acknowledgements).size(), 0)
    })
  )
})

const many = Array.from({ length: 500 }, (_, i) => `h${i}`)
const registerMany = Effect.forEach(many, (name) => register(name, "198.51.100.1"), { concurrency: "unbounded" })

describe("a name that PowerDNS refuses", () => {
  test(
    "among 500 is parked with PowerDNS's sentence, and the 499 others are published",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const acknowledgements = yield* Acknowledgements
      yield* memory.refuseName(T.nameOf("h123"), "RRset h123: no such thing here")
      const results = yield* registerMany
      yield* pass(2)
      const names = (yield* served(T.forward)).map((line) => line.split(" ")[0])
      assert.deepStrictEqual(
        names,
        many
          .filter((name) => name !== "h123")
          .map(T.nameOf)
          .sort()
      )
      assert.deepStrictEqual(
        (yield* pending).map(({ name, parkedReason }) => [name, parkedReason]),
        [[T.nameOf("h123"), "RRset h123: no such thing here"]]
      )
      // halving takes about twice the logarithm, not one PATCH for each name
      assert.isAtMost((yield* patches).length, 25)
      const outcome = yield* acknowledgements.wait(results[123]!.ticket!)
      assert.deepStrictEqual(
        { ...outcome, atMillis: 0 },
        {
          _tag: "Parked",
          atMillis: 0,
          reason: "RRset h123: no such thing here"
        }
      )
      assert.strictEqual(acknowledgements.size(), 0)
      assert.isUndefined((yield* statusOf(T.forward.name)).error)
    })
  )

  test(
    "is tried again with its next change, and left alone until then",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* memory.refuseName(T.nameOf("web"), "no")
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      yield* memory.acceptName(T.nameOf("web"))
      const sent = (yield* patches).length
      yield* pass(60)
      assert.strictEqual((yield* patches).length, sent)
      yield* register("web", "198.51.100.2")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.2"])
      assert.deepStrictEqual(yield* pending, [])
    })
  )

  test(
    "at a later address keeps the records it had, and follows once it is accepted",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      yield* memory.refuseName(T.nameOf("web"), "no")
      yield* register("web", "198.51.100.2")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.1"])
      yield* memory.acceptName(T.nameOf("web"))
      yield* register("web", "198.51.100.3")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.3"])
    })
  )

  test(
    "never became ours: a record that someone makes there later stays when the host comes again",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* memory.refuseName(T.nameOf("web"), "no")
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      yield* memory.acceptName(T.nameOf("web"))
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "A", 300, ["203.0.113.1"]))
      yield* register("web", "198.51.100.2")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 203.0.113.1"])
    })
  )
})

describe("a write without an answer", () => {
  test(
    "that takes effect after its name was given up is undone",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const registry = yield* Registry
      yield* register("web", "198.51.100.1")
      yield* pass(1)
      yield* memory.failNext(new Uncertain({ detail: "no answer" }), "patch")
      yield* register("web", "198.51.100.2")
      yield* pass(0.05)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.1"])
      yield* registry.retire(T.nameOf("web"), { name: "ops", peer: undefined }, "broken")
      yield* pass(5)
      assert.deepStrictEqual(yield* served(T.forward), [])
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "A", 60, ["198.51.100.2"]))
      yield* pass(30)
      assert.deepStrictEqual(yield* served(T.forward), [])
    })
  )
})

describe("a placeholder that a late write has left", () => {
  test(
    "goes when its name is written anew; somebody else's text stays",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const outbox = yield* Outbox
      yield* register("web", "198.51.100.1")
      yield* register("db", "198.51.100.2")
      yield* pass(2)
      yield* memory.put(T.forward.name, NonTerminals.placeholder(T.nameOf("web"), T.forward))
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("db"), "TXT", 300, ['"mine"']))
      yield* outbox.recheck(T.forward.name, [T.nameOf("web"), T.nameOf("db")], 1000, "doubt")
      yield* pass(5)
      assert.deepStrictEqual(yield* served(T.forward), [
        "db.hosts.test. A 198.51.100.2",
        'db.hosts.test. TXT "mine"',
        "web.hosts.test. A 198.51.100.1"
      ])
    })
  )
})

describe("a record that Prism did not make", () => {
  test(
    "is not overwritten: the name is parked with a reason that shows it, and its neighbours are published",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "A", 300, ["203.0.113.1"]))
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "AAAA", 300, ["2001:db8:f::1"]))
      yield* register("web", "198.51.100.1")
      yield* register("db", "198.51.100.2")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), [
        "db.hosts.test. A 198.51.100.2",
        "web.hosts.test. A 203.0.113.1",
        "web.hosts.test. AAAA 2001:db8:f::1"
      ])
      const [parked] = yield* pending
      assert.strictEqual(parked?.name, T.nameOf("web"))
      assert.match(parked?.parkedReason ?? "", /^an A record that Prism did not make stands at this name .*; adopt it/)
    })
  )

  test(
    "stays when its name's host, whose records never came there, is given up, and no server is asked for it to go",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const registry = yield* Registry
      const sql = yield* SqlClient.SqlClient
      yield* pass(1)
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "A", 300, ["203.0.113.1"]))
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      const { ticket } = yield* registry.retire(T.nameOf("web"), { name: "ops", peer: undefined }, "broken")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 203.0.113.1"])
      assert.deepStrictEqual(yield* pending, [])
      assert.deepStrictEqual(yield* sql`SELECT name FROM unserved`, [])
      assert.strictEqual(ticket.end?._tag, "Served")
    })
  )

  test(
    "of another type stays beside ours, and stays when ours go",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const sql = yield* SqlClient.SqlClient
      yield* pass(1)
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "TXT", 300, ['"mine"']))
      const { ticket } = yield* register("web", "198.51.100.1")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward, T.nameOf("web")), ["A 198.51.100.1", 'TXT "mine"'])
      yield* sql`UPDATE host SET withdrawn_since = 1`
      yield* (yield* Outbox).mark(ticket!.places, 1000, 1, "registered")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward, T.nameOf("web")), ['TXT "mine"'])
    })
  )

  test(
    "but is just what is wanted is taken for ours",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.put(T.forward.name, RRset.make(T.nameOf("web"), "A", 60, ["198.51.100.1"]))
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      yield* register("web", "198.51.100.2")
      yield* pass(2)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.2"])
    })
  )
})

describe("while PowerDNS fails", () => {
  test(
    "all is accepted and waits; once it is back all records are right, and meanwhile it is not asked in a busy loop",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("old", "192.0.2.1")
      yield* pass(1)
      yield* memory.down
      yield* memory.forgetCalls
      yield* register("old", "192.0.2.2")
      yield* Effect.forEach(many.slice(0, 100), (name, i) => register(name, `192.0.2.${i + 10}`), {
        concurrency: "unbounded"
      })
      yield* pass(60)
      assert.isAtMost((yield* memory.calls).length, 150)
      assert.match((yield* statusOf(T.forward.name)).error ?? "", /cannot connect/)
      assert.isAtLeast((yield* pending).length, 200)
      yield* memory.up
      yield* pass(5)
      assert.strictEqual((yield* served(T.forward)).length, 101)
      assert.strictEqual((yield* served(T.reverse4)).length, 101)
      assert.deepStrictEqual(yield* served(T.forward, T.nameOf("old")), ["A 192.0.2.2"])
      assert.deepStrictEqual(yield* pending, [])
      assert.strictEqual((yield* Acknowledgements).size(), 0)
      assert.isUndefined((yield* statusOf(T.forward.name)).error)
    })
  )

  for (const reason of [
    new BackendFailed({ status: 500, detail: "database is locked" }),
    new Unauthorized({ detail: "the API key is wrong (401)" }),
    new Malformed({ status: 404, detail: "status 404, which PowerDNS does not give here: is this its address?" })
  ]) {
    test(
      `with ${reason._tag} (${reason.detail}) nothing is parked, and all is published when it stops`,
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        yield* pass(1)
        yield* Effect.forEach([1, 2, 3], () => memory.failNext(reason, "patch"))
        yield* register("web", "198.51.100.1")
        yield* register("db", "198.51.100.2")
        yield* pass(10)
        assert.deepStrictEqual(yield* pending, [])
        assert.strictEqual((yield* served(T.forward)).length, 2)
      })
    )
  }

  test(
    "a batch that is too large is halved",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.failNext(new Malformed({ status: 400, detail: "status 400: Bad Request" }), "patch")
      yield* Effect.forEach(many.slice(0, 10), (name) => register(name, "198.51.100.1"), { concurrency: "unbounded" })
      yield* pass(10)
      assert.deepStrictEqual(yield* pending, [])
      assert.strictEqual((yield* served(T.forward)).length, 10)
    })
  )

  test(
    "a PATCH that was applied though nobody said so does no harm",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* pass(1)
      yield* memory.applyThenTimeOut
      yield* register("web", "198.51.100.1")
      yield* pass(5)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.1"])
      assert.deepStrictEqual(yield* pending, [])
    })
  )

  test(
    "a PATCH that was applied though nobody said so is undone when the host has gone back meanwhile",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* register("web", "198.51.100.1")
      yield* pass(1)
      yield* memory.applyThenTimeOut
      yield* memory.delayNext("1 seconds", "patch")
      yield* register("web", "198.51.100.2")
      yield* pass(0.5)
      yield* register("web", "198.51.100.1")
      yield* pass(10)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.1"])
      assert.deepStrictEqual(yield* pending, [])
    })
  )

  test(
    "a PATCH that was applied though nobody said so is undone when the host has been withdrawn meanwhile",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      const sql = yield* SqlClient.SqlClient
      yield* pass(1)
      yield* memory.applyThenTimeOut
      yield* memory.failNext(new Uncertain({ detail: "no answer" }), "rrsets")
      const { ticket } = yield* register("web", "198.51.100.1")
      yield* pass(0.15)
      yield* sql`UPDATE host SET withdrawn_since = 1`
      yield* (yield* Outbox).mark(ticket!.places, 1000, 1, "registered")
      yield* pass(10)
      assert.deepStrictEqual(yield* served(T.forward), [])
      assert.deepStrictEqual(yield* pending, [])
    })
  )
})

const broken = ["one", "two", "three", "four", "five", "six"].map((name) =>
  Zone.make(Names.make(`${name}.broken.test`), { createIfMissing: false })
)
const quiet = Zone.make(Names.make("quiet.test"))

describe("zones", () => {
  test(
    "that are missing and not to be created say so, and hold up no other zone, however many they are",
    Effect.gen(function* () {
      const client = yield* PowerDnsClient
      const outbox = yield* Outbox
      for (const [i, { name }] of broken.entries()) {
        yield* outbox.mark([{ zone: name, name: Names.make(`web.${name}`) }], i + 1, 1, "registered")
      }
      yield* register("web", "192.0.2.7")
      yield* pass(20)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 192.0.2.7"])
      assert.deepStrictEqual(yield* served(T.reverse4), ["7.2.0.192.in-addr.arpa. PTR web.hosts.test."])
      // also one that nothing was registered in
      assert.strictEqual((yield* client.findZone(quiet.name))._tag, "Some")
      for (const { name } of broken) {
        const { error, ready } = yield* statusOf(name)
        assert.isFalse(ready)
        assert.match(error ?? "", /does not exist there; create it, or set 'create: true'/)
      }
      assert.deepStrictEqual(yield* statusOf(T.forward.name), {
        zone: T.forward.name,
        writing: true,
        ready: true,
        error: undefined
      })
    }),
    { zonesAtOnceMax: 2 },
    [...broken, ...T.zones, quiet]
  )

  test(
    "that appear are published to without a restart",
    Effect.gen(function* () {
      const client = yield* PowerDnsClient
      const zone = broken[0]!
      yield* pass(10)
      assert.isFalse((yield* statusOf(zone.name)).ready)
      yield* client.createZone({ name: zone.name, kind: "Native", nameservers: [] })
      yield* pass(10)
      assert.deepStrictEqual(yield* statusOf(zone.name), {
        zone: zone.name,
        writing: true,
        ready: true,
        error: undefined
      })
    }),
    {},
    [...broken.slice(0, 1), ...T.zones]
  )

  test(
    "that someone deletes are made again when there is something to publish",
    Effect.gen(function* () {
      const client = yield* PowerDnsClient
      yield* register("web", "198.51.100.1")
      yield* pass(2)
      yield* client.deleteZone(T.forward.name)
      yield* register("web", "198.51.100.2")
      yield* pass(10)
      assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 198.51.100.2"])
    })
  )
})

describe("a zone that another began to write", () => {
  for (const [what, isGone, expected] of [
    ["is written before the rest is seen to", false, ["patch", "configureZone"]],
    ["and that is gone is made first", true, ["createZone", "patch"]]
  ] as const) {
    it.effect(what, () =>
      Effect.gen(function* () {
        const memory = yield* PowerDnsMemory
        yield* Effect.scoped(
          Effect.gen(function* () {
            const life = yield* Layer.build(Layer.fresh(manager()))
            yield* Effect.gen(function* () {
              yield* pass(1)
              yield* memory.delayNext("10 seconds", "rrsets")
              yield* memory.delayNext("10 seconds", "rrsets")
              yield* register("web", "192.0.2.7")
              // less than the answer takes
              yield* TestClock.adjust("1 millis")
            }).pipe(Effect.provide(life))
          })
        )
        if (isGone) yield* (yield* PowerDnsClient).deleteZone(T.forward.name)
        yield* memory.forgetCalls
        yield* Effect.gen(function* () {
          yield* pass(5)
          assert.deepStrictEqual(yield* served(T.forward), ["web.hosts.test. A 192.0.2.7"])
          assert.isTrue((yield* statusOf(T.forward.name)).ready)
        }).pipe(Effect.provide(Layer.fresh(manager())))
        const operations = (yield* memory.calls)
          .filter((call) => "zone" in call && call.zone === T.forward.name)
          .map(({ operation }) => operation)
        assert.deepStrictEqual(
          operations.filter((operation) => (expected as ReadonlyArray<string>).includes(operation)),
          [...expected]
        )
      }).pipe(Effect.provide(outside))
    )
  }
})

describe("after a crash", () => {
  /** Where the server died: the call that never came back, and whether it took effect. */
  const moments = [
    ["before the look at the names", "rrsets", false],
    ["between the claim and the PATCH", "patch", false],
    ["between the PATCH and its settlement", "patch", true]
  ] as const

  for (const [moment, operation, applied] of moments) {
    for (const [what, first, then, expected] of [
      ["a new host", undefined, "192.0.2.7", "192.0.2.7"],
      ["a moved host", "192.0.2.6", "192.0.2.7", "192.0.2.7"],
      ["a host that moved and went back", "192.0.2.6", "192.0.2.7", "192.0.2.6"],
      ["a host that came and went", undefined, "192.0.2.7", undefined]
    ] as const) {
      it.effect(`${moment}, the records of ${what} are right, and none is orphaned`, () =>
        Effect.gen(function* () {
          const memory = yield* PowerDnsMemory
          const sql = yield* SqlClient.SqlClient
          yield* Effect.scoped(
            Effect.gen(function* () {
              const life = yield* Layer.build(Layer.fresh(manager()))
              yield* Effect.gen(function* () {
                yield* pass(1)
                if (first !== undefined) yield* register("web", first)
                yield* pass(1)
                if (applied) yield* Effect.forEach([1, 2], () => memory.applyThenTimeOut)
                else yield* Effect.forEach([1, 2], () => memory.delayNext("10 seconds", operation))
                yield* register("web", then)
                // less than the pause before the next attempt
                yield* TestClock.adjust("1 millis")
              }).pipe(Effect.provide(life))
            })
          )
          yield* Effect.gen(function* () {
            if (expected === undefined) {
              const places = [
                { zone: T.forward.name, name: T.nameOf("web") },
                { zone: T.reverse4.name, name: T.pointerOf("192.0.2.7") }
              ]
              yield* sql`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 1`
              yield* (yield* Outbox).mark(places, 1000, 1, "registered")
            } else if (expected !== then) yield* register("web", expected)
            yield* pass(30)
            assert.deepStrictEqual(
              yield* served(T.forward),
              expected === undefined ? [] : [`web.hosts.test. A ${expected}`]
            )
            assert.deepStrictEqual(
              yield* served(T.reverse4),
              expected === undefined ? [] : [`${T.pointerOf(expected)} PTR web.hosts.test.`]
            )
            assert.deepStrictEqual(yield* pending, [])
            const owned = yield* sql<{ readonly name: string }>`SELECT name FROM published ORDER BY name`
            assert.deepStrictEqual(
              owned.map(({ name }) => name),
              expected === undefined ? [] : [T.pointerOf(expected), T.nameOf("web")]
            )
          }).pipe(Effect.provide(Layer.fresh(manager())))
        }).pipe(Effect.provide(outside))
      )
    }
  }
})
