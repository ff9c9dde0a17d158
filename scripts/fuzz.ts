/**
 * `./prism fuzz`: bytes that are almost right, by a seed, to everything that
 * reads bytes from outside. Exit code 1 when a rule is broken, a good client is
 * not answered, or something grows.
 */
import * as Fuzz from "../packages/server/test/fuzz/Fuzz.ts"
import { Effect, Logger } from "effect"
import { parseArgs } from "node:util"

const usage = `Usage: ./prism fuzz [--cases N] [--sockets N] [--seed S]
       ./prism fuzz --seed S --case SUBJECT/NUMBER

  --cases N    cases in the process (default 980000)
  --sockets N  cases through sockets (default 20000)
  --seed S     any text (default: the time)
  --case NAME  one case again, as it is named where it failed
`

const { values } = (() => {
  try {
    return parseArgs({
      options: {
        cases: { type: "string", default: "980000" },
        sockets: { type: "string", default: "20000" },
        seed: { type: "string" },
        case: { type: "string" },
        help: { type: "boolean", default: false }
      }
    })
  } catch (error) {
    console.error(`prism: ${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
    process.exit(2)
  }
})()

if (values.help) {
  console.log(usage)
  process.exit(0)
}

const wholeNumber = (name: string, text: string): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`prism: --${name} takes a whole number, not '${text}'`)
  process.exit(2)
}

const seed = values.seed ?? new Date().toISOString()
console.log(`seed ${seed}`)

if (values.case !== undefined) {
  await Effect.runPromise(Fuzz.again(seed, values.case))
  console.log(`${values.case} breaks no rule`)
  process.exit(0)
}

const mebibytes = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`

const report = await Effect.runPromise(
  Fuzz.run({
    seed,
    cases: wholeNumber("cases", values.cases),
    socketCases: wholeNumber("sockets", values.sockets),
    say: (line) => console.log(line)
  }).pipe(Effect.provide(Logger.layer([])))
)

console.log(`
in the process   ${report.cases} cases, ${Math.round(report.casesPerSecond)} a second
through sockets  ${report.socketCases} cases, ${Math.round(report.socketCasesPerSecond)} a second
heap             ${mebibytes(report.heapBytes[0])} after a tenth, ${mebibytes(report.heapBytes[1])} at the end
handles          ${report.handles[0]} after a tenth, ${report.handles[1]} at the end`)
for (const failure of report.failures) console.log(`\nbroken: ${failure}`)
if (report.failures.length > 0) console.log(`\n./prism fuzz --seed '${seed}' --case NAME plays one again`)
process.exit(report.failures.length === 0 ? 0 : 1)
