/**
 * `prism-agent` as its own process: the bundle that is installed, or another
 * program that stands for it.
 *
 * Promises: nothing of the tests' own environment but PATH reaches it; gone with its scope.
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"

const root = Path.resolve(import.meta.dirname, "../../../..")

const bundleFile = Path.join(root, "packages/client-sdk/dist/prism-agent.js")

const newestMillis = (path: string): number =>
  Math.max(
    ...Fs.readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => Fs.statSync(Path.join(entry.parentPath, entry.name)).mtimeMs)
  )

let bundled = false

/** The bundle that is packaged, made anew when a source is newer. */
export const bundle = (): ReadonlyArray<string> => {
  if (!bundled) {
    const sources = ["packages/core/src", "packages/client-sdk/src"].map((path) => newestMillis(Path.join(root, path)))
    if (!Fs.existsSync(bundleFile) || Fs.statSync(bundleFile).mtimeMs < Math.max(...sources)) {
      ChildProcess.execFileSync(process.execPath, [Path.join(root, "scripts/bundle.ts")], { stdio: "inherit" })
    }
    bundled = true
  }
  return [process.execPath, bundleFile]
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A line of its log. */
export type Line = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string }

export interface PrismAgent {
  readonly pid: number
  /** All it has said on stderr so far. */
  readonly stderr: () => string
  /** Lines of its log so far; other lines are left out. */
  readonly lines: () => ReadonlyArray<Line>
  /** Waits for a line with this sentence, and with these fields. */
  readonly said: (msg: string, fields?: Readonly<Record<string, unknown>>) => Effect.Effect<Line>
  /** Sends the signal and waits for the end. */
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<Ended>
  /** Waits for the end, at most 20 s. */
  readonly ended: Effect.Effect<Ended>
}

export interface Options {
  /** What is run. Default: the bundle. */
  readonly program?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly cwd?: string
}

const parseLine = (text: string): ReadonlyArray<Line> => {
  try {
    return [JSON.parse(text) as Line]
  } catch {
    return []
  }
}

/** Starts it with these arguments. */
export const start = Effect.fnUntraced(function* (args: ReadonlyArray<string>, options: Options = {}) {
  const [command = "", ...before] = options.program ?? bundle()
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn(command, [...before, ...args], {
        cwd: options.cwd,
        env: { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent", ...options.environment },
        stdio: ["ignore", "pipe", "pipe"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()))
  const ended = Effect.promise(() => closed).pipe(
    Effect.map((): Ended => ({ code: child.exitCode, signal: child.signalCode, stdout, stderr })),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.die(new Error(`prism-agent ${args.join(" ")} does not end\n${stdout}${stderr}`))
    })
  )
  const lines = () => stderr.split("\n").slice(0, -1).flatMap(parseLine)
  const agent: PrismAgent = {
    pid: child.pid!,
    stderr: () => stderr,
    lines,
    said: (msg, fields = {}) =>
      Effect.map(
        waitUntil(
          `the agent says '${msg}'`,
          Effect.sync(() => ({
            line: lines().find(
              (line) =>
                line.msg === msg &&
                Object.entries(fields).every(([key, value]) => JSON.stringify(line[key]) === JSON.stringify(value))
            ),
            stderr
          })),
          ({ line }) => line !== undefined,
          { within: "15 seconds" }
        ),
        ({ line }) => line!
      ),
    kill: (signal) =>
      Effect.suspend(() => {
        child.kill(signal)
        return ended
      }),
    ended
  }
  return agent
})

/** Runs it to its end. */
export const run = (args: ReadonlyArray<string>, options: Options = {}) =>
  Effect.scoped(Effect.flatMap(start(args, options), ({ ended }) => ended))
