/**
 * `./prism bench NAME`: runs one benchmark and prints its figures.
 *
 * `--json` prints one object that outside programs rely on: bench, machine,
 * figures, ratios, targets. What is going on is told on stderr.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Schema } from "effect"
import * as Fs from "node:fs"
import { parseArgs } from "node:util"
import * as Path from "node:path"
import { api } from "./api.ts"
import { beats } from "./beats.ts"
import { type Benchmark, backends, type Options, type Result, storages } from "./Benchmark.ts"
import { cliStart } from "./cliStart.ts"
import { cluster } from "./cluster.ts"
import { connections } from "./connections.ts"
import { dnsperf } from "./dnsperf.ts"
import { enrol } from "./enrol.ts"
import { heartbeats } from "./heartbeats.ts"
import { history } from "./history.ts"
import * as Machine from "./Machine.ts"
import { million } from "./million.ts"
import { number, range, units, verdict } from "./Printing.ts"
import { publish } from "./publish.ts"
import { reconcile } from "./reconcile.ts"
import { registrations } from "./registrations.ts"
import { report, type ReportOptions } from "./reporting.ts"
import { reported } from "./Reports.ts"
import { resolvable } from "./resolvable.ts"
import { restart } from "./restart.ts"
import { sdkSize } from "./sdkSize.ts"
import { servedLatency } from "./servedLatency.ts"
import { sessions } from "./sessions.ts"

/** Every benchmark there is. */
const benchmarks: ReadonlyArray<Benchmark> = [
  registrations,
  resolvable,
  api,
  heartbeats,
  connections,
  publish,
  servedLatency,
  reconcile,
  sessions,
  beats,
  enrol,
  restart,
  sdkSize,
  history,
  million,
  cluster,
  dnsperf,
  cliStart
]

const usage = `Usage: ./prism bench NAME [--json] [--hosts N] [--rows N] [--backend B] [--storage S] [--sizes N,N] [--rates N,N] [--seconds N]
                          [--rounds N] [--tls] [--profile DIR]
       ./prism bench --list
       ./prism bench --report [NAME...] [--quick] [--docs DIR] [--page]

${benchmarks.map(({ description, name }) => `  ${name.padEnd(15)} ${description}`).join("\n")}

  --hosts N      hosts, connections or sessions
  --rows N       rows of history (history)
  --backend B    where PowerDNS keeps its zones: sqlite, lmdb or pgsql; or several of them with commas between
  --storage S    where the registry is kept: sqlite or postgres; or both with a comma between (registrations)
  --sizes N,N    names in the zones (publish, reconcile), or sessions
  --rates N,N    changes a second (served-latency)
  --seconds N    how long each part that has no end of its own is measured
  --rounds N     how often the short parts are repeated; medians count (default 3)
  --tls          over TLS 1.3 (sessions)
  --profile DIR  a CPU profile of each Prism server that is measured

  --report       takes all benchmarks, or those named, stores what they gave in docs/performance/ and writes
                 docs/performance.md; names: ${reported.map(({ id }) => id).join(", ")}
  --quick        in a short form, which shows that they run; it does not replace stored figures of a full run
  --docs DIR     in place of docs
  --page         writes the page from what is stored, and measures nothing
`

class WrongUsage extends Schema.TaggedError<WrongUsage>()("WrongUsage", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

const wrongUsage = (detail: string): WrongUsage => new WrongUsage({ detail })

type Invocation =
  | { readonly _tag: "Help" }
  | { readonly _tag: "List" }
  | { readonly _tag: "Report"; readonly options: ReportOptions }
  | { readonly _tag: "Run"; readonly benchmark: Benchmark; readonly options: Options; readonly json: boolean }

const wholeNumber = (name: string, text: string | undefined, max: number): number | undefined => {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= max) return value
  throw wrongUsage(`--${name} takes a whole number from 1 to ${max}`)
}

/** A list with commas between. */
const several = <A>(text: string | undefined, read: (part: string) => A): ReadonlyArray<A> | undefined =>
  text === undefined ? undefined : [...new Set(text.split(","))].map(read)

const backend = (text: string) => {
  const found = backends.find((each) => each === text)
  if (found === undefined) throw wrongUsage(`--backend is one of ${backends.join(", ")}`)
  return found
}

const storage = (text: string) => {
  const found = storages.find((each) => each === text)
  if (found === undefined) throw wrongUsage(`--storage is one of ${storages.join(", ")}`)
  return found
}

const hostsMax = 1_000_000
const rowsMax = 20_000_000
const namesMax = 1_000_000
const rateMax = 10_000
const secondsMax = 3600
const roundsMax = 100

const parse = (args: ReadonlyArray<string>): Invocation => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: "boolean", default: false },
      tls: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
      hosts: { type: "string" },
      rows: { type: "string" },
      backend: { type: "string" },
      backends: { type: "string" },
      storage: { type: "string" },
      sizes: { type: "string" },
      rates: { type: "string" },
      seconds: { type: "string" },
      rounds: { type: "string" },
      profile: { type: "string" },
      report: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      page: { type: "boolean", default: false },
      docs: { type: "string", default: "docs" }
    }
  })
  if (values.help) return { _tag: "Help" }
  if (values.list) return { _tag: "List" }
  if (values.report) return { _tag: "Report", options: parseReport(positionals, values) }
  const [name, ...more] = positionals
  if (name === undefined) throw wrongUsage("name a benchmark")
  if (more.length > 0) throw wrongUsage("one benchmark at a time")
  const benchmark = benchmarks.find((each) => each.name === name)
  if (benchmark === undefined) throw wrongUsage(`there is no benchmark '${name}'`)
  const chosen = several(values.backends ?? values.backend, backend)
  const refused = chosen?.find((each) => !benchmark.backends.includes(each))
  if (refused !== undefined) throw wrongUsage(`${name} runs on ${benchmark.backends.join(", ")}, not on ${refused}`)
  return {
    _tag: "Run",
    benchmark,
    json: values.json,
    options: {
      hosts: wholeNumber("hosts", values.hosts, hostsMax),
      rows: wholeNumber("rows", values.rows, rowsMax),
      backends: chosen,
      storages: several(values.storage, storage),
      sizes: several(values.sizes, (part) => wholeNumber("sizes", part, namesMax)!),
      rates: several(values.rates, (part) => wholeNumber("rates", part, rateMax)!),
      tls: values.tls,
      seconds: wholeNumber("seconds", values.seconds, secondsMax),
      rounds: wholeNumber("rounds", values.rounds, roundsMax) ?? 3,
      profile: values.profile
    }
  }
}

const parseReport = (
  ids: ReadonlyArray<string>,
  { docs, page, quick }: { readonly docs: string; readonly page: boolean; readonly quick: boolean }
): ReportOptions => {
  for (const id of ids) {
    if (!reported.some((each) => each.id === id)) throw wrongUsage(`there is no report of '${id}'`)
  }
  return { ids, quick, pageOnly: page, docs: Path.resolve(docs) }
}

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]!.length))) ?? []
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 1 ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd()
    )
    .map((line) => `  ${line}\n`)
    .join("")
}

const readable = (benchmark: Benchmark, machine: Machine.Machine, result: Result): string => {
  const figures = Object.entries(result.figures).map(([name, figure]) => [
    name,
    number(figure.value),
    units[figure.unit],
    [range(figure), verdict(result.targets[name])].filter((part) => part !== "").join("; ")
  ])
  const ratios = Object.entries(result.ratios).map(([name, value]) => [
    name,
    number(value),
    verdict(result.targets[name])
  ])
  return `${benchmark.name}: ${benchmark.description}\n${Machine.line(machine)}\n\n${table(figures)}\n${table(ratios)}`
}

const main = Effect.gen(function* () {
  const invocation = yield* Effect.try({
    try: () => parse(process.argv.slice(2)),
    catch: (error) => wrongUsage(error instanceof Error ? error.message : String(error))
  })
  if (invocation._tag === "Help") return process.stdout.write(usage)
  if (invocation._tag === "List") {
    return process.stdout.write(benchmarks.map(({ description, name }) => `${name}\t${description}\n`).join(""))
  }
  if (invocation._tag === "Report") return yield* report(invocation.options)
  const { benchmark, json, options } = invocation
  if (options.profile !== undefined) Fs.mkdirSync(options.profile, { recursive: true })
  const result = yield* Effect.scoped(benchmark.run(options))
  const machine = Machine.describe()
  process.stdout.write(
    json
      ? `${JSON.stringify({ bench: benchmark.name, machine, ...result }, null, 2)}\n`
      : readable(benchmark, machine, result)
  )
})

const end = (exitCode: number, text: string) =>
  Effect.sync(() => {
    process.stderr.write(`prism bench: ${text}\n`)
    process.exitCode = exitCode
  })

main.pipe(
  Effect.catchTags({
    WrongUsage: (error) => end(2, `${error.message}\n\n${usage}`),
    BenchFailed: (error) => end(1, error.message)
  }),
  NodeRuntime.runMain()
)
