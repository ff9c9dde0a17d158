/** The publisher of one of several servers: what it does as it gets zones and loses them. */
import { assert, it } from "@effect/vitest"
import { Cluster, zoneLease } from "@prism-dns/core/cluster/Cluster"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { makeLeases } from "../harness/leases.ts"
import * as T from "../layers.ts"

type Services = DnsManager | Registry | Outbox | PowerDnsClient | PowerDnsMemory | SqlClient.SqlClient

const test = <E>(name: string, body: (leases: ReturnType<typeof makeLeases>) => Effect.Effect<void, E, Services>) =>
  it.effect(name, () => {
    const leases = makeLeases()
    return Effect.provide(
      body(leases),
      T.publisher({}, [T.forward], {}, Layer.succeed(Cluster, leases.cluster)).pipe(
        Layer.provideMerge(Layer.merge(PowerDnsMemory.layer(), T.sqlite()))
      )
    )
  })

const zone = T.forward
const lease = zoneLease(zone.name)
const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

/** Addresses that PowerDNS has at a name. */
const served = (hostname: string) =>
  Effect.flatMap(PowerDnsClient, (client) =>
    Effect.map(client.rrsets(zone.name, [T.nameOf(hostname)]), (rrsets) =>
      rrsets.filter(({ type }) => type === "A").flatMap(({ contents }) => contents)
    )
  )

const pending = Effect.flatMap(Outbox, (outbox) =>
  Effect.map(outbox.list({ limit: 100 }), (list) => list.map(({ name }) => name))
)

const calls = Effect.flatMap(PowerDnsMemory, (memory) =>
  Effect.map(memory.calls, (all) => all.filter(({ operation }) => operation === "patch").length)
)

test(
  "a zone is written while this server has it, and not before or after",
  Effect.fnUntraced(function* (leases) {
    const { status } = yield* DnsManager
    yield* register("web", "192.0.2.1")
    yield* pass(5)
    assert.strictEqual(yield* calls, 0)
    assert.deepStrictEqual(
      (yield* status).map(({ writing }) => writing),
      [false]
    )
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    assert.deepStrictEqual(
      (yield* status).map(({ ready, writing }) => [ready, writing]),
      [[true, true]]
    )
    yield* leases.take(lease)
    yield* register("web", "192.0.2.2")
    yield* pass(60)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.2"])
  })
)

test(
  "what a lost zone's last write may have left is looked at again, by whoever writes the zone then",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(5)
    yield* memory.delayNext("1 minute", "patch")
    yield* register("web", "192.0.2.1")
    yield* pass(1)
    yield* leases.take(lease)
    yield* pass(1)
    // It was claimed, and nobody knows what stands there.
    const [row] = yield* sql<{ readonly sent: string }>`SELECT sent FROM published WHERE name = ${T.nameOf("web")}`
    assert.include(row?.sent ?? "", "192.0.2.1")
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    // Another has settled it since: it is marked once more when the write can come no more.
    yield* sql`DELETE FROM outbox`
    yield* pass(20)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    yield* pass(30)
    assert.deepStrictEqual(yield* pending, [])
  })
)

test(
  "a write that is cut off as its zone is handed over is looked at again, by whoever writes the zone then",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(5)
    yield* memory.delayNext("1 minute", "patch")
    yield* register("web", "192.0.2.1")
    yield* pass(1)
    const handing = yield* Effect.forkChild(leases.hand(lease))
    yield* pass(2)
    yield* Fiber.join(handing)
    yield* pass(1)
    const [row] = yield* sql<{ readonly sent: string }>`SELECT sent FROM published WHERE name = ${T.nameOf("web")}`
    assert.include(row?.sent ?? "", "192.0.2.1")
    // Another has settled it since: it is marked once more when the write can come no more.
    yield* sql`DELETE FROM outbox`
    yield* pass(20)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
  })
)

test(
  "what comes late of a write is taken away where another has deleted the name since, and what is somebody else's is not",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    const registry = yield* Registry
    yield* memory.delayNext("1 minute", "patch")
    yield* register("web", "192.0.2.1")
    yield* register("db", "192.0.2.2")
    yield* leases.give(lease)
    yield* pass(1)
    // This server stands still. Another publishes both names, and then deletes them.
    for (const hostname of ["web", "db"]) {
      yield* registry.release(T.nameOf(hostname), { name: "ann", peer: undefined }, "it is not needed")
    }
    yield* sql`DELETE FROM outbox`
    yield* sql`DELETE FROM published`
    yield* leases.take(lease)
    yield* pass(1)
    yield* memory.put(zone.name, RRset.make(T.nameOf("web"), "A", zone.policy.ttlSeconds, ["192.0.2.1"]))
    yield* memory.put(zone.name, RRset.make(T.nameOf("db"), "A", 60, ["203.0.113.1"]))
    yield* pass(20)
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(30)
    assert.deepStrictEqual(yield* served("web"), [])
    assert.deepStrictEqual(yield* served("db"), ["203.0.113.1"])
    assert.deepStrictEqual(yield* pending, [])
    assert.deepStrictEqual(yield* sql`SELECT name FROM published`, [])
  })
)

test(
  "many names that may have come late and were deleted since need nobody's word, and one that a person has taken since is theirs",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    const registry = yield* Registry
    const hostnames = Array.from({ length: 30 }, (_, i) => `host-${i}`)
    yield* memory.delayNext("1 minute", "patch")
    yield* Effect.forEach(hostnames, (hostname, i) => register(hostname, `192.0.2.${i + 1}`))
    yield* register("db", "192.0.2.100")
    yield* leases.give(lease)
    yield* pass(1)
    for (const hostname of [...hostnames, "db"]) {
      yield* registry.release(T.nameOf(hostname), { name: "ann", peer: undefined }, "it is not needed")
    }
    yield* sql`DELETE FROM outbox`
    yield* sql`DELETE FROM published`
    yield* leases.take(lease)
    yield* pass(1)
    for (const [i, hostname] of hostnames.entries()) {
      const { ttlSeconds } = zone.policy
      yield* memory.put(zone.name, RRset.make(T.nameOf(hostname), "A", ttlSeconds, [`192.0.2.${i + 1}`]))
    }
    yield* memory.put(zone.name, RRset.make(T.nameOf("db"), "A", 60, ["203.0.113.1"]))
    yield* register("db", "192.0.2.100")
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(60)
    for (const hostname of hostnames) assert.deepStrictEqual(yield* served(hostname), [])
    assert.deepStrictEqual(yield* served("db"), ["203.0.113.1"])
    assert.deepStrictEqual(yield* pending, [T.nameOf("db")])
  })
)

test(
  "a name that was in doubt when its zone passed on is written once more, though nothing else is to be written",
  Effect.fnUntraced(function* (leases) {
    const outbox = yield* Outbox
    const sql = yield* SqlClient.SqlClient
    yield* leases.give(lease)
    yield* register("web", "192.0.2.1")
    yield* register("db", "192.0.2.2")
    yield* pass(5)
    yield* leases.take(lease)
    // Another has had it since: a write of web without an answer, one with an answer, and then nothing more.
    yield* sql`UPDATE published SET sent = content, doubt_until = 15000 WHERE name = ${T.nameOf("web")}`
    yield* outbox.mark([{ zone: zone.name, name: T.nameOf("db") }], 1000, 1, "transferred")
    const before = yield* calls
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(5)
    assert.isAbove(yield* calls, before)
    assert.deepStrictEqual(yield* pending, [])
    const doubts = sql<{ readonly name: string }>`SELECT name FROM published WHERE doubt_until IS NOT NULL`
    assert.strictEqual((yield* doubts).length, 1)
    yield* pass(20)
    assert.deepStrictEqual(yield* doubts, [])
    assert.deepStrictEqual(yield* sql`SELECT name FROM published WHERE sent IS NOT NULL`, [])
    assert.deepStrictEqual(yield* pending, [])
  })
)

test(
  "what a writer notes after its lease has passed is refused, and is no failure",
  Effect.fnUntraced(function* (leases) {
    const { status } = yield* DnsManager
    yield* leases.give(lease)
    yield* register("web", "192.0.2.1")
    yield* pass(5)
    const before = yield* calls
    yield* leases.pass(lease)
    yield* register("web", "192.0.2.2")
    yield* pass(60)
    // The claim before the write is refused already.
    assert.strictEqual(yield* calls, before)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    assert.deepStrictEqual(
      (yield* status).map(({ error }) => error),
      [undefined]
    )
  })
)
