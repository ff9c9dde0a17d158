/**
 * Makes partitions of PostgreSQL's tables before they are written to.
 *
 * Promises: while it runs there is room ahead, for the audit by as many entries
 * as one partition holds, for hosts' history by `aheadMillis`; partitions are
 * made for as much time as suits how long their rows are kept, so that there are
 * few of them and each goes soon after its rows are old. Where it did not run,
 * rows go to the rest, and from there into the partitions that it makes later. Of several
 * servers one does it; no harm is done where two do.
 */
import { Clock, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import * as Partitions from "./Partitions.ts"

export interface AheadOptions {
  /** How long entries of the audit are kept, in milliseconds; 0: for ever. */
  readonly auditKeepMillis: number
  /** How long hosts' history is kept, in milliseconds; 0: for ever. */
  readonly historyKeepMillis: number
  /** How often it is looked, in milliseconds. */
  readonly intervalMillis: number
  /** Entries of a partition of the audit: a million come in a busy hour, or in a quiet year. */
  readonly entriesMin: number
  readonly entriesMax: number
}

export const defaultOptions: AheadOptions = {
  auditKeepMillis: 0,
  historyKeepMillis: 0,
  intervalMillis: 30_000,
  entriesMin: 1_000_000,
  entriesMax: 200_000_000
}

/** By how much partitions of hosts' history are there before their time. */
const aheadMillis = 14 * Partitions.dayMillis

/** Partitions of one table that are made at one look at the most. */
const madeMax = 64

export const layer = (options: Partial<AheadOptions> = {}) =>
  Layer.effectDiscard(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql.onDialectOrElse({ pg: () => run({ ...defaultOptions, ...options }), orElse: () => Effect.void })
    )
  )

/** One look: gives how many partitions were made; on SQLite none. */
export const make = Effect.fnUntraced(function* (given: Partial<AheadOptions> = {}) {
  const options = { ...defaultOptions, ...given }
  const sql = yield* SqlClient.SqlClient

  /** Entries in the time that one partition is for, by how many came lately. */
  const entriesOf = Effect.fnUntraced(function* (head: number) {
    const { auditKeepMillis, entriesMax, entriesMin } = options
    const sinceMillis = (yield* Clock.currentTimeMillis) - Partitions.spanFor(auditKeepMillis)
    const [row] = yield* sql<{ readonly position: number | bigint }>`
      SELECT position FROM audit_log WHERE at >= ${sinceMillis} ORDER BY at, position LIMIT 1`
    const lately = head - Number(row?.position ?? head)
    return Math.min(Math.max(Math.ceil(lately / entriesMin), 1) * entriesMin, entriesMax)
  })

  const audit = Effect.gen(function* () {
    const [row] = yield* sql<{ readonly head: number | bigint | null }>`
      SELECT MAX(last_position) AS head FROM audit_seal`
    const head = Number(row?.head ?? 0)
    let end = (yield* Partitions.list(sql, Partitions.auditLog)).at(-1)?.to ?? 1
    const size = yield* entriesOf(head)
    let made = 0
    for (; end <= head + size && made < madeMax; end += size) {
      if (yield* Partitions.add(sql, Partitions.auditLog, { from: end, to: end + size })) made += 1
      else break
    }
    return made
  })

  const history = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const span = Partitions.spanFor(options.historyKeepMillis)
    const current = Partitions.floorTo(span, nowMillis)
    const last = (yield* Partitions.list(sql, Partitions.hostHistory)).at(-1)?.to
    let end = last ?? current
    if (end < current) {
      // Nobody has made any for long: of what came meanwhile, from the first on.
      const [row] = yield* sql<{ readonly first: number | bigint | null }>`
        SELECT MIN(valid_to) AS first FROM host_history_rest WHERE valid_to >= ${end}`
      const first = row?.first == null ? current : Number(row.first)
      end = Math.max(end, Math.min(current, Partitions.floorTo(span, first)))
    }
    let made = 0
    while (end < nowMillis + aheadMillis && made < madeMax) {
      // The last one may be of another span.
      const to = Partitions.floorTo(span, end) + span
      if (yield* Partitions.add(sql, Partitions.hostHistory, { from: end, to })) made += 1
      else break
      end = to
    }
    return made
  })

  return sql.onDialectOrElse({
    pg: () => Effect.map(Effect.all([audit, history]), ([a, b]) => a + b),
    orElse: () => Effect.succeed(0)
  })
})

const run = Effect.fnUntraced(function* (options: AheadOptions) {
  yield* Jobs.regularly("partitions", yield* make(options), {
    failed: "partitions could not be made",
    intervalMillis: options.intervalMillis
  })
})
