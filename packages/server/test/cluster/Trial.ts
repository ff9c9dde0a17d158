/**
 * One trial of a cluster: start it, put it under load, let something happen,
 * make all well again, and judge what clients were told by what is there in the
 * end.
 *
 * Leaves to others: what happens (the suites, `Faults`).
 */
import * as assert from "node:assert/strict"
import { Effect, type Scope } from "effect"
import * as Fs from "node:fs"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Check from "./Check.ts"
import * as Cluster from "./Cluster.ts"
import * as EndState from "./EndState.ts"
import { nowMillis } from "./History.ts"
import * as Load from "./Load.ts"

/** `PRISM_CLUSTER=full`: as large as the promises say. Otherwise the same faults on less. */
export const isFull = process.env["PRISM_CLUSTER"] === "full"

/**
 * How much longer than promised this machine may take. The short form runs
 * wherever the tests run, beside whatever: it is no measurement, and its bound
 * only finds what waits for something that does not come.
 */
const patience = Number(process.env["PRISM_CLUSTER_PATIENCE"] ?? (isFull ? "1" : "3"))
if (!(patience >= 1)) throw new Error("PRISM_CLUSTER_PATIENCE is a number, 1 or more")

/** `PRISM_CLUSTER_CHANGES=N`: so many changes a second, in place of those of the form. */
const changesPerSecond = Number(process.env["PRISM_CLUSTER_CHANGES"] ?? (isFull ? "500" : "20"))
if (!(changesPerSecond >= 1)) throw new Error("PRISM_CLUSTER_CHANGES is a number, 1 or more")

export const size: Load.Options = {
  seed: process.env["PRISM_CLUSTER_SEED"] ?? "1",
  sessions: isFull ? 2000 : 100,
  changesPerSecond,
  protocol1: isFull ? 200 : 10,
  pollsPerSecond: isFull ? 200 : 25,
  throughHaproxy: 0.5
}

/** How long a steady load goes on before and after what happens, in milliseconds. */
export const steadyMillis = isFull ? 10_000 : 2500

/** `PRISM_CLUSTER_DATABASES=own`: the PowerDNS primaries have a database each, and do not share a PostgreSQL. */
export const databases = process.env["PRISM_CLUSTER_DATABASES"] ?? "shared"
if (databases !== "shared" && databases !== "own") throw new Error("PRISM_CLUSTER_DATABASES is `shared` or `own`")

/** `PRISM_CLUSTER_TRACE=FILE`: the last history that was judged is kept there, as JSON, and beside it what the servers logged. */
const traceFile = process.env["PRISM_CLUSTER_TRACE"]

export const say = (line: string): void => void process.stderr.write(`cluster: ${line}\n`)

/** Lets so much time pass in which the load goes on: what is waited for is that time. */
export const steady = (millis = steadyMillis) => Effect.sleep(millis)

/** Asserts a promised bound, and says what was measured. */
export const within = (what: string, millis: number, promisedMillis: number): void => {
  say(`${what}: ${(millis / 1000).toFixed(2)} s (promised ${promisedMillis / 1000} s)`)
  assert.ok(millis <= promisedMillis * patience, `${what}: ${millis} ms`)
}

export interface Trial {
  readonly cluster: Cluster.Cluster
  readonly load: Load.Load
}

/** A cluster with its load, settled and under way; `judge` ends it. */
export const begin = Effect.fnUntraced(function* (
  options: Cluster.Options = {},
  load: Partial<Load.Options> = {}
): Effect.fn.Return<Trial, never, Scope.Scope> {
  const cluster = yield* Cluster.start({ databases, ...options })
  yield* Effect.addFinalizer((exit) =>
    Effect.sync(() => {
      if (traceFile !== undefined) {
        for (const { name, output } of cluster.servers) Fs.writeFileSync(`${traceFile}.${name}.log`, output())
      }
      if (exit._tag === "Success") return
      // What a failure is about is in there, as a rule.
      for (const { name, output } of cluster.servers)
        say(`${name} said last:\n${output().split("\n").slice(-40).join("\n")}`)
    })
  )
  const hosts = yield* Load.start(cluster, { ...size, ...load })
  yield* hosts.settled("60 seconds")
  yield* hosts.resume
  return { cluster, load: hosts }
})

/** Names that stay parked, with all that is known of them, are kept in the trace file: nothing else tells how it came. */
const keepParked = Effect.fnUntraced(function* ({ cluster, load }: Trial) {
  if (traceFile === undefined) return
  const parked = yield* EndState.parked(cluster)
  const hosts = new Set(parked.map(({ host }) => host))
  const { requests, writes } = load.history
  const ofParked = {
    parked,
    requests: requests.filter(({ host }) => hosts.has(host)),
    writes: writes.filter(({ body = "" }) => parked.some(({ host }) => body.includes(`"${host}.`)))
  }
  Fs.writeFileSync(traceFile, JSON.stringify(ofParked))
})

/** Ends the load and says what is wrong. All parts have to be well again. */
export const findings = Effect.fnUntraced(function* ({ cluster, load }: Trial) {
  yield* load.pause
  yield* load.settled("60 seconds")
  // No promised time: what the full form leaves behind takes its time on a slow machine.
  yield* Effect.onError(EndState.rest(cluster, isFull ? "5 minutes" : "60 seconds"), () =>
    keepParked({ cluster, load })
  )
  const { history } = load
  const end = yield* EndState.read(
    cluster,
    history.requests.map(({ host }) => host)
  )
  const told = history.requests.filter(({ told }) => told.length > 0).length
  say(
    `${history.requests.length} requests, ${told} of them answered, ${end.versions.length} versions, ` +
      `${history.writes.length} writes, ${history.polls.length} questions, ${load.errors.length} errors`
  )
  const found = Check.check(history, end, { leaseMillis: cluster.leaseMillis })
  if (traceFile !== undefined) {
    const { hosts, versions } = end
    Fs.writeFileSync(traceFile, JSON.stringify({ found, ...history, errors: load.errors, hosts, versions }))
  }
  return found
})

/** Why hosts were away, since the first `before` times, and what clients saw as errors. */
export const whys = ({ errors, history }: Load.Load, before: number): string => {
  const count = (words: ReadonlyArray<string>) =>
    Object.entries(Object.groupBy(words, (each) => each)).map(([each, all]) => `${all!.length} x ${each}`)
  return [
    ...count(history.away.slice(before).map(({ why }) => why)),
    ...count(errors.map(({ what }) => what.replaceAll(/[a-z]+-\d+/g, "N"))).slice(0, 10)
  ].join("; ")
}

/** Asserts that nothing is wrong. */
export const judge = Effect.fnUntraced(function* (trial: Trial) {
  const found = yield* findings(trial)
  assert.strictEqual(found.length, 0, Check.describe(found))
})

/** How long it takes from now until each of the agents has its session, on a server other than `gone`. */
export const untilElsewhere = Effect.fnUntraced(function* (
  { load }: Trial,
  gone: string,
  which: (agent: Load.Load["agents"][number]) => boolean = () => true
) {
  const start = nowMillis()
  yield* waitUntil(
    `all sessions are elsewhere than on ${gone}`,
    Effect.sync(
      () => load.agents.filter((agent) => which(agent) && (!agent.isConnected || agent.instance === gone)).length
    ),
    (count) => count === 0,
    { within: "60 seconds", every: "20 millis" }
  )
  return nowMillis() - start
})

/** Waits until the server is the writer of zones under steady change, and says of which. */
export const untilWriting = (trial: Trial, server: string) =>
  waitUntil(
    `${server} writes a zone`,
    Effect.sync(() => writtenBy(trial, server)),
    (zones) => zones.length > 0,
    { within: "60 seconds", every: "50 millis" }
  )

/** A zone in which something is changed all the time: how long until it is written is not how long until it changes. */
const isBusy = ({ cluster, load }: Trial, zone: string) =>
  load.changesPerSecond(zone) >= busyChangesPerSecond &&
  cluster.writes.filter((write) => write.zone === zone && write.fromMillis > nowMillis() - busyMillis).length >= 2
const busyMillis = 3000
const busyChangesPerSecond = 5

/** Zones under steady change that `server` was the last to write. */
export const writtenBy = (trial: Trial, server: string): ReadonlyArray<string> => {
  const last = new Map(trial.cluster.writes.map(({ server, zone }) => [zone, server]))
  return [...last].flatMap(([zone, writer]) => (writer === server && isBusy(trial, zone) ? [zone] : []))
}

/** How long it takes from `sinceMillis` until each of the zones was written by somebody else than `gone`. */
export const untilWritten = Effect.fnUntraced(function* (
  { cluster }: Trial,
  zones: ReadonlyArray<string>,
  gone: string,
  sinceMillis: number
) {
  const firstOf = (zone: string) =>
    cluster.writes.find(
      (write) => write.zone === zone && write.server !== gone && write.fromMillis >= sinceMillis && write.status === 204
    )
  const first = yield* waitUntil(
    `${zones.join(", ")} are written by another than ${gone}`,
    Effect.sync(() => zones.map(firstOf)),
    (seen) => seen.every((write) => write?.toMillis !== undefined),
    { within: "60 seconds", every: "20 millis" }
  )
  return Math.max(0, ...first.map((write) => write!.toMillis! - sinceMillis))
})
