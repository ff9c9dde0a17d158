/**
 * The audit log, as it is read: entries that are sealed, by their positions.
 *
 * Positions are 1, 2, 3 ... without gaps, in the order in which the entries of
 * each subject were committed. Entries are never changed; retention takes the
 * oldest (`audit/Retention`). Leaves to others: writing (`audit/Entries`),
 * sealing (`audit/Sealer`), and whether all is as it was sealed
 * (`audit/Verification`).
 */
import { Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Failover } from "../storage/Failover.ts"
import * as AuditSearch from "./AuditSearch.ts"
import { columns, genesis, type LogEntry, type LogRow, toEntry } from "./Chain.ts"

export type { LogEntry } from "./Chain.ts"

/** The end of the log. */
export interface Head {
  /** Of the newest entry; 0 when there never was one. */
  readonly position: number
  readonly hash: string
}

export class AuditLog extends Context.Service<
  AuditLog,
  {
    /** Up to `limit` entries behind `position`, in order. */
    readonly after: (position: number, limit: number) => Effect.Effect<ReadonlyArray<LogEntry>, SqlError.SqlError>
    readonly get: (position: number) => Effect.Effect<LogEntry | undefined, SqlError.SqlError>
    /** Entries that a filter is about, the newest first. */
    readonly list: (
      filter: AuditSearch.AuditFilter,
      page: { readonly before?: number | undefined; readonly limit: number }
    ) => Effect.Effect<AuditSearch.AuditPage, SqlError.SqlError>
    readonly head: Effect.Effect<Head, SqlError.SqlError>
    /** Position of the oldest entry that is still there; one behind the head when none is. */
    readonly oldest: Effect.Effect<number, SqlError.SqlError>
    /**
     * Returns the position of the newest entry once that is behind `position`, or when the log may have become another one.
     * A hint: whoever is told reads anew.
     */
    readonly awaitBeyond: (position: number) => Effect.Effect<number>
    /** Says that there are entries up to `position`: for who has appended them, after the commit. */
    readonly appended: (position: number) => void
  }
>()("@prism-dns/core/audit/AuditLog") {
  static readonly layer = Layer.effect(
    AuditLog,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const all = sql.literal(columns)
  /** Who waits for entries behind a position. */
  const waiting = new Set<{ readonly position: number; readonly resume: (newest: number) => void }>()
  let newest = 0

  const appended: AuditLog["Service"]["appended"] = (position) => {
    if (position <= newest) return
    newest = position
    for (const each of waiting) {
      if (each.position >= position) continue
      waiting.delete(each)
      each.resume(position)
    }
  }

  // What is known of its end may not be so on another database server: whoever waits looks.
  const { onMoved } = yield* Failover
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      onMoved(() => {
        newest = 0
        const told = [...waiting]
        waiting.clear()
        for (const { resume } of told) resume(newest)
      })
    ),
    (stop) => Effect.sync(stop)
  )

  const awaitBeyond: AuditLog["Service"]["awaitBeyond"] = (position) =>
    Effect.callback((resume) => {
      if (newest > position) return resume(Effect.succeed(newest))
      const waiter = { position, resume: (found: number) => resume(Effect.succeed(found)) }
      waiting.add(waiter)
      return Effect.sync(() => void waiting.delete(waiter))
    })

  const after: AuditLog["Service"]["after"] = Effect.fn("AuditLog.after")(function* (position, limit) {
    const rows = yield* sql<LogRow>`
      SELECT ${all} FROM audit_log WHERE position > ${position} ORDER BY position LIMIT ${limit}`
    return rows.map(toEntry)
  })

  const get: AuditLog["Service"]["get"] = Effect.fn("AuditLog.get")(function* (position) {
    const [row] = yield* sql<LogRow>`SELECT ${all} FROM audit_log WHERE position = ${position}`
    return row === undefined ? undefined : toEntry(row)
  })

  // Of the newest seal: retention may have taken the entry, never the seal.
  const head = Effect.map(
    sql<{ readonly last_position: number | bigint; readonly hash: string }>`
      SELECT last_position, hash FROM audit_seal ORDER BY last_position DESC LIMIT 1`,
    ([row]): Head =>
      row === undefined ? { position: 0, hash: genesis } : { position: Number(row.last_position), hash: row.hash }
  )

  const oldest = Effect.gen(function* () {
    const [row] = yield* sql<{ readonly position: number | bigint }>`
      SELECT position FROM audit_log ORDER BY position LIMIT 1`
    return row === undefined ? (yield* head).position + 1 : Number(row.position)
  })

  newest = (yield* head).position

  return AuditLog.of({ after, get, list: AuditSearch.make(sql), head, oldest, awaitBeyond, appended })
})
