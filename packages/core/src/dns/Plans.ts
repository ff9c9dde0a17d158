/**
 * Plans: changes thought out, kept as data, looked at, and then applied or not.
 *
 * Promises: what is applied is what was shown (the hash is computed again); a
 * name about which the registry knows something newer than the plan is refused,
 * with a sentence, and the others go on; deletions beyond the zone's budget are
 * not applied without a reason that lands in the audit; each effective change
 * has one audit entry, in the transaction that makes it; no change is applied
 * twice. Memory and transactions are those of a page, whatever the plan's size:
 * a process that ends in between leaves the rest open.
 *
 * Applying never writes to PowerDNS: it marks names, and they go the way of any
 * change. Leaves to others: finding what is to change (`dns/Reconciler`,
 * `dns/Adoption`), and publishing (`dns/DnsManager`).
 */
import { Clock, Context, Duration, Effect, identity, Layer, Option, Result, Schema, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, type SqlError } from "effect/sql"
import type { Action } from "../audit/Actions.ts"
import * as Audit from "../audit/Entries.ts"
import * as Turns from "../audit/Turns.ts"
import { Signals } from "../cluster/Signals.ts"
import * as Versions from "../cluster/Versions.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { type PlanAction, type PlanKind, type PlanState, planStates } from "../domain/Plan.ts"
import * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import * as HostRestore from "../registry/HostRestore.ts"
import * as Generation from "../storage/Generation.ts"
import { againOnCollision } from "../storage/SqlFailure.ts"
import { asList, asTable, integer, lockOrder } from "../storage/Rows.ts"
import type { Cause } from "./Cause.ts"
import * as DeleteBudget from "./DeleteBudget.ts"
import { isRecordType } from "../domain/RecordContent.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { Outbox } from "./Outbox.ts"
import * as RecordChanges from "./RecordChanges.ts"
import { makePattern, Ownership } from "./Ownership.ts"
import { knownTypes } from "./Publication.ts"
import { excludesHosts } from "./RecordRules.ts"
import * as PlanRepo from "./PlanRepo.ts"
import { Zones } from "./Zones.ts"

/** Kinds whose changes are made to the records that people manage, and not to what PowerDNS holds. */
export const changesRecords = (kind: PlanKind): boolean => kind === "import" || kind === "restore"

/** What a change is before it stands in a plan. */
export interface NewChange {
  readonly name: DomainName
  /** Record type; `*` for `ignore` and `unignore`. */
  readonly type: string
  readonly action: PlanAction
  readonly before: RRset.RRset | undefined
  readonly after: RRset.RRset | undefined
  /** A sentence. */
  readonly reason: string
  readonly cause: Cause
}

export interface PlanChange extends NewChange {
  /** Its place in the plan, from 1. */
  readonly ordinal: number
  /** Undefined: not yet; `applied`; or a sentence that says why it was not. */
  readonly outcome: string | undefined
}

/** How many changes of each action, how many names, and how many of them lose all their records. */
export interface PlanCounts extends Readonly<Record<PlanAction, number>> {
  readonly changes: number
  readonly names: number
  readonly deletedNames: number
}

export interface Plan {
  /** A UUID that sorts by time (version 7). */
  readonly id: string
  readonly zone: DomainName
  readonly kind: PlanKind
  readonly state: PlanState
  readonly madeAtMillis: number
  readonly madeBy: string
  /** What is newer than this, the plan does not know. */
  readonly generation: number
  /** Of its changes: `sha256:` and 64 hex digits. */
  readonly hash: string
  /** A sentence. */
  readonly reason: string
  readonly counts: PlanCounts
  /** The last decision about it: when, whose, why. An open plan has one when a part of it was applied. */
  readonly decidedAtMillis: number | undefined
  readonly decidedBy: string | undefined
  readonly decidedReason: string | undefined
}

/** A deletion that the zone's budget does not allow. */
export interface HeldDeletion {
  readonly name: DomainName
  readonly type: string
  readonly before: RRset.RRset
  readonly reason: string
  /** Default `withdrawn`. */
  readonly cause?: Cause
}

export class PlanNotFound extends Schema.TaggedError<PlanNotFound>()("PlanNotFound", { id: Schema.String }) {
  override get message(): string {
    return `there is no plan ${this.id}`
  }
}

/** It was applied, rejected or superseded before. */
export class PlanNotOpen extends Schema.TaggedError<PlanNotOpen>()("PlanNotOpen", {
  id: Schema.String,
  state: Schema.Literals(planStates)
}) {
  override get message(): string {
    return `plan ${this.id} is ${this.state}; make a new one`
  }
}

/** Its changes are not those whose hash was kept. */
export class PlanAltered extends Schema.TaggedError<PlanAltered>()("PlanAltered", {
  id: Schema.String,
  expected: Schema.String,
  found: Schema.String
}) {
  override get message(): string {
    return `the changes of plan ${this.id} are not those it was made with; make a new one`
  }
}

/** Nothing was applied. Say why the budget does not count, or apply without the deletions. */
export class DeleteBudgetExceeded extends Schema.TaggedError<DeleteBudgetExceeded>()("DeleteBudgetExceeded", {
  id: Schema.String,
  zone: Schema.String,
  /** Names the plan would take all records from. */
  wanted: Schema.Int,
  /** Names that may be deleted now. */
  remaining: Schema.Int,
  /** Names published in the zone. */
  published: Schema.Int,
  /** Names deleted within the window, and on their way to it. */
  deleted: Schema.Int,
  windowMillis: Schema.Finite,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** Whose word it is. */
export interface Said {
  readonly by: string
  /** The address the word came from. */
  readonly peer?: string | undefined
  /** The id of the API request it came by. */
  readonly request?: string | undefined
}

export interface Applied {
  readonly plan: Plan
  /** Changes applied by this call. */
  readonly applied: number
  /** Changes that this call refused; each says why in its outcome. */
  readonly refused: number
  /** Changes of this call that were never to be done (`keep`); each says why in its outcome. */
  readonly kept: number
  /** Why, of the first of both. */
  readonly refusals: ReadonlyArray<Refused>
}

/** A change that was refused or left alone, and why. */
export interface Refused {
  readonly name: DomainName
  readonly type: string
  readonly reason: string
}

/** What of a plan is to be applied, and how. */
export interface ApplyOptions extends Said {
  /** Why the zone's delete budget does not count this time. */
  readonly overrideBudget?: string | undefined
  readonly names?: ReadonlyArray<DomainName> | undefined
  readonly withoutDeletions?: boolean | undefined
  readonly dryRun?: boolean | undefined
}

/** Refused changes that are told at the most. */
export const refusalsMax = 100

export class Plans extends Context.Service<
  Plans,
  {
    /**
     * Stores a plan, chunk by chunk; all changes of a name stand in one chunk. It becomes visible when it is complete.
     * One without changes is returned as `applied` and not stored. A reconcile plan takes the place of the zone's open
     * one, unless both are the same: then that one is returned.
     */
    readonly make: <E, R, E2 = never>(
      zone: DomainName,
      options: Said & {
        readonly kind: PlanKind
        readonly reason: string
        /** Of the registry, before what the plan was made from was read. */
        readonly generation: number
        readonly changes: Stream.Stream<ReadonlyArray<NewChange>, E, R>
        /** Says what the plan would be, and keeps nothing. */
        readonly dryRun?: boolean | undefined
        /** Begins the transaction that makes it visible; its failure undoes it (`Cluster.fence`). */
        readonly fence?: Effect.Effect<void, E2> | undefined
      }
    ) => Effect.Effect<Plan, E | E2 | SqlError.SqlError, R>
    readonly find: (id: string) => Effect.Effect<Option.Option<Plan>, SqlError.SqlError>
    /** Plans, the newest first; `after`: only those older than that id. */
    readonly list: (options: {
      readonly zone?: DomainName | undefined
      readonly zones?: ReadonlyArray<DomainName> | undefined
      readonly kind?: PlanKind | undefined
      readonly state?: PlanState | undefined
      readonly limit: number
      readonly after?: string | undefined
    }) => Effect.Effect<ReadonlyArray<Plan>, SqlError.SqlError>
    /** Changes in their order; `after`: only those behind that ordinal. */
    readonly changes: (
      id: string,
      options: { readonly after?: number | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<PlanChange>, SqlError.SqlError>
    /** Whether a plan has a change of a record type, or one that does this. */
    readonly concerns: (
      id: string,
      what: { readonly type: string } | { readonly action: PlanAction }
    ) => Effect.Effect<boolean, SqlError.SqlError>
    /**
     * Applies what is open of a plan, or, with `names`, only at those, or all but its deletions. The plan is `applied`
     * once every change has an outcome, and stays open until then. With `dryRun` it is only tried, page by page: what one
     * page would do, the next does not see. `fence` begins the transaction of each page; its failure undoes that page.
     */
    readonly apply: <E = never>(
      id: string,
      options: ApplyOptions & { readonly fence?: Effect.Effect<void, E> | undefined }
    ) => Effect.Effect<
      Applied,
      E | PlanNotFound | PlanNotOpen | PlanAltered | DeleteBudgetExceeded | PowerDnsError | SqlError.SqlError
    >
    /**
     * Nothing of it is done. Names it held back stay as they are until something changes about them. With `dryRun` it is
     * only tried.
     */
    readonly reject: (
      id: string,
      options: Said & { readonly reason: string; readonly dryRun?: boolean | undefined }
    ) => Effect.Effect<Plan, PlanNotFound | PlanNotOpen | SqlError.SqlError>
    /**
     * Adds deletions to the zone's open plan of held ones, or begins one. Names it already has are left as they are. The
     * caller holds the marks back with the plan's id. `fence` begins the transaction.
     */
    readonly hold: <E = never>(
      zone: DomainName,
      changes: ReadonlyArray<HeldDeletion>,
      reason: string,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<Plan, E | SqlError.SqlError>
    /** Removes plans that are not open, beyond the newest `keep` of each zone; returns how many. */
    readonly prune: (keep: number) => Effect.Effect<number, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Plans") {
  static readonly layer = Layer.effect(
    Plans,
    Effect.suspend(() => make)
  )
}

/** A plan that was begun longer ago, and is not complete, was left so by a server that ended. */
const makingMillisMax = 3_600_000

/** Changes applied in one transaction. */
export const pageSize = 2000

/** Names whose deletions, when the plan is applied, go against the zone's budget. */
const budgetedKinds: ReadonlyArray<PlanKind> = ["reconcile", "held-deletions"]

/** What is being done in one transaction. */
interface Page {
  readonly plan: Plan
  readonly zone: Zone.Zone
  readonly changes: ReadonlyArray<PlanChange>
  readonly by: string
  readonly actor: Audit.Actor
  readonly generation: number
  readonly nowMillis: number
}

/** Why changes of a page are refused, by name, or by name and type with a space between them. */
type Refusals = Map<string, string>

const placesAt = (zone: DomainName, names: ReadonlyArray<DomainName>) => names.map((name) => ({ zone, name }))

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
  const bump = yield* Versions.bumpOf(sql, "ownership")
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const powerdns = yield* PowerDnsClient
  const random = yield* SecureRandom.SecureRandom
  const zones = yield* Zones
  const startMillis = yield* Clock.currentTimeMillis
  const repo = PlanRepo.make(sql)
  const records = RecordChanges.make(sql, zones, outbox)
  const restored = HostRestore.make(sql, zones, outbox, random, yield* Signals)

  const newPlan = Effect.fnUntraced(function* (
    zone: DomainName,
    options: { readonly kind: PlanKind; readonly reason: string; readonly by: string; readonly generation: number }
  ) {
    const plan: Plan = {
      id: yield* random.uuidV7(),
      zone,
      kind: options.kind,
      state: "open",
      madeAtMillis: yield* Clock.currentTimeMillis,
      madeBy: options.by,
      generation: options.generation,
      hash: PlanRepo.emptyHash,
      reason: options.reason,
      counts: PlanRepo.noCounts,
      decidedAtMillis: undefined,
      decidedBy: undefined,
      decidedReason: undefined
    }
    return plan
  })

  /** `plan` with `changes` at its end, all in the transaction around. */
  const extend = Effect.fnUntraced(function* (plan: Plan, changes: ReadonlyArray<NewChange>) {
    yield* repo.insertChanges(plan.id, plan.counts.changes, changes)
    return {
      ...plan,
      hash: PlanRepo.extendHash(plan.hash, changes),
      counts: PlanRepo.addCounts(plan.counts, changes)
    }
  })

  /** Entries of which `plan` is the cause. They change nothing of the registry, and are at the plan's generation. */
  const tell = Effect.fnUntraced(function* (plan: Plan, entries: ReadonlyArray<PlanRepo.AuditEntry>, said: Said) {
    if (entries.length === 0) return
    yield* repo.audit(entries, actorOf(said), plan, plan.generation, yield* Clock.currentTimeMillis)
  })

  const supersede = Effect.fnUntraced(function* (plan: Plan, reason: string) {
    const ids = yield* repo.supersede(plan.zone, plan.kind, plan.id)
    const entries = ids.map((id) => ({ action: "plan.superseded" as const, subject: id, reason }))
    yield* tell(plan, entries, { by: "prism" })
  })

  /** The zone's open plan to reconcile, if it is this one over again. */
  const sameOpen = Effect.fnUntraced(function* (plan: Plan, read: typeof repo.findOpen) {
    if (plan.kind !== "reconcile") return Option.none<Plan>()
    const before = yield* read(plan.zone, plan.kind)
    // One of which a part was carried out mends nothing when the same has come about again.
    const isSame = Option.isSome(before) && before.value.hash === plan.hash
    return isSame && (yield* repo.countOpen(before.value.id)) === plan.counts.changes ? before : Option.none<Plan>()
  })

  const makePlan: Plans["Service"]["make"] = Effect.fn("Plans.make")(function* (zone, options) {
    let plan = yield* newPlan(zone, options)
    const fence = options.fence ?? Effect.void
    if (options.dryRun === true) {
      yield* Stream.runForEach(options.changes, (chunk) =>
        Effect.sync(() => {
          plan = {
            ...plan,
            hash: PlanRepo.extendHash(plan.hash, chunk),
            counts: PlanRepo.addCounts(plan.counts, chunk)
          }
        })
      )
      if (isIdle(plan)) return { ...plan, state: "applied" as const }
      return Option.getOrElse(yield* sameOpen(plan, repo.findOpen), () => plan)
    }
    yield* options.changes.pipe(
      Stream.runForEach((chunk) =>
        chunk.length === 0
          ? Effect.void
          : Effect.gen(function* () {
              if (plan.counts.changes === 0) yield* repo.insert(plan, "making")
              plan = yield* extend(plan, chunk)
            }).pipe(sql.withTransaction)
      ),
      // What nobody will see need not wait for the next start to be removed.
      Effect.onError(() =>
        Effect.catch(repo.remove(plan.id), (error) =>
          Effect.logWarning("a plan that was not finished could not be removed").pipe(
            Effect.annotateLogs({ plan: plan.id, reason: error.message })
          )
        )
      )
    )
    if (plan.counts.changes === 0) {
      // What an open plan was to mend has mended itself.
      if (plan.kind === "reconcile" && Option.isSome(yield* repo.findOpen(zone, plan.kind))) {
        yield* Audit.inTransaction(sql)(
          Effect.andThen(fence, supersede(plan, "what it was to mend is as it should be"))
        )
      }
      return { ...plan, state: "applied" as const }
    }
    const same = yield* Effect.gen(function* () {
      yield* fence
      if (plan.kind === "reconcile") {
        const same = yield* sameOpen(plan, repo.lockOpen)
        if (Option.isSome(same)) return same
        yield* supersede(plan, "a newer plan has taken its place")
      }
      if (isIdle(plan)) {
        // There is nothing to decide about: it is kept for who asks why.
        plan = {
          ...plan,
          state: "applied",
          decidedAtMillis: plan.madeAtMillis,
          decidedBy: plan.madeBy,
          decidedReason: "what it is about is left alone"
        }
        yield* repo.leaveAlone(plan.id)
      }
      yield* repo.update(plan)
      yield* tell(plan, [madeEntry(plan)], options)
      return Option.none<Plan>()
    }).pipe(Audit.inTransaction(sql), againOnCollision)
    if (Option.isNone(same)) return plan
    yield* repo.remove(plan.id)
    return same.value
  })

  const getOpen = Effect.fnUntraced(function* (id: string, read: typeof repo.find) {
    const found = yield* read(id)
    if (Option.isNone(found)) return yield* new PlanNotFound({ id })
    if (found.value.state !== "open") return yield* new PlanNotOpen({ id, state: found.value.state })
    return found.value
  })

  /** Computes the hash of the changes again. */
  const verify = Effect.fn("Plans.verify")(function* (plan: Plan) {
    let hash = PlanRepo.emptyHash
    for (let after = 0; after < plan.counts.changes;) {
      const limit = Math.min(pageSize, plan.counts.changes - after)
      const changes = yield* repo.changes(plan.id, { after, limit })
      hash = PlanRepo.extendHash(hash, changes)
      if (changes.length < limit) break
      after = changes.at(-1)!.ordinal
      yield* Effect.yieldNow
    }
    if (hash !== plan.hash) return yield* new PlanAltered({ id: plan.id, expected: plan.hash, found: hash })
  })

  const checkBudget = Effect.fnUntraced(function* (plan: Plan, zone: Zone.Zone, options: ApplyOptions) {
    if (options.overrideBudget !== undefined || !budgetedKinds.includes(plan.kind)) return
    const wanted = yield* repo.countOpenDeletions(plan.id, options)
    if (wanted === 0) return
    const { deleteBudget } = zone.policy
    const windowMillis = Duration.toMillis(deleteBudget.window)
    const published = yield* outbox.countPublished(zone.name)
    const { done, underWay } = yield* outbox.deletions(zone.name, (yield* Clock.currentTimeMillis) - windowMillis)
    const deleted = done + underWay
    const remaining = DeleteBudget.remaining(deleteBudget, published, deleted)
    if (wanted <= remaining) return
    return yield* new DeleteBudgetExceeded({
      id: plan.id,
      zone: zone.name,
      wanted,
      remaining,
      published,
      deleted,
      windowMillis,
      detail: DeleteBudget.sentence(deleteBudget, { published, deleted, wanted })
    })
  })

  /** The hosts whose records stand at `names`, by name. */
  const hostsAt = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
    const nameOf = new Map<string, DomainName>()
    for (const name of names) {
      const place = Zone.isReverse(zone) ? Zone.addressOfPointer(name, zone) : name
      if (place !== undefined) nameOf.set(place, name)
    }
    const read = Zone.isReverse(zone) ? repo.hostsByAddress : repo.hostsByName
    const rows = yield* read([...nameOf.keys()])
    return new Map(
      rows.map((row) => [
        nameOf.get(row.place)!,
        { generation: Number(row.generation), hasRecords: Number(row.live) === 1 }
      ])
    )
  })

  const lookUp = Effect.fnUntraced(function* ({ changes, plan, zone }: Page) {
    const names = [...new Set(changes.map(({ name }) => name))]
    const facts = yield* repo.facts(zone.name, names)
    const hosts = yield* hostsAt(zone, names)
    const cause = `plan:${plan.id}`
    const refusals: Refusals = new Map()
    for (const name of names) {
      const { mark, published } = facts.get(name) ?? { mark: undefined, published: undefined }
      const host = hosts.get(name)
      const isHeldHere = mark?.plan === plan.id
      if (plan.kind === "held-deletions") {
        if (!isHeldHere && mark?.cause !== cause) {
          refusals.set(name, "it is no longer held back by this plan: something about it has changed since")
        }
      } else if (mark?.plan !== undefined && !isHeldHere) {
        refusals.set(name, `its deletion is held back by plan ${mark.plan}; decide about that one first`)
      } else if (mark !== undefined && mark.generation > plan.generation && mark.cause !== cause) {
        refusals.set(name, newer("it has changed since and waits to be published", mark.generation, plan))
      } else if (published !== undefined && published.generation > plan.generation) {
        refusals.set(name, newer("it was published since", published.generation, plan))
      } else if (host !== undefined && host.generation > plan.generation) {
        refusals.set(name, newer("its host has changed since", host.generation, plan))
      }
    }
    return { names, facts, hosts, refusals }
  })

  const reconcile = Effect.fnUntraced(function* (page: Page) {
    const { names, refusals } = yield* lookUp(page)
    const going = names.filter((name) => !refusals.has(name))
    const deleted = page.changes.filter(({ action }) => action === "delete").map(({ name }) => name)
    yield* outbox.recheck(page.zone.name, going, page.nowMillis, `plan:${page.plan.id}`)
    // Records that were disabled and are found enabled: they are not what we left, and their time begins anew.
    yield* sql`
      UPDATE published SET quarantined_until = NULL
      WHERE zone = ${page.zone.name} AND quarantined_until IS NOT NULL
        AND name IN ${asList(
          sql,
          deleted.filter((name) => !refusals.has(name))
        )}`
    return refusals
  })

  /**
   * Whoever adopts or releases decides behind the turn of records, and while nobody claims or settles what is ours at the names:
   * a write of them is over, or is seen.
   */
  const holdPublished = Effect.fnUntraced(function* ({ changes, zone }: Page) {
    yield* records.takeTurn(zone.name, false)
    const names = [...new Set(changes.map(({ name }) => name))]
    yield* sql`
      SELECT name FROM published WHERE zone = ${zone.name} AND name IN ${asList(sql, names)}
      ORDER BY ${lockOrder(sql, ["name"])} ${forUpdate}`
  })

  /**
   * Nobody marks the page's names while `body` runs, until the transaction ends: whoever publishes would look at them as they
   * were before. A mark that is not there cannot be locked, so one is put there and taken away again; also at names above
   * these, which a settlement may mark. As settlements do, the zone's row is taken before marks.
   */
  const holdingMarks = <A, E>({ changes, nowMillis, zone }: Page, body: Effect.Effect<A, E>) =>
    sql.onDialectOrElse({
      pg: () =>
        Effect.gen(function* () {
          const names = new Set(changes.flatMap(({ name }) => [name, ...NonTerminals.above(name, zone)]))
          const rows = Array.from(names, (name) => ({ name }))
          yield* sql`SELECT zone FROM zone_publication WHERE zone = ${zone.name} FOR UPDATE`
          yield* sql`
            INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at)
            SELECT ${zone.name}, name, 0, 'registered', 0, ${integer(sql, nowMillis)}
            FROM ${asTable(sql, "r", { name: "text" }, rows)} ORDER BY ${lockOrder(sql, ["name"])}
            ON CONFLICT (zone, name) DO UPDATE SET generation = outbox.generation`
          const done = yield* body
          yield* sql`
            DELETE FROM outbox WHERE zone = ${zone.name} AND generation = 0 AND name IN ${asList(sql, [...names])}`
          return done
        }),
      orElse: (): Effect.Effect<A, E | SqlError.SqlError> => body
    })

  const forgetUnserved = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
    sql`DELETE FROM unserved WHERE zone = ${zone} AND name IN ${asList(sql, names)}`

  const adopt = Effect.fnUntraced(function* (
    page: Page,
    standing: ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>>
  ) {
    yield* holdPublished(page)
    const { facts, names, refusals } = yield* lookUp(page)
    const { generation, nowMillis, zone } = page
    const changesOf = Map.groupBy(page.changes, ({ name }) => name)
    const published = yield* outbox.published(zone.name, names)
    for (const name of names) {
      if (refusals.has(name)) continue
      if (ownership.isIgnored(zone.name, name)) refusals.set(name, "the name is ignored")
      else if (changesOf.get(name)!.some(({ type }) => knownTypes(published.get(name)).has(type))) {
        refusals.set(name, "the name is ours already")
      } else if (facts.get(name)?.published?.pending === true) {
        refusals.set(name, "a write of it is not over yet; adopt it afterwards")
      } else if (
        !changesOf
          .get(name)!
          .every(({ before }) =>
            standing.get(name)?.some((rrset) => before !== undefined && RRset.equals(rrset, before))
          )
      ) {
        refusals.set(name, "it does not stand in PowerDNS any more as the plan shows it")
      }
    }
    const going = names.filter((name) => !refusals.has(name))
    if (going.length === 0) return refusals
    const rrsets = page.changes.flatMap(({ before, name }) =>
      before === undefined || refusals.has(name) ? [] : [before]
    )
    const adopted = rrsets.map((rrset): RecordChanges.ManagedRecord => ({
      ...rrset,
      zone: zone.name,
      owner: page.by,
      origin: "adopted",
      generation,
      sinceMillis: nowMillis
    }))
    yield* records.insert(adopted)
    yield* records.writeHistory(
      adopted.map((record) => ({ event: "adopted", record })),
      nowMillis
    )
    yield* outbox.settle(
      zone,
      going.map((name) => ({
        name,
        generation,
        rrsets: [...(published.get(name)?.rrsets ?? []), ...rrsets.filter((rrset) => rrset.name === name)]
      })),
      nowMillis
    )
    // Nothing was written, so there is nothing that name servers have yet to show.
    yield* forgetUnserved(zone.name, going)
    // A host that waits for the name, or comes at this moment, has it now, and a placeholder there is needed no more.
    yield* outbox.mark(placesAt(zone.name, going), generation, nowMillis, `plan:${page.plan.id}`)
    return refusals
  })

  const releaseWithin = Effect.fnUntraced(function* (page: Page) {
    const { facts, hosts, names, refusals } = yield* lookUp(page)
    const { generation, nowMillis, zone } = page
    const asked = new Set(page.changes.map(({ name, type }) => `${name} ${type}`))
    const managed = Map.groupBy(
      (yield* records.recordsAt(zone.name, names)).filter(
        ({ name, origin, type }) => origin === "adopted" && asked.has(`${name} ${type}`)
      ),
      ({ name }) => name
    )
    const published = yield* outbox.published(zone.name, names)
    for (const name of names) {
      if (refusals.has(name)) continue
      const known = facts.get(name)
      const some = managed.get(name)
      const newest = some?.reduce((most, { generation }) => Math.max(most, generation), 0)
      if (some === undefined || newest === undefined) refusals.set(name, "the name is not adopted")
      else if (newest > page.plan.generation) refusals.set(name, newer("it was adopted anew since", newest, page.plan))
      else if (hosts.get(name)?.hasRecords === true && some.some(({ type }) => excludesHosts(type, zone))) {
        refusals.set(name, "a host of this name has records; retire or ignore the host first")
      } else if (known?.mark !== undefined) refusals.set(name, "it waits to be published; release it afterwards")
      else if (known?.published?.pending === true) {
        refusals.set(name, "a write of it is not over yet; release it afterwards")
      }
    }
    const going = names.filter((name) => !refusals.has(name))
    if (going.length === 0) return refusals
    const released = going.flatMap((name) => managed.get(name)!)
    yield* records.remove(released)
    yield* records.writeHistory(
      released.map((record) => ({ event: "released", record: { ...record, owner: page.by, generation } })),
      nowMillis
    )
    yield* outbox.settle(
      zone,
      going.map((name) => {
        const gone = new Set(managed.get(name)!.map(({ type }) => type))
        return {
          name,
          generation,
          rrsets: (published.get(name)?.rrsets ?? []).filter(({ type }) => !gone.has(type))
        }
      }),
      nowMillis
    )
    // It stays in PowerDNS: nobody is to wait until it is not answered any more.
    yield* forgetUnserved(zone.name, going)
    return refusals
  })

  const release = (page: Page) => Effect.andThen(holdPublished(page), holdingMarks(page, releaseWithin(page)))

  const ignore = Effect.fnUntraced(function* (page: Page) {
    const { changes, nowMillis, plan, zone } = page
    const [added, removed] = (["ignore", "unignore"] as const).map((wanted) =>
      changes.filter(({ action }) => action === wanted).map(({ name }) => name)
    ) as [Array<DomainName>, Array<DomainName>]
    if (added.length > 0) {
      yield* sql`
        INSERT INTO ignored (zone, pattern, actor, reason, at)
        SELECT ${zone.name}, pattern, CAST(${page.by} AS TEXT), CAST(${plan.reason} AS TEXT), ${integer(sql, nowMillis)}
        FROM ${asTable(
          sql,
          "r",
          { pattern: "text" },
          added.map((pattern) => ({ pattern }))
        )} WHERE true
        ON CONFLICT (zone, pattern) DO NOTHING`
    }
    if (removed.length > 0) {
      // Waits for whoever parks names because of a pattern (`Ownership.holdIgnored`): what is parked is then seen below.
      yield* sql`
        DELETE FROM ignored WHERE zone = ${zone.name} AND pattern IN (
          SELECT pattern FROM ignored WHERE zone = ${zone.name} AND pattern IN ${asList(sql, removed)}
          ORDER BY ${lockOrder(sql, ["pattern"])} ${forUpdate})`
      yield* markParked(page, removed)
    }
    if (changes.length > 0) yield* bump
    return new Map() as Refusals
  })

  /** Names that were put aside because they were ignored are looked at again. */
  const markParked = Effect.fnUntraced(function* (page: Page, patterns: ReadonlyArray<string>) {
    const matchers = patterns.map((text) => makePattern(page.zone.name, text))
    for (let after: string | undefined = ""; after !== undefined;) {
      const rows: ReadonlyArray<{ readonly name: DomainName }> = yield* sql<{ readonly name: DomainName }>`
        SELECT name FROM outbox
        WHERE zone = ${page.zone.name} AND parked_at IS NOT NULL AND plan IS NULL AND name > ${after}
        ORDER BY name LIMIT ${pageSize}`
      const names = rows.map(({ name }) => name).filter((name) => matchers.some(({ matches }) => matches(name)))
      // For the cause they have: that they may be looked at is not yet a word about what becomes of them.
      yield* sql`
        UPDATE outbox SET generation = ${page.generation}, marked_at = ${page.nowMillis}, parked_at = NULL,
          parked_reason = NULL
        WHERE zone = ${page.zone.name} AND name IN (
          SELECT name FROM outbox
          WHERE zone = ${page.zone.name} AND name IN ${asList(sql, names)} AND parked_at IS NOT NULL AND plan IS NULL
          ORDER BY ${lockOrder(sql, ["name"])} ${forUpdate})`
      after = rows.length < pageSize ? undefined : rows.at(-1)!.name
    }
  })

  /** What people manage becomes what the plan says, set by set. */
  const changeRecords = Effect.fnUntraced(function* ({ by, changes, generation, nowMillis, plan, zone }: Page) {
    const refusals: Refusals = new Map()
    const going = changes.flatMap((change) => (isRecordType(change.type) ? [{ ...change, type: change.type }] : []))
    const newest = yield* records.newestOf(zone.name, [...new Set(going.map(({ name }) => name))])
    const outcomes = yield* records.apply(
      { zone, by, generation, nowMillis },
      going.map(({ after, name, type }) => ({
        name,
        type,
        after,
        mayChange: (_, newest) => newest <= plan.generation
      }))
    )
    for (const [i, { name, type }] of going.entries()) {
      const outcome = outcomes[i]!
      if (outcome._tag !== "Refused") continue
      const key = `${name} ${type}`
      const isNewer = outcome.error._tag === "RecordMoved"
      refusals.set(key, isNewer ? newer("it has changed since", newest.get(key) ?? 0, plan) : outcome.error.message)
    }
    for (const { name, type } of changes) {
      if (!isRecordType(type)) refusals.set(`${name} ${type}`, `Prism does not manage ${type} records`)
    }
    return refusals
  })

  /** Hosts and records become what they were. */
  const restore = Effect.fnUntraced(function* (page: Page) {
    const { actor, generation, nowMillis, plan, zone } = page
    const isHost = ({ type }: PlanChange) => type === HostRestore.hostType
    const ofHosts = page.changes.filter(isHost)
    const ofRecords = page.changes.filter((change) => !isHost(change))
    // No host comes or changes meanwhile: we lock some of them behind the marks of others.
    if (ofHosts.length > 0) yield* records.takeTurn(zone.name, true)
    const refusals =
      ofRecords.length === 0 ? (new Map() as Refusals) : yield* changeRecords({ ...page, changes: ofRecords })
    const refused = yield* restored.apply(ofHosts, {
      zone: zone.name,
      actor,
      generation,
      nowMillis,
      known: plan.generation,
      cause: `plan:${plan.id}`,
      reason: plan.reason
    })
    for (const [name, reason] of refused) refusals.set(`${name} ${HostRestore.hostType}`, reason)
    return refusals
  })

  const carryOut = (page: Page, standing: ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>>) => {
    switch (page.plan.kind) {
      case "reconcile":
      case "held-deletions":
        return reconcile(page)
      case "adopt":
        return adopt(page, standing)
      case "release":
        return release(page)
      case "ignore":
        return ignore(page)
      case "import":
        return changeRecords(page)
      case "restore":
        return restore(page)
    }
  }

  /** What is done, its audit entries and its outcomes. */
  const applyWithin = Effect.fnUntraced(function* (
    known: Plan,
    options: ApplyOptions,
    after: number,
    standing: ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>>
  ) {
    const isFirst = after === 0
    const plan = yield* getOpen(known.id, repo.lock)
    if (isFirst && plan.hash !== known.hash) {
      return yield* new PlanAltered({ id: plan.id, expected: known.hash, found: plan.hash })
    }
    const zonesVersion = zones.version
    const zone = zones.find(plan.zone)
    // What was added since nobody has seen who gave the word.
    const changes = yield* repo.openChanges(plan.id, options, after, known.counts.changes, pageSize)
    if (isFirst && zone !== undefined) yield* checkBudget(plan, zone, options)
    const generation = yield* Generation.next(sql)
    const nowMillis = yield* Clock.currentTimeMillis
    const page =
      zone === undefined
        ? undefined
        : { plan, zone, changes, by: options.by, actor: actorOf(options), generation, nowMillis }
    const refusals =
      page === undefined || changes.length === 0 ? (new Map() as Refusals) : yield* carryOut(page, standing)
    const kept = changes.filter(({ action }) => action === "keep").length
    const refusalOf = ({ name, type }: PlanChange) =>
      page === undefined
        ? `${plan.zone} is not a zone that Prism manages any more`
        : (refusals.get(name) ?? refusals.get(`${name} ${type}`))

    const effective = changes.filter((change) => refusalOf(change) === undefined)
    // Those of hosts are written with them.
    const ofRecords = effective.filter(({ type }) => type !== HostRestore.hostType)
    const entries: Array<PlanRepo.AuditEntry> = ofRecords.map((change) => ({
      action: auditAction(plan.kind, change),
      subject: plan.kind === "ignore" ? `${change.name}.${plan.zone}` : change.name,
      before: PlanRepo.auditView(change.before),
      after: PlanRepo.auditView(change.after),
      reason: change.reason
    }))
    if (isFirst && changes.length > 0) {
      entries.unshift({
        action: "plan.applied",
        subject: plan.id,
        after: selectionOf(options),
        reason: options.overrideBudget ?? plan.reason
      })
    }
    if (entries.length > 0) {
      yield* repo.audit(entries, actorOf(options), plan, generation, nowMillis)
    }
    if (changes.length > 0) {
      yield* repo.setOutcomes(
        plan.id,
        changes.map((change) => ({ ordinal: change.ordinal, outcome: refusalOf(change) ?? "applied" }))
      )
    }
    const isLast = changes.length < pageSize
    const state = isLast && (yield* repo.countOpen(plan.id)) === 0 ? "applied" : "open"
    const decided = changes.length > 0 || state === "applied"
    const next: Plan = decided
      ? {
          ...plan,
          state,
          decidedAtMillis: nowMillis,
          decidedBy: options.by,
          decidedReason: options.overrideBudget ?? plan.decidedReason
        }
      : plan
    if (decided) yield* repo.update(next)
    if (effective.length > 0 && plan.kind !== "reconcile") {
      // What is put into a zone that goes at this moment would stay there for ever.
      yield* Turns.share(sql, [plan.zone])
      yield* zones.verify(zonesVersion)
    }
    return {
      plan: next,
      applied: effective.length,
      refused: changes.length - effective.length - kept,
      kept,
      refusals: changes.flatMap((change): ReadonlyArray<Refused> => {
        const reason = refusalOf(change)
        return reason === undefined ? [] : [{ name: change.name, type: change.type, reason }]
      }),
      last: isLast ? undefined : changes.at(-1)!.ordinal
    }
  })

  type Step = Effect.Success<ReturnType<typeof applyWithin>>

  /** One transaction, of which nothing is there when `fence` fails: then that is the result. */
  const applyPage = <E>(fence: Effect.Effect<void, E>, ...args: Parameters<typeof applyWithin>) =>
    Effect.flatMap(
      Effect.result(fence),
      (begun): Effect.Effect<Result.Result<Step, E>, Effect.Error<ReturnType<typeof applyWithin>>> =>
        Result.isFailure(begun)
          ? Effect.succeed(Result.fail(begun.failure))
          : Effect.map(applyWithin(...args), (step) => Result.succeed(step))
    ).pipe(Audit.inTransaction(sql), againOnCollision, Effect.withSpan("Plans.applyPage"))

  /** What stands in PowerDNS at the next names of a plan that relies on it. */
  const look = Effect.fnUntraced(function* (plan: Plan, options: ApplyOptions, after: number) {
    if (plan.kind !== "adopt") return new Map<DomainName, ReadonlyArray<RRset.RRset>>()
    const changes = yield* repo.openChanges(plan.id, options, after, plan.counts.changes, pageSize)
    const names = [...new Set(changes.map(({ name }) => name))]
    const found = names.length === 0 ? [] : yield* powerdns.rrsets(plan.zone, names)
    return Map.groupBy(found, ({ name }) => name)
  })

  const apply = Effect.fn("Plans.apply")(function* <E = never>(
    id: string,
    { fence = Effect.void, ...options }: ApplyOptions & { readonly fence?: Effect.Effect<void, E> | undefined }
  ) {
    const known = yield* getOpen(id, repo.find)
    yield* verify(known)
    const isDry = options.dryRun === true
    const open = isDry ? yield* repo.countOpen(id) : 0
    const refusals: Array<Refused> = []
    let applied = 0
    let refused = 0
    let kept = 0
    for (let after: number | undefined = 0; ;) {
      const standing = yield* look(known, options, after)
      const done = yield* applyPage(fence, known, options, after, standing).pipe(
        isDry ? Audit.undone(sql) : identity,
        Effect.tapErrorTag("ZonesMoved", () => zones.reload),
        Effect.retry({ while: ({ _tag }) => _tag === "ZonesMoved", times: 5 }),
        Effect.catchTag("ZonesMoved", () => new PlanNotOpen({ id, state: "open" }))
      )
      const step: Step = yield* Effect.fromResult(done)
      applied += step.applied
      refused += step.refused
      kept += step.kept
      refusals.push(...step.refusals.slice(0, refusalsMax - refusals.length))
      if (!isDry) {
        if (known.kind === "ignore") yield* ownership.reload
        yield* outbox.wake([known.zone])
      }
      if (step.last === undefined) {
        // Of the pages before nothing has stayed.
        const plan =
          isDry && applied + refused + kept === open ? { ...step.plan, state: "applied" as const } : step.plan
        return { plan, applied, refused, kept, refusals }
      }
      after = step.last
      yield* Effect.yieldNow
    }
  })

  const reject: Plans["Service"]["reject"] = Effect.fn("Plans.reject")(function* (id, options) {
    return yield* Effect.gen(function* () {
      const plan = yield* getOpen(id, repo.lock)
      const nowMillis = yield* Clock.currentTimeMillis
      const next: Plan = {
        ...plan,
        state: "rejected",
        decidedAtMillis: nowMillis,
        decidedBy: options.by,
        decidedReason: options.reason
      }
      yield* repo.update(next)
      yield* tell(next, [{ action: "plan.rejected", subject: id, reason: options.reason }], options)
      return next
    }).pipe(options.dryRun === true ? Audit.undone(sql) : Audit.inTransaction(sql), againOnCollision)
  })

  const holdWithin = Effect.fnUntraced(function* (
    zone: DomainName,
    deletions: ReadonlyArray<HeldDeletion>,
    reason: string
  ) {
    const kind: PlanKind = "held-deletions"
    const generation = yield* Generation.next(sql)
    const open = yield* repo.lockOpen(zone, kind)
    const plan = Option.isSome(open)
      ? { ...open.value, reason, generation }
      : yield* newPlan(zone, { kind, reason, by: "prism", generation })
    if (Option.isNone(open)) yield* repo.insert(plan, "open")
    const present = yield* repo.namesAmong(
      plan.id,
      deletions.map(({ name }) => name)
    )
    const changes = deletions
      .filter(({ name }) => !present.has(name))
      .map((each): NewChange => ({
        name: each.name,
        type: each.type,
        action: "delete",
        before: each.before,
        after: undefined,
        reason: each.reason,
        cause: each.cause ?? "withdrawn"
      }))
    const extended = changes.length === 0 ? plan : yield* extend(plan, changes)
    yield* repo.update(extended)
    const entry = Option.isNone(open) ? madeEntry(extended) : extendedEntry(open.value, extended)
    if (Option.isNone(open) || changes.length > 0) yield* tell(extended, [entry], { by: "prism" })
    return extended
  })

  const hold = <E = never>(
    zone: DomainName,
    deletions: ReadonlyArray<HeldDeletion>,
    reason: string,
    fence?: Effect.Effect<void, E>
  ) => {
    const held = holdWithin(zone, deletions, reason)
    return Audit.inTransaction(sql)<Plan, E | SqlError.SqlError, never>(
      fence === undefined ? held : Effect.andThen(fence, held)
    ).pipe(Effect.withSpan("Plans.hold"))
  }

  const prune: Plans["Service"]["prune"] = Effect.fn("Plans.prune")(function* (keep) {
    let removed = 0
    for (;;) {
      const ids = yield* repo.old(keep, 100)
      for (const id of ids) yield* repo.remove(id)
      removed += ids.length
      if (ids.length < 100) return removed
    }
  })

  // Of a process that ended while it wrote them.
  // On PostgreSQL another server may be at work at one.
  const beforeMillis = sql.onDialectOrElse({
    pg: () => startMillis - makingMillisMax,
    orElse: () => Number.MAX_SAFE_INTEGER
  })
  for (const id of yield* repo.unfinished(beforeMillis)) yield* repo.remove(id)

  return Plans.of({
    make: makePlan,
    find: Effect.fn("Plans.find")(repo.find),
    list: Effect.fn("Plans.list")(repo.list),
    changes: Effect.fn("Plans.changes")(repo.changes),
    concerns: Effect.fn("Plans.concerns")((id, what) =>
      Effect.map(
        sql`
          SELECT 1 AS one FROM plan_change WHERE plan = ${id}
          AND ${"type" in what ? sql`type = ${what.type}` : sql`action = ${what.action}`} LIMIT 1`,
        (rows) => rows.length > 0
      )
    ),
    apply,
    reject,
    hold,
    prune
  })
})

const newer = (what: string, generation: number, plan: Plan): string =>
  `${what}: generation ${generation}, and the plan knows of ${plan.generation}; make a new one`

const actorOf = ({ by, peer, request }: Said): Audit.Actor => ({ name: by, peer, request })

/** Nothing of it is to be done. */
const isIdle = ({ counts }: Plan): boolean => counts.changes === counts.keep

/** What the audit says of a plan. */
const planView = ({ counts, hash, kind }: Plan) => ({
  kind,
  hash,
  counts: Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0))
})

/** What of a plan is applied; undefined: all of it. */
const selectionOf = ({ names, overrideBudget, withoutDeletions }: ApplyOptions) =>
  names === undefined && overrideBudget === undefined && withoutDeletions !== true
    ? undefined
    : {
        ...(names !== undefined && { names }),
        ...(withoutDeletions === true && { withoutDeletions }),
        ...(overrideBudget !== undefined && { overrideBudget: true })
      }

const madeEntry = (plan: Plan): PlanRepo.AuditEntry => ({
  action: "plan.made",
  subject: plan.id,
  after: planView(plan),
  reason: plan.reason
})

const extendedEntry = (before: Plan, after: Plan): PlanRepo.AuditEntry => ({
  action: "plan.extended",
  subject: after.id,
  before: planView(before),
  after: planView(after),
  reason: after.reason
})

const recordEvents: Partial<Record<PlanAction, Action>> = {
  create: "record.created",
  update: "record.changed",
  delete: "record.deleted"
}

const auditAction = (kind: PlanKind, { action, after }: NewChange): Action => {
  const recordEvent = changesRecords(kind) ? recordEvents[action] : undefined
  if (recordEvent !== undefined) return recordEvent
  // What is left alone is refused with why, and is no entry.
  if (action !== "repair" && action !== "keep") return `record.${action}`
  return after === undefined ? "record.delete" : "record.update"
}
