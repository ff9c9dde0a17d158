/**
 * What one of each costs, as our benchmarks measured it: the ground on which
 * `Capacity` reckons. Each says where it is from; what is no measurement of ours
 * says so. Times are processor time of the machine that
 * docs/performance.md names: on another, measure anew and scale.
 */

export type Source =
  /** A figure of a benchmark of ours. */
  | { readonly _tag: "Measured"; readonly bench: string; readonly what: string }
  /** Of measured figures. */
  | { readonly _tag: "Computed"; readonly from: string }
  /** Neither: a bound that we plan with. */
  | { readonly _tag: "Planned"; readonly why: string }

export interface UnitCost {
  readonly value: number
  readonly unit: "us" | "B" | "1" | "1/s"
  readonly what: string
  readonly source: Source
}

const measured = (bench: string, what: string): Source => ({ _tag: "Measured", bench, what })
const planned = (why: string): Source => ({ _tag: "Planned", why })

export const unitCosts = {
  sessionBytes: {
    value: 4250,
    unit: "B",
    what: "memory of a server for an open session with one host",
    source: measured("sessions", "resident memory for each of 10,000 and of 50,000, over plain TCP")
  },
  sessionTlsBytes: {
    value: 50_000,
    unit: "B",
    what: "the same over TLS 1.3",
    source: measured("sessions --tls", "resident memory for each of 10,000 and of 50,000")
  },
  sessionsPerInstance: {
    value: 10_000,
    unit: "1",
    what: "sessions of one server in normal operation",
    source: planned("twice as many must fit while another server is away; 16,667 in one process were measured")
  },
  beatMicros: {
    value: 9.8,
    unit: "us",
    what: "processor time of a server for a heartbeat",
    source: measured("beats", "one heartbeat in flight on each of 1,000 sessions")
  },
  changeServerMicros: {
    value: 800,
    unit: "us",
    what: "processor time of a server for a change of a host, from frame to served, audit included",
    source: measured("registrations", "10,000 new hosts with a forward and a reverse name, both served")
  },
  changePowerDnsMicros: {
    value: 300,
    unit: "us",
    what: "processor time of a PowerDNS primary for a change (a forward and a reverse set)",
    source: measured("publish", "PATCHes of 500 sets, 100,000 names in the zone, twice for two sets")
  },
  zoneChangesPerSecond: {
    value: 1000,
    unit: "1/s",
    what: "changes of one zone that its writer publishes",
    source: measured("publish", "100,000 names in the zone, halved: the writer shares its core with sessions")
  },
  hostRegistryBytes: {
    value: 4000,
    unit: "B",
    what: "PostgreSQL, for a host that is there: its rows in all tables, with their indexes",
    source: planned("until `million` is taken")
  },
  changeRegistryBytes: {
    value: 6000,
    unit: "B",
    what: "PostgreSQL, for each change: history and audit, with their indexes",
    source: planned("until `million` is taken")
  },
  changeWalBytes: {
    value: 20_000,
    unit: "B",
    what: "PostgreSQL, write-ahead log for each change",
    source: planned("until `million` is taken")
  },
  flushWalBytes: {
    value: 300,
    unit: "B",
    what: "PostgreSQL, write-ahead log for writing down when a host was last seen",
    source: planned("a row of the host table written anew without a change of its indexes")
  },
  changePostgresMicros: {
    value: 800,
    unit: "us",
    what: "processor time of PostgreSQL for a change",
    source: planned("until `million` is taken")
  },
  hostPowerDnsBytes: {
    value: 600,
    unit: "B",
    what: "PowerDNS's database for a host: a forward and a reverse record",
    source: planned("until `million` is taken")
  },
  queriesPerSecond: {
    value: 50_000,
    unit: "1/s",
    what: "DNS queries that one PowerDNS of two cores answers while its zones change",
    source: planned("until `dnsperf` is taken")
  },
  hostsPerRegistry: {
    value: 1_000_000,
    unit: "1",
    what: "hosts in one registry",
    source: planned("until `million` is taken")
  }
} as const satisfies Readonly<Record<string, UnitCost>>

export type UnitCosts = { readonly [K in keyof typeof unitCosts]: number }

/** The figures alone. */
export const values: UnitCosts = Object.fromEntries(
  Object.entries(unitCosts).map(([key, { value }]) => [key, value])
) as UnitCosts
