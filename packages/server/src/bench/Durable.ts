/**
 * Registrations that are durable, and nothing else: the registry alone, in this
 * process, on a database of its own. No connections, no publishing, no sealing.
 *
 * Beside it the same rows (host, address, names, history, audit entry, marks)
 * inserted into a new database of the same schema and durability by a loop, as
 * many hosts in a transaction as the registry takes, by the fastest statements
 * we know: prepared inserts on SQLite, one for each table and transaction, read
 * from JSON, on PostgreSQL.
 */
import { NodeServices } from "@effect/platform-node"
import { PgClient, PgMigrator } from "@effect/sql-pg"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Leases } from "@prism-dns/core/registry/Leases"
import { defaultOptions, Registry } from "@prism-dns/core/registry/Registry"
import { Durability } from "@prism-dns/core/storage/Durability"
import { migrations } from "@prism-dns/core/storage/Migrations"
import { type ColumnType, insertRows } from "@prism-dns/core/storage/Rows"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { Effect, Layer, Redacted, Result } from "effect"
import { SecureRandom } from "effect/crypto"
import { Migrator, SqlClient } from "effect/sql"
import * as Path from "node:path"
import * as Agents from "./Agents.ts"
import { BenchFailed, failed, type Storage } from "./Benchmark.ts"
import * as Postgres from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { timed } from "./Workspace.ts"

/** What a registration writes, in the order in which it does; without what the database numbers by itself. */
const tables = [
  "host",
  "host_address",
  "host_name",
  "host_name_address",
  "host_history",
  "audit_entry",
  "host_count",
  "outbox"
]

const loader = Migrator.fromRecord(migrations)

/** A new, empty registry with its schema. */
const database = (folder: string, storage: Storage) =>
  storage === "sqlite"
    ? Effect.succeed(
        Layer.effectDiscard(Migrator.make({})({ loader, table: "schema_migrations" })).pipe(
          Layer.provideMerge(Sqlite.layer({ filename: Path.join(folder, "registry.db") }))
        )
      )
    : Effect.map(Postgres.forWrites, ({ url }) =>
        PgMigrator.layer({ loader, table: "schema_migrations" }).pipe(
          Layer.provideMerge(PgClient.layer({ url: Redacted.make(url), maxConnections: 8, multiplex: false })),
          Layer.provide(NodeServices.layer)
        )
      )

const zones = [Servers.zone, Servers.reverseZone].map((name) => Zone.make(DomainName.make(name)))

const registry = Registry.layer().pipe(
  Layer.provide([Leases.layer, Acknowledgements.layer, Outbox.layer, Cluster.layerAlone, SecureRandom.layerWebCrypto]),
  Layer.provide(Zones.layer(zones))
)

const registrations = (hosts: number) =>
  Array.from({ length: hosts }, (_, host) => ({
    _tag: "Register" as const,
    registration: {
      fqdn: DomainName.make(`${Agents.hostname(host)}.${Servers.zone}`),
      hostname: Agents.hostname(host) as DomainName.HostName,
      zone: DomainName.make(Servers.zone),
      addresses: [IpAddress.make(Agents.address(host))],
      registrant: { name: "bench", anonymous: false },
      peer: Agents.address(host)
    }
  }))

type Row = Readonly<Record<string, string | number | null>>

/** Rows as they were written, times and generations included. */
const rowsOf = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, table: string) {
  const rows = yield* sql<Record<string, string | number | bigint | null>>`SELECT * FROM ${sql(table)}`
  return rows.map((row): Row => {
    const entries = Object.entries(row).filter(([column]) => column !== "sequence")
    return Object.fromEntries(entries.map(([key, value]) => [key, typeof value === "bigint" ? Number(value) : value]))
  })
})

/** Registers `hosts` new hosts; gives the seconds until all are durable, and what was written. */
const register = Effect.fnUntraced(function* (hosts: number) {
  const sql = yield* SqlClient.SqlClient
  const { requestAll } = yield* Registry
  const requests = registrations(hosts)
  let refused = 0
  const seconds = yield* timed(
    Effect.gen(function* () {
      for (let i = 0; i < hosts; i += defaultOptions.waitingMax) {
        const handled = yield* requestAll(requests.slice(i, i + defaultOptions.waitingMax))
        refused += handled.filter(Result.isFailure).length
      }
    })
  )
  if (refused > 0) return yield* new BenchFailed({ detail: `${refused} registrations were refused` })
  return { seconds, rows: yield* Effect.forEach(tables, (table) => rowsOf(sql, table)) }
})

/** What the columns hold; those that hold nothing anywhere are left out. */
const columnsOf = (rows: ReadonlyArray<Row>): Readonly<Record<string, ColumnType>> =>
  Object.fromEntries(
    Object.keys(rows[0] ?? {}).flatMap((column) => {
      const value = rows.find((row) => row[column] !== null)?.[column]
      return value === undefined ? [] : [[column, typeof value === "number" ? "bigint" : "text"]]
    })
  )

/** Inserts `rows`, a part of each table in each transaction, which is synced before the next one. */
const insert = Effect.fnUntraced(function* (written: ReadonlyArray<ReadonlyArray<Row>>, hosts: number) {
  const sql = yield* SqlClient.SqlClient
  const durability = yield* Durability
  const batches = Math.ceil(hosts / defaultOptions.batchMax)
  const columns = written.map(columnsOf)
  return yield* timed(
    Effect.gen(function* () {
      for (let batch = 0; batch < batches; batch++) {
        const part = (rows: ReadonlyArray<Row>) =>
          rows.slice(Math.ceil((batch * rows.length) / batches), Math.ceil(((batch + 1) * rows.length) / batches))
        yield* Effect.forEach(written, (rows, i) => {
          const some = part(rows)
          return some.length === 0 ? Effect.void : Effect.asVoid(insertRows(sql, tables[i]!, columns[i]!, some))
        }).pipe(sql.withTransaction)
        yield* durability.flush
      }
    })
  )
})

/** Seconds of the registry for `hosts` new hosts, and of the bare inserts of what it wrote. */
export const compare = Effect.fnUntraced(
  function* (folders: { readonly registry: string; readonly bare: string }, storage: Storage, hosts: number) {
    const { rows, seconds } = yield* Effect.scoped(
      Effect.gen(function* () {
        const layer = yield* database(folders.registry, storage)
        return yield* Effect.provide(register(hosts), registry.pipe(Layer.provideMerge(layer)))
      })
    )
    const bare = yield* Effect.scoped(
      Effect.gen(function* () {
        const layer = yield* database(folders.bare, storage)
        return yield* Effect.provide(insert(rows, hosts), layer)
      })
    )
    return { seconds, bare }
  },
  (effect) =>
    Effect.mapError(effect, (error) => (error instanceof BenchFailed ? error : failed("the registry alone")(error)))
)
