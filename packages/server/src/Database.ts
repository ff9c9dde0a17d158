/**
 * The registry's database, SQLite or PostgreSQL, with its schema in place.
 *
 * Migrations run forward on start; on PostgreSQL under a table lock, so that
 * several servers may start together.
 */
import { NodeServices } from "@effect/platform-node"
import { PgClient, PgMigrator } from "@effect/sql-pg"
import { migrations } from "@prism-dns/core/storage/Migrations"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { Effect, Layer } from "effect"
import { Migrator, type SqlClient, type SqlError } from "effect/sql"
import { DatabaseSync } from "node:sqlite"
import type { PrismConfig } from "./Config.ts"
import { StorageUnavailable } from "./ServerError.ts"

/** Where the database notes which migrations it has had. */
export const migrationsTable = "schema_migrations"
const loader = Migrator.fromRecord(migrations)

/**
 * Keeps a second server off a SQLite file while the first one runs: both would answer, and both write the same zones.
 * The lock is one of the operating system on a file beside it, gone with the process however that ends; whoever only
 * reads the database is not kept off.
 */
const alone = (filename: string) =>
  Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.try({
        try: () => {
          const lock = new DatabaseSync(`${filename}.lock`)
          try {
            lock.exec("BEGIN EXCLUSIVE")
          } catch (error) {
            lock.close()
            throw error
          }
          return lock
        },
        catch: (error) => {
          const isHeld = error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY
          return new StorageUnavailable({
            storage: filename,
            detail: isHeld ? "another server works on it, and SQLite is for one" : detailOf(error)
          })
        }
      }),
      (lock) => Effect.sync(() => lock.close())
    )
  )

const SQLITE_BUSY = 5

const sqlite = (filename: string) =>
  Layer.effectDiscard(Migrator.make({})({ loader, table: migrationsTable })).pipe(
    Layer.provideMerge(Sqlite.layer({ filename }))
  )

const postgres = (options: PgClient.PgPoolConfig) =>
  PgMigrator.layer({ loader, table: migrationsTable }).pipe(
    Layer.provideMerge(PgClient.layer(options)),
    Layer.provide(NodeServices.layer)
  )

/** Opens the database and brings its schema up to date. */
export const layer = (storage: PrismConfig["storage"]): Layer.Layer<SqlClient.SqlClient, StorageUnavailable> => {
  const { url } = storage
  const unavailable = (name: string) => (error: SqlError.SqlError | Migrator.MigrationError) =>
    Layer.effectContext(Effect.fail(new StorageUnavailable({ storage: name, detail: detailOf(error) })))
  if (url._tag === "Sqlite") {
    const database = sqlite(url.filename).pipe(Layer.catch(unavailable(url.filename)))
    return url.filename === ":memory:" ? database : database.pipe(Layer.provide(alone(url.filename)))
  }
  return postgres({
    url: url.url,
    maxConnections: storage.connectionsMax,
    idleTimeout: "1 minute",
    connectionTTL: "30 minutes",
    multiplex: true
  }).pipe(Layer.catch(unavailable(`PostgreSQL at ${url.host}:${url.port}`)))
}
