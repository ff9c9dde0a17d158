/**
 * Entries of the audit log, written with the changes they tell of: inside their
 * transaction, so that neither is there without the other.
 *
 * Promises: of one zone, entries have their sequences in the order in which
 * their transactions commit. For that the zone's turn is taken until the commit
 * (`takeTurns`), so entries are the last thing a transaction writes: whoever has
 * the turn waits for nobody. They are sealed, and become events, once they have
 * committed (`audit/Sealer`).
 */
import { Effect, Metric } from "effect"
import type { SqlClient } from "effect/sql"
import * as Generation from "../storage/Generation.ts"
import { asTable, integer } from "../storage/Rows.ts"
import * as AuditMetrics from "./AuditMetrics.ts"

/** Who did it. */
export interface Actor {
  /** The principal's name; `prism` for what follows from time or from what was found. */
  readonly name: string
  /** The address it spoke from; undefined for Prism itself. */
  readonly peer: string | undefined
  /** The id of the API request it came by. */
  readonly request?: string | undefined
}

export interface Entry {
  readonly actor: Actor
  /** A word from a closed set, such as `token.issued`. */
  readonly action: string
  /** The zone it concerns; undefined where it concerns none. */
  readonly zone?: string | undefined
  /** What it was done to. */
  readonly subject: string
  /** Values to be written as JSON; never a secret. */
  readonly before?: unknown
  readonly after?: unknown
  readonly reason?: string | undefined
  /** What led to it: a word of `dns/Cause`, `plan:ID`, `generation:N`. */
  readonly cause?: string | undefined
  /** What became of it, where that is not `done`. */
  readonly result?: string | undefined
  /** Of the change; default: a new one for all entries of the call. */
  readonly generation?: number | undefined
}

/** An entry by itself. */
export interface SingleEntry extends Entry {
  readonly atMillis: number
}

const text = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))

/** Any number will do, as long as it stays: the first half of the key of PostgreSQL's advisory locks. */
const turnLock = 7_001_002

/**
 * Takes the turns of `zones` ("" for what concerns none) until the transaction ends. SQLite has one writer, whose turn it
 * always is. In the order of names, so that nobody waits for one who waits for it.
 */
export const takeTurns = (sql: SqlClient.SqlClient, zones: Iterable<string>) => {
  const names = [...new Set(zones)].sort()
  return sql.onDialectOrElse({
    pg: () =>
      Effect.forEach(names, (zone) => sql`SELECT pg_advisory_xact_lock(${turnLock}, hashtext(${zone}))`, {
        discard: true
      }),
    orElse: () => Effect.void
  })
}

const columns = {
  actor: "text",
  peer: "text",
  action: "text",
  zone: "text",
  subject: "text",
  generation: "bigint",
  before: "text",
  after: "text",
  reason: "text",
  cause: "text",
  request: "text",
  result: "text"
} as const

/** Writes entries in one statement, and counts them once the transaction around has committed. The last write of it. */
export const writeAll = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  entries: ReadonlyArray<Entry>,
  atMillis: number
) {
  if (entries.length === 0) return
  const generation = entries.every((entry) => entry.generation !== undefined) ? 0 : yield* Generation.next(sql)
  yield* takeTurns(
    sql,
    entries.map(({ zone }) => zone ?? "")
  )
  yield* sql`
    INSERT INTO audit_entry (
      at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result)
    SELECT ${integer(sql, atMillis)}, actor, peer, action, zone, subject, generation, before, after, reason, cause,
      request, result
    FROM ${asTable(
      sql,
      "r",
      columns,
      entries.map((entry) => ({
        actor: entry.actor.name,
        peer: entry.actor.peer ?? null,
        action: entry.action,
        zone: entry.zone ?? null,
        subject: entry.subject,
        generation: entry.generation ?? generation,
        before: text(entry.before),
        after: text(entry.after),
        reason: entry.reason ?? null,
        cause: entry.cause ?? null,
        request: entry.actor.request ?? null,
        result: entry.result ?? "done"
      }))
    )}`
  const counts = new Map<string, number>()
  for (const { action } of entries) counts.set(action, (counts.get(action) ?? 0) + 1)
  yield* sql.afterCommit(
    Effect.forEach(
      counts,
      ([action, count]) => Metric.update(Metric.withAttributes(AuditMetrics.auditEntries, { action }), count),
      { discard: true }
    )
  )
})

/** Writes one entry. */
export const write = (sql: SqlClient.SqlClient, { atMillis, ...entry }: SingleEntry) => writeAll(sql, [entry], atMillis)
