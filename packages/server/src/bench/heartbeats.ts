/**
 * Beats of known hosts that change nothing: how many a second, what one costs
 * the server, and whether the database is left alone. Beside it a `node:net`
 * loop that reads and answers the same frames.
 */
import { Effect } from "effect"
import * as Path from "node:path"
import * as Fs from "node:fs"
import * as Agents from "./Agents.ts"
import { backendOf, below, type Benchmark, figure, median, type Options } from "./Benchmark.ts"
import { countingCommits } from "./RegistryFile.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder, timed } from "./Workspace.ts"

const hostsByDefault = 200
const inFlight = 8
const beatMillis = 2000
/** Beats that come on a connection of their own, in each round. */
const connectionBeats = 4000
const atOnceMax = 50

const cpuOf = (pid: number) => cpuSeconds(pid) ?? Number.NaN

/** Runs `beats`, which gives their number, and adds what a beat took. */
const rate = <E, R>(server: Servers.Server, beats: Effect.Effect<number, E, R>) =>
  Effect.gen(function* () {
    const cpuBefore = cpuOf(server.pid)
    let count = 0
    const seconds = yield* timed(Effect.map(beats, (n) => (count = n)))
    return { count, perSecond: count / seconds, cpuMicros: ((cpuOf(server.pid) - cpuBefore) / count) * 1e6 }
  })

/** One round against one server: on open connections, then with a connection for each beat. */
const beatsOf = Effect.fnUntraced(function* (server: Servers.Server, hosts: number) {
  const open = yield* Effect.scoped(
    Effect.gen(function* () {
      const sockets = yield* Agents.connectEach({ port: server.port, hosts, atOnceMax })
      return yield* rate(server, Agents.beat({ sockets, inFlight, millis: beatMillis }))
    })
  )
  const each = yield* rate(
    server,
    Effect.as(
      Agents.sendEach({
        port: server.port,
        frames: Agents.frames(hosts),
        connections: connectionBeats,
        atOnceMax,
        awaitAnswer: true
      }),
      connectionBeats
    )
  )
  return { open, each }
})

const run = Effect.fnUntraced(function* (options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const folder = yield* temporaryFolder
  const bareFolder = Path.join(folder, "bare")
  Fs.mkdirSync(bareFolder)

  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const prism = yield* Servers.prism({ folder, powerDns, profile: options.profile })
  const bare = yield* Servers.bare(bareFolder)
  // Answered at `applied`: when this ends, they are known and published.
  yield* Agents.sendEach({ port: prism.port, frames: Agents.frames(hosts), atOnceMax: hosts, awaitAnswer: true })
  yield* progress(`${hosts} hosts are registered`)

  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const { commits, value } = yield* countingCommits(prism.registry, beatsOf(prism, hosts))
      const yardstick = yield* beatsOf(bare, hosts)
      yield* progress(
        `round ${round} of ${options.rounds}: ${Math.round(value.open.perSecond)} beats/s, bare ${Math.round(yardstick.open.perSecond)}/s`
      )
      return { commits, prism: value, bare: yardstick }
    })
  )
  const over = (f: (round: (typeof rounds)[number]) => number) => rounds.map(f)

  const beats = over(({ prism }) => prism.open.count + prism.each.count).reduce((a, b) => a + b, 0)
  const commits = over(({ commits }) => commits).reduce((a, b) => a + b, 0)
  const bareOver = (kind: "open" | "each") =>
    median(over(({ bare, prism }) => bare[kind].perSecond / prism[kind].perSecond))
  return {
    figures: {
      hosts: figure("1", hosts),
      in_flight: figure("1", inFlight),
      prism_beats: figure(
        "1/s",
        over(({ prism }) => prism.open.perSecond)
      ),
      bare_beats: figure(
        "1/s",
        over(({ bare }) => bare.open.perSecond)
      ),
      prism_beat_cpu: figure(
        "us",
        over(({ prism }) => prism.open.cpuMicros)
      ),
      bare_beat_cpu: figure(
        "us",
        over(({ bare }) => bare.open.cpuMicros)
      ),
      prism_connection_per_beat: figure(
        "1/s",
        over(({ prism }) => prism.each.perSecond)
      ),
      bare_connection_per_beat: figure(
        "1/s",
        over(({ bare }) => bare.each.perSecond)
      ),
      prism_connection_per_beat_cpu: figure(
        "us",
        over(({ prism }) => prism.each.cpuMicros)
      ),
      bare_connection_per_beat_cpu: figure(
        "us",
        over(({ bare }) => bare.each.cpuMicros)
      ),
      beats: figure("1", beats),
      database_commits: figure("1", commits),
      database_commits_per_beat: figure("1", commits / beats)
    },
    ratios: {
      bare_over_prism: bareOver("open"),
      bare_over_prism_connection_per_beat: bareOver("each"),
      database_commits_per_beat: commits / beats
    },
    targets: {
      // A flush of all times seen every ten seconds, whatever the number of beats.
      database_commits_per_beat: below(0.001, commits / beats)
    }
  }
})

export const heartbeats: Benchmark = {
  name: "heartbeats",
  description: `N known hosts (${hostsByDefault}) beat and change nothing: on open connections with ${inFlight} beats in flight, and with a connection for each.`,
  backends: ["sqlite", "lmdb"],
  run
}
