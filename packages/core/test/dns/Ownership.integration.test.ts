import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward
const lab = T.nameOf("lab-1")

/** Holds the writer's next transaction at its beginning. */
class Gate extends Context.Service<
  Gate,
  {
    /** From now on; `reached` is done once one is held, which goes on when `open` is done. */
    readonly close: Effect.Effect<{ readonly reached: Deferred.Deferred<void>; readonly open: Deferred.Deferred<void> }>
  }
>()("@prism-dns/core/test/Gate") {}

const gated = Layer.effectContext(
  Effect.gen(function* () {
    const cluster = yield* Cluster
    let next: Effect.Success<Gate["Service"]["close"]> | undefined
    const held = Effect.suspend(() => {
      const gate = next
      if (gate === undefined) return Effect.void
      next = undefined
      return Effect.andThen(Deferred.succeed(gate.reached, undefined), Deferred.await(gate.open))
    })
    const close = Effect.gen(function* () {
      return (next = { reached: yield* Deferred.make<void>(), open: yield* Deferred.make<void>() })
    })
    return Context.make(Gate, Gate.of({ close })).pipe(
      Context.add(Cluster, Cluster.of({ ...cluster, fence: (name) => Effect.andThen(cluster.fence(name), held) }))
    )
  })
).pipe(Layer.provide(Cluster.layerAlone))

const prism = Layer.unwrap(
  Effect.map(Layer.build(gated), (built) =>
    T.publisher({ pollMillis: 20 }, [zone], {}, Layer.succeedContext(Context.pick(Cluster)(built))).pipe(
      Layer.provideMerge(Layer.succeedContext(Context.pick(Gate)(built))),
      Layer.provideMerge(PowerDnsMemory.layer()),
      Layer.provideMerge(T.postgres),
      Layer.provide(SecureRandom.layerWebCrypto)
    )
  )
)

const ignore = Effect.fnUntraced(function* (action: "ignore" | "unignore") {
  const plans = yield* Plans
  const plan = yield* plans.make(zone.name, {
    kind: "ignore",
    reason: "a look around",
    by: "ann",
    generation: 0,
    changes: Stream.make([
      {
        name: "lab-*" as DomainName,
        type: "*",
        action,
        before: undefined,
        after: undefined,
        reason: "so be it",
        cause: "settings"
      }
    ])
  })
  yield* plans.apply(plan.id, { by: "ann" })
})

const register = Effect.fnUntraced(function* (hostname: string, address: string) {
  yield* (yield* Registry).register(T.registration(hostname, address))
})

/** Nothing is due any more; gives what is parked. */
const untilQuiet = Effect.gen(function* () {
  const outbox = yield* Outbox
  const marks = yield* waitUntil("nothing is due", outbox.list({ limit: 10 }), (marks) =>
    marks.every(({ parkedReason }) => parkedReason !== undefined)
  )
  return marks.map(({ name }) => name)
})

const contents = Effect.gen(function* () {
  const found = yield* (yield* PowerDnsClient).rrsets(zone.name, [lab])
  return found.flatMap((rrset) => rrset.contents)
})

/** The zone is written, and `lab-*` ignored. */
const begin = Effect.gen(function* () {
  yield* register("web", "192.0.2.1")
  assert.deepStrictEqual(yield* untilQuiet, [])
  yield* ignore("ignore")
})

const untilWaiting = (atLeast: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    waitUntil(
      `${atLeast} have to wait`,
      sql<{ readonly n: number }>`
        SELECT COUNT(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      ([row]) => row!.n >= atLeast
    )
  )

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a name that is ignored", (it) => {
  const test = <E>(title: string, body: Effect.Effect<void, E, Layer.Success<typeof prism>>) =>
    it.effect(title, () => Effect.provide(body, Layer.fresh(prism)))

  test(
    "is parked, and published when it is ignored no more",
    Effect.gen(function* () {
      yield* begin
      yield* register("lab-1", "192.0.2.2")
      assert.deepStrictEqual(yield* untilQuiet, [lab])
      yield* ignore("unignore")
      assert.deepStrictEqual(yield* untilQuiet, [])
      assert.deepStrictEqual(yield* contents, ["192.0.2.2"])
    })
  )

  test(
    "is not parked when that was taken back since its writer looked",
    Effect.gen(function* () {
      yield* begin
      const { open, reached } = yield* (yield* Gate).close
      yield* register("lab-1", "192.0.2.2")
      yield* Deferred.await(reached)
      yield* ignore("unignore")
      yield* Deferred.succeed(open, undefined)
      assert.deepStrictEqual(yield* untilQuiet, [])
      assert.deepStrictEqual(yield* contents, ["192.0.2.2"])
    })
  )

  test(
    "is not parked when that was taken back elsewhere, and its writer has not heard of it",
    Effect.gen(function* () {
      yield* begin
      // Without a new version: it is not heard of before.
      yield* (yield* SqlClient.SqlClient)`DELETE FROM ignored`
      yield* register("lab-1", "192.0.2.2")
      assert.deepStrictEqual(yield* untilQuiet, [])
      assert.deepStrictEqual(yield* contents, ["192.0.2.2"])
    })
  )

  test(
    "is published when that is taken back while it is being parked: who takes it back waits, and finds it parked",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* begin
      const { open, reached } = yield* (yield* Gate).close
      yield* register("lab-1", "192.0.2.2")
      yield* Deferred.await(reached)
      const taken = yield* Deferred.make<void>()
      const enough = yield* Deferred.make<void>()
      const holder = yield* sql`SELECT 1 FROM outbox WHERE name = ${lab} FOR UPDATE`.pipe(
        Effect.andThen(Deferred.succeed(taken, undefined)),
        Effect.andThen(Deferred.await(enough)),
        sql.withTransaction,
        Effect.forkChild
      )
      yield* Effect.raceFirst(Deferred.await(taken), Fiber.join(holder))
      yield* Deferred.succeed(open, undefined)
      yield* untilWaiting(1)
      const undoing = yield* Effect.forkChild(ignore("unignore"))
      yield* Effect.raceFirst(untilWaiting(2), Fiber.await(undoing))
      yield* Deferred.succeed(enough, undefined)
      yield* Fiber.join(undoing)
      assert.deepStrictEqual(yield* untilQuiet, [])
      assert.deepStrictEqual(yield* contents, ["192.0.2.2"])
    })
  )
})
