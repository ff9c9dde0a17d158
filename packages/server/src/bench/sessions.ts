/**
 * Idle sessions of protocol 2.0: the memory of the server for each beyond that
 * of a bare socket, and how long it takes until all are welcomed.
 *
 * A session has proved its key, registered one host, and is silent. The bare
 * server, `node:net` or with `--tls` `node:tls`, has had the same frames. As
 * many server processes as the limit of open files asks for share the
 * sessions, each with a registry and a PowerDNS of its own: on a machine that
 * allows enough of them it is one.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { backendOf, below, BenchFailed, type Benchmark, figure, type Options, type Target } from "./Benchmark.ts"
import * as Certificate from "./Certificate.ts"
import * as Load from "./Load.ts"
import type { Job } from "./LoadGenerator.ts"
import * as Machine from "./Machine.ts"
import { addIdentities, untilQuiet } from "./RegistryFile.ts"
import * as Servers from "./Servers.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const sizesByDefault = [10_000, 50_000]
/** Larger ones are measured once, whatever the number of rounds. */
const repeatedMax = 10_000
/** Opened, registered and closed beforehand, so that what a server needs once is not counted. */
const warmUp = 500
const warmUpFirst = 1_000_000
const atOnceMax = 200
/** Open files of a server that are no sessions. */
const filesReserved = 512
const publishedMillisMax = 600_000
/** Connections of a server that are not ours: to PowerDNS. */
const othersMax = 50

/** What a session may cost beyond its socket. */
const bytesAboveBareMax = 8 * 1024

/** One server process and who sends to it. */
interface Station {
  readonly server: Servers.Server
  readonly load: Load.Load
  /** Its sessions are those of hosts `first` and on. */
  readonly first: number
  readonly sessions: number
  /** Makes the keys of hosts known. */
  readonly enrol: (publicKeys: ReadonlyArray<string>, first: number) => Effect.Effect<void, BenchFailed>
  /** Waits until nothing of what was registered is under way any more. */
  readonly quiet: Effect.Effect<void, BenchFailed>
}

interface Measured {
  readonly rss: number
  readonly heapUsed: number
  readonly welcomedSeconds: number
  readonly registeredSeconds: number
}

/** `sessions` spread over as few processes as can hold them, as evenly as can be. */
const spread = (sessions: number, perProcessMax: number) => {
  const processes = Math.ceil(sessions / perProcessMax)
  const startOf = (i: number) => Math.floor((i * sessions) / processes)
  return Array.from({ length: processes }, (_, i) => ({ first: startOf(i), sessions: startOf(i + 1) - startOf(i) }))
}

const forAll = <A>(stations: ReadonlyArray<Station>, f: (station: Station) => Effect.Effect<A, BenchFailed>) =>
  Effect.forEach(stations, f, { concurrency: "unbounded" })

/** Memory of all processes together. */
const memory = (stations: ReadonlyArray<Station>, holds: (sockets: number, station: Station) => boolean) =>
  Effect.map(
    // One after another: a collection of one must not wait for that of another.
    Effect.forEach(stations, (station) => Servers.settledMemory(station.server, (sockets) => holds(sockets, station))),
    (each) => ({
      rss: each.reduce((sum, { rss }) => sum + rss, 0),
      heapUsed: each.reduce((sum, { heapUsed }) => sum + heapUsed, 0)
    })
  )

/** How sessions of one kind of server begin. */
interface Entry {
  readonly bare: boolean
  readonly tls: { readonly authority: string } | undefined
}

const measure = Effect.fnUntraced(function* (stations: ReadonlyArray<Station>, { bare, tls }: Entry) {
  const open = ({ load, server }: Station, first: number, hosts: number) =>
    load.perform({
      _tag: "Open",
      target: { port: server.port, tls, atOnceMax },
      first,
      hosts,
      as: bare ? "bare" : "key"
    })
  const register: Job = { _tag: "Register", atOnceMax, bare }

  const enrol = ({ enrol, load }: Station, first: number, hosts: number) =>
    Effect.flatMap(load.perform({ _tag: "Keys", first, hosts }), ({ publicKeys = [] }) => enrol(publicKeys, first))

  if (!bare) {
    yield* forAll(stations, (station) =>
      Effect.andThen(enrol(station, station.first, station.sessions), enrol(station, warmUpFirst, warmUp))
    )
  }
  yield* forAll(stations, (station) =>
    open(station, warmUpFirst, warmUp).pipe(
      Effect.andThen(station.load.perform(register)),
      Effect.andThen(station.quiet),
      Effect.andThen(station.load.perform({ _tag: "Close" }))
    )
  )
  const before = yield* memory(stations, (sockets) => sockets < othersMax)

  const opened = yield* forAll(stations, (station) => open(station, station.first, station.sessions))
  const registered = yield* forAll(stations, ({ load }) => load.perform(register))
  yield* forAll(stations, ({ quiet }) => quiet)
  const after = yield* memory(stations, (sockets, { sessions }) => sockets >= sessions)

  const sessions = stations.reduce((sum, station) => sum + station.sessions, 0)
  const measured: Measured = {
    rss: (after.rss - before.rss) / sessions,
    heapUsed: (after.heapUsed - before.heapUsed) / sessions,
    welcomedSeconds: Math.max(...opened.map(({ seconds }) => seconds)),
    registeredSeconds: Math.max(...registered.map(({ seconds }) => seconds))
  }
  return measured
})

const subfolder = (parent: string, name: string): string => {
  const folder = Path.join(parent, name)
  Fs.mkdirSync(folder, { recursive: true })
  return folder
}

const run = Effect.fnUntraced(function* (options: Options) {
  const sizes = options.sizes ?? (options.hosts === undefined ? sizesByDefault : [options.hosts])
  const perProcessMax = Machine.openFilesMax() - filesReserved
  if (perProcessMax < 1) return yield* new BenchFailed({ detail: "too few open files are allowed" })
  const folder = yield* temporaryFolder
  const certificate = options.tls ? yield* Certificate.make(folder) : undefined
  const tls = certificate === undefined ? undefined : { authority: certificate.certificate }

  const prism = Effect.fnUntraced(function* (own: string, sessions: number) {
    const stations = yield* Effect.forEach(
      spread(sessions, perProcessMax),
      Effect.fnUntraced(function* (part, i) {
        const below = subfolder(own, `prism-${i}`)
        const powerDns = yield* Servers.powerDns(below, backendOf(options))
        const server = yield* Servers.prism({
          folder: below,
          powerDns,
          profile: options.profile,
          zones: Servers.forwardOnly,
          tcp: { connectionsMax: part.sessions + warmUp },
          more: {
            // They are silent for longer than agents are.
            leases: { beatInterval: "1h" },
            ...(certificate !== undefined && { tls: Servers.tls(certificate) })
          }
        })
        const load = yield* Load.start(below, "load")
        const quiet = untilQuiet(server.registry, { served: true, millisMax: publishedMillisMax })
        const port = certificate === undefined ? server.port : server.tlsPort
        const enrol: Station["enrol"] = (keys, first) => addIdentities(server.registry, keys, first)
        const station: Station = { ...part, server: { ...server, port }, load, enrol, quiet }
        return station
      })
    )
    return yield* measure(stations, { bare: false, tls })
  }, Effect.scoped)

  const bare = Effect.fnUntraced(function* (own: string, sessions: number) {
    const stations = yield* Effect.forEach(
      spread(sessions, perProcessMax),
      Effect.fnUntraced(function* (part, i) {
        const below = subfolder(own, `bare-${i}`)
        const server = yield* Servers.bare(below, certificate === undefined ? {} : { tls: certificate })
        const load = yield* Load.start(below, "load")
        const station: Station = { ...part, server, load, enrol: () => Effect.void, quiet: Effect.void }
        return station
      })
    )
    return yield* measure(stations, { bare: true, tls })
  }, Effect.scoped)

  const measured = yield* Effect.forEach(
    sizes,
    Effect.fnUntraced(function* (size) {
      const rounds = size > repeatedMax ? 1 : options.rounds
      return {
        size,
        rounds: yield* Effect.forEach(
          Array.from({ length: rounds }, (_, i) => i + 1),
          Effect.fnUntraced(function* (round) {
            const own = subfolder(folder, `${size}-${round}`)
            const pair = { prism: yield* prism(own, size), bare: yield* bare(own, size) }
            yield* progress(
              `${size} sessions, round ${round} of ${rounds}: ${Math.round(pair.prism.rss)} B, bare ${Math.round(pair.bare.rss)} B`
            )
            return pair
          })
        )
      }
    })
  )

  const suffix = options.tls ? "_tls" : ""
  const each = measured.map(({ rounds, size }) => {
    type Pair = (typeof rounds)[number]
    const over = (unit: "B" | "s", f: (pair: Pair) => number) => figure(unit, rounds.map(f))
    const name = `${size}${suffix}`
    const aboveBare = over("B", ({ bare, prism }) => prism.rss - bare.rss)
    return {
      figures: {
        [`sessions_per_process_${name}`]: figure(
          "1",
          Math.max(...spread(size, perProcessMax).map(({ sessions }) => sessions))
        ),
        [`processes_${name}`]: figure("1", spread(size, perProcessMax).length),
        [`prism_rss_${name}`]: over("B", ({ prism }) => prism.rss),
        [`bare_rss_${name}`]: over("B", ({ bare }) => bare.rss),
        [`rss_above_bare_${name}`]: aboveBare,
        [`prism_heap_${name}`]: over("B", ({ prism }) => prism.heapUsed),
        [`bare_heap_${name}`]: over("B", ({ bare }) => bare.heapUsed),
        [`prism_welcomed_${name}`]: over("s", ({ prism }) => prism.welcomedSeconds),
        [`bare_welcomed_${name}`]: over("s", ({ bare }) => bare.welcomedSeconds),
        [`prism_registered_${name}`]: over("s", ({ prism }) => prism.registeredSeconds)
      },
      target: [`rss_above_bare_${name}`, below(bytesAboveBareMax, aboveBare.value)] satisfies [string, Target]
    }
  })
  return {
    figures: Object.assign({}, ...each.map(({ figures }) => figures)) as (typeof each)[number]["figures"],
    ratios: {},
    targets: Object.fromEntries(each.map(({ target }) => target))
  }
})

export const sessions: Benchmark = {
  name: "sessions",
  description: `N idle sessions of protocol 2.0 (${sizesByDefault.join(" and ")}): the memory of the server for each; with --tls over TLS 1.3.`,
  backends: ["sqlite", "lmdb"],
  run
}
