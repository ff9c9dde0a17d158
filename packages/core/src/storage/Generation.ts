/**
 * Registry generations: one number for all that a transaction changes, higher
 * than any given out before. Taken after the transaction has locked what it
 * changes, so that for any one host they rise in the order of commits.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"

export const next = Effect.fnUntraced(function* (sql: SqlClient.SqlClient) {
  const rows = yield* sql.onDialectOrElse({
    pg: () => sql<{ readonly value: number | bigint }>`SELECT nextval('registry_generation') AS value`,
    orElse: () =>
      sql<{ readonly value: number | bigint }>`UPDATE registry_generation SET value = value + 1 RETURNING value`
  })
  return Number(rows[0]!.value)
})

/** The highest generation given out so far. */
export const current = Effect.fnUntraced(function* (sql: SqlClient.SqlClient) {
  const rows = yield* sql.onDialectOrElse({
    pg: () =>
      sql<{ readonly value: number | bigint }>`
        SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS value FROM registry_generation`,
    orElse: () => sql<{ readonly value: number | bigint }>`SELECT value FROM registry_generation`
  })
  return Number(rows[0]!.value)
})
