/**
 * `./prism test`, once everything it needs is there: type check, lint, bundle,
 * then the suites. Its last line is `N passed, N failed`; a step that is no
 * test counts as one failure when it fails. What failed is said once more in front of that line, with its
 * message, for who sees the end of the output alone. `--only SUITE` runs that suite alone; `--only
 * cluster-full` runs the suite of clusters as large as what is promised of them, which takes an hour.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { parseArgs } from "node:util"

const root = Path.resolve(import.meta.dirname, "..")
const results = Path.join(root, ".test-results")
const suites = ["unit", "integration", "e2e", "cluster"] as const
const fullCluster = "cluster-full"

const { only: asked } = parseArgs({ options: { only: { type: "string" } } }).values
if (asked !== undefined && asked !== fullCluster && !suites.some((suite) => suite === asked)) {
  console.error(`prism: --only wants one of ${suites.join(", ")}, ${fullCluster}, not '${asked}'`)
  process.exit(2)
}
if (asked === fullCluster) process.env["PRISM_CLUSTER"] = "full"
const only = asked === fullCluster ? "cluster" : asked

let passed = 0
let skipped = 0
/** What failed, each with as much of its message as says why. */
const failures: Array<string> = []

const linesOfMessage = 20
const charactersOfMessage = 1_500

const fail = (what: string, message = "") => {
  const lines = message.slice(0, charactersOfMessage).split("\n").slice(0, linesOfMessage)
  failures.push([what, ...lines.filter((line) => line !== "").map((line) => `    ${line}`)].join("\n"))
}

/** Runs a program in front of everyone's eyes. */
const run = (name: string, program: string, ...args: ReadonlyArray<string>): boolean => {
  console.log(`\n== ${name}`)
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] })
  if (error !== undefined) console.error(`prism: ${program} cannot be run: ${error.message}`)
  return status === 0
}

const step = (name: string, program: string, ...args: ReadonlyArray<string>) => {
  if (!run(name, program, ...args)) fail(name)
}

interface Report {
  readonly numPassedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<{
      readonly status: string
      readonly fullName: string
      readonly failureMessages: ReadonlyArray<string>
    }>
  }>
}

const suite = (name: string) => {
  const file = Path.join(results, `${name}.json`)
  Fs.rmSync(file, { force: true })
  const good = run(
    `${name} tests`,
    "vitest",
    "run",
    "--project",
    name,
    // Clusters have bounds of time to keep: each has the machine to itself.
    ...(name === "cluster" ? ["--no-file-parallelism"] : []),
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${file}`
  )
  const before = failures.length
  if (Fs.existsSync(file)) {
    const report = JSON.parse(Fs.readFileSync(file, "utf8")) as Report
    passed += report.numPassedTests
    skipped += report.numPendingTests + report.numTodoTests
    for (const { assertionResults, message, name: path, status } of report.testResults) {
      const here = assertionResults.filter((result) => result.status === "failed")
      const place = Path.relative(root, path)
      for (const { failureMessages, fullName } of here) fail(`${place}: ${fullName}`, failureMessages.join("\n"))
      // A file that could not be loaded has no tests, yet it failed.
      if (here.length === 0 && status === "failed") fail(place, message)
    }
  }
  // An error outside of every test is in no report; vitest has printed it above.
  if (failures.length === before && !good) fail(`${name} tests`, "an error outside of every test, see above")
}

Fs.mkdirSync(results, { recursive: true })
if (only === undefined) {
  step("types", "tsc", "-b")
  step("types of tests and scripts", "tsc", "-p", "tsconfig.test.json", "--noEmit")
  step("lint", "oxlint", "--type-aware")
  step("format", "oxfmt", "--check", ".")
}
if (only === undefined || only === "e2e" || only === "cluster") step("bundle", process.execPath, "scripts/bundle.ts")
for (const name of suites) if (only === undefined || only === name) suite(name)

process.exitCode = failures.length === 0 ? 0 : 1
if (failures.length > 0) console.log(`\n== failed\n\n${failures.join("\n\n")}`)
console.log(`\n${passed} passed, ${failures.length} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`)
