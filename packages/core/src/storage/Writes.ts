/**
 * What this process writes to its database, counted where statements are run:
 * whoever keeps what it has read learns of every write, and nobody has to tell
 * it.
 *
 * Promises: by the time that anybody can be told that a change is committed, it
 * is counted, and never before the database knows of it: so what was read
 * between two equal counts is what stood there at the first of them. Leaves to
 * others: what other processes write.
 */
import { Cause, Context, Effect, Exit, Option, Stream } from "effect"
import type { SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"

export interface Writes {
  /** How many statements, or transactions, were run to their end that may have written something. */
  count: number
}

/** Of a PostgreSQL that is written here; undefined where nobody counts, and on SQLite (`DirectReads`). */
export const OwnWrites = Context.Reference<Writes | undefined>("@prism-dns/core/storage/OwnWrites", {
  defaultValue: () => undefined
})

const reads = /^\s*(?:SELECT|WITH|VALUES|SHOW|SET|LISTEN|UNLISTEN|SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b/i
/** In the middle of what begins like a read. */
const writesWithin = /\b(?:INSERT|UPDATE|DELETE|MERGE)\b/i
/** What instances say of their own life and work all the time: nothing that anybody is shown is made of it. */
const ofInstances = /^\s*(?:UPDATE|INSERT\s+INTO|DELETE\s+FROM)\s+"?(?:instance|cluster_lease|expiry)\b/i

/** Whether a statement may write something that is shown to somebody. Where in doubt, it may. */
export const mayWrite = (text: string): boolean =>
  reads.test(text) ? /^\s*WITH\b/i.test(text) && writesWithin.test(text) : !ofInstances.test(text)

const begins = /^\s*(?:BEGIN|START)\b/i
const ends = /^\s*(?:COMMIT|END|ROLLBACK(?!\s+TO))\b/i

/**
 * The same connection, for one borrower; what it writes is counted: a transaction when it has ended, whatever its end.
 * `failed` is told why a statement was not carried out that may have written.
 */
export const counted = (
  connection: Connection,
  writes: Writes,
  failed?: (error: SqlError.SqlError) => void
): Connection => {
  let inTransaction = false
  let wrote = false
  const note = (text: string): void => {
    if (begins.test(text)) {
      inTransaction = true
      wrote = false
    } else if (ends.test(text)) {
      if (wrote) writes.count += 1
      inTransaction = wrote = false
    } else if (inTransaction) wrote = true
    else writes.count += 1
  }
  // Also of what failed or was given up: whether it was carried out is not always known.
  const noting = <A>(text: string, effect: Effect.Effect<A, SqlError.SqlError>) =>
    mayWrite(text)
      ? Effect.onExit(effect, (exit) =>
          Effect.sync(() => {
            note(text)
            if (failed === undefined || Exit.isSuccess(exit)) return
            const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
            if (error !== undefined) failed(error)
          })
        )
      : effect
  return {
    execute: (text, params, transform) => noting(text, connection.execute(text, params, transform)),
    executeRaw: (text, params) => noting(text, connection.executeRaw(text, params)),
    executeValues: (text, params) => noting(text, connection.executeValues(text, params)),
    executeValuesUnprepared: (text, params) => noting(text, connection.executeValuesUnprepared(text, params)),
    executeUnprepared: (text, params, transform) => noting(text, connection.executeUnprepared(text, params, transform)),
    executeStream: (text, params, transform) => {
      const stream = connection.executeStream(text, params, transform)
      return mayWrite(text)
        ? Stream.ensuring(
            stream,
            Effect.sync(() => note(text))
          )
        : stream
    }
  }
}
