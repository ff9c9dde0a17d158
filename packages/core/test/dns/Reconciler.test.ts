import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Logger, Option } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { type PlanChange, Plans } from "@prism-dns/core/dns/Plans"
import { Reconciler, type ReconcilerOptions, scheduled } from "@prism-dns/core/dns/Reconciler"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Uncertain } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as Generation from "@prism-dns/core/storage/Generation"
import * as T from "../layers.ts"

const zone = Zone.make(T.forward.name, {
  policy: { deleteBudget: { share: 0.1, min: 3, window: Duration.hours(1) }, quarantine: Duration.minutes(10) },
  reconciliation: { interval: Duration.minutes(1) }
})

const outside = Layer.mergeAll(PowerDnsMemory.layer(), T.sqlite(), SecureRandom.layerWebCrypto)
const parts = (options: Partial<ReconcilerOptions> = {}) =>
  Reconciler.layer(options).pipe(Layer.provideMerge(T.publisher({}, [zone, T.reverse4])), Layer.provideMerge(outside))

type Services = Layer.Success<ReturnType<typeof parts>>

const test = <E>(name: string, body: Effect.Effect<void, E, Services>, options?: Partial<ReconcilerOptions>) =>
  it.effect(name, () => Effect.provide(body, parts(options)))

/** Lets everything run that is to happen within `seconds`. */
const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const names = (n: number) => Array.from({ length: n }, (_, i) => `h${i}`)

const registerAll = (hostnames: ReadonlyArray<string>, address = "198.51.100.1") =>
  Effect.flatMap(Registry, (registry) =>
    Effect.forEach(hostnames, (name) => registry.register(T.registration(name, address)), {
      concurrency: "unbounded",
      discard: true
    })
  ).pipe(Effect.andThen(pass(2)))

/** Looks at the zone, a second after whatever happened last. */
const look = (apply = false) =>
  Effect.andThen(
    pass(1),
    Effect.flatMap(Reconciler, (reconciler) => reconciler.run(zone.name, { by: "ann", apply }))
  )

const changesOf = (id: string) =>
  Effect.map(
    Effect.flatMap(Plans, (plans) => plans.changes(id, { limit: 10_000 })),
    (changes) => changes.map(toLine)
  )

const toLine = ({ action, after, before, name, type }: PlanChange) =>
  `${action} ${name.slice(0, -zone.name.length - 1)} ${type} ${before?.contents.join(",") ?? "-"} ${after?.contents.join(",") ?? "-"}`

const put = (hostname: string, type: string, ...contents: ReadonlyArray<string>) =>
  Effect.flatMap(PowerDnsMemory, (memory) => memory.put(zone.name, RRset.make(T.nameOf(hostname), type, 60, contents)))

const remove = (hostname: string, type = "A") =>
  Effect.flatMap(PowerDnsMemory, (memory) => memory.remove(zone.name, T.nameOf(hostname), type))

const served = Effect.flatMap(PowerDnsClient, (client) =>
  Effect.map(client.exportZone(zone.name), (rrsets) =>
    rrsets
      .filter(({ name }) => name !== zone.name)
      .flatMap(({ contents, name, type }) =>
        contents.map((content) => `${name.slice(0, -zone.name.length - 1)} ${type} ${content}`)
      )
      .sort()
  )
)

const patchesTo = (hostname: string) =>
  Effect.flatMap(PowerDnsMemory, (memory) =>
    Effect.map(memory.calls, (calls) =>
      calls.flatMap(({ changes }) => changes ?? []).filter((change) => RRset.changedName(change) === T.nameOf(hostname))
    )
  )

const query = <Row extends object>(text: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Row>(text)).pipe(Effect.orDie)

const written = Effect.map(query<{ n: number }>("SELECT total_changes() AS n"), ([row]) => row!.n)

describe("a look at a zone", () => {
  test(
    "takes nothing for foreign that was published while it was read, and what is foreign for what it is",
    Effect.gen(function* () {
      yield* registerAll(names(5))
      yield* put("printer", "A", "203.0.113.9")
      const memory = yield* PowerDnsMemory
      yield* memory.beforeNext(
        Effect.provide(Effect.orDie(registerAll(["late"])), yield* Effect.context<Services>()),
        "records"
      )
      const { drift, foreignNames, plan } = yield* look()
      assert.include(yield* served, "late A 198.51.100.1")
      assert.deepStrictEqual([drift.foreign, foreignNames], [1, [T.nameOf("printer")]])
      assert.strictEqual(plan.counts.changes, 0)
    })
  )

  test(
    "that is as it should be writes nothing, anywhere, and keeps no plan",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      const memory = yield* PowerDnsMemory
      yield* pass(60)
      yield* memory.forgetCalls
      const before = yield* written
      const { drift, guards, plan } = yield* look(true)
      assert.deepStrictEqual(drift, { missing: 0, different: 0, unexpected: 0, duplicate: 0, foreign: 0, ignored: 0 })
      assert.deepStrictEqual(guards, [])
      assert.strictEqual(plan.counts.changes, 0)
      assert.strictEqual(yield* written, before)
      assert.deepStrictEqual(
        (yield* memory.calls).map(({ operation }) => operation),
        ["records"]
      )
      assert.isTrue(Option.isNone(yield* (yield* Plans).find(plan.id)))
    })
  )

  test(
    "names exactly what was edited behind our back; applied, all is as it should be, and foreign records are as they were",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      yield* remove("h1")
      yield* put("h2", "A", "203.0.113.1")
      yield* put("h3", "AAAA", "2001:db8::3")
      yield* put("printer", "A", "203.0.113.9")
      yield* put("mail", "MX", "10 mx.example.")
      yield* put("h4", "TXT", '"a note"')
      const { drift, foreignNames, plan } = yield* look()
      assert.deepStrictEqual(yield* changesOf(plan.id), [
        "create h1 A - 198.51.100.1",
        "update h2 A 203.0.113.1 198.51.100.1",
        "repair h3 AAAA 2001:db8::3 -"
      ])
      assert.deepStrictEqual(drift, { missing: 1, different: 2, unexpected: 0, duplicate: 0, foreign: 1, ignored: 0 })
      assert.deepStrictEqual(foreignNames, [T.nameOf("printer")])
      assert.strictEqual(plan.state, "open")
      const { applied, plan: after, refused } = yield* (yield* Plans).apply(plan.id, { by: "ann" })
      assert.deepStrictEqual([applied, refused, after.state], [3, 0, "applied"])
      yield* pass(2)
      assert.deepStrictEqual(
        yield* served,
        [
          ...names(20).map((name) => `${name} A 198.51.100.1`),
          'h4 TXT "a note"',
          "mail MX 10 mx.example.",
          "printer A 203.0.113.9"
        ].sort()
      )
      assert.deepStrictEqual(yield* patchesTo("printer"), [])
      const second = yield* look()
      assert.strictEqual(second.plan.counts.changes, 0)
      assert.deepStrictEqual(
        (yield* query<{ action: string; subject: string; actor: string; cause: string }>(
          "SELECT action, subject, actor, cause FROM audit_entry WHERE action LIKE 'plan.%' OR action LIKE 'record.%' ORDER BY sequence"
        )).map(({ action, actor, cause, subject }) => [action, subject, actor, cause]),
        [
          ["plan.made", plan.id, "ann", `plan:${plan.id}`],
          ["plan.applied", plan.id, "ann", `plan:${plan.id}`],
          ["record.create", T.nameOf("h1"), "ann", `plan:${plan.id}`],
          ["record.update", T.nameOf("h2"), "ann", `plan:${plan.id}`],
          ["record.delete", T.nameOf("h3"), "ann", `plan:${plan.id}`]
        ]
      )
    })
  )

  test(
    "leaves names that wait to be published to the publisher",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(5))
      yield* memory.refuseName(T.nameOf("h1"), "no")
      yield* registerAll(["h1"], "198.51.100.2")
      yield* put("h1", "A", "203.0.113.1")
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
    })
  )

  test(
    "that breaks off makes no plan, and says so",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(5))
      yield* remove("h1")
      yield* memory.failNext(new Uncertain({ detail: "cut" }), "records")
      const error = yield* Effect.flip(look())
      assert.strictEqual(error._tag, "PowerDnsError")
      assert.deepStrictEqual(yield* query("SELECT id FROM plan"), [])
      // Between the first reading and the second.
      const between = yield* Effect.flip(
        Effect.gen(function* () {
          yield* memory.delayNext("1 seconds", "records")
          const fiber = yield* Effect.forkChild(look())
          yield* pass(1)
          yield* memory.failNext(new Uncertain({ detail: "cut" }), "records")
          yield* pass(5)
          return yield* Fiber.join(fiber)
        })
      )
      assert.strictEqual(between._tag, "PowerDnsError")
      assert.deepStrictEqual(yield* query("SELECT id FROM plan"), [])
    })
  )

  test(
    "in many slices finds the same",
    Effect.gen(function* () {
      yield* registerAll(names(60))
      for (const name of names(60)) yield* put(name, "A", "203.0.113.1")
      const first = yield* look()
      const { drift, plan } = yield* look(true)
      assert.strictEqual(drift.different, 60)
      assert.strictEqual(plan.id, first.plan.id)
      assert.strictEqual(plan.state, "applied")
      yield* pass(2)
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
    }),
    { sliceRecordsMax: 10, lookUpNamesMax: 3 }
  )

  test(
    "at a reverse zone knows its pointers, and repairs them",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(["web"], "192.0.2.7")
      yield* memory.put(T.reverse4.name, RRset.make(T.pointerOf("192.0.2.7"), "PTR", 60, ["other.example."]))
      yield* memory.put(T.reverse4.name, RRset.make(T.pointerOf("192.0.2.8"), "PTR", 60, ["other.example."]))
      yield* pass(1)
      const { drift } = yield* (yield* Reconciler).run(T.reverse4.name, { by: "ann", apply: true })
      assert.deepStrictEqual([drift.different, drift.foreign], [1, 1])
      yield* pass(2)
      const rrsets = yield* (yield* PowerDnsClient).rrsets(T.reverse4.name, [T.pointerOf("192.0.2.7")])
      assert.deepStrictEqual(rrsets[0]?.contents, ["web.hosts.test."])
    })
  )

  test(
    "leaves placeholders where something else stands, and puts lost ones back",
    Effect.gen(function* () {
      yield* registerAll(["a.lab", "b.dmz"])
      yield* put("lab", "TXT", '"somebody else"')
      yield* remove("dmz", "TXT")
      const { plan } = yield* look(true)
      assert.deepStrictEqual(
        (yield* changesOf(plan.id)).map((line) => line.split(" ").slice(0, 3).join(" ")),
        ["create dmz TXT"]
      )
      yield* pass(2)
      const after = yield* served
      assert.include(after, 'lab TXT "somebody else"')
      assert.include(after.join("\n"), "dmz TXT")
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
    })
  )
})

describe("the guards of a look", () => {
  test(
    "delete nothing when the registry has lost its hosts, and say why",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      yield* query("DELETE FROM host_address")
      yield* query("DELETE FROM host")
      const { drift, guards, plan } = yield* look(true)
      assert.strictEqual(drift.unexpected, 20)
      assert.strictEqual(plan.state, "open")
      assert.match(guards.join("\n"), /the registry has no name left in hosts\.test\., where 20 are published/)
      yield* pass(120)
      assert.strictEqual((yield* served).length, 20)
      // The same again is the same plan.
      assert.strictEqual((yield* look(true)).plan.id, plan.id)
    })
  )

  test(
    "delete nothing when the registry's database is new",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      for (const table of ["host_address", "host", "published", "outbox", "unserved", "zone_publication"]) {
        yield* query(`DELETE FROM ${table}`)
      }
      const { drift, guards, plan } = yield* look(true)
      assert.strictEqual(drift.foreign, 20)
      assert.strictEqual(plan.counts.changes, 0)
      assert.match(guards.join("\n"), /the registry has no name in hosts\.test\., and PowerDNS holds 20 names/)
      yield* pass(120)
      assert.strictEqual((yield* served).length, 20)
    })
  )

  test(
    "hold deletions beyond the zone's budget back, mend the rest, and let a person override it with a reason",
    Effect.gen(function* () {
      const plans = yield* Plans
      yield* registerAll(names(20))
      yield* query("DELETE FROM host_address")
      yield* query(`DELETE FROM host WHERE hostname IN ('h0', 'h1', 'h2', 'h3')`)
      yield* remove("h9")
      const { guards, plan } = yield* look(true)
      assert.match(guards.join("\n"), /4 of 20 published names would lose their records, the budget allows 3/)
      assert.strictEqual(plan.state, "open")
      yield* pass(2)
      assert.strictEqual((yield* served).length, 20)
      const error = yield* Effect.flip(plans.apply(plan.id, { by: "ann" }))
      assert.strictEqual(error._tag, "DeleteBudgetExceeded")
      if (error._tag === "DeleteBudgetExceeded") assert.deepStrictEqual([error.wanted, error.remaining], [4, 3])
      const applied = yield* plans.apply(plan.id, { by: "ann", overrideBudget: "they are gone for good" })
      assert.deepStrictEqual([applied.applied, applied.plan.state], [4, "applied"])
      yield* pass(2)
      assert.strictEqual((yield* served).length, 16)
      const [entry] = yield* query<{ actor: string; reason: string }>(
        "SELECT actor, reason FROM audit_entry WHERE action = 'plan.applied' ORDER BY sequence DESC LIMIT 1"
      )
      assert.deepStrictEqual([entry?.actor, entry?.reason], ["ann", "they are gone for good"])
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
    })
  )

  test(
    "apply deletions within the budget through quarantine, and count them",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      yield* query(`DELETE FROM host WHERE hostname IN ('h0', 'h1')`)
      assert.strictEqual((yield* look(true)).plan.state, "applied")
      yield* pass(2)
      assert.strictEqual((yield* served).length, 18)
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
      yield* query(`DELETE FROM host WHERE hostname IN ('h2', 'h3')`)
      const second = yield* look(true)
      assert.match(second.guards.join("\n"), /of which 2 were used/)
      assert.strictEqual((yield* served).length, 18)
    })
  )

  test(
    "count deletions that are under way, and mend the rest",
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* registerAll(names(20))
      yield* query(`DELETE FROM host WHERE hostname IN ('h0', 'h1')`)
      const first = yield* look()
      yield* memory.down
      yield* (yield* Plans).apply(first.plan.id, { by: "ann" })
      yield* memory.up
      yield* query(`DELETE FROM host WHERE hostname IN ('h2', 'h3')`)
      yield* remove("h9")
      const { plan } = yield* Effect.flatMap(Reconciler, (each) => each.run(zone.name, { by: "ann", apply: true }))
      assert.strictEqual(plan.state, "open")
      yield* pass(60)
      assert.deepStrictEqual(
        yield* served,
        names(20)
          .slice(2)
          .map((name) => `${name} A 198.51.100.1`)
          .sort()
      )
    })
  )

  test(
    "write everything again when PowerDNS has lost the zone's records, and sound an alarm",
    Effect.gen(function* () {
      yield* registerAll(names(20))
      for (const name of names(20)) yield* remove(name)
      const { guards, plan } = yield* look(true)
      assert.match(guards.join("\n"), /PowerDNS holds nothing at 20 of 20 names/)
      assert.strictEqual(plan.state, "applied")
      yield* pass(2)
      assert.strictEqual((yield* served).length, 20)
    })
  )

  test(
    "make the zone again when PowerDNS has lost it",
    Effect.gen(function* () {
      yield* registerAll(names(5))
      yield* (yield* PowerDnsClient).deleteZone(zone.name)
      assert.strictEqual((yield* look(true)).drift.missing, 5)
      yield* pass(5)
      assert.strictEqual((yield* served).length, 5)
    })
  )

  test(
    "find records that were enabled by hand while in quarantine, and disable them again",
    Effect.gen(function* () {
      yield* registerAll(names(5))
      yield* query(`UPDATE host SET state = 'offline', offline_since = 1, withdrawn_since = 1 WHERE hostname = 'h1'`)
      const generation = yield* Generation.next(yield* SqlClient.SqlClient)
      yield* (yield* Outbox).mark([{ zone: zone.name, name: T.nameOf("h1") }], generation, 1, "withdrawn")
      yield* pass(2)
      assert.strictEqual((yield* served).length, 4)
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
      yield* put("h1", "A", "198.51.100.1")
      assert.strictEqual((yield* look(true)).drift.unexpected, 1)
      yield* pass(2)
      assert.strictEqual((yield* served).length, 4)
      assert.strictEqual((yield* look()).plan.counts.changes, 0)
    })
  )
})

describe("the schedule", () => {
  const run = (zoneHere: Zone.Zone, body: Effect.Effect<void, unknown, Services>) => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    return body.pipe(
      Effect.provide(
        scheduled.pipe(
          Layer.provideMerge(Reconciler.layer()),
          Layer.provideMerge(T.publisher({}, [zoneHere])),
          Layer.provideMerge(outside),
          Layer.provide(Logger.layer([logger]))
        )
      ),
      Effect.as(lines)
    )
  }

  it.effect("looks first after one interval, and mends what differs", () =>
    run(
      zone,
      Effect.gen(function* () {
        yield* registerAll(names(3))
        yield* remove("h1")
        yield* pass(40)
        assert.strictEqual((yield* served).length, 2)
        yield* pass(40)
        assert.strictEqual((yield* served).length, 3)
        assert.deepStrictEqual(
          (yield* (yield* Plans).list({ limit: 10 })).map(({ madeBy, state }) => [madeBy, state]),
          [["prism", "applied"]]
        )
      })
    )
  )

  it.effect("says once in the log what waits for a person, however often it finds it", () =>
    run(
      { ...zone, reconciliation: { ...zone.reconciliation, repair: false } },
      Effect.gen(function* () {
        yield* registerAll(names(3))
        yield* remove("h1")
        yield* pass(300)
        yield* remove("h2")
        yield* pass(300)
      })
    ).pipe(
      Effect.map((lines) =>
        assert.strictEqual(lines.filter((line) => line.includes("something else than it should")).length, 2)
      )
    )
  )

  it.effect("only keeps the plan where the zone's settings say so", () =>
    run(
      { ...zone, reconciliation: { ...zone.reconciliation, repair: false } },
      Effect.gen(function* () {
        yield* registerAll(names(3))
        yield* remove("h1")
        yield* pass(70)
        assert.strictEqual((yield* served).length, 2)
        assert.deepStrictEqual(
          (yield* (yield* Plans).list({ limit: 10 })).map(({ state }) => state),
          ["open"]
        )
      })
    )
  )

  it.effect("says that a zone could not be read, and comes again within a minute or so", () =>
    Effect.gen(function* () {
      const lines = yield* run(
        zone,
        Effect.gen(function* () {
          const memory = yield* PowerDnsMemory
          yield* registerAll(names(3))
          yield* memory.failNext(new Uncertain({ detail: "cut" }), "records")
          yield* remove("h1")
          yield* pass(140)
          assert.strictEqual((yield* served).length, 3)
        })
      )
      assert.include(lines, "Error a zone could not be compared with PowerDNS, nothing was changed, will try again")
    })
  )
})
