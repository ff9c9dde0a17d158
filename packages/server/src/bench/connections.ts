/** Open connections that say nothing: the memory of each, beside that of a bare `node:net` server. */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Agents from "./Agents.ts"
import { backendOf, type Benchmark, figure, type Options } from "./Benchmark.ts"
import * as Servers from "./Servers.ts"
import { progress, temporaryFolder } from "./Workspace.ts"

const hostsByDefault = 5000
/** Opened and closed beforehand, so that what a server needs once is not counted. */
const warmUp = 500
const atOnceMax = 200

const measure = Effect.fnUntraced(function* (server: Servers.Server, hosts: number) {
  yield* Effect.scoped(Agents.connectEach({ port: server.port, hosts: warmUp, atOnceMax }))
  const before = yield* Servers.settledMemory(server, (sockets) => sockets < warmUp)
  yield* Agents.connectEach({ port: server.port, hosts, atOnceMax })
  const after = yield* Servers.settledMemory(server, (sockets) => sockets >= hosts)
  return { rss: (after.rss - before.rss) / hosts, heapUsed: (after.heapUsed - before.heapUsed) / hosts }
}, Effect.scoped)

const run = Effect.fnUntraced(function* (options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const folder = yield* temporaryFolder
  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const own = Path.join(folder, `${round}`)
      Fs.mkdirSync(own)
      const powerDns = yield* Servers.powerDns(own, backendOf(options))
      const prism = yield* Effect.flatMap(
        Servers.prism({ folder: own, powerDns, profile: options.profile }),
        (server) => measure(server, hosts)
      )
      const bare = yield* Effect.flatMap(Servers.bare(own), (server) => measure(server, hosts))
      yield* progress(`round ${round} of ${options.rounds}: ${Math.round(prism.rss)} B, bare ${Math.round(bare.rss)} B`)
      return { prism, bare }
    }, Effect.scoped)
  )
  const over = (f: (round: (typeof rounds)[number]) => number) => figure("B", rounds.map(f))
  const figures = {
    connections: figure("1", hosts),
    prism_rss: over(({ prism }) => prism.rss),
    prism_heap: over(({ prism }) => prism.heapUsed),
    bare_rss: over(({ bare }) => bare.rss),
    bare_heap: over(({ bare }) => bare.heapUsed)
  }
  return {
    figures,
    ratios: {
      rss_over_bare: figures.prism_rss.value / figures.bare_rss.value,
      heap_over_bare: figures.prism_heap.value / figures.bare_heap.value
    },
    targets: {}
  }
})

export const connections: Benchmark = {
  name: "connections",
  description: `N open, idle connections (${hostsByDefault}): the memory of the server for each.`,
  backends: ["sqlite", "lmdb"],
  run
}
