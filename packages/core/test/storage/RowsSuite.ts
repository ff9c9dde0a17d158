/** What writing many rows at once promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { SqlClient } from "effect/sql"
import { asTable, forRows, insertRows } from "@prism-dns/core/storage/Rows"

const columns = { name: "text", number: "bigint", note: "text" } as const

const rows = [
  { name: "b", number: 9_007_199_254_740_991, note: null },
  { name: "a", number: -1, note: 'it\'s "quoted", \\ and\nbroken' }
]

export const suite = <R>(
  what: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = <E>(name: string, body: (sql: SqlClient.SqlClient) => Effect.Effect<void, E>) =>
    it.effect(`${what}: ${name}`, () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`DROP TABLE IF EXISTS rows_test`
        yield* sql`CREATE TABLE rows_test (name TEXT NOT NULL UNIQUE, number BIGINT NOT NULL, note TEXT)`
        yield* body(sql)
      }).pipe(Effect.provide(database))
    )

  const all = (sql: SqlClient.SqlClient) =>
    Effect.map(
      sql<{ readonly name: string; readonly number: number | bigint; readonly note: string | null }>`
        SELECT name, number, note FROM rows_test ORDER BY name`,
      (found) => found.map(({ name, note, number }) => ({ name, number: Number(number), note }))
    )

  test(
    "rows are inserted as they were given, none too",
    Effect.fnUntraced(function* (sql) {
      yield* insertRows(sql, "rows_test", columns, [])
      assert.deepStrictEqual(yield* all(sql), [])
      yield* insertRows(sql, "rows_test", columns, rows)
      assert.deepStrictEqual(yield* all(sql), rows.toReversed())
    })
  )

  test(
    "a row that is there already does what the clause of conflicts says, the others are inserted",
    Effect.fnUntraced(function* (sql) {
      yield* insertRows(sql, "rows_test", columns, rows)
      const more = [
        { name: "c", number: 3, note: null },
        { name: "a", number: 4, note: null }
      ]
      yield* insertRows(sql, "rows_test", columns, more, {
        by: ["name"],
        conflict: "ON CONFLICT (name) DO UPDATE SET number = excluded.number"
      })
      assert.deepStrictEqual(
        (yield* all(sql)).map(({ name, number }) => [name, number]),
        [
          ["a", 4],
          ["b", 9_007_199_254_740_991],
          ["c", 3]
        ]
      )
    })
  )

  test(
    "each row has its columns at hand, in any order and more than once",
    Effect.fnUntraced(function* (sql) {
      yield* insertRows(sql, "rows_test", columns, rows)
      const shape = { number: "bigint", name: "text" } as const
      const changes = [
        { number: 7, name: "a" },
        { number: 8, name: "nobody" }
      ]
      yield* forRows(sql, shape, changes, {
        all: (r) => sql`
          UPDATE rows_test SET number = r.number, note = r.name FROM ${r} WHERE rows_test.name = r.name`,
        each: "UPDATE rows_test SET number = ?1, note = ?2 WHERE name = ?2"
      })
      assert.deepStrictEqual(yield* all(sql), [{ name: "a", number: 7, note: "a" }, rows[0]])
    })
  )

  test(
    "when one of the rows cannot be written none is, outside of a transaction and in one",
    Effect.fnUntraced(function* (sql) {
      yield* insertRows(sql, "rows_test", columns, [{ name: "z", number: 0, note: null }])
      const write = insertRows(sql, "rows_test", columns, [...rows, { name: "z", number: 1, note: null }])
      for (const attempt of [write, sql.withTransaction(write)]) {
        const { reason } = yield* Effect.flip(attempt)
        assert.strictEqual(reason._tag, "UniqueViolation")
        assert.deepStrictEqual(yield* all(sql), [{ name: "z", number: 0, note: null }])
      }
      // and whoever comes next is in no transaction of ours
      yield* sql.withTransaction(insertRows(sql, "rows_test", columns, rows))
      assert.lengthOf(yield* all(sql), 3)
    })
  )

  test(
    "rows are a table to a statement that reads them",
    Effect.fnUntraced(function* (sql) {
      const found = yield* sql<{ readonly name: string; readonly number: number | bigint }>`
        SELECT name, number FROM ${asTable(sql, "r", columns, rows)} WHERE note IS NULL`
      assert.deepStrictEqual(
        found.map(({ name, number }) => [name, Number(number)]),
        [["b", 9_007_199_254_740_991]]
      )
    })
  )
}
