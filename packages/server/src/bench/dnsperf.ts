/**
 * How many questions a second are answered while records change: by PowerDNS
 * with the settings that Prism gives it, by PowerDNS as it comes, and by NSD.
 *
 * A PATCH empties the zone's caches, so that it is their number that counts and
 * not what is in them. Prism itself publishes: a server as in production, moved
 * hosts by its API, few in a call. Beside it the same changes come by nothing but
 * a loop, gathered ten times a second, to both settings; and, to PowerDNS as it
 * comes, one PATCH for each. NSD has no API: its zone file is written anew, and
 * read by it, once a second. Each is also asked while nothing changes.
 *
 * `dnsperf` asks for names that are there, each as likely as another, on the
 * cores on which all the rest runs; processor time for each answer says more
 * than their number.
 */
import { Effect } from "effect"
import { spawn as spawnProcess } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Agents from "./Agents.ts"
import * as BareParts from "./BareParts.ts"
import {
  atLeast,
  type Backend,
  type Benchmark,
  BenchFailed,
  type Figure,
  figure,
  median,
  type Options,
  type Target
} from "./Benchmark.ts"
import * as LargeZone from "./LargeZone.ts"
import { searchPath } from "./Machine.ts"
import * as Nsd from "./Nsd.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, cpuSecondsOfAll, progress, temporaryFolder } from "./Workspace.ts"

const namesByDefault = 10_000
const rateByDefault = 500
const secondsByDefault = 5
const backendsByDefault: ReadonlyArray<Backend> = ["lmdb", "sqlite"]
/** PATCHes a second of the loop that gathers. */
const gathered = 10
const callMillis = 20
const wanted = 50_000

/** Questions in the file, which is read again and again. */
const questionsMax = 200_000
/** As many clients as a few resolvers, one thread, and so many questions unanswered. */
const load = ["-c", "16", "-T", "1", "-q", "200"]
const lostShareMax = 0.01

/**
 * Settings as Debian's package has them where they matter here: none. What stands in ours for the sake of speed is taken
 * back to PowerDNS's own default.
 */
const stock: Readonly<Record<string, string>> = {
  "default-api-rectify": "yes",
  "receiver-threads": "1",
  "distributor-threads": "3",
  reuseport: "no"
}

interface Asked {
  readonly perSecond: number
  readonly lostShare: number
  /** Seconds, on average. */
  readonly latency: number
  /** Of the server for each answer, in seconds, with what it does for changes. */
  readonly cpu: number
}

const writeQuestions = (file: string, names: number): void => {
  let state = 42
  const lines = Array.from({ length: questionsMax }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return `${Agents.hostname(Math.floor((state / 2 ** 32) * names))}.${Servers.zone} A\n`
  })
  Fs.writeFileSync(file, lines.join(""))
}

/** Runs `dnsperf` and reads what it says. */
const ask = Effect.fnUntraced(function* (dns: Servers.Endpoint, questions: string, seconds: number, cpu: () => number) {
  const before = cpu()
  const text = yield* Effect.callback<string, BenchFailed>((resume) => {
    const args = ["-s", dns.host, "-p", `${dns.port}`, "-d", questions, "-l", `${seconds}`, ...load]
    const child = spawnProcess("dnsperf", args, {
      env: { ...process.env, PATH: searchPath },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.once("error", (error) => resume(Effect.fail(new BenchFailed({ detail: `dnsperf: ${error.message}` }))))
    child.once("close", () => resume(Effect.succeed(output)))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })
  const used = cpu() - before
  const read = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? Number.NaN)
  const sent = read(/Queries sent:\s+(\d+)/)
  const completed = read(/Queries completed:\s+(\d+)/)
  const right = read(/NOERROR (\d+)/)
  const asked: Asked = {
    perSecond: read(/Queries per second:\s+([\d.]+)/),
    lostShare: (sent - completed) / sent,
    latency: read(/Average Latency \(s\):\s+([\d.]+)/),
    cpu: used / completed
  }
  if (right !== completed || !(asked.lostShare < lostShareMax)) {
    return yield* new BenchFailed({ detail: `dnsperf was not answered as it should be: ${text.slice(-1500)}` })
  }
  return asked
})

/** Names in turn, each with an address it did not have; consecutive ones are far apart. */
const makeMoves = (names: number) => {
  let next = 0
  return {
    take: (count: number) =>
      Array.from({ length: count }, () => {
        const turn = 1 + Math.floor(next / names)
        const host = (next++ * 7919) % names
        return { host, address: `10.${turn & 255}.${(host >> 8) & 255}.${host & 255}` }
      }),
    taken: () => next
  }
}
type Moves = ReturnType<typeof makeMoves>

/**
 * Does `work` so often with as many changes as are due since the last time, until it is interrupted; what could not be
 * done in time is done together, or not at all when it is more than a second's.
 */
const evenly = <E, R>(
  perSecond: number,
  rate: number,
  work: (changes: number) => Effect.Effect<unknown, E, R>
): Effect.Effect<never, E, R> =>
  Effect.suspend(() => {
    const startMillis = performance.now()
    let last = startMillis
    let sent = 0
    return Effect.sleep(1).pipe(
      Effect.andThen(
        Effect.suspend(() => {
          const now = performance.now()
          sent = Math.max(sent, ((now - startMillis) / 1000) * rate - rate)
          const changes = Math.round(((now - startMillis) / 1000) * rate - sent)
          if (changes < 1 || now - last < 1000 / perSecond - 1) return Effect.void
          last = now
          sent += changes
          return work(changes)
        })
      ),
      Effect.forever
    )
  })

const rrset = ({ address, host }: { readonly address: string; readonly host: number }) => ({
  name: LargeZone.fqdn(host),
  type: "A",
  ttl: Servers.ttlSeconds,
  changetype: "REPLACE",
  records: [{ content: address, disabled: false }]
})

/** The loop that changes records by itself, in `perSecond` PATCHes a second, or in one for each. */
const patching = (powerDns: Servers.PowerDns, moves: Moves, rate: number, perSecond: number | "each") =>
  perSecond === "each"
    ? evenly(rate, rate, (changes) => BareParts.patchRRsets(powerDns, Servers.zone, moves.take(changes).map(rrset), 1))
    : evenly(perSecond, rate, (changes) =>
        BareParts.patchRRsets(powerDns, Servers.zone, moves.take(changes).map(rrset))
      )

/** Hosts that are moved by the API, a few in a call. */
const moving = (server: Servers.Prism, moves: Moves, rate: number) =>
  evenly(1000 / callMillis, rate, (changes) =>
    Servers.post(server, "/hosts:batch", {
      items: moves.take(changes).map(({ address, host }) => ({
        op: "register",
        hostname: LargeZone.fqdn(host),
        addresses: [address]
      })),
      waitFor: "accepted"
    })
  )

/** Asks while `changes` goes on; a failure of that is one of all. */
const during = <A, E>(changes: Effect.Effect<never, E>, asking: Effect.Effect<A, BenchFailed>) =>
  Effect.raceFirst(changes, asking)

/** A second: a server that cannot do more has fewer changes than are wanted, and is asked under a lighter load. */
interface Written {
  readonly patches: number
  readonly changes: number
}

interface Station {
  readonly name: string
  readonly asked: Array<Asked>
  /** PATCHes and changes a second. */
  readonly written: Array<Written>
  readonly take: Effect.Effect<{ readonly asked: Asked; readonly written?: Written }, BenchFailed>
}

const quietServer = {
  zones: [{ name: Servers.zone, networks: ["127.0.0.0/8", "10.0.0.0/8"], reconcileInterval: "30d" }],
  more: {
    ...LargeZone.quiet.more,
    http: { port: 0, rateLimit: { changes: { ratePerSecond: 1_000_000, burst: 10_000_000 } } }
  }
}

/** One PowerDNS with its own settings and one as it comes, both with the same names. */
const stationsOf = Effect.fnUntraced(function* (
  folder: string,
  backend: Backend,
  names: number,
  questions: string,
  options: Options
) {
  const rate = options.rates?.[0] ?? rateByDefault
  const seconds = options.seconds ?? secondsByDefault
  const records = Array.from({ length: names }, (_, host) => ({ host, address: Agents.address(host) }))
  const fill = (powerDns: Servers.PowerDns) => BareParts.patchRRsets(powerDns, Servers.zone, records.map(rrset))
  const cpuOf = (pid: number) => () => cpuSeconds(pid) ?? Number.NaN
  const serial = (powerDns: Servers.PowerDns) =>
    Effect.map(LargeZone.zoneInfo(powerDns, Servers.zone), (zone) => zone?.serial ?? Number.NaN)

  // Prism's, filled by Prism.
  const own = Path.join(folder, "prism")
  Fs.mkdirSync(own)
  const powerDns = yield* Servers.powerDns(own, backend)
  const server = yield* Servers.prism({ folder: own, powerDns, profile: options.profile, ...quietServer })
  for (let from = 0; from < names; from += 5000) {
    yield* Servers.post(server, "/hosts:batch", {
      items: records.slice(from, from + 5000).map(({ address, host }) => ({
        op: "register",
        hostname: LargeZone.fqdn(host),
        addresses: [address]
      })),
      waitFor: "applied",
      waitSeconds: 60
    })
  }
  // The same settings, and a loop; then those of PowerDNS itself.
  const looped = yield* Servers.powerDns(folder, backend, { name: "looped" })
  const asItComes = yield* Servers.powerDns(folder, backend, { name: "stock", extra: stock })
  for (const each of [looped, asItComes]) {
    yield* BareParts.createZones(each)
    yield* fill(each)
  }
  const moves = { prism: makeMoves(names), looped: makeMoves(names), stock: makeMoves(names) }
  const asking = (each: Servers.PowerDns) => ask(each.dns, questions, seconds, cpuOf(each.pid))
  const counting = (each: Servers.PowerDns, moves: Moves, asked: Effect.Effect<Asked, BenchFailed>) =>
    Effect.gen(function* () {
      const before = yield* serial(each)
      const taken = moves.taken()
      const startMillis = performance.now()
      const result = yield* asked
      const seconds = (performance.now() - startMillis) / 1000
      const written = {
        patches: ((yield* serial(each)) - before) / seconds,
        changes: (moves.taken() - taken) / seconds
      }
      return { asked: result, written }
    })
  const station = (name: string, take: Station["take"]): Station => ({
    name: `${name}_${backend}`,
    asked: [],
    written: [],
    take
  })
  return [
    station(
      "prism_publishes",
      counting(
        powerDns,
        moves.prism,
        during(moving(server, moves.prism, rate), Effect.raceFirst(asking(powerDns), server.ended))
      )
    ),
    station(
      "prism_settings_looped",
      counting(looped, moves.looped, during(patching(looped, moves.looped, rate, gathered), asking(looped)))
    ),
    station(
      "stock_looped",
      counting(asItComes, moves.stock, during(patching(asItComes, moves.stock, rate, gathered), asking(asItComes)))
    ),
    station(
      "stock_patch_each",
      counting(asItComes, moves.stock, during(patching(asItComes, moves.stock, rate, "each"), asking(asItComes)))
    ),
    station(
      "prism_settings_still",
      Effect.map(asking(looped), (asked) => ({ asked }))
    ),
    station(
      "stock_still",
      Effect.map(asking(asItComes), (asked) => ({ asked }))
    )
  ]
})

const nsdStations = Effect.fnUntraced(function* (folder: string, names: number, questions: string, options: Options) {
  const rate = options.rates?.[0] ?? rateByDefault
  const seconds = options.seconds ?? secondsByDefault
  const nsd = yield* Nsd.start(folder, names)
  const moves = makeMoves(names)
  const asking = ask(nsd.dns, questions, seconds, () => cpuSecondsOfAll(nsd.pid))
  const station = (name: string, take: Station["take"]): Station => ({ name, asked: [], written: [], take })
  return [
    station(
      "nsd_reloaded",
      Effect.map(
        during(
          evenly(1, rate, (changes) => nsd.change(moves.take(changes))),
          asking
        ),
        (asked) => ({ asked })
      )
    ),
    station(
      "nsd_still",
      Effect.map(asking, (asked) => ({ asked }))
    )
  ]
})

const run = Effect.fnUntraced(function* (options: Options) {
  const names = options.hosts ?? namesByDefault
  const folder = yield* temporaryFolder
  const questions = Path.join(folder, "questions")
  writeQuestions(questions, names)
  const chosen = options.backends ?? backendsByDefault
  const stations: Array<Station> = []
  for (const backend of chosen) {
    const own = Path.join(folder, backend)
    Fs.mkdirSync(own)
    stations.push(...(yield* stationsOf(own, backend, names, questions, options)))
  }
  stations.push(...(yield* nsdStations(folder, names, questions, options)))

  for (let round = 1; round <= options.rounds; round++) {
    // In turn, so that whatever else this machine does falls on all of them.
    for (const { asked, name, take, written } of stations) {
      const result = yield* take
      asked.push(result.asked)
      if (result.written !== undefined) written.push(result.written)
      yield* progress(
        `round ${round} of ${options.rounds}: ${name} ${Math.round(result.asked.perSecond)}/s, ${(result.asked.cpu * 1e6).toFixed(1)} µs each${result.written === undefined ? "" : `, ${result.written.patches.toFixed(1)} PATCHes/s, ${Math.round(result.written.changes)} changes/s`}`
      )
    }
  }

  const figures: Record<string, Figure> = {
    names: figure("1", names),
    changes_per_second: figure("1/s", options.rates?.[0] ?? rateByDefault)
  }
  const ratios: Record<string, number> = {}
  const targets: Record<string, Target> = {}
  for (const { asked, name, written } of stations) {
    const over = (unit: Figure["unit"], f: (each: Asked) => number) => figure(unit, asked.map(f))
    figures[name] = over("1/s", ({ perSecond }) => perSecond)
    figures[`${name}_cpu`] = over("us", ({ cpu }) => cpu * 1e6)
    figures[`${name}_latency`] = over("s", ({ latency }) => latency)
    if (written.length === 0) continue
    figures[`${name}_patches`] = figure(
      "1/s",
      written.map(({ patches }) => patches)
    )
    figures[`${name}_changes`] = figure(
      "1/s",
      written.map(({ changes }) => changes)
    )
  }
  const ratio = (name: string, one: string, other: string) => {
    const of = (name: string) => stations.find((each) => each.name === name)!.asked
    ratios[name] = median(of(one).map(({ perSecond }, i) => perSecond / of(other)[i]!.perSecond))
  }
  for (const backend of chosen) {
    ratio(`prism_over_stock_looped_${backend}`, `prism_publishes_${backend}`, `stock_looped_${backend}`)
    ratio(`prism_over_stock_patch_each_${backend}`, `prism_publishes_${backend}`, `stock_patch_each_${backend}`)
    ratio(`settings_over_stock_looped_${backend}`, `prism_settings_looped_${backend}`, `stock_looped_${backend}`)
    ratio(`settings_over_stock_still_${backend}`, `prism_settings_still_${backend}`, `stock_still_${backend}`)
    ratio(`prism_over_nsd_reloaded_${backend}`, `prism_publishes_${backend}`, "nsd_reloaded")
    const name = `prism_publishes_${backend}`
    targets[name] = atLeast(wanted, figures[name]!.value)
  }
  return { figures, ratios, targets }
})

export const dnsperf: Benchmark = {
  name: "dnsperf",
  description: `Questions a second of PowerDNS as we set it up, as it comes, and of NSD, while ${rateByDefault} changes a second are published.`,
  backends: ["sqlite", "lmdb", "pgsql"],
  run
}
