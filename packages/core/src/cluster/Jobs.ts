/** What runs once in the cluster, on one of its servers. */
import { Cause, Effect, type Scope } from "effect"
import type { SqlError } from "effect/sql"
import { detailOf } from "../storage/SqlFailure.ts"
import { Cluster } from "./Cluster.ts"

/** The names of the jobs, which are their leases. */
export const jobs = [
  "audit-seal",
  "audit-retention",
  "history-retention",
  "partitions",
  "expiry",
  "elapsed",
  "webhooks",
  "zone-changes",
  "statistics"
] as const
export type Job = (typeof jobs)[number] | `audit-export/${string}`

/**
 * Runs `work`, which goes on for ever, on whichever server has the job; it is interrupted when another gets it, and what it
 * has opened in its scope is closed with that.
 */
export const once = <E, R>(
  job: Job,
  work: Effect.Effect<void, E, R>
): Effect.Effect<void, never, R | Cluster | Scope.Scope> =>
  Effect.flatMap(Cluster, (cluster) => cluster.whileHeld(`job/${job}`, () => Effect.scoped(work)))

/**
 * Looks again and again, `intervalMillis` apart, on whichever server has the job. A look that fails ends nothing: the first of
 * several in a row is logged as `failed`, which says what could not be done.
 */
export const regularly = Effect.fnUntraced(function* (
  job: Job,
  look: Effect.Effect<unknown, SqlError.SqlError>,
  { failed, intervalMillis }: { readonly failed: string; readonly intervalMillis: number }
) {
  let hasFailed = false
  const attempt = Effect.catchCause(
    Effect.andThen(
      look,
      Effect.sync(() => void (hasFailed = false))
    ),
    (cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
      if (hasFailed) return Effect.void
      hasFailed = true
      return Effect.logWarning(`${failed}, will try again`).pipe(
        Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)) })
      )
    }
  )
  yield* once(job, attempt.pipe(Effect.andThen(Effect.sleep(intervalMillis)), Effect.forever))
})

/** Stands for a job; what is given says whether this server has it at that moment. For work that two may do at once, at a cost. */
export const standFor = (job: Job): Effect.Effect<() => boolean, never, Cluster | Scope.Scope> =>
  Effect.flatMap(Cluster, (cluster) =>
    Effect.as(
      cluster.whileHeld(`job/${job}`, () => Effect.never),
      () => cluster.held(`job/${job}`) !== undefined
    )
  )
