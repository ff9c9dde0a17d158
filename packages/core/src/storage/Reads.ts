/**
 * Reads that may be a little old: lists, and what was, which a replica of the
 * database can answer as well.
 *
 * Promises: what a replica answers is as of a time that is known, and no older
 * than is allowed; nobody who has written something here within that time is
 * answered from before it. Where there is no replica, or none is good enough,
 * the database that is written answers. Leaves to others: which reads may be old
 * (whoever asks for `ReadFrom`), and finding out how old a replica is.
 */
import { Context } from "effect"
import type { SqlClient } from "effect/sql"

/** Whose statements a fiber's reads are, outside of transactions begun elsewhere; undefined: of the database that is written. */
export const ReadFrom = Context.Reference<SqlClient.SqlClient | undefined>("@prism-dns/core/storage/ReadFrom", {
  defaultValue: () => undefined
})

export interface Replica {
  readonly client: SqlClient.SqlClient
  /** All that was committed before then is there. */
  readonly asOfMillis: number
}

export interface Replicas {
  /** One that may answer `caller` at this time; undefined: none. */
  readonly find: (caller: string, nowMillis: number) => Replica | undefined
  /** `caller` has written, or may have. */
  readonly wrote: (caller: string, nowMillis: number) => void
}

/** Of a PostgreSQL that has them (`storage.replica.url`). */
export const Replicas = Context.Reference<Replicas | undefined>("@prism-dns/core/storage/Replicas", {
  defaultValue: () => undefined
})
