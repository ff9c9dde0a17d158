/** The registry's SQLite file, looked into from outside while the server runs. */
import { Effect, Schedule } from "effect"
import { DatabaseSync } from "node:sqlite"
import { BenchFailed, failed } from "./Benchmark.ts"

/** How long the server may have it locked. */
const lockedMillisMax = 10_000

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

/** Makes an identity of each key, as if it had been enrolled long ago; `first` makes their ids differ from others. */
export const addIdentities = (
  registry: string,
  publicKeys: ReadonlyArray<string>,
  first: number
): Effect.Effect<void, BenchFailed> =>
  Effect.try({
    try: () => {
      const db = new DatabaseSync(registry, { timeout: lockedMillisMax })
      const insert = db.prepare(
        "INSERT INTO identity (id, public_key, grants, enrolled_by, enrolled_at) VALUES (?, ?, ?, ?, ?)"
      )
      db.exec("BEGIN IMMEDIATE")
      publicKeys.forEach((publicKey, i) => {
        insert.run(identityId(first + i), publicKey, JSON.stringify({ networks: [] }), "bench", Date.now())
      })
      db.exec("COMMIT")
      db.close()
    },
    catch: failed("the identities could not be written")
  })

/** An id of the form that identities have: the number in octal, with letters for digits. */
const identityId = (n: number): string =>
  `i-${n
    .toString(8)
    .padStart(16, "0")
    .replaceAll(/\d/g, (digit) => "abcdefgh"[Number(digit)]!)}`
