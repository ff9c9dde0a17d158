/**
 * What time does to hosts: leases pass, records of hosts that stay away are
 * withdrawn, and in the end the hosts are retired and their names released, as
 * the zone's policy says.
 *
 * Promises: nothing expires within one lease after a start, nor after a pause
 * of the whole process (a suspended machine, a stopped process, a clock that
 * jumped) or of the database, nor after the end of another server that held
 * hosts, because silence of ours is not silence of theirs; of other servers'
 * hosts what they have seen and not written yet is allowed for;
 * a host that beats is not expired, and one whose beats cannot be written is
 * told so before others take it for silent (`Leases.trustUntil`); and when more hosts vanish at once than can
 * be true, none expires before a person's word (the guard `mass-expiry`). The
 * database decides; this loop only asks it in time.
 *
 * Only going offline is guarded here: everything else befalls hosts that are
 * offline, long after, and what it takes out of the DNS counts against the
 * delete budget of `dns/DnsManager`. A clock that is wrong retires such hosts
 * too early at the worst, and by that clock their names are held from then on.
 */
import { Cause, Clock, Duration, Effect, Layer, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import { Cluster } from "../cluster/Cluster.ts"
import { Signals } from "../cluster/Signals.ts"
import type { Host } from "../domain/Host.ts"
import * as Zone from "../domain/Zone.ts"
import type { Cause as MarkCause } from "../dns/Cause.ts"
import { Outbox } from "../dns/Outbox.ts"
import { Zones } from "../dns/Zones.ts"
import * as Generation from "../storage/Generation.ts"
import * as Jobs from "../cluster/Jobs.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import type { HostEvent } from "./Decision.ts"
import * as Guards from "./Guards.ts"
import { placesOf } from "./HostRecords.ts"
import * as HostRepo from "./HostRepo.ts"
import { Leases, type Seen } from "./Leases.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

export interface ExpiryOptions {
  /** How long a host is online after its last beat. */
  readonly leaseMillis: number
  /** How often leases are looked at. */
  readonly sweepMillis: number
  /** How often `last seen` is written. */
  readonly flushMillis: number
  /** Hosts in one transaction at the most. */
  readonly batchMax: number
  /** More of all hosts than this do not expire at once without a person's word, 0 to 1; 1 lets all of them. */
  readonly massExpiryShare: number
  /** Fewer hosts than this always may. */
  readonly massExpiryMin: number
  /** How old the time of a beat may be at the most, in milliseconds, until another server has written it. */
  readonly othersMillisMax: number
}

/** `flushMillis` at the most, where several servers share the registry: they allow for each other's. */
export const sharedFlushMillisMax = 15_000

export const defaultOptions: ExpiryOptions = {
  leaseMillis: 150_000,
  sweepMillis: 5000,
  flushMillis: 10_000,
  batchMax: 500,
  massExpiryShare: 0.15,
  massExpiryMin: 10,
  othersMillisMax: sharedFlushMillisMax + 5000
}

const isWithdrawn = ({ after }: HostRepo.HostChange) => after.withdrawnSinceMillis !== undefined

interface Swept {
  readonly swept_at: number | bigint
  readonly grace_until: number | bigint
  readonly expired_at: number | bigint
}

/** How often the flush looks at the most whether hosts that others hold are free, and in between, in milliseconds. */
const flushLooksMax = 5
const busyMillis = 40

/** Clocks of servers differ by less, in milliseconds. */
const clocksMillisMax = 5000

/** Leases for which servers that end keep hosts from expiring, at the most. */
const leasesWithoutExpiryMax = 3

export const layer = (options: Partial<ExpiryOptions> = {}) => Layer.effectDiscard(run(options))

/**
 * What the loops do in their turns: write when hosts were last seen, and look what time has done to hosts. `thereSinceMillis`:
 * since when this server has been there for hosts. Default: from now on.
 */
export const make = Effect.fnUntraced(function* (given: Partial<ExpiryOptions> = {}, thereSinceMillis?: number) {
  const options = { ...defaultOptions, ...given }
  const sql = yield* SqlClient.SqlClient
  const hosts = HostRepo.make(sql, yield* Signals)
  const cluster = yield* Cluster
  const guards = Guards.make(sql)
  const zones = yield* Zones
  const outbox = yield* Outbox
  const leases = yield* Leases

  /** How long ago hosts were last seen whose leases have passed, as far as the database knows. */
  const silentMillis = () => options.leaseMillis + (cluster.isAlone() ? 0 : options.othersMillisMax)

  const batchesOf = function* (seen: ReadonlyArray<Seen>) {
    for (let i = 0; i < seen.length; i += options.batchMax) yield seen.slice(i, i + options.batchMax)
  }

  /** Writes when hosts were last seen; gives those that others hold at this moment, as who registers them does. */
  const flushFree = Effect.fnUntraced(function* (seen: ReadonlyArray<Seen>) {
    const held: Array<Seen> = []
    for (const batch of batchesOf(seen)) {
      const { busy, moved } = yield* hosts.moveSeenOfFree(batch)
      held.push(...busy)
      leases.flushed(busy.length === 0 ? batch : batch.filter((each) => !busy.includes(each)))
      leases.forget(moved)
      yield* Effect.yieldNow
    }
    return held
  })

  /** Writes when hosts were last seen, and how long they may be told from memory that they were. */
  const flush = Effect.fn("Expiry.flush")(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const isAlone = cluster.isAlone()
    if (!isAlone && leases.trustedUntil() === Number.POSITIVE_INFINITY)
      leases.trustUntil(nowMillis + options.leaseMillis)
    const seen = leases.unflushed()
    let left: ReadonlyArray<Seen> = seen
    for (let looks = 0; left.length > 0 && looks < flushLooksMax; looks++) {
      if (looks > 0) yield* Effect.sleep(busyMillis)
      left = yield* flushFree(left)
    }
    // Held for longer than a registration takes: it is waited for, since what others see must not be too old.
    for (const batch of batchesOf(left)) {
      const flushed = yield* hosts.moveSeen(batch, "wait")
      leases.flushed(batch)
      leases.forget(batch.filter(({ id }) => !flushed.has(id)))
    }
    if (seen.length === 0 && !isAlone) yield* sql`SELECT 1 AS one` // whether it could be written
    // Others may have taken them for silent meanwhile.
    if (leases.trustedUntil() < nowMillis) leases.doubt("all")
    leases.trustUntil(isAlone ? Number.POSITIVE_INFINITY : nowMillis + options.leaseMillis)
  })

  const change = Effect.fnUntraced(function* (
    found: ReadonlyArray<Host>,
    event: HostEvent,
    nowMillis: number,
    apply: (host: Host) => Partial<Host>
  ) {
    const generation = yield* Generation.next(sql)
    const changes = found.map((before) => ({
      event,
      before,
      after: { ...before, ...apply(before), generation },
      actor: Audit.prism
    }))
    yield* hosts.write(changes, nowMillis, event === "offline" ? "expired" : "withdrawn")
    // Whose records were withdrawn before has none to look at. What is withdrawn is said last, and so stands.
    const places = changes
      .filter(({ before }) => before.withdrawnSinceMillis === undefined)
      .sort((a, b) => Number(isWithdrawn(a)) - Number(isWithdrawn(b)))
      .flatMap((each) => {
        const cause: MarkCause = isWithdrawn(each) ? "withdrawn" : "expired"
        return placesOf(zones, each.after).map((place) => ({ ...place, cause }))
      })
    yield* outbox.mark(places, generation, nowMillis, "expired")
  })

  const wake = (found: ReadonlyArray<Host>) =>
    outbox.wake(new Set(found.flatMap((host) => placesOf(zones, host)).map((place) => place.zone)))

  const guardMetric = Metric.withAttributes(RegistryMetrics.guardTripped, { guard: "mass-expiry" })
  /** The alarm was logged by this process. */
  let announced = false

  /** What has vanished of all hosts: leases that have passed, and hosts that went offline within the last lease. */
  const vanished = Effect.fnUntraced(function* (nowMillis: number, seenMillis: number) {
    const silent = yield* hosts.countSilent(nowMillis - silentMillis(), seenMillis)
    const gone = yield* hosts.countGone(nowMillis - options.leaseMillis, seenMillis)
    const count = silent + gone
    if (count < options.massExpiryMin) return { isMass: false, count, of: 0 }
    const of = (yield* hosts.countOnline) + gone
    return { isMass: count > of * options.massExpiryShare, count, of }
  })

  /** The time before which hosts must have been seen last to expire: the guard may hold back some, or all. */
  const expireBefore = Effect.fn("Expiry.guard")(function* (nowMillis: number) {
    const before = nowMillis - silentMillis()
    const standing = yield* guards.find("mass-expiry")
    if (standing === undefined && (yield* hosts.countSilent(before, 0)) === 0) return before
    const all = yield* vanished(nowMillis, 0)
    if (!all.isMass) {
      if (standing !== undefined) {
        yield* guards.lift("mass-expiry", nowMillis)
        yield* Effect.logInfo("the guard mass-expiry is lifted, leases expire as usual").pipe(
          Effect.annotateLogs({ vanished: all.count })
        )
      }
      announced = false
      yield* Metric.update(guardMetric, 0)
      return before
    }
    const allowed = standing?.allowedBeforeMillis
    const rest = allowed === undefined ? all : yield* vanished(nowMillis, allowed)
    if (!rest.isMass) {
      announced = false
      yield* Metric.update(guardMetric, 0)
      return before
    }
    const detail =
      `${rest.count} of ${rest.of} hosts have vanished within one lease, more than ${options.massExpiryShare * 100} %: ` +
      "none of them expires and their records stay. If their beats do not reach this server, mend that: hosts that beat " +
      "again are online. If they are really gone, allow it: the guard mass-expiry, with a reason"
    if (standing?.waiting !== true) yield* guards.trip("mass-expiry", detail, nowMillis)
    yield* Metric.update(guardMetric, 1)
    if (!announced) {
      announced = true
      yield* Effect.logError("too many hosts vanished at once, none expires without a person's word").pipe(
        Effect.annotateLogs({ guard: "mass-expiry", vanished: rest.count, hosts: rest.of, detail })
      )
    }
    return Math.min(before, allowed ?? 0)
  })

  /** Turns hosts offline that were last seen before `beforeMillis`; returns how many were looked at. */
  const expire = Effect.fn("Expiry.expire")(function* (nowMillis: number, beforeMillis: number) {
    const { found, silent } = yield* Effect.gen(function* () {
      const found = yield* hosts.lockExpired(beforeMillis, options.batchMax)
      // A beat may have come since the flush. Whoever is dropped here goes the long way with the next beat, after us.
      const silent = found.filter((host) => leases.drop(host.fqdn, beforeMillis))
      if (silent.length > 0) {
        yield* change(silent, "offline", nowMillis, (host) => {
          const policy = zones.find(host.zone)?.policy.whenOffline
          const atOnce = policy?._tag === "Withdraw" && Duration.toMillis(policy.after) === 0
          return {
            state: "offline",
            offlineSinceMillis: nowMillis,
            withdrawnSinceMillis: atOnce ? nowMillis : undefined
          }
        })
      }
      return { found, silent }
    }).pipe(Audit.inTransaction(sql))
    yield* wake(silent)
    // Those that beat meanwhile are found again until they are flushed: they must not keep us here.
    return silent.length === 0 ? 0 : found.length
  })

  /** Changes all hosts of a zone that `lock` finds, a batch at a time. */
  const changeAll = Effect.fnUntraced(function* (
    event: HostEvent,
    nowMillis: number,
    lock: Effect.Effect<ReadonlyArray<Host>, SqlError.SqlError>,
    apply: (host: Host) => Partial<Host>
  ) {
    let found: ReadonlyArray<Host>
    do {
      found = yield* lock.pipe(
        Effect.tap((list) => (list.length === 0 ? Effect.void : change(list, event, nowMillis, apply))),
        Audit.inTransaction(sql)
      )
      yield* wake(found)
      yield* Effect.yieldNow
    } while (found.length === options.batchMax)
  })

  /** Withdraws, retires and releases hosts that have been away for as long as their zone allows. */
  const age = Effect.fn("Expiry.age")(function* (nowMillis: number) {
    for (const zone of zones.all) {
      if (Zone.isReverse(zone)) continue
      const { holdFor, retireAfter, whenOffline } = zone.policy
      const ago = (duration: Duration.Duration) => nowMillis - Duration.toMillis(duration)
      if (whenOffline._tag === "Withdraw") {
        const due = hosts.lockWithdrawable(zone.name, ago(whenOffline.after), options.batchMax)
        yield* changeAll("withdrawn", nowMillis, due, () => ({ withdrawnSinceMillis: nowMillis }))
      }
      const old = hosts.lockRetirable(zone.name, ago(retireAfter), options.batchMax)
      yield* changeAll("retired", nowMillis, old, (host) => ({
        state: "retired",
        withdrawnSinceMillis: host.withdrawnSinceMillis ?? nowMillis,
        retiredSinceMillis: nowMillis
      }))
      const held = hosts.lockReleasable(zone.name, ago(holdFor), options.batchMax)
      yield* changeAll("released", nowMillis, held, () => ({}))
    }
  })

  /** Between two sweeps; longer is a pause, in which nobody can have renewed a lease. */
  const pauseMillisMax = options.sweepMillis * 3 + 5000
  const isPause = (millis: number) => millis < 0 || millis > pauseMillisMax

  // Nobody can have renewed a lease while we were not there: count from when we came, or came back.
  const startMillis = yield* Clock.currentTimeMillis
  let graceUntilMillis = startMillis + options.leaseMillis
  let lastSweepMillis = startMillis
  /** When hosts could expire last, or could not by what is ours. */
  let lastExpiryMillis = graceUntilMillis
  let isFollowing = false

  /** Goes on where another server has left off, where we were there for hosts already and it has looked until lately. */
  const follow = Effect.fnUntraced(function* (nowMillis: number) {
    isFollowing = true
    const [row] = yield* sql<Swept>`SELECT swept_at, grace_until, expired_at FROM expiry`
    if (row === undefined) return
    const sweptMillis = Math.min(nowMillis, Number(row.swept_at) - clocksMillisMax)
    if (sweptMillis < (thereSinceMillis ?? startMillis) || isPause(nowMillis - sweptMillis)) return
    lastSweepMillis = sweptMillis
    graceUntilMillis = Math.min(graceUntilMillis, Number(row.grace_until))
    lastExpiryMillis = Math.min(lastExpiryMillis, Number(row.expired_at))
  })

  /** Tells whoever looks next, where that may be another server. */
  const keep = (nowMillis: number) =>
    sql.onDialectOrElse({
      pg: () => sql`
        INSERT INTO expiry (one, swept_at, grace_until, expired_at)
        VALUES (1, ${nowMillis}, ${graceUntilMillis}, ${lastExpiryMillis})
        ON CONFLICT (one) DO UPDATE SET swept_at = excluded.swept_at, grace_until = excluded.grace_until,
          expired_at = excluded.expired_at`,
      orElse: () => sql`SELECT id FROM host LIMIT 1` // whether the database is there
    })

  const sweep = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    if (!isFollowing) yield* follow(nowMillis)
    const pauseMillis = nowMillis - lastSweepMillis
    lastSweepMillis = nowMillis
    if (isPause(pauseMillis)) {
      graceUntilMillis = nowMillis + options.leaseMillis
      lastExpiryMillis = graceUntilMillis
      yield* Effect.logWarning("the process was paused or the clock jumped; no lease expires for one lease").pipe(
        Effect.annotateLogs({ pauseMillis })
      )
    }
    // Hosts of a server that has ended are on their way to another one. Servers that end again and again do not keep all for ever.
    const isEnding =
      nowMillis < cluster.endedMillis() + options.leaseMillis &&
      nowMillis < lastExpiryMillis + options.leaseMillis * leasesWithoutExpiryMax
    if (nowMillis < graceUntilMillis || isEnding) {
      yield* keep(nowMillis)
      const standing = yield* guards.find("mass-expiry")
      yield* Metric.update(guardMetric, standing?.waiting === true ? 1 : 0)
      // Those that were offline before are none of its hosts.
      if (nowMillis >= graceUntilMillis) yield* age(nowMillis)
      return
    }
    lastExpiryMillis = nowMillis
    yield* flush()
    const beforeMillis = yield* expireBefore(nowMillis)
    while ((yield* expire(nowMillis, beforeMillis)) === options.batchMax) yield* Effect.yieldNow
    yield* age(nowMillis)
    yield* keep(nowMillis)
  }).pipe(
    // Nobody can renew a lease by a database that is away: count from when it is back.
    Effect.tapError(() =>
      Effect.map(Clock.currentTimeMillis, (nowMillis) => {
        graceUntilMillis = nowMillis + options.leaseMillis
        lastExpiryMillis = graceUntilMillis
      })
    )
  )

  return { flush: flush(), sweep }
})

const guarded = (name: string, effect: Effect.Effect<void, SqlError.SqlError>) =>
  effect.pipe(
    Effect.catch((error) =>
      Effect.logWarning(`${name} failed, will try again`).pipe(Effect.annotateLogs({ reason: detailOf(error) }))
    ),
    // A fault of ours must not end the loop, and hosts with it stay online for ever.
    Effect.catchDefect((defect) => Effect.logError(`${name} failed, will try again`, Cause.die(defect)))
  )

const run = Effect.fnUntraced(function* (given: Partial<ExpiryOptions>) {
  const options = { ...defaultOptions, ...given }
  const { flush } = yield* make(options)
  const thereSinceMillis = yield* Clock.currentTimeMillis
  // Of several servers one looks at leases; who begins to goes on where the last one left off.
  yield* make(options, thereSinceMillis).pipe(
    Effect.flatMap(({ sweep }) =>
      Effect.forever(Effect.andThen(guarded("the sweep of leases", sweep), Effect.sleep(options.sweepMillis)))
    ),
    (work) => Jobs.once("expiry", work)
  )
  const cluster = yield* Cluster
  /** Often enough for others, and for one that fails to be told apart from one that is late. */
  const untilFlushMillis = () =>
    cluster.isAlone() ? options.flushMillis : Math.min(options.flushMillis, options.leaseMillis / 4)
  yield* Effect.suspend(() => Effect.sleep(untilFlushMillis())).pipe(
    Effect.andThen(guarded("the flush of last seen", flush)),
    Effect.forever,
    Effect.forkScoped
  )
  // What was seen last is known after a restart too.
  yield* Effect.addFinalizer(() => guarded("the last flush of last seen", flush))
})
