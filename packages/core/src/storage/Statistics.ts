/**
 * Keeps PostgreSQL's picture of our tables from being far too small.
 *
 * Statements are planned by what PostgreSQL knows of the sizes of tables, and it
 * looks at most once a minute (autovacuum). A registry that fills, or comes back
 * from a restore, is meanwhile a thousand times what it was: plans made for an
 * empty table read all of it again for each name of a batch (0.2 s in place of
 * 2 ms were seen with 4,000 names). So tables that have grown to a multiple are
 * analyzed within seconds; plans that were kept are made anew by that.
 *
 * Leaves to others: vacuuming, and everything slower than that (autovacuum).
 * On SQLite there is nothing to do: its plans take indexes whatever the sizes.
 */
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"

/** How often sizes are looked at, in milliseconds. */
const lookMillis = 2000

/** Fewer changed rows than this make no plan bad. */
const changedMin = 500

/** So many times what is known of a table has to have changed. */
const growth = 3

/** Analyzes the tables of ours that have grown to a multiple since PostgreSQL looked last, and gives their names. */
export const look = Effect.fn("Statistics.look")(function* (sql: SqlClient.SqlClient) {
  // What was never looked at has -1 rows.
  const grown = yield* sql<{ readonly name: string }>`
    SELECT t.relname AS name FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid
    WHERE t.schemaname = current_schema() AND t.n_mod_since_analyze >= ${changedMin}
      AND t.n_mod_since_analyze > ${growth} * GREATEST(c.reltuples, 1)
    ORDER BY t.relname`
  for (const { name } of grown) yield* sql`ANALYZE ${sql(name)}`
  return grown.map(({ name }) => name)
})

const run = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql.onDialectOrElse({
    pg: () =>
      Jobs.regularly("statistics", look(sql), {
        failed: "tables that have grown could not be analyzed",
        intervalMillis: lookMillis
      }),
    orElse: () => Effect.void
  })
})

export const layer = Layer.effectDiscard(run)
