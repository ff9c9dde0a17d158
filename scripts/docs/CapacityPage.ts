/** What `prism-dns capacity` says of several sizes, and what it reckons with, as a page. */
import * as Capacity from "../../packages/server/src/capacity/Capacity.ts"
import { type UnitCost, unitCosts, values } from "../../packages/server/src/capacity/UnitCosts.ts"
import { bytes, group, origin } from "../../packages/server/src/cli/capacity.ts"

const sizes: ReadonlyArray<Omit<Capacity.Demand, "beatSeconds" | "changesPerDay" | "keptDays" | "tls">> = [
  { hosts: 1000, queriesPerSecond: 1000, sessionsPerServer: 10_000, edges: 0 },
  { hosts: 10_000, queriesPerSecond: 10_000, sessionsPerServer: 10_000, edges: 0 },
  { hosts: 100_000, queriesPerSecond: 50_000, sessionsPerServer: 50_000, edges: 2 },
  { hosts: 1_000_000, queriesPerSecond: 200_000, sessionsPerServer: 50_000, edges: 10 },
  { hosts: 10_000_000, queriesPerSecond: 2_000_000, sessionsPerServer: 50_000, edges: 100 },
  { hosts: 100_000_000, queriesPerSecond: 20_000_000, sessionsPerServer: 50_000, edges: 1000 }
]

/** One change a day: the page says "once". */
const common = { beatSeconds: 30, changesPerDay: 1, keptDays: 90, tls: true } as const

const row = (size: (typeof sizes)[number]): ReadonlyArray<string> => {
  const { groups, beatsPerSecond, changesPerSecond, postgres, powerdns, servers } = Capacity.reckon(
    { ...common, ...size },
    values
  )
  return [
    group(size.hosts),
    group(groups),
    `${group(servers.perGroup)} (${group(servers.total)})`,
    `${group(servers.sessions)}, ${bytes(servers.memoryBytes)}, ${group(servers.coreShare * 100)} %`,
    `${group(beatsPerSecond)}/s`,
    `${group(changesPerSecond)}/s`,
    `${bytes(postgres.bytes)}, ${bytes(postgres.walBytesPerSecond)}/s`,
    bytes(powerdns.primaryBytes),
    `${group(powerdns.secondaries)} for ${group(size.queriesPerSecond)}/s`
  ]
}

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const isPlanned = ({ source }: UnitCost): boolean => source._tag === "Planned"

const costRows = (wanted: boolean) =>
  Object.values<UnitCost>(unitCosts)
    .filter((cost) => isPlanned(cost) === wanted)
    .map((cost) => [
      cost.what,
      cost.unit === "B" ? bytes(cost.value) : `${group(cost.value)}${cost.unit === "1" ? "" : ` ${cost.unit}`}`,
      origin(cost)
    ])

export const page =
  (): string => `<!-- Written by npm run docs: edit scripts/docs/CapacityPage.ts, or packages/server/src/capacity. -->

# Capacity

What \`prism-dns capacity\` says of some sizes. All of it is reckoned, from the unit costs below; what was measured as a whole, and what it means, is told in [scale](../scale.md).

Each host keeps a session over TLS, beats every ${common.beatSeconds} s and changes once a day; history and audit are kept for ${common.keptDays} days. One server of each group is to spare: sessions, memory and the share of a core are those while it is away.

${table(
  [
    "hosts",
    "groups",
    "servers of each (all)",
    "sessions, memory, core of a server",
    "beats",
    "changes",
    "PostgreSQL of each group, its log",
    "PowerDNS of each group",
    "secondaries"
  ],
  sizes.map(row)
)}

For your own figures:

\`\`\`sh
prism-dns capacity --hosts 250000 --beat 60 --churn 2 --queries 20000 --kept 365 --sessions 20000 --tls
\`\`\`

## Unit costs that were measured

${table(["what", "is", "from"], costRows(false))}

## Unit costs that were not

${table(["what", "is", "why"], costRows(true))}
`
