/**
 * A PostgreSQL of its own with PowerDNS's schema, as PowerDNS is meant to be run on it.
 *
 * Promises: the newest installed version, on a Unix socket in a temp folder, with PostgreSQL's own defaults of
 * durability; gone with its scope. As root it runs as user postgres, since PostgreSQL refuses root.
 */
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { pgsqlIndexes, pgsqlLock } from "@prism-dns/core/powerdns/pgsqlLock"
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { gunzipSync } from "node:zlib"
import { BenchFailed, failed } from "./Benchmark.ts"
import { postgresPrograms } from "./Machine.ts"
import { run, spawn, temporaryFolder } from "./Workspace.ts"

const user = "prism"
const database = "pdns"
/** Names the socket's file; nobody listens on the network. */
const port = 5432

/** Where distributions put PowerDNS's schema for it. */
const schemaPaths = [
  "/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql",
  "/usr/share/doc/pdns-backend-postgresql/schema.pgsql.sql",
  "/usr/share/doc/pdns/schema.pgsql.sql",
  "/usr/share/doc/powerdns/schema.pgsql.sql",
  "/opt/homebrew/opt/pdns/share/doc/pdns/schema.pgsql.sql"
]

const schema = Effect.try({
  try: () => {
    for (const path of schemaPaths) {
      if (Fs.existsSync(path)) return Fs.readFileSync(path, "utf8")
      if (Fs.existsSync(`${path}.gz`)) return gunzipSync(Fs.readFileSync(`${path}.gz`)).toString("utf8")
    }
    throw new Error("PowerDNS's schema for PostgreSQL (schema.pgsql.sql) is not installed")
  },
  catch: failed("PostgreSQL")
})

const identity = Effect.try({
  try: (): { readonly uid?: number; readonly gid?: number } => {
    if (process.getuid?.() !== 0) return {}
    const line = Fs.readFileSync("/etc/passwd", "utf8")
      .split("\n")
      .find((each) => each.startsWith("postgres:"))
    if (line === undefined) throw new Error("we are root, and there is no user postgres to run it as")
    const [, , uid, gid] = line.split(":").map(Number)
    return { uid: uid!, gid: gid! }
  },
  catch: failed("PostgreSQL")
})

/** Runs SQL in the database that `forPowerDns` gave. */
export const sql = (backend: PowerDnsProcess.Backend, text: string): Effect.Effect<string, BenchFailed> =>
  backend._tag !== "Pgsql"
    ? Effect.fail(new BenchFailed({ detail: "no PostgreSQL" }))
    : run(
        `${postgresPrograms()}psql`,
        [
          "-X",
          "-q",
          "-A",
          "-t",
          "-v",
          "ON_ERROR_STOP=1",
          "-h",
          backend.host,
          "-p",
          `${port}`,
          "-U",
          user,
          backend.database
        ],
        { folder: "/", input: text }
      )

/** A server without databases of ours, `more` settings over its own. */
const start = Effect.fnUntraced(function* (more: Readonly<Record<string, string>> = {}) {
  const as = yield* identity
  const folder = yield* temporaryFolder
  if (as.uid !== undefined) Fs.chownSync(folder, as.uid, as.gid!)
  const data = Path.join(folder, "data")
  yield* run(
    `${postgresPrograms()}initdb`,
    ["-D", data, "-U", user, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"],
    {
      folder,
      as
    }
  )
  const settings = {
    listen_addresses: "",
    port: `${port}`,
    unix_socket_directories: folder,
    // PowerDNS opens a connection for each request.
    max_connections: "200",
    shared_buffers: "256MB",
    // Filling a zone of a million names is not what is measured.
    max_wal_size: "4GB",
    ...more
  }
  Fs.appendFileSync(
    Path.join(data, "postgresql.conf"),
    Object.entries(settings)
      .map(([key, value]) => `${key} = '${value}'\n`)
      .join("")
  )
  // SIGINT is its "fast" stop: it does not wait for its clients.
  const server = yield* spawn(`${postgresPrograms()}postgres`, ["-D", data], {
    folder,
    log: "log",
    as,
    stopSignal: "SIGINT"
  })
  const at = (database: string) => PowerDnsProcess.pgsql({ host: folder, port, user, database })
  yield* sql(at("postgres"), "SELECT 1").pipe(
    Effect.retry({ schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 400 })) }),
    Effect.raceFirst(server.ended)
  )
  return { at, folder }
})

/** A new, empty PowerDNS database with the lock and the indexes that Prism asks for. */
export const forPowerDns = Effect.gen(function* () {
  const text = yield* schema
  const { at } = yield* start()
  yield* sql(at("postgres"), `CREATE DATABASE ${database}`)
  yield* sql(at(database), `${text}\n${pgsqlIndexes}\n${pgsqlLock}`)
  return at(database)
})

const registryDatabase = "prism"

const registryOf = Effect.fnUntraced(function* (settings: Readonly<Record<string, string>>) {
  const { at, folder } = yield* start({ jit: "off", ...settings })
  yield* sql(at("postgres"), `CREATE DATABASE ${registryDatabase}`)
  return {
    url: `postgres://${user}@localhost/${registryDatabase}?host=${folder}&port=${port}`,
    run: (text: string) => sql(at(registryDatabase), text)
  }
})

/** A new, empty database for a registry that is filled at first and then read: its URL, and what runs SQL in it. */
export const forRegistry = registryOf({
  shared_buffers: "2GB",
  effective_cache_size: "8GB",
  maintenance_work_mem: "1GB",
  max_wal_size: "16GB",
  // What is filled in is thrown away.
  synchronous_commit: "off",
  random_page_cost: "1.1"
})

/** The same, with a commit that is durable when it returns: for registries that are written. */
export const forWrites = registryOf({})
