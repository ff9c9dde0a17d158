/**
 * How long the packaged `prism-dns` takes to start: fresh processes, from the
 * start to the end of a command that asks nobody, beside a Node that does
 * nothing. With and without what Node keeps of a former start.
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Path from "node:path"
import { promisify } from "node:util"
import { below, type Benchmark, failed, figure, median, type Options } from "./Benchmark.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const root = Path.resolve(import.meta.dirname, "../../../..")
const program = Path.join(root, "packages/server/dist/prism-dns.js")

const execute = promisify(ChildProcess.execFile)

/** Fresh processes for each figure and round. */
const processesEach = 11

/** Seconds of a process of Node from its start to its end. */
const timed = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) =>
  Effect.tryPromise({
    try: async () => {
      const start = performance.now()
      await execute(process.execPath, [...args], { env: { PATH: process.env["PATH"], ...environment } })
      return (performance.now() - start) / 1000
    },
    catch: failed(`node ${args.join(" ")}`)
  })

const measure = Effect.fnUntraced(function* (options: Options) {
  const kept = yield* temporaryFolder
  yield* Effect.tryPromise({
    try: () => execute(process.execPath, [Path.join(root, "scripts/bundle.ts")], { cwd: root }),
    catch: failed("the bundle")
  })
  const cached = { NODE_COMPILE_CACHE: kept }
  const uncached = { NODE_DISABLE_COMPILE_CACHE: "1" }
  yield* timed([program, "--version"], cached)
  yield* progress("the program is bundled, and has been started once")
  // In turn, so that whatever else this machine does falls on all of them.
  const times = yield* Effect.forEach(Array.from({ length: options.rounds * processesEach }), () =>
    Effect.gen(function* () {
      return {
        bare: yield* timed(["-e", "0"], uncached),
        first: yield* timed([program, "--version"], uncached),
        version: yield* timed([program, "--version"], cached),
        help: yield* timed([program, "hosts", "list", "--help"], cached)
      }
    })
  )
  const over = (f: (time: (typeof times)[number]) => number) => times.map(f)
  const start = figure(
    "s",
    over(({ version }) => version)
  )
  return {
    figures: {
      start,
      start_first_time: figure(
        "s",
        over(({ first }) => first)
      ),
      help: figure(
        "s",
        over(({ help }) => help)
      ),
      bare_node: figure(
        "s",
        over(({ bare }) => bare)
      )
    },
    ratios: { start_over_bare: median(over(({ bare, version }) => version / bare)) },
    targets: { start: below(0.2, start.value) }
  }
})

export const cliStart: Benchmark = {
  name: "cli-start",
  description: `The packaged prism-dns from start to end, in ${processesEach} fresh processes a round.`,
  backends: ["sqlite"],
  run: measure
}
