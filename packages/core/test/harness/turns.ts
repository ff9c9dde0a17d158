/** What PostgreSQL says of the audit's turns: how many locks it has granted, and how many are waited for. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

export const turns = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ readonly granted: boolean }>`
      SELECT granted FROM pg_locks WHERE locktype = 'advisory' AND classid = 7001002
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    (rows) => ({
      granted: rows.filter(({ granted }) => granted).length,
      waiting: rows.filter(({ granted }) => !granted).length
    })
  )
)
