/**
 * The registry's database of a simulated server: real SQLite, in memory, that
 * outlives the process which uses it, as a file would.
 *
 * Each statement is a point at which the process may die, before or after it
 * took effect, COMMIT among them; a statement may take time, as on PostgreSQL,
 * or fail. A process that dies leaves its transaction to be rolled back. A power
 * cut takes commits away too, the latest first, down to the last one that was
 * synced: a second database holds what is safe.
 */
import { Effect, Layer } from "effect"
import { Reactivity } from "effect/reactivity"
import { Migrator, SqlClient, SqlError } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { DatabaseSync, type Session, type StatementSync } from "node:sqlite"
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
  readonly #questions = new Map<string, StatementSync>()
  /** What a power cut leaves; undefined while none is to come. */
  #safe: DatabaseSync | undefined
  #session: Session | undefined
  /** Commits that a power cut may still take away, and how many were made safe. */
  #commits: Array<{ readonly changes: Uint8Array; readonly generation: number }> = []
  #synced = 0

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

  /** As it is after the migrations. `powerCuts`: it is kept apart what is safe from them. */
  empty(powerCuts = false): void {
    this.rollBack()
    this.#session?.close()
    this.#session = undefined
    this.#commits = []
    this.#synced = 0
    empty(this.db, this.#tables)
    if (!powerCuts) return
    if (this.#safe === undefined) {
      this.#safe = new DatabaseSync(":memory:")
      for (const { sql } of this.rows(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
      )) {
        this.#safe.exec(String(sql))
      }
    }
    empty(this.#safe, this.#tables)
    // What follows from a deletion stands among the changes.
    this.#safe.exec("PRAGMA foreign_keys = OFF")
    this.#session = this.db.createSession()
  }

  /** Commits so far; to be given to `sync`. */
  get commits(): number {
    return this.#synced + this.#commits.length
  }

  /** The first `commits` are safe. */
  sync(commits: number): void {
    if (this.#safe === undefined) return
    for (; this.#synced < commits; this.#synced++) {
      const { changes, generation } = this.#commits.shift()!
      if (changes.length > 0 && !this.#safe.applyChangeset(changes)) throw new Error("a change does not fit")
      // The one table without a key, which a changeset leaves out.
      this.#safe.exec(`UPDATE registry_generation SET value = ${generation}`)
    }
  }

  /** Takes all commits away that were not synced, but for the first `lucky` of them. */
  cutPower(lucky: number): void {
    this.rollBack()
    const safe = this.#safe
    if (safe === undefined) return
    this.sync(this.#synced + Math.min(lucky, this.#commits.length))
    this.#session?.close()
    this.db.exec("PRAGMA foreign_keys = OFF")
    for (const table of this.#tables) {
      this.db.exec(`DELETE FROM ${table}`)
      for (const row of safe.prepare(`SELECT * FROM ${table}`).all()) {
        const columns = Object.keys(row)
        this.db
          .prepare(`INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`)
          .run(...Object.values(row))
      }
    }
    this.db.exec("PRAGMA foreign_keys = ON")
    this.#commits = []
    this.#session = this.db.createSession()
  }

  /** Notes what was committed by the statement before. */
  #note(): void {
    if (this.#session === undefined || this.db.isTransaction) return
    const changes = this.#session.changeset()
    if (changes.length === 0) return
    const [row] = this.rows("SELECT value FROM registry_generation")
    this.#commits.push({ changes, generation: Number(row!["value"]) })
    this.#session.close()
    this.#session = this.db.createSession()
  }

  /** What happens to the open transaction of a process that is no more. */
  rollBack(): void {
    if (this.db.isTransaction) this.db.exec("ROLLBACK")
  }

  rows(text: string, ...params: ReadonlyArray<string | number>): ReadonlyArray<Record<string, string | number | null>> {
    let statement = this.#questions.get(text)
    if (statement === undefined) this.#questions.set(text, (statement = this.db.prepare(text)))
    return statement.all(...params) as ReadonlyArray<Record<string, string | number | null>>
  }

  /** The client of one process. */
  layer(fate: StatementFate): Layer.Layer<SqlClient.SqlClient> {
    const meet = <A>(text: string, run: Effect.Effect<A, SqlError.SqlError>): Effect.Effect<A, SqlError.SqlError> =>
      Effect.suspend(() => {
        const failure = fate.failure()
        if (failure !== undefined) {
          const fails = Effect.fail(failed(failure))
          if (text === "COMMIT" && fate.commitsAnyway()) {
            return Effect.andThen(
              run,
              Effect.suspend(() => {
                this.#note()
                return fails
              })
            )
          }
          this.rollBack()
          return fails
        }
        if (fate.dies(`before ${text}`)) return Effect.never
        const afterwards = Effect.flatMap(run, (result) => {
          this.#note()
          return fate.dies(`after ${text}`) ? Effect.never : Effect.succeed(result)
        })
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

const empty = (db: DatabaseSync, tables: ReadonlyArray<string>) => {
  db.exec("PRAGMA foreign_keys = OFF")
  for (const table of tables) db.exec(`DELETE FROM ${table}`)
  db.exec("INSERT INTO registry_generation (value) VALUES (0); PRAGMA foreign_keys = ON")
}

const failed = (message: string) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause: new Error(message), message, operation: "execute" })
  })
