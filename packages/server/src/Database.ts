/**
 * The registry's database, SQLite or PostgreSQL, with its schema in place.
 *
 * Migrations run forward on start; on PostgreSQL under a table lock, so that
 * several servers may start together.
 */
import { NodeServices } from "@effect/platform-node"
import { PgMigrator } from "@effect/sql-pg"
import { OwnConnections } from "@prism-dns/core/cluster/OwnConnection"
import { migrations } from "@prism-dns/core/storage/Migrations"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { Duration, Effect, Layer } from "effect"
import { Migrator, SqlClient, type SqlError } from "effect/sql"
import { existsSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import type { PrismConfig } from "./Config.ts"
import * as PostgresHosts from "./database/PostgresHosts.ts"
import * as PostgresUrl from "./database/PostgresUrl.ts"
import { StorageUnavailable } from "./ServerError.ts"

/** Where the database notes which migrations it has had. */
export const migrationsTable = "schema_migrations"
const loader = Migrator.fromRecord(migrations)

/** The newest schema that this program knows, by the number of its migration. */
export const schemaKnown = Math.max(...Object.keys(migrations).map((key) => Number.parseInt(key, 10)))

/** The schema that the database has; 0 where it has none yet. */
export const schemaOf = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [table] = yield* sql.onDialectOrElse({
    pg: () => sql<{ readonly present: boolean }>`SELECT to_regclass(${migrationsTable}) IS NOT NULL AS present`,
    orElse: () =>
      sql<{ readonly present: number }>`
        SELECT COUNT(*) AS present FROM sqlite_master WHERE type = 'table' AND name = ${migrationsTable}`
  })
  if (!Number(table?.present ?? 0)) return 0
  const [row] = yield* sql<{ readonly latest: number | null }>`
    SELECT MAX(migration_id) AS latest FROM ${sql(migrationsTable)}`
  return row?.latest ?? 0
})

/** What to do about a database whose schema is newer than the program's; undefined where it is not. */
export const newerThanKnown = (schema: number): string | undefined =>
  schema <= schemaKnown
    ? undefined
    : `its schema is ${schema}, made by a newer version of Prism DNS, and this one knows schemas up to ${schemaKnown}; ` +
      "start that version again, or restore a backup from before the upgrade"

/** An older program would misread what a newer one wrote, so it does not begin. */
const notNewer = (name: string) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const detail = newerThanKnown(yield* schemaOf)
      if (detail !== undefined) return yield* new StorageUnavailable({ storage: name, detail })
    })
  )

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
    Layer.provideMerge(notNewer(filename)),
    Layer.provideMerge(Sqlite.layer({ filename }))
  )

const postgres = (name: string, url: PostgresUrl.PostgresUrl, options: PostgresHosts.ClientOptions) =>
  PgMigrator.layer({ loader, table: migrationsTable }).pipe(
    Layer.provideMerge(notNewer(name)),
    Layer.provideMerge(PostgresHosts.layer(url, options)),
    Layer.provide(NodeServices.layer)
  )

/** The schema of the database as it stands, which is not changed; 0 where there is none yet. */
export const schemaNow = (storage: PrismConfig["storage"]): Effect.Effect<number, StorageUnavailable> => {
  const { url } = storage
  if (url._tag === "Sqlite" && !existsSync(url.filename)) return Effect.succeed(0)
  const [name, client] =
    url._tag === "Sqlite"
      ? ([url.filename, Sqlite.layer({ filename: url.filename })] as const)
      : ([PostgresUrl.describe(url), PostgresHosts.clientOf(url, { maxConnections: 1 })] as const)
  return Effect.scoped(Effect.provide(schemaOf, client)).pipe(
    Effect.mapError((error) => new StorageUnavailable({ storage: name, detail: detailOf(error) }))
  )
}

/**
 * Opens the database and brings its schema up to date. `applicationName` names its connections in PostgreSQL, so that
 * those of a server that was declared dead can be ended.
 */
export const layer = (
  storage: PrismConfig["storage"],
  applicationName = "prism-dns"
): Layer.Layer<SqlClient.SqlClient, StorageUnavailable> => {
  const { url } = storage
  const unavailable = (name: string) => (error: SqlError.SqlError | Migrator.MigrationError | StorageUnavailable) =>
    Layer.effectContext(
      Effect.fail(
        error._tag === "StorageUnavailable" ? error : new StorageUnavailable({ storage: name, detail: detailOf(error) })
      )
    )
  if (url._tag === "Sqlite") {
    const database = sqlite(url.filename).pipe(Layer.catch(unavailable(url.filename)))
    return url.filename === ":memory:" ? database : database.pipe(Layer.provide(alone(url.filename)))
  }
  const name = PostgresUrl.describe(url)
  const database = postgres(name, url, {
    direct: storage.directUrl,
    ...(storage.replica?.url !== undefined && {
      replica: { url: storage.replica.url, lagMillisMax: Duration.toMillis(storage.replica.lagMax) }
    }),
    pool: {
      applicationName,
      maxConnections: storage.connectionsMax,
      idleTimeout: "1 minute",
      connectionTTL: "30 minutes",
      // docs/decisions/0019: with several at once, the interruption of one can take the answer of another.
      multiplex: false
    }
  })
  return database.pipe(Layer.catch(unavailable(name)))
}

/** Connections of the cluster's own, besides the shared ones. */
export const layerOwn = (applicationName: string): Layer.Layer<OwnConnections> =>
  Layer.effect(
    OwnConnections,
    Effect.map(PostgresHosts.OwnSessions, (sessions) =>
      OwnConnections.of({
        open: sessions === undefined ? Effect.die("a cluster needs PostgreSQL") : sessions.client(applicationName)
      })
    )
  )
