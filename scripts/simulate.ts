/**
 * `./prism simulate`: runs core against everything that can go wrong, by seeds,
 * and says of each seed that breaks a rule which one, how little it takes, and
 * how to see it again. Exit code 1 when one does.
 */
import { generate, type Scenario } from "../packages/core/test/simulation/Scenario.ts"
import { shrink } from "../packages/core/test/simulation/Shrink.ts"
import { SimulatedDatabase } from "../packages/core/test/simulation/SimulatedDatabase.ts"
import { type Outcome, run } from "../packages/core/test/simulation/Simulation.ts"
import * as Fs from "node:fs"
import { parseArgs } from "node:util"

const usage = `Usage: ./prism simulate [--seed N] [--runs M] [--trace] [--failures N]
       ./prism simulate --replay FILE [--trace]

  --seed N       the first seed (default 1)
  --runs M       how many seeds from there on (default 1000)
  --trace        every line of every run, not only the last ones of those that fail
  --failures N   stop after so many seeds that fail (default 3)
  --replay FILE  a scenario as JSON, as printed for a seed that fails
`

/** Lines of a trace that are shown of a run that failed, before its first violation. */
const linesShown = 60

const { values } = (() => {
  try {
    return parseArgs({
      options: {
        seed: { type: "string", default: "1" },
        runs: { type: "string", default: "1000" },
        failures: { type: "string", default: "3" },
        replay: { type: "string" },
        trace: { type: "boolean", default: false },
        help: { type: "boolean", default: false }
      }
    })
  } catch (error) {
    console.error(`prism: ${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
    process.exit(2)
  }
})()

const wholeNumber = (name: string, text: string): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`prism: --${name} takes a whole number, not '${text}'`)
  process.exit(2)
}

const firstLine = (line: string) => line.slice(0, 400)

/** The end of a trace up to its first violation. */
const telling = (trace: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = trace.findIndex((line) => line.includes(" VIOLATION: ")) + 1
  const start = Math.max(0, end - linesShown)
  return [...(start > 0 ? [`           (${start} lines before)`] : []), ...trace.slice(start, end).map(firstLine)]
}

const database = new SimulatedDatabase()

const report = (what: string, scenario: Scenario, { violations }: Outcome) => {
  const rule = violations.at(0)?.rule
  console.log(`\n${what} breaks a rule:`)
  for (const { detail, rule } of violations) console.log(`  ${rule}: ${detail}`)
  const small = shrink(scenario, (candidate) => run(candidate, database).violations.some((v) => v.rule === rule))
  console.log(`\nIt takes ${small.events.length} of ${scenario.events.length} events:\n`)
  for (const line of telling(run(small, database).trace)) console.log(line)
  console.log(`\nThe same as a scenario, for --replay or the list of regressions:\n${JSON.stringify(small)}`)
}

if (values.help) {
  console.log(usage)
  process.exit(0)
}

if (values.replay !== undefined) {
  const scenario = JSON.parse(Fs.readFileSync(values.replay, "utf8")) as Scenario
  const outcome = run(scenario, database)
  if (values.trace) for (const line of outcome.trace) console.log(line)
  if (outcome.violations.length > 0) report(values.replay, scenario, outcome)
  else console.log(`${values.replay}: no rule is broken`)
  process.exit(outcome.violations.length === 0 ? 0 : 1)
}

const seed = wholeNumber("seed", values.seed)
const runs = wholeNumber("runs", values.runs)
const failuresMax = Math.max(1, wholeNumber("failures", values.failures))
const failed: Array<number> = []
const sum = { simulatedMillis: 0, accepted: 0, applied: 0, served: 0, writes: 0, lives: 0 }
const start = performance.now()
let done = 0

for (let i = seed; i < seed + runs && failed.length < failuresMax; i++) {
  const scenario = generate(i)
  const outcome = run(scenario, database)
  done += 1
  for (const key of Object.keys(sum) as Array<keyof typeof sum>) sum[key] += outcome.stats[key]
  if (values.trace) for (const line of outcome.trace) console.log(line)
  if (outcome.violations.length === 0) continue
  failed.push(i)
  report(`seed ${i}`, scenario, outcome)
  console.log(`\nAgain: ./prism simulate --seed ${i} --runs 1 --trace`)
}

const seconds = (performance.now() - start) / 1000
console.log(
  `\n${done} runs in ${seconds.toFixed(1)} s: ${(sum.simulatedMillis / 3_600_000).toFixed(0)} hours of simulated time, ` +
    `${sum.lives} lives of the server, ${sum.accepted} registrations accepted, ${sum.applied} applied, ${sum.served} served, ${sum.writes} writes; ` +
    (failed.length === 0 ? "no rule was broken" : `seeds that broke a rule: ${failed.join(", ")}`)
)
process.exitCode = failed.length === 0 ? 0 : 1
