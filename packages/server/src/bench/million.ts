/**
 * A million hosts in several zones, their registry in PostgreSQL: how long they
 * take to be registered and published, what they take in memory and on the
 * disk; and then, while they are there, changes at an even rate, beside the same
 * with few hosts in the same run.
 *
 * Hosts come by the API's batch call. Changes are known hosts that get another
 * address, a few in a call, sent when they are due whatever has become of those
 * before. Accepted is when the call was answered, by the clock of who sent it;
 * applied and served are the times that Prism wrote down for the name, from
 * those at which it was accepted there.
 */
import { Effect, FiberSet } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import {
  backendOf,
  below,
  type Benchmark,
  BenchFailed,
  type Figure,
  figure,
  type Options,
  quantile,
  type Target
} from "./Benchmark.ts"
import * as Fleet from "./Fleet.ts"
import * as Postgres from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { memoryBytes, progress, resetPeak, temporaryFolder } from "./Workspace.ts"

const hostsByDefault = 1_000_000
/** The few beside them. */
const fewHosts = 10_000
const zones = 8
const rateByDefault = 1000
const secondsByDefault = 10
const warmUpSeconds = 3
/** A call of changes is due so often. */
const callMillis = 20
/** p95 of accepted to served with many hosts, over the same with few. */
const growthWanted = 1.5

/** A million are published; a burst of changes is served. */
const millisMax = { published: 3_600_000, served: 300_000 }

const names = ["accepted", "applied", "served"] as const
const shares = [
  ["p50", 0.5],
  ["p95", 0.95],
  ["p99", 0.99]
] as const

/** Changes at an even rate for `seconds`; how long each call took from when it was due, in milliseconds. */
const change = Effect.fnUntraced(function* (
  server: Servers.Prism,
  options: { readonly hosts: number; readonly perSecond: number; readonly seconds: number; readonly from: number }
) {
  const perCall = Math.max(1, Math.round((options.perSecond * callMillis) / 1000))
  const calls = Math.ceil((options.perSecond * options.seconds) / perCall)
  const accepted: Array<number> = []
  const running = yield* FiberSet.make<unknown, BenchFailed>()
  const startMillis = performance.now()
  const due = (call: number) => startMillis + (call * perCall * 1000) / options.perSecond
  for (let call = 0; call < calls; call++) {
    yield* Effect.sleep(Math.max(0, due(call) - performance.now()))
    const numbers = Array.from({ length: perCall }, (_, i) => options.from + call * perCall + i)
    const turn = 1 + Math.floor(numbers[0]! / options.hosts)
    const hosts = numbers.map((number) => (number * 7919) % options.hosts)
    yield* FiberSet.run(
      running,
      Effect.map(Fleet.send(server, hosts, zones, turn), () => accepted.push(performance.now() - due(call)))
    )
  }
  // Those under way; a failure of one is that of all.
  yield* Effect.raceFirst(FiberSet.awaitEmpty(running), FiberSet.join(running))
  return { accepted, changes: calls * perCall }
}, Effect.scoped)

/** Times from accepted to applied and to served of all hosts changed since `generation`, in milliseconds. */
const outcomes = Effect.fnUntraced(function* (registry: Postgres.Registry, generation: number) {
  const text = yield* registry.run(
    `SELECT p.published_at - v.valid_from, p.served_at - v.valid_from
      FROM host h
      JOIN host_history v ON v.host_id = h.id AND v.valid_to IS NULL
      JOIN published p ON p.zone = h.zone AND p.name = h.fqdn
      WHERE h.generation > ${generation}`
  )
  const rows = text
    .trim()
    .split("\n")
    .map((line) => line.split("|").map((value) => (value === "" ? Number.NaN : Number(value))))
  if (rows.some(([applied, served]) => !Number.isFinite(applied) || !Number.isFinite(served))) {
    return yield* new BenchFailed({ detail: "a change was not applied, or not served" })
  }
  return { applied: rows.map(([applied]) => applied!), served: rows.map(([, served]) => served!) }
})

/** Everything with so many hosts, in a registry and a PowerDNS of their own. */
const measure = Effect.fnUntraced(function* (folder: string, hosts: number, options: Options) {
  const registry = yield* Postgres.forManyHosts
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const server = yield* Servers.prism({
    folder,
    powerDns,
    storage: registry.url,
    profile: options.profile,
    ...Fleet.settings(zones)
  })
  yield* Fleet.untilZonesMade(registry, zones)
  resetPeak(server.pid)
  const parts = { servers: [server], registry, powerDns }
  const used = yield* Fleet.meter(parts)
  yield* Effect.raceFirst(Fleet.registerAll(server, 0, hosts, zones), server.ended)
  const accepted = (yield* used).seconds
  yield* progress(`${hosts} hosts: accepted after ${accepted.toFixed(1)} s, ${Math.round(hosts / accepted)}/s`)
  yield* Effect.raceFirst(Fleet.untilQuiet(registry, false, millisMax.published), server.ended)
  const applied = yield* used
  yield* Effect.raceFirst(Fleet.untilQuiet(registry, true, millisMax.published), server.ended)
  const served = yield* used
  yield* progress(
    `${hosts} hosts: published after ${applied.seconds.toFixed(1)} s, served after ${served.seconds.toFixed(1)} s`
  )
  const count = Number((yield* registry.run("SELECT COUNT(*) FROM host")).trim())
  if (count !== hosts) return yield* new BenchFailed({ detail: `the registry has ${count} hosts, not ${hosts}` })

  const stored = { database: yield* registry.size, powerDns: Fleet.diskBytes(Path.join(folder, "powerdns")) }
  const memory = {
    server: memoryBytes(server.pid).now,
    serverPeak: memoryBytes(server.pid).peak,
    postgres: registry.usage().memoryBytes,
    powerDns: memoryBytes(powerDns.pid).now
  }

  const perSecond = options.rates?.[0] ?? rateByDefault
  const seconds = options.seconds ?? secondsByDefault
  const warmUp = { hosts, perSecond, seconds: Math.min(seconds, warmUpSeconds), from: 0 }
  const { changes: before } = yield* Effect.raceFirst(change(server, warmUp), server.ended)
  yield* Fleet.untilQuiet(registry, true, millisMax.served)
  const generation = Number((yield* registry.run("SELECT MAX(generation) FROM host")).trim())
  const during = yield* Fleet.meter(parts)
  const changed = yield* Effect.raceFirst(change(server, { ...warmUp, seconds, from: before }), server.ended)
  const sending = yield* during
  yield* Fleet.untilQuiet(registry, true, millisMax.served)
  const all = yield* during
  const latencies = { accepted: changed.accepted, ...(yield* outcomes(registry, generation)) }
  yield* progress(
    `${hosts} hosts, ${perSecond} changes/s: p95 ${names.map((name) => `${name} ${Math.round(quantile(latencies[name], 0.95))} ms`).join(", ")}`
  )
  return { hosts, accepted, applied, served, stored, memory, latencies, sending, all, changes: changed.changes }
}, Effect.scoped)

const run = Effect.fnUntraced(function* (options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const folder = yield* temporaryFolder
  const figures: Record<string, Figure> = { zones: figure("1", zones) }
  const ratios: Record<string, number> = {}
  const few = Math.min(fewHosts, hosts)
  for (const size of few === hosts ? [hosts] : [few, hosts]) {
    const own = Path.join(folder, `${size}`)
    Fs.mkdirSync(own)
    const result = yield* measure(own, size, options)
    Fs.rmSync(own, { recursive: true })
    const { accepted, all, applied, changes, latencies, memory, sending, served, stored } = result
    const add = (name: string, unit: Figure["unit"], value: number) =>
      (figures[`${name}_${size}`] = figure(unit, value))
    add("accepted", "s", accepted)
    add("registrations_per_second", "1/s", size / accepted)
    add("applied", "s", applied.seconds)
    add("resolvable_per_second", "1/s", size / applied.seconds)
    add("served", "s", served.seconds)
    add("server_cpu_per_registration", "us", (served.server / size) * 1e6)
    add("postgres_cpu_per_registration", "us", (served.postgres / size) * 1e6)
    add("powerdns_cpu_per_registration", "us", (served.powerDns / size) * 1e6)
    add("wal_bytes_per_registration", "B", served.walBytes / size)
    add("database", "B", stored.database)
    add("database_bytes_per_host", "B", stored.database / size)
    add("powerdns_disk", "B", stored.powerDns)
    add("powerdns_bytes_per_host", "B", stored.powerDns / size)
    add("server_memory", "B", memory.server)
    add("server_memory_peak", "B", memory.serverPeak)
    add("postgres_memory", "B", memory.postgres)
    add("powerdns_memory", "B", memory.powerDns)
    add("changes_per_second", "1/s", changes / sending.seconds)
    for (const name of names) {
      for (const [share, q] of shares) add(`change_${name}_${share}`, "s", quantile(latencies[name], q) / 1000)
    }
    add("server_cpu_per_change", "us", (all.server / changes) * 1e6)
    add("postgres_cpu_per_change", "us", (all.postgres / changes) * 1e6)
    add("powerdns_cpu_per_change", "us", (all.powerDns / changes) * 1e6)
    add("wal_bytes_per_change", "B", all.walBytes / changes)
  }
  const targets: Record<string, Target> = {}
  if (few < hosts) {
    for (const name of names) {
      for (const [share] of shares) {
        const of = (size: number) => figures[`change_${name}_${share}_${size}`]!.value
        ratios[`change_${name}_${share}_${hosts}_over_${few}`] = of(hosts) / of(few)
      }
    }
    const name = `change_served_p95_${hosts}_over_${few}`
    targets[name] = below(growthWanted, ratios[name]!)
  }
  return { figures, ratios, targets }
})

export const million: Benchmark = {
  name: "million",
  description: `N hosts (${hostsByDefault}) in ${zones} zones and PostgreSQL: registered, published, and then ${rateByDefault} changes a second, beside ${fewHosts} hosts.`,
  backends: ["sqlite", "lmdb", "pgsql"],
  run
}
