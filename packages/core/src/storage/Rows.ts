/**
 * Many rows for one statement.
 *
 * A batch goes to the database as a single JSON text that the statement reads
 * as a table, so its cost is one statement whatever its length, the text of
 * the statement never changes, and SQLite and PostgreSQL take the same shape.
 *
 * What is only written SQLite takes row by row (`insertRows`, `forRows`): it is
 * in our process, so that a prepared statement that is run again costs a
 * quarter of what reading the row from JSON does.
 */
import type { SqlClient, Statement } from "effect/sql"

export type ColumnType = "text" | "bigint"

type Value = string | number | null

type Columns = Readonly<Record<string, ColumnType>>

type Row<C extends Columns> = { readonly [Column in keyof C]: Value }

/** `rows` as a table named `alias` with the given columns, to stand after FROM or in a subquery. */
export const asTable = <const C extends Columns>(
  sql: SqlClient.SqlClient,
  alias: string,
  columns: C,
  rows: ReadonlyArray<Row<C>>
): Statement.Fragment => {
  const json = JSON.stringify(rows)
  const names = Object.keys(columns)
  return sql.onDialectOrElse({
    pg: () =>
      sql`json_to_recordset(${json}::json) AS ${sql.literal(`${alias}(${names.map((n) => `${n} ${columns[n]}`).join(", ")})`)}`,
    orElse: () =>
      sql`(SELECT ${sql.literal(names.map((n) => `value->>'${n}' AS ${n}`).join(", "))} FROM json_each(${json})) AS ${sql.literal(alias)}`
  })
}

/** The only parameter of a statement that SQLite is to run for each of `rows`, whose values are then its parameters. */
export class EachRow {
  readonly rows: ReadonlyArray<ReadonlyArray<Value>>
  constructor(rows: ReadonlyArray<ReadonlyArray<Value>>) {
    this.rows = rows
  }
}

/**
 * Writes by `rows`, in one statement or by one for each row, and returns nothing of them. `all` is given the rows as a table;
 * in `each` they are `?1`, `?2` and so on, in the order of `columns`. In a transaction that fails rows before the one to blame
 * may be written: whoever is in one gives it up. Outside of one it is all or nothing.
 */
export const forRows = <const C extends Columns>(
  sql: SqlClient.SqlClient,
  columns: C,
  rows: ReadonlyArray<Row<C>>,
  write: { readonly all: (r: Statement.Fragment) => Statement.Statement<object>; readonly each: string }
): Statement.Statement<object> =>
  sql.onDialectOrElse({
    pg: () => write.all(asTable(sql, "r", columns, rows)),
    orElse: () => {
      const names: ReadonlyArray<keyof C> = Object.keys(columns)
      return sql.unsafe<object>(write.each, [new EachRow(rows.map((row) => names.map((name) => row[name])))])
    }
  })

/**
 * The order in which rows are locked, by text columns: that of their bytes, whatever the collation of a column, so that all who
 * lock rows of a table take them in one order, and wait for each other only one way.
 */
export const lockOrder = (sql: SqlClient.SqlClient, columns: ReadonlyArray<string>): Statement.Fragment =>
  sql.literal(
    sql
      .onDialectOrElse({
        pg: () => columns.map((column) => `${column} COLLATE "C"`),
        orElse: () => columns
      })
      .join(", ")
  )

/**
 * Inserts `rows` into `table`, with all their columns. `conflict` is an ON CONFLICT clause; rows that others may write at the
 * same moment come in the order of the columns `by` (`lockOrder`). `first` is a condition without columns, which PostgreSQL
 * looks at once, before the first row and the first number of an identity column; on SQLite there is none.
 */
export const insertRows = <const C extends Columns>(
  sql: SqlClient.SqlClient,
  table: string,
  columns: C,
  rows: ReadonlyArray<Row<C>>,
  {
    by,
    conflict = "",
    first
  }: {
    readonly by?: ReadonlyArray<keyof C & string>
    readonly conflict?: string
    readonly first?: Statement.Fragment | undefined
  } = {}
): Statement.Statement<object> => {
  const names = Object.keys(columns)
  const list = names.join(", ")
  const order = by === undefined ? sql.literal("") : sql`ORDER BY ${lockOrder(sql, by)}`
  const where = first === undefined ? sql.literal("") : sql`WHERE ${first}`
  return forRows(sql, columns, rows, {
    all: (r) =>
      sql`INSERT INTO ${sql.literal(`${table} (${list})`)} SELECT ${sql.literal(list)} FROM ${r} ${where} ${order} ${sql.literal(conflict)}`,
    each: `INSERT INTO ${table} (${list}) VALUES (${names.map((_, i) => `?${i + 1}`).join(", ")}) ${conflict}`
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
