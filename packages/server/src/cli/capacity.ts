/** `prism-dns capacity`: what so many hosts need, by what was measured. Asks nobody. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Capacity from "../capacity/Capacity.ts"
import { type UnitCost, unitCosts, values } from "../capacity/UnitCosts.ts"
import * as Output from "./Output.ts"

const atLeast = (minimum: number, maximum: number) => (value: number) => value >= minimum && value <= maximum

type Bounds = readonly [number, number]

const bounded = (flag: Flag.Flag<number>, text: string, bounds: Bounds) =>
  flag.pipe(
    Flag.withDescription(text),
    Flag.withMetavar("N"),
    Flag.filter(atLeast(...bounds), () => `must be from ${bounds[0]} to ${bounds[1]}`)
  )

const wholeFlag = (name: string, text: string, bounds: Bounds) => bounded(Flag.Int(name), text, bounds)
const numberFlag = (name: string, text: string, bounds: Bounds) => bounded(Flag.Finite(name), text, bounds)

export const group = (value: number): string =>
  value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })

export const bytes = (value: number): string => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"]
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)))
  return `${(value / 10 ** (3 * step)).toFixed(step === 0 ? 0 : 1)} ${units[step]}`
}

const percent = (share: number): string => `${group(share * 100)} %`

const because = (need: Capacity.Need, { sessionsPerServer }: Capacity.Demand): string => {
  switch (need.servers.because) {
    case "sessions":
      return `${group(sessionsPerServer)} sessions each`
    case "processor":
      return "half of a core each"
    case "availability":
      return "one does the work"
  }
}

/** What is needed, line by line: what, how much, and what that is about. */
const lines = (need: Capacity.Need, demand: Capacity.Demand): ReadonlyArray<readonly [string, string, string]> => [
  [
    "groups",
    group(need.groups),
    `${group(need.hostsPerGroup)} hosts each, in ${group(need.zonesPerGroup)} zones at the least`
  ],
  ["heartbeats", `${group(need.beatsPerSecond)}/s`, "all together; they write nothing"],
  ["changes", `${group(need.changesPerSecond)}/s`, "all together"],
  [
    "servers",
    group(need.servers.total),
    `${group(need.servers.perGroup)} for each group (${because(need, demand)}), one of them to spare`
  ],
  [
    "  sessions of each",
    group(need.servers.sessions),
    `${percent(need.servers.coreShare)} of its core, ${bytes(need.servers.memoryBytes)} of memory`
  ],
  ["PostgreSQL of each group", bytes(need.postgres.bytes), "with history and audit; a replica has the same"],
  [
    "  write-ahead log",
    `${bytes(need.postgres.walBytesPerSecond)}/s`,
    `${group(need.postgres.commitsPerSecond)} commits/s, ${group(need.postgres.cores)} cores`
  ],
  [
    "PowerDNS primaries of each group",
    "2",
    `${bytes(need.powerdns.primaryBytes)} of zones, ${group(need.powerdns.primaryCores)} cores for changes`
  ],
  [
    "PowerDNS secondaries",
    group(need.powerdns.secondaries),
    need.powerdns.secondaries === 0
      ? "none asked for: --queries, --edges"
      : `${group(need.powerdns.queriesPerSecondEach)} queries/s each`
  ]
]

/** Where a unit cost is from, in words. */
export const origin = ({ source }: UnitCost): string =>
  source._tag === "Measured"
    ? `measured: ./prism bench --report ${source.bench}; ${source.what}`
    : `planned, not measured: ${source.why}`

const costs = Object.entries(unitCosts).map(([name, cost]) => ({ name, ...(cost as UnitCost) }))

const costColumns: ReadonlyArray<Output.Column<(typeof costs)[number]>> = [
  { head: "UNIT COST", cell: ({ what }) => what },
  {
    head: "IS",
    cell: ({ unit, value }) => (unit === "B" ? bytes(value) : `${group(value)}${unit === "1" ? "" : ` ${unit}`}`)
  },
  { head: "FROM", cell: (cost) => origin(cost) }
]

const people = (need: Capacity.Need, demand: Capacity.Demand): string => {
  const widths = [0, 1].map((at) => Math.max(...lines(need, demand).map((line) => line[at]!.length)))
  return [
    lines(need, demand)
      .map(([what, amount, about]) => `${what.padEnd(widths[0]!)}  ${amount.padStart(widths[1]!)}  ${about}`)
      .join("\n"),
    need.notes.map((note) => `- ${note}`).join("\n"),
    Output.toTable(costColumns, costs)
  ].join("\n\n")
}

export const capacity = Command.make(
  "capacity",
  {
    hosts: wholeFlag("hosts", "How many hosts.", [1, 100_000_000]),
    beat: numberFlag("beat", "Seconds between two heartbeats of a host.", [1, 86_400]).pipe(Flag.withDefault(60)),
    churn: numberFlag("churn", "Changes of each host a day: it comes, moves or goes.", [0, 1000]).pipe(
      Flag.withDefault(2)
    ),
    queries: numberFlag("queries", "DNS queries a second, all together.", [0, 1e9]).pipe(Flag.withDefault(0)),
    kept: numberFlag("kept", "Days that history and audit are kept.", [1, 36_500]).pipe(Flag.withDefault(400)),
    sessions: wholeFlag("sessions", "Sessions of one server at the most.", [100, 100_000]).pipe(
      Flag.withDefault(values.sessionsPerInstance)
    ),
    edges: wholeFlag("edges", "Places with a PowerDNS of their own.", [0, 100_000]).pipe(Flag.withDefault(0)),
    tls: Flag.Boolean("tls").pipe(Flag.withDescription("Sessions over TLS."), Flag.withDefault(false)),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON object."), Flag.withDefault(false))
  },
  Effect.fn(function* (input) {
    const demand: Capacity.Demand = {
      hosts: input.hosts,
      beatSeconds: input.beat,
      changesPerDay: input.churn,
      queriesPerSecond: input.queries,
      keptDays: input.kept,
      tls: input.tls,
      sessionsPerServer: input.sessions,
      edges: input.edges
    }
    const need = Capacity.reckon(demand, values)
    yield* input.json ? Output.json({ demand, need, unitCosts }) : Console.log(people(need, demand))
  })
).pipe(
  Command.withDescription(
    "What so many hosts need: servers, PostgreSQL, PowerDNS, reckoned from what our benchmarks measured. Asks nobody."
  ),
  Command.withExamples([
    {
      command: "prism-dns capacity --hosts 1000000 --beat 60 --churn 2",
      description: "A million hosts, two changes a day each"
    },
    {
      command: "prism-dns capacity --hosts 100000000 --queries 5000000 --edges 200 --tls",
      description: "A hundred million, with name servers at 200 places"
    }
  ])
)
