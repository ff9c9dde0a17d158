/**
 * What it costs to compare a whole zone with what PowerDNS holds: first one that
 * is in step, then one that somebody has changed behind our back.
 *
 * A `prism-dns serve` as in production is asked for a plan by its API. Beside
 * it, in the same run, reading alone: the zone's export by a bare client, and
 * the hosts by a bare SELECT. That nothing was written is told by PowerDNS: each
 * write raises the zone's serial.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as BareParts from "./BareParts.ts"
import {
  type Backend,
  backendOf,
  backends,
  below,
  type Benchmark,
  BenchFailed,
  failed,
  type Figure,
  figure,
  type Options,
  type Target
} from "./Benchmark.ts"
import * as LargeZone from "./LargeZone.ts"
import * as Servers from "./Servers.ts"
import { memoryBytes, progress, resetPeak, temporaryFolder, timed } from "./Workspace.ts"

const sizesByDefault = [100_000, 1_000_000]

/** For a zone of 100,000 names; a larger one only has to be bounded. */
const wanted = { names: 100_000, seconds: 10, bytes: 300e6 }

/** Names changed by hand: of each three one has another address, one is deleted, one gets a record of another type. */
const driftMax = 1000
/** Comparisons one right after the other, with the garbage of each left to the collector: how far memory goes then. */
const inARow = 5
const repairMillisMax = 120_000

interface PlanMade {
  readonly id: string
  readonly counts: { readonly changes: number; readonly names: number }
}

const makePlan = (server: Servers.Prism) =>
  Servers.post<PlanMade>(server, `/zones/${Servers.zone}/plans`).pipe(Effect.raceFirst(server.ended))

/** Reads the export to its end; its bytes. */
const readExport = (powerDns: Servers.PowerDns): Effect.Effect<number, BenchFailed> =>
  Effect.callback((resume) => {
    const fail = (detail: string) => resume(Effect.fail(new BenchFailed({ detail: `PowerDNS's export: ${detail}` })))
    const request = Http.get(
      `${powerDns.url}/api/v1/servers/localhost/zones/${Servers.zone}./export`,
      { agent: false, headers: { "x-api-key": Servers.apiKey } },
      (response) => {
        let bytes = 0
        response.on("data", (chunk: Buffer) => (bytes += chunk.length))
        response.once("error", (error) => fail(error.message))
        response.once("end", () =>
          response.statusCode === 200 ? resume(Effect.succeed(bytes)) : fail(`${response.statusCode}`)
        )
      }
    )
    request.once("error", (error) => fail(error.message))
    return Effect.sync(() => request.destroy())
  })

/** Reads all hosts, row by row. */
const readHosts = (file: string): Effect.Effect<number, BenchFailed> =>
  Effect.try({
    try: () => {
      using db = new DatabaseSync(file, { readOnly: true })
      const rows = db
        .prepare("SELECT fqdn, addresses FROM host WHERE zone = ? ORDER BY fqdn")
        .iterate(`${Servers.zone}.`)
      let count = 0
      for (const _ of rows) count += 1
      return count
    },
    catch: failed("the registry cannot be read")
  })

const serialOf = (powerDns: Servers.PowerDns) =>
  Effect.map(LargeZone.zoneInfo(powerDns, Servers.zone), (zone) => zone?.serial ?? Number.NaN)

/** Changes records by PowerDNS's own API; gives how many names then differ. */
const drift = Effect.fnUntraced(function* (powerDns: Servers.PowerDns, size: number) {
  const names = Math.min(driftMax, Math.floor(size / 100))
  const step = Math.floor(size / names)
  const rrsets = Array.from({ length: names }, (_, i) => {
    const name = LargeZone.fqdn(i * step)
    const record = (type: string, content: string) => ({
      name,
      type,
      ttl: Servers.ttlSeconds,
      changetype: "REPLACE",
      records: [{ content, disabled: false }]
    })
    if (i % 3 === 0) return record("A", "192.0.2.1")
    if (i % 3 === 1) return { name, type: "A", changetype: "DELETE" }
    return record("AAAA", "2001:db8::1")
  })
  yield* BareParts.patchRRsets(powerDns, Servers.zone, rrsets)
  return names
})

const measure = Effect.fnUntraced(function* (folder: string, backend: Backend, size: number, options: Options) {
  const storage = yield* Servers.storage(backend)
  const filled = yield* timed(
    LargeZone.prepare({ folder, backend: storage, size, template: Path.join(folder, "template") })
  )
  yield* progress(`${size} names: filled in ${filled.toFixed(1)} s`)
  const powerDns = yield* Servers.powerDns(folder, storage)
  const server = yield* Servers.prism({ folder, powerDns, profile: options.profile, ...LargeZone.quiet })
  const idle = yield* server.memory
  const serial = yield* serialOf(powerDns)

  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const bareExport = yield* timed(readExport(powerDns))
      const bareSelect = yield* timed(readHosts(server.registry))
      // Between two scheduled ones there is time to collect garbage.
      yield* server.memory
      const rssBefore = memoryBytes(server.pid).now
      resetPeak(server.pid)
      const startMillis = performance.now()
      const plan = yield* makePlan(server)
      const seconds = (performance.now() - startMillis) / 1000
      if (plan.counts.changes > 0) {
        return yield* new BenchFailed({ detail: `a plan of ${plan.counts.changes} changes for a zone in step` })
      }
      const { peak } = memoryBytes(server.pid)
      yield* progress(
        `${size} names, round ${round} of ${options.rounds}: ${seconds.toFixed(2)} s, ${Math.round(peak / 1e6)} MB; reading alone ${(bareExport + bareSelect).toFixed(2)} s`
      )
      return { seconds, peak, growth: peak - rssBefore, bareExport, bareSelect }
    })
  )
  const writes = (yield* serialOf(powerDns)) - serial
  const kept = yield* server.memory
  resetPeak(server.pid)
  yield* Effect.replicateEffect(makePlan(server), inARow, { discard: true })
  const inARowPeak = memoryBytes(server.pid).peak

  const drifted = yield* drift(powerDns, size)
  resetPeak(server.pid)
  let plan: PlanMade | undefined
  const planned = yield* timed(Effect.tap(makePlan(server), (made) => Effect.sync(() => (plan = made))))
  const driftPeak = memoryBytes(server.pid).peak
  if (plan?.counts.names !== drifted) {
    return yield* new BenchFailed({
      detail: `${drifted} names were changed by hand, the plan has ${plan?.counts.names}`
    })
  }
  const db = yield* Effect.acquireRelease(
    Effect.try({ try: () => new DatabaseSync(server.registry, { readOnly: true }), catch: failed("the registry") }),
    (db) => Effect.sync(() => db.close())
  )
  const waits = db.prepare("SELECT EXISTS (SELECT 1 FROM outbox) AS waits")
  const applied = yield* timed(
    Effect.andThen(
      Servers.post(server, `/plans/${plan.id}/apply`),
      Effect.sync(() => waits.get()!["waits"] === 0).pipe(
        Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: (done) => done }),
        Effect.timeout(repairMillisMax),
        Effect.mapError(failed("the plan was not published"))
      )
    )
  )
  const left = yield* makePlan(server)
  if (left.counts.changes > 0) {
    return yield* new BenchFailed({ detail: `${left.counts.changes} changes are left after the plan was applied` })
  }
  yield* progress(`${size} names, ${drifted} of them changed by hand: plan ${planned.toFixed(2)} s`)
  return {
    rounds,
    idle,
    kept,
    inARowPeak,
    writes,
    drifted,
    planned,
    applied,
    driftPeak,
    powerDnsPeak: memoryBytes(powerDns.pid).peak
  }
}, Effect.scoped)

const run = Effect.fnUntraced(function* (options: Options) {
  const folder = yield* temporaryFolder
  const figures: Record<string, Figure> = {}
  const ratios: Record<string, number> = {}
  const targets: Record<string, Target> = {}
  for (const size of options.sizes ?? sizesByDefault) {
    const own = Path.join(folder, `${size}`)
    Fs.mkdirSync(own)
    const result = yield* measure(own, backendOf(options), size, options)
    Fs.rmSync(own, { recursive: true })
    const over = (unit: Figure["unit"], f: (round: (typeof result.rounds)[number]) => number) =>
      figure(unit, result.rounds.map(f))
    figures[`prism_${size}`] = over("s", ({ seconds }) => seconds)
    figures[`bare_export_${size}`] = over("s", ({ bareExport }) => bareExport)
    figures[`bare_select_${size}`] = over("s", ({ bareSelect }) => bareSelect)
    figures[`rss_idle_${size}`] = figure("B", result.idle.rss)
    figures[`heap_idle_${size}`] = figure("B", result.idle.heapUsed)
    figures[`heap_kept_${size}`] = figure("B", result.kept.heapUsed)
    figures[`rss_kept_${size}`] = figure("B", result.kept.rss)
    figures[`rss_peak_${size}`] = figure("B", Math.max(...result.rounds.map(({ peak }) => peak)))
    figures[`rss_peak_in_a_row_${size}`] = figure("B", result.inARowPeak)
    figures[`rss_growth_${size}`] = over("B", ({ growth }) => growth)
    figures[`powerdns_rss_peak_${size}`] = figure("B", result.powerDnsPeak)
    figures[`writes_${size}`] = figure("1", result.writes)
    figures[`drift_names_${size}`] = figure("1", result.drifted)
    figures[`drift_plan_${size}`] = figure("s", result.planned)
    figures[`drift_rss_peak_${size}`] = figure("B", result.driftPeak)
    figures[`drift_applied_${size}`] = figure("s", result.applied)
    ratios[`prism_over_reading_${size}`] =
      figures[`prism_${size}`]!.value / (figures[`bare_export_${size}`]!.value + figures[`bare_select_${size}`]!.value)
    targets[`writes_${size}`] = below(1, result.writes)
    if (size <= wanted.names) {
      targets[`prism_${size}`] = below(wanted.seconds, figures[`prism_${size}`]!.value)
      targets[`rss_peak_${size}`] = below(wanted.bytes, figures[`rss_peak_${size}`]!.value)
    }
  }
  return { figures, ratios, targets }
})

export const reconcile: Benchmark = {
  name: "reconcile",
  description: `Zones of ${sizesByDefault.join(" and ")} names are compared with what PowerDNS holds: time and memory, in step and after changes by hand.`,
  backends,
  run
}
