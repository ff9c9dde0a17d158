/**
 * Publishes a batch of marked names of one zone: computes what should be,
 * compares it with what is, sends the difference as one PATCH, and then clears
 * the marks at the generation it published.
 *
 * Promises: a batch that PowerDNS refuses is halved until the bad name stands
 * alone, is parked with its reason, and the others go through; a record that is
 * not ours is not overwritten; what a write may have left that ended without an
 * answer is written once more when nothing can come of it any more. Leaves to
 * others: when a batch is published, by whom, and again where it fails
 * (`dns/DnsManager`); what one name comes to (`dns/Publication`, pure).
 */
import { Clock, Duration, Effect, Exit } from "effect"
import * as Metric from "effect/Metric"
import { SqlClient, type SqlError } from "effect/sql"
import { Cluster, zoneLease } from "../cluster/Cluster.ts"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import type { Zone } from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import { type Database, PowerDnsDatabases } from "../powerdns/PowerDnsDatabases.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import { Acknowledgements } from "./Acknowledgements.ts"
import { type Debt, Debts, mayBeOurs } from "./Debts.ts"
import * as DeleteBudget from "./DeleteBudget.ts"
import * as DnsMetrics from "./DnsMetrics.ts"
import * as ForeignNames from "./ForeignNames.ts"
import { answered, type Claim, type Mark, Outbox, type Parking, type Settlement } from "./Outbox.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { Ownership } from "./Ownership.ts"
import * as Patches from "./Patches.ts"
import type * as Plan from "./Plan.ts"
import { Plans } from "./Plans.ts"
import { Provisioner, type SeenSerial } from "./Provisioner.ts"
import * as Publication from "./Publication.ts"
import { managedTypes, RecordSource } from "./RecordSource.ts"
import { Serving } from "./Serving.ts"

/** Who writes zones on this server. */
export interface Writer {
  /** As `DnsManagerOptions.doubtMillis`. */
  readonly doubtMillis: number
  /** This server holds the zone's lease. */
  readonly isHeld: (zone: DomainName) => boolean
  /** A write of this was under way when the zone was lost. */
  readonly noteLate: (zone: DomainName, claims: ReadonlyArray<Claim>) => void
}

/** Names marked in one transaction when a zone is written anew. */
const anewNamesMax = 1000

export const make = Effect.fnUntraced(function* (writer: Writer) {
  const sql = yield* SqlClient.SqlClient
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
  /** Names of a zone in a write that ended without an answer, until the database knows of it. */
  const doubtful = new Map<DomainName, Set<DomainName>>()
  /** Zones with names in doubt that were not written since. */
  const inDoubt = new Set<DomainName>()
  /** Zones this process has begun to write. */
  const opened = new Set<DomainName>()

  /** Begins each transaction that only the zone's writer may make. */
  const fenceOf = (zone: DomainName) => cluster.fence(zoneLease(zone))

  /** Publishes the names of `marks`; those that PowerDNS refuses, or that are not ours, are parked with their reasons. */
  const publish = Effect.fn("Publisher.publish")(function* (zone: Zone, marks: ReadonlyArray<Mark>) {
    const looking = Effect.andThen(noteDoubts(zone), lookAt(zone, marks))
    // Another may have written the zone until a moment ago, and its death lasts as long as this: so both at once. In a zone
    // that had to be made, what was seen meanwhile says nothing.
    const [isMade, looked] = yield* Effect.all([ensureForBatch(zone), Effect.exit(looking)], { concurrency: 2 })
    const { decided, foreign, ignored, lost, nowMillis, published } = yield* isMade ? looking : looked
    const leading = databases.leading()
    yield* leaveLost(zone, lost)
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
      Effect.andThen(fenceOf(zone.name), noteOurs(zone, leading, changed))
    )
    const refusals =
      changed.length === 0 ? [] : yield* Effect.onExit(write(zone, changed), (exit) => tellLate(zone, changed, exit))
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
    const refused = [...foreign, ...refusals]

    // Where another came to lead meanwhile, each may have taken a part only.
    const debtors = databases.all.filter((each) => each !== leading || each !== databases.leading())
    yield* settle(zone, marks, published, going, refused, debtors)
    const parked = yield* parkIgnored(zone, ignored)
    yield* count(zone, changed, [...refused, ...parked])
  })

  /**
   * Makes sure, once, that PowerDNS has the zone, with the settings publishing relies on. Gives whether it was made, and its
   * names have been marked: then what was read of them before is old.
   */
  const ensureZone = Effect.fnUntraced(function* (zone: Zone) {
    return ready.has(zone.name) ? false : yield* ensureAnew(zone)
  })

  /** Whoever takes over a zone that may be written as it is writes first, and sees to the rest before its next batch. */
  const ensureForBatch = Effect.fnUntraced(function* (zone: Zone) {
    const isFirst = !opened.has(zone.name) && !ready.has(zone.name) && !remade.has(zone.name)
    return isFirst && (yield* provisioner.isWritable(zone)) ? false : yield* ensureZone(zone)
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

  const write = (zone: Zone, names: ReadonlyArray<Publication.Decided>) =>
    Patches.send(names, (some) =>
      powerdns
        .patch(
          zone.name,
          some.flatMap(({ changes }) => changes.map(({ change }) => change))
        )
        .pipe(
          Effect.tapError((error) =>
            Effect.sync(() => {
              if (error.reason._tag !== "Uncertain") return
              const noted = doubtful.get(zone.name) ?? new Set()
              for (const { name } of some) noted.add(name)
              doubtful.set(zone.name, noted)
            })
          ),
          Effect.tap(() => Effect.sync(() => foreignNames.wrote(zone.name, placesOf(some))))
        )
    )

  /**
   * What was sent under a lease that has passed meanwhile may have come after what another has written since; so may what was
   * cut off in its middle, since the lease is to be another's.
   */
  const tellLate = (zone: Zone, names: ReadonlyArray<Publication.Decided>, exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (Exit.hasInterrupts(exit) || !writer.isHeld(zone.name))
        writer.noteLate(
          zone.name,
          names.map(({ name, rrsets }) => ({ name, sent: rrsets }))
        )
    })

  /** What the database lacks at these names may be what is written now, whenever it is compared with what comes later. */
  const noteOurs = (zone: Zone, leading: Database, names: ReadonlyArray<Publication.Decided>) =>
    databases.all.length === 1
      ? Effect.void
      : debts.seen(
          leading.name,
          zone.name,
          names.map(({ name }) => name)
        )

  /** What the database lacks of `names`: there older records of ours may stand. */
  const owedAt = (zone: Zone, leading: Database, names: ReadonlyArray<DomainName>) =>
    databases.all.length === 1 || names.length === 0
      ? Effect.succeed<Owed>(new Map())
      : debts.among(leading.name, zone.name, names)

  /** What is known of the marked names, and what is to become of them. Looks, and changes nothing. */
  const lookAt = Effect.fnUntraced(function* (
    zone: Zone,
    marks: ReadonlyArray<Mark>
  ): Effect.fn.Return<Looked, PowerDnsError | SqlError.SqlError> {
    const leading = databases.leading()
    const types = managedTypes(zone)
    const names = marks.map((mark) => mark.name)
    const [known, wanted] = yield* Effect.all([outbox.published(zone.name, names), source.desired(zone, names)], {
      concurrency: 2
    })
    const desired = yield* withoutNeedlessPlaceholders(zone, wanted, known)
    const nowMillis = yield* Clock.currentTimeMillis

    // A name we have not written before may hold something of someone else's: look first.
    const isIgnored = (name: DomainName) => ownership.isIgnored(zone.name, name)
    const ignored = marks.filter(({ name }) => isIgnored(name))
    const newcomers = new Map<DomainName, ReadonlyArray<string>>()
    for (const name of names) {
      if (isIgnored(name)) continue
      const news = newTypes(zone, types, desired.get(name) ?? [], known.get(name))
      if (news.length > 0) newcomers.set(name, news)
    }
    const inDoubt = names.filter((name) => isDoubted(known.get(name)) && (desired.get(name) ?? []).length === 0)
    // Before the looks: while they last it may be paid, and is not owed any more.
    const owed = yield* owedAt(zone, leading, [...newcomers.keys(), ...inDoubt])
    // Three looks at PowerDNS, and none of them needs another.
    const [{ foreign, late }, strays, doubted] = yield* Effect.all(
      [
        newcomers.size === 0
          ? Effect.succeed({ foreign: [], late: [] })
          : findForeign(zone, newcomers, desired, known, owed),
        findStrayPlaceholders(zone, known),
        inDoubt.length === 0 ? Effect.succeed([]) : foreignNames.read(zone.name, inDoubt)
      ],
      { concurrency: 3 }
    )
    // What is owed was not asked of the one that was looked at.
    if (databases.leading() !== leading) return yield* lookAt(zone, marks)
    const published = new Map(known)
    for (const { name, types } of late) published.set(name, withLate(known.get(name), types))
    const notToWrite = new Set([...foreign, ...ignored].map(({ name }) => name))
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
    const lost = findLost(zone, decided, doubted, published, owed)
    return { decided, foreign, ignored, lost, nowMillis, published }
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
    const untilMillis = (yield* Clock.currentTimeMillis) + writer.doubtMillis
    yield* outbox.endDoubts(zone.name, untilMillis, fenceOf(zone.name))
    inDoubt.delete(zone.name)
  })

  /** Names that are to be deleted and are in doubt, and what stands there that is not ours. */
  const findLost = (
    zone: Zone,
    decided: ReadonlyArray<Publication.Decided>,
    doubted: ReadonlyArray<RRset.RRset>,
    published: ReadonlyMap<DomainName, Publication.Published>,
    owed: Owed
  ): ReadonlyMap<DomainName, RRset.RRset> => {
    const types = managedTypes(zone)
    const found = Map.groupBy(doubted, ({ name }) => name)
    const lost = new Map<DomainName, RRset.RRset>()
    for (const { name, rrsets } of decided) {
      const all = found.get(name)
      if (all === undefined || rrsets.length > 0) continue
      const ours = Publication.typesAt(types, [], published.get(name))
      const standing = all.filter(({ type }) => ours.includes(type))
      const other = Publication.notOurs(published.get(name)!, standing).find(
        ({ type }) => !mayBeOurs(owed.get(name), type)
      )
      if (other !== undefined) lost.set(name, other)
    }
    return lost
  }

  /** They are left alone. */
  const leaveLost = Effect.fnUntraced(function* (zone: Zone, lost: ReadonlyMap<DomainName, RRset.RRset>) {
    if (lost.size === 0) return
    for (const [name, { contents, type }] of lost) {
      yield* Effect.logWarning(
        "a name that was to be deleted holds a record that Prism did not make, it is left alone"
      ).pipe(Effect.annotateLogs({ zone: zone.name, name, type, contents: contents.join(", ") }))
    }
    yield* outbox.disclaim(zone, [...lost.keys()], yield* Clock.currentTimeMillis, fenceOf(zone.name))
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

  /**
   * Which names hold record sets, of the types that are new to them, that we did not make and do not want just so; and
   * which hold only older ones of ours, since the database lacks what came after (`late`).
   */
  const findForeign = Effect.fnUntraced(function* (
    zone: Zone,
    newcomers: ReadonlyMap<DomainName, ReadonlyArray<string>>,
    desired: Plan.RecordsByName,
    published: ReadonlyMap<DomainName, Publication.Published>,
    owed: Owed
  ) {
    const inTheWay = (yield* foreignNames.at(zone.name, [...newcomers.keys()])).filter((found) => {
      const news = newcomers.get(found.name)!
      // A CNAME stands alone, whoever made what is there.
      const meetsCname = news.includes("CNAME") || found.type === "CNAME"
      const isInTheWay =
        news.includes(found.type) || (meetsCname && !Publication.knownTypes(published.get(found.name)).has(found.type))
      if (!isInTheWay || NonTerminals.isPlaceholder(found)) return false
      if (Publication.wasSent(published.get(found.name), found)) return false
      return desired.get(found.name)?.some((wanted) => RRset.equals(wanted, found)) !== true
    })
    const foreign = new Map<DomainName, Patches.Refusal>()
    for (const { contents, name, type } of inTheWay) {
      if (foreign.has(name) || mayBeOurs(owed.get(name), type)) continue
      foreign.set(name, {
        name,
        reason: `${type.startsWith("A") ? "an" : "a"} ${type} record that Prism did not make stands at this name (${contents.join(", ")}); adopt it, remove it, or choose another name`
      })
    }
    const late = [...new Set(inTheWay.map(({ name }) => name))].flatMap((name) => {
      const debt = owed.get(name)
      return debt === undefined || foreign.has(name) ? [] : [debt]
    })
    return { foreign: [...foreign.values()], late }
  })

  const settle = Effect.fnUntraced(function* (
    zone: Zone,
    marks: ReadonlyArray<Mark>,
    published: ReadonlyMap<DomainName, Publication.Published>,
    going: ReadonlyArray<Publication.Decided>,
    refused: ReadonlyArray<Patches.Refusal>,
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
        const rewritten = published.get(name)?.sent === "anything"
        settlements.push({ name, generation, rrsets, quarantinedUntilMillis, isOurs, former, rewritten })
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
    yield* tellParked(zone, parkings, atMillis)
  })

  /**
   * Parks names that are ignored. What is known of that here may be older than a person's word that they no longer are, which
   * would not find them parked yet: those stay due, and are looked at once more.
   */
  const parkIgnored = Effect.fnUntraced(function* (zone: Zone, marks: ReadonlyArray<Mark>) {
    if (marks.length === 0) return []
    const atMillis = yield* Clock.currentTimeMillis
    const parkings = yield* Effect.gen(function* () {
      yield* fenceOf(zone.name)
      const names = marks.map(({ name }) => name)
      const ignored = yield* ownership.holdIgnored(zone.name, names)
      const parkings = marks
        .filter(({ name }) => ignored.has(name))
        .map(({ generation, name }): Parking => ({ name, generation, reason: ignoredReason }))
      yield* outbox.park(zone.name, parkings, atMillis)
      return parkings
    }).pipe(sql.withTransaction)
    yield* tellParked(zone, parkings, atMillis)
    if (parkings.length < marks.length) yield* ownership.reload
    return parkings
  })

  const tellParked = Effect.fnUntraced(function* (zone: Zone, parkings: ReadonlyArray<Parking>, atMillis: number) {
    for (const { generation, name, reason } of parkings) {
      acknowledgements.settle(zone.name, name, generation, { _tag: "Parked", atMillis, reason })
      yield* Effect.logWarning("name parked").pipe(Effect.annotateLogs({ zone: zone.name, name, reason }))
    }
  })

  const count = Effect.fnUntraced(function* (
    zone: Zone,
    changed: ReadonlyArray<Publication.Decided>,
    refused: ReadonlyArray<Patches.Refusal>
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

  const forget = (zone: DomainName): void => {
    for (const known of [ready, remade, inDoubt, opened]) known.delete(zone)
    doubtful.delete(zone)
    foreignNames.forget(zone)
  }

  return {
    publish,
    ensureZone,
    ensureAnew,
    /** PowerDNS has the zone, as far as we know. */
    isReady: (zone: DomainName): boolean => ready.has(zone),
    /** Before the next batch it is made sure once more that PowerDNS has the zone. */
    doubtReady: (zone: DomainName): void => void ready.delete(zone),
    /** A batch of it has been begun here. */
    hasBegun: (zone: DomainName): boolean => opened.has(zone),
    /** Nothing of what was done in a zone is known any more: another writes it, or nobody. */
    forget
  }
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
  const isLookedAt =
    published !== undefined && !Publication.isOnlyPlaceholder(published) && !Publication.isOnlySent(published)
  const known = isLookedAt ? Publication.knownTypes(published) : new Set<string>()
  if (published?.sent === "anything" && known.size === 0) return []
  const hasHosts = hostTypes.some((type) => known.has(type))
  const wanted = desired.map(({ type }) => type)
  const news = wanted.filter(
    (type) =>
      !known.has(type) && !(hasHosts && hostTypes.includes(type)) && !(type === "NS" && desired[0]!.name === zone.name)
  )
  return news.some((type) => hostTypes.includes(type)) ? [...new Set([...hostTypes, ...news])] : news
}

/** What is known of a name at which older records of ours, of these types, may stand: it is written whatever stands there. */
const withLate = (known: Publication.Published | undefined, types: ReadonlyArray<string>): Publication.Published => ({
  rrsets: [],
  quarantinedUntilMillis: undefined,
  ...known,
  sent: "anything",
  sentTypes: [...new Set([...Publication.sentTypesWith(known, []), ...types])]
})

const placesOf = (names: ReadonlyArray<Publication.Decided>) =>
  names.flatMap(({ changes, name }) => changes.map(({ change }) => ({ name, type: typeOf(change) })))

/** By name what a database lacks of it. */
type Owed = ReadonlyMap<DomainName, Debt>

/** What is known of the names of a batch, and what is to become of them. */
interface Looked {
  readonly decided: ReadonlyArray<Publication.Decided>
  readonly foreign: ReadonlyArray<Patches.Refusal>
  readonly ignored: ReadonlyArray<Mark>
  /** Names that are not deleted after all, since this stands there. */
  readonly lost: ReadonlyMap<DomainName, RRset.RRset>
  readonly nowMillis: number
  readonly published: ReadonlyMap<DomainName, Publication.Published>
}

/** What a write that had no answer may have left there can be told from what is someone else's. */
const isDoubted = (known: Publication.Published | undefined): boolean =>
  known !== undefined && Publication.isUncertain(known) && known.sent !== "anything"

const isDelegation = (zone: Zone, { change }: Plan.PlannedChange): boolean =>
  typeOf(change) === "NS" && RRset.changedName(change) !== zone.name

const typeOf = (change: RRset.RRsetChange): string => (change._tag === "Replace" ? change.rrset.type : change.type)

const ignoredReason = "a person has said that Prism is to ignore this name"
