/**
 * Two servers on one PostgreSQL beside one, on the same machine: registrations,
 * heartbeats and reads of the API that they do in a second, and what each costs
 * in processor time.
 *
 * All of it runs on the cores of one machine, with the database, PowerDNS and
 * whoever asks, so that two servers cannot do twice as much here as one whose
 * work already takes what is there: what a registration, a heartbeat or a read
 * costs with two beside what it costs with one is what says how it grows.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import {
  backendOf,
  below,
  type Benchmark,
  BenchFailed,
  type Figure,
  figure,
  median,
  type Options,
  type Target
} from "./Benchmark.ts"
import * as Fleet from "./Fleet.ts"
import * as HttpAsker from "./HttpAsker.ts"
import * as Load from "./Load.ts"
import * as Postgres from "./Postgres.ts"
import * as Servers from "./Servers.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const hostsByDefault = 10_000
const secondsByDefault = 4
const zones = 8
/** Sessions in all, whatever the number of servers. */
const sessions = 500
const inFlight = 8
const atOnceMax = 100
const connections = 32
/** Hosts of sessions have numbers that no others have. */
const firstSession = 500_000
/** Of each server, before anything is counted: two have twice as much code to compile. */
const warm = { hosts: 2000, firstHost: 900_000, beatMillis: 2000, readMillis: 4000 }
const millisMax = 300_000
const wantedCost = 1.3

const sum = (values: ReadonlyArray<number>): number => values.reduce((a, b) => a + b, 0)

/** A part of `count` for each server, as even as it goes. */
const parts = (count: number, servers: number): ReadonlyArray<number> =>
  Array.from({ length: servers }, (_, i) => Math.floor((count * (i + 1)) / servers) - Math.floor((count * i) / servers))

const measure = Effect.fnUntraced(function* (folder: string, count: number, options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const seconds = options.seconds ?? secondsByDefault
  const registry = yield* Postgres.forManyHosts
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const settings = Fleet.settings(zones)
  const servers: Array<Servers.Prism> = []
  for (let i = 0; i < count; i++) {
    const own = Path.join(folder, `server-${i}`)
    Fs.mkdirSync(own)
    servers.push(
      yield* Servers.prism({
        folder: own,
        instance: `bench-${i}`,
        powerDns,
        storage: registry.url,
        profile: options.profile,
        // Sessions of protocol 2 register in the first zone.
        ...settings
      })
    )
    // The first one makes tables and zones.
    if (i === 0) yield* Fleet.untilZonesMade(registry, zones)
  }
  const ended = Effect.raceAllFirst(servers.map((server) => server.ended))
  const all = { servers, registry, powerDns }

  const warmHosts = Math.min(hosts, warm.hosts)
  yield* Effect.raceFirst(
    Effect.forEach(
      servers,
      (server, i) => Fleet.registerAll(server, warm.firstHost + i * warmHosts, warmHosts, zones),
      { concurrency: "unbounded" }
    ),
    ended
  )
  yield* Effect.raceFirst(Fleet.untilQuiet(registry, true, millisMax), ended)

  // Durable registrations: each server is sent its part.
  const shares = parts(hosts, count)
  const registering = yield* Fleet.meter(all)
  yield* Effect.raceFirst(
    Effect.forEach(servers, (server, i) => Fleet.registerAll(server, sum(shares.slice(0, i)), shares[i]!, zones), {
      concurrency: "unbounded"
    }),
    ended
  )
  const accepted = yield* registering
  yield* Effect.raceFirst(Fleet.untilQuiet(registry, true, millisMax), ended)
  const served = yield* registering
  const stored = Number((yield* registry.run("SELECT COUNT(*) FROM host")).trim())
  const expected = hosts + count * warmHosts
  if (stored !== expected) {
    return yield* new BenchFailed({ detail: `the registry has ${stored} hosts, not ${expected}` })
  }

  // Heartbeats: sessions that stay open, shared among the servers.
  const loads = yield* Effect.forEach(servers, (_, i) => Load.start(folder, `load-${i}`))
  const opened = parts(sessions, count)
  yield* Effect.forEach(
    loads,
    (load, i) =>
      Effect.andThen(
        load.perform({
          _tag: "Open",
          target: { port: servers[i]!.port, tls: undefined, atOnceMax },
          first: firstSession + sum(opened.slice(0, i)),
          hosts: opened[i]!,
          as: { token: Servers.token }
        }),
        load.perform({ _tag: "Register", atOnceMax, bare: false })
      ),
    { concurrency: "unbounded" }
  )
  yield* Effect.raceFirst(Fleet.untilQuiet(registry, true, millisMax), ended)
  const beat = (millis: number) =>
    Effect.forEach(loads, (load) => load.perform({ _tag: "Beat", inFlight, millis }), { concurrency: "unbounded" })
  yield* beat(warm.beatMillis)
  const beating = yield* Fleet.meter(all)
  const beaten = yield* Effect.raceFirst(beat(seconds * 1000), ended)
  const beats = { ...(yield* beating), count: sum(beaten.map(({ count }) => count)) }
  for (const load of loads) yield* load.perform({ _tag: "Close" })

  // Reads of one host by the API, over kept connections to each server.
  const askers = yield* Effect.forEach(servers, (_, i) => HttpAsker.start(folder, `ask-${i}`))
  const asked = parts(connections, count)
  const read = (millis: number) =>
    Effect.forEach(
      askers,
      (ask, i) =>
        ask({
          port: Number(new URL(servers[i]!.httpUrl).port),
          request: HttpAsker.get(`/v1/hosts/${Fleet.fqdn(i, zones)}`, Servers.adminToken),
          connections: asked[i]!,
          millis
        }),
      { concurrency: "unbounded" }
    )
  yield* read(warm.readMillis)
  const reading = yield* Fleet.meter(all)
  const answers = yield* Effect.raceFirst(read(seconds * 1000), ended)
  const reads = { ...(yield* reading), count: sum(answers.map(({ requests }) => requests)) }
  const others = sum(answers.map(({ others }) => others))
  if (others > 0) return yield* new BenchFailed({ detail: `${others} answers were not 200` })

  const registrations = { ...served, seconds: accepted.seconds, count: hosts }
  const rates = { registrations, beats, reads }
  yield* progress(
    `${count} server(s): ${Object.entries(rates)
      .map(([name, { count, seconds }]) => `${Math.round(count / seconds)} ${name}/s`)
      .join(", ")}`
  )
  return rates
}, Effect.scoped)

const run = Effect.fnUntraced(function* (options: Options) {
  const folder = yield* temporaryFolder
  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i),
    Effect.fnUntraced(function* (round) {
      const take = (count: number) => {
        const own = Path.join(folder, `${round}-${count}`)
        Fs.mkdirSync(own)
        return measure(own, count, options)
      }
      // In turn first.
      const early = round % 2 === 1 ? yield* take(2) : undefined
      const one = yield* take(1)
      return { one, two: early ?? (yield* take(2)) }
    })
  )
  const figures: Record<string, Figure> = {
    zones: figure("1", zones),
    hosts: figure("1", options.hosts ?? hostsByDefault),
    sessions: figure("1", sessions)
  }
  const ratios: Record<string, number> = {}
  const targets: Record<string, Target> = {}
  for (const name of ["registrations", "beats", "reads"] as const) {
    const rate = (of: "one" | "two") => rounds.map((round) => round[of][name].count / round[of][name].seconds)
    const cost = (of: "one" | "two", part: "server" | "postgres" | "powerDns") =>
      rounds.map((round) => (round[of][name][part] / round[of][name].count) * 1e6)
    for (const [of, number] of [
      ["one", 1],
      ["two", 2]
    ] as const) {
      figures[`${name}_per_second_${number}`] = figure("1/s", rate(of))
      figures[`${name}_server_cpu_${number}`] = figure("us", cost(of, "server"))
      figures[`${name}_postgres_cpu_${number}`] = figure("us", cost(of, "postgres"))
      if (name === "registrations") figures[`${name}_powerdns_cpu_${number}`] = figure("us", cost(of, "powerDns"))
    }
    const [rateOne, rateTwo] = [rate("one"), rate("two")]
    ratios[`${name}_per_second_2_over_1`] = median(rateTwo.map((value, i) => value / rateOne[i]!))
    const [server, postgres] = ["server", "postgres"] as const
    const whole = (of: "one" | "two") => cost(of, server).map((value, i) => value + cost(of, postgres)[i]!)
    const costRatio = `${name}_cpu_2_over_1`
    ratios[costRatio] = median(whole("two").map((value, i) => value / whole("one")[i]!))
    targets[costRatio] = below(wantedCost, ratios[costRatio])
  }
  return { figures, ratios, targets }
})

export const cluster: Benchmark = {
  name: "cluster",
  description: `Two servers on one PostgreSQL beside one, ${zones} zones: registrations, heartbeats and reads a second, and what each costs.`,
  backends: ["sqlite", "lmdb", "pgsql"],
  run
}
