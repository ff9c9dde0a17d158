/**
 * Entries of the audit log that are written one at a time, with the change
 * they tell of: inside its transaction, so that neither is there without the
 * other. Changes of hosts come in batches and are written by their own
 * statements (`registry/HostRepo`).
 */
import { Effect, Metric } from "effect"
import type { SqlClient } from "effect/sql"
import * as Generation from "../storage/Generation.ts"
import * as AuditMetrics from "./AuditMetrics.ts"

export interface Entry {
  readonly atMillis: number
  readonly actor: {
    readonly name: string
    /** The address it spoke from; undefined for Prism itself. */
    readonly peer: string | undefined
  }
  /** A word from a closed set, such as `token.issued`. */
  readonly action: string
  /** What it was done to. */
  readonly subject: string
  /** Values to be written as JSON; never a secret. */
  readonly before?: unknown
  readonly after?: unknown
  readonly reason?: string | undefined
}

const text = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))

/** Writes an entry, and counts it once the transaction around has committed. */
export const write = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, entry: Entry) {
  const { action, actor, after, atMillis, before, reason, subject } = entry
  yield* sql`
    INSERT INTO audit_entry (at, actor, peer, action, subject, generation, before, after, reason)
    VALUES (${atMillis}, ${actor.name}, ${actor.peer ?? null}, ${action}, ${subject},
      ${yield* Generation.next(sql)}, ${text(before)}, ${text(after)}, ${reason ?? null})`
  yield* sql.afterCommit(Metric.update(Metric.withAttributes(AuditMetrics.auditEntries, { action }), 1))
})
