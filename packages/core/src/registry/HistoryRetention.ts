/**
 * Takes out of the history what hosts were longer ago than it is to be kept.
 *
 * Promises: what hosts were since then stays known whole, also of hosts that have
 * not changed for long: a version goes when it ended before, not when it began;
 * from when on all is known is noted before anything goes. On PostgreSQL whole
 * partitions are dropped, so that what is kept is up to one partition more
 * (`Partitions.spanFor`); on SQLite versions are deleted, a few at a time. Of
 * several servers one does it. Leaves to others: the audit (`audit/Retention`).
 */
import { Clock, Effect, Layer, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import * as Partitions from "../storage/Partitions.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

export interface HistoryRetentionOptions {
  /** How long what hosts were is kept, in milliseconds; 0: for ever. */
  readonly keepMillis: number
  /** How often it is looked, in milliseconds. */
  readonly intervalMillis: number
  /** Versions that one statement looks at on SQLite. */
  readonly pieceMax: number
  /** Between two of those, in milliseconds. */
  readonly restMillis: number
}

export const defaultOptions: HistoryRetentionOptions = {
  keepMillis: 0,
  intervalMillis: 600_000,
  pieceMax: 500,
  restMillis: 50
}

/** From when on all that hosts were is known, as far as retention goes; 0: it has taken nothing. */
export const startOf = (sql: SqlClient.SqlClient): Effect.Effect<number, SqlError.SqlError> =>
  Effect.map(sql<{ readonly since: number | bigint }>`SELECT since FROM history_start`, ([row]) =>
    Number(row?.since ?? 0)
  )

export const layer = (options: Partial<HistoryRetentionOptions> = {}) =>
  Layer.effectDiscard(run({ ...defaultOptions, ...options }))

/** A look: takes what is old. */
export const make = Effect.fnUntraced(function* (given: Partial<HistoryRetentionOptions> = {}) {
  const options = { ...defaultOptions, ...given }
  const sql = yield* SqlClient.SqlClient

  const note = (sinceMillis: number) =>
    sql`UPDATE history_start SET since = ${sinceMillis} WHERE since < ${sinceMillis}`

  /** One partition, and what ended before it does and is in none. */
  const dropOne = (partition: Partitions.Partition) =>
    Effect.gen(function* () {
      yield* note(partition.to)
      yield* sql`DELETE FROM host_history_rest WHERE valid_to < ${partition.to}`
      yield* Partitions.drop(sql, [partition])
      yield* sql.afterCommit(Metric.update(RegistryMetrics.historyDropped, 1))
    }).pipe(sql.withTransaction)

  const dropAll = Effect.fnUntraced(function* (beforeMillis: number) {
    for (const partition of yield* Partitions.list(sql, Partitions.hostHistory)) {
      if (partition.to <= beforeMillis) yield* dropOne(partition)
    }
  })

  /** In the order in which they were written: of a name's versions the older one goes first. */
  const deleteAll = Effect.fnUntraced(function* (beforeMillis: number) {
    yield* note(beforeMillis)
    for (let after = 0; ;) {
      const rows = yield* sql<{ readonly sequence: number | bigint; readonly valid_from: number | bigint }>`
        SELECT sequence, valid_from FROM host_history WHERE sequence > ${after} ORDER BY sequence LIMIT ${options.pieceMax}`
      const [first] = rows
      if (first === undefined || Number(first.valid_from) >= beforeMillis) return
      const last = Number(rows.at(-1)!.sequence)
      yield* sql`
        DELETE FROM host_history WHERE sequence > ${after} AND sequence <= ${last} AND valid_to < ${beforeMillis}`
      after = last
      yield* Effect.sleep(options.restMillis)
    }
  })

  return Effect.gen(function* () {
    if (options.keepMillis === 0) return
    const beforeMillis = (yield* Clock.currentTimeMillis) - options.keepMillis
    if (beforeMillis <= 0) return
    yield* sql.onDialectOrElse({ pg: () => dropAll(beforeMillis), orElse: () => deleteAll(beforeMillis) })
  })
})

const run = Effect.fnUntraced(function* (options: HistoryRetentionOptions) {
  if (options.keepMillis === 0) return
  yield* Jobs.regularly("history-retention", yield* make(options), {
    failed: "old versions of hosts could not be taken out",
    intervalMillis: options.intervalMillis
  })
})
