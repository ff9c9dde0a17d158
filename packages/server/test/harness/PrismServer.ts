/**
 * The packaged server as its own process: the bundle, run by plain Node.
 *
 * Promises: a temporary folder and free ports, which a restart keeps; `start`
 * returns when the ready file is there; gone with its scope, the pdns_server
 * that a killed `prism-dns dev` leaves behind included. The bundle is made
 * again when a source is newer.
 */
import { Effect, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePorts } from "../../../core/test/harness/ports.ts"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import type { ReadyPlain } from "../../src/cli/Ready.ts"

const root = Path.resolve(import.meta.dirname, "../../../..")
const bundle = Path.join(root, "packages/server/dist/prism-dns.js")

const newestSourceMillis = (): number =>
  Math.max(
    ...["packages/core/src", "packages/server/src", "scripts/bundle.ts"].flatMap((path) =>
      Fs.statSync(Path.join(root, path)).isFile()
        ? [Fs.statSync(Path.join(root, path)).mtimeMs]
        : Fs.readdirSync(Path.join(root, path), { recursive: true, withFileTypes: true })
            .filter((entry) => entry.isFile())
            .map((entry) => Fs.statSync(Path.join(entry.parentPath, entry.name)).mtimeMs)
    )
  )

let bundled = false

const ensureBundle = () => {
  if (bundled) return
  if (!Fs.existsSync(bundle) || Fs.statSync(bundle).mtimeMs < newestSourceMillis()) {
    ChildProcess.execFileSync(process.execPath, [Path.join(root, "scripts/bundle.ts")], { stdio: "inherit" })
  }
  bundled = true
}

/** How a process ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface PrismServer {
  /** Temporary; its working directory. */
  readonly folder: string
  /** What the ready file of the present run says; `tcp` is not there where TLS has to be used. */
  readonly ready: () => ReadyPlain
  readonly pid: () => number
  /** All that the present run has said. */
  readonly output: () => { readonly stdout: string; readonly stderr: string }
  /** Sends the signal and waits for the end. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<Ended>
  /** Starts it again as before and waits until it is ready. The former run must have ended. */
  readonly restart: Effect.Effect<ReadyPlain>
}

/** Only what a process needs; nothing of the tests' own settings. */
const environment = (more: Readonly<Record<string, string>> = {}) => ({
  PATH: process.env["PATH"] ?? "",
  HOME: process.env["HOME"] ?? "/",
  // Not in the user's own cache folder.
  NODE_COMPILE_CACHE: Path.join(root, "node_modules/.cache/compile"),
  ...more
})

interface Run {
  readonly child: ChildProcess.ChildProcess
  readonly stdout: () => string
  readonly stderr: () => string
  readonly ended: Effect.Effect<Ended>
}

const spawn = (
  args: ReadonlyArray<string>,
  options: {
    readonly folder: string
    readonly environment?: Readonly<Record<string, string>>
    readonly command?: ReadonlyArray<string>
  }
): Run => {
  ensureBundle()
  const [program, ...all] = [...(options.command ?? []), process.execPath, bundle, ...args] as [
    string,
    ...Array<string>
  ]
  const child = ChildProcess.spawn(program, all, {
    cwd: options.folder,
    env: environment(options.environment),
    stdio: ["ignore", "pipe", "pipe"]
  })
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  const ended = Effect.callback<Ended>((resume) => {
    const settle = () => resume(Effect.succeed({ code: child.exitCode, signal: child.signalCode }))
    // `close`, not `exit`: then all it said has been read
    if (child.stdout.closed && child.stderr.closed && (child.exitCode !== null || child.signalCode !== null)) settle()
    else child.once("close", settle)
  })
  return { child, stdout: () => stdout, stderr: () => stderr, ended }
}

const isRunning = (run: Run) => run.child.exitCode === null && run.child.signalCode === null

/** Ends pdns_servers that lost their parent: `dev` notes their process ids. */
const killLeftovers = (folder: string) => {
  for (const entry of Fs.readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    if (Path.basename(entry) !== "pdns.pid") continue
    const pid = Number.parseInt(Fs.readFileSync(Path.join(folder, entry), "utf8"), 10)
    const command = `/proc/${pid}/cmdline`
    if (Fs.existsSync(command) && Fs.readFileSync(command, "utf8").includes(folder)) process.kill(pid, "SIGKILL")
  }
}

/** Any command, to its end. Default limit 20 s. */
export const run = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  options: {
    readonly folder: string
    readonly environment?: Readonly<Record<string, string>>
    readonly command?: ReadonlyArray<string>
  }
) {
  const running = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(args, options)),
    (running) =>
      Effect.sync(() => {
        if (isRunning(running)) running.child.kill("SIGKILL")
        killLeftovers(options.folder)
      })
  )
  const ended = yield* running.ended.pipe(
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () =>
        Effect.die(new Error(`prism-dns ${args.join(" ")} does not end\n${running.stdout()}${running.stderr()}`))
    })
  )
  return { ...ended, stdout: running.stdout(), stderr: running.stderr() }
}, Effect.scoped)

/** Starts `prism-dns ARGS` and waits until it is ready. */
export const start = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  options: {
    readonly folder: string
    readonly environment?: Readonly<Record<string, string>>
    /** Default: true. With false, `ready` throws until the file is there. */
    readonly awaitReady?: boolean
    /** A program that becomes it, with its arguments: `ip netns exec NAME`. */
    readonly command?: ReadonlyArray<string>
  }
): Effect.fn.Return<PrismServer, never, Scope.Scope> {
  const { folder } = options
  const readyFile = Path.join(folder, "ready.json")
  let current: Run

  const ready = (): ReadyPlain => JSON.parse(Fs.readFileSync(readyFile, "utf8")) as ReadyPlain

  const begin = Effect.gen(function* () {
    Fs.rmSync(readyFile, { force: true })
    current = spawn([...args, "--ready-file", readyFile], options)
    if (options.awaitReady === false) return undefined as never
    yield* waitUntil(
      "prism-dns is ready",
      Effect.sync(() => {
        if (!isRunning(current)) throw new Error(`it has ended\n${current.stdout()}${current.stderr()}`)
        return { ready: Fs.existsSync(readyFile), stderr: current.stderr() }
      }),
      (seen) => seen.ready,
      { within: "20 seconds" }
    )
    return ready()
  })

  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      if (isRunning(current)) {
        current.child.kill("SIGKILL")
        yield* current.ended
      }
      killLeftovers(folder)
    })
  )
  yield* begin
  return {
    folder,
    ready,
    pid: () => current.child.pid!,
    output: () => ({ stdout: current.stdout(), stderr: current.stderr() }),
    kill: (signal) =>
      Effect.suspend(() => {
        current.child.kill(signal)
        return current.ended
      }),
    restart: begin
  }
})

/** `prism-dns dev` on ports of its own. */
export const dev = Effect.fnUntraced(function* (
  args: ReadonlyArray<string> = [],
  environment: Readonly<Record<string, string>> = {}
) {
  const folder = yield* temporaryFolder("prism-dev-")
  const [tcp, http, dns, api] = yield* freePorts(4)
  const ports = ["--tcp-port", `${tcp}`, "--http-port", `${http}`, "--dns-port", `${dns}`, "--pdns-api-port", `${api}`]
  return yield* start(["dev", "--data", "data", ...ports, ...args], { folder, environment })
})

/** `prism-dns serve` with these settings, written as a YAML file would be; ports of its own unless they say others. */
export const serve = Effect.fnUntraced(function* (
  settings: Readonly<Record<string, unknown>>,
  options: {
    readonly args?: ReadonlyArray<string>
    readonly environment?: Readonly<Record<string, string>>
    readonly awaitReady?: boolean
  } = {}
) {
  const folder = yield* temporaryFolder("prism-serve-")
  const [tcp, http] = yield* freePorts(2)
  const all = {
    server: { drainDelay: "0s" },
    tcp: { host: "127.0.0.1", port: tcp },
    http: { port: http },
    storage: { url: `sqlite:${folder}/prism.db` },
    ...settings
  }
  // JSON is YAML
  Fs.writeFileSync(Path.join(folder, "prism.yaml"), JSON.stringify(all, null, 2), { mode: 0o600 })
  return yield* start(["serve", "--config", "prism.yaml", ...(options.args ?? [])], { ...options, folder })
})
