/**
 * `./prism cluster`: real servers together against faults by seed, and for each
 * seed after which what clients were told is not true: what, by which faults,
 * and how to see it again. Exit code 1 when there is one.
 */
import { Cause, Effect, Exit, Fiber } from "effect"
import * as Fs from "node:fs"
import { parseArgs } from "node:util"
import * as Faults from "../packages/server/test/cluster/Faults.ts"
import type { Schedule } from "../packages/server/test/cluster/Schedule.ts"

const usage = `Usage: ./prism cluster [--seed N] [--runs M] [--seconds S] [--servers K] [--shrink R]
       ./prism cluster --replay FILE

  --seed N       the first seed (default 1)
  --runs M       how many seeds from there on (default 100: some 70 minutes)
  --seconds S    how long faults come in each run (default 12)
  --servers K    Prism servers, 1 to 3 (default 2)
  --shrink R     at most R more runs to find the steps that matter of a schedule that fails (default 0)
  --failures N   stop after so many seeds that fail (default 3)
  --replay FILE  a schedule as JSON, as printed for a seed that fails

A run starts its own servers, PostgreSQL, PowerDNS and HAProxy, and ends them. As root on Linux servers are cut off from
each other too. PRISM_CLUSTER=full makes the load ten times as heavy.
`

const { values } = (() => {
  try {
    return parseArgs({
      options: {
        seed: { type: "string", default: "1" },
        runs: { type: "string", default: "100" },
        seconds: { type: "string", default: "12" },
        servers: { type: "string", default: "2" },
        shrink: { type: "string", default: "0" },
        failures: { type: "string", default: "3" },
        replay: { type: "string" },
        help: { type: "boolean", default: false }
      }
    })
  } catch (error) {
    console.error(`prism: ${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
    process.exit(2)
  }
})()

const wholeNumber = (name: string, text: string, min: number, max: number): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value
  console.error(`prism: --${name} takes a whole number from ${min} to ${max}, not '${text}'`)
  process.exit(2)
}

if (values.help) {
  console.log(usage)
  process.exit(0)
}

const first = wholeNumber("seed", values.seed, 0, Number.MAX_SAFE_INTEGER)
const runs = wholeNumber("runs", values.runs, 1, 100_000)
const millis = wholeNumber("seconds", values.seconds, 1, 3600) * 1000
const shrinkRuns = wholeNumber("shrink", values.shrink, 0, 1000)
const failuresMax = wholeNumber("failures", values.failures, 1, 100_000)
const options: Faults.Options = { servers: wholeNumber("servers", values.servers, 1, 3), redis: false }

const failed: Array<number> = []
let done = 0

const judge = Effect.fnUntraced(function* (outcome: Faults.Outcome) {
  done += 1
  const { schedule } = outcome
  if (!Faults.isBroken(outcome))
    return console.log(`seed ${schedule.seed}: nothing is wrong after ${schedule.steps.length} faults`)
  failed.push(schedule.seed)
  console.log(`\nseed ${schedule.seed} breaks what was promised:\n${Faults.report(outcome)}`)
  if (shrinkRuns > 0) {
    const small = yield* Faults.shrink(outcome, options, shrinkRuns)
    console.log(
      `\nIt takes ${small.schedule.steps.length} of ${schedule.steps.length} faults:\n${Faults.report(small)}`
    )
    console.log(`\nThe same as a schedule, for --replay:\n${JSON.stringify(small.schedule)}`)
  }
  console.log(`\nAgain: ${Faults.commandOf(outcome)}\n`)
})

const replay = (file: string) =>
  Effect.flatMap(Faults.runSchedule(JSON.parse(Fs.readFileSync(file, "utf8")) as Schedule, options), judge)

const all = Effect.gen(function* () {
  for (let seed = first; seed < first + runs && failed.length < failuresMax; seed++) {
    yield* Effect.flatMap(Faults.runSeed(seed, millis, options), judge)
  }
})

// Whoever ends it does not leave servers behind.
const fiber = Effect.runFork(values.replay === undefined ? all : replay(values.replay))
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => fiber.interruptUnsafe())
const exit = await Effect.runPromise(Fiber.await(fiber))
if (Exit.isFailure(exit)) {
  console.error(Cause.hasInterruptsOnly(exit.cause) ? "prism: interrupted" : Cause.pretty(exit.cause))
  process.exit(Cause.hasInterruptsOnly(exit.cause) ? 130 : 1)
}
console.log(
  `\n${done} runs; ${failed.length === 0 ? "nothing was wrong" : `seeds that broke what was promised: ${failed.join(", ")}`}`
)
process.exit(failed.length === 0 ? 0 : 1)
