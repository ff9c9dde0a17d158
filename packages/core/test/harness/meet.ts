/**
 * Two transactions that meet at rows, so that the order in which each takes them
 * decides: taken in two orders they wait for each other, and PostgreSQL ends one.
 */
import { Deferred, Effect, Fiber } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "./waitUntil.ts"

/**
 * One takes what `first` takes; `other` begins, and comes to where it has to wait; then the one takes what `second` takes, and
 * ends. Gives what `other` gave. A deadlock fails it. Under `it.live` or without a test clock.
 */
export const meet = Effect.fnUntraced(function* <A, E1, E2, E3>(
  first: Effect.Effect<unknown, E1>,
  other: Effect.Effect<A, E2>,
  second: Effect.Effect<unknown, E3>
) {
  const sql = yield* SqlClient.SqlClient
  const taken = yield* Deferred.make<void>()
  const waits = yield* Deferred.make<void>()
  const one = yield* Effect.forkChild(
    first.pipe(
      Effect.andThen(Deferred.succeed(taken, undefined)),
      Effect.andThen(Deferred.await(waits)),
      Effect.andThen(second),
      sql.withTransaction
    )
  )
  yield* Effect.raceFirst(Deferred.await(taken), Fiber.join(one))
  const blocked = yield* Effect.forkChild(other)
  yield* waitUntil(
    "the other has to wait",
    sql<{ readonly n: number }>`
      SELECT COUNT(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    ([row]) => row!.n > 0
  )
  yield* Deferred.succeed(waits, undefined)
  yield* Fiber.join(one)
  return yield* Fiber.join(blocked)
})
