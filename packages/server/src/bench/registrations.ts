/**
 * The main job: hosts that nobody has heard of register, until all of them
 * resolve. Beside it, in the same run, its bare parts, and what one would use
 * instead.
 */
import { Effect, Schedule } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Agents from "./Agents.ts"
import * as BareParts from "./BareParts.ts"
import {
  atLeast,
  type Backend,
  backendOf,
  below,
  BenchFailed,
  type Benchmark,
  failed,
  figure,
  median,
  type Options,
  storages
} from "./Benchmark.ts"
import * as Bind from "./Bind.ts"
import * as Durable from "./Durable.ts"
import * as Resolution from "./Resolution.ts"
import * as Rfc2136 from "./Rfc2136.ts"
import * as Servers from "./Servers.ts"
import { cpuSeconds, progress, temporaryFolder, timed } from "./Workspace.ts"

const hostsByDefault = 10_000

/** Connections on their way at once. */
const atOnceMax = 200

/** One update or PATCH for each host is measured on so many of them at the most, and calculated for the others. */
const sampleMax = { bind: 20_000, patch: 1000 }

const millisMax = 180_000

/** Of the rate of bare inserts of the same rows. */
const shareWanted = 0.4

export interface Names {
  readonly forward: ReadonlyArray<Resolution.Expectation>
  readonly reverse: ReadonlyArray<Resolution.Expectation>
}

export const namesOf = (hosts: number): Names => {
  const all = Array.from({ length: hosts }, (_, host) => {
    const address = Agents.address(host)
    const fqdn = `${Agents.hostname(host)}.${Servers.zone}`
    const pointer = `${address.split(".").toReversed().join(".")}.in-addr.arpa`
    return {
      forward: { name: fqdn, type: "A", data: address } as const,
      reverse: { name: pointer, type: "PTR", data: fqdn } as const
    }
  })
  return { forward: all.map(({ forward }) => forward), reverse: all.map(({ reverse }) => reverse) }
}

export const first = (names: Names, hosts: number): Names => ({
  forward: names.forward.slice(0, hosts),
  reverse: names.reverse.slice(0, hosts)
})

/** Asks for every name, forward and reverse, until all are right; gives the number of wrong answers before. */
const allResolve = (dns: Servers.Endpoint, names: Names) =>
  Effect.map(
    Effect.all(
      [Resolution.awaitAll(dns, names.forward, millisMax), Resolution.awaitAll(dns, names.reverse, millisMax)],
      { concurrency: 2 }
    ),
    ([forward, reverse]) => forward + reverse
  )

/**
 * Seconds until all names resolve after `work`, which ends when it believes so. Then every name is asked for: if each
 * first answer is right, they all resolved when the work ended, and asking, which is no part of any of the systems
 * compared, is not counted; otherwise it is, until the last one is right.
 */
export const untilAllResolve = Effect.fnUntraced(function* <E, R>(
  dns: Servers.Endpoint,
  names: Names,
  work: Effect.Effect<unknown, E, R>
) {
  const worked = yield* timed(work)
  let wrongAnswers = 0
  const asked = yield* timed(Effect.tap(allResolve(dns, names), (wrong) => Effect.sync(() => (wrongAnswers = wrong))))
  return wrongAnswers === 0 ? worked : worked + asked
})

/** Waits until the registry holds `hosts` hosts and nothing waits to be published. */
const untilPublished = (registry: string, hosts: number) =>
  Effect.acquireUseRelease(
    Effect.try({
      try: () => new DatabaseSync(registry, { readOnly: true }),
      catch: failed("the registry cannot be opened")
    }),
    (db) => {
      const statement = db.prepare(
        "SELECT NOT EXISTS (SELECT 1 FROM outbox) AND (SELECT COUNT(*) FROM host) = ? AS done"
      )
      return Effect.sync(() => statement.get(hosts)?.["done"] === 1).pipe(
        Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: (done) => done }),
        Effect.timeoutOrElse({
          duration: millisMax,
          orElse: () => Effect.fail(new BenchFailed({ detail: `not published within ${millisMax / 1000} s` }))
        })
      )
    },
    (db) => Effect.sync(() => db.close())
  )

/** A folder of its own below `parent`. */
export const subfolder = (parent: string, name: string): string => {
  const folder = Path.join(parent, name)
  Fs.mkdirSync(folder, { recursive: true })
  return folder
}

/** When Prism had stored the last host and published the last name, in milliseconds since 1970, and in how many steps. */
const milestones = (registry: string) =>
  Effect.try({
    try: () => {
      const db = new DatabaseSync(registry, { readOnly: true })
      const value = (sql: string) => Number(Object.values(db.prepare(sql).get()!)[0])
      const result = {
        acceptedMillis: value("SELECT MAX(first_seen) FROM host"),
        appliedMillis: value("SELECT MAX(published_at) FROM zone_publication"),
        // Each commit has a generation of its own; batches of a zone that end within one millisecond count as one.
        commits: value("SELECT COUNT(DISTINCT generation) FROM host"),
        batches: value("SELECT COUNT(*) FROM (SELECT DISTINCT zone, published_at FROM published)")
      }
      db.close()
      return result
    },
    catch: failed("the registry cannot be read")
  })

const cpuOf = (pid: number) => cpuSeconds(pid) ?? Number.NaN

/** Everything from the first connection to the last name that resolves. */
export const prism = Effect.fnUntraced(function* (folder: string, names: Names, options: Options) {
  const powerDns = yield* Servers.powerDns(folder, backendOf(options))
  const server = yield* Servers.prism({ folder, powerDns, profile: options.profile })
  const frames = Agents.frames(names.forward.length)
  const cpuBefore = { server: cpuOf(server.pid), powerDns: cpuOf(powerDns.pid), client: process.cpuUsage() }
  const startMillis = Date.now()
  let sent = 0
  const send = timed(Agents.sendEach({ port: server.port, frames, atOnceMax, awaitAnswer: false })).pipe(
    Effect.tap((seconds) => Effect.sync(() => (sent = seconds)))
  )
  const all = yield* untilAllResolve(
    powerDns.dns,
    names,
    Effect.raceFirst(Effect.andThen(send, untilPublished(server.registry, names.forward.length)), server.ended)
  )
  const { acceptedMillis, appliedMillis, batches, commits } = yield* milestones(server.registry)
  const client = process.cpuUsage(cpuBefore.client)
  return {
    registry: server.registry,
    all,
    sent,
    commits,
    batches,
    accepted: (acceptedMillis - startMillis) / 1000,
    applied: (appliedMillis - startMillis) / 1000,
    serverCpu: cpuOf(server.pid) - cpuBefore.server,
    powerDnsCpu: cpuOf(powerDns.pid) - cpuBefore.powerDns,
    clientCpu: (client.user + client.system) / 1e6
  }
})

/** The same connections and frames, read and answered by a server that does nothing else. */
export const bareConnections = Effect.fnUntraced(function* (folder: string, hosts: number) {
  const server = yield* Servers.bare(folder)
  const frames = Agents.frames(hosts)
  return yield* timed(
    Effect.all([server.reached(hosts), Agents.sendEach({ port: server.port, frames, atOnceMax, awaitAnswer: false })], {
      concurrency: 2
    })
  )
})

/** The same record sets, in batched PATCHes; and how long asking for them all takes when they are there. */
export const barePatches = Effect.fnUntraced(function* (folder: string, names: Names, backend: Backend) {
  const powerDns = yield* Servers.powerDns(folder, backend)
  yield* BareParts.createZones(powerDns)
  const written = yield* timed(
    Effect.andThen(
      BareParts.patch(powerDns, Servers.zone, names.forward),
      BareParts.patch(powerDns, Servers.reverseZone, names.reverse)
    )
  )
  return { written, asked: yield* timed(allResolve(powerDns.dns, names)) }
})

const bindUpdates = Effect.fnUntraced(function* (folder: string, names: Names) {
  const { dns } = yield* Bind.start(folder)
  return yield* untilAllResolve(dns, names, Rfc2136.updateEach(dns, names))
})

export const patchEach = Effect.fnUntraced(function* (folder: string, names: Names, backend: Backend) {
  const powerDns = yield* Servers.powerDns(folder, backend)
  yield* BareParts.createZones(powerDns)
  return yield* timed(
    Effect.andThen(
      BareParts.patch(powerDns, Servers.zone, names.forward, 1),
      BareParts.patch(powerDns, Servers.reverseZone, names.reverse, 1)
    )
  )
})

const run = Effect.fnUntraced(function* (options: Options) {
  const hosts = options.hosts ?? hostsByDefault
  const names = namesOf(hosts)
  const folder = yield* temporaryFolder
  const bindHosts = Math.min(hosts, sampleMax.bind)
  const say = (round: number, what: string, seconds: number) =>
    progress(`round ${round} of ${options.rounds}: ${what} ${seconds.toFixed(2)} s`)

  // Until the code is compiled: the first round of each is not counted.
  const durable = yield* Effect.forEach(options.storages ?? storages, (storage) =>
    Effect.map(
      Effect.forEach(
        Array.from({ length: options.rounds + 1 }, (_, i) => i),
        Effect.fnUntraced(function* (round) {
          const folders = {
            registry: subfolder(folder, `${storage}-${round}`),
            bare: subfolder(folder, `${storage}-bare-${round}`)
          }
          const one = yield* Durable.compare(folders, storage, hosts)
          yield* say(round, `durable on ${storage} (bare ${one.bare.toFixed(2)} s)`, one.seconds)
          return one
        })
      ),
      (all) => ({ storage, rounds: all.slice(1) })
    )
  )
  const durableShare = Object.fromEntries(
    durable.map(({ rounds, storage }) => [
      `durable_${storage}_over_bare_insert`,
      median(rounds.map(({ bare, seconds }) => bare / seconds))
    ])
  )

  const rounds = yield* Effect.forEach(
    Array.from({ length: options.rounds }, (_, i) => i + 1),
    Effect.fnUntraced(function* (round) {
      const below = (name: string) => subfolder(folder, `${name}-${round}`)
      const whole = yield* Effect.scoped(prism(below("prism"), names, options))
      yield* say(round, "Prism", whole.all)
      const connections = yield* Effect.scoped(bareConnections(below("bare"), hosts))
      yield* say(round, "bare connections", connections)
      const rows = yield* BareParts.insertRows(whole.registry, below("rows"))
      yield* say(round, "bare rows", rows)
      const patches = yield* Effect.scoped(barePatches(below("patches"), names, backendOf(options)))
      yield* say(round, "bare PATCHes", patches.written)
      const bind = yield* Effect.scoped(bindUpdates(below("bind"), first(names, bindHosts)))
      yield* say(round, `BIND, one update for each of ${bindHosts} hosts and zone,`, bind)
      const bindAll = (bind / bindHosts) * hosts
      return { whole, connections, rows, patches, parts: connections + rows + patches.written, bind, bindAll }
    })
  )
  const over = (f: (round: (typeof rounds)[number]) => number) => rounds.map(f)

  const patchHosts = Math.min(hosts, sampleMax.patch)
  const each = yield* Effect.scoped(patchEach(subfolder(folder, "each"), first(names, patchHosts), backendOf(options)))
  yield* progress(`PowerDNS, one PATCH for each of ${patchHosts} hosts and zone: ${each.toFixed(2)} s`)
  const eachAll = (each / patchHosts) * hosts

  const overBind = median(over(({ bindAll, whole }) => whole.all / bindAll))
  const overParts = median(over(({ parts, whole }) => whole.all / parts))
  const all = median(over(({ whole }) => whole.all))
  return {
    figures: {
      hosts: figure("1", hosts),
      ...Object.fromEntries(
        durable.flatMap(({ rounds, storage }) => [
          [
            `durable_${storage}`,
            figure(
              "1/s",
              rounds.map(({ seconds }) => hosts / seconds)
            )
          ],
          [
            `bare_insert_${storage}`,
            figure(
              "1/s",
              rounds.map(({ bare }) => hosts / bare)
            )
          ]
        ])
      ),
      prism: figure(
        "s",
        over(({ whole }) => whole.all)
      ),
      prism_hosts_per_second: figure(
        "1/s",
        over(({ whole }) => hosts / whole.all)
      ),
      prism_sent: figure(
        "s",
        over(({ whole }) => whole.sent)
      ),
      prism_accepted: figure(
        "s",
        over(({ whole }) => whole.accepted)
      ),
      prism_applied: figure(
        "s",
        over(({ whole }) => whole.applied)
      ),
      prism_commits: figure(
        "1",
        over(({ whole }) => whole.commits)
      ),
      prism_batches: figure(
        "1",
        over(({ whole }) => whole.batches)
      ),
      prism_server_cpu: figure(
        "s",
        over(({ whole }) => whole.serverCpu)
      ),
      prism_powerdns_cpu: figure(
        "s",
        over(({ whole }) => whole.powerDnsCpu)
      ),
      prism_client_cpu: figure(
        "s",
        over(({ whole }) => whole.clientCpu)
      ),
      bare_connections: figure(
        "s",
        over(({ connections }) => connections)
      ),
      bare_rows: figure(
        "s",
        over(({ rows }) => rows)
      ),
      bare_patches: figure(
        "s",
        over(({ patches }) => patches.written)
      ),
      bare_parts: figure(
        "s",
        over(({ parts }) => parts)
      ),
      questions_alone: figure(
        "s",
        over(({ patches }) => patches.asked)
      ),
      ...(bindHosts < hosts && {
        bind_updates_sample: figure(
          "s",
          over(({ bind }) => bind)
        ),
        bind_updates_sample_hosts: figure("1", bindHosts)
      }),
      [bindHosts < hosts ? "bind_updates_extrapolated" : "bind_updates"]: figure(
        "s",
        over(({ bindAll }) => bindAll)
      ),
      ...(patchHosts < hosts && {
        powerdns_patch_each_sample: figure("s", each),
        powerdns_patch_each_sample_hosts: figure("1", patchHosts)
      }),
      [patchHosts < hosts ? "powerdns_patch_each_extrapolated" : "powerdns_patch_each"]: figure("s", eachAll)
    },
    ratios: {
      ...durableShare,
      prism_over_bare_parts: overParts,
      prism_over_bind: overBind,
      prism_over_patch_each: all / eachAll
    },
    targets: {
      ...Object.fromEntries(Object.entries(durableShare).map(([name, share]) => [name, atLeast(shareWanted, share)])),
      prism_over_bare_parts: below(1.5, overParts),
      prism_over_bind: below(0.5, overBind)
    }
  }
})

export const registrations: Benchmark = {
  name: "registrations",
  description: `N hosts (${hostsByDefault}) register by protocol 1.0, each on its own connection, until all resolve, forward and reverse.`,
  backends: ["sqlite", "lmdb"],
  run
}
