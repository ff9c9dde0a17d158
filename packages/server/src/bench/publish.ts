/**
 * How fast changed record sets of hosts that are known already come into
 * PowerDNS, for zones of several sizes, beside the same PATCHes sent to the
 * same server by nothing but a loop.
 *
 * The hosts are moved by writing straight into the registry of a running
 * server, as one transaction, with marks that are parked and then released by
 * the API: registering is measured elsewhere. What counts is the time from the
 * end of the first batch to the end of the last one, by Prism's own clock:
 * everything between them, and not how the first one came to begin.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import {
  atLeast,
  type Backend,
  backends,
  type Benchmark,
  BenchFailed,
  failed,
  figure,
  type Figure,
  median,
  type Options,
  type Target
} from "./Benchmark.ts"
import * as LargeZone from "./LargeZone.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder, timed } from "./Workspace.ts"

const sizesByDefault = [1000, 100_000, 1_000_000]
/** What each of both is measured for in a round, at least. */
const secondsByDefault = 2

/** Names in a PATCH, of both: fewer than Prism takes by default, so that a small zone has several. */
const batchMax = 500
/** Names that are marked at once, if the zone has so many. */
const burstMax = 10_000
/** Until a burst is published; until the name servers were seen to answer with it. */
const millisMax = { published: 120_000, served: 120_000 }

/** How PowerDNS is expected to do without us; prism_over_bare is to be this at least. */
const shareWanted = 0.7
/** The rate in the largest zone over that in the smallest, beside the same of the yardstick. */
const flatnessWanted = 0.8

/** Spreads consecutive numbers over the zone; each of them once, since the sizes have no factor in common with it. */
const spread = 7919

/** Turns through the zone's names, a different address at each turn. */
const makeMoves = (size: number) => {
  let next = 0
  return (count: number): ReadonlyArray<Move> =>
    Array.from({ length: count }, () => {
      const turn = Math.floor(next / size)
      const host = (next++ * spread) % size
      return { host, address: `10.${turn & 255}.${(host >> 8) & 255}.${host & 255}` }
    })
}

interface Move {
  readonly host: number
  readonly address: string
}

/** Moves hosts and marks their names, in one transaction, parked; gives its generation. */
const makeMover = (db: DatabaseSync) => {
  const generation = db.prepare("UPDATE registry_generation SET value = value + 1 RETURNING value")
  const host = db.prepare("UPDATE host SET addresses = ?, generation = ? WHERE fqdn = ?")
  const address = db.prepare(
    "UPDATE host_address SET address = ?, since = ? WHERE host_id = (SELECT id FROM host WHERE fqdn = ?)"
  )
  const mark = db.prepare(
    `INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at, parked_at, parked_reason)
      VALUES (?, ?, ?, 'registered', 0, ?, ?, 'not yet')`
  )
  return (moves: ReadonlyArray<Move>): number => {
    const nowMillis = Date.now()
    db.exec("BEGIN IMMEDIATE")
    const value = Number(generation.get()!["value"])
    for (const move of moves) {
      const name = LargeZone.fqdn(move.host)
      host.run(JSON.stringify([move.address]), value, name)
      address.run(move.address, nowMillis, name)
      mark.run(`${Servers.zone}.`, name, value, nowMillis, nowMillis)
    }
    db.exec("COMMIT")
    // What we wrote is not for the server to move from the log into the database.
    db.exec("PRAGMA wal_checkpoint(PASSIVE)")
    return value
  }
}

const waitUntil = (what: string, done: () => boolean, millis: number) =>
  Effect.try({ try: done, catch: failed("the registry") }).pipe(
    Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: (isDone) => isDone }),
    Effect.timeoutOrElse({
      duration: millis,
      orElse: () => Effect.fail(new BenchFailed({ detail: `${what} within ${millis / 1000} s` }))
    })
  )

interface Leg {
  readonly rrsets: number
  readonly seconds: number
}

/** Marks bursts and waits for them until enough full batches were measured. */
const prism = Effect.fnUntraced(function* (
  server: Servers.Prism,
  powerDns: Servers.PowerDns,
  db: DatabaseSync,
  moves: (count: number) => ReadonlyArray<Move>,
  options: { readonly size: number; readonly seconds: number }
) {
  const move = makeMover(db)
  const waiting = db.prepare("SELECT EXISTS (SELECT 1 FROM outbox WHERE parked_at IS NULL) AS waits")
  const parked = db.prepare("SELECT parked_reason FROM outbox WHERE parked_at IS NOT NULL LIMIT 1")
  const unserved = db.prepare("SELECT EXISTS (SELECT 1 FROM unserved) AS waits")
  const publishedAt = db.prepare("SELECT published_at FROM published WHERE zone = ? AND name = ? AND generation = ?")
  const cpu = () => ({ server: cpuSeconds(server.pid) ?? Number.NaN, powerDns: cpuSeconds(powerDns.pid) ?? Number.NaN })

  let rrsets = 0
  let seconds = 0
  let all = 0
  const used = { server: 0, powerDns: 0 }
  const servedAfter: Array<number> = []
  while (seconds < options.seconds) {
    // Whole batches: a last one that is not full makes the writer rest.
    const burst = moves(Math.floor(Math.min(options.size, burstMax) / batchMax) * batchMax)
    const before = cpu()
    const generation = move(burst)
    yield* Servers.post(server, "/publications/retry")
    yield* waitUntil("a burst was not published", () => waiting.get()!["waits"] === 0, millisMax.published).pipe(
      Effect.raceFirst(server.ended)
    )
    const refused = parked.get()
    if (refused !== undefined) {
      return yield* new BenchFailed({ detail: `a name was parked: ${String(refused["parked_reason"])}` })
    }
    const ends = burst
      .map(({ host }) => publishedAt.get(`${Servers.zone}.`, LargeZone.fqdn(host), generation)?.["published_at"])
      .map(Number)
    const [first, last] = [Math.min(...ends), Math.max(...ends)]
    if (!Number.isFinite(first) || first === last) {
      return yield* new BenchFailed({ detail: "a burst was not published batch by batch" })
    }
    yield* waitUntil("a burst was not served", () => unserved.get()!["waits"] === 0, millisMax.served)
    const after = cpu()
    servedAfter.push(Math.max(0, Date.now() - last) / 1000)
    used.server += after.server - before.server
    used.powerDns += after.powerDns - before.powerDns
    all += burst.length
    rrsets += ends.filter((end) => end > first).length
    seconds += (last - first) / 1000
  }
  return {
    rrsets,
    seconds,
    servedAfter: median(servedAfter),
    serverCpu: used.server / all,
    powerDnsCpu: used.powerDns / all
  }
})

/** One PATCH by `node:http`; PowerDNS closes each connection. */
const patch = (powerDns: Servers.PowerDns, moves: ReadonlyArray<Move>): Promise<void> =>
  new Promise((resolve, reject) => {
    const body = JSON.stringify({
      rrsets: moves.map(({ address, host }) => ({
        name: LargeZone.fqdn(host),
        type: "A",
        ttl: Servers.ttlSeconds,
        changetype: "REPLACE",
        records: [{ content: address, disabled: false }]
      }))
    })
    const request = Http.request(
      `${powerDns.url}/api/v1/servers/localhost/zones/${Servers.zone}.`,
      {
        method: "PATCH",
        agent: false,
        headers: {
          "x-api-key": Servers.apiKey,
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body)
        }
      },
      (response) => {
        response.resume()
        response.once("end", () =>
          response.statusCode === 204 ? resolve() : reject(new Error(`PATCH: ${response.statusCode}`))
        )
      }
    )
    request.once("error", reject)
    request.end(body)
  })

/** The same PATCHes, one after another. */
const bare = Effect.fnUntraced(function* (
  powerDns: Servers.PowerDns,
  moves: (count: number) => ReadonlyArray<Move>,
  seconds: number
) {
  let rrsets = 0
  const startMillis = performance.now()
  const elapsed = () => (performance.now() - startMillis) / 1000
  while (elapsed() < seconds) {
    const batch = moves(batchMax)
    yield* Effect.tryPromise({ try: () => patch(powerDns, batch), catch: failed("PowerDNS") })
    rrsets += batch.length
  }
  return { rrsets, seconds: elapsed() } satisfies Leg
})

const rate = ({ rrsets, seconds }: Leg): number => rrsets / seconds

const measure = Effect.fnUntraced(function* (
  folder: string,
  template: string,
  backend: Backend,
  size: number,
  options: Options
) {
  const database = yield* Servers.storage(backend)
  const filled = yield* timed(LargeZone.prepare({ folder, backend: database, size, template }))
  yield* progress(`${backend}, ${size} names: filled in ${filled.toFixed(1)} s`)
  const powerDns = yield* Servers.powerDns(folder, database)
  const server = yield* Servers.prism({ folder, powerDns, profile: options.profile, batchMax, ...LargeZone.quiet })
  const db = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new DatabaseSync(server.registry, { timeout: 10_000 }),
      catch: failed("the registry cannot be opened")
    }),
    (db) => Effect.sync(() => db.close())
  )
  const moves = makeMoves(size)
  const seconds = options.seconds ?? secondsByDefault
  const prismLeg = (seconds: number) => prism(server, powerDns, db, moves, { size, seconds })
  const bareLeg = (seconds: number) => bare(powerDns, moves, seconds)

  // What is cold at first is neither's everyday.
  yield* prismLeg(seconds / 4)
  yield* bareLeg(seconds / 4)
  return yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      // In turn first, so that what changes with time favours neither.
      const early = round % 2 === 0 ? yield* bareLeg(seconds) : undefined
      const ours = yield* prismLeg(seconds)
      const theirs = early ?? (yield* bareLeg(seconds))
      yield* progress(
        `${backend}, ${size} names, round ${round} of ${options.rounds}: ${Math.round(rate(ours))}/s, bare PATCHes ${Math.round(rate(theirs))}/s`
      )
      return { ours, theirs }
    })
  )
}, Effect.scoped)

type Rounds = Effect.Success<ReturnType<typeof measure>>

const run = Effect.fnUntraced(function* (options: Options) {
  const sizes = [...(options.sizes ?? sizesByDefault)].sort((a, b) => a - b)
  for (const size of sizes) {
    if (size < 2 * batchMax) return yield* new BenchFailed({ detail: `zones of ${2 * batchMax} names at least` })
  }
  const chosen = options.backends ?? backends
  const folder = yield* temporaryFolder
  const measured = new Map<string, Rounds>()
  for (const size of sizes) {
    const template = Path.join(folder, `registry-${size}`)
    for (const backend of chosen) {
      const own = Path.join(folder, `${backend}-${size}`)
      Fs.mkdirSync(own)
      measured.set(`${backend}_${size}`, yield* measure(own, template, backend, size, options))
      Fs.rmSync(own, { recursive: true })
    }
    Fs.rmSync(template)
  }

  const figures: Record<string, Figure> = { rrsets_in_a_patch: figure("1", batchMax) }
  const ratios: Record<string, number> = {}
  const targets: Record<string, Target> = {}
  for (const [name, rounds] of measured) {
    const over = (unit: Figure["unit"], f: (round: Rounds[number]) => number) => figure(unit, rounds.map(f))
    figures[`prism_${name}`] = over("1/s", ({ ours }) => rate(ours))
    figures[`bare_${name}`] = over("1/s", ({ theirs }) => rate(theirs))
    figures[`prism_server_cpu_${name}`] = over("us", ({ ours }) => ours.serverCpu * 1e6)
    figures[`prism_powerdns_cpu_${name}`] = over("us", ({ ours }) => ours.powerDnsCpu * 1e6)
    figures[`prism_served_after_${name}`] = over("s", ({ ours }) => ours.servedAfter)
    const ratio = median(rounds.map(({ ours, theirs }) => rate(ours) / rate(theirs)))
    ratios[`prism_over_bare_${name}`] = ratio
    targets[`prism_over_bare_${name}`] = atLeast(shareWanted, ratio)
  }
  const [smallest, largest] = [sizes[0]!, sizes.at(-1)!]
  if (smallest < largest) {
    for (const backend of chosen) {
      const flatness = (who: string) =>
        figures[`${who}_${backend}_${largest}`]!.value / figures[`${who}_${backend}_${smallest}`]!.value
      ratios[`prism_${backend}_${largest}_over_${smallest}`] = flatness("prism")
      ratios[`bare_${backend}_${largest}_over_${smallest}`] = flatness("bare")
      const name = `prism_flatness_over_bare_${backend}`
      ratios[name] = flatness("prism") / flatness("bare")
      targets[name] = atLeast(flatnessWanted, ratios[name])
    }
  }
  return { figures, ratios, targets }
})

export const publish: Benchmark = {
  name: "publish",
  description: `Changed record sets a second into zones of ${sizesByDefault.join(", ")} names, beside bare PATCHes, on each backend.`,
  backends,
  run
}
