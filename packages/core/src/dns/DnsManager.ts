/**
 * Keeps PowerDNS in line with the registry, name by marked name.
 *
 * For each zone there is one writer: a fiber that takes the marked names,
 * computes what should be, compares it with what is, sends the difference as
 * one PATCH, and then clears the marks at the generation it published. What
 * arrives meanwhile waits and goes together in the next batch.
 *
 * Promises: a name is looked at until it was published or parked; a failure of
 * PowerDNS delays, and loses nothing; a batch that PowerDNS refuses is halved
 * until the bad name stands alone, is parked with its reason, and the others go
 * through; a record that is not ours is not overwritten. Leaves to others: who
 * marks names (`registry/Registry`), and finding drift (`dns/Reconciler`).
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
  Duration,
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
import * as RRset from "../domain/RRset.ts"
import type { Zone } from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import { type Database, PowerDnsDatabases } from "../powerdns/PowerDnsDatabases.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import { WriteGuard } from "../powerdns/WriteGuard.ts"
import * as Loss from "../storage/Loss.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Acknowledgements } from "./Acknowledgements.ts"
import { type Debt, Debts } from "./Debts.ts"
import * as DeleteBudget from "./DeleteBudget.ts"
import * as DnsMetrics from "./DnsMetrics.ts"
import * as ForeignNames from "./ForeignNames.ts"
import { answered, type Mark, Outbox, type Parking, type Settlement } from "./Outbox.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { Ownership } from "./Ownership.ts"
import * as Pace from "./Pace.ts"
import type * as Plan from "./Plan.ts"
import { Plans } from "./Plans.ts"
import { Provisioner, type SeenSerial } from "./Provisioner.ts"
import * as Publication from "./Publication.ts"
import { managedTypes, RecordSource } from "./RecordSource.ts"
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

/** Names marked in one transaction when a zone is written anew. */
const anewNamesMax = 1000

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
  const source = yield* RecordSource
  const powerdns = yield* PowerDnsClient
  const databases = yield* PowerDnsDatabases
  const debts = yield* Debts
  const acknowledgements = yield* Acknowledgements
  const plans = yield* Plans
  const ownership = yield* Ownership
  const provisioner = yield* Provisioner
  const serving = yield* Serving
  const foreignNames = ForeignNames.make(powerdns, outbox)

  const ready = new Set<DomainName>()
  /** Zones that were made anew and whose names are not all marked yet. */
  const remade = new Set<DomainName>()
  const errors = new Map<DomainName, { readonly kind: string; readonly reason: string }>()
  /** Names of a zone in a write that ended without an answer, until the database knows of it. */
  const doubtful = new Map<DomainName, Set<DomainName>>()
  /** Zones with names in doubt that were not written since. */
  const inDoubt = new Set<DomainName>()
  /** Zones this process has begun to write. */
  const opened = new Set<DomainName>()
  /** Full batches of a zone in a row. */
  const fullBatches = new Map<DomainName, number>()
  const paces = new Map<DomainName, Pace.Pace>()
  /** Zones that this server writes. */
  const holding = new Map<DomainName, Held>()
  /** Names of a zone in a write that was under way when the zone was lost. */
  const late = new Map<DomainName, Set<DomainName>>()
  const isLate = yield* Latch.make(false)
  const hasSeveral = databases.all.length > 1
  /** Zones whose secondaries are to be asked how far they are, where there are several databases. */
  const due = new Map<DomainName, Occasion>()
  const isDue = yield* Latch.make(false)
  /** Zones that are to be made ready once more, with what secondaries answered. */
  const renewals = new Map<DomainName, { readonly seen: SeenSerial | undefined }>()

  /** Begins each transaction that only the zone's writer may make. */
  const fenceOf = (zone: DomainName) => cluster.fence(zoneLease(zone))

  /**
   * Makes sure, once, that PowerDNS has the zone, with the settings publishing relies on. Gives whether it was made, and its
   * names have been marked: then what was read of them before is old.
   */
  const ensureZone = Effect.fnUntraced(function* (zone: Zone) {
    return ready.has(zone.name) ? false : yield* ensureAnew(zone)
  })

  const ensureAnew = Effect.fnUntraced(function* (zone: Zone, seen?: SeenSerial) {
    if (yield* provisioner.ensure(zone, seen)) remade.add(zone.name)
    const isMade = remade.has(zone.name)
    if (isMade) {
      yield* writeAnew(zone)
      remade.delete(zone.name)
    }
    ready.add(zone.name)
    return isMade
  })

  /** The zone has just been made: where we have published into it, it was lost, and all of that is due once more. */
  const writeAnew = Effect.fnUntraced(function* (zone: Zone) {
    let total = 0
    for (let after: DomainName | undefined; ;) {
      const page = yield* outbox.publishedNames(zone.name, after, anewNamesMax)
      const nowMillis = yield* Clock.currentTimeMillis
      const names = page.filter((name) => !ownership.isIgnored(zone.name, name))
      yield* outbox.recheck(zone.name, names, nowMillis, "doubt", fenceOf(zone.name))
      total += names.length
      after = page.at(-1)
      if (page.length < anewNamesMax) break
    }
    if (total === 0) return
    yield* Effect.logWarning("the zone was lost in PowerDNS, all of its names are written anew").pipe(
      Effect.annotateLogs({ zone: zone.name, names: total })
    )
    yield* outbox.wake([zone.name])
  })

  /** Sends the changes of some names as one PATCH; halves what PowerDNS refuses until the bad names stand alone. */
  const write = (
    zone: Zone,
    names: ReadonlyArray<Publication.Decided>
  ): Effect.Effect<ReadonlyArray<Refusal>, PowerDnsError> =>
    powerdns
      .patch(
        zone.name,
        names.flatMap(({ changes }) => changes.map(({ change }) => change))
      )
      .pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error.reason._tag !== "Uncertain") return
            const noted = doubtful.get(zone.name) ?? new Set()
            for (const { name } of names) noted.add(name)
            doubtful.set(zone.name, noted)
          })
        ),
        Effect.map((): ReadonlyArray<Refusal> => {
          foreignNames.wrote(zone.name)
          return []
        }),
        Effect.catchIf(
          ({ reason }) => isAboutContent(reason),
          (error) => {
            const [only] = names
            if (names.length === 1 && only !== undefined) {
              return Effect.succeed([{ name: only.name, reason: error.reason.detail }])
            }
            const middle = names.length >> 1
            return Effect.zipWith(
              write(zone, names.slice(0, middle)),
              Effect.suspend(() => write(zone, names.slice(middle))),
              (first, second) => [...first, ...second]
            )
          }
        )
      )

  /**
   * What was sent under a lease that has passed meanwhile may have come after what another has written since; so may what was
   * cut off in its middle, since the lease is to be another's.
   */
  const noteLate = (zone: Zone, names: ReadonlyArray<Publication.Decided>, exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (!Exit.hasInterrupts(exit) && holding.get(zone.name)?.isValid() === true) return
      const noted = late.get(zone.name) ?? new Set()
      for (const { name } of names) if (noted.size < lateNamesMax) noted.add(name)
      late.set(zone.name, noted)
      isLate.openUnsafe()
    })

  /** What is known of the marked names, and what is to become of them. Looks, and changes nothing. */
  const lookAt = Effect.fnUntraced(function* (zone: Zone, marks: ReadonlyArray<Mark>) {
    const types = managedTypes(zone)
    const names = marks.map((mark) => mark.name)
    const [published, wanted] = yield* Effect.all([outbox.published(zone.name, names), source.desired(zone, names)], {
      concurrency: 2
    })
    const desired = yield* withoutNeedlessPlaceholders(zone, wanted, published)
    const nowMillis = yield* Clock.currentTimeMillis

    // A name we have not written before may hold something of someone else's: look first.
    const isIgnored = (name: DomainName) => ownership.isIgnored(zone.name, name)
    const ignored = names
      .filter(isIgnored)
      .map((name) => ({ name, reason: "a person has said that Prism is to ignore this name" }))
    const newcomers = new Map<DomainName, ReadonlyArray<string>>()
    for (const name of names) {
      if (isIgnored(name)) continue
      const news = newTypes(zone, types, desired.get(name) ?? [], published.get(name))
      if (news.length > 0) newcomers.set(name, news)
    }
    const foreign = newcomers.size === 0 ? [] : yield* findForeign(zone, newcomers, desired, published)
    const leftAlone = [...foreign, ...ignored]
    const notToWrite = new Set(leftAlone.map(({ name }) => name))
    const strays = yield* findStrayPlaceholders(zone, published)
    const decided = marks
      .filter((mark) => !notToWrite.has(mark.name))
      .map((mark) =>
        Publication.decide(mark, {
          types,
          stray: strays.has(mark.name),
          desired: desired.get(mark.name) ?? [],
          published: published.get(mark.name),
          policy: zone.policy,
          nowMillis
        })
      )
    return { decided, leftAlone, nowMillis, published }
  })

  const publish = Effect.fn("DnsManager.publish")(function* (zone: Zone, marks: ReadonlyArray<Mark>) {
    const looking = Effect.andThen(noteDoubts(zone), lookAt(zone, marks))
    // Another may have written the zone until a moment ago, and its death lasts as long as this: so both at once. In a zone
    // that had to be made, what was seen meanwhile says nothing.
    const [isMade, looked] = yield* Effect.all([ensureZone(zone), Effect.exit(looking)], { concurrency: 2 })
    const { decided, leftAlone, nowMillis, published } = yield* isMade ? looking : looked
    const leading = databases.leading()
    const lost = yield* findLost(zone, managedTypes(zone), decided, published)
    const held = yield* holdBeyondBudget(zone, marks, decided)
    const going = decided.filter(({ name }) => !lost.has(name) && !held.has(name))
    const changed = going.filter(({ changes }) => changes.length > 0)

    // From here until it is settled nobody knows what stands at these names, whatever becomes of the PATCH or of us.
    yield* outbox.claim(
      zone.name,
      changed.map(({ name, rrsets }) => ({
        name,
        sent: Publication.sentWith(published.get(name), rrsets),
        types: Publication.sentTypesWith(published.get(name), rrsets)
      })),
      nowMillis,
      fenceOf(zone.name)
    )
    const refusals =
      changed.length === 0 ? [] : yield* Effect.onExit(write(zone, changed), (exit) => noteLate(zone, changed, exit))
    if (changed.length > 0) yield* endDoubts(zone)
    if (zone.dnssec && changed.some((each) => each.changes.some((change) => isDelegation(zone, change)))) {
      yield* rectify(zone)
    }
    // A name that was refused at its first write did not become ours.
    yield* outbox.disclaim(
      zone,
      refusals.map(({ name }) => name).filter((name) => !published.has(name)),
      nowMillis,
      fenceOf(zone.name)
    )
    const refused = [...leftAlone, ...refusals]

    // Where another came to lead meanwhile, each may have taken a part only.
    const debtors = databases.all.filter((each) => each !== leading || each !== databases.leading())
    yield* settle(zone, marks, published, going, refused, debtors)
    yield* count(zone, changed, refused)
  })

  /** Below a delegation PowerDNS signs nothing, once it has looked where one begins: that costs the zone, and is rare. */
  const rectify = (zone: Zone) =>
    powerdns.rectify(zone.name).pipe(
      Effect.andThen(powerdns.flush(zone.name)),
      Effect.catch((error) =>
        Effect.logWarning(
          "a signed zone was not rectified after a delegation changed, it signs more than it should"
        ).pipe(Effect.annotateLogs({ zone: zone.name, reason: error.message }))
      )
    )

  /** A name at which something of someone else's stands exists without a placeholder of ours. */
  const withoutNeedlessPlaceholders = Effect.fnUntraced(function* (
    zone: Zone,
    desired: Plan.RecordsByName,
    published: ReadonlyMap<DomainName, Publication.Published>
  ) {
    const names = Array.from(desired)
      .filter(([name, rrsets]) => !published.has(name) && rrsets.every(NonTerminals.isPlaceholder))
      .map(([name]) => name)
    if (names.length === 0) return desired
    const others = new Set((yield* foreignNames.read(zone.name, names)).map(({ name }) => name))
    return new Map(Array.from(desired).filter(([name]) => !others.has(name)))
  })

  /** Where anything may stand, a placeholder of ours may too, and nothing else tells of it: a late write has left it. */
  const findStrayPlaceholders = Effect.fnUntraced(function* (
    zone: Zone,
    published: ReadonlyMap<DomainName, Publication.Published>
  ) {
    const names = Array.from(published)
      .filter(([, { sent }]) => sent === "anything")
      .map(([name]) => name)
    if (names.length === 0 || !NonTerminals.isKept(zone)) return new Set<DomainName>()
    const found = yield* foreignNames.read(zone.name, names)
    return new Set(found.filter(NonTerminals.isPlaceholder).map(({ name }) => name))
  })

  /** Keeps in the database which names are in doubt, so that a restart does not forget them. */
  const noteDoubts = Effect.fnUntraced(function* (zone: Zone) {
    if (!opened.has(zone.name)) {
      yield* outbox.doubtClaimed(zone.name, yield* Clock.currentTimeMillis, fenceOf(zone.name))
      opened.add(zone.name)
      inDoubt.add(zone.name)
    }
    const names = doubtful.get(zone.name)
    if (names === undefined) return
    yield* outbox.doubt(zone.name, [...names], fenceOf(zone.name))
    doubtful.delete(zone.name)
    inDoubt.add(zone.name)
  })

  /** Now that the zone is written again, sees to it that a late write of before does not have the last word. */
  const endDoubts = Effect.fnUntraced(function* (zone: Zone) {
    yield* noteDoubts(zone)
    if (!inDoubt.has(zone.name)) return
    const untilMillis = (yield* Clock.currentTimeMillis) + options.doubtMillis
    yield* outbox.endDoubts(zone.name, untilMillis, fenceOf(zone.name))
    inDoubt.delete(zone.name)
  })

  /** Names to be deleted that are in doubt, and at which something stands that is not ours: they are left alone. */
  const findLost = Effect.fnUntraced(function* (
    zone: Zone,
    types: ReadonlyArray<string>,
    decided: ReadonlyArray<Publication.Decided>,
    published: ReadonlyMap<DomainName, Publication.Published>
  ) {
    const doubted = decided.filter(({ name, rrsets }) => {
      const known = published.get(name)
      return rrsets.length === 0 && known !== undefined && Publication.isUncertain(known) && known.sent !== "anything"
    })
    const lost = new Set<DomainName>()
    if (doubted.length === 0) return lost
    const found = Map.groupBy(
      yield* foreignNames.read(
        zone.name,
        doubted.map(({ name }) => name)
      ),
      ({ name }) => name
    )
    for (const { name } of doubted) {
      const ours = Publication.typesAt(types, [], published.get(name))
      const standing = (found.get(name) ?? []).filter(({ type }) => ours.includes(type))
      const [other] = Publication.notOurs(published.get(name)!, standing)
      if (other === undefined) continue
      lost.add(name)
      yield* Effect.logWarning(
        "a name that was to be deleted holds a record that Prism did not make, it is left alone"
      ).pipe(Effect.annotateLogs({ zone: zone.name, name, type: other.type, contents: other.contents.join(", ") }))
    }
    yield* outbox.disclaim(zone, [...lost], yield* Clock.currentTimeMillis, fenceOf(zone.name))
    return lost
  })

  /**
   * Deletions that follow from conclusions of ours, and not from a host's or a person's word, wait for a person when there
   * are more than the zone's budget allows. All that wait are counted, so that a mass is not let through by batches.
   */
  const holdBeyondBudget = Effect.fnUntraced(function* (
    zone: Zone,
    marks: ReadonlyArray<Mark>,
    decided: ReadonlyArray<Publication.Decided>
  ) {
    const inferred = decided.filter(({ deletion }) => deletion === "inferred")
    if (inferred.length === 0) return new Set<DomainName>()
    const { deleteBudget } = zone.policy
    const nowMillis = yield* Clock.currentTimeMillis
    const counted = yield* outbox.deletions(zone.name, nowMillis - Duration.toMillis(deleteBudget.window))
    const done = counted.done + counted.underWay
    const names = yield* outbox.countPublished(zone.name)
    const allowed = DeleteBudget.remaining(deleteBudget, names, done)
    const wanted = Math.max(inferred.length, counted.waiting)
    if (wanted <= allowed) return new Set<DomainName>()
    const held = new Set(inferred.map(({ name }) => name))
    const reason = DeleteBudget.sentence(deleteBudget, { published: names, deleted: done, wanted })
    const plan = yield* plans.hold(
      zone.name,
      inferred.flatMap(({ lost, name }) =>
        lost.map((rrset) => ({
          name,
          type: rrset.type,
          before: rrset,
          reason: "its host has been away for too long"
        }))
      ),
      reason,
      fenceOf(zone.name)
    )
    yield* outbox.hold(
      zone.name,
      marks.filter(({ name }) => held.has(name)),
      plan.id,
      reason,
      nowMillis,
      fenceOf(zone.name)
    )
    yield* Metric.update(Metric.withAttributes(DnsMetrics.heldTotal, { zone: zone.name }), held.size)
    yield* Effect.logError("deletions wait for a person").pipe(
      Effect.annotateLogs({ zone: zone.name, names: held.size, plan: plan.id, reason })
    )
    return held
  })

  /** Which names hold record sets, of the types that are new to them, that we did not make and do not want just so. */
  const findForeign = Effect.fnUntraced(function* (
    zone: Zone,
    newcomers: ReadonlyMap<DomainName, ReadonlyArray<string>>,
    desired: Plan.RecordsByName,
    published: ReadonlyMap<DomainName, Publication.Published>
  ) {
    const foreign = new Map<DomainName, Refusal>()
    for (const found of yield* foreignNames.at(zone.name, [...newcomers.keys()])) {
      if (foreign.has(found.name)) continue
      const news = newcomers.get(found.name)!
      // A CNAME stands alone, whoever made what is there.
      const meetsCname = news.includes("CNAME") || found.type === "CNAME"
      const isInTheWay =
        news.includes(found.type) || (meetsCname && !Publication.knownTypes(published.get(found.name)).has(found.type))
      if (!isInTheWay || NonTerminals.isPlaceholder(found)) continue
      if (desired.get(found.name)?.some((wanted) => RRset.equals(wanted, found)) === true) continue
      foreign.set(found.name, {
        name: found.name,
        reason: `${found.type.startsWith("A") ? "an" : "a"} ${found.type} record that Prism did not make stands at this name (${found.contents.join(", ")}); adopt it, remove it, or choose another name`
      })
    }
    return [...foreign.values()]
  })

  const settle = Effect.fnUntraced(function* (
    zone: Zone,
    marks: ReadonlyArray<Mark>,
    published: ReadonlyMap<DomainName, Publication.Published>,
    going: ReadonlyArray<Publication.Decided>,
    refused: ReadonlyArray<Refusal>,
    debtors: ReadonlyArray<Database>
  ) {
    const reasons = new Map(refused.map(({ name, reason }) => [name, reason]))
    const outcomes = new Map(going.map((each) => [each.name, each]))
    const settlements: Array<Settlement> = []
    const parkings: Array<Parking> = []
    let deletions = 0
    for (const { generation, name } of marks) {
      const reason = reasons.get(name)
      const outcome = outcomes.get(name)
      if (reason !== undefined) parkings.push({ name, generation, reason })
      else if (outcome !== undefined) {
        const { deletion, quarantinedUntilMillis, rrsets } = outcome
        const isOurs = rrsets.length > 0 || published.has(name)
        const former = outcome.changes.length === 0 ? undefined : (published.get(name) ?? "nothing")
        settlements.push({ name, generation, rrsets, quarantinedUntilMillis, isOurs, former })
        if (deletion === "inferred" || deletion === "by-plan") deletions += 1
      }
    }
    const atMillis = yield* Clock.currentTimeMillis
    const owed = settlements.flatMap(({ generation, name }): ReadonlyArray<Debt> => {
      const { changes } = outcomes.get(name)!
      const types = [...new Set(changes.map(({ change }) => typeOf(change)))]
      return types.length === 0 ? [] : [{ name, generation, types, unseen: !published.has(name) }]
    })
    const owing = debts.owe(
      zone.name,
      debtors.map(({ name }) => name),
      owed
    )
    const fence = Effect.andThen(fenceOf(zone.name), owing)
    const asked = yield* outbox.settle(zone, settlements, atMillis, deletions, fence)
    if (debtors.length > 0) debts.wake(zone.name)
    yield* outbox.park(zone.name, parkings, atMillis, fenceOf(zone.name))
    for (const { generation, name } of settlements) {
      acknowledgements.settle(zone.name, name, generation, { _tag: "Applied", atMillis })
      // Nothing of ours was there, and nothing is: no name server has anything to show.
      if (!asked.has(name))
        acknowledgements.settle(zone.name, name, generation, { _tag: "Served", atMillis, nodes: [] })
    }
    const changed = going.some(({ changes }) => changes.length > 0)
    serving.published(
      zone.name,
      settlements
        .filter(({ name }) => asked.has(name))
        .map((settlement) => ({
          name: settlement.name,
          generation: settlement.generation,
          rrsets: answered(settlement),
          types: outcomes.get(settlement.name)!.changes.map(({ change }) => typeOf(change)),
          // When the doubt is over the name is marked in the same transaction, and published once more.
          inDoubt: published.get(settlement.name)?.inDoubt === true
        })),
      changed ? powerdns.node : undefined
    )
    for (const { generation, name, reason } of parkings) {
      acknowledgements.settle(zone.name, name, generation, { _tag: "Parked", atMillis, reason })
      yield* Effect.logWarning("name parked").pipe(Effect.annotateLogs({ zone: zone.name, name, reason }))
    }
  })

  const count = Effect.fnUntraced(function* (
    zone: Zone,
    changed: ReadonlyArray<Publication.Decided>,
    refused: ReadonlyArray<Refusal>
  ) {
    const bad = new Set(refused.map(({ name }) => name))
    const results = { written: 0, deleted: 0, refused: refused.length }
    for (const { changes, name } of changed) {
      if (bad.has(name)) continue
      for (const { change } of changes) results[change._tag === "Replace" ? "written" : "deleted"] += 1
    }
    for (const [result, n] of Object.entries(results)) {
      if (n > 0) yield* Metric.update(Metric.withAttributes(DnsMetrics.rrsetsTotal, { zone: zone.name, result }), n)
    }
  })

  const failed = Effect.fnUntraced(function* (zone: DomainName, error: PublishError) {
    if (error._tag === "PowerDnsError" && error.reason._tag === "NotFound") ready.delete(zone)
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
        (opened.has(name) ? slots : firstSlots).withPermit(
          Effect.gen(function* () {
            const zone = zones.find(name)
            if (zone === undefined || !holding.has(name) || hasLeft.has(name)) return nothing
            // Removals wait while there is something new to say, but not for ever.
            const full = fullBatches.get(name) ?? 0
            const first = full % removalsTurn === removalsTurn - 1 ? "removals" : "changes"
            const limit = opened.has(name) ? options.batchNamesMax : Math.min(options.batchNamesMax, firstBatchNamesMax)
            const renewal = renewals.get(name)
            if (renewal !== undefined) {
              yield* ensureAnew(zone, renewal.seen)
              if (renewals.get(name) === renewal) renewals.delete(name)
            }
            const marks = yield* outbox.due(name, limit, first)
            if (marks.length > 0) yield* publish(zone, marks)
            else yield* ensureZone(zone)
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
    for (const known of [ready, remade, inDoubt, opened, again]) known.delete(name)
    foreignNames.forget(name)
    errors.delete(name)
    due.delete(name)
    renewals.delete(name)
    doubtful.delete(name)
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

  /** Marks what may have been written late, now, and once more when nothing can come of it any more. */
  const markLate = Effect.gen(function* () {
    yield* isLate.await
    isLate.closeUnsafe()
    const found = [...late].filter(([zone]) => zones.find(zone) !== undefined)
    late.clear()
    for (const [zone, names] of found) {
      yield* Effect.logWarning("a zone was lost while it was written: its names are looked at again").pipe(
        Effect.annotateLogs({ zone, names: names.size })
      )
      const mark = markAgain(zone, [...names])
      yield* mark
      yield* mark.pipe(Effect.delay(options.doubtMillis), Effect.forkIn(scope))
    }
  })

  const markAgain = Effect.fnUntraced(function* (zone: DomainName, names: ReadonlyArray<DomainName>) {
    for (let from = 0; from < names.length; from += anewNamesMax) {
      const nowMillis = yield* Clock.currentTimeMillis
      yield* outbox
        .recheck(zone, names.slice(from, from + anewNamesMax), nowMillis, "doubt")
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
        ready.delete(name)
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
          ready: isElsewhere || ready.has(name),
          error: errors.get(name)?.reason
        }
      })
    })
  })
})

/**
 * The types that a name is to have and that are not known to be ours there, with one type of hosts all of those. A zone's
 * own name servers are Prism's to write, since it makes zones with them.
 */
const newTypes = (
  zone: Zone,
  hostTypes: ReadonlyArray<string>,
  desired: ReadonlyArray<RRset.RRset>,
  published: Publication.Published | undefined
): ReadonlyArray<string> => {
  if (desired.every(NonTerminals.isPlaceholder)) return []
  const onlyPlaceholder = published !== undefined && Publication.isOnlyPlaceholder(published)
  const known = onlyPlaceholder ? new Set<string>() : Publication.knownTypes(published)
  if (published?.sent === "anything" && known.size === 0) return []
  const hasHosts = hostTypes.some((type) => known.has(type))
  const wanted = desired.map(({ type }) => type)
  const news = wanted.filter(
    (type) =>
      !known.has(type) && !(hasHosts && hostTypes.includes(type)) && !(type === "NS" && desired[0]!.name === zone.name)
  )
  return news.some((type) => hostTypes.includes(type)) ? [...new Set([...hostTypes, ...news])] : news
}

const isDelegation = (zone: Zone, { change }: Plan.PlannedChange): boolean =>
  typeOf(change) === "NS" && RRset.changedName(change) !== zone.name

const typeOf = (change: RRset.RRsetChange): string => (change._tag === "Replace" ? change.rrset.type : change.type)

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

/**
 * True when PowerDNS refuses what was sent, and not the sending: then some of it alone is to blame. The answer 400 says
 * that the body is too large, among other things.
 */
const isAboutContent = (reason: PowerDnsError["reason"]): boolean =>
  reason._tag === "Refused" || (reason._tag === "Malformed" && (reason.status === 400 || reason.status === 413))

/** A name that cannot be published, and why. */
interface Refusal {
  readonly name: DomainName
  readonly reason: string
}
