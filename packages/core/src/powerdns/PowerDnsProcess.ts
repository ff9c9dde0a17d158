/**
 * A real `pdns_server` as a child process, for `prism-dns dev`, tests and
 * benchmarks.
 *
 * Promises: when `start` succeeds, the server that answers at `apiUrl` is the
 * one that was started; when the scope closes it is stopped; a child left over
 * from a killed parent is stopped before a new one starts on the same
 * directory; data in the directory is kept; secrets stand in the configuration
 * file (mode 0600), never on the command line. Leaves to others: free ports,
 * zones, a PostgreSQL database with its schema, and starting again when the
 * process ends by itself (`exited` tells).
 */
import { Data, Effect, Exit, Redacted, Schema, Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Http from "node:http"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { gunzipSync } from "node:zlib"
import * as Settings from "./PowerDnsSettings.ts"

export { lmdb, pgsql, sqlite, type Backend } from "./PowerDnsSettings.ts"

export interface StartOptions {
  /** Folder for configuration, log and data; made when missing. One server at a time. */
  readonly directory: string
  readonly backend: Settings.Backend
  /** Address of both DNS and API. Default `127.0.0.1`. */
  readonly address?: string
  /** Port of DNS over UDP and TCP. Not 0: PowerDNS refuses it. */
  readonly dnsPort: number
  readonly apiPort: number
  readonly apiKey: Redacted.Redacted
  /** Further settings by PowerDNS's names; they win over ours. */
  readonly extra?: Readonly<Record<string, string>>
  /** How long until the API must answer. Default 10,000. */
  readonly readyMillisMax?: number
  /** How long a stop may take before the process is killed. Default 5,000. */
  readonly stopMillisMax?: number
  /** Folders where `pdns_server` is looked for. Default: PATH, then the usual places of servers. */
  readonly searchPath?: ReadonlyArray<string>
}

/** How the process ended: by `code`, or by `signal`. */
export interface Ended {
  readonly code: number | null
  readonly signal: string | null
}

/** A running server. */
export interface PowerDnsProcess {
  /** Base address, without `/api/v1`: `http://127.0.0.1:8053`. */
  readonly apiUrl: string
  readonly apiKey: Redacted.Redacted
  readonly dns: { readonly host: string; readonly port: number }
  readonly pid: number
  /** Absolute. */
  readonly directory: string
  /** Output of this run. */
  readonly logFile: string
  /** Waits until the process has ended, for whatever reason. */
  readonly exited: Effect.Effect<Ended>
}

/** `pdns_server`, its backend or the backend's schema is not installed. */
export class PowerDnsMissing extends Schema.TaggedError<PowerDnsMissing>()("PowerDnsMissing", {
  what: Schema.String,
  nextStep: Schema.String
}) {
  override get message(): string {
    return `${this.what} is not installed. ${this.nextStep}`
  }
}

/** `pdns_server` is there but does not run. `port` is set when that port is taken. */
export class PowerDnsStartFailed extends Schema.TaggedError<PowerDnsStartFailed>()("PowerDnsStartFailed", {
  detail: Schema.String,
  nextStep: Schema.String,
  port: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    return `PowerDNS did not start: ${this.detail}. ${this.nextStep}`
  }
}

/**
 * Starts a server and waits until its API answers. It runs in a process group of its own, so that Ctrl-C in a
 * terminal reaches only us and we can finish our work before it goes.
 */
export const start = Effect.fn("PowerDnsProcess.start")(function* (options: StartOptions) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  return yield* launch(options).pipe(
    Scope.provide(scope),
    Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
  )
})

const launch = Effect.fnUntraced(function* (options: StartOptions) {
  const address = options.address ?? "127.0.0.1"
  const stopMillisMax = options.stopMillisMax ?? 5000
  const program = yield* findProgram(options.backend, options.searchPath ?? defaultSearchPath())
  const directory = yield* prepareDirectory(options.directory)
  const socketDirectory = yield* socketDirectoryFor(directory)
  const values = Settings.entries({
    directory,
    socketDirectory,
    backend: options.backend,
    address,
    dnsPort: options.dnsPort,
    apiPort: options.apiPort,
    apiKey: options.apiKey,
    extra: options.extra ?? {}
  })
  const unwritable = Settings.unwritable(values)
  if (unwritable !== undefined) {
    return yield* new PowerDnsStartFailed({
      detail: `the value of '${unwritable}' cannot be written into pdns.conf`,
      nextStep: "Use a value without line ends, '#', a final backslash, or blanks around it."
    })
  }
  yield* stopLeftover(directory, stopMillisMax)
  yield* onDisk(directory, () => {
    Fs.rmSync(`${directory}/pdns.conf`, { force: true })
    Fs.writeFileSync(`${directory}/pdns.conf`, Settings.render(values), { mode: 0o600 })
  })
  if (options.backend._tag === "Sqlite") yield* loadSqliteSchema(directory)
  const child = yield* Effect.acquireRelease(spawn(program, directory), (child) => stop(child, stopMillisMax))
  const host = address.includes(":") ? `[${address}]` : address
  const running: PowerDnsProcess = {
    apiUrl: `http://${host}:${options.apiPort}`,
    apiKey: options.apiKey,
    dns: { host: address, port: options.dnsPort },
    pid: child.pid,
    directory,
    logFile: child.logFile,
    exited: child.exited
  }
  yield* waitUntilReady(running, child, options, options.readyMillisMax ?? 10_000)
  return running
})

// ---------------------------------------------------------------------------------------------------------------------
// Finding the program
// ---------------------------------------------------------------------------------------------------------------------

/** PATH of ordinary users lacks the folders of servers. */
const defaultSearchPath = (): ReadonlyArray<string> => [
  ...(process.env["PATH"] ?? "").split(Path.delimiter).filter((folder) => folder !== ""),
  "/usr/sbin",
  "/usr/local/sbin",
  "/opt/homebrew/sbin"
]

const installLine = (backend: Settings.Backend): string => {
  const { debian, fedora } = Settings.backendModules[backend._tag]
  return (
    `Debian/Ubuntu: apt-get install pdns-server ${debian}; macOS: brew install pdns; ` +
    `Fedora: dnf install pdns ${fedora}; Alpine: apk add pdns ${debian}.`
  )
}

const isExecutable = (file: string): boolean => {
  try {
    Fs.accessSync(file, Fs.constants.X_OK)
    return Fs.statSync(file).isFile()
  } catch {
    return false
  }
}

const findProgram = (backend: Settings.Backend, folders: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    const found = folders.map((folder) => Path.resolve(folder, "pdns_server")).find(isExecutable)
    return found === undefined
      ? Effect.fail(new PowerDnsMissing({ what: "pdns_server", nextStep: installLine(backend) }))
      : Effect.succeed(found)
  })

// ---------------------------------------------------------------------------------------------------------------------
// The directory
// ---------------------------------------------------------------------------------------------------------------------

const onDisk = <A>(directory: string, f: () => A) =>
  Effect.try({
    try: f,
    catch: (cause) =>
      new PowerDnsStartFailed({
        detail: `its directory cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`,
        nextStep: `Check the permissions of ${directory} and the space left on its disk.`
      })
  })

/** PowerDNS states its `config-dir` as given, and we compare it: hence the real path. */
const prepareDirectory = (given: string) =>
  onDisk(given, () => {
    Fs.mkdirSync(given, { recursive: true, mode: 0o700 })
    return Fs.realpathSync(given)
  })

/** The control socket's path may have 103 (macOS) to 107 (Linux) characters; deep directories get a short one. */
const socketDirectoryFor = (directory: string) =>
  `${directory}/pdns.controlsocket`.length <= 100
    ? Effect.succeed(directory)
    : Effect.acquireRelease(
        onDisk(tmpdir(), () => Fs.mkdtempSync(Path.join(tmpdir(), "prism-pdns-"))),
        (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
      )

const readSqliteSchema = (): string | undefined => {
  for (const path of Settings.sqliteSchemaPaths) {
    if (Fs.existsSync(path)) return Fs.readFileSync(path, "utf8")
    if (Fs.existsSync(`${path}.gz`)) return gunzipSync(Fs.readFileSync(`${path}.gz`)).toString("utf8")
  }
  return undefined
}

const schemaMissing = Effect.suspend(() =>
  Effect.fail(
    new PowerDnsMissing({
      what: "PowerDNS's SQLite backend (schema.sqlite3.sql)",
      nextStep: installLine(Settings.sqlite)
    })
  )
)

/** In one transaction, so that a stop in the middle leaves an empty database and not half a schema. */
const loadSqliteSchema = Effect.fnUntraced(function* (directory: string) {
  const isNew = yield* onDisk(directory, () => {
    using db = new DatabaseSync(Settings.sqliteFile(directory))
    Fs.chmodSync(Settings.sqliteFile(directory), 0o600)
    return db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'domains'").get() === undefined
  })
  if (!isNew) return
  const schema = (yield* onDisk(directory, readSqliteSchema)) ?? (yield* schemaMissing)
  yield* onDisk(directory, () => {
    using db = new DatabaseSync(Settings.sqliteFile(directory))
    db.exec(`BEGIN IMMEDIATE;\n${schema}\nCOMMIT;`)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// A child that outlived its parent
// ---------------------------------------------------------------------------------------------------------------------

const pidFile = (directory: string) => `${directory}/pdns.pid`

interface Inspected {
  readonly parent: number
  readonly command: string
}

/** Parent and command line of a live process; undefined when there is none (a zombie is none). */
const inspect = (pid: number): Inspected | undefined => {
  try {
    if (process.platform === "linux") {
      // `pid (name) state ppid ...`, and the name may hold anything, parentheses too
      const stat = Fs.readFileSync(`/proc/${pid}/stat`, "utf8")
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      const command = Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
      return state === "Z" || state === "X" ? undefined : { parent: Number(parent), command }
    }
    const line = ChildProcess.execFileSync("ps", ["-o", "ppid=,command=", "-p", `${pid}`], { encoding: "utf8" }).trim()
    return { parent: Number.parseInt(line, 10), command: line }
  } catch {
    return undefined // gone, or gone while we looked
  }
}

const configArgument = (directory: string) => `--config-dir=${directory}`

/** The server that runs on this directory, by the note we left when we started it. */
const findLeftover = (directory: string): { pid: number; starter: number; parent: number } | undefined => {
  if (!Fs.existsSync(pidFile(directory))) return undefined
  const [pid = Number.NaN, starter = Number.NaN] = Fs.readFileSync(pidFile(directory), "utf8").split(" ").map(Number)
  if (!Number.isInteger(pid) || pid <= 1) return undefined
  const found = inspect(pid)
  return found !== undefined && `${found.command} `.includes(`${configArgument(directory)} `)
    ? { pid, starter, parent: found.parent }
    : undefined
}

const signalQuietly = (pid: number, signal: NodeJS.Signals) => {
  try {
    process.kill(pid, signal)
  } catch {
    // it has ended in between, which is what we want
  }
}

const stopLeftover = Effect.fnUntraced(function* (directory: string, stopMillisMax: number) {
  const leftover = yield* onDisk(directory, () => findLeftover(directory))
  if (leftover === undefined) return
  // A child whose parent died belongs to another process, a moment after; one that is still its starter's is in use.
  const isOrphan = Effect.sync(() => {
    const found = findLeftover(directory)
    return found === undefined || found.parent !== found.starter || inspect(found.starter) === undefined
  })
  if (!(yield* waitFor(isOrphan, 200))) {
    yield* new PowerDnsStartFailed({
      detail: `process ${leftover.starter} already runs a server (${leftover.pid}) on ${directory}`,
      nextStep: "Stop that process, or choose another directory."
    })
  }
  yield* Effect.logInfo(
    `stopping pdns_server ${leftover.pid}, left over on ${directory} by process ${leftover.starter}`
  )
  const gone = Effect.sync(() => findLeftover(directory) === undefined)
  signalQuietly(leftover.pid, "SIGTERM")
  if (yield* waitFor(gone, stopMillisMax)) return
  signalQuietly(leftover.pid, "SIGKILL")
  if (yield* waitFor(gone, stopMillisMax)) return
  yield* new PowerDnsStartFailed({
    detail: `server ${leftover.pid}, left over on ${directory}, does not stop`,
    nextStep: `Stop it: kill -9 ${leftover.pid}`
  })
})

/** True once `condition` holds, false when it does not within `millisMax`. */
const waitFor = (condition: Effect.Effect<boolean>, millisMax: number): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    while (!(yield* condition)) yield* Effect.sleep(5)
    return true
  }).pipe(Effect.timeoutOrElse({ duration: millisMax, orElse: () => Effect.succeed(false) }))

// ---------------------------------------------------------------------------------------------------------------------
// The process
// ---------------------------------------------------------------------------------------------------------------------

class Child extends Data.Class<{
  readonly pid: number
  readonly process: ChildProcess.ChildProcess
  readonly directory: string
  readonly logFile: string
  readonly exited: Effect.Effect<Ended>
  readonly killAtExit: () => void
}> {
  get ended(): Ended | undefined {
    const { exitCode: code, signalCode: signal } = this.process
    return code === null && signal === null ? undefined : { code, signal }
  }
  log(): string {
    return Fs.readFileSync(this.logFile, "utf8")
  }
}

const spawn = Effect.fnUntraced(function* (program: string, directory: string) {
  const logFile = `${directory}/pdns.log`
  const started = yield* onDisk(directory, () => {
    // Its output goes to a file, not to a pipe of ours: it must not die of SIGPIPE, nor wait for us to read.
    const log = Fs.openSync(logFile, "w", 0o600)
    try {
      return ChildProcess.spawn(program, [configArgument(directory)], {
        stdio: ["ignore", log, log],
        cwd: directory,
        detached: true,
        // Errors in English, since we read them; nothing else (PGPASSWORD, ...) may change what it does.
        env: { LC_ALL: "C", ...(process.env["PATH"] === undefined ? {} : { PATH: process.env["PATH"] }) }
      })
    } finally {
      Fs.closeSync(log)
    }
  })
  const { pid } = started
  if (pid === undefined) {
    const cause = yield* Effect.callback<Error>(
      (resume) => void started.once("error", (e) => resume(Effect.succeed(e)))
    )
    return yield* new PowerDnsStartFailed({ detail: cause.message, nextStep: `Check that ${program} can be run.` })
  }
  // Whatever ends us, short of kill -9, takes it along.
  const killAtExit = () => signalQuietly(pid, "SIGKILL")
  process.on("exit", killAtExit)
  const exited = Effect.callback<Ended>((resume) => {
    const settle = () => resume(Effect.succeed({ code: started.exitCode, signal: started.signalCode }))
    if (started.exitCode !== null || started.signalCode !== null) return settle()
    started.once("exit", settle)
    return Effect.sync(() => started.off("exit", settle))
  })
  const child = new Child({ pid, process: started, directory, logFile, exited, killAtExit })
  return yield* onDisk(directory, () => {
    Fs.writeFileSync(pidFile(directory), `${pid} ${process.pid}\n`)
    return child
  }).pipe(Effect.onError(() => stop(child, 0)))
})

const stop = Effect.fnUntraced(function* (child: Child, stopMillisMax: number) {
  const hasEnded = Effect.sync(() => child.ended !== undefined)
  if (child.ended === undefined) {
    child.process.kill("SIGTERM")
    if (!(yield* waitFor(hasEnded, stopMillisMax))) {
      yield* Effect.logWarning(`pdns_server ${child.pid} has not stopped within ${stopMillisMax} ms and is killed`)
      child.process.kill("SIGKILL")
      yield* child.exited
    }
  }
  process.off("exit", child.killAtExit)
  Fs.rmSync(pidFile(child.directory), { force: true })
})

// ---------------------------------------------------------------------------------------------------------------------
// Readiness
// ---------------------------------------------------------------------------------------------------------------------

const ConfigAnswer = Schema.decodeUnknownExit(
  Schema.fromJsonString(Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })))
)

/**
 * True when the server at `apiUrl` is the one on this directory. When the API port is taken, PowerDNS goes on without
 * its API, and it is another program that answers there: perhaps even another PowerDNS, with the same key.
 */
const isOurs = (running: PowerDnsProcess): Effect.Effect<boolean> =>
  getText(`${running.apiUrl}/api/v1/servers/localhost/config`, running.apiKey).pipe(
    Effect.map((text) => {
      const config = ConfigAnswer(text)
      if (Exit.isFailure(config)) return false
      const values = new Map(config.value.map(({ name, value }) => [name, value]))
      return values.get("config-dir") === running.directory && values.get("local-port") === `${running.dns.port}`
    }),
    Effect.timeoutOrElse({ duration: 1000, orElse: () => Effect.succeed(false) })
  )

/** The body of an answer, empty when there is none. Not by fetch, which refuses some port numbers. */
const getText = (url: string, apiKey: Redacted.Redacted): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const request = Http.get(url, { headers: { "X-API-Key": Redacted.value(apiKey) }, agent: false }, (response) => {
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => (text += chunk))
      response.on("error", () => resume(Effect.succeed("")))
      response.on("end", () => resume(Effect.succeed(text)))
    })
    request.on("error", () => resume(Effect.succeed("")))
    return Effect.sync(() => request.destroy())
  })

const lastLines = (log: string): string => {
  const lines = log.trim().split("\n").slice(-4)
  return lines.map((line) => line.replace(/^[A-Z][a-z]{2} +\d+ [\d:]+ /, "")).join(" | ")
}

const portTaken = (port: number, use: string) =>
  new PowerDnsStartFailed({
    detail: `port ${port} for ${use} is already in use`,
    nextStep: `Choose another ${use} port, or stop the program that holds it (ss -lntup | grep :${port}).`,
    port
  })

/** Sorts the output of a server that did not come up; undefined while there is nothing wrong with it. */
const diagnose = (
  log: string,
  ended: Ended | undefined,
  options: StartOptions
): PowerDnsMissing | PowerDnsStartFailed | undefined => {
  if (/Listening on HTTP socket failed/.test(log)) {
    if (/Listening on HTTP socket failed.*in use/.test(log)) return portTaken(options.apiPort, "API")
    return new PowerDnsStartFailed({ detail: lastLines(log), nextStep: "Check the address and port of the API." })
  }
  if (ended === undefined) return undefined
  if (/Unable to bind.*in use/.test(log)) return portTaken(options.dnsPort, "DNS")
  if (/Unable to load module|unable to load module/.test(log)) {
    const { module } = Settings.backendModules[options.backend._tag]
    return new PowerDnsMissing({ what: `PowerDNS's backend '${module}'`, nextStep: installLine(options.backend) })
  }
  if (/Unable to bind.*(?:Permission denied|not permitted)/.test(log)) {
    return new PowerDnsStartFailed({
      detail: `DNS port ${options.dnsPort} may not be opened by this user`,
      nextStep: "Choose a DNS port above 1023.",
      port: options.dnsPort
    })
  }
  return new PowerDnsStartFailed({
    detail: `it ended with ${ended.signal ?? `code ${ended.code}`}: ${lastLines(log)}`,
    nextStep: `Its output is in ${options.directory}/pdns.log.`
  })
}

const waitUntilReady = Effect.fnUntraced(function* (
  running: PowerDnsProcess,
  child: Child,
  options: StartOptions,
  readyMillisMax: number
) {
  const poll = Effect.gen(function* () {
    while (true) {
      const { ended } = child // read before the log, which is then complete if it has ended
      const problem = diagnose(yield* onDisk(running.directory, () => child.log()), ended, options)
      if (problem !== undefined) yield* problem
      if (yield* isOurs(running)) break
      yield* Effect.sleep(5)
    }
  })
  return yield* poll.pipe(
    Effect.timeoutOrElse({
      duration: readyMillisMax,
      orElse: () =>
        Effect.fail(
          new PowerDnsStartFailed({
            detail: `its API did not answer at ${running.apiUrl} within ${readyMillisMax} ms`,
            nextStep: `Its output is in ${running.logFile}.`
          })
        )
    })
  )
})
