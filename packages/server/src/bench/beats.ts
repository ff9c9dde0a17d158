/**
 * Heartbeats of protocol 2.0 on sessions that stay open: how many a second one
 * core of the server takes, and what one costs it. Beside it, in the same run
 * and on the same core, a `node:net` loop that reads the same frames and
 * answers each with a fixed one of the same size.
 */
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { atLeast, backendOf, below, type Benchmark, figure, median, type Options } from "./Benchmark.ts"
import * as Load from "./Load.ts"
import * as Machine from "./Machine.ts"
import { countingCommits, untilQuiet } from "./RegistryFile.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder } from "./Workspace.ts"

const sessionsByDefault = 1000
const secondsByDefault = 3
/** So long before the first round: what counts is code that has been compiled. */
const warmUpMillis = 3000
/** Beats of one session that are unanswered at once: agents have one; more shows what is left when the sockets cost less. */
const inFlights = [1, 8] as const
const atOnceMax = 200
const publishedMillisMax = 120_000

/** Of what stays in the database when beats write nothing: a flush of all times seen every ten seconds. */
const commitsPerBeatMax = 0.001

/** Of what the bare loop does. */
const wantOverBare = 0.7

interface Station {
  readonly server: Servers.Server
  readonly load: Load.Load
}

const open = Effect.fnUntraced(function* ({ load, server }: Station, sessions: number, bare: boolean) {
  const target = { port: server.port, tls: undefined, atOnceMax }
  yield* load.perform({
    _tag: "Open",
    target,
    first: 0,
    hosts: sessions,
    as: bare ? "bare" : { token: Servers.token }
  })
  yield* load.perform({ _tag: "Register", atOnceMax, bare })
})

/** Beats for `millis`: their number, how many a second, and the server's processor time: for each, and of all time. */
const beat = Effect.fnUntraced(function* ({ load, server }: Station, inFlight: number, millis: number) {
  const cpuBefore = cpuSeconds(server.pid) ?? Number.NaN
  const { count, seconds } = yield* load.perform({ _tag: "Beat", inFlight, millis })
  const cpu = (cpuSeconds(server.pid) ?? Number.NaN) - cpuBefore
  return { count, perSecond: count / seconds, cpuMicros: (cpu / count) * 1e6, busy: cpu / seconds }
})

const run = Effect.fnUntraced(function* (options: Options) {
  const sessions = options.hosts ?? sessionsByDefault
  const millis = (options.seconds ?? secondsByDefault) * 1000
  const cores = Machine.pinnedCores()
  const folder = yield* temporaryFolder
  const bareFolder = Path.join(folder, "bare")
  Fs.mkdirSync(bareFolder)

  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const server = yield* Servers.prism({
    folder,
    powerDns,
    profile: options.profile,
    zones: Servers.forwardOnly,
    tcp: { connectionsMax: sessions + 100 },
    core: cores?.server
  })
  const prism = { server, load: yield* Load.start(folder, "load-prism", cores?.load) }
  const bare = {
    server: yield* Servers.bare(bareFolder, {
      answer: MessageV2.encodeText({ type: "beat", id: 10_000_000 }),
      core: cores?.server
    }),
    load: yield* Load.start(folder, "load-bare", cores?.load)
  }
  yield* open(prism, sessions, false)
  yield* open(bare, sessions, true)
  yield* untilQuiet(server.registry, { served: true, millisMax: publishedMillisMax })
  yield* progress(`${sessions} sessions are open on each`)
  for (const station of [prism, bare]) yield* beat(station, inFlights[0], warmUpMillis)

  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    (round) =>
      Effect.forEach(
        inFlights,
        Effect.fnUntraced(function* (inFlight) {
          const { commits, value } = yield* countingCommits(server.registry, beat(prism, inFlight, millis))
          const yardstick = yield* beat(bare, inFlight, millis)
          yield* progress(
            `round ${round} of ${options.rounds}, ${inFlight} in flight: ${Math.round(value.perSecond)} beats/s, bare ${Math.round(yardstick.perSecond)}/s`
          )
          return { inFlight, commits, prism: value, bare: yardstick }
        })
      )
  )

  type Pair = (typeof rounds)[number][number]
  const of = (inFlight: number) => rounds.flat().filter((pair) => pair.inFlight === inFlight)
  const figuresOf = (inFlight: number, suffix: string) => {
    const pairs = of(inFlight)
    const over = (unit: "1/s" | "us" | "1", f: (pair: Pair) => number) => figure(unit, pairs.map(f))
    return {
      [`prism_beats${suffix}`]: over("1/s", ({ prism }) => prism.perSecond),
      [`bare_beats${suffix}`]: over("1/s", ({ bare }) => bare.perSecond),
      [`prism_beat_cpu${suffix}`]: over("us", ({ prism }) => prism.cpuMicros),
      [`bare_beat_cpu${suffix}`]: over("us", ({ bare }) => bare.cpuMicros),
      [`prism_core_busy${suffix}`]: over("1", ({ prism }) => prism.busy),
      [`bare_core_busy${suffix}`]: over("1", ({ bare }) => bare.busy)
    }
  }
  const ratiosOf = (inFlight: number, suffix: string) => ({
    [`prism_over_bare${suffix}`]: median(of(inFlight).map(({ bare, prism }) => prism.perSecond / bare.perSecond)),
    [`prism_over_bare_by_cpu${suffix}`]: median(of(inFlight).map(({ bare, prism }) => bare.cpuMicros / prism.cpuMicros))
  })
  const beats = rounds.flat().reduce((sum, { prism }) => sum + prism.count, 0)
  const commits = rounds.flat().reduce((sum, pair) => sum + pair.commits, 0)
  const ratios: Record<string, number> = {
    ...ratiosOf(1, ""),
    ...ratiosOf(8, "_8_in_flight"),
    database_commits_per_beat: commits / beats
  }
  return {
    figures: {
      sessions: figure("1", sessions),
      ...(cores !== undefined && { server_core: figure("1", cores.server), load_core: figure("1", cores.load) }),
      ...figuresOf(1, ""),
      ...figuresOf(8, "_8_in_flight"),
      beats: figure("1", beats),
      database_commits: figure("1", commits)
    },
    ratios,
    targets: {
      // Both: whoever sends may not keep the bare server's core busy, which flatters the first; the second has no such help.
      prism_over_bare: atLeast(wantOverBare, ratios["prism_over_bare"]!),
      prism_over_bare_by_cpu: atLeast(wantOverBare, ratios["prism_over_bare_by_cpu"]!),
      database_commits_per_beat: below(commitsPerBeatMax, ratios["database_commits_per_beat"]!)
    }
  }
})

export const beats: Benchmark = {
  name: "beats",
  description: `Heartbeats of protocol 2.0 on N sessions (${sessionsByDefault}), one in flight on each, on one core of the server.`,
  backends: ["sqlite", "lmdb"],
  run
}
