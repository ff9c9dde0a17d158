/**
 * Many rows as one parameter.
 *
 * A batch goes to the database as a single JSON text that the statement reads
 * as a table, so its cost is one statement whatever its length, the text of
 * the statement never changes, and SQLite and PostgreSQL take the same shape.
 */
import type { SqlClient, Statement } from "effect/sql"

export type ColumnType = "text" | "bigint"

/** `rows` as a table named `alias` with the given columns, to stand after FROM or in a subquery. */
export const asTable = <const Columns extends Readonly<Record<string, ColumnType>>>(
  sql: SqlClient.SqlClient,
  alias: string,
  columns: Columns,
  rows: ReadonlyArray<{ readonly [Column in keyof Columns]: string | number | null }>
): Statement.Fragment => {
  const json = JSON.stringify(rows)
  const names = Object.keys(columns)
  return sql.onDialectOrElse({
    pg: () =>
      sql`jsonb_to_recordset(${json}::jsonb) AS ${sql.literal(`${alias}(${names.map((n) => `${n} ${columns[n]}`).join(", ")})`)}`,
    orElse: () =>
      sql`(SELECT ${sql.literal(names.map((n) => `value->>'${n}' AS ${n}`).join(", "))} FROM json_each(${json})) AS ${sql.literal(alias)}`
  })
}

/** `values` as a one-column subquery, to stand after IN. */
export const asList = (sql: SqlClient.SqlClient, values: ReadonlyArray<string>): Statement.Fragment => {
  const json = JSON.stringify(values)
  return sql.onDialectOrElse({
    pg: () => sql`(SELECT jsonb_array_elements_text(${json}::jsonb))`,
    orElse: () => sql`(SELECT value FROM json_each(${json}))`
  })
}

/** `value` in a SELECT list, where PostgreSQL cannot tell the type of a parameter. */
export const integer = (sql: SqlClient.SqlClient, value: number): Statement.Fragment => sql`CAST(${value} AS BIGINT)`
