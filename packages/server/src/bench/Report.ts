/**
 * `docs/performance.md` and the results it is made of.
 *
 * Promises: the page is a function of the stored results and of `Reports`, so
 * that one benchmark can be taken anew without the others, and a test can say
 * whether the page is what the results give. Leaves to others: running the
 * benchmarks (`reporting`), and what is explained by hand
 * (`docs/internals/measurements.md`).
 */
import { Schema } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Figure, Result, Target } from "./Benchmark.ts"
import { number, range, units, verdict } from "./Printing.ts"
import { type Reported, reported } from "./Reports.ts"

const figureSchema = Schema.Struct({
  value: Schema.Finite,
  unit: Schema.Literals(["s", "1", "1/s", "us", "B"]),
  min: Schema.optionalKey(Schema.Finite),
  max: Schema.optionalKey(Schema.Finite)
})

const targetSchema = Schema.Struct({
  want: Schema.Finite,
  got: Schema.Finite,
  met: Schema.Boolean,
  atLeast: Schema.optionalKey(Schema.Literal(true))
})

/** One run, as it is stored. */
export const Stored = Schema.Struct({
  bench: Schema.String,
  /** What was typed. */
  command: Schema.String,
  /** The day it was taken, `2026-11-27`. */
  date: Schema.String,
  /** Of the short form: it can be run, and its figures mean little. */
  quick: Schema.Boolean,
  /** Processes that wanted a core when it began, on average over a minute: other work falsifies what it meets. */
  loadBefore: Schema.Finite,
  machine: Schema.Record(Schema.String, Schema.NullOr(Schema.Union([Schema.String, Schema.Finite]))),
  figures: Schema.Record(Schema.String, figureSchema),
  ratios: Schema.Record(Schema.String, Schema.Finite),
  targets: Schema.Record(Schema.String, targetSchema)
})
export type Stored = typeof Stored.Type

const decodeStored = Schema.decodeUnknownSync(Schema.fromJsonString(Stored))

/** Where results lie, below the folder of the documentation. */
export const folder = "performance"
/** The page that is made of them, there too. */
export const page = "performance.md"

/** The results that are stored below `docs`, by their id. */
export const read = (docs: string): ReadonlyMap<string, Stored> => {
  const from = Path.join(docs, folder)
  const found = new Map<string, Stored>()
  for (const { id } of reported) {
    const file = Path.join(from, `${id}.json`)
    if (Fs.existsSync(file)) found.set(id, decodeStored(Fs.readFileSync(file, "utf8")))
  }
  return found
}

/** The file of a result: the same for the same result, whatever wrote it. */
export const encode = (stored: Stored): string => `${JSON.stringify(stored, null, 2)}\n`

const cell = (text: string): string => text.replaceAll("|", "\\|")

const row = (cells: ReadonlyArray<string>): string => `| ${cells.map(cell).join(" | ")} |`

const notes = (figure: Figure | undefined, target: Target | undefined): string =>
  [figure === undefined ? "" : range(figure), target === undefined ? "" : emphasised(target)]
    .filter((part) => part !== "")
    .join("; ")

const emphasised = (target: Target): string => {
  const text = verdict(target)
  return target.met ? text : text.replace(/NOT MET$/, "**not met**")
}

const table = ({ figures, ratios, targets }: Pick<Result, "figures" | "ratios" | "targets">): string =>
  [
    row(["figure", "value", "range; aim"]),
    row(["---", "---:", "---"]),
    ...Object.entries(figures).map(([name, figure]) =>
      row([`\`${name}\``, `${number(figure.value)} ${units[figure.unit]}`.trim(), notes(figure, targets[name])])
    ),
    ...Object.entries(ratios).map(([name, value]) =>
      row([`\`${name}\``, `**${number(value)}**`, notes(undefined, targets[name])])
    )
  ].join("\n")

const machineWords: ReadonlyArray<readonly [key: string, word: string]> = [
  ["node", "Node"],
  ["sqlite", "SQLite"],
  ["postgres", "PostgreSQL"],
  ["powerdns", "PowerDNS"],
  ["bind", "BIND"],
  ["knot", "Knot DNS"],
  ["nsd", "NSD"],
  ["dnsperf", "dnsperf"]
]

/** What a result ran on, in one line; programs that were not there are left out. */
export const machineLine = (machine: Stored["machine"]): string => {
  const gibibytes = (Number(machine["memoryBytes"]) / 2 ** 30).toFixed(1)
  const versions = machineWords.flatMap(([key, word]) => {
    const version = machine[key]
    return version === null || version === undefined ? [] : [`${word} ${String(version).replace(/^v/, "")}`]
  })
  return [
    `${machine["cpu"]}, ${machine["cores"]} cores, ${gibibytes} GiB`,
    machine["system"],
    versions.join(", ")
  ].join("; ")
}

const section = ({ about, bench, explained, id }: Reported, stored: Stored | undefined): string => {
  const more = explained === undefined ? "" : ` [More](internals/measurements.md#${explained}).`
  const heading = `## ${id}\n\n${about}${more}\n`
  if (stored === undefined) return `${heading}\nNot taken yet by \`./prism bench --report ${id}\`.\n`
  const short = stored.quick ? " **In its short form: this shows that it runs, not how fast.**" : ""
  return `${heading}
\`${stored.command}\`, ${stored.date}, other work on the machine before it: a load of ${number(stored.loadBefore)}.${short}
${machineLine(stored.machine)}${bench === id ? "" : ` (\`${bench}\`)`}.

${table(stored)}
`
}

const unmet = (results: ReadonlyMap<string, Stored>): string => {
  const all = [...results].flatMap(([id, { targets }]) =>
    Object.entries(targets).map(([name, each]) => ({ id, name, each }))
  )
  if (all.length === 0) return ""
  const missed = all.filter(({ each }) => !each.met)
  const lines = missed.map(
    ({ each, id, name }) => `- [\`${id}\`](#${id}): \`${name}\` is ${number(each.got)}, ${verdict(each)}`
  )
  return `
${all.length - missed.length} of ${all.length} aims are met${missed.length === 0 ? "." : `; these are not:\n\n${lines.join("\n")}`}
`
}

/** The whole page. */
export const render = (
  results: ReadonlyMap<string, Stored>
): string => `<!-- Written by ./prism bench --report from performance/*.json: edit packages/server/src/bench/Reports.ts, or internals/measurements.md for what is explained by hand. -->

# Performance

What was measured, beside a yardstick of the same run, on what, and how to run it again. Machines are noisy: what counts is a ratio, not a time. Where there were several rounds a figure is their median and their range stands behind it.
The load generator, the servers and the yardsticks share the cores of one machine, unless said otherwise.

This page is written by \`./prism bench --report\` from the results in \`docs/performance/\`; \`./prism bench --report NAME\` takes one of them anew. How it came to be so, what was tried, and older figures: [internals/measurements.md](internals/measurements.md).
${unmet(results)}
${reported.map((each) => section(each, results.get(each.id))).join("\n")}`
