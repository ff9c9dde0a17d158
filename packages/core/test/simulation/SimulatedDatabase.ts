/**
 * The registry's database of a simulated server: real SQLite, in memory, that
 * outlives the process which uses it, as a file would.
 *
 * Each statement is a point at which the process may die, before or after it
 * took effect, COMMIT among them; a statement may take time, as on PostgreSQL,
 * or fail. A process that dies leaves its transaction to be rolled back.
 */
import { Effect, Layer } from "effect"
import { Reactivity } from "effect/reactivity"
import { Migrator, SqlClient, SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { DatabaseSync } from "node:sqlite"
import { migrations } from "@prism-dns/core/storage/Migrations"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"

/** What a statement meets on its way. */
export interface StatementFate {
  /** Said before and after each statement; true when the process is no more. */
  readonly dies: (point: string) => boolean
  /** Why it fails, having done nothing, and ended the transaction around it. */
  readonly failure: () => string | undefined
  /** Whether a COMMIT that fails took effect all the same, and only its answer was lost. */
  readonly commitsAnyway: () => boolean
  /** How long it takes, in milliseconds; 0 for no time, in which nothing else happens. */
  readonly delayMillis: () => number
}

/** One database after another, on one connection: to make it anew costs a run more than all of its statements. */
export class SimulatedDatabase {
  readonly db: DatabaseSync
  readonly #connection: Connection
  readonly #tables: ReadonlyArray<string>

  constructor() {
    this.db = new DatabaseSync(":memory:")
    this.db.exec("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF")
    this.#connection = Sqlite.makeConnection(this.db)
    Effect.runSync(
      Migrator.make({})({ loader: Migrator.fromRecord(migrations) }).pipe(
        Effect.provideServiceEffect(SqlClient.SqlClient, Sqlite.makeClient(this.db, this.#connection)),
        Effect.provide(Reactivity.layer),
        Effect.scoped
      )
    )
    this.#tables = this.db
      .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'effect_%'")
      .all()
      .map((row) => String(row["name"]))
  }

  /** As it is after the migrations. */
  empty(): void {
    this.rollBack()
    this.db.exec("PRAGMA foreign_keys = OFF")
    for (const table of this.#tables) this.db.exec(`DELETE FROM ${table}`)
    this.db.exec("INSERT INTO registry_generation (value) VALUES (0); PRAGMA foreign_keys = ON")
  }

  /** What happens to the open transaction of a process that is no more. */
  rollBack(): void {
    if (this.db.isTransaction) this.db.exec("ROLLBACK")
  }

  rows(text: string, ...params: ReadonlyArray<string | number>): ReadonlyArray<Record<string, string | number | null>> {
    return this.db.prepare(text).all(...params) as ReadonlyArray<Record<string, string | number | null>>
  }

  /** The client of one process. */
  layer(fate: StatementFate): Layer.Layer<SqlClient.SqlClient> {
    const meet = <A>(text: string, run: Effect.Effect<A, SqlError.SqlError>): Effect.Effect<A, SqlError.SqlError> =>
      Effect.suspend(() => {
        const failure = fate.failure()
        if (failure !== undefined) {
          const fails = Effect.fail(failed(failure))
          if (text === "COMMIT" && fate.commitsAnyway()) return Effect.andThen(run, fails)
          this.rollBack()
          return fails
        }
        if (fate.dies(`before ${text}`)) return Effect.never
        const afterwards = Effect.flatMap(run, (result) =>
          fate.dies(`after ${text}`) ? Effect.never : Effect.succeed(result)
        )
        const delayMillis = fate.delayMillis()
        return delayMillis === 0 ? afterwards : Effect.delay(afterwards, delayMillis)
      })
    const inner = this.#connection
    const connection: Connection = {
      execute: (text, params, transform) => meet(text, inner.execute(text, params, transform)),
      executeUnprepared: (text, params, transform) => meet(text, inner.executeUnprepared(text, params, transform)),
      executeValues: (text, params) => meet(text, inner.executeValues(text, params)),
      executeValuesUnprepared: (text, params) => meet(text, inner.executeValuesUnprepared(text, params)),
      executeRaw: (text, params) => meet(text, inner.executeRaw(text, params)),
      executeStream: (text, params, transform) => inner.executeStream(text, params, transform)
    }
    return Layer.effect(SqlClient.SqlClient, Sqlite.makeClient(this.db, connection)).pipe(
      Layer.provide(Reactivity.layer)
    )
  }
}

const failed = (message: string) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause: new Error(message), message, operation: "execute" })
  })
