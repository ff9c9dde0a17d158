/**
 * Compares whole zones with what PowerDNS holds, and has what differs mended.
 *
 * A zone is read twice at most. First both sides go into a digest of fixed size
 * (`dns/Digest`); only when it shows a difference, the names of the buckets that
 * differ are read again, a slice at a time, and judged exactly (`dns/Drift`)
 * against what the registry says at that moment. Names that are marked or were
 * published meanwhile are left to the publisher. What is found becomes a plan,
 * and a plan is carried out by marking names: the way of any change.
 *
 * Where there are several databases each is compared, the one that leads first.
 *
 * Promises: memory is bounded, whatever the zone's size; no drift, no write; a
 * zone that was not read to its end makes no plan; records that are not ours are
 * counted and never changed; no deletion is applied beyond the zone's budget,
 * nor when one of the two sides looks as if it had lost its data: then the plan
 * stays open, with an alarm that says why, and the rest is mended. Leaves to
 * others: publishing (`dns/DnsManager`).
 */
import {
  Clock,
  Context,
  Duration,
  Effect,
  Latch,
  Layer,
  Metric,
  Option,
  Random,
  Schema,
  Semaphore,
  Stream
} from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, SqlError } from "effect/sql"
import { Cluster, type LeaseLost, zoneLease } from "../cluster/Cluster.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import { type Database, PowerDnsDatabases } from "../powerdns/PowerDnsDatabases.ts"
import { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import * as Generation from "../storage/Generation.ts"
import { asList } from "../storage/Rows.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Debts } from "./Debts.ts"
import * as DeleteBudget from "./DeleteBudget.ts"
import * as Digest from "./Digest.ts"
import * as DriftOf from "./Drift.ts"
import * as HeldZones from "./HeldZones.ts"
import { Outbox } from "./Outbox.ts"
import { Ownership } from "./Ownership.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { type NewChange, type Plan, Plans, type Said } from "./Plans.ts"
import * as Publication from "./Publication.ts"
import * as ReconcileMetrics from "./ReconcileMetrics.ts"
import { managedTypes, RecordSource } from "./RecordSource.ts"
import { Zones } from "./Zones.ts"

/** Prism does not manage a zone of this name. */
export class ZoneUnknown extends Schema.TaggedError<ZoneUnknown>()("ZoneUnknown", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} is not a zone that Prism manages`
  }
}

/** How names of a zone differ, by kind; the words of `prism_reconcile_drift`. */
export interface Drift {
  /** Should be there, and are not. */
  readonly missing: number
  /** Are there with other records. */
  readonly different: number
  /** Ours, there, and should not be. */
  readonly unexpected: number
  /** Hold a record twice, or records of one set with several TTLs. */
  readonly duplicate: number
  /** Not ours. */
  readonly foreign: number
  /** Not looked at, by a person's word. */
  readonly ignored: number
}

/** What one look at a zone found. */
export interface Reconciliation {
  readonly zone: DomainName
  readonly startedAtMillis: number
  readonly millis: number
  readonly drift: Drift
  /** Foreign names as an example, at most some dozens. */
  readonly foreignNames: ReadonlyArray<DomainName>
  /** Why deletions, or the repair, were held back; each a sentence. */
  readonly guards: ReadonlyArray<string>
  /** Without changes when there is no drift; then it is not stored. */
  readonly plan: Plan
}

export class Reconciler extends Context.Service<
  Reconciler,
  {
    /**
     * Looks at a zone now, one at a time, and makes a plan of what differs. With `apply` the plan is applied as a
     * scheduled run would: what the guards hold back stays open.
     */
    readonly run: (
      zone: DomainName,
      options: Said & { readonly apply?: boolean | undefined; readonly dryRun?: boolean | undefined }
    ) => Effect.Effect<Reconciliation, ZoneUnknown | PowerDnsError | SqlError.SqlError>
    /** The same for whoever writes the zone, by itself: repairs where the zone's settings say so, and while it does write it. */
    readonly runAsWriter: (
      zone: DomainName
    ) => Effect.Effect<Reconciliation, ZoneUnknown | LeaseLost | PowerDnsError | SqlError.SqlError>
    /** What the last look at each zone found, since the start. */
    readonly last: Effect.Effect<ReadonlyMap<DomainName, Reconciliation>>
  }
>()("@prism-dns/core/dns/Reconciler") {
  static readonly layer = (options: Partial<ReconcilerOptions> = {}) =>
    Layer.effect(Reconciler, make({ ...defaultOptions, ...options }))
}

export interface ReconcilerOptions {
  /** Records, of both sides together, of the names that are looked at exactly at one time. */
  readonly sliceRecordsMax: number
  /** Names looked up in one transaction. */
  readonly lookUpNamesMax: number
  /** Foreign names kept as an example. */
  readonly foreignNamesMax: number
  /** Decided plans kept of each zone. */
  readonly plansKeptMax: number
}

export const defaultOptions: ReconcilerOptions = {
  sliceRecordsMax: 50_000,
  lookUpNamesMax: 2000,
  foreignNamesMax: 50,
  plansKeptMax: 50
}

/** What a fence failed with. */
class Unfenced<E> {
  readonly _tag = "Unfenced"
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

/** Names that another database may lack of a zone and be compared all the same: those are left out. */
const owedMax = 1000

/** Names that are ours, read at once: few, so that they are garbage while they are young. */
const publishedPage = 1000

export const guards = ["delete-budget", "registry-empty", "powerdns-shrunk"] as const
export type Guard = (typeof guards)[number]

/** What the first reading of a zone counted. */
interface Totals {
  desiredNames: number
  foreign: number
  ignored: number
  readonly foreignNames: Array<DomainName>
}

/** What is known of a name at the moment it is judged. */
interface PublishedRow {
  readonly name: DomainName
  readonly content: string
  readonly generation: number | bigint
  readonly published_at: number | bigint
  readonly doubt_until: number | bigint | null
}

const make = Effect.fnUntraced(function* (options: ReconcilerOptions) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const cluster = yield* Cluster
  const source = yield* RecordSource
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const plans = yield* Plans
  const powerdns = yield* PowerDnsClient
  const databases = yield* PowerDnsDatabases
  const debts = yield* Debts
  const random = yield* SecureRandom.SecureRandom
  const results = new Map<DomainName, Reconciliation>()
  const tripped = new Map<DomainName, ReadonlySet<Guard>>()
  // One zone at a time: memory is that of one.
  const oneAtATime = yield* Semaphore.make(1)

  // One for each start, so that the same drift is found in the same order, and is the same plan.
  const seed = yield* Effect.map(random.randomBytes(8), (bytes): Digest.Seed => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8)
    return { a: view.getUint32(0), b: view.getUint32(4) }
  })

  /** All that a transaction reads is of one moment. */
  const atOneMoment = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(
      sql.withTransaction(effect),
      SqlClient.BeginTransaction,
      sql.onDialectOrElse({ pg: () => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", orElse: () => undefined })
    )

  /** All names that are ours. */
  const publishedNames = (zone: DomainName) =>
    Stream.paginate("", (after: string) =>
      Effect.map(
        sql<{ readonly name: DomainName; readonly content: string | null }>`
          SELECT name, CASE WHEN others = 1 THEN content END AS content FROM published
          WHERE zone = ${zone} AND name > ${after} ORDER BY name LIMIT ${publishedPage}`,
        (rows) =>
          [
            [rows],
            rows.length < publishedPage ? Option.none<string>() : Option.some<string>(rows.at(-1)!.name)
          ] as const
      )
    )

  const actualRecords = (
    zone: Zone.Zone,
    copy: Database | undefined
  ): Stream.Stream<ReadonlyArray<RawRecord>, PowerDnsError> =>
    (copy?.client ?? powerdns).records(zone.name).pipe(
      // One that is gone is one without records: it is made again with the first name that is published.
      Stream.catchIf(
        ({ reason }) => reason._tag === "NotFound" && zone.createIfMissing,
        () => Stream.empty
      )
    )

  /** Reads both sides into a digest. */
  const readAll = Effect.fn("Reconciler.readAll")(function* (
    zone: Zone.Zone,
    types: ReadonlySet<string>,
    copy: Database | undefined
  ) {
    const published = yield* outbox.countPublished(zone.name)
    const digest = Digest.make(seed, (yield* countHosts(zone)) + published)
    const totals: Totals = { desiredNames: 0, foreign: 0, ignored: 0, foreignNames: [] }
    yield* Stream.runForEach(publishedNames(zone.name), (rows) =>
      Effect.sync(() => {
        for (const { content, name } of rows) {
          // Without other types the sets are those of a host, or a placeholder.
          if (content === null) digest.know(name)
          else for (const rrset of typesIn(name, content)) know(digest, types, rrset)
        }
      })
    )
    yield* Stream.runForEach(source.all(zone), (page) =>
      Effect.sync(() => {
        for (const [name, rrsets] of page) {
          if (ownership.isIgnored(zone.name, name)) continue
          totals.desiredNames += 1
          for (const rrset of rrsets) {
            const { contents, ttlSeconds, type } = rrset
            know(digest, types, rrset)
            for (const content of contents) digest.add("desired", name, type, ttlSeconds, content)
          }
        }
      })
    )
    let last: DomainName | undefined
    yield* Stream.runForEach(
      actualRecords(zone, copy),
      Effect.fnUntraced(function* (records) {
        const strangers: Array<DomainName> = []
        for (const record of records) {
          const { content, name, ttlSeconds, type } = record
          const isOurs = knows(digest, types, record)
          if (!isOurs && !DriftOf.isOfHosts(types, record)) continue
          if (ownership.isIgnored(zone.name, name)) {
            if (name !== last) totals.ignored += 1
          } else if (isOurs) {
            digest.add("actual", name, type, ttlSeconds, content)
          } else if (name !== last) {
            strangers.push(name)
          }
          last = name
        }
        if (strangers.length === 0) return
        // What was published since we began to read is ours, and noted before it was sent.
        const published = yield* outbox.published(zone.name, strangers)
        for (const name of strangers) if (!mayBeOfHosts(types, published.get(name))) noteForeign(totals, name)
      })
    )
    return { digest, totals, published }
  })

  const noteForeign = (totals: Totals, name: DomainName) => {
    totals.foreign += 1
    if (totals.foreignNames.length < options.foreignNamesMax) totals.foreignNames.push(name)
  }

  /** About how many names the registry has for the zone: sizes a filter. */
  const countHosts = (zone: Zone.Zone) =>
    Effect.map(
      sql<{ readonly names: number | bigint }>`
        SELECT COUNT(*) AS names FROM ${
          Zone.isReverse(zone) ? sql.literal("host_address") : sql`host WHERE zone = ${zone.name}`
        }`,
      ([row]) => Number(row!.names)
    )

  /** The buckets that differ, in slices that fit into memory: the number of each bucket's slice, from 1. */
  const toSlices = (digest: Digest.Digest) => {
    const sliceOf = new Uint32Array(Digest.bucketCount)
    let slice = 0
    let records = Number.POSITIVE_INFINITY
    for (const bucket of digest.differing()) {
      if (records + digest.recordsIn(bucket) > options.sliceRecordsMax) {
        slice += 1
        records = 0
      }
      records += digest.recordsIn(bucket)
      sliceOf[bucket] = slice
    }
    return { count: slice, of: (name: DomainName) => sliceOf[digest.bucketOf(name)]! }
  }

  /** The names of one slice whose records differ, in order, with what PowerDNS holds there. */
  const readSlice = Effect.fn("Reconciler.readSlice")(function* (
    zone: Zone.Zone,
    types: ReadonlySet<string>,
    digest: Digest.Digest,
    isWithin: (name: DomainName) => boolean,
    copy: Database | undefined
  ) {
    const desired = new Map<DomainName, string>()
    const actual = new Map<DomainName, Array<RawRecord>>()
    yield* Stream.runForEach(source.all(zone), (page) =>
      Effect.sync(() => {
        for (const [name, rrsets] of page) {
          if (isWithin(name) && !ownership.isIgnored(zone.name, name)) desired.set(name, linesOf(rrsets))
        }
      })
    )
    yield* Stream.runForEach(actualRecords(zone, copy), (records) =>
      Effect.sync(() => {
        for (const record of records) {
          const { name } = record
          if (!isWithin(name) || ownership.isIgnored(zone.name, name)) continue
          if (!knows(digest, types, record) && !(record.type === "TXT" && digest.knows(name))) continue
          const others = actual.get(name)
          if (others === undefined) actual.set(name, [record])
          else others.push(record)
        }
      })
    )
    const names: Array<DomainName> = []
    for (const name of new Set([...desired.keys(), ...actual.keys()])) {
      const standing = (actual.get(name) ?? []).filter((record) => knows(digest, types, record))
      if ((desired.get(name) ?? "") !== rawLines(standing)) names.push(name)
    }
    return { names: names.sort(), actual }
  })

  /** Judges names that seemed to differ by what the registry says now. */
  const judge = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    types: ReadonlySet<string>,
    names: ReadonlyArray<DomainName>,
    actual: ReadonlyMap<DomainName, ReadonlyArray<RawRecord>>,
    since: { readonly millis: number; readonly generation: number },
    copy: Database | undefined
  ) {
    const nowMillis = yield* Clock.currentTimeMillis
    const { desired, marked, owed, published } = yield* atOneMoment(
      Effect.gen(function* () {
        const among = asList(sql, names)
        const marks = yield* sql<{ readonly name: DomainName }>`
          SELECT name FROM outbox WHERE zone = ${zone.name} AND name IN ${among}`
        const rows = yield* sql<PublishedRow>`
          SELECT name, content, generation, published_at, doubt_until FROM published
          WHERE zone = ${zone.name} AND name IN ${among}`
        return {
          marked: new Set(marks.map(({ name }) => name)),
          owed: copy === undefined ? new Map() : yield* debts.among(copy.name, zone.name, names),
          published: new Map(rows.map((row) => [row.name, row])),
          desired: yield* source.desired(zone, names)
        }
      })
    )
    return names.flatMap((name) => {
      const row = published.get(name)
      // On its way already, or written since we began to read; not by a clock that went back since.
      if (marked.has(name) || owed.has(name)) return []
      const publishedMillis = row === undefined ? 0 : Number(row.published_at)
      if (publishedMillis >= since.millis && publishedMillis <= nowMillis) return []
      if (row !== undefined && row.doubt_until !== null) return []
      if (row !== undefined && Number(row.generation) > since.generation) return []
      return [
        {
          name,
          ...DriftOf.judge(name, {
            types,
            desired: desired.get(name) ?? [],
            actual: actual.get(name) ?? [],
            published: row === undefined ? undefined : typesIn(name, row.content)
          })
        }
      ]
    })
  })

  const compare = Effect.fnUntraced(function* <E>(
    zone: Zone.Zone,
    said: Said,
    dryRun: boolean | undefined,
    fence: Effect.Effect<void, E>,
    copy: Database | undefined
  ) {
    const startedAtMillis = yield* Clock.currentTimeMillis
    const generation = yield* Generation.current(sql)
    const types: ReadonlySet<string> = new Set(managedTypes(zone))
    const { digest, published, totals } = yield* readAll(zone, types, copy)
    const slices = toSlices(digest)
    const found = { missing: 0, different: 0, unexpected: 0, duplicate: 0 }

    const changesIn = (slice: number) =>
      Stream.unwrap(
        Effect.map(
          readSlice(zone, types, digest, (name) => slices.of(name) === slice, copy),
          ({ actual, names }) =>
            Stream.fromIterable(chunksOf(names, options.lookUpNamesMax)).pipe(
              Stream.mapEffect((chunk) =>
                judge(zone, types, chunk, actual, { millis: startedAtMillis, generation }, copy)
              ),
              Stream.map((judgements) =>
                judgements.flatMap(({ changes, kind, name }): ReadonlyArray<NewChange> => {
                  if (kind === "foreign") noteForeign(totals, name)
                  else if (kind !== undefined) found[kind] += 1
                  return changes
                })
              )
            )
        )
      )
    const plan = yield* plans.make(zone.name, {
      kind: "reconcile",
      reason: `${copy === undefined ? "PowerDNS" : `the PowerDNS database ${copy.name}`} holds something else than it should`,
      ...said,
      dryRun,
      generation,
      fence,
      changes: Stream.flatMap(Stream.fromIterable(Array.from({ length: slices.count }, (_, i) => i + 1)), changesIn)
    })
    const drift: Drift = { ...found, foreign: totals.foreign, ignored: totals.ignored }
    return { startedAtMillis, plan, drift, published, totals }
  })

  /** What speaks against trusting one of the two sides; each guard with its sentence. */
  const judgeSides = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    { drift, plan, published, totals }: Effect.Success<ReturnType<typeof compare>>
  ) {
    const sentences = new Map<Guard, string>()
    const { deleteBudget } = zone.policy
    const deletions = plan.state === "open" ? plan.counts.deletedNames : 0
    if (totals.desiredNames === 0 && (deletions > 0 || (published === 0 && drift.foreign > deleteBudget.min))) {
      sentences.set(
        "registry-empty",
        published === 0
          ? `the registry has no name in ${zone.name}, and PowerDNS holds ${drift.foreign} names with records of hosts; Prism leaves them alone: adopt them, ignore them, or restore the registry's database`
          : `the registry has no name left in ${zone.name}, where ${published} are published; nothing is deleted: restore the registry's database, or apply the plan by hand`
      )
    }
    if (deletions > 0) {
      const windowMillis = Duration.toMillis(deleteBudget.window)
      const { done } = yield* outbox.deletions(zone.name, (yield* Clock.currentTimeMillis) - windowMillis)
      if (deletions > DeleteBudget.remaining(deleteBudget, published, done)) {
        sentences.set(
          "delete-budget",
          DeleteBudget.sentence(deleteBudget, { published, deleted: done, wanted: deletions })
        )
      }
    }
    if (drift.missing > DeleteBudget.allowed(deleteBudget, published)) {
      sentences.set(
        "powerdns-shrunk",
        `PowerDNS holds nothing at ${drift.missing} of ${totals.desiredNames} names of ${zone.name} that should have records; they are written again, and nothing is deleted`
      )
    }
    return sentences
  })

  const sound = Effect.fnUntraced(function* (zone: DomainName, sentences: ReadonlyMap<Guard, string>, plan: Plan) {
    const before = tripped.get(zone) ?? new Set()
    tripped.set(zone, new Set(sentences.keys()))
    for (const guard of guards) {
      const sentence = sentences.get(guard)
      yield* Metric.update(
        Metric.withAttributes(ReconcileMetrics.guard, { zone, guard }),
        sentence === undefined ? 0 : 1
      )
      if (sentence !== undefined && !before.has(guard)) {
        yield* Effect.logError("the reconciler holds back").pipe(
          Effect.annotateLogs({ zone, guard, reason: sentence, plan: plan.id })
        )
      } else if (sentence === undefined && before.has(guard)) {
        yield* Effect.logInfo("the reconciler no longer holds back").pipe(Effect.annotateLogs({ zone, guard }))
      }
    }
  })

  /** Applies what the guards let through. */
  const applyPlan = Effect.fnUntraced(function* <E>(
    plan: Plan,
    said: Said,
    withoutDeletions: boolean,
    fence: Effect.Effect<void, E>
  ) {
    const all = plan.counts.changes
    if (withoutDeletions && plan.counts.delete === all) return plan
    const apply = (withoutDeletions: boolean) =>
      plans.apply(plan.id, {
        ...said,
        withoutDeletions,
        fence: Effect.mapError(fence, (error) => new Unfenced(error))
      })
    return yield* apply(withoutDeletions).pipe(
      // Deletions that were under way have used the budget.
      Effect.catchTag("DeleteBudgetExceeded", (error) =>
        Effect.andThen(
          Effect.logError("the reconciler holds back").pipe(
            Effect.annotateLogs({ zone: plan.zone, guard: "delete-budget", reason: error.message, plan: plan.id })
          ),
          apply(true)
        )
      ),
      Effect.map((applied) => applied.plan),
      // Somebody has decided about it meanwhile.
      Effect.catchTag("PlanNotOpen", (error) =>
        Effect.as(
          Effect.logWarning("a plan was not applied").pipe(
            Effect.annotateLogs({ zone: plan.zone, plan: plan.id, reason: error.message })
          ),
          plan
        )
      ),
      Effect.catchTag("Unfenced", ({ error }) => Effect.fail(error)),
      Effect.catchTag(["DeleteBudgetExceeded", "PlanNotFound", "PlanAltered"], Effect.die)
    )
  })

  const measure = Effect.fnUntraced(function* (zone: DomainName, { drift, millis, startedAtMillis }: Reconciliation) {
    for (const kind of DriftOf.kinds) {
      yield* Metric.update(Metric.withAttributes(ReconcileMetrics.drift, { zone, kind }), drift[kind])
    }
    yield* Metric.update(Metric.withAttributes(ReconcileMetrics.duration, { zone }), millis / 1000)
    yield* Metric.update(
      Metric.withAttributes(ReconcileMetrics.lastSuccess, { zone }),
      (startedAtMillis + millis) / 1000
    )
  })

  const reconcile = Effect.fnUntraced(function* <E>(
    zone: Zone.Zone,
    request: Said & { readonly apply?: boolean | undefined; readonly dryRun?: boolean | undefined },
    fence: Effect.Effect<void, E>,
    /** A database that follows the one that leads; what differs there is mended by way of that. */
    copy?: Database
  ) {
    const { by, dryRun, peer, request: id } = request
    const said = { by, peer, request: id }
    const compared = yield* compare(zone, said, dryRun, fence, copy)
    const millis = (yield* Clock.currentTimeMillis) - compared.startedAtMillis
    const sentences = yield* judgeSides(zone, compared)
    const resultWith = (plan: Plan): Reconciliation => ({
      zone: zone.name,
      startedAtMillis: compared.startedAtMillis,
      millis,
      drift: compared.drift,
      foreignNames: compared.totals.foreignNames,
      guards: [...sentences.values()],
      plan
    })
    if (dryRun === true) return resultWith(compared.plan)
    if (copy === undefined || sentences.size > 0) yield* sound(zone.name, sentences, compared.plan)
    const hasDrift = compared.plan.counts.changes > 0
    const plan =
      request.apply === true && hasDrift
        ? yield* applyPlan(compared.plan, said, sentences.size > 0, fence)
        : compared.plan
    if (hasDrift) yield* plans.prune(options.plansKeptMax)
    const result = resultWith(plan)
    const before = results.get(zone.name)?.plan
    // What is shown of a zone is the database that leads, or another where that differs.
    if (copy === undefined || hasDrift) {
      results.set(zone.name, result)
      yield* measure(zone.name, result)
    }
    // A plan that waits for a person is found again by each look, and is no news then.
    if (hasDrift && (plan.id !== before?.id || plan.state !== before.state)) {
      yield* Effect.logWarning("PowerDNS held something else than it should").pipe(
        Effect.annotateLogs({
          zone: zone.name,
          ...(copy === undefined ? {} : { database: copy.name }),
          plan: plan.id,
          state: plan.state,
          ...compared.drift
        })
      )
    }
    return result
  })

  /** It is being filled, or paid much: the next time will do. */
  const isBehind = Effect.fnUntraced(function* (copy: Database, zone: DomainName) {
    if (!(yield* debts.isKnown(copy.name, zone))) return true
    return (yield* debts.of(copy.name, zone, undefined, owedMax)).length === owedMax
  })

  /**
   * The database that leads, and then each of the others that is not far behind, as far as we know. Ends with the first that differs, or
   * goes through `all`; gives the last that differed, else the first.
   */
  const reconcileEach = Effect.fnUntraced(function* <E>(
    zone: Zone.Zone,
    request: Said & { readonly apply?: boolean | undefined; readonly dryRun?: boolean | undefined },
    fence: Effect.Effect<void, E>,
    all: boolean
  ) {
    let result = yield* reconcile(zone, request, fence)
    const differs = () => result.plan.counts.changes > 0
    for (const copy of databases.all) {
      if (copy === databases.leading()) continue
      if (differs() && !all) break
      if (yield* isBehind(copy, zone.name)) continue
      const found = yield* reconcile(zone, request, fence, copy).pipe(
        // One that is away is no reason to say nothing of the others.
        Effect.catchIf(
          (error): error is PowerDnsError => error instanceof PowerDnsError,
          (error) =>
            Effect.as(
              Effect.logWarning("a PowerDNS database could not be compared").pipe(
                Effect.annotateLogs({ zone: zone.name, database: copy.name, reason: error.message })
              ),
              undefined
            )
        )
      )
      if (found !== undefined && found.plan.counts.changes > 0) result = found
    }
    return result
  })

  const counted = <A, E>(zone: DomainName, effect: Effect.Effect<A, E>) =>
    effect.pipe(
      Effect.tapError(() => Metric.update(Metric.withAttributes(ReconcileMetrics.failuresTotal, { zone }), 1)),
      (effect) => oneAtATime.withPermit(effect)
    )

  const run: Reconciler["Service"]["run"] = Effect.fn("Reconciler.run")(function* (name, request) {
    const zone = zones.find(name)
    if (zone === undefined) return yield* new ZoneUnknown({ zone: name })
    return yield* counted(name, reconcileEach(zone, request, Effect.void, false))
  })

  const runAsWriter: Reconciler["Service"]["runAsWriter"] = Effect.fn("Reconciler.runAsWriter")(function* (name) {
    const zone = zones.find(name)
    if (zone === undefined) return yield* new ZoneUnknown({ zone: name })
    const request = { by: "prism", apply: zone.reconciliation.repair }
    return yield* counted(name, reconcileEach(zone, request, cluster.fence(zoneLease(name)), true))
  })

  yield* zones.changed(({ after, before }) => {
    if (after !== undefined || before === undefined) return
    results.delete(before.name)
    tripped.delete(before.name)
  })

  return Reconciler.of({ run, runAsWriter, last: Effect.sync(() => new Map(results)) })
})

/** Sets of other types than hosts' are ours by themselves: what else stands at their name need not be. */
const setKey = (name: DomainName, type: string): string => `${name} ${type}`

const know = (digest: Digest.Digest, types: ReadonlySet<string>, rrset: RRset.RRset): void =>
  digest.know(types.has(rrset.type) || NonTerminals.isPlaceholder(rrset) ? rrset.name : setKey(rrset.name, rrset.type))

/** Whether a record may be ours; of some that are not it is said too. */
const knows = (digest: Digest.Digest, types: ReadonlySet<string>, record: RawRecord): boolean =>
  (DriftOf.isOfHosts(types, record) && digest.knows(record.name)) ||
  (!types.has(record.type) && digest.knows(setKey(record.name, record.type)))

/** Whether records of hosts, or a placeholder, are ours at a name, or may be. */
const mayBeOfHosts = (types: ReadonlySet<string>, published: Publication.Published | undefined): boolean =>
  published !== undefined &&
  (published.sent === "anything" ||
    Publication.isOnlyPlaceholder(published) ||
    Array.from(Publication.knownTypes(published)).some((type) => types.has(type)))

/** The types that PowerDNS took, as record sets. */
const typesIn = (name: DomainName, content: string): ReadonlyArray<RRset.RRset> =>
  (JSON.parse(content) as ReadonlyArray<[string, number, ReadonlyArray<string>]>).map(
    ([type, ttlSeconds, contents]) => ({ name, type, ttlSeconds, contents })
  )

const line = (type: string, ttlSeconds: number, content: string) => `${type} ${ttlSeconds} ${content}`

/** The records of a name in one text; a doubled one stands twice. */
const linesOf = (rrsets: ReadonlyArray<RRset.RRset>): string =>
  rrsets
    .flatMap(({ contents, ttlSeconds, type }) => contents.map((content) => line(type, ttlSeconds, content)))
    .sort()
    .join("\n")

const rawLines = (records: ReadonlyArray<RawRecord>): string =>
  records
    .map(({ content, ttlSeconds, type }) => line(type, ttlSeconds, content))
    .sort()
    .join("\n")

const chunksOf = <A>(values: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(values.length / size) }, (_, i) => values.slice(i * size, (i + 1) * size))

/** After a run that failed, the next comes within this time. */
const retryAfter = Duration.minutes(1)

/**
 * Looks at each zone that this server writes as often as its settings say, the first time one interval after it began to,
 * or after its settings changed.
 */
export const scheduled = Layer.effectDiscard(
  Effect.gen(function* () {
    const zones = yield* Zones
    const reconciler = yield* Reconciler

    const look = (zone: Zone.Zone) =>
      reconciler.runAsWriter(zone.name).pipe(
        Effect.as(zone.reconciliation.interval),
        Effect.catch((error) =>
          Effect.as(
            Effect.logError("a zone could not be compared with PowerDNS, nothing was changed, will try again").pipe(
              Effect.annotateLogs({
                zone: zone.name,
                reason: SqlError.isSqlError(error) ? `the registry's database: ${detailOf(error)}` : error.message
              })
            ),
            Duration.min(retryAfter, zone.reconciliation.interval)
          )
        ),
        // A fault of ours must neither pass in silence nor end the schedule.
        Effect.catchDefect((defect) =>
          Effect.as(
            Effect.logError("comparing a zone failed by a fault of the server, will try again", defect).pipe(
              Effect.annotateLogs({ zone: zone.name })
            ),
            zone.reconciliation.interval
          )
        )
      )

    const loop = Effect.fnUntraced(function* (name: DomainName) {
      for (let zone = zones.find(name), pause = zone?.reconciliation.interval; pause !== undefined;) {
        // Zones with one interval do not all come at once.
        yield* Effect.sleep(Duration.times(pause, yield* Random.nextBetween(0.9, 1.1)))
        zone = zones.find(name)
        pause = zone === undefined ? undefined : yield* look(zone)
      }
    })

    /** Zones whose pause is another now. */
    const changed = new Map<DomainName, Latch.Latch>()
    yield* zones.changed(({ after, before }) => {
      if (after === undefined || before === undefined) return
      if (Duration.Equivalence(before.reconciliation.interval, after.reconciliation.interval)) return
      changed.get(after.name)?.openUnsafe()
    })
    yield* HeldZones.whileHeld((name) =>
      Effect.gen(function* () {
        const latch = yield* Latch.make(false)
        changed.set(name, latch)
        // Begun anew each time the pause is another.
        yield* Effect.raceFirst(
          loop(name),
          Effect.andThen(
            latch.await,
            Effect.sync(() => latch.closeUnsafe())
          )
        ).pipe(Effect.forever)
      }).pipe(Effect.ensuring(Effect.sync(() => changed.delete(name))))
    )
  })
)
