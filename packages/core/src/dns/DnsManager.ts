/**
 * Keeps PowerDNS in line with the registry, name by marked name.
 *
 * For each zone there is one writer: a fiber that takes the marked names and has
 * them published (`dns/Publisher`). What arrives meanwhile waits and goes together
 * in the next batch.
 *
 * Promises: a name is looked at until it was published or parked; a failure of
 * PowerDNS delays, and loses nothing; no zone waits through the pauses of another
 * that fails. Leaves to others: who marks names (`registry/Registry`), and finding
 * drift (`dns/Reconciler`).
 *
 * A zone that comes while we run is made ready like those of the start, and one
 * that goes is written no more: its writer ends, whatever it is about to do.
 *
 * Of several servers on one registry each zone has one that writes it
 * (`cluster/Cluster`): whoever gets it begins as after a restart; whoever loses
 * it begins no write any more, cuts off the one under way, and nothing that it
 * still does in the registry counts. What such a write may have left is marked
 * by whoever sent it, for whoever writes the zone by then.
 */
import {
  Cause,
  Clock,
  Context,
  Effect,
  Exit,
  Fiber,
  FiberMap,
  Latch,
  Layer,
  Option,
  Schedule,
  Scope,
  Semaphore
} from "effect"
import * as Metric from "effect/Metric"
import type { SqlError } from "effect/sql"
import { Cluster, type Held, LeaseLost, zoneLease } from "../cluster/Cluster.ts"
import * as Jobs from "../cluster/Jobs.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { PowerDnsDatabases } from "../powerdns/PowerDnsDatabases.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import { WriteGuard } from "../powerdns/WriteGuard.ts"
import * as Loss from "../storage/Loss.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Acknowledgements } from "./Acknowledgements.ts"
import * as DnsMetrics from "./DnsMetrics.ts"
import { type Claim, Outbox } from "./Outbox.ts"
import * as Pace from "./Pace.ts"
import { Provisioner, type SeenSerial } from "./Provisioner.ts"
import * as Publisher from "./Publisher.ts"
import { Serving } from "./Serving.ts"
import { Zones } from "./Zones.ts"

export interface DnsManagerOptions {
  /** Names in one PATCH at the most. */
  readonly batchNamesMax: number
  /** Zones written at the same time; each takes one API connection. As many may have their first batch beside them. */
  readonly zonesAtOnceMax: number
  /** How often the outbox is asked without having been woken, in milliseconds. */
  readonly pollMillis: number
  /** The longest pause between two attempts at a zone that fails, in milliseconds. */
  readonly retryMillisMax: number
  /** The longest rest of a zone's writer because its last batch took long, in milliseconds. */
  readonly restMillisMax: number
  /** Batches of a zone in a second while it is busy; full ones come as they are. */
  readonly batchesPerSecond: number
  /**
   * How long after a write that ended without an answer, and the first one after it that had one, its names are written
   * once more, in milliseconds. PowerDNS may still take such a write, even after a newer one; by then it has.
   */
  readonly doubtMillis: number
  /** How long a batch under way may take to end when the zone is to be another server's, in milliseconds. */
  readonly handOverMillisMax: number
}

export const defaultOptions: DnsManagerOptions = {
  batchNamesMax: 2000,
  zonesAtOnceMax: 4,
  pollMillis: 1000,
  retryMillisMax: 2000,
  restMillisMax: 200,
  batchesPerSecond: Pace.perSecondByDefault,
  doubtMillis: 15_000,
  handOverMillisMax: 1000
}

/** How the writer of a zone is doing; of a zone that another server writes nothing is known here. */
export interface ZoneStatus {
  readonly zone: DomainName
  /** This server writes it. */
  readonly writing: boolean
  /** PowerDNS has the zone, as far as we know. */
  readonly ready: boolean
  /** Why the last attempt failed; undefined once one succeeded. */
  readonly error: string | undefined
}

export class DnsManager extends Context.Service<
  DnsManager,
  {
    readonly status: Effect.Effect<ReadonlyArray<ZoneStatus>>
  }
>()("@prism-dns/core/dns/DnsManager") {
  static readonly layer = (options: Partial<DnsManagerOptions> = {}) =>
    Layer.effect(DnsManager, make({ ...defaultOptions, ...options }))
}

type PublishError = PowerDnsError | SqlError.SqlError
/** A lease that is lost is no failure: the zone is let go. */
type WriterError = PublishError | LeaseLost

/** Names marked in one transaction when they may have been written late. */
const lateNamesAtOnce = 1000

/** Zones whose secondaries are asked at once. */
const looksAtOnce = 16

/** Names that are remembered because they may have been written late. */
const lateNamesMax = 100_000

/**
 * Why secondaries are asked how far they are with a zone.
 * - `begun`: this server has come to write it.
 * - `moved`: another database has come to lead.
 * - `unheard`: a secondary still lacks something, some time after it was told.
 */
type Occasion = "begun" | "moved" | "unheard" | "unheard for long"

/** Errors of one kind in a row are one line in the log: an outage words itself differently from attempt to attempt. */
const kindOf = (error: PublishError): string => {
  if (error._tag === "SqlError") return "database"
  const { _tag } = error.reason
  if (_tag === "Unreachable" || _tag === "Uncertain" || _tag === "BackendFailed") return "away"
  return _tag
}

const make = Effect.fnUntraced(function* (options: DnsManagerOptions) {
  const zones = yield* Zones
  const cluster = yield* Cluster
  const outbox = yield* Outbox
  const databases = yield* PowerDnsDatabases
  const acknowledgements = yield* Acknowledgements
  const provisioner = yield* Provisioner
  const serving = yield* Serving

  const errors = new Map<DomainName, { readonly kind: string; readonly reason: string }>()
  /** Full batches of a zone in a row. */
  const fullBatches = new Map<DomainName, number>()
  const paces = new Map<DomainName, Pace.Pace>()
  /** Zones that this server writes. */
  const holding = new Map<DomainName, Held>()
  /** What was in a write of a zone that was under way when the zone was lost, by name. */
  const late = new Map<DomainName, Map<DomainName, Claim>>()
  const isLate = yield* Latch.make(false)
  const publisher = yield* Publisher.make({
    doubtMillis: options.doubtMillis,
    isHeld: (zone) => holding.get(zone)?.isValid() === true,
    noteLate: (zone, claims) => {
      const noted = late.get(zone) ?? new Map()
      for (const claim of claims) if (noted.size < lateNamesMax) noted.set(claim.name, claim)
      late.set(zone, noted)
      isLate.openUnsafe()
    }
  })
  const hasSeveral = databases.all.length > 1
  /** Zones whose secondaries are to be asked how far they are, where there are several databases. */
  const due = new Map<DomainName, Occasion>()
  const isDue = yield* Latch.make(false)
  /** Zones that are to be made ready once more, with what secondaries answered. */
  const renewals = new Map<DomainName, { readonly seen: SeenSerial | undefined }>()

  const failed = Effect.fnUntraced(function* (zone: DomainName, error: PublishError) {
    if (error._tag === "PowerDnsError" && error.reason._tag === "NotFound") publisher.doubtReady(zone)
    yield* Metric.update(Metric.withAttributes(DnsMetrics.failuresTotal, { zone }), 1)
    const reason = error._tag === "SqlError" ? `the registry's database: ${detailOf(error)}` : error.message
    const kind = kindOf(error)
    const isNew = errors.get(zone)?.kind !== kind
    errors.set(zone, { kind, reason })
    if (isNew) {
      yield* Effect.logWarning("publishing is held up, will try again").pipe(Effect.annotateLogs({ zone, reason }))
    }
  })

  /** A fault of ours must neither pass in silence nor end the zone's writer: the poll starts it again. */
  const faulty = Effect.fnUntraced(function* (zone: DomainName, defect: unknown) {
    yield* Metric.update(Metric.withAttributes(DnsMetrics.failuresTotal, { zone }), 1)
    const reason = `a fault of the server: ${defect instanceof Error ? defect.message : String(defect)}`
    const isNew = errors.get(zone)?.kind !== reason
    errors.set(zone, { kind: reason, reason })
    if (isNew) {
      yield* Effect.logError("publishing failed by a fault of the server, will try again", Cause.die(defect)).pipe(
        Effect.annotateLogs({ zone })
      )
    }
    yield* Effect.sleep(options.retryMillisMax)
  })

  const succeeded = Effect.fnUntraced(function* (zone: DomainName) {
    if (errors.delete(zone)) {
      yield* Effect.logInfo("publishing goes on").pipe(Effect.annotateLogs({ zone }))
    }
  })

  /** Until it is done; undefined once the zone is not ours to write any more. */
  const patiently = <A>(zone: DomainName, effect: Effect.Effect<A, WriterError>): Effect.Effect<A | undefined> =>
    effect.pipe(
      Effect.asSome,
      Effect.catchTag("LeaseLost", () => Effect.succeedNone),
      // A write that was withheld: the same, before the registry says so.
      Effect.catchIf(
        (error) => error._tag === "PowerDnsError" && error.reason._tag === "Withheld",
        () => Effect.succeedNone
      ),
      Effect.tapError((error) => failed(zone, error)),
      Effect.retry(
        Schedule.min([Schedule.exponential(100), Schedule.spaced(options.retryMillisMax)]).pipe(Schedule.jittered)
      ),
      Effect.tap((done) => (Option.isSome(done) ? succeeded(zone) : Effect.void)),
      Effect.map(Option.getOrUndefined),
      Effect.orDie // unreachable: the schedule never ends
    )

  const slots = yield* Semaphore.make(options.zonesAtOnceMax)
  /** Those whose first batch is to come wait for each other, and for no other. */
  const firstSlots = yield* Semaphore.make(options.zonesAtOnceMax)

  /** One batch, or at least a zone that is ready for one. It is taken anew at each attempt: what is due may have changed. */
  const publishBatch = (name: DomainName) =>
    patiently(
      name,
      Effect.suspend(() =>
        (publisher.hasBegun(name) ? slots : firstSlots).withPermit(
          Effect.gen(function* () {
            const zone = zones.find(name)
            if (zone === undefined || !holding.has(name) || hasLeft.has(name)) return nothing
            // Removals wait while there is something new to say, but not for ever.
            const full = fullBatches.get(name) ?? 0
            const first = full % removalsTurn === removalsTurn - 1 ? "removals" : "changes"
            const limit = publisher.hasBegun(name)
              ? options.batchNamesMax
              : Math.min(options.batchNamesMax, firstBatchNamesMax)
            const renewal = renewals.get(name)
            if (renewal !== undefined) {
              yield* publisher.ensureAnew(zone, renewal.seen)
              if (renewals.get(name) === renewal) renewals.delete(name)
            }
            const marks = yield* outbox.due(name, limit, first)
            if (marks.length > 0) yield* publisher.publish(zone, marks)
            else yield* publisher.ensureZone(zone)
            const isFull = marks.length === limit
            fullBatches.set(name, isFull ? full + 1 : 0)
            return { names: marks.length, isFull }
          })
        )
      )
    )

  // A zone named while its writer is at work is looked at again before the writer rests.
  const writers = yield* FiberMap.make<DomainName>()
  const again = new Set<DomainName>()
  /** Zones of which no batch is begun any more. */
  const hasLeft = new Set<DomainName>()

  const drain = Effect.fnUntraced(function* (zone: DomainName) {
    do {
      again.delete(zone)
      // A busy zone rests as long as its last batch took, so that the next one is larger and others have their turn, and
      // keeps its pace. It does not when that batch was full: then the next one is there already.
      while (true) {
        const startMillis = yield* Clock.currentTimeMillis
        const { isFull, names } = (yield* publishBatch(zone)) ?? nothing
        if (names === 0) break
        if (isFull) continue
        const nowMillis = yield* Clock.currentTimeMillis
        const { pace, restMillis } = Pace.after(paces.get(zone) ?? Pace.begin, nowMillis, options.batchesPerSecond)
        paces.set(zone, pace)
        yield* Effect.sleep(Math.max(restMillis, Math.min(nowMillis - startMillis, options.restMillisMax)))
      }
    } while (again.has(zone))
  })

  const start = Effect.fnUntraced(function* (name: DomainName) {
    const held = holding.get(name)
    if (held === undefined || hasLeft.has(name) || zones.find(name) === undefined) return
    again.add(name)
    if (!FiberMap.hasUnsafe(writers, name))
      yield* FiberMap.run(
        writers,
        name,
        Effect.catchDefect(drain(name), (defect) =>
          // The client's own word for a connection that it cannot undo a transaction on.
          Loss.isLost(defect)
            ? Effect.andThen(failed(name, defect), Effect.sleep(options.retryMillisMax))
            : faulty(name, defect)
        ).pipe(Effect.provideService(WriteGuard, held))
      )
  })

  /** One server of the cluster looks what has elapsed, in all zones. */
  const isToMark = yield* Jobs.standFor("elapsed")
  const markElapsed = Effect.gen(function* () {
    if (!isToMark()) return
    const marked = yield* outbox.markElapsed(yield* Clock.currentTimeMillis, elapsedMax, options.doubtMillis)
    // Those that are written here are looked at now; whoever writes the others is told.
    const others = [...marked].filter((zone) => !holding.has(zone))
    if (others.length > 0) yield* outbox.wake(others)
  })

  const poll = markElapsed.pipe(
    Effect.andThen(Effect.suspend(() => outbox.dueZones([...holding.keys()]))),
    Effect.catch((error) =>
      Effect.as(
        Effect.logWarning("the outbox could not be read").pipe(Effect.annotateLogs({ reason: detailOf(error) })),
        []
      )
    ),
    Effect.flatMap(Effect.forEach(start, { discard: true })),
    Effect.andThen(Effect.sleep(options.pollMillis)),
    Effect.forever
  )
  const listen = outbox.awaitWake.pipe(Effect.flatMap(Effect.forEach(start, { discard: true })), Effect.forever)

  const forget = (name: DomainName) => {
    publisher.forget(name)
    again.delete(name)
    errors.delete(name)
    due.delete(name)
    renewals.delete(name)
    fullBatches.delete(name)
    paces.delete(name)
  }

  /** Ends all that is under way in a zone. The batch in hand may end, where another server waits for it. */
  const letGo = Effect.fnUntraced(function* (name: DomainName, held: Held) {
    const writer = Option.getOrUndefined(FiberMap.getUnsafe(writers, name))
    if (writer !== undefined && held.isValid() && !cluster.isAlone()) {
      again.delete(name)
      hasLeft.add(name)
      yield* Effect.timeoutOption(Fiber.await(writer), Math.min(options.handOverMillisMax, held.remainingMillis()))
    }
    yield* FiberMap.remove(writers, name)
    hasLeft.delete(name)
    holding.delete(name)
    yield* provisioner.forget(name)
    forget(name)
  })

  /** Writes a zone for as long as this server holds it. */
  const tend = (name: DomainName) => (held: Held) =>
    Effect.gen(function* () {
      holding.set(name, held)
      due.set(name, "begun")
      isDue.openUnsafe()
      yield* start(name)
      return yield* Effect.never
    }).pipe(Effect.ensuring(letGo(name, held)))

  const scope = yield* Effect.scope
  const standing = new Map<DomainName, Scope.Closeable>()
  const standFor = Effect.fnUntraced(function* (name: DomainName) {
    const own = yield* Scope.fork(scope)
    standing.set(name, own)
    yield* Scope.provide(cluster.whileHeld(zoneLease(name), tend(name)), own)
  })

  /** A zone is managed no more. What was under way there is let go, and nobody waits for it. */
  const drop = Effect.fnUntraced(function* (name: DomainName) {
    const own = standing.get(name)
    standing.delete(name)
    if (own !== undefined) yield* Scope.close(own, Exit.void)
    acknowledgements.dropZone(name, yield* Clock.currentTimeMillis)
  })

  /** Marks what may have been written late; it is marked once more when nothing can come of it any more (`markElapsed`). */
  const markLate = Effect.gen(function* () {
    yield* isLate.await
    isLate.closeUnsafe()
    const found = [...late].filter(([zone]) => zones.find(zone) !== undefined)
    late.clear()
    for (const [zone, claims] of found) {
      yield* Effect.logWarning("a zone was lost while it was written: its names are looked at again").pipe(
        Effect.annotateLogs({ zone, names: claims.size })
      )
      yield* markAgain(zone, [...claims.values()])
    }
  })

  const markAgain = Effect.fnUntraced(function* (zone: DomainName, claims: ReadonlyArray<Claim>) {
    for (let from = 0; from < claims.length; from += lateNamesAtOnce) {
      const nowMillis = yield* Clock.currentTimeMillis
      yield* outbox
        .recheckSent(zone, claims.slice(from, from + lateNamesAtOnce), nowMillis, nowMillis + options.doubtMillis)
        .pipe(Effect.retry(Schedule.spaced("1 second")), Effect.orDie) // unreachable: it is tried without end
    }
    yield* outbox.wake([zone])
  })

  const moved = new Set<DomainName>()
  const hasMoved = yield* Latch.make(false)
  yield* zones.changed(({ after, before }) => {
    moved.add((after ?? before)!.name)
    hasMoved.openUnsafe()
  })
  const follow = Effect.gen(function* () {
    yield* hasMoved.await
    hasMoved.closeUnsafe()
    const names = [...moved]
    moved.clear()
    for (const name of names) {
      if (zones.find(name) === undefined) yield* drop(name)
      else if (!standing.has(name)) yield* standFor(name)
      else if (holding.has(name)) {
        publisher.doubtReady(name)
        yield* start(name)
      }
    }
  })

  yield* Effect.forEach(zones.all, ({ name }) => standFor(name), { discard: true })
  // Secondaries fetch from the database that leads: they are asked how far they are before it is seen to by the writer.
  if (hasSeveral) {
    const look = Effect.gen(function* () {
      yield* isDue.await
      isDue.closeUnsafe()
      const found = [...due]
      due.clear()
      yield* Effect.forEach(
        found,
        Effect.fnUntraced(function* ([name, why]) {
          const serial = yield* serving.secondarySerial(name)
          if (!holding.has(name)) return
          const isForeign =
            why === "moved" || why === "unheard for long" || renewals.get(name)?.seen?.isForeign === true
          renewals.set(name, { seen: serial === undefined ? undefined : { serial, isForeign } })
          yield* start(name)
        }),
        { concurrency: looksAtOnce, discard: true }
      )
    })
    yield* databases.onLead(() => {
      for (const name of holding.keys()) due.set(name, "moved")
      isDue.openUnsafe()
    })
    yield* serving.onUnheard((name, isLong) => {
      if (!due.has(name)) due.set(name, isLong ? "unheard for long" : "unheard")
      isDue.openUnsafe()
    })
    yield* Effect.forkScoped(Effect.forever(look))
  }

  yield* Effect.forkScoped(Effect.forever(markLate))
  yield* Effect.forkScoped(Effect.forever(follow))
  yield* Effect.forkScoped(poll)
  yield* Effect.forkScoped(listen)

  return DnsManager.of({
    status: Effect.map(cluster.leases, (leases) => {
      const elsewhere = new Set(
        leases.flatMap(({ holder, name }) => (holder === undefined || holder.id === cluster.self.id ? [] : [name]))
      )
      return zones.all.map(({ name }): ZoneStatus => {
        const isElsewhere = elsewhere.has(zoneLease(name)) && !holding.has(name)
        return {
          zone: name,
          writing: holding.has(name),
          ready: isElsewhere || publisher.isReady(name),
          error: errors.get(name)?.reason
        }
      })
    })
  })
})

/**
 * Names in the first batch of a zone that this server comes to write: a small one is soon done, and others take that for the
 * sign that the zone is written again.
 */
const firstBatchNamesMax = 100

const nothing = { names: 0, isFull: false }

/** Of so many full batches in a row one takes removals first. */
const removalsTurn = 10

/** Names whose doubt or quarantine is over that are marked in one poll. */
const elapsedMax = 5000
