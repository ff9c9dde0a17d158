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
import { cpuSecondsOfAll, descendants, run, spawn, temporaryFolder } from "./Workspace.ts"

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
  return { at, folder, pid: server.pid }
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

/** A database for a registry. */
export interface Registry {
  readonly url: string
  /** Runs SQL in it. */
  readonly run: (text: string) => Effect.Effect<string, BenchFailed>
  /** Of all processes of its server: those that are there, and those that were. */
  readonly usage: () => { readonly cpuSeconds: number; readonly memoryBytes: number }
  /** Bytes of the database, without the log. */
  readonly size: Effect.Effect<number, BenchFailed>
  /** Bytes of the log that were written since there is the server. */
  readonly walBytes: Effect.Effect<number, BenchFailed>
}

const registryOf = Effect.fnUntraced(function* (settings: Readonly<Record<string, string>>) {
  const { at, folder, pid } = yield* start({ jit: "off", ...settings })
  yield* sql(at("postgres"), `CREATE DATABASE ${registryDatabase}`)
  const run = (text: string) => sql(at(registryDatabase), text)
  const count = (text: string) => Effect.map(run(text), (answer) => Number(answer.trim()))
  const result: Registry = {
    url: `postgres://${user}@localhost/${registryDatabase}?host=${folder}&port=${port}`,
    run,
    usage: () => usage(pid),
    size: count("SELECT pg_database_size(current_database())"),
    walBytes: count("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
  }
  return result
})

/** The memory of a server that has a machine to itself. */
const large = {
  shared_buffers: "2GB",
  effective_cache_size: "8GB",
  maintenance_work_mem: "1GB",
  max_wal_size: "16GB",
  random_page_cost: "1.1"
}

/** A new, empty database for a registry that is filled at first and then read: its URL, and what runs SQL in it. */
export const forRegistry = registryOf({
  ...large,
  // What is filled in is thrown away.
  synchronous_commit: "off"
})

/** The same, with a commit that is durable when it returns: for registries that are written. */
export const forWrites = registryOf({})

/** The same for large ones. */
export const forManyHosts = registryOf(large)

/** What a server and its processes use; memory that they share is counted once. NaN where the system does not tell. */
const usage = (pid: number): { readonly cpuSeconds: number; readonly memoryBytes: number } => {
  const kibibytes = [pid, ...descendants(pid)].map((each) => {
    try {
      return Number(/^Pss:\s+(\d+) kB$/m.exec(Fs.readFileSync(`/proc/${each}/smaps_rollup`, "utf8"))?.[1])
    } catch {
      return 0 // it has just ended, or there is no such file here
    }
  })
  const all = kibibytes.reduce((a, b) => a + b, 0)
  return { cpuSeconds: cpuSecondsOfAll(pid), memoryBytes: all === 0 ? Number.NaN : all * 1024 }
}
