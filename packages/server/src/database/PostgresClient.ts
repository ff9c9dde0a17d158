/**
 * The client of one PostgreSQL server: the library's, on connections that count
 * what is written over them (`storage/Writes`).
 *
 * Leaves to others: several servers (`PostgresHosts`), and the schema
 * (`Database`).
 */
import { PgClient } from "@effect/sql-pg"
import { ReadFrom } from "@prism-dns/core/storage/Reads"
import * as Writes from "@prism-dns/core/storage/Writes"
import { Effect } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"

/** PostgreSQL says `ROLLBACK` to the `COMMIT` of a transaction in which something failed. */
export const commit = (connection: Connection): Effect.Effect<void, SqlError.SqlError> =>
  Effect.flatMap(connection.executeRaw("COMMIT", []), (result) =>
    typeof result === "object" && result !== null && "command" in result && result.command === "ROLLBACK"
      ? Effect.fail(
          new SqlError.SqlError({
            reason: new SqlError.UnknownError({
              cause: new Error("the transaction was undone at its COMMIT, since something in it had failed"),
              message: "the transaction was undone at its COMMIT",
              operation: "commit"
            })
          })
        )
      : Effect.void
  )

/** `failed` is told why a connection was not got, or a statement that may have written was not carried out. */
export const make = Effect.fnUntraced(function* (
  options: PgClient.PgPoolConfig,
  writes: Writes.Writes,
  failed: (error: SqlError.SqlError) => void = () => undefined
) {
  const inner = yield* PgClient.make(options)
  const { config, driver, json, listen, notify } = inner
  const written = Effect.mapBoth(inner.reserve, {
    onFailure: (error) => {
      failed(error)
      return error
    },
    onSuccess: (each) => Writes.counted(each, writes, failed)
  })
  const connection = Effect.flatMap(ReadFrom, (replica) => (replica === undefined ? written : replica.reserve))
  const client = yield* SqlClient.make({
    driver,
    acquirer: connection,
    borrower: (use) => Effect.scoped(Effect.flatMap(connection, use)),
    transactionAcquirer: connection,
    compiler: PgClient.makeCompiler(),
    prepareTransactionControls: true,
    commit,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "postgresql"]]
  })
  const result: PgClient.PgClient = Object.assign(client, {
    [PgClient.TypeId]: PgClient.TypeId,
    config,
    json,
    listen,
    notify
  })
  return result
})
