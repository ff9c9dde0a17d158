import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Generation from "@prism-dns/core/storage/Generation"
import { meet } from "../harness/meet.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { suite } from "./PlansSuite.ts"

const zone = T.forward
const name = T.nameOf("a.lab")
const place = { zone: zone.name, name }
const address = RRset.make(name, "A", 60, ["192.0.2.1"])
const text = RRset.make(name, "TXT", 60, ['"ours now"'])

const parts = Plans.layer.pipe(
  Layer.provideMerge(T.shared([zone])),
  Layer.provideMerge(PowerDnsMemory.layer()),
  Layer.provideMerge(SecureRandom.layerWebCrypto),
  Layer.provideMerge(T.postgres)
)

const makePlan = Effect.fnUntraced(function* (kind: "adopt" | "release") {
  const change = { name, type: "TXT", before: text, after: undefined, reason: "said so", cause: "record" } as const
  return yield* (yield* Plans).make(zone.name, {
    kind,
    reason: "said so",
    by: "ann",
    generation: yield* Generation.current(yield* SqlClient.SqlClient),
    changes: Stream.make([{ ...change, action: kind }])
  })
})

const apply = (plans: Plans["Service"], id: string) => plans.apply(id, { by: "bob" })

/** A plan that takes the text over. */
const makeAdoption = Effect.gen(function* () {
  yield* (yield* PowerDnsClient).createZone({ name: zone.name, kind: "Native", nameservers: [T.nameOf("ns1")] })
  yield* (yield* PowerDnsMemory).put(zone.name, text)
  return yield* makePlan("adopt")
})

/** A plan that gives the text back, at a name at which a host has an address and nothing waits. */
const makeRelease = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* apply(yield* Plans, (yield* makeAdoption).id)
  yield* (yield* Outbox).settle(zone, [{ name, generation: 1, rrsets: [address, text] }], 1)
  yield* sql`DELETE FROM outbox`
  return yield* makePlan("release")
})

/** How many wait for locks. */
const waiting = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly n: number }>`
    SELECT COUNT(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
  return row!.n
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("plans", it, T.postgres)

  it.effect("a name that comes to be published while its release waits for its turn is not released", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const plan = yield* makeRelease
      const { refusals } = yield* meet(
        sql`SELECT pg_advisory_xact_lock(7001003, hashtext(${zone.name}))`,
        apply(yield* Plans, plan.id),
        Effect.gen(function* () {
          yield* outbox.mark([place], yield* Generation.next(sql), 2, "registered")
          yield* outbox.claim(zone.name, [{ name, sent: [address, text] }], 2)
        })
      )
      assert.match(refusals[0]?.reason ?? "released", /it has changed since and waits to be published/)
    }).pipe(Effect.provide(Layer.fresh(parts)))
  )

  it.effect("a name whose write was claimed while its release waited for that is not released", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const plan = yield* makeRelease
      const { refusals } = yield* meet(
        outbox.claim(zone.name, [{ name, sent: [address, text] }], 2),
        apply(yield* Plans, plan.id),
        Effect.void
      )
      assert.match(refusals[0]?.reason ?? "released", /a write of it is not over yet/)
    }).pipe(Effect.provide(Layer.fresh(parts)))
  )

  it.effect(
    "a name is marked before its release is decided or when it is done: none publishes what it takes away",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const outbox = yield* Outbox
        const plan = yield* makeRelease
        const taken = yield* Deferred.make<void>()
        const letGo = yield* Deferred.make<void>()
        const recordIsHeld = sql`SELECT name FROM record FOR UPDATE`.pipe(
          Effect.andThen(Deferred.succeed(taken, undefined)),
          Effect.andThen(Deferred.await(letGo)),
          sql.withTransaction
        )
        const holding = yield* Effect.forkChild(recordIsHeld)
        yield* Deferred.await(taken)
        const releasing = yield* Effect.forkChild(apply(yield* Plans, plan.id))
        yield* waitUntil("the release has decided", waiting, (n) => n === 1)

        // Whoever publishes reads marks, and then what is published and wanted.
        const marked = yield* Deferred.make<void>()
        const publishing = yield* Effect.forkChild(
          Effect.gen(function* () {
            yield* outbox.mark([place], yield* Generation.next(sql), 2, "registered")
            yield* Deferred.succeed(marked, undefined)
            const wanted = yield* sql<{ readonly type: string }>`SELECT type FROM record`
            return [wanted.map(({ type }) => type), (yield* outbox.published(zone.name, [name])).get(name)?.rrsets]
          })
        )
        yield* waitUntil(
          "the mark waits, or is there",
          Effect.all([waiting, Deferred.isDone(marked)]),
          ([n, isMarked]) => n === 2 || isMarked
        )
        yield* Deferred.succeed(letGo, undefined)
        yield* Fiber.join(holding)
        assert.strictEqual((yield* Fiber.join(releasing)).applied, 1)
        assert.deepStrictEqual(yield* Fiber.join(publishing), [[], [address]])
        const marks = yield* sql`SELECT name, cause FROM outbox WHERE name = ${name} OR generation = 0`
        assert.deepStrictEqual(marks, [{ name, cause: "registered" }])
      }).pipe(Effect.provide(Layer.fresh(parts)))
  )

  it.effect("a host that comes while its name is adopted does not leave it parked as somebody else's", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const plan = yield* makeAdoption
      const mine = yield* Generation.next(sql)
      const { applied } = yield* meet(
        sql`LOCK TABLE record IN SHARE MODE`,
        apply(yield* Plans, plan.id),
        outbox.mark([place], mine, 2, "registered")
      )
      assert.strictEqual(applied, 1)
      // Whoever published looked before the adoption was there.
      yield* outbox.park(zone.name, [{ name, generation: mine, reason: "a record that Prism did not make" }], 3)
      assert.deepStrictEqual(yield* sql`SELECT cause, parked_at FROM outbox WHERE name = ${name}`, [
        { cause: `plan:${plan.id}`, parked_at: null }
      ])
    }).pipe(Effect.provide(Layer.fresh(parts)))
  )
})
