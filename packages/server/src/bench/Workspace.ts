/**
 * A temp folder and child processes that end with the scope, whatever ends it.
 *
 * Promises: a child is asked to stop, and killed when it does not; none
 * outlives us, short of kill -9, and those with a channel not even that.
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { BenchFailed } from "./Benchmark.ts"
import { searchPath } from "./Machine.ts"

export const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(tmpdir(), "prism-bench-"))),
  (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
)

/** A line on stderr, so that people see what is being measured. */
export const progress = (text: string): Effect.Effect<void> =>
  Effect.sync(() => void process.stderr.write(`  ${text}\n`))

export interface Child {
  readonly pid: number
  readonly process: ChildProcess.ChildProcess
  /** Fails when the process ends; never succeeds. */
  readonly ended: Effect.Effect<never, BenchFailed>
}

export interface SpawnOptions {
  readonly folder: string
  /** Name of its output in `folder`. */
  readonly log: string
  /** A channel for messages of Node. */
  readonly channel?: boolean
  /** Whom it runs as, when not as we do. */
  readonly as?: { readonly uid?: number; readonly gid?: number }
  /** What asks it to stop. Default SIGTERM. */
  readonly stopSignal?: NodeJS.Signals
  /** The one core it runs on with all of its threads; undefined: whichever the system likes. */
  readonly core?: number | undefined
}

/** How long a child may take to stop before it is killed. */
const stopMillisMax = 20_000

const lastLines = (file: string): string =>
  Fs.existsSync(file) ? Fs.readFileSync(file, "utf8").trim().split("\n").slice(-5).join(" | ") : ""

export const spawn = Effect.fnUntraced(function* (program: string, args: ReadonlyArray<string>, options: SpawnOptions) {
  const logFile = Path.join(options.folder, options.log)
  const [command, ...given] =
    options.core === undefined ? [program, ...args] : ["taskset", "--cpu-list", `${options.core}`, program, ...args]
  const kill = (child: ChildProcess.ChildProcess) => () => void child.kill("SIGKILL")
  const { child } = yield* Effect.acquireRelease(
    Effect.callback<{ readonly child: ChildProcess.ChildProcess; readonly killAtExit: () => void }, BenchFailed>(
      (resume) => {
        const log = Fs.openSync(logFile, "w")
        const child = ChildProcess.spawn(command, given, {
          cwd: options.folder,
          env: { ...process.env, PATH: searchPath },
          ...options.as,
          stdio: ["ignore", log, log, ...(options.channel === true ? (["ipc"] as const) : [])],
          // Ctrl-C reaches only us, and we stop it in good order.
          detached: true
        })
        Fs.closeSync(log)
        child.once("error", (error) =>
          resume(Effect.fail(new BenchFailed({ detail: `${program} does not start: ${error.message}` })))
        )
        child.once("spawn", () => {
          const killAtExit = kill(child)
          process.on("exit", killAtExit)
          resume(Effect.succeed({ child, killAtExit }))
        })
      }
    ),
    ({ child, killAtExit }) =>
      Effect.callback<void>((resume) => {
        const done = () => {
          process.off("exit", killAtExit)
          resume(Effect.void)
        }
        if (child.exitCode !== null || child.signalCode !== null) return done()
        const limit = setTimeout(kill(child), stopMillisMax)
        child.once("exit", () => {
          clearTimeout(limit)
          done()
        })
        child.kill(options.stopSignal ?? "SIGTERM")
      })
  )
  const exited = Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    if (child.exitCode !== null || child.signalCode !== null) return done()
    child.once("exit", done)
    return Effect.sync(() => child.off("exit", done))
  })
  const fail = Effect.suspend(() =>
    Effect.fail(
      new BenchFailed({
        detail: `${Path.basename(program)} ended with ${child.signalCode ?? `code ${child.exitCode}`}: ${lastLines(logFile)}`
      })
    )
  )
  const result: Child = {
    pid: child.pid!,
    process: child,
    ended: Effect.andThen(exited, fail)
  }
  return result
})

/** Runs a program to its end, with `input` if there is any; its output, or what it said when it failed. */
export const run = (
  program: string,
  args: ReadonlyArray<string>,
  options: { readonly folder: string; readonly input?: string; readonly as?: SpawnOptions["as"] }
): Effect.Effect<string, BenchFailed> =>
  Effect.callback((resume) => {
    const child = ChildProcess.spawn(program, args, {
      cwd: options.folder,
      env: { ...process.env, PATH: searchPath },
      ...options.as,
      stdio: "pipe"
    })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stdin.on("error", () => undefined) // it ended early: its exit code tells
    child.stdin.end(options.input ?? "")
    child.once("error", (error) => resume(Effect.fail(new BenchFailed({ detail: `${program}: ${error.message}` }))))
    child.once("close", (code) =>
      resume(
        code === 0
          ? Effect.succeed(output)
          : Effect.fail(
              new BenchFailed({ detail: `${Path.basename(program)}: code ${code}: ${output.trim().slice(-500)}` })
            )
      )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Waits for a message of a child that `read` recognises. */
export const message = <A>(child: Child, read: (message: unknown) => A | undefined): Effect.Effect<A, BenchFailed> =>
  Effect.callback<A>((resume) => {
    const listen = (message: unknown) => {
      const value = read(message)
      if (value === undefined) return
      child.process.off("message", listen)
      resume(Effect.succeed(value))
    }
    child.process.on("message", listen)
    return Effect.sync(() => child.process.off("message", listen))
  }).pipe(Effect.raceFirst(child.ended))

/** The arguments with which Node runs another file of ours, from source or built like this one. */
export const nodeArguments = (file: string): ReadonlyArray<string> => [
  "--conditions=@prism-dns/source",
  "--expose-gc",
  `--import=${beside("MemoryProbe")}`,
  beside(file)
]

const beside = (file: string): string => {
  const here = import.meta.filename
  return Path.join(Path.dirname(here), `${file}${Path.extname(here)}`)
}

/** Runs for as long as `effect` takes; seconds. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const start = performance.now()
    return Effect.map(effect, () => (performance.now() - start) / 1000)
  })

/** Processor time a process has used, in seconds; undefined where the system does not tell. */
export const cpuSeconds = (pid: number): number | undefined => {
  try {
    // Behind the name in brackets; user and system time in hundredths, the same on every Linux.
    const fields = Fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ")
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return undefined
  }
}

/** The processes that a process has started, and those that they have. */
export const descendants = (pid: number): ReadonlyArray<number> => {
  const children = new Map<number, Array<number>>()
  try {
    for (const name of Fs.readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue
      try {
        const parent = Number(Fs.readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]!.split(" ")[1])
        children.set(parent, [...(children.get(parent) ?? []), Number(name)])
      } catch {
        // It has just ended.
      }
    }
  } catch {
    return []
  }
  const below = (parent: number): ReadonlyArray<number> =>
    (children.get(parent) ?? []).flatMap((child) => [child, ...below(child)])
  return below(pid)
}

/** Processor time of a process and of those it has started, also of those that it has seen end; NaN where unknown. */
export const cpuSecondsOfAll = (pid: number): number => {
  const ticksOf = (each: number) => {
    try {
      const fields = Fs.readFileSync(`/proc/${each}/stat`, "utf8").split(") ")[1]!.split(" ").map(Number)
      return fields[11]! + fields[12]! + fields[13]! + fields[14]!
    } catch {
      return 0
    }
  }
  const all = [pid, ...descendants(pid)].map(ticksOf).reduce((a, b) => a + b, 0)
  return all === 0 ? Number.NaN : all / 100
}

/** Resident memory of a process in bytes: now, and at its highest since the last `resetPeak`; NaN where unknown. */
export const memoryBytes = (pid: number): { readonly now: number; readonly peak: number } => {
  try {
    const status = Fs.readFileSync(`/proc/${pid}/status`, "utf8")
    const kibibytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(status)?.[1])
    return { now: kibibytes("VmRSS") * 1024, peak: kibibytes("VmHWM") * 1024 }
  } catch {
    return { now: Number.NaN, peak: Number.NaN }
  }
}

/** Forgets the highest memory so far, where the system lets us. */
export const resetPeak = (pid: number): void => {
  try {
    Fs.writeFileSync(`/proc/${pid}/clear_refs`, "5")
  } catch {
    // The peak is then that of the whole run.
  }
}
