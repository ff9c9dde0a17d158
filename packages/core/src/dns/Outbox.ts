/**
 * Names that may differ from what PowerDNS holds.
 *
 * A mark says "look at this name", never what to do: whoever publishes computes
 * the records at that moment. Marks are written in the transaction that changes
 * the registry, each with that transaction's generation, and are cleared only at
 * the generation that was published, so a change that came in between stays
 * marked. Beside the marks stands what PowerDNS was last seen to take
 * (`published`), which is also the list of names that are ours.
 *
 * What only the writer of a zone may do takes a `fence` (`Cluster.fence`): the
 * first statement of its transaction, whose failure undoes it.
 */
import { Context, Duration, Effect, Latch, Layer } from "effect"
import { SqlClient, type SqlError, type Statement } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import { Signals } from "../cluster/Signals.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { asList, asTable, forRows, insertRows, lockOrder } from "../storage/Rows.ts"
import type { Zone } from "../domain/Zone.ts"
import { type Cause, isWeak, urgencyOf } from "./Cause.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { type Published, quarantineOver } from "./Publication.ts"
import { managedTypes } from "./RecordSource.ts"
import type { RecordPlace } from "./Zones.ts"

export interface Mark {
  readonly name: DomainName
  readonly generation: number
  readonly markedAtMillis: number
  readonly cause: Cause
}

/** What is to be marked, and why, where that is another reason than of the others. */
export interface MarkedPlace extends RecordPlace {
  readonly cause?: Cause
}

/** How one marked name came out of a publication. */
export interface Settlement {
  readonly name: DomainName
  readonly generation: number
  /** What PowerDNS now holds of ours, disabled or not; empty when nothing is left. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
  /** Set when what it holds is disabled: until when it is kept. */
  readonly quarantinedUntilMillis?: number | undefined
  /** False when nothing of ours stood there, and nothing does: what name servers answer is not ours to expect. Default true. */
  readonly isOurs?: boolean
  /** What stood there before as far as is known, where PowerDNS was sent a change. Undefined: it was not. */
  readonly former?: Published | "nothing" | undefined
  /** It was known that anything might stand there, and so it was written whatever stood there. */
  readonly rewritten?: boolean
}

/** What a name server is to answer with, once it has what was settled. */
export const answered = ({ quarantinedUntilMillis, rrsets }: Settlement): ReadonlyArray<RRset.RRset> =>
  quarantinedUntilMillis === undefined ? rrsets : []

/** What is about to be written at a name, and what was written there without an answer and may still come. */
export interface Claim {
  readonly name: DomainName
  readonly sent: ReadonlyArray<RRset.RRset> | "anything"
  /** With `anything`: the types of our own writes among it. */
  readonly types?: ReadonlyArray<string>
}

export interface Parking {
  readonly name: DomainName
  readonly generation: number
  /** A sentence for people, where possible PowerDNS's own. */
  readonly reason: string
}

/** A marked name, as people see it. */
export interface PendingPublication extends RecordPlace {
  readonly generation: number
  readonly markedAtMillis: number
  readonly parkedReason: string | undefined
}

export interface ZoneBacklog {
  readonly zone: DomainName
  readonly pending: number
  readonly parked: number
  /** When the oldest pending name was marked; undefined when none is. */
  readonly oldestMillis: number | undefined
  /** When a name of the zone was published last; undefined before the first time. */
  readonly publishedAtMillis: number | undefined
}

export class Outbox extends Context.Service<
  Outbox,
  {
    /**
     * Marks `places` at `generation`; the latest cause of a name stands, but a weak one (`Cause.isWeak`) yields. A place may
     * have a cause of its own, as weak as `cause`: what a transaction marks it marks at once, in the order of names, so that no
     * two wait for each other. Belongs into the transaction that makes the change; call `wake` after the commit.
     */
    readonly mark: (
      places: ReadonlyArray<MarkedPlace>,
      generation: number,
      nowMillis: number,
      cause: Cause
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Says, on every server, that these zones may have something to publish. A hint: a lost one costs time, never truth. */
    readonly wake: (zones: Iterable<DomainName>) => Effect.Effect<void>
    /** Waits for a `wake`, and returns the zones named since the last call. */
    readonly awaitWake: Effect.Effect<ReadonlySet<DomainName>>
    /** Those of `zones` that have marks to publish. */
    readonly dueZones: (zones: ReadonlyArray<DomainName>) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /**
     * Up to `limit` marks of a zone that are not parked: new and changed names before removals, or the other way, and the
     * longest waiting first.
     */
    readonly due: (
      zone: DomainName,
      limit: number,
      first?: "changes" | "removals"
    ) => Effect.Effect<ReadonlyArray<Mark>, SqlError.SqlError>
    /** What stands at those of `names` that are ours. */
    readonly published: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlyMap<DomainName, Published>, SqlError.SqlError>
    /** How many names of the zone are ours; counts no further than `atMost`, whose cost it then is. */
    readonly countPublished: (zone: DomainName, atMost?: number) => Effect.Effect<number, SqlError.SqlError>
    /**
     * Records, safe from a power cut, before a write that these names are ours and what is being written there, so that
     * a crash in between leaves no record without owner, and none that we believe to be another.
     */
    readonly claim: <E = never>(
      zone: DomainName,
      claims: ReadonlyArray<Claim>,
      nowMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /** Takes back the claim of `names` whose first write changed nothing, or that turned out not to be ours. */
    readonly disclaim: <E = never>(
      zone: Zone,
      names: ReadonlyArray<DomainName>,
      nowMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /**
     * One transaction: what is published now, what the name servers are to answer, the marks cleared where their
     * generation is still the one published, the names between these and the apex marked where they have come to be
     * empty non-terminals or no longer are, `deletions` counted against the zone's budget, and an entry in the audit for each
     * name whose records were changed. Returns the names for which name servers are to be asked.
     */
    readonly settle: <E = never>(
      zone: Zone,
      settlements: ReadonlyArray<Settlement>,
      nowMillis: number,
      deletions?: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<ReadonlySet<DomainName>, E | SqlError.SqlError>
    /** A write of these names had no answer, and may still be taken. They stay ours until the doubt has passed. */
    readonly doubt: <E = never>(
      zone: DomainName,
      names: ReadonlyArray<DomainName>,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /**
     * Doubts every name of the zone that was claimed and not settled: a process that ended may have written it. Those that do
     * not wait to be looked at are marked, so that the zone is written again and the doubt has an end.
     */
    readonly doubtClaimed: <E = never>(
      zone: DomainName,
      nowMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /** The zone was written again: what had no answer is taken by `untilMillis` or never, and is due once more then. */
    readonly endDoubts: <E = never>(
      zone: DomainName,
      untilMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /** Names of the zone that have records of ours, in order, beginning behind `after`. */
    readonly publishedNames: (
      zone: DomainName,
      after: DomainName | undefined,
      limit: number
    ) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /**
     * Says that anything may stand at `names`, ours or not: they are marked, and those that are ours written anew. A mark
     * that waits keeps its cause when this one is `doubt`.
     */
    readonly recheck: <E = never>(
      zone: DomainName,
      names: ReadonlyArray<DomainName>,
      nowMillis: number,
      cause: Cause,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /**
     * Says that these were sent by a server that had lost the zone, and may have been taken after what was written since, or
     * may be until `untilMillis`. Those names are in doubt for so long, are marked, and are written anew; where nothing of
     * ours was left since, what was sent is taken away and what is somebody else's is not.
     */
    readonly recheckSent: (
      zone: DomainName,
      claims: ReadonlyArray<Claim>,
      nowMillis: number,
      untilMillis: number
    ) => Effect.Effect<void, SqlError.SqlError>
    /**
     * Marks names whose doubt or quarantine is over by `nowMillis`, at most `limit` of each kind; returns their zones. Marks
     * that wait keep their cause. No doubt has longer to go than `doubtMillis`, also where the clock went back.
     */
    readonly markElapsed: (
      nowMillis: number,
      limit: number,
      doubtMillis: number
    ) => Effect.Effect<ReadonlySet<DomainName>, SqlError.SqlError>
    /**
     * Names that count against the zone's budget since `sinceMillis`: those deleted; those that plans which were applied
     * take away, not published yet; and those that wait to be withdrawn.
     */
    readonly deletions: (
      zone: DomainName,
      sinceMillis: number
    ) => Effect.Effect<
      { readonly done: number; readonly underWay: number; readonly waiting: number },
      SqlError.SqlError
    >
    /** Holds marks back until the plan is applied; not those about which it was decided meanwhile. */
    readonly hold: <E = never>(
      zone: DomainName,
      marks: ReadonlyArray<{ readonly name: DomainName; readonly generation: number }>,
      plan: string,
      reason: string,
      nowMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /** Takes names out of the way until they change again, each with its reason, which is in the audit too. */
    readonly park: <E = never>(
      zone: DomainName,
      parkings: ReadonlyArray<Parking>,
      nowMillis: number,
      fence?: Effect.Effect<void, E>
    ) => Effect.Effect<void, E | SqlError.SqlError>
    /** Marked names, parked ones included, the longest waiting first. */
    readonly list: (options: {
      readonly zone?: DomainName | undefined
      readonly zones?: ReadonlyArray<DomainName> | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<PendingPublication>, SqlError.SqlError>
    /** The marks at `places`. */
    readonly findMarks: (
      places: ReadonlyArray<RecordPlace>
    ) => Effect.Effect<ReadonlyArray<PendingPublication>, SqlError.SqlError>
    /** When each of `places` was published last, by name. */
    readonly publishedAt: (
      places: ReadonlyArray<RecordPlace>
    ) => Effect.Effect<ReadonlyMap<DomainName, number>, SqlError.SqlError>
    /** How much waits in each zone that has marks or was ever published. */
    readonly backlog: Effect.Effect<ReadonlyArray<ZoneBacklog>, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Outbox") {
  static readonly layer = Layer.effect(
    Outbox,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const durability = yield* Durability
      const signal = yield* Latch.make(false)
      const woken = new Set<DomainName>()
      const signals = yield* Signals
      // What others may have said unheard is found by whoever publishes, in time.
      yield* signals.listen("outbox", (zones) => {
        if (zones === "all") return
        for (const zone of zones) woken.add(zone as DomainName)
        signal.openUnsafe()
      })
      const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))

      /** What becomes of a mark that stands already. */
      const overrides = `
        cause = excluded.cause,
        urgency = excluded.urgency,
        plan = NULL,
        marked_at = CASE WHEN outbox.parked_at IS NULL THEN outbox.marked_at ELSE excluded.marked_at END,
        parked_at = NULL,
        parked_reason = NULL`
      // What is to be said of the name stays said, and so does that it waits for a person. The new generation sees to it
      // that whoever is publishing the name looks once more.
      const yields = `
        marked_at = CASE WHEN outbox.parked_at IS NULL OR outbox.plan IS NOT NULL
          THEN outbox.marked_at ELSE excluded.marked_at END,
        parked_reason = CASE WHEN outbox.plan IS NULL THEN NULL ELSE outbox.parked_reason END,
        parked_at = CASE WHEN outbox.plan IS NULL THEN NULL ELSE outbox.parked_at END`

      const put = Effect.fnUntraced(function* (
        places: ReadonlyArray<MarkedPlace>,
        generation: number,
        nowMillis: number,
        cause: Cause,
        standing: string
      ) {
        if (places.length === 0) return
        const rows = new Map(
          places.map(({ cause: own = cause, name, zone }) => [
            `${zone} ${name}`,
            { zone, name, generation, cause: own, urgency: urgencyOf(own), marked_at: nowMillis }
          ])
        ).values()
        // A parked name that changes is worth another try, and waits from now on. The generation may even fall, when two
        // transactions commit in another order than they began: what counts is that it is not the one being published.
        yield* insertRows(sql, "outbox", markColumns, [...rows], {
          by: ["zone", "name"],
          conflict: `ON CONFLICT (zone, name) DO UPDATE SET generation = excluded.generation, ${standing}`
        })
      })

      const mark: Outbox["Service"]["mark"] = (places, generation, nowMillis, cause) =>
        put(places, generation, nowMillis, cause, isWeak(cause) ? yields : overrides)

      /** Marks names for what our own writes have done to them. A mark that stands keeps its cause. */
      const remark: Outbox["Service"]["mark"] = (places, generation, nowMillis, cause) =>
        put(places, generation, nowMillis, cause, yields)

      // One index probe for each zone: a long backlog makes it no slower.
      const dueZones: Outbox["Service"]["dueZones"] = (zones) =>
        Effect.map(
          sql<{ readonly zone: DomainName }>`
            SELECT r.zone FROM ${asTable(
              sql,
              "r",
              { zone: "text" },
              zones.map((zone) => ({ zone }))
            )}
            WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.zone = r.zone AND o.parked_at IS NULL)`,
          (rows) => rows.map((row) => row.zone)
        )

      const dueOf = (zone: DomainName, urgency: number, limit: number) =>
        Effect.map(
          sql<MarkRow>`
            SELECT name, generation, marked_at, cause FROM outbox
            WHERE zone = ${zone} AND urgency = ${urgency} AND parked_at IS NULL ORDER BY marked_at LIMIT ${limit}`,
          (rows) => rows.map(toMark)
        )

      const due: Outbox["Service"]["due"] = Effect.fnUntraced(function* (zone, limit, first = "changes") {
        const marks = yield* dueOf(zone, first === "changes" ? 0 : 1, limit)
        if (marks.length === limit) return marks
        return [...marks, ...(yield* dueOf(zone, first === "changes" ? 1 : 0, limit - marks.length))]
      })

      const published = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
        Effect.map(
          sql<PublishedRow>`
            SELECT name, content, sent, quarantined_until, doubt_until FROM published
            WHERE zone = ${zone} AND name IN ${asList(sql, names)}`,
          (rows) => new Map(rows.map((row) => [row.name, toPublished(row)]))
        )

      const countPublished = (zone: DomainName, atMost?: number) => {
        const ours = sql`FROM published WHERE zone = ${zone}`
        return Effect.map(
          atMost === undefined
            ? sql<{ readonly names: number | bigint }>`SELECT COUNT(*) AS names ${ours}`
            : sql<{ readonly names: number | bigint }>`
                SELECT COUNT(*) AS names FROM (SELECT 1 ${ours} LIMIT ${atMost}) AS some_of_them`,
          ([row]) => Number(row!.names)
        )
      }

      const publishedNames = (zone: DomainName, after: DomainName | undefined, limit: number) =>
        Effect.map(
          sql<{ readonly name: DomainName }>`
            SELECT name FROM published WHERE zone = ${zone} AND name > ${after ?? ""} AND content <> '[]'
            ORDER BY name LIMIT ${limit}`,
          (rows) => rows.map(({ name }) => name)
        )

      /** What becomes of what is known to have been sent to a name before. */
      const sentBefore = `ON CONFLICT (zone, name) DO UPDATE SET
        sent = CASE WHEN published.sent LIKE '*%' AND excluded.sent NOT LIKE '*%'
            THEN published.sent || '\n' || excluded.sent
          WHEN published.sent NOT LIKE '*%' AND excluded.sent LIKE '*%'
            THEN excluded.sent || '\n' || published.sent
          ELSE excluded.sent END`

      const claim = (
        zone: DomainName,
        claims: ReadonlyArray<Claim>,
        nowMillis: number,
        conflict: string = sentBefore,
        doubtUntilMillis: number | null = null
      ) =>
        insertRows(
          sql,
          "published",
          {
            zone: "text",
            name: "text",
            content: "text",
            sent: "text",
            present: "bigint",
            generation: "bigint",
            published_at: "bigint",
            doubt_until: "bigint"
          },
          claims.map(({ name, sent, types }) => ({
            zone,
            name,
            content: "[]",
            sent: sent === "anything" ? toAnything(types ?? []) : toContent(sent),
            present: 0,
            generation: 0,
            published_at: nowMillis,
            doubt_until: doubtUntilMillis
          })),
          { by: ["name"], conflict }
        )

      /** By how much what stands below names changes. */
      const belowOf = (zone: Zone, changes: ReadonlyArray<Turned>) => {
        const deltas = new Map<DomainName, number>()
        for (const { by, name } of changes) {
          for (const each of NonTerminals.above(name, zone)) deltas.set(each, (deltas.get(each) ?? 0) + by)
        }
        return Array.from(deltas, ([name, below]) => ({ name, below })).filter(({ below }) => below !== 0)
      }

      /** Counts names that came to stand below others or ceased to; gives those others for which that makes a difference. */
      const countBelow = Effect.fnUntraced(function* (zone: Zone, changes: ReadonlyArray<Turned>) {
        const rows = belowOf(zone, changes)
        if (rows.length === 0) return []
        const deltas = new Map(rows.map(({ below, name }) => [name, below]))
        const counted = yield* sql<{ readonly name: DomainName; readonly below: number | bigint }>`
          INSERT INTO non_terminal (zone, name, below)
          SELECT ${zone.name}, name, below FROM ${asTable(sql, "r", { name: "text", below: "bigint" }, rows)}
          WHERE true ORDER BY ${lockOrder(sql, ["name"])}
          ON CONFLICT (zone, name) DO UPDATE SET below = non_terminal.below + excluded.below
          RETURNING name, below`
        const empty = counted.filter(({ below }) => Number(below) <= 0).map(({ name }) => name)
        if (empty.length > 0) {
          yield* sql`DELETE FROM non_terminal WHERE zone = ${zone.name} AND name IN ${asList(sql, empty)}`
        }
        return counted.flatMap(({ below, name }) =>
          Number(below) <= 0 || Number(below) === deltas.get(name) ? [{ zone: zone.name, name }] : []
        )
      })

      /** Marks names that have come to have others below them, or have none any more. */
      const remarkFlipped = Effect.fnUntraced(function* (flipped: ReadonlyArray<RecordPlace>, nowMillis: number) {
        if (flipped.length > 0) yield* remark(flipped, yield* Generation.next(sql), nowMillis, cameBelow)
      })

      const disclaim = Effect.fnUntraced(function* (zone: Zone, names: ReadonlyArray<DomainName>, nowMillis: number) {
        const gone = names.map((name) => ({ name, present: 0 as const }))
        const changes = yield* turned(zone, gone)
        yield* sql`DELETE FROM published WHERE zone = ${zone.name} AND name IN ${asList(sql, names)}`
        yield* remarkFlipped(yield* countBelow(zone, changes), nowMillis)
      })

      /** Locks what is published at the names. Gives those with others above them that came to have records or ceased to. */
      const turned = Effect.fnUntraced(function* (
        zone: Zone,
        rows: ReadonlyArray<{ readonly name: DomainName; readonly present: 0 | 1 }>
      ) {
        const found = yield* sql<{ readonly name: DomainName; readonly present: number | bigint }>`
          SELECT name, present FROM published WHERE zone = ${zone.name} AND name IN ${asList(
            sql,
            rows.map(({ name }) => name)
          )} ORDER BY ${lockOrder(sql, ["name"])} ${forUpdate}`
        const were = new Set(found.filter(({ present }) => Number(present) === 1).map(({ name }) => name))
        return rows
          .filter(({ name, present }) => were.has(name) !== (present === 1) && isBelowOthers(name, zone))
          .map(({ name, present }) => ({ name, by: present === 1 ? (1 as const) : (-1 as const) }))
      })

      /** Of what is published: nothing else may stand there, nor come. Not so where it was said, meanwhile perhaps, that it may. */
      const isSettled = "published.doubt_until IS NULL AND (published.sent IS NULL OR published.sent NOT LIKE '*%')"

      const settle = Effect.fnUntraced(function* (
        zone: Zone,
        settlements: ReadonlyArray<Settlement>,
        nowMillis: number,
        deletions = 0
      ) {
        const rows = settlements.map((settlement) => {
          const answers = answered(settlement)
          return {
            name: settlement.name,
            generation: settlement.generation,
            content: toContent(settlement.rrsets),
            answers: toContent(answers),
            present: answers.some((rrset) => !NonTerminals.isPlaceholder(rrset)) ? (1 as const) : (0 as const),
            others: settlement.rrsets.some((rrset) => !isOfHosts(zone, rrset)) ? 1 : 0,
            quarantined_until: settlement.quarantinedUntilMillis ?? null,
            isOurs: settlement.isOurs !== false
          }
        })
        const kept = rows.filter(({ content }) => content !== "[]")
        // What is only written takes its rows in their order by itself.
        const isLocking = kept.length < rows.length || rows.some(({ name }) => isBelowOthers(name, zone))
        const changes = isLocking ? yield* turned(zone, rows) : []
        if (kept.length > 0) {
          yield* insertRows(
            sql,
            "published",
            {
              zone: "text",
              name: "text",
              content: "text",
              present: "bigint",
              others: "bigint",
              quarantined_until: "bigint",
              generation: "bigint",
              published_at: "bigint"
            },
            kept.map(({ content, generation, name, others, present, quarantined_until }) => ({
              zone: zone.name,
              name,
              content,
              present,
              others,
              quarantined_until,
              generation,
              published_at: nowMillis
            })),
            {
              by: ["name"],
              conflict: `ON CONFLICT (zone, name) DO UPDATE SET
                  content = excluded.content,
                  sent = CASE WHEN ${isSettled} THEN NULL ELSE published.sent END,
                  present = excluded.present,
                  others = excluded.others,
                  quarantined_until = excluded.quarantined_until,
                  generation = excluded.generation,
                  published_at = excluded.published_at,
                  served_at = NULL,
                  served_nodes = NULL`
            }
          )
        }
        if (kept.length < rows.length) {
          const gone = asList(
            sql,
            rows.filter(({ content }) => content === "[]").map(({ name }) => name)
          )
          yield* sql`DELETE FROM published WHERE zone = ${zone.name} AND name IN ${gone} AND ${sql.literal(isSettled)}`
          // One in doubt is ours until nothing can come any more.
          yield* sql`
              UPDATE published SET content = '[]', present = 0, others = 0, quarantined_until = NULL, served_at = NULL,
                served_nodes = NULL
              WHERE zone = ${zone.name} AND name IN ${gone}`
        }
        const asked = yield* expectAnswers(zone.name, rows, nowMillis)
        if (deletions > 0) {
          yield* sql`INSERT INTO deletion (zone, at, names) VALUES (${zone.name}, ${nowMillis}, ${deletions})`
          const keptMillis = Duration.toMillis(zone.policy.deleteBudget.window) + deletionsKeptMillis
          yield* sql`DELETE FROM deletion WHERE zone = ${zone.name} AND at < ${nowMillis - keptMillis}`
        }
        yield* sql`
            INSERT INTO zone_publication (zone, published_at) VALUES (${zone.name}, ${nowMillis})
            ON CONFLICT (zone) DO UPDATE SET published_at = excluded.published_at`
        const flipped = yield* countBelow(zone, changes)
        if (flipped.length > 0) yield* lockMarks(zone.name, settlements, flipped, nowMillis)
        yield* clearMarks(zone.name, settlements)
        yield* forgetRewritten(zone.name, settlements)
        yield* remarkFlipped(flipped, nowMillis)
        yield* Audit.writeAll(
          sql,
          settlements.flatMap(({ former, generation, name, quarantinedUntilMillis, rrsets }) =>
            former === undefined
              ? []
              : {
                  ...entryOf(zone.name, name, generation),
                  action: "publication.applied" as const,
                  before: former === "nothing" ? undefined : auditView(former),
                  after: auditView({ rrsets, quarantinedUntilMillis })
                }
          ),
          nowMillis
        )
        return asked
      })

      /**
       * What name servers are to answer at the names of a settlement. What was ours until lately is asked for until it is
       * gone; what never was may be there for ever. Gives the names that they are to be asked for.
       */
      const expectAnswers = Effect.fnUntraced(function* (
        zone: DomainName,
        settled: ReadonlyArray<{
          readonly name: DomainName
          readonly generation: number
          readonly answers: string
          readonly isOurs: boolean
        }>,
        nowMillis: number
      ) {
        const others = settled.filter(({ isOurs }) => !isOurs).map(({ name }) => name)
        const still =
          others.length === 0
            ? []
            : yield* sql<{ readonly name: DomainName }>`
                SELECT name FROM unserved WHERE zone = ${zone} AND name IN ${asList(sql, others)}`
        const asked = new Set(still.map(({ name }) => name))
        for (const { isOurs, name } of settled) if (isOurs) asked.add(name)
        const rows = settled.filter(({ name }) => asked.has(name))
        if (rows.length > 0) {
          yield* insertRows(
            sql,
            "unserved",
            { zone: "text", name: "text", generation: "bigint", content: "text", applied_at: "bigint" },
            rows.map(({ answers, generation, name }) => ({
              zone,
              name,
              generation,
              content: answers,
              applied_at: nowMillis
            })),
            {
              by: ["name"],
              conflict: `ON CONFLICT (zone, name) DO UPDATE SET
                generation = excluded.generation, content = excluded.content, applied_at = excluded.applied_at`
            }
          )
        }
        return asked
      })

      const clearMarks = (zone: DomainName, settlements: ReadonlyArray<Settlement>) =>
        forRows(
          sql,
          { zone: "text", name: "text", generation: "bigint" },
          settlements.map(({ generation, name }) => ({ zone, name, generation })),
          {
            all: (r) => sql`
              WITH settled AS (
                SELECT outbox.name FROM outbox JOIN ${r} ON outbox.name = r.name AND outbox.generation = r.generation
                WHERE outbox.zone = ${zone} ORDER BY outbox.name COLLATE "C" FOR UPDATE OF outbox)
              DELETE FROM outbox USING settled WHERE outbox.zone = ${zone} AND outbox.name = settled.name`,
            each: "DELETE FROM outbox WHERE zone = ?1 AND name = ?2 AND generation = ?3"
          }
        )

      /**
       * That anything might have stood there is over, unless it was said once more since (`recheck`, with a mark that stands):
       * what was read then is older than that.
       */
      const forgetRewritten = Effect.fnUntraced(function* (zone: DomainName, settlements: ReadonlyArray<Settlement>) {
        const names = settlements.filter(({ rewritten }) => rewritten === true).map(({ name }) => name)
        if (names.length === 0) return
        const over = sql`zone = ${zone} AND name IN ${asList(sql, names)} AND doubt_until IS NULL
          AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.zone = published.zone AND o.name = published.name)`
        yield* sql`DELETE FROM published WHERE content = '[]' AND ${over}`
        yield* sql`UPDATE published SET sent = NULL WHERE ${over}`
      })

      /** Names of a zone that are ours and of which `condition` is true, locked in their order where others may lock them too. */
      const ours = (zone: DomainName, condition: Statement.Fragment) =>
        sql`(SELECT name FROM published WHERE zone = ${zone} AND ${condition} ORDER BY ${lockOrder(sql, ["name"])} ${forUpdate})`

      const doubt = (zone: DomainName, names: ReadonlyArray<DomainName>) => sql`
        UPDATE published SET doubt_until = ${never}
        WHERE zone = ${zone} AND name IN ${ours(zone, sql`name IN ${asList(sql, names)}`)}`

      const doubtClaimed = Effect.fnUntraced(function* (zone: DomainName, nowMillis: number) {
        const doubted = yield* sql<{ readonly name: DomainName }>`
          UPDATE published SET doubt_until = ${never}
          WHERE zone = ${zone} AND name IN ${ours(zone, sql`sent IS NOT NULL`)} RETURNING name`
        if (doubted.length === 0) return
        const generation = yield* Generation.next(sql)
        yield* insertRows(
          sql,
          "outbox",
          markColumns,
          doubted.map(({ name }) => ({
            zone,
            name,
            generation,
            cause: "doubt",
            urgency: urgencyOf("doubt"),
            marked_at: nowMillis
          })),
          { by: ["zone", "name"], conflict: "ON CONFLICT (zone, name) DO NOTHING" }
        )
      })

      const endDoubts = (zone: DomainName, untilMillis: number) => sql`
        UPDATE published SET doubt_until = ${untilMillis}
        WHERE zone = ${zone} AND name IN ${ours(zone, sql`doubt_until = ${never}`)}`

      const recheck = Effect.fnUntraced(function* (
        zone: DomainName,
        names: ReadonlyArray<DomainName>,
        nowMillis: number,
        cause: Cause
      ) {
        const places = names.map((name) => ({ zone, name }))
        yield* sql`
            UPDATE published SET sent = CASE
              WHEN sent IS NULL THEN '*' WHEN sent LIKE '*%' THEN sent ELSE CAST(${"*\n"} AS TEXT) || sent END
            WHERE zone = ${zone} AND name IN ${ours(zone, sql`name IN ${asList(sql, names)}`)}`
        yield* mark(places, yield* Generation.next(sql), nowMillis, cause)
      })

      /** Where something of ours stands, anything may, what was sent too; else only what was sent. */
      const sentLate = `ON CONFLICT (zone, name) DO UPDATE SET
        sent = CASE
          WHEN published.content = '[]' AND published.sent NOT LIKE '*%' THEN published.sent
          WHEN published.content = '[]' AND published.sent IS NULL THEN excluded.sent
          WHEN published.sent IS NULL THEN '*\n' || excluded.sent
          WHEN published.sent LIKE '*%' THEN published.sent || '\n' || excluded.sent
          ELSE '*\n' || published.sent || '\n' || excluded.sent END,
        doubt_until = CASE WHEN published.doubt_until > excluded.doubt_until THEN published.doubt_until
          ELSE excluded.doubt_until END`

      const recheckSent = Effect.fnUntraced(function* (
        zone: DomainName,
        claims: ReadonlyArray<Claim>,
        nowMillis: number,
        untilMillis: number
      ) {
        yield* claim(zone, claims, nowMillis, sentLate, untilMillis)
        const places = claims.map(({ name }) => ({ zone, name }))
        yield* mark(places, yield* Generation.next(sql), nowMillis, "doubt")
      })

      const markElapsed = Effect.fnUntraced(
        function* (nowMillis: number, limit: number, doubtMillis: number) {
          const untilMillis = nowMillis + doubtMillis
          const found = yield* sql<RecordPlace & { readonly doubt_until: number | bigint }>`
            SELECT zone, name, doubt_until FROM published
            WHERE doubt_until IS NOT NULL
              AND (doubt_until <= ${nowMillis} OR (doubt_until > ${untilMillis} AND doubt_until < ${never}))
            LIMIT ${limit}`
          const doubtful = found.filter((row) => Number(row.doubt_until) <= nowMillis)
          const tooLong = found.filter((row) => Number(row.doubt_until) > nowMillis)
          const kept = yield* sql<RecordPlace>`
            SELECT zone, name FROM published
            WHERE quarantined_until IS NOT NULL AND quarantined_until <= ${nowMillis} LIMIT ${limit}`
          if (found.length + kept.length === 0) return new Set<DomainName>()
          yield* lock("published", [...found, ...kept])
          // One that was doubted anew since stays in doubt.
          if (doubtful.length > 0) {
            yield* sql`UPDATE published SET doubt_until = NULL WHERE doubt_until <= ${nowMillis} AND (zone, name) IN (
              SELECT zone, name FROM ${placesTable(sql, doubtful)})`
          }
          if (tooLong.length > 0) {
            yield* sql`UPDATE published SET doubt_until = ${untilMillis} WHERE doubt_until < ${never} AND (zone, name) IN (
              SELECT zone, name FROM ${placesTable(sql, tooLong)})`
          }
          if (doubtful.length + kept.length === 0) return new Set<DomainName>()
          // Not marked again and again while it waits: the mark stands until it is published. A host that came back while
          // its row was waited for has its records enabled, and keeps what is known of them.
          if (kept.length > 0) {
            yield* sql`UPDATE published SET quarantined_until = ${quarantineOver}
              WHERE quarantined_until <= ${nowMillis} AND (zone, name) IN (
              SELECT zone, name FROM ${placesTable(sql, kept)})`
          }
          yield* mark(
            [...kept.map((place) => ({ ...place, cause: "quarantine" as const })), ...doubtful],
            yield* Generation.next(sql),
            nowMillis,
            "doubt"
          )
          return new Set([...doubtful, ...kept].map(({ zone }) => zone))
        },
        (effect) => sql.withTransaction(effect)
      )

      const deletions = Effect.fnUntraced(function* (zone: DomainName, sinceMillis: number) {
        const [done] = yield* sql<{ readonly names: number | bigint | null }>`
          SELECT SUM(names) AS names FROM deletion WHERE zone = ${zone} AND at > ${sinceMillis}`
        const [waiting] = yield* sql<{ readonly names: number | bigint }>`
          SELECT COUNT(*) AS names FROM outbox
          WHERE zone = ${zone} AND urgency = 1 AND parked_at IS NULL AND cause = 'withdrawn'`
        const [underWay] = yield* sql<{ readonly names: number | bigint }>`
          SELECT COUNT(DISTINCT o.name) AS names FROM outbox o
          JOIN plan_change c ON c.plan = SUBSTR(o.cause, 6) AND c.name = o.name
          WHERE o.zone = ${zone} AND o.parked_at IS NULL AND o.cause LIKE 'plan:%'
            AND c.action = 'delete' AND c.outcome = 'applied'`
        return {
          done: Number(done?.names ?? 0),
          underWay: Number(underWay!.names),
          waiting: Number(waiting!.names)
        }
      })

      const lock = (table: "outbox" | "published", places: ReadonlyArray<RecordPlace>) => lockRows(sql, table, places)

      /**
       * Locks the marks of what is settled, and those that are to come, in one order. A mark that is not there cannot be locked:
       * where one is to come, it is put there in its turn, and others wait.
       */
      const lockMarks = (
        zone: DomainName,
        settlements: ReadonlyArray<Settlement>,
        coming: ReadonlyArray<RecordPlace>,
        nowMillis: number
      ) =>
        sql.onDialectOrElse({
          pg: () =>
            Effect.gen(function* () {
              const marked = yield* sql<{ readonly name: DomainName }>`
                SELECT name FROM outbox WHERE zone = ${zone} AND name IN ${asList(
                  sql,
                  settlements.map(({ name }) => name)
                )}`
              const all = new Set([...marked, ...coming].map(({ name }) => name))
              yield* insertRows(
                sql,
                "outbox",
                markColumns,
                Array.from(all, (name) => ({
                  zone,
                  name,
                  generation: 0,
                  cause: cameBelow,
                  urgency: urgencyOf(cameBelow),
                  marked_at: nowMillis
                })),
                {
                  by: ["zone", "name"],
                  conflict: "ON CONFLICT (zone, name) DO UPDATE SET generation = outbox.generation"
                }
              )
            }),
          orElse: () => Effect.void
        })

      const hold = Effect.fnUntraced(function* (
        zone: DomainName,
        marks: ReadonlyArray<{ readonly name: DomainName; readonly generation: number }>,
        plan: string,
        reason: string,
        nowMillis: number
      ) {
        // Whoever applies the plan at this moment has done so before we look.
        yield* sql`SELECT id FROM plan WHERE id = ${plan} ${forUpdate}`
        yield* lock(
          "outbox",
          marks.map(({ name }) => ({ zone, name }))
        )
        yield* sql`
            UPDATE outbox SET parked_at = ${nowMillis}, parked_reason = ${reason}, plan = ${plan}
            WHERE zone = ${zone} AND (name, generation) IN (
              SELECT name, generation FROM ${asTable(
                sql,
                "r",
                { name: "text", generation: "bigint" },
                marks.map(({ generation, name }) => ({ name, generation }))
              )})
              AND EXISTS (SELECT 1 FROM plan p WHERE p.id = ${plan} AND p.state = 'open')
              AND (
                SELECT c.ordinal FROM plan_change c
                WHERE c.plan = ${plan} AND c.name = outbox.name AND c.outcome IS NULL LIMIT 1
              ) IS NOT NULL`
      })

      const park = Effect.fnUntraced(function* (zone: DomainName, parkings: ReadonlyArray<Parking>, nowMillis: number) {
        yield* lock(
          "outbox",
          parkings.map(({ name }) => ({ zone, name }))
        )
        const parked = yield* sql<{ readonly name: DomainName }>`
            UPDATE outbox SET parked_at = ${nowMillis}, parked_reason = r.reason
            FROM ${asTable(
              sql,
              "r",
              { name: "text", generation: "bigint", reason: "text" },
              parkings.map(({ generation, name, reason }) => ({ name, generation, reason }))
            )}
            WHERE outbox.zone = ${zone} AND outbox.name = r.name AND outbox.generation = r.generation
            RETURNING outbox.name AS name`
        // What has changed meanwhile is tried once more, and is not parked.
        const names = new Set(parked.map(({ name }) => name))
        yield* Audit.writeAll(
          sql,
          parkings.flatMap(({ generation, name, reason }) =>
            names.has(name)
              ? {
                  ...entryOf(zone, name, generation),
                  action: "publication.parked" as const,
                  reason,
                  result: "refused"
                }
              : []
          ),
          nowMillis
        )
      })

      const list: Outbox["Service"]["list"] = (options) =>
        Effect.map(
          sql<PendingRow>`
            SELECT zone, name, generation, marked_at, parked_reason FROM outbox
            WHERE ${sql.and([
              sql`1 = 1`,
              ...(options.zone === undefined ? [] : [sql`zone = ${options.zone}`]),
              ...(options.zones === undefined ? [] : [sql`zone IN ${asList(sql, options.zones)}`])
            ])}
            ORDER BY marked_at, zone, name LIMIT ${options.limit}`,
          (rows) => rows.map(toPending)
        )

      const findMarks: Outbox["Service"]["findMarks"] = (places) =>
        Effect.map(
          sql<PendingRow>`
            SELECT o.zone, o.name, o.generation, o.marked_at, o.parked_reason
            FROM ${placesTable(sql, places)} JOIN outbox o ON o.zone = r.zone AND o.name = r.name`,
          (rows) => rows.map(toPending)
        )

      const publishedAt: Outbox["Service"]["publishedAt"] = (places) =>
        Effect.map(
          sql<{ readonly name: DomainName; readonly published_at: number | bigint }>`
            SELECT p.name, p.published_at
            FROM ${placesTable(sql, places)} JOIN published p ON p.zone = r.zone AND p.name = r.name
            WHERE p.sent IS NULL`,
          (rows) => new Map(rows.map((row) => [row.name, Number(row.published_at)]))
        )

      const backlog = Effect.gen(function* () {
        const marks = yield* sql<{
          readonly zone: DomainName
          readonly pending: number | bigint
          readonly parked: number | bigint
          readonly oldest: number | bigint | null
        }>`
          SELECT zone,
            SUM(CASE WHEN parked_at IS NULL THEN 1 ELSE 0 END) AS pending,
            SUM(CASE WHEN parked_at IS NULL THEN 0 ELSE 1 END) AS parked,
            MIN(CASE WHEN parked_at IS NULL THEN marked_at END) AS oldest
          FROM outbox GROUP BY zone`
        const published = yield* sql<{ readonly zone: DomainName; readonly published_at: number | bigint }>`
          SELECT zone, published_at FROM zone_publication`
        const zones = new Map<DomainName, ZoneBacklog>()
        for (const row of published) {
          zones.set(row.zone, {
            zone: row.zone,
            pending: 0,
            parked: 0,
            oldestMillis: undefined,
            publishedAtMillis: Number(row.published_at)
          })
        }
        for (const row of marks) {
          zones.set(row.zone, {
            zone: row.zone,
            pending: Number(row.pending),
            parked: Number(row.parked),
            oldestMillis: row.oldest === null ? undefined : Number(row.oldest),
            publishedAtMillis: zones.get(row.zone)?.publishedAtMillis
          })
        }
        return [...zones.values()].sort((a, b) => (a.zone < b.zone ? -1 : 1))
      })

      /** One transaction, which begins with `fence`, where there is one. */
      const atOnce = <A, E, E2 = never>(effect: Effect.Effect<A, E>, fence?: Effect.Effect<void, E2>) =>
        sql.withTransaction<never, E | E2, A>(fence === undefined ? effect : Effect.andThen(fence, effect))

      /** The same for a single statement, which is a transaction by itself. */
      const fenced = <A, E, E2 = never>(
        effect: Effect.Effect<A, E>,
        fence?: Effect.Effect<void, E2>
      ): Effect.Effect<A, E | E2 | SqlError.SqlError> => (fence === undefined ? effect : atOnce(effect, fence))

      return Outbox.of({
        mark,
        wake: (zones) =>
          Effect.sync(() => {
            const named = new Set(zones)
            for (const zone of named) woken.add(zone)
            signal.openUnsafe()
            signals.send("outbox", named)
          }),
        awaitWake: Effect.map(signal.await, () => {
          signal.closeUnsafe()
          const zones = new Set(woken)
          woken.clear()
          return zones
        }),
        dueZones,
        due,
        published,
        countPublished,
        publishedNames,
        claim: (zone, claims, nowMillis, fence) =>
          claims.length === 0
            ? Effect.void
            : Effect.andThen(fenced(claim(zone, claims, nowMillis), fence), durability.flush),
        disclaim: (zone, names, nowMillis, fence) =>
          names.length === 0 ? Effect.void : atOnce(disclaim(zone, names, nowMillis), fence),
        settle: (zone, settlements, nowMillis, deletions, fence) =>
          settlements.length === 0
            ? Effect.succeed(new Set<DomainName>())
            : atOnce(settle(zone, settlements, nowMillis, deletions), fence),
        doubt: (zone, names, fence) =>
          names.length === 0 ? Effect.void : Effect.asVoid(fenced(doubt(zone, names), fence)),
        doubtClaimed: (zone, nowMillis, fence) => atOnce(doubtClaimed(zone, nowMillis), fence),
        endDoubts: (zone, untilMillis, fence) => Effect.asVoid(fenced(endDoubts(zone, untilMillis), fence)),
        recheck: (zone, names, nowMillis, cause, fence) =>
          names.length === 0 ? Effect.void : atOnce(recheck(zone, names, nowMillis, cause), fence),
        recheckSent: (zone, claims, nowMillis, untilMillis) =>
          claims.length === 0 ? Effect.void : atOnce(recheckSent(zone, claims, nowMillis, untilMillis)),
        markElapsed,
        deletions,
        hold: (zone, marks, plan, reason, nowMillis, fence) =>
          marks.length === 0 ? Effect.void : atOnce(hold(zone, marks, plan, reason, nowMillis), fence),
        park: (zone, parkings, nowMillis, fence) =>
          parkings.length === 0 ? Effect.void : atOnce(park(zone, parkings, nowMillis), fence),
        list,
        findMarks,
        publishedAt,
        backlog
      })
    })
  )
}

const placesTable = (sql: SqlClient.SqlClient, places: ReadonlyArray<RecordPlace>): Statement.Fragment =>
  asTable(
    sql,
    "r",
    { zone: "text", name: "text" },
    places.map(({ name, zone }) => ({ zone, name }))
  )

/**
 * Locks rows until the transaction ends. Whoever writes several tables takes what is published first, what is unserved then and
 * the marks last, each in the order of names, as `mark` does: so transactions wait, but not for each other, and registrations,
 * which write nothing else of these, do not wait for long.
 */
const lockRows = (sql: SqlClient.SqlClient, table: "outbox" | "published", places: ReadonlyArray<RecordPlace>) =>
  sql.onDialectOrElse({
    pg: () => sql`
      SELECT 1 FROM ${sql(table)} WHERE (zone, name) IN (SELECT zone, name FROM ${placesTable(sql, places)})
      ORDER BY ${lockOrder(sql, ["zone", "name"])} FOR UPDATE`,
    orElse: () => Effect.void
  })

/** A settlement that name servers were seen to answer with; `nodes`: which, and when each was seen. */
export interface ServedSettlement extends RecordPlace {
  readonly generation: number
  readonly atMillis: number
  readonly nodes: ReadonlyArray<readonly [node: string, atMillis: number]>
}

/** Writes down that settlements are served, in one transaction. What was settled anew since stays unserved. */
export const writeServed = Effect.fnUntraced(
  function* (sql: SqlClient.SqlClient, served: ReadonlyArray<ServedSettlement>) {
    const ofNames = (alias: string) => lockOrder(sql, [`${alias}.zone`, `${alias}.name`])
    const rows = served.map(({ atMillis, generation, name, nodes, zone }) => ({
      zone,
      name,
      generation,
      at: atMillis,
      nodes: JSON.stringify(nodes)
    }))
    yield* forRows(sql, { zone: "text", name: "text", generation: "bigint", at: "bigint", nodes: "text" }, rows, {
      all: (r) => sql`
        WITH locked AS (
          SELECT p.zone, p.name, r.at, r.nodes FROM published p
          JOIN ${r} ON p.zone = r.zone AND p.name = r.name AND p.generation = r.generation
          ORDER BY ${ofNames("p")} FOR UPDATE OF p)
        UPDATE published SET served_at = locked.at, served_nodes = locked.nodes FROM locked
        WHERE published.zone = locked.zone AND published.name = locked.name`,
      each: `
        UPDATE published SET served_at = ?4, served_nodes = ?5 WHERE zone = ?1 AND name = ?2 AND generation = ?3`
    })
    yield* forRows(sql, { zone: "text", name: "text", generation: "bigint" }, rows, {
      all: (r) => sql`
        WITH locked AS (
          SELECT u.zone, u.name FROM unserved u
          JOIN ${r} ON u.zone = r.zone AND u.name = r.name AND u.generation = r.generation
          ORDER BY ${ofNames("u")} FOR UPDATE OF u)
        DELETE FROM unserved USING locked WHERE unserved.zone = locked.zone AND unserved.name = locked.name`,
      each: "DELETE FROM unserved WHERE zone = ?1 AND name = ?2 AND generation = ?3"
    })
  },
  (effect, sql) => sql.withTransaction(effect)
)

const isBelowOthers = (name: DomainName, zone: Zone): boolean => NonTerminals.above(name, zone).length > 0

/** Of a type that hosts have there, or a placeholder. */
const isOfHosts = (zone: Zone, rrset: RRset.RRset): boolean =>
  managedTypes(zone).some((type) => type === rrset.type) || NonTerminals.isPlaceholder(rrset)

/** What entries about a publication have in common: its cause is whatever has the generation of the mark. */
const entryOf = (zone: DomainName, name: DomainName, generation: number) => ({
  actor: Audit.prism,
  zone,
  subject: name,
  generation,
  cause: `generation:${generation}`
})

/** What the audit says of the records at a name, in the order of keys, in which it is written; undefined: there are none of ours. */
const auditView = ({ quarantinedUntilMillis, rrsets }: Pick<Published, "rrsets" | "quarantinedUntilMillis">) =>
  rrsets.length === 0
    ? undefined
    : rrsets.map(({ contents, ttlSeconds, type }) => ({
        contents,
        disabled: quarantinedUntilMillis === undefined ? undefined : true,
        ttl: ttlSeconds,
        type
      }))

/** Why a name is looked at because others below it came or went. */
const cameBelow: Cause = "registered"

const markColumns = {
  zone: "text",
  name: "text",
  generation: "bigint",
  cause: "text",
  urgency: "bigint",
  marked_at: "bigint"
} as const

/** A name of several labels that came to have records, or ceased to. */
interface Turned {
  readonly name: DomainName
  readonly by: 1 | -1
}

/** Until when a name is in doubt while nobody knows: a time that does not come by itself. */
export const never = Number.MAX_SAFE_INTEGER

/** How long deletions are remembered after they count no more: a clock may go back. */
const deletionsKeptMillis = 86_400_000

interface MarkRow {
  readonly name: DomainName
  readonly generation: number | bigint
  readonly marked_at: number | bigint
  readonly cause: Cause
}

const toMark = (row: MarkRow): Mark => ({
  name: row.name,
  generation: Number(row.generation),
  markedAtMillis: Number(row.marked_at),
  cause: row.cause
})

interface PendingRow extends Omit<MarkRow, "cause"> {
  readonly zone: DomainName
  readonly parked_reason: string | null
}

const toPending = (row: PendingRow): PendingPublication => ({
  zone: row.zone,
  name: row.name,
  generation: Number(row.generation),
  markedAtMillis: Number(row.marked_at),
  parkedReason: row.parked_reason ?? undefined
})

/** Record sets of one name as text: type, TTL, contents of each. */
const toContent = (rrsets: ReadonlyArray<RRset.RRset>): string =>
  JSON.stringify(rrsets.map((rrset) => [rrset.type, rrset.ttlSeconds, rrset.contents]))

const fromContent = (name: DomainName, content: string): ReadonlyArray<RRset.RRset> =>
  (JSON.parse(content) as ReadonlyArray<[string, number, ReadonlyArray<string>]>).map(
    ([type, ttlSeconds, contents]) => ({ name, type, ttlSeconds, contents })
  )

/** Anything may stand there, and of our own writes these types. On further lines what was sent meanwhile. */
const toAnything = (types: ReadonlyArray<string>): string =>
  types.length === 0 ? "*" : `*\n${JSON.stringify(types.map((type) => [type]))}`

const typesIn = (sent: string): ReadonlyArray<string> => [
  ...new Set(
    sent
      .split("\n")
      .slice(1)
      .flatMap((line) => (JSON.parse(line) as ReadonlyArray<[string]>).map(([type]) => type))
  )
]

interface PublishedRow {
  readonly name: DomainName
  readonly content: string
  readonly sent: string | null
  readonly quarantined_until: number | bigint | null
  readonly doubt_until: number | bigint | null
}

const toPublished = (row: PublishedRow): Published => ({
  rrsets: fromContent(row.name, row.content),
  ...(row.sent === null
    ? { sent: undefined }
    : row.sent.startsWith("*")
      ? { sent: "anything" as const, sentTypes: typesIn(row.sent) }
      : { sent: fromContent(row.name, row.sent) }),
  quarantinedUntilMillis: row.quarantined_until === null ? undefined : Number(row.quarantined_until),
  ...(row.doubt_until === null ? {} : { inDoubt: true })
})
