/**
 * What one of each costs, as our benchmarks measured it: the ground on which
 * `Capacity` reckons. Each says where it is from; what is no measurement of ours
 * says so. A measured one names the figure in `docs/performance/`, which a test
 * compares with it. Times are processor time of the machine that
 * docs/performance.md names: on another, measure anew and scale.
 */

export type Source =
  /** A figure of a benchmark of ours, of which `what` says what was done; `times` of it. */
  | {
      readonly _tag: "Measured"
      readonly bench: string
      readonly figure: string
      readonly times: number
      readonly what: string
    }
  /** Neither: a bound that we plan with. */
  | { readonly _tag: "Planned"; readonly why: string }

export interface UnitCost {
  readonly value: number
  readonly unit: "us" | "B" | "1" | "1/s"
  readonly what: string
  readonly source: Source
}

const measured = (bench: string, figure: string, what: string, times = 1): Source => ({
  _tag: "Measured",
  bench,
  figure,
  times,
  what
})
const planned = (why: string): Source => ({ _tag: "Planned", why })

export const unitCosts = {
  sessionBytes: {
    value: 4250,
    unit: "B",
    what: "memory of a server for an open session with one host",
    source: measured("sessions", "prism_rss_50000", "resident memory for each of 50,000, over plain TCP")
  },
  sessionTlsBytes: {
    value: 50_000,
    unit: "B",
    what: "the same over TLS 1.3",
    source: measured("sessions-tls", "prism_rss_10000_tls", "resident memory for each of 10,000")
  },
  sessionsPerInstance: {
    value: 10_000,
    unit: "1",
    what: "sessions of one server in normal operation",
    source: planned("twice as many must fit while another server is away; 16,667 in one process were measured")
  },
  beatMicros: {
    value: 11,
    unit: "us",
    what: "processor time of a server for a heartbeat",
    source: measured("beats", "prism_beat_cpu", "one heartbeat in flight on each of 1,000 sessions")
  },
  changeServerMicros: {
    value: 560,
    unit: "us",
    what: "processor time of a server for a change of a host, until it is served, audit included",
    source: measured("million", "server_cpu_per_change_1000000", "1,000 changes a second of 1,000,000 hosts")
  },
  changePowerDnsMicros: {
    value: 280,
    unit: "us",
    what: "processor time of a PowerDNS primary for a change (a forward and a reverse set)",
    source: measured(
      "million",
      "powerdns_cpu_per_change_1000000",
      "the same changes, LMDB, a forward set; twice for two",
      2
    )
  },
  zoneChangesPerSecond: {
    value: 1000,
    unit: "1/s",
    what: "changes of one zone that its writer publishes",
    source: planned("half of what `publish` measures for 100,000 names: the writer shares its core with sessions")
  },
  hostRegistryBytes: {
    value: 3200,
    unit: "B",
    what: "PostgreSQL, for a host that is there: its rows in all tables, with their indexes",
    source: measured("million", "database_bytes_per_host_1000000", "its first rows of history and audit included")
  },
  changeRegistryBytes: {
    value: 3200,
    unit: "B",
    what: "PostgreSQL, for each change: history and audit, with their indexes",
    source: measured(
      "million",
      "database_bytes_per_host_1000000",
      "no more than a new host takes, which writes all of that and the host itself"
    )
  },
  changeWalBytes: {
    value: 60_000,
    unit: "B",
    what: "PostgreSQL, write-ahead log for each change",
    source: measured(
      "million",
      "wal_bytes_per_change_1000000",
      "hosts far from each other, so that most pages are written whole after a checkpoint"
    )
  },
  flushWalBytes: {
    value: 300,
    unit: "B",
    what: "PostgreSQL, write-ahead log for writing down when a host was last seen",
    source: planned("a row of the host table written anew without a change of its indexes")
  },
  changePostgresMicros: {
    value: 860,
    unit: "us",
    what: "processor time of PostgreSQL for a change",
    source: measured("million", "postgres_cpu_per_change_1000000", "1,000 changes a second of 1,000,000 hosts")
  },
  hostPowerDnsBytes: {
    value: 160,
    unit: "B",
    what: "PowerDNS's database for a host: a forward and a reverse record",
    source: measured("million", "powerdns_bytes_per_host_1000000", "LMDB, a forward record; twice for two", 2)
  },
  queriesPerSecond: {
    value: 44_000,
    unit: "1/s",
    what: "DNS queries that one PowerDNS of two cores answers while its zones change",
    source: measured(
      "dnsperf",
      "prism_publishes_lmdb",
      "500 changes a second, with Prism, the database and who asks on the same two cores"
    )
  },
  hostsPerRegistry: {
    value: 1_000_000,
    unit: "1",
    what: "hosts in one registry",
    source: planned("as many as `million` registers, and changes at the latency of few")
  }
} as const satisfies Readonly<Record<string, UnitCost>>

export type UnitCosts = { readonly [K in keyof typeof unitCosts]: number }

/** The figures alone. */
export const values: UnitCosts = Object.fromEntries(
  Object.entries(unitCosts).map(([key, { value }]) => [key, value])
) as UnitCosts
