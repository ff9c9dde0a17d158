/**
 * The cluster over two tables of a PostgreSQL database: `instance`, one row for
 * each start of a server, and `cluster_lease`, one for each thing that only one
 * does at a time.
 *
 * One loop renews the instance's row, looks at the others, and does this
 * instance's part of what `Assignment` says. Times in the database are the
 * database's. What is valid here is counted from the moment before a renewal was
 * sent, by a clock that only goes on, and by the machine's clock too, since the
 * former stands still while a machine sleeps; whichever has gone further counts.
 * Another is dead when its row has said the same for a lease, by the clock of
 * whoever looks: the database's may be set, or be another's after a failover.
 *
 * Promises: those of `Cluster`. A lease passes on by one statement that locks its
 * row, and so does not while a transaction with its fence is under way; such a
 * transaction of a process that stands still is ended by PostgreSQL before the
 * lease can pass, and what else it keeps locked when it is declared dead. Where
 * another database server takes over that may not have all that was committed
 * (asynchronous replication), nobody who learns of it acts for a lease: the row
 * may say that a lease is an earlier holder's.
 */
import { Cause, Clock, Effect, Fiber, Latch, Metric, Option, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, type SqlError } from "effect/sql"
import { Failover } from "../storage/Failover.ts"
import { asList, asTable, integer } from "../storage/Rows.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import * as Assignment from "./Assignment.ts"
import type { Cluster, Held, InstanceState, InstanceStatus, LeaseName, LeaseStatus } from "./Cluster.ts"
import * as ClusterMetrics from "./ClusterMetrics.ts"
import { LeaseLost } from "./LeaseLost.ts"
import * as OwnConnection from "./OwnConnection.ts"
import { Signals } from "./Signals.ts"

export interface PostgresOptions {
  /** `server.instance` of the configuration. */
  readonly name: string
  readonly version: string
  /** After so long without a renewal an instance may be declared dead, in milliseconds. */
  readonly leaseMillis: number
  /** How often it renews its row, and looks at the others, in milliseconds. */
  readonly renewMillis: number
  /** How much before its end a lease is not acted under any more, in milliseconds. Default: a tenth of it. */
  readonly marginMillis?: number
  /** What is told with each renewal. */
  readonly sessions?: () => number
  /** Names this process's connections in `pg_stat_activity`, so that they can be ended when it is declared dead. */
  readonly applicationName?: string
  /** The machine's own time of day, in milliseconds. Default: that of the clock around. */
  readonly machineMillis?: () => number
  /** Is told the database's time with each renewal, and between which readings of the machine's own it was. */
  readonly observe?: (sample: ClockSample) => Effect.Effect<void>
}

export interface ClockSample {
  readonly databaseMillis: number
  /** Of the monotonic clock, before the question and after the answer. */
  readonly beforeElapsed: number
  readonly afterElapsed: number
}

/** Ended instances that are shown, and how long. */
const endedMillisMax = 3_600_000
const shownMax = 1000
/** How long rows of ended instances are kept, and of leases that nobody has. */
const instanceKeptMillis = 86_400_000
const leaseKeptMillis = 7 * 86_400_000
/** How often old rows are looked for. */
const pruneMillis = 600_000
/** Leases that are said to be others' business at the most. */
const lacksMax = 10_000
/** Work that failed is begun again after this time. */
const againMillis = 1000
/** How long work may take to end when its lease is to be another's. */
const handMillisMax = 5000
/** How long the end may take to be written. */
const leaveMillis = 2000

/** The database's time of day. */
const databaseNow = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"

/** What is committed stands on a standby too, which has it when it takes over. */
const standbyHasAll = `
  current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') NOT IN ('off', 'local')`

/** Another one after each promotion. */
const timeline = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"

/** What a proof of life is answered with. */
interface Proof {
  readonly at: number | bigint
  readonly is_safe: boolean
  readonly timeline: string
}

interface InstanceRow {
  readonly id: string
  readonly name: string
  readonly version: string
  readonly state: InstanceState
  readonly started_at: number | bigint
  readonly renewed_at: number | bigint
  readonly until: number | bigint
  readonly ended_at: number | bigint | null
  readonly details: string
  readonly now: number | bigint
}

/** What tells how long an instance has been silent. */
type ShownRow = Pick<InstanceRow, "id" | "state" | "renewed_at">

interface Details {
  readonly sessions: number
  /** Leases that it does not stand for, and others do. */
  readonly lacks: ReadonlyArray<string>
  readonly application?: string | undefined
}

interface LeaseRow {
  readonly name: LeaseName
  readonly epoch: number | bigint
  readonly instance: string | null
  readonly since: number | bigint
}

/** One time that a lease is held. */
interface Hold extends Held {
  ended: boolean
}

/** Who stands for a lease. */
interface Stander {
  readonly begin: (held: Held) => Fiber.Fiber<unknown>
  fiber: Fiber.Fiber<unknown> | undefined
  /** It begins nothing more, and is there until its work has ended. */
  leaving: boolean
}

interface Entry {
  readonly name: LeaseName
  readonly standers: Set<Stander>
  /** Of the row, where it says that it is ours. */
  epoch: number | undefined
  hold: Hold | undefined
  /** Work that is ending; what follows must not begin before. */
  ending: Fiber.Fiber<unknown> | undefined
  /** Work has not ended in time: somebody else is to stand for it until it has. */
  hangs: boolean
  /** It is given to another once its work has ended. */
  handing: boolean
}

const isStoodFor = ({ standers }: Entry) => [...standers].some(({ leaving }) => !leaving)

/** Nothing is to be known of it any more. */
const isOver = ({ ending, epoch, hold, standers }: Entry) =>
  standers.size === 0 && epoch === undefined && hold === undefined && ending === undefined

const kindOf = (name: LeaseName) => (name.startsWith("zone/") ? "zone" : "job")

export const make = Effect.fnUntraced(function* (
  options: PostgresOptions
): Effect.fn.Return<
  Cluster["Service"],
  SqlError.SqlError,
  SqlClient.SqlClient | OwnConnection.OwnConnections | SecureRandom.SecureRandom | Scope.Scope
> {
  const { leaseMillis, name, renewMillis, version } = options
  const validMillis = leaseMillis - (options.marginMillis ?? leaseMillis / 10)
  const sql = yield* SqlClient.SqlClient
  const signals = yield* Signals
  const random = yield* SecureRandom.SecureRandom
  const failover = yield* Failover
  const clock = yield* Clock.Clock
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const machine = options.machineMillis ?? (() => clock.currentTimeMillisUnsafe())
  // A statement takes no longer than leaves time for another attempt.
  const statementMillis = Math.max(renewMillis, leaseMillis / 3)
  const own = yield* OwnConnection.make(statementMillis)
  const sooner = yield* Latch.make(false)
  const run = Effect.runForkWith(yield* Effect.context())

  let id = ""
  /** Until when what is held may be acted under, by both clocks. */
  let validUntil = { elapsed: -Infinity, machine: -Infinity }
  let renewedElapsed = elapsed()
  /** By the id of each other that is there, which renewal its row shows, and since when it is known here to do so. */
  let shown = new Map<string, { readonly renewedAt: number; readonly sinceElapsed: number }>()
  let prunedElapsed = -Infinity
  let draining = false
  let failing = false
  let startedMillis = 0
  /** As it was told last. */
  let toldLacks = ""
  const entries = new Map<LeaseName, Entry>()
  /** By name the epoch that is to be given up. */
  const releasable = new Map<LeaseName, number>()
  let seen: { readonly instances: ReadonlyArray<InstanceRow>; readonly leases: ReadonlyArray<LeaseRow> } = {
    instances: [],
    leases: []
  }
  let lastEndedMillis = 0
  let life = 0
  const lifeListeners = new Set<() => void>()
  let hadNamesake = false
  /** As of the last proof of life: whoever takes over from this database server has all that was committed. */
  let isSafe = false
  /** Nothing is begun before this time. */
  let restsUntilElapsed = -Infinity
  const renewedLatch = yield* Latch.make(false)

  const remaining = () => Math.min(validUntil.elapsed - elapsed(), validUntil.machine - machine())

  // -------------------------------------------------------------------------------------------------------------------
  // Work
  // -------------------------------------------------------------------------------------------------------------------

  const begin = (entry: Entry): void => {
    if (entry.epoch === undefined || entry.hold !== undefined || entry.ending !== undefined) return
    if (!isStoodFor(entry) || remaining() <= 0 || elapsed() < restsUntilElapsed) return
    const { epoch } = entry
    const hold: Hold = {
      name: entry.name,
      epoch,
      ended: false,
      isValid: () => !hold.ended && remaining() > 0,
      remainingMillis: () => (hold.ended ? 0 : remaining())
    }
    entry.hold = hold
    for (const stander of entry.standers) if (!stander.leaving) stander.fiber = stander.begin(hold)
  }

  /** Ends the work under a lease. What is `over` is not valid any more from now on; else it is until the work has ended. */
  const end = (entry: Entry, over: boolean): void => {
    const { hold } = entry
    if (hold === undefined) return
    if (over) hold.ended = true
    entry.handing = !over
    if (entry.ending !== undefined) return
    const fibers = [...entry.standers].flatMap((stander) => {
      const { fiber } = stander
      stander.fiber = undefined
      return fiber === undefined ? [] : [fiber]
    })
    for (const fiber of fibers) fiber.interruptUnsafe()
    const handOver = Effect.sync(() => {
      hold.ended = true
      if (entry.handing && entry.epoch !== undefined) releasable.set(entry.name, entry.epoch)
      sooner.openUnsafe()
    })
    entry.ending = run(
      // Not before it is known as what is ending.
      Effect.yieldNow.pipe(
        Effect.andThen(Fiber.awaitAll(fibers)),
        // Another gets it all the same when the work does not end.
        Effect.timeoutOption(handMillisMax),
        Effect.tap((ended) => Effect.sync(() => void (entry.hangs = Option.isNone(ended)))),
        Effect.andThen(handOver),
        Effect.andThen(Fiber.awaitAll(fibers)),
        Effect.andThen(
          Effect.sync(() => {
            entry.hold = undefined
            entry.ending = undefined
            entry.hangs = false
            if (isOver(entry)) entries.delete(entry.name)
            sooner.openUnsafe()
          })
        )
      )
    )
  }

  const lose = (entry: Entry, why: string): void => {
    if (entry.epoch === undefined) return
    entry.epoch = undefined
    if (entry.hold === undefined) return
    void run(
      Effect.andThen(
        Metric.update(Metric.withAttributes(ClusterMetrics.lostTotal, { kind: kindOf(entry.name) }), 1),
        Effect.logWarning("a lease is lost").pipe(Effect.annotateLogs({ lease: entry.name, why }))
      )
    )
    end(entry, true)
  }

  /** Ends all work as soon as it may not be done any more, whatever else is under way. */
  const watch = Effect.gen(function* () {
    const left = remaining()
    if (left > 0) return yield* Effect.sleep(left)
    for (const entry of entries.values()) {
      if (entry.hold === undefined || entry.hold.ended) continue
      yield* Metric.update(Metric.withAttributes(ClusterMetrics.lostTotal, { kind: kindOf(entry.name) }), 1)
      end(entry, true)
    }
    yield* renewedLatch.await
  })

  // -------------------------------------------------------------------------------------------------------------------
  // Life
  // -------------------------------------------------------------------------------------------------------------------

  const stands = (name: LeaseName) => {
    const entry = entries.get(name)
    return entry !== undefined && isStoodFor(entry) && !entry.hangs
  }

  const lacksOf = (leases: typeof seen.leases): ReadonlyArray<string> =>
    leases
      .filter(({ name }) => !stands(name))
      .map(({ name }) => name)
      .slice(0, lacksMax)

  /** Others look at once when there is more or less that they are to count on. */
  const tellLacks = Effect.sync(() => {
    const lacks = lacksOf(seen.leases).join(" ")
    if (lacks !== toldLacks) signals.send("leases")
    toldLacks = lacks
  })

  const details = () => {
    const said: Details = {
      sessions: options.sessions?.() ?? 0,
      lacks: lacksOf(seen.leases),
      application: options.applicationName
    }
    return JSON.stringify(said)
  }

  /** Notes a proof of life that was sent at this time and is written. */
  const renewed = Effect.fnUntraced(function* (
    sent: { readonly elapsed: number; readonly machine: number },
    proof: Proof
  ) {
    const now = elapsed()
    failover.saw?.(proof.timeline)
    isSafe = proof.is_safe
    validUntil = { elapsed: sent.elapsed + validMillis, machine: sent.machine + validMillis }
    // Who was cut off itself cannot tell who is gone: the others were cut off alike, and are given time to say so.
    if (now - renewedElapsed > leaseMillis / 2) shown.clear()
    renewedElapsed = now
    yield* renewedLatch.open
    renewedLatch.closeUnsafe()
    yield* Metric.update(ClusterMetrics.renewalSeconds, (now - sent.elapsed) / 1000)
    if (options.observe !== undefined) {
      yield* options.observe({ databaseMillis: Number(proof.at), beforeElapsed: sent.elapsed, afterElapsed: now })
    }
  })

  const sendingNow = () => ({ elapsed: elapsed(), machine: machine() })

  const join = Effect.gen(function* () {
    const bytes = yield* random.randomBytes(8)
    // What it does not stand for from the start, as its zones are built later, the others are not to hand over to it.
    const leases = yield* own.use(
      (sql) => sql<LeaseRow>`SELECT name, epoch, instance, since FROM cluster_lease ORDER BY name`
    )
    seen = { ...seen, leases }
    id = Buffer.from(bytes).toString("hex")
    const sent = sendingNow()
    const [row] = yield* own.use(
      (sql) => sql<Proof>`
        INSERT INTO instance (id, name, version, state, started_at, renewed_at, until, details)
        SELECT ${id}, ${name}, ${version}, ${draining ? "draining" : "live"}, n.at, n.at, n.at + ${integer(sql, leaseMillis)},
          ${details()}
        FROM (SELECT ${sql.literal(databaseNow)} AS at) n
        RETURNING started_at AS at, ${sql.literal(standbyHasAll)} AS is_safe, ${sql.literal(timeline)} AS timeline`
    )
    startedMillis = Number(row!.at)
    // Who has just come may have come after an outage that the others had too.
    shown.clear()
    yield* renewed(sent, row!)
    yield* Effect.logInfo("this server is an instance of the cluster").pipe(Effect.annotateLogs({ instance: id, name }))
    signals.send("leases")
  })

  const renewals = (result: string) => Metric.update(Metric.withAttributes(ClusterMetrics.renewalsTotal, { result }), 1)

  const renew = Effect.gen(function* () {
    const sent = sendingNow()
    const state = draining ? "draining" : "live"
    const [row] = yield* own.use(
      (sql) => sql<Proof>`
        UPDATE instance SET state = ${state}, renewed_at = n.at, until = n.at + ${integer(sql, leaseMillis)},
          details = ${details()}
        FROM (SELECT ${sql.literal(databaseNow)} AS at) n
        WHERE id = ${id} AND state IN ('live', 'draining')
        RETURNING n.at AS at, ${sql.literal(standbyHasAll)} AS is_safe, ${sql.literal(timeline)} AS timeline`
    )
    if (row !== undefined) {
      yield* renewals("renewed")
      yield* renewed(sent, row)
      return yield* tellLacks
    }
    yield* renewals("dead")
    yield* Effect.logWarning("this server was declared dead meanwhile: it begins anew").pipe(
      Effect.annotateLogs({ instance: id, name })
    )
    validUntil = { elapsed: -Infinity, machine: -Infinity }
    for (const entry of entries.values()) lose(entry, "this server was declared dead")
    releasable.clear()
    // Before it may act again: what was asked in the former life is not carried out in this one.
    life += 1
    for (const listener of lifeListeners) listener()
    yield* join
  })

  /** So much is left for one statement more and a renewal behind it; else the renewal comes first. */
  const enoughMillis = Math.min(2 * statementMillis, (validMillis * 3) / 4)

  /** Comes before each step of a look. False: this instance has begun anew, and what it looked at was another's. */
  const keptUp = Effect.suspend(() => {
    if (remaining() >= enoughMillis) return Effect.succeed(true)
    const before = id
    return Effect.map(renew, () => id === before)
  })

  // -------------------------------------------------------------------------------------------------------------------
  // Others
  // -------------------------------------------------------------------------------------------------------------------

  const isThere = ({ state }: { readonly state: InstanceState }) => state === "live" || state === "draining"

  /** How long an instance may be silent: its lease may be another than ours. */
  const silenceMillis = ({ renewed_at, until }: InstanceRow) =>
    Math.max(leaseMillis, Number(until) - Number(renewed_at))

  /** Notes which renewals are seen. Each was sent before this moment, and so is no longer valid a lease after it. */
  const note = (instances: ReadonlyArray<ShownRow>): void => {
    const now = elapsed()
    const noted: typeof shown = new Map()
    for (const each of instances) {
      if (!isThere(each) || each.id === id) continue
      const before = shown.get(each.id)
      const renewedAt = Number(each.renewed_at)
      noted.set(each.id, before?.renewedAt === renewedAt ? before : { renewedAt, sinceElapsed: now })
    }
    shown = noted
  }

  /** How long it is until one of `instances` is dead if it goes on being silent, in milliseconds; 0 or less: it is. */
  const leftOf = (each: InstanceRow): number => {
    const known = shown.get(each.id)
    return known === undefined ? Infinity : known.sinceElapsed + silenceMillis(each) - elapsed()
  }

  /**
   * Another database server took over. The last that a lease passed on may be lost, and the row say that it is ours, while
   * whoever got it goes on for as long as it is valid by its own clock: what is held ends, and nothing is begun meanwhile.
   */
  const moved = (): void => {
    if (isSafe) return
    restsUntilElapsed = elapsed() + Math.max(leaseMillis, ...seen.instances.filter(isThere).map(silenceMillis))
    for (const entry of entries.values()) lose(entry, "another database server took over, which may not know of it")
    sooner.openUnsafe()
  }

  const declareDead = Effect.fnUntraced(function* (gone: ReadonlyArray<InstanceRow>) {
    const dead = yield* own.use(
      (sql) => sql<{ readonly id: string }>`
        UPDATE instance SET state = 'dead', ended_at = ${sql.literal(databaseNow)}
        WHERE id IN (
          SELECT i.id FROM instance i JOIN ${asTable(
            sql,
            "r",
            { id: "text", renewed_at: "bigint" },
            gone.map(({ id, renewed_at }) => ({ id, renewed_at: Number(renewed_at) }))
          )} ON i.id = r.id AND i.renewed_at = r.renewed_at
          WHERE i.state IN ('live', 'draining') ORDER BY i.id FOR UPDATE OF i SKIP LOCKED)
        RETURNING id`
    )
    const ids = new Set(dead.map(({ id }) => id))
    for (const each of gone.filter(({ id }) => ids.has(id))) {
      yield* Metric.update(ClusterMetrics.declaredDeadTotal, 1)
      yield* Effect.logWarning("a server of the cluster is declared dead, others take what it did").pipe(
        Effect.annotateLogs({
          instance: each.id,
          name: each.name,
          silentMillis: Number(each.now) - Number(each.renewed_at)
        })
      )
      const { application } = detailsOf(each)
      if (application === undefined) continue
      // What it has locked stays so while it stands still.
      yield* own
        .use(
          (sql) => sql`
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = ${application} AND datname = current_database() AND pid <> pg_backend_pid()`
        )
        .pipe(
          Effect.catch((error) =>
            Effect.logDebug("its connections to the database were not ended").pipe(
              Effect.annotateLogs({ reason: detailOf(error) })
            )
          )
        )
    }
    if (ids.size > 0) signals.send("leases")
    return ids
  })

  const prune = own.use((sql) =>
    Effect.gen(function* () {
      const old = sql`SELECT id FROM instance WHERE ended_at < ${sql.literal(databaseNow)} - ${integer(sql, instanceKeptMillis)}`
      yield* sql`UPDATE cluster_lease SET instance = NULL WHERE instance IN (${old})`
      yield* sql`
        DELETE FROM instance WHERE id IN (${old})
        AND NOT EXISTS (SELECT 1 FROM cluster_lease l WHERE l.instance = instance.id)`
      yield* sql`
        DELETE FROM cluster_lease
        WHERE instance IS NULL AND since < ${sql.literal(databaseNow)} - ${integer(sql, leaseKeptMillis)}`
    })
  )

  const read = own
    .use((sql) =>
      Effect.gen(function* () {
        const instances = yield* sql<InstanceRow>`
        SELECT id, name, version, state, started_at, renewed_at, until, ended_at, details, ${sql.literal(databaseNow)} AS now
        FROM instance
        WHERE state IN ('live', 'draining') OR ended_at > ${sql.literal(databaseNow)} - ${integer(sql, endedMillisMax)}
        ORDER BY state IN ('live', 'draining') DESC, started_at DESC LIMIT ${shownMax}`
        const leases = yield* sql<LeaseRow>`SELECT name, epoch, instance, since FROM cluster_lease ORDER BY name`
        return { instances, leases }
      })
    )
    .pipe(Effect.tap(({ instances }) => Effect.sync(() => note(instances))))

  const addMissing = (names: ReadonlyArray<LeaseName>) =>
    own.use(
      (sql) => sql`
        INSERT INTO cluster_lease (name, epoch, instance, since)
        SELECT r.name, 0, NULL, ${sql.literal(databaseNow)} FROM ${asTable(
          sql,
          "r",
          { name: "text" },
          names.map((name) => ({ name }))
        )} ORDER BY r.name ON CONFLICT (name) DO NOTHING`
    )

  /** Of `names` those that were free; who ended holds nothing. A row that somebody uses at this moment is left for the next time. */
  const take = (names: ReadonlyArray<LeaseName>) =>
    own.use(
      (sql) => sql<{ readonly name: LeaseName; readonly epoch: number | bigint }>`
        UPDATE cluster_lease SET instance = ${id}, epoch = epoch + 1, since = ${sql.literal(databaseNow)}
        WHERE name IN (
          SELECT l.name FROM cluster_lease l
          WHERE l.name IN ${asList(sql, names)} AND (
            l.instance IS NULL
            OR EXISTS (SELECT 1 FROM instance i WHERE i.id = l.instance AND i.state IN ('dead', 'left')))
          ORDER BY l.name FOR UPDATE OF l SKIP LOCKED)
        AND EXISTS (
          SELECT 1 FROM instance i WHERE i.id = ${id} AND i.state = 'live' AND i.until > ${sql.literal(databaseNow)})
        RETURNING name, epoch`
    )

  /** By name and epoch: one that arrives late must not free what has passed on and come back. */
  const release = (held: ReadonlyMap<LeaseName, number>) =>
    own.use(
      (sql) => sql<{ readonly name: LeaseName; readonly epoch: number | bigint }>`
        UPDATE cluster_lease SET instance = NULL, since = ${sql.literal(databaseNow)}
        WHERE name IN (
          SELECT l.name FROM cluster_lease l JOIN ${asTable(
            sql,
            "r",
            { name: "text", epoch: "bigint" },
            [...held].map(([name, epoch]) => ({ name, epoch }))
          )} ON l.name = r.name AND l.epoch = r.epoch
          WHERE l.instance = ${id} ORDER BY l.name FOR UPDATE OF l SKIP LOCKED)
        RETURNING name, epoch`
    )

  /** Others with our name: nobody can tell which of us is meant. */
  const warnOfNamesakes = (instances: ReadonlyArray<InstanceRow>) => {
    // One that was killed is there until its time is over, and whoever takes its place has its name by right.
    const hasOne = instances.some(
      (each) => each.id !== id && each.name === name && isThere(each) && Number(each.renewed_at) > startedMillis
    )
    const isNew = hasOne && !hadNamesake
    hadNamesake = hasOne
    return isNew
      ? Effect.logWarning("another server of the cluster has the same name, give each its own server.instance").pipe(
          Effect.annotateLogs({ name })
        )
      : Effect.void
  }

  const look = Effect.gen(function* () {
    if (releasable.size > 0) {
      const released = yield* release(releasable)
      for (const { epoch, name } of released) {
        if (releasable.get(name) === Number(epoch)) releasable.delete(name)
        const entry = entries.get(name)
        if (entry === undefined || entry.epoch !== Number(epoch)) continue
        entry.epoch = undefined
        if (isOver(entry)) entries.delete(name)
      }
      if (released.length > 0) signals.send("leases")
    }
    if (!(yield* keptUp)) return
    let found = yield* read
    const gone = found.instances.filter((each) => leftOf(each) <= 0)
    if (gone.length > 0) {
      if (!(yield* keptUp)) return
      const dead = yield* declareDead(gone)
      if (!(yield* keptUp)) return
      if (dead.size > 0) found = yield* read
    }
    const known = new Set(found.leases.map(({ name }) => name))
    const missing = [...entries.values()].filter((entry) => isStoodFor(entry) && !known.has(entry.name))
    if (missing.length > 0) {
      if (!(yield* keptUp)) return
      yield* addMissing(missing.map(({ name }) => name))
      found = yield* read
    }
    seen = found
    yield* warnOfNamesakes(found.instances)
    lastEndedMillis = Math.max(lastEndedMillis, ...found.instances.map(({ ended_at }) => Number(ended_at ?? 0)))
    yield* follow(found)
    yield* measure(found)
  })

  /** Does this instance's part. */
  const follow = Effect.fnUntraced(function* (found: typeof seen) {
    const there = found.instances.filter(isThere)
    const ids = new Set(there.map(({ id }) => id))
    const lacks = lacksOf(found.leases)
    const targets = Assignment.assign(
      there.map((each) => ({
        id: each.id,
        state: each.id === id ? (draining ? "draining" : "live") : each.state,
        startedMillis: Number(each.started_at),
        lacks: new Set(each.id === id ? lacks : detailsOf(each).lacks)
      })),
      found.leases.map(({ instance, name }) => ({
        name,
        holder: instance !== null && ids.has(instance) ? instance : undefined
      }))
    )
    const wanted: Array<LeaseName> = []
    for (const row of found.leases) {
      const entry = entries.get(row.name)
      const target = targets.get(row.name)
      if (row.instance === id) {
        if (entry === undefined) {
          // Taken by a statement whose answer was lost, or left behind.
          releasable.set(row.name, Number(row.epoch))
          sooner.openUnsafe()
          continue
        }
        if (entry.epoch !== undefined && entry.epoch !== Number(row.epoch))
          lose(entry, "it has passed on and come back")
        if (!isStoodFor(entry) || (target !== undefined && target !== id)) {
          entry.epoch = Number(row.epoch)
          if (entry.hold !== undefined) end(entry, false)
          else if (entry.ending === undefined) {
            releasable.set(row.name, Number(row.epoch))
            sooner.openUnsafe()
          }
          continue
        }
        entry.epoch = Number(row.epoch)
        releasable.delete(row.name)
        begin(entry)
      } else {
        releasable.delete(row.name)
        if (entry === undefined) continue
        if (entry.epoch !== undefined) lose(entry, "another server has it")
        const isFree = row.instance === null || !ids.has(row.instance)
        if (isFree && target === id && !draining && isStoodFor(entry) && entry.ending === undefined) {
          wanted.push(row.name)
        }
      }
    }
    if (wanted.length === 0 || !(yield* keptUp)) return
    const taken = yield* take(wanted)
    for (const { epoch, name } of taken) {
      const entry = entries.get(name)
      if (entry === undefined) continue
      entry.epoch = Number(epoch)
      yield* Metric.update(Metric.withAttributes(ClusterMetrics.takenTotal, { kind: kindOf(name) }), 1)
      begin(entry)
    }
    if (taken.length > 0) {
      yield* Effect.logDebug("leases taken").pipe(
        Effect.annotateLogs({ leases: taken.map(({ name }) => name).join(" ") })
      )
      seen = {
        ...seen,
        leases: seen.leases.map((row) => {
          const got = taken.find(({ name }) => name === row.name)
          return got === undefined ? row : { ...row, epoch: got.epoch, instance: id, since: nowAt(found) }
        })
      }
      signals.send("leases")
    }
  })

  const nowAt = ({ instances }: typeof seen): number => Number(instances[0]?.now ?? 0)

  const measure = Effect.fnUntraced(function* ({ instances, leases }: typeof seen) {
    for (const state of ["live", "draining"]) {
      yield* Metric.update(
        Metric.withAttributes(ClusterMetrics.instances, { state }),
        instances.filter((each) => each.state === state).length
      )
    }
    for (const kind of ["zone", "job"]) {
      const held = [...entries.values()].filter(({ hold, name }) => hold !== undefined && kindOf(name) === kind)
      yield* Metric.update(Metric.withAttributes(ClusterMetrics.held, { kind }), held.length)
      const ids = new Set(instances.filter(isThere).map(({ id }) => id))
      const free = leases.filter(
        ({ instance, name }) =>
          kindOf(name) === kind && (instance === null || !ids.has(instance)) && !entries.get(name)?.hold
      )
      yield* Metric.update(Metric.withAttributes(ClusterMetrics.free, { kind }), free.length)
    }
  })

  // -------------------------------------------------------------------------------------------------------------------
  // The loop
  // -------------------------------------------------------------------------------------------------------------------

  const turn = Effect.gen(function* () {
    sooner.closeUnsafe()
    yield* renew
    if (failing) {
      failing = false
      yield* Effect.logInfo("this server proves again to the cluster that it lives")
    }
    yield* look
    if (elapsed() - prunedElapsed >= pruneMillis) {
      prunedElapsed = elapsed()
      if (yield* keptUp) yield* prune
    }
  }).pipe(
    Effect.catchCause((cause) => {
      // An interruption too is a failure here, as when a driver ends its connection: that of the loop itself does not come by.
      const isNew = !failing
      failing = true
      return renewals("failed").pipe(
        Effect.andThen(
          isNew
            ? Effect.logWarning("this server could not prove to the cluster that it lives, will try again").pipe(
                Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)), validMillis: Math.round(remaining()) })
              )
            : Effect.void
        )
      )
    })
  )

  /**
   * Looks at the others between two turns. Only how long each has been silent: the sooner a renewal is seen, the sooner its
   * lease is over for whoever looks. What fails here the next turn tells of.
   */
  const glance = Effect.suspend(() =>
    isAlone() || failing || remaining() < enoughMillis
      ? Effect.void
      : own
          .use(
            (sql) => sql<ShownRow>`
              SELECT id, state, renewed_at FROM instance WHERE state IN ('live', 'draining')
              ORDER BY started_at DESC LIMIT ${shownMax}`
          )
          .pipe(Effect.map(note), Effect.ignore)
  )

  /** Between two turns, unless there is something to do; never less than a moment. Who is about to be dead is looked at then. */
  const pause = Effect.gen(function* () {
    yield* Effect.sleep(Math.min(renewMillis, gatherMillis))
    const startedElapsed = elapsed() - gatherMillis
    for (let glances = 1; ; glances++) {
      const due = [...seen.instances.map(leftOf), restsUntilElapsed - elapsed()].filter((left) => left > 0)
      const turnMillis = startedElapsed + (failing ? renewMillis / 2 : renewMillis) - elapsed()
      const pauseMillis = Math.min(turnMillis, ...due)
      const glanceMillis = startedElapsed + (glances * renewMillis) / looksPerTurn - elapsed()
      const isGlance = glances < looksPerTurn && glanceMillis < pauseMillis
      const woken = yield* Effect.timeoutOption(sooner.await, Math.max(0, isGlance ? glanceMillis : pauseMillis))
      if (!isGlance || Option.isSome(woken)) return
      yield* glance
    }
  })

  const leave = Effect.gen(function* () {
    for (const entry of entries.values()) end(entry, false)
    // Nobody else is to begin what has not ended here, for as long as nobody else may.
    const endings = [...entries.values()].flatMap(({ ending }) => (ending === undefined ? [] : [ending]))
    yield* Effect.timeoutOption(Fiber.awaitAll(endings), Math.max(0, remaining()))
    yield* own
      .use((sql) =>
        Effect.andThen(
          sql`UPDATE cluster_lease SET instance = NULL, since = ${sql.literal(databaseNow)} WHERE instance = ${id}`,
          sql`UPDATE instance SET state = 'left', ended_at = ${sql.literal(databaseNow)} WHERE id = ${id} AND state <> 'dead'`
        )
      )
      .pipe(
        Effect.timeoutOption(leaveMillis),
        Effect.catch((error) =>
          Effect.logWarning("the cluster could not be told that this server ends, it will find out").pipe(
            Effect.annotateLogs({ reason: detailOf(error) })
          )
        )
      )
    signals.send("leases")
  })

  yield* join
  yield* Effect.addFinalizer(() => leave)
  yield* look
  yield* signals.listen("leases", () => sooner.openUnsafe())
  yield* Effect.acquireRelease(
    Effect.sync(() => failover.onMoved(moved)),
    (stop) => Effect.sync(stop)
  )
  yield* Effect.andThen(pause, turn).pipe(Effect.forever, Effect.forkScoped)
  yield* Effect.forkScoped(Effect.forever(watch))

  // -------------------------------------------------------------------------------------------------------------------
  // What others ask
  // -------------------------------------------------------------------------------------------------------------------

  const whileHeld: Cluster["Service"]["whileHeld"] = <E, R>(
    leaseName: LeaseName,
    work: (held: Held) => Effect.Effect<void, E, R>
  ) =>
    Effect.gen(function* () {
      const fork = Effect.runForkWith(yield* Effect.context<R>())
      const attempt = (held: Held): Effect.Effect<void, never, R> =>
        Effect.catchCause(work(held), (cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.interrupt
            : Effect.logError("work of the cluster failed, it is begun again", cause).pipe(
                Effect.annotateLogs({ lease: leaseName }),
                Effect.andThen(Effect.sleep(againMillis)),
                Effect.andThen(Effect.suspend(() => attempt(held)))
              )
        )
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          let entry = entries.get(leaseName)
          if (entry === undefined) {
            entry = {
              name: leaseName,
              standers: new Set(),
              epoch: undefined,
              hold: undefined,
              ending: undefined,
              hangs: false,
              handing: false
            }
            entries.set(leaseName, entry)
          }
          const stander: Stander = { begin: (held) => fork(attempt(held)), fiber: undefined, leaving: false }
          entry.standers.add(stander)
          const { hold } = entry
          if (hold !== undefined && entry.ending === undefined) stander.fiber = stander.begin(hold)
          sooner.openUnsafe()
          return { entry, stander }
        }),
        ({ entry, stander }) =>
          Effect.gen(function* () {
            // The lease is not another's before the work has ended, so it stays among the standers until then.
            stander.leaving = true
            if (entry.hold !== undefined && !isStoodFor(entry)) end(entry, false)
            if (stander.fiber !== undefined) yield* Fiber.interrupt(stander.fiber)
            if (entry.ending !== undefined) yield* Fiber.await(entry.ending)
            entry.standers.delete(stander)
            if (isOver(entry)) entries.delete(leaseName)
            sooner.openUnsafe()
          })
      )
    })

  const held = (leaseName: LeaseName): Held | undefined => {
    const hold = entries.get(leaseName)?.hold
    return hold !== undefined && hold.isValid() ? hold : undefined
  }

  /** A transaction that has not gone on for this long is ended by PostgreSQL, long before its lease can pass. */
  const idleMillis = Math.max(500, Math.floor(leaseMillis / 2))

  const fence: Cluster["Service"]["fence"] = Effect.fnUntraced(function* (leaseName) {
    const hold = held(leaseName)
    if (hold === undefined) return yield* new LeaseLost({ lease: leaseName })
    const [row] = yield* sql<{ readonly epoch: number | bigint }>`
      SELECT epoch, set_config('idle_in_transaction_session_timeout', ${`${idleMillis}`}, true) AS idle
      FROM cluster_lease WHERE name = ${leaseName} AND instance = ${id} AND epoch = ${hold.epoch} FOR SHARE`
    if (row !== undefined) return
    sooner.openUnsafe()
    return yield* new LeaseLost({ lease: leaseName })
  })

  const drain = Effect.gen(function* () {
    if (!draining) {
      draining = true
      yield* Effect.logInfo("this server hands over what it does for the cluster")
    }
    const isDone = () => isAlone() || ![...entries.values()].some(({ epoch }) => epoch !== undefined)
    sooner.openUnsafe()
    const untilElapsed = elapsed() + 2 * leaseMillis
    yield* Effect.sleep(gatherMillis)
    while (!isDone() && elapsed() < untilElapsed) yield* Effect.sleep(gatherMillis)
  })

  const onNewLife: Cluster["Service"]["onNewLife"] = (listener) =>
    Effect.acquireRelease(
      Effect.sync(() => void lifeListeners.add(listener)),
      () => Effect.sync(() => lifeListeners.delete(listener))
    )

  const proven: Cluster["Service"]["proven"] = Effect.suspend(() => {
    // Nobody who is alone is declared dead.
    if (remaining() > 0 || isAlone()) return Effect.succeed(true)
    sooner.openUnsafe()
    return Effect.map(Effect.timeoutOption(renewedLatch.await, leaseMillis / 3), Option.isSome)
  })

  const isAlone = () => !seen.instances.some((each) => isThere(each) && each.id !== id)

  return {
    get self() {
      return { id, name }
    },
    isAlone,
    instances: Effect.sync(() =>
      seen.instances
        .map((each): InstanceStatus => ({
          id: each.id,
          name: each.name,
          state: each.id === id && draining && each.state === "live" ? "draining" : each.state,
          version: each.version,
          startedMillis: Number(each.started_at),
          renewedMillis: Number(each.renewed_at),
          sessions: detailsOf(each).sessions,
          isSelf: each.id === id
        }))
        .sort((a, b) => a.startedMillis - b.startedMillis || (a.id < b.id ? -1 : 1))
    ),
    leases: Effect.sync(() => {
      const names = new Map(seen.instances.map((each) => [each.id, each]))
      return seen.leases.map((row): LeaseStatus => {
        const holder = row.instance === null ? undefined : names.get(row.instance)
        return {
          name: row.name,
          epoch: Number(row.epoch),
          holder: holder !== undefined && isThere(holder) ? { id: holder.id, name: holder.name } : undefined,
          sinceMillis: Number(row.since)
        }
      })
    }),
    held,
    whileHeld,
    fence,
    endedMillis: () => lastEndedMillis,
    life: () => life,
    proven,
    onNewLife,
    drain
  }
})

/** How often others are looked at from one renewal to the next. */
const looksPerTurn = 3

/** Wakes that come together are one turn. */
const gatherMillis = 20

const detailsOf = ({ details }: { readonly details: string }): Details => {
  const said = JSON.parse(details) as Partial<Details>
  return { sessions: said.sessions ?? 0, lacks: said.lacks ?? [], application: said.application }
}
