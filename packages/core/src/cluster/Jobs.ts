/** What runs once in the cluster, on one of its servers. */
import { Effect, type Scope } from "effect"
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

/** Stands for a job; what is given says whether this server has it at that moment. For work that two may do at once, at a cost. */
export const standFor = (job: Job): Effect.Effect<() => boolean, never, Cluster | Scope.Scope> =>
  Effect.flatMap(Cluster, (cluster) =>
    Effect.as(
      cluster.whileHeld(`job/${job}`, () => Effect.never),
      () => cluster.held(`job/${job}`) !== undefined
    )
  )
