/**
 * Two real PostgreSQL servers in temporary folders: a primary, and a replica
 * that follows it by streaming.
 *
 * Promises: each on an address and port of its own, TCP only, without password,
 * with the settings that both have in `deploy/`;
 * `synchronous` has the primary wait at each commit until the replica has
 * flushed it. Which of the two is the primary is the test's to change:
 * `promote` one, `kill` or `freeze` the other, start it again as it was (it then
 * still believes what it believed), or have it `follow` anew. Gone with the
 * scope. Writes are not flushed to disk: no test cuts the power.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { freePort } from "./ports.ts"
import { environment, identity, programs, run, user } from "./Postgres.ts"
import { waitUntil } from "./waitUntil.ts"

export interface PairOptions {
  /** The primary's commits wait for the replica. Default false. */
  readonly synchronous?: boolean
  /** Where each listens; default 127.0.0.1 for both. */
  readonly addresses?: readonly [string, string]
  /** Who may come, beside 127.0.0.0/8. */
  readonly network?: string | undefined
  /** Files in PEM for each, by its address: then they take no connection without TLS, but those among themselves. */
  readonly tls?: (address: string) => { readonly certificate: string; readonly key: string }
  /** Further settings of both by PostgreSQL's names. */
  readonly settings?: Readonly<Record<string, string>>
}

export interface Node {
  readonly name: "one" | "two"
  readonly host: string
  readonly port: number
  /** `HOST:PORT` */
  readonly at: string
  /** Runs statements as psql does; rows as lines, columns with `|` between. An SQL error is a defect. */
  readonly query: (database: string, sql: string) => Effect.Effect<string>
  /** Starts it with the data it has, and waits until it answers. */
  readonly start: Effect.Effect<void>
  /** Ends all connections and stops, in order: a replica receives all that was written. */
  readonly stop: Effect.Effect<void>
  /** SIGKILL to all of its processes. */
  readonly kill: Effect.Effect<void>
  /** SIGSTOP to all of its processes until the scope closes: connections stay, nothing is answered. Linux only. */
  readonly freeze: Effect.Effect<void, never, Scope.Scope>
  /** A replica becomes a primary on a timeline of its own; returns once it takes writes. */
  readonly promote: Effect.Effect<void>
  /** Throws its data away and follows `primary` from a copy of its data. It must not be running. */
  readonly follow: (primary: Node) => Effect.Effect<void>
}

export interface Pair {
  /** The primary at first. */
  readonly one: Node
  /** The replica at first. */
  readonly two: Node
  /** A new, empty database on whoever is the primary; its address names both, the first one first. */
  readonly createDatabase: (
    primary?: Node
  ) => Effect.Effect<{ readonly database: string; readonly url: string; readonly urlOf: (node: Node) => string }>
  /** Waits until the replica has replayed all that the primary has written so far. */
  readonly caughtUp: (primary: Node, replica: Node) => Effect.Effect<void>
}

const deployed = Path.resolve(import.meta.dirname, "../../../server/deploy/postgresql/server.conf")

/** A PostgreSQL server's processes. */
export interface Running {
  /** Starts it with the data it has, and waits until it answers. */
  readonly start: Effect.Effect<void>
  readonly stop: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void, never, Scope.Scope>
}

/** Those of `postgres` with these arguments; `asked` answers 1 once it takes connections. Killed with the scope. */
export const makeRunning = Effect.fnUntraced(function* (options: {
  readonly name: string
  readonly port: number
  readonly arguments: ReadonlyArray<string>
  readonly spawning: ChildProcess.SpawnOptions
  readonly logFile: string
  readonly asked: Effect.Effect<string>
}): Effect.fn.Return<Running, never, Scope.Scope> {
  const { asked, logFile, name, port } = options
  let child: ChildProcess.ChildProcess | undefined
  const isRunning = () => child !== undefined && child.exitCode === null && child.signalCode === null
  /** The processes of the server: the first one and those it started. */
  const processes = (): ReadonlyArray<number> => {
    if (!isRunning()) return []
    const first = child!.pid!
    const others = Fs.readFileSync(`/proc/${first}/task/${first}/children`, "utf8").split(" ").filter(Boolean)
    return [first, ...others.map(Number)]
  }
  const signal = (pids: ReadonlyArray<number>, name: NodeJS.Signals) => {
    for (const pid of pids) {
      try {
        process.kill(pid, name)
      } catch {
        // it has ended
      }
    }
  }
  const killAtExit = () => signal(processes(), "SIGKILL")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", killAtExit)),
    () => Effect.sync(() => process.off("exit", killAtExit))
  )

  const ended = Effect.callback<void>((resume) => {
    if (!isRunning()) return resume(Effect.void)
    child!.once("exit", () => resume(Effect.void))
  })

  const start = Effect.gen(function* () {
    const log = Fs.openSync(logFile, "a", 0o666)
    child = ChildProcess.spawn(`${programs()}/postgres`, options.arguments, {
      ...options.spawning,
      stdio: ["ignore", log, log]
    })
    Fs.closeSync(log)
    yield* waitUntil(
      `PostgreSQL ${name} answers on port ${port}`,
      Effect.suspend(() =>
        isRunning() ? asked : Effect.die(new Error(`PostgreSQL ${name} ended: ${Fs.readFileSync(logFile, "utf8")}`))
      ),
      (answer) => answer.trim() === "1",
      { within: "20 seconds" }
    )
  })

  const stop = Effect.suspend(() => {
    signal(isRunning() ? [child!.pid!] : [], "SIGINT")
    return ended
  })

  const kill = Effect.suspend(() => {
    signal(processes(), "SIGKILL")
    return ended
  })

  const freeze = Effect.acquireRelease(
    Effect.sync(() => {
      const frozen = processes()
      signal(frozen, "SIGSTOP")
      return frozen
    }),
    (frozen) => Effect.sync(() => signal(frozen, "SIGCONT"))
  ).pipe(Effect.asVoid)

  yield* Effect.addFinalizer(() => kill)
  return { start, stop, kill, freeze }
})

const makeNode = Effect.fnUntraced(function* (name: Node["name"], host: string, options: PairOptions) {
  const bin = programs()
  const as = identity()
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), `prism-pg-${name}-`))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  if (as.uid !== undefined) Fs.chownSync(folder, as.uid, as.gid!)
  const data = Path.join(folder, "data")
  const logFile = Path.join(folder, "log")
  const port = yield* freePort
  const spawning = { ...as, cwd: folder, env: environment }

  const query: Node["query"] = (database, sql) =>
    run(
      `${bin}/psql`,
      ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", `${port}`, "-U", user, database],
      { env: environment, input: sql }
    )

  const { freeze, kill, start, stop } = yield* makeRunning({
    name,
    port,
    arguments: ["-D", data],
    spawning,
    logFile,
    asked: query("postgres", "SELECT 1")
  })

  const promote = Effect.gen(function* () {
    yield* run(`${bin}/pg_ctl`, ["promote", "-D", data, "-W"], spawning)
    yield* waitUntil(
      `PostgreSQL ${name} takes writes`,
      query("postgres", "SELECT pg_is_in_recovery()"),
      (answer) => answer.trim() === "f",
      { within: "20 seconds" }
    )
  })

  const configure = (settings: Readonly<Record<string, string>>) =>
    Fs.appendFileSync(
      Path.join(data, "postgresql.conf"),
      Object.entries(settings)
        .map(([key, value]) => `${key} = '${value}'\n`)
        .join("")
    )

  /** PostgreSQL wants its key to be nobody else's. */
  const certify = () => {
    if (options.tls === undefined) return
    const { certificate, key } = options.tls(host)
    for (const [from, to] of [
      [certificate, "server.crt"],
      [key, "server.key"]
    ] as const) {
      const file = Path.join(data, to)
      Fs.writeFileSync(file, Fs.readFileSync(from), { mode: 0o600 })
      if (as.uid !== undefined) Fs.chownSync(file, as.uid, as.gid!)
    }
  }

  const follow: Node["follow"] = Effect.fnUntraced(function* (primary) {
    Fs.rmSync(data, { recursive: true, force: true })
    const from = `host=${primary.host} port=${primary.port} user=${user} application_name=${name}`
    yield* run(`${bin}/pg_basebackup`, ["-d", from, "-D", data, "-R", "-c", "fast", "--no-sync"], spawning)
    // The last of a setting counts. Nobody waits for a replica's replica.
    configure({ listen_addresses: host, port: `${port}`, unix_socket_directories: "", synchronous_standby_names: "" })
    certify()
    yield* start
  })

  const init = Effect.gen(function* () {
    yield* run(
      `${bin}/initdb`,
      ["-D", data, "-U", user, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
      spawning
    )
    Fs.copyFileSync(deployed, Path.join(data, "server.conf"))
    Fs.appendFileSync(Path.join(data, "postgresql.conf"), "include 'server.conf'\n")
    Fs.appendFileSync(
      Path.join(data, "pg_hba.conf"),
      ["127.0.0.0/8", ...(options.network === undefined ? [] : [options.network])]
        .map((network) => `host all all ${network} trust\nhost replication all ${network} trust\n`)
        .join("")
    )
    configure({
      listen_addresses: host,
      port: `${port}`,
      unix_socket_directories: "",
      shared_buffers: "64MB",
      fsync: "off",
      full_page_writes: "off",
      wal_retrieve_retry_interval: "200ms",
      ssl_cert_file: "server.crt",
      ssl_key_file: "server.key",
      ssl: options.tls === undefined ? "off" : "on",
      ...options.settings
    })
    certify()
    yield* start
  })

  const node: Node = { name, host, port, at: `${host}:${port}`, query, start, stop, kill, freeze, promote, follow }
  return { node, init }
})

/** The two of them, the second following the first. */
export const make = Effect.fnUntraced(function* (
  options: PairOptions = {}
): Effect.fn.Return<Pair, never, Scope.Scope> {
  const [first, second] = options.addresses ?? ["127.0.0.1", "127.0.0.1"]
  const { init, node: one } = yield* makeNode("one", first, options)
  const { node: two } = yield* makeNode("two", second, options)
  yield* init
  yield* two.follow(one)
  if (options.synchronous === true) {
    // Set while it runs: it is copied to no replica, so a promoted one waits for nobody.
    yield* one.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'two'")
    yield* one.query("postgres", "SELECT pg_reload_conf()")
    yield* waitUntil(
      "the replica is waited for",
      one.query("postgres", "SELECT sync_state FROM pg_stat_replication"),
      (state) => state.trim() === "sync",
      { within: "20 seconds" }
    )
  }

  let count = 0
  const urlFor = (where: string, database: string) => `postgres://${user}@${where}/${database}`
  return {
    one,
    two,
    createDatabase: Effect.fnUntraced(function* (primary = one) {
      const database = `test_${++count}`
      yield* primary.query("postgres", `CREATE DATABASE ${database}`)
      return {
        database,
        url: urlFor(`${one.at},${two.at}`, database),
        urlOf: (node: Node) => urlFor(node.at, database)
      }
    }),
    caughtUp: Effect.fnUntraced(function* (primary, replica) {
      const written = (yield* primary.query("postgres", "SELECT pg_current_wal_flush_lsn()")).trim()
      yield* waitUntil(
        "the replica has caught up",
        replica.query("postgres", `SELECT pg_last_wal_replay_lsn() >= '${written}'::pg_lsn`),
        (answer) => answer.trim() === "t",
        { within: "20 seconds" }
      )
    })
  }
})
