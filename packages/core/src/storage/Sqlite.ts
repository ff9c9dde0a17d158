/**
 * A `SqlClient` for SQLite on `node:sqlite`.
 *
 * One connection, used by one fiber at a time; a transaction holds it until it
 * ends. Calls are synchronous, so statements are kept few and set-based: one
 * statement for a batch, never one for a row. What only writes rows is one
 * statement too, run for each of them (`Rows.EachRow`).
 */
import { Context, Effect, Layer, Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, SqlError, Statement } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { type FileHandle, open } from "node:fs/promises"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"
import { Durability } from "./Durability.ts"
import { EachRow } from "./Rows.ts"
import type { Writes } from "./Writes.ts"

export interface SqliteOptions {
  /** A path, or `:memory:`. */
  readonly filename: string
  /** Nothing is written, and no file made. Default: false. */
  readonly readOnly?: boolean
}

/** Prepared statements kept ready; beyond it the least recently prepared is given up. */
const statementsMax = 200

const attempt = <A>(operation: string, f: () => A): Effect.Effect<A, SqlError.SqlError> =>
  Effect.try({
    try: f,
    catch: (cause) => {
      // The classifier reads `errno`, node:sqlite calls it `errcode`.
      if (typeof cause === "object" && cause !== null && "errcode" in cause) {
        Object.assign(cause, { errno: cause.errcode })
      }
      return new SqlError.SqlError({
        reason: SqlError.classifySqliteError(cause, {
          message: `SQLite: ${cause instanceof Error ? cause.message : String(cause)}`,
          operation
        })
      })
    }
  })

const bind = (value: unknown): SQLInputValue =>
  typeof value === "boolean" ? Number(value) : value === undefined ? null : (value as SQLInputValue)

const onlyReads = /^\s*(?:SELECT|BEGIN|PRAGMA)\b/i

interface Prepared {
  readonly statement: StatementSync
  readonly writes: boolean
  readonly returnsRows: boolean
}

/** Statements on an open database. */
export const makeConnection = (db: DatabaseSync, writes: Writes = { count: 0 }): Connection => {
  const cache = new Map<string, Prepared>()
  // What a statement returns is asked once: node:sqlite describes each column anew, which takes longer than many a look-up.
  const prepareOnce = (text: string): Prepared => {
    const statement = db.prepare(text)
    return { statement, returnsRows: statement.columns().length > 0, writes: !onlyReads.test(text) }
  }
  const prepare = (text: string): Prepared => {
    const cached = cache.get(text)
    if (cached !== undefined) return cached
    const prepared = prepareOnce(text)
    if (cache.size >= statementsMax) cache.delete(cache.keys().next().value!)
    cache.set(text, prepared)
    return prepared
  }
  const runEach = (statement: StatementSync, { rows }: EachRow): ReadonlyArray<never> => {
    const isWithin = db.isTransaction
    if (!isWithin) db.exec("BEGIN IMMEDIATE")
    try {
      for (const row of rows) statement.run(...row)
      if (!isWithin) db.exec("COMMIT")
    } catch (error) {
      // What SQLite has given up by itself is not given up again.
      if (!isWithin && db.isTransaction) db.exec("ROLLBACK")
      throw error
    }
    return []
  }
  const run = (
    { returnsRows, statement, writes: mayWrite }: Prepared,
    params: ReadonlyArray<unknown>,
    arrays = false
  ): ReadonlyArray<Record<string, unknown>> => {
    if (mayWrite) writes.count += 1
    if (params[0] instanceof EachRow) return runEach(statement, params[0])
    const values = params.map(bind)
    statement.setReturnArrays(arrays)
    if (returnsRows) return statement.all(...values)
    statement.run(...values)
    return []
  }
  return {
    execute: (text, params, transform) =>
      Effect.map(
        attempt("execute", () => run(prepare(text), params)),
        transform ?? ((rows) => rows)
      ),
    executeUnprepared: (text, params, transform) =>
      Effect.map(
        attempt("execute", () => run(prepareOnce(text), params)),
        transform ?? ((rows) => rows)
      ),
    executeValues: (text, params) => attempt("execute", () => run(prepare(text), params, true) as never),
    executeValuesUnprepared: (text, params) => attempt("execute", () => run(prepareOnce(text), params, true) as never),
    executeRaw: (text, params) => attempt("execute", () => run(prepare(text), params)),
    executeStream: (text, params, transform) =>
      Stream.unwrap(
        Effect.map(
          attempt("execute", () => run(prepare(text), params)),
          (rows) => Stream.fromIterable(transform ? transform(rows) : rows)
        )
      )
  }
}

/** A client that shares `connection`, which is to `db`, among its fibers. */
export const makeClient = Effect.fnUntraced(function* (db: DatabaseSync, connection: Connection) {
  const acquirers = SqlClient.makeSqliteAcquirers({
    connection: Effect.succeed(connection),
    semaphore: yield* Semaphore.make(1),
    isTransaction: () => db.isTransaction
  })
  return yield* SqlClient.make({
    ...acquirers,
    driver: "node-sqlite",
    compiler: Statement.makeCompilerSqlite(),
    prepareTransactionControls: true,
    beginTransaction: "BEGIN IMMEDIATE",
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "sqlite"]]
  })
})

/**
 * Reads beside the client, at once, from a connection of their own that only reads: no fiber, and nobody's transaction is
 * waited for. They see what is committed.
 */
export interface DirectReads {
  /**
   * Another number whenever this process has committed anything since the last time; what others write, who do so behind
   * the server's back, shows within `othersMillis`.
   */
  readonly version: () => number
  /** The rows of a statement, as `Statement.compile` gives it. */
  readonly all: (compiled: readonly [text: string, params: ReadonlyArray<unknown>]) => ReadonlyArray<unknown>
}

/** Undefined where the database cannot be read like that: PostgreSQL, and SQLite in memory. */
export const DirectReads = Context.Reference<DirectReads | undefined>("@prism-dns/core/storage/DirectReads", {
  defaultValue: () => undefined
})

/** How often SQLite is asked whether others have written: each time costs several system calls. */
export const othersMillis = 20

const makeDirectReads = Effect.fnUntraced(function* ({ filename }: SqliteOptions, writes: Writes) {
  if (filename === ":memory:") return undefined
  const db = yield* Effect.acquireRelease(
    attempt("open", () => new DatabaseSync(filename, { readOnly: true, timeout: 1000 })),
    (db) => Effect.sync(() => db.close())
  )
  const statements = new Map<string, StatementSync>()
  const dataVersion = db.prepare("PRAGMA data_version")
  dataVersion.setReturnArrays(true)
  let version = 0
  let counted = -1
  let seen = -1
  let lookedMillis = -Infinity
  const reads: DirectReads = {
    version: () => {
      const nowMillis = performance.now()
      if (nowMillis - lookedMillis >= othersMillis) {
        const [now] = dataVersion.get() as unknown as readonly [number]
        if (now !== seen) version += 1
        seen = now
        lookedMillis = nowMillis
      }
      if (writes.count !== counted) version += 1
      counted = writes.count
      return version
    },
    all: ([text, params]) => {
      let statement = statements.get(text)
      if (statement === undefined) {
        statement = db.prepare(text)
        if (statements.size >= statementsMax) statements.delete(statements.keys().next().value!)
        statements.set(text, statement)
      }
      return statement.all(...params.map(bind))
    }
  }
  return reads
})

export const make = Effect.fnUntraced(function* (options: SqliteOptions, writes?: Writes) {
  const db = yield* attempt(
    "open",
    () => new DatabaseSync(options.filename, { timeout: 5000, readOnly: options.readOnly ?? false })
  )
  yield* Scope.addFinalizer(
    yield* Effect.scope,
    Effect.sync(() => db.close())
  )
  yield* attempt("configure", () =>
    db.exec(
      // Without a sync at each commit: see `Durability`.
      options.readOnly === true
        ? "PRAGMA query_only = ON"
        : "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON"
    )
  )
  return yield* makeClient(db, makeConnection(db, writes))
})

/**
 * Syncs the write-ahead log, in which a commit stands before it is anywhere else. SQLite syncs log and database by
 * itself when it moves the one into the other.
 */
const makeDurability = Effect.fnUntraced(function* (options: SqliteOptions) {
  if (options.filename === ":memory:") return { flush: Effect.void }
  let log: FileHandle | undefined
  yield* Effect.addFinalizer(() => Effect.promise(async () => await log?.close()))
  return {
    flush: Effect.tryPromise({
      try: async () => {
        log ??= await open(`${options.filename}-wal`, "r+")
        await log.datasync()
      },
      catch: (cause) =>
        new SqlError.SqlError({
          reason: new SqlError.UnknownError({
            cause,
            message: `SQLite: ${cause instanceof Error ? cause.message : String(cause)}`,
            operation: "sync"
          })
        })
    })
  }
})

export const layer = (options: SqliteOptions): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.suspend(() => {
    const writes: Writes = { count: 0 }
    return Layer.merge(
      Layer.effect(Durability, makeDurability(options)),
      Layer.effect(DirectReads, makeDirectReads(options, writes))
    ).pipe(
      Layer.provideMerge(Layer.effect(SqlClient.SqlClient, make(options, writes))),
      Layer.provide(Reactivity.layer)
    )
  })
