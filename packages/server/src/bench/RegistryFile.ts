/** The registry's SQLite file, looked into from outside while the server runs. */
import { Effect, Schedule } from "effect"
import { DatabaseSync } from "node:sqlite"
import { BenchFailed, failed } from "./Benchmark.ts"

/**
 * Counts the commits of others to a SQLite file for as long as `effect` runs, looking often enough that none of a
 * server that commits for every beat could hide; two within one look count as one.
 */
export const countingCommits = <A, E, R>(registry: string, effect: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => {
        const db = new DatabaseSync(registry, { readOnly: true })
        const look = db.prepare("PRAGMA data_version")
        const version = () => Number(Object.values(look.get()!)[0])
        let last = version()
        let commits = 0
        const ticker = setInterval(() => {
          const now = version()
          if (now !== last) commits += 1
          last = now
        }, 20)
        return { db, ticker, commits: () => commits }
      },
      catch: failed("the registry cannot be read")
    }),
    ({ commits }) => Effect.map(effect, (value) => ({ value, commits: commits() })),
    ({ db, ticker }) =>
      Effect.sync(() => {
        clearInterval(ticker)
        db.close()
      })
  )

/** Waits until nothing waits to be published, and with `served` nothing for a name server's answer. */
export const untilQuiet = (registry: string, options: { readonly served: boolean; readonly millisMax: number }) =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => new DatabaseSync(registry, { readOnly: true }),
      catch: failed("the registry cannot be opened")
    }),
    (db) => {
      const unserved = options.served ? " AND NOT EXISTS (SELECT 1 FROM unserved)" : ""
      const statement = db.prepare(`SELECT NOT EXISTS (SELECT 1 FROM outbox)${unserved} AS quiet`)
      return Effect.sync(() => statement.get()?.["quiet"] === 1).pipe(
        Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (quiet) => quiet }),
        Effect.timeoutOrElse({
          duration: options.millisMax,
          orElse: () => Effect.fail(new BenchFailed({ detail: `not published within ${options.millisMax / 1000} s` }))
        })
      )
    },
    (db) => Effect.sync(() => db.close())
  )
