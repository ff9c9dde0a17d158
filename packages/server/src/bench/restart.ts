/**
 * What a crash of the server is to those who rely on it: N agents of the SDK,
 * each with a key of its own, one `kill -9`, and the server started again a
 * while later on the same port.
 *
 * Every agent is a whole engine, all in this process. While all of that
 * happens, DNS is asked for all names in turn: none may ever be absent. At the
 * end the server itself says how many sessions and hosts it has. How agents
 * come back is shown by the second: a herd would all be there in one.
 */
import { type Registration, register } from "@prism-dns/client-sdk"
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Agents from "./Agents.ts"
import { backendOf, below, type Benchmark, BenchFailed, failed, figure, type Options } from "./Benchmark.ts"
import * as Lookups from "./Lookups.ts"
import * as Servers from "./Servers.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const agentsByDefault = 1000
/** From the kill to the start of the next server. */
const outageSecondsByDefault = 20
/** The server's own default. */
const beatSeconds = 60
/** Agents that register for the first time at once. */
const atOnceMax = 50
const lookupsPerSecond = 500
/** More of all in one second would be a herd. */
const herdShare = 0.2
/** Until all are back; far beyond what is wanted. */
const backSecondsMax = 300

/** What one agent went through, in milliseconds of `performance.now()`. */
interface Events {
  readonly connected: Array<number>
  /** Attempts that failed. */
  readonly failed: Array<number>
}

interface Agent {
  readonly registration: Registration
  readonly events: Events
}

const start = (server: Servers.Prism, folder: string, host: number) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async (): Promise<Agent> => {
        const registration = await register({
          server: `127.0.0.1:${server.port}`,
          hostname: Agents.hostname(host),
          addresses: [Agents.address(host)],
          token: Servers.token,
          stateDir: Path.join(folder, `${host}`),
          waitFor: "served",
          ack: "served",
          logger: {}
        })
        const events: Events = { connected: [], failed: [] }
        registration.on("connected", () => events.connected.push(performance.now()))
        registration.on("disconnected", ({ failures }) => {
          if (failures > 1) events.failed.push(performance.now())
        })
        return { registration, events }
      },
      catch: failed(`the agent of host ${host}`)
    }),
    ({ registration }) => Effect.promise(() => registration.close())
  )

/** The most that fall into any one second. */
const busiestSecond = (millis: ReadonlyArray<number>): number => {
  const sorted = [...millis].sort((a, b) => a - b)
  let most = 0
  let from = 0
  for (const [to, at] of sorted.entries()) {
    while (at - sorted[from]! >= 1000) from += 1
    most = Math.max(most, to - from + 1)
  }
  return most
}

/** `0 12 80 75 …`, for each second from `startMillis` on. */
const bySecond = (millis: ReadonlyArray<number>, startMillis: number): string => {
  const counts: Array<number> = []
  for (const at of millis) {
    const second = Math.floor((at - startMillis) / 1000)
    counts[second] = (counts[second] ?? 0) + 1
  }
  return Array.from(counts, (count) => count ?? 0).join(" ")
}

/** A gauge of the server. */
const gauge = (server: Servers.Prism, line: RegExp) =>
  Effect.tryPromise({
    try: async () => {
      const response = await fetch(`${server.httpUrl}/metrics`, {
        headers: { authorization: `Bearer ${Servers.adminToken}` }
      })
      return Number(line.exec(await response.text())?.[1] ?? Number.NaN)
    },
    catch: failed("the metrics")
  })

const run = Effect.fnUntraced(function* (options: Options) {
  const count = options.hosts ?? agentsByDefault
  const outageSeconds = options.seconds ?? outageSecondsByDefault
  const folder = yield* temporaryFolder
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const prismOptions: Servers.PrismOptions = {
    folder,
    powerDns,
    profile: options.profile,
    zones: Servers.forwardOnly,
    auth: { agentTokens: [{ name: "bench", token: Servers.token, networks: ["127.0.0.0/8"] }] }
  }
  const first = yield* Servers.prism(prismOptions)
  const keys = Path.join(folder, "keys")
  Fs.mkdirSync(keys)
  const agents = yield* Effect.forEach(
    Array.from({ length: count }, (_, host) => host),
    (host) => start(first, keys, host),
    { concurrency: atOnceMax }
  )
  yield* progress(`${count} agents are registered and served`)
  const lookups = yield* Lookups.start(
    powerDns.dns,
    agents.map((_, host) => ({
      name: `${Agents.hostname(host)}.${Servers.zone}`,
      type: "A",
      data: Agents.address(host)
    })),
    lookupsPerSecond
  )

  process.kill(first.pid, "SIGKILL")
  yield* Effect.sleep(`${outageSeconds} seconds`)
  const startMillis = performance.now()
  const second = yield* Servers.prism({ ...prismOptions, tcp: { port: first.port } })
  const readyMillis = performance.now()
  yield* Effect.sync(() => agents.filter(({ events }) => events.connected.length > 0).length).pipe(
    Effect.repeat({ until: (back) => back === count, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({
      duration: `${backSecondsMax} seconds`,
      orElse: () => Effect.fail(new BenchFailed({ detail: `not all agents were back within ${backSecondsMax} s` }))
    })
  )
  const back = agents.map(({ events }) => events.connected[0]!)
  const asked = yield* lookups
  const sessions = yield* gauge(second, /^prism_sessions(?:\{[^}]*\})? (\d+)/m)
  const online = yield* gauge(second, /^prism_hosts\{[^}]*state="online"[^}]*\} (\d+)/m)
  yield* progress(`back, by the second since the server was started: ${bySecond(back, startMillis)}`)
  if (asked.example !== undefined) yield* progress(`a lookup that failed: ${asked.example}`)

  const allBack = (Math.max(...back) - startMillis) / 1000
  const attempts = agents.flatMap(({ events }) => [...events.failed, ...events.connected])
  const figures = {
    agents: figure("1", count),
    outage: figure("s", outageSeconds),
    server_start: figure("s", (readyMillis - startMillis) / 1000),
    all_back: figure("s", allBack),
    reconnects_busiest_second: figure("1", busiestSecond(back)),
    attempts_busiest_second: figure("1", busiestSecond(attempts)),
    sessions_after: figure("1", sessions),
    online_after: figure("1", online),
    lookups: figure("1", asked.asked),
    lookups_failed: figure("1", asked.wrong + asked.unanswered)
  }
  const ratios = {
    all_back_over_beat: allBack / beatSeconds,
    busiest_second_over_agents: figures.reconnects_busiest_second.value / count,
    sessions_after_over_agents: sessions / count
  }
  return {
    figures,
    ratios,
    targets: {
      all_back_over_beat: below(1, ratios.all_back_over_beat),
      lookups_failed: below(1, figures.lookups_failed.value),
      ...(count >= agentsByDefault
        ? { busiest_second_over_agents: below(herdShare, ratios.busiest_second_over_agents) }
        : {})
    }
  }
})

export const restart: Benchmark = {
  name: "restart",
  description: `N agents of the SDK (${agentsByDefault}), kill -9 of the server, start it again after ${outageSecondsByDefault} s (--seconds): when all are back.`,
  backends: ["sqlite", "lmdb"],
  run
}
