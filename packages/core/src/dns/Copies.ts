/**
 * Keeps the databases that do not take the writes first in line with the one
 * that does.
 *
 * For each zone that this server writes, and for each database, there is a
 * fiber that pays what the database lacks (`Debts`): a batch of names, their
 * records as they are published at that moment, one PATCH. Promises: a database
 * that is away, slow, or refuses a name holds up neither publishing nor another
 * database; when it is back it is written only once nothing can come of what it
 * had taken before; then it gets all it lacks, deletions too; a database that is
 * new, or has lost a zone, gets all of it; a record that is not ours is not
 * overwritten there either, and is named. A database that leads and lacks
 * something (it took over while it did) is paid by the publisher: those names are
 * marked, with what may stand there. Leaves to others: what is published
 * (`DnsManager`), finding drift (`Reconciler`).
 */
import { Cause, Clock, Effect, Exit, Latch, Layer, Schedule } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { Cluster, type LeaseLost, zoneLease } from "../cluster/Cluster.ts"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { type Database, PowerDnsDatabases } from "../powerdns/PowerDnsDatabases.ts"
import { isAbsence } from "../powerdns/PowerDnsWriter.ts"
import { WriteGuard } from "../powerdns/WriteGuard.ts"
import * as Generation from "../storage/Generation.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { type Debt, Debts } from "./Debts.ts"
import * as ForeignNames from "./ForeignNames.ts"
import * as HeldZones from "./HeldZones.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { Outbox } from "./Outbox.ts"
import * as Patches from "./Patches.ts"
import { Provisioner } from "./Provisioner.ts"
import * as Publication from "./Publication.ts"
import { Zones } from "./Zones.ts"

export interface CopiesOptions {
  /** Names in one PATCH at the most. */
  readonly batchNamesMax: number
  /** How often a database is looked at without news of its zone, in milliseconds. */
  readonly pollMillis: number
  /**
   * For how long a database has to have answered, once it was away, before it is written, in milliseconds. A server that
   * was stopped carries out what it had taken as soon as it runs again.
   */
  readonly settleMillis: number
  /** After how long a name that was refused is tried again, in milliseconds. */
  readonly refusedMillis: number
  /** How long after a write that was cut off, as its zone was lost, it may still be taken, in milliseconds. */
  readonly doubtMillis: number
}

export const defaultOptions: CopiesOptions = {
  batchNamesMax: 500,
  pollMillis: 1000,
  settleMillis: 5000,
  refusedMillis: 60_000,
  doubtMillis: 15_000
}

/** Names of which it is remembered that they were refused; beyond them it is tried again with each batch. */
const refusedMax = 10_000

export const layer = (options: Partial<CopiesOptions> = {}) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const databases = yield* PowerDnsDatabases
      if (databases.all.length > 1) yield* keepAlike({ ...defaultOptions, ...options })
    })
  )

const keepAlike = Effect.fnUntraced(function* (options: CopiesOptions) {
  const databases = yield* PowerDnsDatabases
  const debts = yield* Debts
  const outbox = yield* Outbox
  const zones = yield* Zones
  const cluster = yield* Cluster
  const provisioner = yield* Provisioner
  const sql = yield* SqlClient.SqlClient
  const scope = yield* Effect.scope

  const looks = new Map(databases.all.map((each) => [each, ForeignNames.make(each.client, outbox)]))

  /** Each zone that this server writes: opened when one of the databases may lack something of it. */
  const following = new Map<DomainName, ReadonlyMap<Database, Latch.Latch>>()

  const lacksNothing = (database: Database, zone: DomainName) =>
    debts.zonesOf(database.name, [zone]).pipe(
      Effect.map((zones) => zones.length === 0),
      // Not known, which is to wait.
      Effect.catch(() => Effect.succeed(false))
    )

  /** A transaction of whoever writes the zone. */
  const asWriter = <A, E>(zone: DomainName, effect: Effect.Effect<A, E>) =>
    sql.withTransaction<never, E | LeaseLost | SqlError.SqlError, A>(
      Effect.andThen(cluster.fence(zoneLease(zone)), effect)
    )

  /** All that was published may be lacking there. */
  const oweAll = Effect.fnUntraced(function* (database: Database, zone: DomainName, isEmpty: boolean) {
    let total = 0
    for (let after: DomainName | undefined; ;) {
      const page = yield* outbox.publishedNames(zone, after, options.batchNamesMax)
      const published = yield* outbox.published(zone, page)
      yield* asWriter(
        zone,
        Effect.gen(function* () {
          const generation = yield* Generation.next(sql)
          yield* debts.owe(
            zone,
            [database.name],
            Array.from(published, ([name, { rrsets }]) => ({
              name,
              generation,
              types: rrsets.map(({ type }) => type),
              unseen: !isEmpty
            }))
          )
        })
      )
      total += page.length
      after = page.at(-1)
      if (page.length < options.batchNamesMax) break
    }
    yield* asWriter(zone, debts.know(database.name, zone))
    if (total > 0) {
      yield* Effect.logInfo("a PowerDNS database gets all of a zone").pipe(
        Effect.annotateLogs({ zone, database: database.name, names: total })
      )
    }
  })

  /** Names at which something stands that is not ours. Only those are asked for that had nothing of ours before. */
  const findForeign = Effect.fnUntraced(function* (
    database: Database,
    zone: DomainName,
    batch: ReadonlyArray<Debt>,
    published: ReadonlyMap<DomainName, Publication.Published>
  ) {
    const unseen = batch.filter((debt) => debt.unseen)
    if (unseen.length === 0) return []
    const names = unseen.map(({ name }) => name)
    const found = Map.groupBy(yield* looks.get(database)!.read(zone, names), ({ name }) => name)
    const isHosts = (type: string) => RRset.hostRecordTypes.some((each) => each === type)
    const others = unseen.flatMap(({ name, types }) => {
      const other = (found.get(name) ?? []).find(
        (rrset) =>
          (types.includes(rrset.type) || (isHosts(rrset.type) && types.some(isHosts))) &&
          !NonTerminals.isPlaceholder(rrset) &&
          !(rrset.type === "NS" && name === zone) &&
          !isPublished(published, rrset)
      )
      return other === undefined ? [] : [other]
    })
    // Where it leads, the publisher may have written it since that was read.
    const since =
      others.length === 0
        ? published
        : yield* outbox.published(
            zone,
            others.map(({ name }) => name)
          )
    const refusals = others
      .filter((other) => !isPublished(since, other))
      .map(({ contents, name, type }): Patches.Refusal => ({
        name,
        reason: `a record set ${type} that Prism did not make stands there (${contents.join(", ")})`
      }))
    const refused = new Set(refusals.map(({ name }) => name))
    yield* asWriter(
      zone,
      debts.seen(
        database.name,
        zone,
        unseen.flatMap(({ name }) => (refused.has(name) ? [] : [name]))
      )
    )
    return refusals
  })

  /**
   * What was sent, deletions too, may have come over what it has been given since: whoever writes the zone by now looks to
   * it. Only where the name is published, or what was sent stands, is there anything to do.
   */
  const oweAgain = (
    database: Database,
    zone: DomainName,
    batch: ReadonlyArray<Debt>,
    sent: ReadonlyMap<DomainName, Publication.Published>
  ) =>
    Effect.gen(function* () {
      const names = batch.map(({ name }) => name)
      const found = yield* looks.get(database)!.read(zone, names)
      const published = yield* outbox.published(zone, names)
      const ours = Map.groupBy(
        found.filter((rrset) => isPublished(sent, rrset) || isPublished(published, rrset)),
        ({ name }) => name
      )
      const owing = Effect.gen(function* () {
        const generation = yield* Generation.next(sql)
        yield* debts.owe(
          zone,
          [database.name],
          batch
            .filter(({ name }) => ours.has(name) || (published.get(name)?.rrsets ?? []).length > 0)
            .map(({ name, types }) => ({
              name,
              generation,
              types: [...new Set([...types, ...(ours.get(name) ?? []).map(({ type }) => type)])],
              unseen: !ours.has(name)
            }))
        )
        yield* debts.seen(database.name, zone, [...ours.keys()])
      })
      yield* sql.withTransaction(owing)
    }).pipe(
      Effect.retry({
        schedule: Schedule.spaced("1 second"),
        while: (error) => zones.find(zone) !== undefined && (SqlError.isSqlError(error) || isAbsence(error))
      }),
      Effect.catch((error) =>
        Effect.logWarning("what may have come late to a PowerDNS database was not looked at").pipe(
          Effect.annotateLogs({
            zone,
            database: database.name,
            reason: SqlError.isSqlError(error) ? detailOf(error) : error.message
          })
        )
      )
    )

  /**
   * What was sent under a lease that has passed meanwhile may be taken after what another has written there since; so may
   * what was cut off in its middle, since the lease is to be another's.
   */
  const tellLate = Effect.fnUntraced(function* (
    database: Database,
    zone: DomainName,
    batch: ReadonlyArray<Debt>,
    sent: ReadonlyMap<DomainName, Publication.Published>
  ) {
    yield* Effect.logWarning("a zone was lost while it was copied: its names are looked at again").pipe(
      Effect.annotateLogs({ zone, database: database.name, names: batch.length })
    )
    const again = oweAgain(database, zone, batch, sent)
    yield* again.pipe(Effect.andThen(Effect.sleep(options.doubtMillis)), Effect.andThen(again), Effect.forkIn(scope))
  })

  /** One batch of a database that follows. */
  const pay = Effect.fnUntraced(function* (database: Database, zone: DomainName, batch: ReadonlyArray<Debt>) {
    const held = yield* WriteGuard
    const names = batch.map(({ name }) => name)
    const published = yield* outbox.published(zone, names)
    const foreign = yield* findForeign(database, zone, batch, published)
    const left = new Set(foreign.map(({ name }) => name))
    const going = batch.filter(({ name }) => !left.has(name))
    const refusals = yield* Patches.send(going, (some) =>
      database.client.patch(
        zone,
        some.flatMap(({ name, types }) => changesAt(name, types, published.get(name)))
      )
    ).pipe(
      Effect.onExit((exit) =>
        hasLost(held, exit) && going.length > 0 ? tellLate(database, zone, going, published) : Effect.void
      )
    )
    for (const { name } of refusals) left.add(name)
    // Where it came to lead meanwhile, the publisher may have written these names before this did.
    if (databases.leading() !== database) {
      yield* asWriter(
        zone,
        debts.clear(
          database.name,
          zone,
          going.filter(({ name }) => !left.has(name))
        )
      )
    }
    return [...foreign, ...refusals]
  })

  /** One batch of the database that leads: the publisher looks at these names, knowing what may stand there. */
  const leaveToPublisher = Effect.fnUntraced(function* (
    database: Database,
    zone: DomainName,
    batch: ReadonlyArray<Debt>
  ) {
    const nowMillis = yield* Clock.currentTimeMillis
    const published = yield* outbox.published(
      zone,
      batch.map(({ name }) => name)
    )
    const foreign = yield* findForeign(database, zone, batch, published)
    const left = new Set(foreign.map(({ name }) => name))
    const going = batch.filter(({ name }) => !left.has(name))
    const names = going.map(({ name }) => name)
    const fence = cluster.fence(zoneLease(zone))
    yield* outbox.claim(
      zone,
      going.map(({ name, types }) => ({
        name,
        sent: "anything",
        types: [...new Set([...Publication.sentTypesWith(published.get(name), []), ...types])]
      })),
      nowMillis,
      fence
    )
    yield* outbox.recheck(zone, names, nowMillis, "doubt", fence)
    yield* asWriter(zone, debts.clear(database.name, zone, going))
    yield* outbox.wake([zone])
    return foreign
  })

  const follow = Effect.fnUntraced(function* (name: DomainName, database: Database, news: Latch.Latch) {
    const began = yield* Clock.currentTimeMillis
    // What a server before us may have under way there has an end before we write.
    let isFresh = yield* lacksNothing(database, name)
    /** Who led when the zone was made ready there: whom it notifies depends on that. */
    let ensuredUnder: Database | undefined
    const refused = new Map<DomainName, { readonly generation: number; readonly untilMillis: number }>()

    const isSettled = (nowMillis: number) => {
      const wellMillis = database.wellMillis(nowMillis)
      if (wellMillis !== Infinity) isFresh = false
      return wellMillis >= options.settleMillis && (isFresh || nowMillis - began >= options.settleMillis)
    }

    const ensure = Effect.gen(function* () {
      const isKnown = yield* debts.isKnown(database.name, name)
      const leading = databases.leading()
      if (leading === database) {
        ensuredUnder = undefined
        // What is published was published there.
        if (!isKnown) yield* asWriter(name, debts.know(database.name, name))
        return
      }
      const zone = zones.find(name)
      if (zone === undefined) return
      const isMade = yield* provisioner.ensureCopy(zone, database.client)
      if (isMade || !isKnown) yield* oweAll(database, name, isMade)
      ensuredUnder = leading
    })

    const remember = Effect.fnUntraced(function* (
      nowMillis: number,
      batch: ReadonlyArray<Debt>,
      refusals: ReadonlyArray<Patches.Refusal>
    ) {
      const generations = new Map(batch.map((debt) => [debt.name, debt.generation]))
      for (const { name: each, reason } of refusals) {
        if (refused.size < refusedMax) {
          refused.set(each, { generation: generations.get(each)!, untilMillis: nowMillis + options.refusedMillis })
        }
        yield* Effect.logWarning("a name was not copied to a PowerDNS database").pipe(
          Effect.annotateLogs({ zone: name, name: each, database: database.name, reason })
        )
      }
    })

    /** Everything that it lacks and that was not refused lately. */
    const payAll = Effect.gen(function* () {
      if (ensuredUnder !== databases.leading()) yield* ensure
      let reason: string | undefined
      for (let after: DomainName | undefined; ;) {
        const nowMillis = yield* Clock.currentTimeMillis
        const page = yield* debts.of(database.name, name, after, options.batchNamesMax)
        const batch = page.filter((debt) => {
          const known = refused.get(debt.name)
          if (known === undefined) return true
          if (known.generation === debt.generation && nowMillis < known.untilMillis) return false
          refused.delete(debt.name)
          return true
        })
        if (batch.length > 0) {
          database.owing.add(name)
          const give = databases.leading() === database ? leaveToPublisher : pay
          const refusals = yield* give(database, name, batch)
          yield* remember(nowMillis, batch, refusals)
          const [first] = refusals
          if (first !== undefined) reason ??= `${first.name}: ${first.reason}`
        }
        after = page.at(-1)?.name
        if (page.length < options.batchNamesMax) break
      }
      database.owing.delete(name)
      if (reason !== undefined || refused.size === 0) yield* provisioner.note(name, `database ${database.name}`, reason)
    })

    let failedWith: string | undefined
    /** Gives whether all is paid that can be. */
    const attempt = payAll.pipe(
      Effect.tap(() => {
        if (failedWith === undefined) return Effect.void
        failedWith = undefined
        return Effect.logInfo("a PowerDNS database is kept alike again").pipe(
          Effect.annotateLogs({ zone: name, database: database.name })
        )
      }),
      Effect.as(true),
      Effect.catch((error) => {
        if (error._tag === "LeaseLost" || (error._tag === "PowerDnsError" && error.reason._tag === "Withheld")) {
          return Effect.succeed(false) // the zone is another server's: this is about to end
        }
        if (error._tag === "PowerDnsError") {
          if (isAbsence(error)) database.failed()
          ensuredUnder = undefined
        }
        const reason = SqlError.isSqlError(error) ? `the registry's database: ${detailOf(error)}` : error.message
        const kind = SqlError.isSqlError(error) ? "database" : error.reason._tag
        if (failedWith === kind) return Effect.succeed(false)
        failedWith = kind
        return Effect.as(
          Effect.logWarning("a PowerDNS database is not kept alike, will try again").pipe(
            Effect.annotateLogs({ zone: name, database: database.name, reason })
          ),
          false
        )
      }),
      // A fault of ours must neither pass in silence nor end this.
      Effect.catchDefect((defect) =>
        Effect.as(
          Effect.logError(
            "a PowerDNS database is not kept alike by a fault of the server, will try again",
            defect
          ).pipe(Effect.annotateLogs({ zone: name, database: database.name })),
          false
        )
      )
    )

    while (true) {
      news.closeUnsafe()
      const isSettledNow = isSettled(yield* Clock.currentTimeMillis)
      if (!isSettledNow) database.owing.add(name)
      const isDone = isSettledNow && (yield* attempt)
      yield* isDone ? news.await : Effect.raceFirst(news.await, Effect.sleep(options.pollMillis))
    }
  })

  const tell = (zone: DomainName, database: Database) => following.get(zone)?.get(database)?.openUnsafe()

  yield* debts.onOwed((zone) => {
    for (const database of databases.all) tell(zone, database)
  })

  yield* databases.onLead(() => {
    for (const all of following.values()) for (const news of all.values()) news.openUnsafe()
  })

  let isUnread = false
  /** What was paid by nobody yet: it failed, the database has come to lead, or another server wrote the zone before. */
  const poll = Effect.forEach(
    databases.all,
    (database) =>
      Effect.map(debts.zonesOf(database.name, [...following.keys()]), (zones) => {
        for (const zone of zones) tell(zone, database)
      }),
    { discard: true }
  ).pipe(
    Effect.andThen(Effect.sync(() => void (isUnread = false))),
    // Nothing ends it: without it debts of another server would wait for the next change.
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
      if (isUnread) return Effect.void
      isUnread = true
      return Effect.logWarning("what PowerDNS databases lack could not be read, will try again").pipe(
        Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)) })
      )
    })
  )
  yield* poll.pipe(Effect.andThen(Effect.sleep(options.pollMillis)), Effect.forever, Effect.forkScoped)

  yield* HeldZones.whileHeld((zone, held) =>
    Effect.gen(function* () {
      const all = new Map<Database, Latch.Latch>()
      for (const database of databases.all) all.set(database, yield* Latch.make(true))
      following.set(zone, all)
      yield* Effect.forEach(all, ([database, news]) => follow(zone, database, news), {
        concurrency: "unbounded",
        discard: true
      })
    }).pipe(
      Effect.provideService(WriteGuard, held),
      Effect.ensuring(
        Effect.sync(() => {
          following.delete(zone)
          for (const { owing } of databases.all) owing.delete(zone)
        })
      )
    )
  )
})

const isPublished = (published: ReadonlyMap<DomainName, Publication.Published>, rrset: RRset.RRset): boolean =>
  published.get(rrset.name)?.rrsets.some((each) => RRset.equals(each, rrset)) === true

const hasLost = (held: WriteGuard | undefined, exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.hasInterrupts(exit) || held?.isValid() === false

/** What makes `name` what is published, of the types that may differ there. */
const changesAt = (
  name: DomainName,
  types: ReadonlyArray<string>,
  published: Publication.Published | undefined
): ReadonlyArray<RRset.RRsetChange> => {
  const rrsets = new Map(published?.rrsets.map((rrset) => [rrset.type, rrset]))
  const isDisabled = published?.quarantinedUntilMillis !== undefined
  return types.map((type): RRset.RRsetChange => {
    const rrset = rrsets.get(type)
    if (rrset === undefined) return { _tag: "Delete", name, type }
    return { _tag: "Replace", rrset, ...(isDisabled ? { disabled: true } : {}) }
  })
}
