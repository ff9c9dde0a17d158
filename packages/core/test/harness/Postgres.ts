/**
 * A real PostgreSQL in a temporary folder.
 *
 * Promises: the newest installed version, on a free port of 127.0.0.1 and a
 * Unix socket, without password; gone with its scope, folder included. Writes
 * are not flushed to disk unless asked for, since the folder is thrown away.
 * As root it runs as user postgres, since PostgreSQL refuses root.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { freePort } from "./ports.ts"
import { waitUntil } from "./waitUntil.ts"

/** How to reach one database. */
export interface Database {
  /** `127.0.0.1`. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly database: string
  /** `postgres://prism@127.0.0.1:PORT/NAME` */
  readonly url: string
  /** Folder of the Unix socket. */
  readonly socketDirectory: string
}

export interface Options {
  /** Flush commits to disk. Default false. */
  readonly fsync?: boolean
  /** Listens at this address too, for whoever comes from `network`. */
  readonly also?: { readonly address: string; readonly network: string } | undefined
  /** Further settings by PostgreSQL's names. */
  readonly settings?: Readonly<Record<string, string>>
}

export const user = "prism"

/** Folder of the programs of the newest version. */
export const programs = (): string => {
  const root = "/usr/lib/postgresql"
  const versions = Fs.existsSync(root) ? Fs.readdirSync(root).map(Number) : []
  const newest = Math.max(...versions.filter((version) => Fs.existsSync(`${root}/${version}/bin/initdb`)))
  if (Number.isFinite(newest)) return `${root}/${newest}/bin`
  const onPath = (process.env["PATH"] ?? "").split(":").find((folder) => Fs.existsSync(`${folder}/initdb`))
  if (onPath !== undefined) return onPath
  throw new Error(
    "PostgreSQL is not installed. Debian/Ubuntu: apt-get install postgresql; macOS: brew install postgresql."
  )
}

/** Who a server runs as: ourselves, or when we are root the user of that name. */
export const identity = (name = "postgres"): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {}
  const line = Fs.readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((each) => each.startsWith(`${name}:`))
  if (line === undefined) throw new Error(`we are root, and there is no user ${name} to run a server as`)
  const [, , uid, gid] = line.split(":").map(Number)
  return { uid: uid!, gid: gid! }
}

/** Runs a program to its end; its output, or a defect with what it said. */
export const run = (
  program: string,
  args: ReadonlyArray<string>,
  options: ChildProcess.SpawnOptions & { input?: string }
) =>
  Effect.callback<string>((resume) => {
    const { input, ...rest } = options
    const child = ChildProcess.spawn(program, args, { ...rest, stdio: "pipe" })
    let out = ""
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (out += chunk.toString()))
    child.stdin.on("error", () => undefined) // it ended early: its exit code tells
    child.stdin.end(input ?? "")
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("close", (code) =>
      resume(
        code === 0 ? Effect.succeed(out) : Effect.die(new Error(`${program} ${args.join(" ")}: code ${code}\n${out}`))
      )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

export const environment = { PATH: process.env["PATH"] ?? "", LC_ALL: "C" }

const make = Effect.fnUntraced(function* (options: Options) {
  const bin = programs()
  const as = identity()
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-pg-"))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  if (as.uid !== undefined) Fs.chownSync(folder, as.uid, as.gid!)
  const data = Path.join(folder, "data")
  const port = yield* freePort
  const spawning = { ...as, cwd: folder, env: environment }
  yield* run(
    `${bin}/initdb`,
    ["-D", data, "-U", user, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
    spawning
  )
  const settings = {
    listen_addresses: ["127.0.0.1", ...(options.also === undefined ? [] : [options.also.address])].join(","),
    port: `${port}`,
    unix_socket_directories: folder,
    // PowerDNS opens a connection for each request
    max_connections: "200",
    shared_buffers: "64MB",
    ...(options.fsync === true ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }),
    ...options.settings
  }
  Fs.appendFileSync(
    Path.join(data, "postgresql.conf"),
    Object.entries(settings)
      .map(([key, value]) => `${key} = '${value}'\n`)
      .join("")
  )
  if (options.also !== undefined) {
    Fs.appendFileSync(Path.join(data, "pg_hba.conf"), `host all all ${options.also.network} trust\n`)
  }

  let child: ChildProcess.ChildProcess | undefined
  const logFile = Path.join(folder, "log")
  const killAtExit = () => child?.kill("SIGKILL")
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("exit", killAtExit)),
    () => Effect.sync(() => process.off("exit", killAtExit))
  )

  const query = (database: string, sql: string) =>
    run(
      `${bin}/psql`,
      ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", folder, "-p", `${port}`, "-U", user, database],
      {
        env: environment,
        input: sql
      }
    )

  /** Ends all connections and stops; with `crash` as if the machine had lost its power. */
  const stop = (how: "fast" | "crash") =>
    Effect.callback<void>((resume) => {
      const running = child
      if (running === undefined || running.exitCode !== null || running.signalCode !== null) return resume(Effect.void)
      running.once("exit", () => resume(Effect.void))
      running.kill(how === "fast" ? "SIGINT" : "SIGQUIT")
      const limit = setTimeout(() => running.kill("SIGKILL"), 5000)
      running.once("exit", () => clearTimeout(limit))
    })

  const start = Effect.gen(function* () {
    const log = Fs.openSync(logFile, "a", 0o666)
    child = ChildProcess.spawn(`${bin}/postgres`, ["-D", data], { ...spawning, stdio: ["ignore", log, log] })
    Fs.closeSync(log)
    yield* waitUntil(
      `PostgreSQL answers on port ${port}`,
      Effect.suspend(() =>
        child!.exitCode === null
          ? query("postgres", "SELECT 1")
          : Effect.die(new Error(`PostgreSQL ended: ${Fs.readFileSync(logFile, "utf8")}`))
      ),
      (answer) => answer.trim() === "1",
      { within: "20 seconds" }
    )
  })

  yield* Effect.addFinalizer(() => stop("crash"))
  yield* start

  /** Its processes: the first one and those that serve connections. */
  const processes = () => {
    const first = child!.pid!
    const others = Fs.readFileSync(`/proc/${first}/task/${first}/children`, "utf8").split(" ").filter(Boolean)
    return [first, ...others.map(Number)]
  }
  const freeze = Effect.acquireRelease(
    Effect.sync(() => {
      const frozen = processes()
      for (const pid of frozen) process.kill(pid, "SIGSTOP")
      return frozen
    }),
    (frozen) =>
      Effect.sync(() => {
        for (const pid of frozen) process.kill(pid, "SIGCONT")
      })
  ).pipe(Effect.asVoid)

  let count = 0
  const createDatabase = Effect.fnUntraced(function* (sql?: string) {
    const database = `test_${++count}`
    yield* query("postgres", `CREATE DATABASE ${database}`)
    if (sql !== undefined) yield* query(database, sql)
    return {
      host: "127.0.0.1",
      port,
      user,
      database,
      url: `postgres://${user}@127.0.0.1:${port}/${database}`,
      socketDirectory: folder
    } satisfies Database
  })

  return Postgres.of({ port, createDatabase, query, stop, start, freeze })
})

export class Postgres extends Context.Service<
  Postgres,
  {
    readonly port: number
    /** A new, empty database; `sql` is run in it. */
    readonly createDatabase: (sql?: string) => Effect.Effect<Database>
    /** Runs statements; rows as lines, columns with `|` between. An SQL error is a defect. */
    readonly query: (database: string, sql: string) => Effect.Effect<string>
    /** Stops the server; `crash` loses what was not flushed. */
    readonly stop: (how: "fast" | "crash") => Effect.Effect<void>
    /** Starts it again on the same port and data. */
    readonly start: Effect.Effect<void>
    /** Has it stand still, connections open and nothing answered, until the scope closes. Linux only. */
    readonly freeze: Effect.Effect<void, never, Scope.Scope>
  }
>()("@prism-dns/core/test/Postgres") {
  /** One server for everything below the layer. */
  static readonly layer = (options: Options = {}): Layer.Layer<Postgres> => Layer.effect(Postgres, make(options))
}
