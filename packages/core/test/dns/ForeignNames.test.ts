import { assert, describe, it } from "@effect/vitest"
import * as ForeignNames from "@prism-dns/core/dns/ForeignNames"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { sqlite } from "../layers.ts"

const zone = DomainName.make("hosts.prism.test")
const name = (host: string) => DomainName.make(`${host}.${zone}`)
const a = (host: string, address: string) => RRset.make(name(host), "A", 60, [address])
const many = Array.from({ length: 20 }, (_, i) => name(`new-${i}`))

const layer = Outbox.layer.pipe(Layer.provideMerge(PowerDnsMemory.layer()), Layer.provideMerge(sqlite()))

const setUp = Effect.gen(function* () {
  const client = yield* PowerDnsClient
  const memory = yield* PowerDnsMemory
  yield* client.createZone({ name: zone, kind: "Native", nameservers: [name("ns1")] })
  const foreignNames = ForeignNames.make(client, yield* Outbox)
  const exports = Effect.map(memory.calls, (calls) => calls.filter(({ operation }) => operation === "records").length)
  const at = (names: ReadonlyArray<DomainName.DomainName>) =>
    Effect.map(foreignNames.at(zone, names), (found) => found.map((rrset) => rrset.name))
  const patchAsPrism = (rrset: RRset.RRset) =>
    Effect.map(client.patch(zone, [{ _tag: "Replace", rrset }]), () => foreignNames.wrote(zone, [rrset]))
  return { at, client, exports, forget: foreignNames.forget, memory, patchAsPrism }
})

/** So many names of the zone are ours; what PowerDNS holds of them does not matter here. */
const publishedLongAgo = (count: number) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`
      INSERT INTO published (zone, name, content, present, generation, published_at)
      WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < ${count})
      SELECT ${zone}, 'old-' || i || '.' || ${zone}, '[["A",60,["192.0.2.1"]]]', 1, 1, 1 FROM numbers`
  )

describe("ForeignNames", () => {
  it.effect("few names are read one by one, and what someone put there a moment ago is seen", () =>
    Effect.gen(function* () {
      const { at, exports, memory } = yield* setUp
      assert.deepStrictEqual(yield* at([name("web")]), [])
      yield* memory.put(zone, a("web", "192.0.2.1"))
      assert.deepStrictEqual(yield* at([name("web")]), [name("web")])
      assert.strictEqual(yield* exports, 0)
    }).pipe(Effect.provide(layer))
  )

  it.effect("for many names the zone is read once for as long as only Prism writes", () =>
    Effect.gen(function* () {
      const { at, exports, memory, patchAsPrism } = yield* setUp
      yield* memory.put(zone, a("new-7", "192.0.2.7"))
      assert.deepStrictEqual(yield* at(many), [name("new-7")])
      yield* patchAsPrism(a("new-1", "192.0.2.1"))
      yield* patchAsPrism(a("new-2", "192.0.2.2"))
      assert.deepStrictEqual(yield* at(many.slice(3)), [name("new-7")])
      assert.strictEqual(yield* exports, 1)
    }).pipe(Effect.provide(layer))
  )

  it.effect("of a zone that another server writes by now nothing is remembered", () =>
    Effect.gen(function* () {
      const { at, exports, forget } = yield* setUp
      yield* at(many)
      forget(zone)
      yield* at(many)
      assert.strictEqual(yield* exports, 2)
    }).pipe(Effect.provide(layer))
  )

  it.effect("in a large zone many names too are read by themselves, and seen as they are now", () =>
    Effect.gen(function* () {
      const { at, exports, memory } = yield* setUp
      yield* publishedLongAgo(30_000)
      assert.deepStrictEqual(yield* at(many), [])
      yield* memory.put(zone, a("new-7", "192.0.2.7"))
      assert.deepStrictEqual(yield* at(many), [name("new-7")])
      assert.strictEqual(yield* exports, 0)
      const sizes = (yield* memory.calls).flatMap(({ recordsAtLeast }) => recordsAtLeast ?? [])
      assert.deepStrictEqual(sizes, [10_001, 10_001])
    }).pipe(Effect.provide(layer))
  )

  it.effect("a large zone is read once as many names were asked for within a minute as cost the same", () =>
    Effect.gen(function* () {
      const { at, exports } = yield* setUp
      yield* publishedLongAgo(20_000)
      yield* at(many)
      yield* TestClock.adjust(ForeignNames.snapshotMillisMax)
      yield* at(many)
      assert.strictEqual(yield* exports, 0)
      yield* at(many) // 40 names, and 500 records for each
      yield* at(many)
      assert.strictEqual(yield* exports, 1)
    }).pipe(Effect.provide(layer))
  )

  it.effect("a zone that is large by what others have there is read whole to find that out, and then by name", () =>
    Effect.gen(function* () {
      const { at, client, exports, memory } = yield* setUp
      yield* Effect.forEach(
        Array.from({ length: 11_000 }, (_, i) => a(`other-${i}`, "192.0.2.1")),
        (rrset) => memory.put(zone, rrset)
      )
      assert.deepStrictEqual(yield* at(many), [])
      yield* client.patch(zone, [{ _tag: "Replace", rrset: a("new-9", "192.0.2.9") }])
      assert.deepStrictEqual(yield* at(many), [name("new-9")])
      assert.strictEqual(yield* exports, 1)
    }).pipe(Effect.provide(layer))
  )

  it.effect("a change by someone else through the API is seen at once", () =>
    Effect.gen(function* () {
      const { at, client, exports } = yield* setUp
      assert.deepStrictEqual(yield* at(many), [])
      yield* client.patch(zone, [{ _tag: "Replace", rrset: a("new-9", "192.0.2.9") }])
      assert.deepStrictEqual(yield* at(many), [name("new-9")])
      assert.strictEqual(yield* exports, 2)
    }).pipe(Effect.provide(layer))
  )

  it.effect("a change that leaves the serial is seen when the snapshot is old", () =>
    Effect.gen(function* () {
      const { at, memory } = yield* setUp
      assert.deepStrictEqual(yield* at(many), [])
      yield* memory.put(zone, a("new-3", "192.0.2.3"))
      yield* TestClock.adjust(ForeignNames.snapshotMillisMax)
      assert.deepStrictEqual(yield* at(many), [name("new-3")])
    }).pipe(Effect.provide(layer))
  )

  it.effect("what is ours is not foreign, and other types at its name are", () =>
    Effect.gen(function* () {
      const { at, memory } = yield* setUp
      const outbox = yield* Outbox
      yield* memory.put(zone, a("ours", "192.0.2.1"))
      yield* outbox.claim(zone, [{ name: name("ours"), sent: [a("ours", "192.0.2.2")] }], 0)
      assert.deepStrictEqual(yield* at([...many, name("ours")]), [])
      yield* memory.put(zone, RRset.make(name("ours"), "TXT", 60, ['"note"']))
      yield* TestClock.adjust(ForeignNames.snapshotMillisMax)
      assert.deepStrictEqual(yield* at([...many, name("ours")]), [name("ours")])
    }).pipe(Effect.provide(layer))
  )
})
