/**
 * Many hosts in several zones, registered and moved by the API's batch call:
 * the fastest way in that leads through everything a registration goes through.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Agents from "./Agents.ts"
import { BenchFailed } from "./Benchmark.ts"
import type { Registry } from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds } from "./Workspace.ts"

/** Hosts in one call. */
const callMax = 5000
/** Calls under way at once to one server: it has the next one when it is done with one. */
const callsAtOnce = 2

export const zoneOf = (host: number, zones: number): string => `z${host % zones}.prism.test`

export const fqdn = (host: number, zones: number): string => `${Agents.hostname(host)}.${zoneOf(host, zones)}.`

/** What stands in the configuration so that nothing comes by itself, and nobody's rates are what is measured. */
export const settings = (zones: number) => ({
  zones: Array.from({ length: zones }, (_, i) => ({
    name: zoneOf(i, zones),
    networks: ["127.0.0.0/8", "10.0.0.0/8"],
    hostsMax: 10_000_000,
    reconcileInterval: "30d"
  })),
  more: {
    leases: { beatInterval: "1d" },
    http: {
      port: 0,
      rateLimit: {
        reads: { ratePerSecond: 1_000_000, burst: 10_000_000 },
        changes: { ratePerSecond: 1_000_000, burst: 10_000_000 }
      }
    }
  }
})

interface Answer {
  readonly succeeded: number
  readonly items?: ReadonlyArray<unknown>
}

/** Registers hosts, or moves those that are known, in one call; done when all are accepted and durable. */
export const send = (server: Servers.Prism, hosts: ReadonlyArray<number>, zones: number, turn: number) =>
  Servers.post<Answer>(server, "/hosts:batch", {
    items: hosts.map((host) => ({
      op: "register",
      hostname: fqdn(host, zones),
      addresses: [turn === 0 ? Agents.address(host) : moved(host, turn)]
    })),
    waitFor: "accepted"
  }).pipe(
    Effect.filterOrFail(
      ({ succeeded }) => succeeded === hosts.length,
      (answer) =>
        new BenchFailed({
          detail: `${answer.succeeded} of ${hosts.length} hosts were accepted: ${JSON.stringify(answer).slice(0, 500)}`
        })
    )
  )

/** An address that a host has not had: another one at each turn. */
const moved = (host: number, turn: number): string =>
  `10.${((turn & 15) << 4) | (host >>> 16)}.${(host >>> 8) & 255}.${host & 255}`

/** All hosts from `first` on, in calls of a few thousand. */
export const registerAll = (server: Servers.Prism, first: number, count: number, zones: number) =>
  Effect.forEach(
    Array.from({ length: Math.ceil(count / callMax) }, (_, i) => first + i * callMax),
    (from) =>
      send(
        server,
        Array.from({ length: Math.min(callMax, first + count - from) }, (_, i) => from + i),
        zones,
        0
      ),
    { concurrency: callsAtOnce, discard: true }
  )

/** Waits until nothing waits to be published, or with `served` for a name server's answer. */
export const untilQuiet = (registry: Registry, served: boolean, millisMax: number) =>
  registry
    .run(
      `SELECT EXISTS (SELECT 1 FROM outbox WHERE parked_at IS NULL)${served ? " OR EXISTS (SELECT 1 FROM unserved)" : ""}`
    )
    .pipe(
      Effect.repeat({ schedule: Schedule.spaced("200 millis"), until: (waits) => waits.trim() === "f" }),
      Effect.timeout(millisMax),
      Effect.mapError(
        (error) => new BenchFailed({ detail: `not published within ${millisMax / 1000} s: ${error.message}` })
      )
    )

/** Lets Prism make its tables and zones. */
export const untilZonesMade = (registry: Registry, zones: number) =>
  registry.run("SELECT COUNT(*) FROM zone_fingerprint").pipe(
    Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (count) => Number(count.trim()) >= zones }),
    Effect.timeout("2 minutes"),
    Effect.mapError(() => new BenchFailed({ detail: "the zones were not made" }))
  )

/** Bytes of all files in a folder, as far as they take room on the disk. */
export const diskBytes = (folder: string): number =>
  Fs.readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => Fs.statSync(`${entry.parentPath}/${entry.name}`).blocks * 512)
    .reduce((a, b) => a + b, 0)

/** What a cluster consists of, as far as its use is counted. */
export interface Parts {
  readonly servers: ReadonlyArray<Servers.Prism>
  readonly registry: Registry
  readonly powerDns: Servers.PowerDns
}

/** Seconds that something took, processor time of each part meanwhile, and what was logged by PostgreSQL. */
export interface Used {
  readonly seconds: number
  readonly server: number
  readonly postgres: number
  readonly powerDns: number
  readonly walBytes: number
}

/** Takes a look now; gives what tells the use since then. */
export const meter = Effect.fnUntraced(function* ({ powerDns, registry, servers }: Parts) {
  const now = Effect.map(registry.walBytes, (walBytes) => ({
    seconds: performance.now() / 1000,
    server: servers.map(({ pid }) => cpuSeconds(pid) ?? Number.NaN).reduce((a, b) => a + b, 0),
    postgres: registry.usage().cpuSeconds,
    powerDns: cpuSeconds(powerDns.pid) ?? Number.NaN,
    walBytes
  }))
  const before = yield* now
  return Effect.map(now, (after): Used => ({
    seconds: after.seconds - before.seconds,
    server: after.server - before.server,
    postgres: after.postgres - before.postgres,
    powerDns: after.powerDns - before.powerDns,
    walBytes: after.walBytes - before.walBytes
  }))
})
