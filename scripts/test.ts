/**
 * `./prism test`, once everything it needs is there: type check, lint, bundle,
 * then the suites. Its last line is `N passed, N failed`; a step that is no
 * test counts as one failure when it fails. `--only SUITE` runs that suite alone; `--only
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
let failed = 0
let skipped = 0

/** Runs a program in front of everyone's eyes. */
const run = (name: string, program: string, ...args: ReadonlyArray<string>): boolean => {
  console.log(`\n== ${name}`)
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] })
  if (error !== undefined) console.error(`prism: ${program} cannot be run: ${error.message}`)
  return status === 0
}

const step = (name: string, program: string, ...args: ReadonlyArray<string>) => {
  if (run(name, program, ...args)) return
  failed++
  console.error(`prism: ${name} failed`)
}

interface Report {
  readonly numPassedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: ReadonlyArray<{
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly status: string }>
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
  let failures = 0
  if (Fs.existsSync(file)) {
    const report = JSON.parse(Fs.readFileSync(file, "utf8")) as Report
    passed += report.numPassedTests
    skipped += report.numPendingTests + report.numTodoTests
    for (const { assertionResults, status } of report.testResults) {
      const here = assertionResults.filter((result) => result.status === "failed").length
      // A file that could not be loaded has no tests, yet it failed.
      failures += here === 0 && status === "failed" ? 1 : here
    }
  }
  failed += failures === 0 && !good ? 1 : failures
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

process.exitCode = failed === 0 ? 0 : 1
console.log(`\n${passed} passed, ${failed} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`)
