/**
 * How long a change takes from being accepted to being applied and served,
 * while changes come at an even rate, with several name servers.
 *
 * A `prism-dns serve` as in production, two PowerDNS on one database, and then
 * the same with a secondary that fetches by AXFR; all with the caches they come
 * with. Half of the changes are hosts that nobody knows, half are known ones
 * that move, each with its name and its pointer. They are sent when they are
 * due, whatever has become of those before, so that waiting is not left out.
 *
 * The times are those that Prism itself writes down for each name, in
 * milliseconds: accepted (`host_history`), applied and served (`published`).
 * Protocol 1.0 answers at `applied` at the latest, so `served` cannot be seen by
 * the one who asked; but afterwards every node is asked for every name, and each
 * answer has to be right at once. A change counts as what its later name is.
 * Beside it: how long a bare PATCH takes, of one name and of a hundred.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Agents from "./Agents.ts"
import * as BareParts from "./BareParts.ts"
import {
  backendOf,
  below,
  type Benchmark,
  BenchFailed,
  failed,
  type Figure,
  figure,
  median,
  type Options,
  quantile,
  type Target
} from "./Benchmark.ts"
import * as LargeZone from "./LargeZone.ts"
import * as Resolution from "./Resolution.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder, timed } from "./Workspace.ts"

const hostsByDefault = 10_000
const ratesByDefault = [100, 500]
const secondsByDefault = 20
/** Sent before anything is measured, at the highest rate. */
const warmUpSeconds = 5
/** Until all that was sent is served. */
const servedMillisMax = 120_000

/** How often each bare PATCH is measured. */
const bareTimes = 20

/** Seconds. */
const wanted = { applied: 0.25, served: 1 }

/** A move takes a host this far away in the range of addresses that are set aside. */
const moveBy = 1 << 19

/** One change and what it is to lead to. */
interface Change extends Agents.Due {
  readonly hostname: string
}

const pointer = (address: string): string => `${address.split(".").toReversed().join(".")}.in-addr.arpa`

/** Hosts that are new and hosts that move, in turn; each only once. */
const makeChanges = (known: number) => {
  let moved = 0
  let added = 0
  return (count: number): ReadonlyArray<Change> =>
    Array.from({ length: count }, (_, i): Change => {
      const isMove = i % 2 === 0 && moved < known
      const host = isMove ? moved++ : known + added++
      return {
        hostname: Agents.hostname(host),
        address: Agents.address(isMove ? host + moveBy : host),
        frame: Agents.frame(host)
      }
    })
}

interface Outcome {
  readonly dueMillis: number
  readonly answeredMillis: number
  readonly acceptedMillis: number
  readonly appliedMillis: number
  readonly servedMillis: number
}

/** What Prism wrote down of each change. */
const readOutcomes = (
  db: DatabaseSync,
  changes: ReadonlyArray<Change>,
  answers: ReadonlyArray<{ readonly dueMillis: number; readonly answeredMillis: number }>
) =>
  Effect.try({
    try: () => {
      const accepted = db.prepare(
        "SELECT valid_from FROM host_history WHERE valid_to IS NULL AND host_id = (SELECT id FROM host WHERE fqdn = ?)"
      )
      const published = db.prepare("SELECT published_at, served_at FROM published WHERE zone = ? AND name = ?")
      return changes.map(({ address, hostname }, i): Outcome => {
        const places = [
          published.get(`${Servers.zone}.`, `${hostname}.${Servers.zone}.`),
          published.get(`${Servers.reverseZone}.`, `${pointer(address)}.`)
        ]
        const latest = (column: string) => Math.max(...places.map((row) => Number(row?.[column] ?? Number.NaN)))
        return {
          ...answers[i]!,
          acceptedMillis: Number(accepted.get(`${hostname}.${Servers.zone}.`)?.["valid_from"]),
          appliedMillis: latest("published_at"),
          servedMillis: latest("served_at")
        }
      })
    },
    catch: failed("the registry cannot be read")
  })

const awaitServed = (server: Servers.Prism, db: DatabaseSync) => {
  const waits = db.prepare(
    "SELECT EXISTS (SELECT 1 FROM outbox WHERE parked_at IS NULL) OR EXISTS (SELECT 1 FROM unserved) AS waits"
  )
  return Effect.try({ try: () => waits.get()!["waits"] === 0, catch: failed("the registry") }).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (done) => done }),
    Effect.timeoutOrElse({
      duration: servedMillisMax,
      orElse: () =>
        Effect.fail(new BenchFailed({ detail: `the changes were not served within ${servedMillisMax / 1000} s` }))
    }),
    Effect.raceFirst(server.ended)
  )
}

/** Everything for one set of name servers. */
const measure = Effect.fnUntraced(function* (
  folder: string,
  withSecondary: boolean,
  known: number,
  rates: ReadonlyArray<number>,
  options: Options
) {
  const storage = yield* Servers.storage(backendOf(options))
  const first = yield* Servers.powerDns(folder, storage, { extra: { primary: "yes" } })
  const shared: Record<string, string> =
    storage._tag === "Sqlite" ? { "gsqlite3-database": Path.join(folder, "powerdns", "pdns.sqlite3") } : {}
  const second = yield* Servers.powerDns(folder, storage, { name: "second", extra: { ...shared, primary: "yes" } })
  const secondary = withSecondary
    ? yield* Servers.powerDns(folder, "sqlite", { name: "secondary", extra: { secondary: "yes" } })
    : undefined
  const nodes = [
    Servers.node("second", "primary", second),
    ...(secondary === undefined ? [] : [Servers.node("secondary", "secondary", secondary)])
  ]
  const settings = { folder, powerDns: first, nodes, more: LargeZone.quiet.more }
  yield* LargeZone.make({ ...settings, profile: undefined })
  const names = Array.from({ length: known }, (_, host) => host).map((host) => ({
    forward: { name: `${Agents.hostname(host)}.${Servers.zone}`, type: "A", data: Agents.address(host) } as const,
    reverse: {
      name: pointer(Agents.address(host)),
      type: "PTR",
      data: `${Agents.hostname(host)}.${Servers.zone}`
    } as const
  }))
  yield* BareParts.patch(
    first,
    Servers.zone,
    names.map(({ forward }) => forward)
  )
  yield* BareParts.patch(
    first,
    Servers.reverseZone,
    names.map(({ reverse }) => reverse)
  )
  yield* LargeZone.fillRegistry(Path.join(folder, "prism.db"), known, { reverse: true })

  const server = yield* Servers.prism({ ...settings, profile: options.profile })
  const db = yield* Effect.acquireRelease(
    Effect.try({ try: () => new DatabaseSync(server.registry, { readOnly: true }), catch: failed("the registry") }),
    (db) => Effect.sync(() => db.close())
  )
  const changes = makeChanges(known)
  const send = Effect.fnUntraced(function* (perSecond: number, seconds: number) {
    const all = changes(perSecond * seconds)
    const used = () => ({
      server: cpuSeconds(server.pid) ?? Number.NaN,
      powerDns: [first, second, ...(secondary === undefined ? [] : [secondary])]
        .map(({ pid }) => cpuSeconds(pid) ?? Number.NaN)
        .reduce((a, b) => a + b)
    })
    const before = used()
    const answers = yield* Effect.raceFirst(Agents.sendEvenly({ port: server.port, all, perSecond }), server.ended)
    const after = used()
    yield* awaitServed(server, db)
    return {
      all,
      outcomes: yield* readOutcomes(db, all, answers),
      serverCpu: (after.server - before.server) / seconds,
      powerDnsCpu: (after.powerDns - before.powerDns) / seconds
    }
  })

  // What PowerDNS takes for itself: an own name of nobody, and a hundred of them, while nothing else goes on.
  const alone = yield* Effect.forEach([1, 100], (count) => {
    const rrsets = Array.from({ length: count }, (_, i) => ({
      name: `bare-${i}.${Servers.zone}.`,
      type: "A",
      ttl: Servers.ttlSeconds,
      changetype: "REPLACE",
      records: [{ content: "192.0.2.1", disabled: false }]
    }))
    return Effect.map(
      Effect.replicateEffect(timed(BareParts.patchRRsets(first, Servers.zone, rrsets)), bareTimes),
      (seconds) => ({ count, seconds: median(seconds) })
    )
  })

  const dns = [first, second, ...(secondary === undefined ? [] : [secondary])].map((node) => node.dns)
  yield* send(Math.max(...rates), warmUpSeconds)
  const rounds = yield* Effect.forEach(
    rates,
    Effect.fnUntraced(function* (perSecond) {
      const sent = yield* send(perSecond, options.seconds ?? secondsByDefault)
      const expected = sent.all.map(({ address, hostname }) => ({
        name: `${hostname}.${Servers.zone}`,
        type: "A" as const,
        data: address
      }))
      const wrong = yield* Effect.forEach(dns, (node) => Resolution.awaitAll(node, expected, servedMillisMax))
      const applied = sent.outcomes.map(({ acceptedMillis, appliedMillis }) => appliedMillis - acceptedMillis)
      const served = sent.outcomes.map(({ acceptedMillis, servedMillis }) => servedMillis - acceptedMillis)
      yield* progress(
        `${perSecond} changes/s${withSecondary ? ", with AXFR" : ""}: p99 applied ${quantile(applied, 0.99)} ms, served ${quantile(served, 0.99)} ms`
      )
      return { ...sent, perSecond, wrong: wrong.reduce((a, b) => a + b) }
    })
  )
  return { rounds, alone }
}, Effect.scoped)

const run = Effect.fnUntraced(function* (options: Options) {
  const known = options.hosts ?? hostsByDefault
  const rates = options.rates ?? ratesByDefault
  const folder = yield* temporaryFolder
  const figures: Record<string, Figure> = { hosts_before: figure("1", known) }
  const targets: Record<string, Target> = {}
  for (const withSecondary of [false, true]) {
    const own = Path.join(folder, withSecondary ? "axfr" : "shared")
    Fs.mkdirSync(own)
    const suffix = withSecondary ? "_axfr" : ""
    const { alone, rounds } = yield* measure(own, withSecondary, known, rates, options)
    for (const { count, seconds } of alone) figures[`bare_patch_of_${count}${suffix}`] = figure("s", seconds)
    for (const { outcomes, perSecond, powerDnsCpu, serverCpu, wrong } of rounds) {
      const at = `${perSecond}${suffix}`
      const latencies = {
        applied: outcomes.map((each) => each.appliedMillis - each.acceptedMillis),
        served: outcomes.map((each) => each.servedMillis - each.acceptedMillis),
        due_to_accepted: outcomes.map((each) => each.acceptedMillis - each.dueMillis),
        due_to_answered: outcomes.map((each) => each.answeredMillis - each.dueMillis),
        due_to_served: outcomes.map((each) => each.servedMillis - each.dueMillis)
      }
      for (const [name, all] of Object.entries(latencies)) {
        if (all.some((millis) => !Number.isFinite(millis))) {
          return yield* new BenchFailed({ detail: `${name} is not known of every change at ${at} a second` })
        }
        figures[`${name}_p50_${at}`] = figure("s", quantile(all, 0.5) / 1000)
        figures[`${name}_p99_${at}`] = figure("s", quantile(all, 0.99) / 1000)
      }
      figures[`served_max_${at}`] = figure("s", Math.max(...latencies.served) / 1000)
      figures[`batches_per_second_${at}`] = figure(
        "1/s",
        new Set(outcomes.map((each) => each.appliedMillis)).size / (options.seconds ?? secondsByDefault)
      )
      figures[`server_cpu_${at}`] = figure("1", serverCpu)
      figures[`powerdns_cpu_${at}`] = figure("1", powerDnsCpu)
      figures[`wrong_after_served_${at}`] = figure("1", wrong)
      for (const level of ["applied", "served"] as const) {
        const name = `${level}_p99_${at}`
        targets[name] = below(wanted[level], figures[name]!.value)
      }
    }
    Fs.rmSync(own, { recursive: true })
  }
  return { figures, ratios: {}, targets }
})

export const servedLatency: Benchmark = {
  name: "served-latency",
  description: `From accepted to applied and to served at ${ratesByDefault.join(" and ")} changes a second, on two PowerDNS with one database, and with a secondary beside them.`,
  backends: ["sqlite", "pgsql"],
  run
}
