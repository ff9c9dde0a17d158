/**
 * How much of everything so many hosts need, by the unit costs that were
 * measured. Pure: the same question has the same answer.
 *
 * It reckons with means, and keeps room: a server is to use at most half of its
 * core, and one server of each group may be away. It knows no latency between
 * regions and no disk of yours; where something was not measured at that size,
 * the answer says so.
 */
import type { UnitCosts } from "./UnitCosts.ts"

export interface Demand {
  readonly hosts: number
  /** Seconds between two heartbeats of a host. */
  readonly beatSeconds: number
  /** Changes of each host a day: it comes, moves, or goes. */
  readonly changesPerDay: number
  /** DNS queries a second, all together. */
  readonly queriesPerSecond: number
  /** How long history and audit are kept, in days. */
  readonly keptDays: number
  /** Sessions over TLS. */
  readonly tls: boolean
  /** Sessions of one server at the most. */
  readonly sessionsPerServer: number
  /** Places that have a PowerDNS of their own near them. */
  readonly edges: number
}

export interface Need {
  /** Registries with servers of their own, each for zones of its own: cells. */
  readonly groups: number
  readonly hostsPerGroup: number
  /** All together. */
  readonly beatsPerSecond: number
  readonly changesPerSecond: number
  /** Zones that a group needs at the least, so that their writers keep up. */
  readonly zonesPerGroup: number
  readonly servers: {
    /** Of each group, one more than carry the load. */
    readonly perGroup: number
    readonly total: number
    /** What asks for so many. */
    readonly because: "sessions" | "processor" | "availability"
    /** Of each server's core, while one is away; 0 to 1. So are sessions and memory. */
    readonly coreShare: number
    readonly sessions: number
    readonly memoryBytes: number
  }
  readonly postgres: {
    /** Of each group: one primary; replicas have the same. */
    readonly bytes: number
    readonly walBytesPerSecond: number
    readonly commitsPerSecond: number
    readonly cores: number
  }
  readonly powerdns: {
    /** Of each group: two take turns as primary. */
    readonly primaryBytes: number
    readonly primaryCores: number
    /** All together, primaries not counted: those that answer. */
    readonly secondaries: number
    readonly queriesPerSecondEach: number
  }
  /** What one has to know to believe it. */
  readonly notes: ReadonlyArray<string>
}

/** Of its core that a server is to use at the most, so that a burst, or another's sessions, find room. */
const coreShareMax = 0.5
/** Hosts' last-seen times are written once in so many seconds, whatever the beat. */
const flushSeconds = 10
const daySeconds = 86_400
/** Registrations that arrive together share a commit: so many a second at the most, by `gatherMillisMax`. */
const commitsPerSecondMax = 25

export const reckon = (demand: Demand, costs: UnitCosts): Need => {
  const { beatSeconds, changesPerDay, edges, hosts, keptDays, queriesPerSecond, sessionsPerServer, tls } = demand
  const groups = Math.max(1, Math.ceil(hosts / costs.hostsPerRegistry))
  const hostsPerGroup = Math.ceil(hosts / groups)
  const beatsPerSecond = hosts / beatSeconds
  const changesPerSecond = (hosts * changesPerDay) / daySeconds
  const changesOfGroup = changesPerSecond / groups
  const beatsOfGroup = beatsPerSecond / groups

  const busyCores = (beatsOfGroup * costs.beatMicros + changesOfGroup * costs.changeServerMicros) / 1e6
  const bySessions = Math.ceil(hostsPerGroup / sessionsPerServer)
  const byProcessor = Math.ceil(busyCores / coreShareMax)
  const carrying = Math.max(1, bySessions, byProcessor)
  const perGroup = carrying + 1
  // While one is away the others have its sessions.
  const sessions = Math.ceil(hostsPerGroup / carrying)

  const flushesPerSecond = Math.min(beatsOfGroup, hostsPerGroup / flushSeconds)
  const secondaries = Math.max(
    edges,
    Math.ceil(queriesPerSecond / (costs.queriesPerSecond * coreShareMax)) + (queriesPerSecond > 0 ? 1 : 0)
  )

  const notes = [
    hosts > costs.hostsPerRegistry
      ? `measured were ${costs.hostsPerRegistry.toLocaleString("en")} hosts in one registry; beyond that it is computed: ${groups} groups beside each other`
      : `${hosts.toLocaleString("en")} hosts are within what was measured in one registry, if not in all else at once`,
    ...(groups > 1
      ? [
          "groups share a name tree by delegation and nothing else; agents find theirs by redirect (docs/guides/sharding.md)"
        ]
      : []),
    ...(perGroup > 20
      ? [
          `${perGroup} servers on one PostgreSQL were not measured: their connections (storage.connectionsMax each) need a pooler such as pgbouncer`
        ]
      : []),
    ...(edges > 0
      ? [
          "secondaries at the edge fetch by AXFR or IXFR from the primaries; the time that takes over distance was not measured"
        ]
      : [])
  ]

  return {
    groups,
    hostsPerGroup,
    beatsPerSecond,
    changesPerSecond,
    zonesPerGroup: Math.max(1, Math.ceil(changesOfGroup / costs.zoneChangesPerSecond)),
    servers: {
      perGroup,
      total: perGroup * groups,
      because: carrying === 1 ? "availability" : bySessions >= byProcessor ? "sessions" : "processor",
      coreShare: busyCores / carrying,
      sessions,
      memoryBytes: baseBytes + sessions * (tls ? costs.sessionTlsBytes : costs.sessionBytes)
    },
    postgres: {
      bytes:
        hostsPerGroup * costs.hostRegistryBytes + changesOfGroup * daySeconds * keptDays * costs.changeRegistryBytes,
      walBytesPerSecond: changesOfGroup * costs.changeWalBytes + flushesPerSecond * costs.flushWalBytes,
      commitsPerSecond: Math.min(changesOfGroup, commitsPerSecondMax * perGroup),
      cores: (changesOfGroup * costs.changePostgresMicros) / 1e6
    },
    powerdns: {
      primaryBytes: hostsPerGroup * costs.hostPowerDnsBytes,
      primaryCores: (changesOfGroup * costs.changePowerDnsMicros) / 1e6,
      secondaries,
      queriesPerSecondEach: secondaries === 0 ? 0 : queriesPerSecond / secondaries
    },
    notes
  }
}

/** A server without a session, and what it keeps ready: caches, the newest events. */
const baseBytes = 250_000_000
