import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Adoption } from "@prism-dns/core/dns/Adoption"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

const zone = T.forward
const parts = Layer.mergeAll(Adoption.layer, Reconciler.layer()).pipe(
  Layer.provideMerge(T.publisher({}, [zone])),
  Layer.provideMerge(Layer.mergeAll(PowerDnsMemory.layer(), T.sqlite(), SecureRandom.layerWebCrypto))
)

const test = <E>(name: string, body: Effect.Effect<void, E, Layer.Success<typeof parts>>) =>
  it.effect(name, () => Effect.provide(body, parts))

const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const register = (hostname: string, address: string) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(hostname, address))).pipe(
    Effect.andThen(pass(2))
  )

const put = (hostname: string, content: string, type = "A") =>
  Effect.flatMap(PowerDnsMemory, (memory) =>
    memory.put(zone.name, RRset.make(T.nameOf(hostname), type, 300, [content]))
  )

const request = (...patterns: ReadonlyArray<string>) => ({ zone: zone.name, patterns, by: "ann", reason: "ours now" })

const apply = (id: string) =>
  Effect.flatMap(Plans, (plans) => plans.apply(id, { by: "ann" })).pipe(Effect.tap(() => pass(2)))

const adopt = (...patterns: ReadonlyArray<string>) =>
  Effect.flatMap(Adoption, (adoption) => adoption.adopt(request(...patterns)))
const release = (...patterns: ReadonlyArray<string>) =>
  Effect.flatMap(Adoption, (adoption) => adoption.release(request(...patterns)))

const addressAt = (hostname: string) =>
  Effect.flatMap(PowerDnsClient, (client) =>
    Effect.map(client.rrsets(zone.name, [T.nameOf(hostname)]), (rrsets) =>
      rrsets.filter(({ type }) => type === "A").flatMap(({ contents }) => contents)
    )
  )

const patches = Effect.flatMap(PowerDnsMemory, (memory) =>
  Effect.map(memory.calls, (calls) => calls.filter(({ operation }) => operation === "patch").length)
)

const drift = Effect.andThen(
  pass(1),
  Effect.flatMap(Reconciler, (reconciler) => reconciler.run(zone.name, { by: "ann" }))
)

const names = (id: string) =>
  Effect.map(
    Effect.flatMap(Plans, (plans) => plans.changes(id, { limit: 100 })),
    (changes) => changes.map(({ name, outcome }) => [name.replace(".hosts.test.", ""), outcome])
  )

describe("adopting", () => {
  test(
    "takes foreign records that match as they stand, without a write, and looks after them from then on",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* put("printer-1", "203.0.113.1")
      yield* put("printer-2", "203.0.113.2")
      yield* put("mail", "203.0.113.3")
      yield* put("printer-3", "10 mx.example.", "MX")
      yield* put("printer-4", '"PC" "OS"', "HINFO")
      assert.strictEqual((yield* drift).drift.foreign, 3)
      const before = yield* patches
      const plan = yield* adopt("printer-*", "web")
      assert.strictEqual((yield* apply(plan.id)).applied, 3)
      assert.deepStrictEqual(yield* names(plan.id), [
        ["printer-1", "applied"],
        ["printer-2", "applied"],
        ["printer-3", "applied"]
      ])
      const after = yield* drift
      assert.deepStrictEqual([after.drift.foreign, after.plan.counts.changes], [1, 0])
      assert.strictEqual(yield* patches, before)
      yield* put("printer-1", "203.0.113.99")
      const { plan: repair } = yield* drift
      yield* apply(repair.id)
      assert.deepStrictEqual(yield* addressAt("printer-1"), ["203.0.113.1"])
      assert.deepStrictEqual(yield* addressAt("printer-2"), ["203.0.113.2"])
    })
  )

  test(
    "is refused for a record that has changed since",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* put("printer", "203.0.113.1")
      const plan = yield* adopt("printer")
      yield* put("printer", "203.0.113.2")
      assert.strictEqual((yield* apply(plan.id)).refused, 1)
      assert.match((yield* names(plan.id))[0]![1]!, /does not stand in PowerDNS any more/)
    })
  )

  test(
    "gives a name to the host that waited for it",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* put("printer", "203.0.113.1")
      yield* register("printer", "192.0.2.2")
      assert.deepStrictEqual(yield* addressAt("printer"), ["203.0.113.1"])
      yield* apply((yield* adopt("printer")).id)
      assert.deepStrictEqual(yield* addressAt("printer"), ["192.0.2.2"])
      assert.strictEqual((yield* drift).plan.counts.changes, 0)
    })
  )

  test(
    "and releasing again leaves the record in PowerDNS, and foreign",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* put("a.lab", "203.0.113.1")
      yield* apply((yield* adopt("*.lab")).id)
      assert.strictEqual((yield* drift).drift.foreign, 0)
      assert.strictEqual((yield* apply((yield* release("*")).id)).applied, 1)
      assert.deepStrictEqual(yield* addressAt("a.lab"), ["203.0.113.1"])
      const after = yield* drift
      assert.deepStrictEqual([after.drift.foreign, after.plan.counts.changes], [1, 0])
      yield* pass(60)
      assert.deepStrictEqual(yield* addressAt("a.lab"), ["203.0.113.1"])
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual(yield* sql`SELECT name FROM unserved WHERE name = ${T.nameOf("a.lab")}`, [])
    })
  )

  test(
    "is not undone while a host of the name has records",
    Effect.gen(function* () {
      yield* register("web", "192.0.2.1")
      yield* put("printer", "203.0.113.1")
      yield* apply((yield* adopt("printer")).id)
      yield* register("printer", "192.0.2.2")
      const plan = yield* release("printer")
      assert.strictEqual((yield* apply(plan.id)).refused, 1)
      assert.match((yield* names(plan.id))[0]![1]!, /retire or ignore the host first/)
    })
  )
})

describe("ignoring", () => {
  test(
    "leaves names that match alone, until it is undone",
    Effect.gen(function* () {
      const adoption = yield* Adoption
      const ownership = yield* Ownership
      yield* register("web", "192.0.2.1")
      yield* register("lab-1", "192.0.2.2")
      const plan = yield* adoption.ignore(request("lab-*"))
      assert.isFalse(ownership.isIgnored(zone.name, T.nameOf("lab-1")))
      yield* apply(plan.id)
      assert.isTrue(ownership.isIgnored(zone.name, T.nameOf("lab-1")))
      assert.deepStrictEqual(
        (yield* ownership.list(zone.name)).map(({ by, pattern, reason }) => [pattern, by, reason]),
        [["lab-*", "ann", "ours now"]]
      )
      yield* put("lab-1", "203.0.113.1")
      const { drift: found, plan: none } = yield* drift
      assert.deepStrictEqual([none.counts.changes, found.ignored], [0, 1])
      assert.strictEqual((yield* adoption.ignore(request("lab-*"))).counts.changes, 0)
      yield* apply((yield* adoption.ignore({ ...request("lab-*"), undo: true })).id)
      assert.strictEqual((yield* drift).drift.different, 1)
    })
  )

  test(
    "refuses what is no pattern of the zone, and zones that are not ours",
    Effect.gen(function* () {
      const adoption = yield* Adoption
      assert.strictEqual((yield* Effect.flip(adoption.ignore(request("a b"))))._tag, "PatternInvalid")
      const other = { ...request("a"), zone: T.reverse4.name }
      assert.strictEqual((yield* Effect.flip(adoption.adopt(other)))._tag, "ZoneUnknown")
    })
  )
})
