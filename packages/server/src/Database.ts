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
import type { PrismConfig } from "./Config.ts"
import { StorageUnavailable } from "./ServerError.ts"

/** Where the database notes which migrations it has had. */
export const migrationsTable = "schema_migrations"
const loader = Migrator.fromRecord(migrations)

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
  if (url._tag === "Sqlite") return sqlite(url.filename).pipe(Layer.catch(unavailable(url.filename)))
  return postgres({
    url: url.url,
    maxConnections: storage.connectionsMax,
    idleTimeout: "1 minute",
    connectionTTL: "30 minutes",
    multiplex: true
  }).pipe(Layer.catch(unavailable(`PostgreSQL at ${url.host}:${url.port}`)))
}
