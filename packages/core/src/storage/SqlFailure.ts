/** What a database said, in its own words: drivers put a general sentence around them. */
import { Effect, Schedule } from "effect"
import { SqlError } from "effect/sql"

/** Causes behind an error that are looked at. */
const depthMax = 5

/** The innermost sentence of an error, or its own when nothing stands behind it. */
export const detailOf = (error: unknown): string => {
  let detail = error instanceof Error ? error.message : String(error)
  let cause: unknown = SqlError.isSqlError(error) ? error.reason.cause : undefined
  for (let depth = 0; depth < depthMax && cause instanceof Error; depth++) {
    // An AggregateError, as Node throws when no address of a host answers, says nothing itself.
    const first: unknown = cause instanceof AggregateError ? cause.errors[0] : undefined
    const inner = first instanceof Error ? first : cause
    if (inner.message !== "") detail = inner.message
    cause = inner.cause
  }
  return detail
}

/** True for a failure of two transactions that met, which a second try settles. */
export const isCollision = (error: unknown): boolean => {
  if (!SqlError.isSqlError(error)) return false
  switch (error.reason._tag) {
    case "UniqueViolation":
    case "DeadlockError":
    case "SerializationError":
      return true
    default:
      return false
  }
}

/** Repeats a transaction that met another, a few times: of two, one is likely to come through at once. */
export const againOnCollision = <A, E, R>(transaction: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(transaction, {
    while: isCollision,
    times: 5,
    schedule: Schedule.jittered(Schedule.exponential(5))
  })
