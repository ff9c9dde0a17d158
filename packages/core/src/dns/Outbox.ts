/**
 * Names that may differ from what PowerDNS holds.
 *
 * A mark says "look at this name", never what to do: whoever publishes computes
 * the records at that moment. Marks are written in the transaction that changes
 * the registry, each with that transaction's generation, and are cleared only at
 * the generation that was published, so a change that came in between stays
 * marked. Beside the marks stands what PowerDNS was last seen to take
 * (`published`), which is also the list of names that are ours.
 */
import { Context, Effect, Latch, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { asList, asTable, integer } from "../storage/Rows.ts"
import { type Cause, urgencyOf } from "./Cause.ts"
import type { RecordPlace } from "./Zones.ts"

export interface Mark {
  readonly name: DomainName
  readonly generation: number
  readonly markedAtMillis: number
}

/** What stands at a name that is ours: the record sets PowerDNS took last, or `unknown` while a write may be under way. */
export type Published = ReadonlyArray<RRset.RRset> | "unknown"

/** How one marked name came out of a publication. */
export interface Settlement {
  readonly name: DomainName
  readonly generation: number
  /** What PowerDNS now holds of ours; empty when nothing is left. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
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
     * Marks `places` at `generation`; the latest cause of a name stands. Belongs into the transaction that makes the
     * change; call `wake` after the commit.
     */
    readonly mark: (
      places: ReadonlyArray<RecordPlace>,
      generation: number,
      nowMillis: number,
      cause: Cause
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Says that these zones may have something to publish. A hint: a lost one costs time, never truth. */
    readonly wake: (zones: Iterable<DomainName>) => Effect.Effect<void>
    /** Waits for a `wake`, and returns the zones named since the last call. */
    readonly awaitWake: Effect.Effect<ReadonlySet<DomainName>>
    /** Those of `zones` that have marks to publish. */
    readonly dueZones: (zones: ReadonlyArray<DomainName>) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /** Up to `limit` marks of a zone that are not parked, the longest waiting first. */
    readonly due: (zone: DomainName, limit: number) => Effect.Effect<ReadonlyArray<Mark>, SqlError.SqlError>
    /** What stands at those of `names` that are ours. */
    readonly published: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<ReadonlyMap<DomainName, Published>, SqlError.SqlError>
    /**
     * Records, safe from a power cut, before a write that `names` are ours and that what stands there is unknown until they are settled, so that
     * a crash in between leaves no record without owner, and none that we believe to be another.
     */
    readonly claim: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>,
      nowMillis: number
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Takes back the claim of `names` whose first write changed nothing. */
    readonly disclaim: (zone: DomainName, names: ReadonlyArray<DomainName>) => Effect.Effect<void, SqlError.SqlError>
    /** One transaction: what is published now, and the marks cleared where their generation is still the one published. */
    readonly settle: (
      zone: DomainName,
      settlements: ReadonlyArray<Settlement>,
      nowMillis: number
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Says that we do not know any more what PowerDNS holds at `names`: those that are ours are marked and written anew. */
    readonly doubt: (
      zone: DomainName,
      names: ReadonlyArray<DomainName>,
      nowMillis: number
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Takes names out of the way until they change again, each with its reason. */
    readonly park: (
      zone: DomainName,
      parkings: ReadonlyArray<Parking>,
      nowMillis: number
    ) => Effect.Effect<void, SqlError.SqlError>
    /** Marked names, parked ones included, the longest waiting first. */
    readonly list: (options: {
      readonly zone?: DomainName | undefined
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

      const mark = Effect.fnUntraced(function* (
        places: ReadonlyArray<RecordPlace>,
        generation: number,
        nowMillis: number,
        cause: Cause
      ) {
        if (places.length === 0) return
        const rows = [...new Map(places.map((p) => [`${p.zone} ${p.name}`, { zone: p.zone, name: p.name }])).values()]
        // A parked name that changes is worth another try, and waits from now on.
        yield* sql`
          INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at)
          SELECT zone, name, ${integer(sql, generation)}, CAST(${cause} AS TEXT), ${integer(sql, urgencyOf(cause))},
            ${integer(sql, nowMillis)}
          FROM ${asTable(sql, "r", { zone: "text", name: "text" }, rows)} WHERE true ORDER BY zone, name
          ON CONFLICT (zone, name) DO UPDATE SET
            generation = excluded.generation,
            cause = excluded.cause,
            urgency = excluded.urgency,
            plan = NULL,
            marked_at = CASE WHEN outbox.parked_at IS NULL THEN outbox.marked_at ELSE excluded.marked_at END,
            parked_at = NULL,
            parked_reason = NULL`
      })

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

      const due = (zone: DomainName, limit: number) =>
        Effect.map(
          sql<MarkRow>`
            SELECT name, generation, marked_at FROM outbox
            WHERE zone = ${zone} AND parked_at IS NULL ORDER BY urgency, marked_at LIMIT ${limit}`,
          (rows) => rows.map(toMark)
        )

      const published = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
        Effect.map(
          sql<{ readonly name: DomainName; readonly content: string | null }>`
            SELECT name, CASE WHEN sent IS NULL THEN content END AS content
            FROM published WHERE zone = ${zone} AND name IN ${asList(sql, names)}`,
          (rows) => new Map(rows.map((row) => [row.name, fromContent(row.name, row.content)]))
        )

      const claim = Effect.fnUntraced(function* (
        zone: DomainName,
        names: ReadonlyArray<DomainName>,
        nowMillis: number
      ) {
        if (names.length === 0) return
        yield* sql`
          INSERT INTO published (zone, name, content, sent, present, generation, published_at)
          SELECT ${zone}, name, '[]', '*', 0, 0, ${integer(sql, nowMillis)}
          FROM ${asTable(
            sql,
            "r",
            { name: "text" },
            names.map((name) => ({ name }))
          )} WHERE true ORDER BY name
          ON CONFLICT (zone, name) DO UPDATE SET sent = '*'`
      })

      const disclaim = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
        Effect.asVoid(sql`DELETE FROM published WHERE zone = ${zone} AND name IN ${asList(sql, names)}`)

      const settle = Effect.fnUntraced(
        function* (zone: DomainName, settlements: ReadonlyArray<Settlement>, nowMillis: number) {
          const standing = settlements.filter((s) => s.rrsets.length > 0)
          const gone = settlements.filter((s) => s.rrsets.length === 0).map((s) => s.name)
          if (standing.length > 0) {
            yield* sql`
              INSERT INTO published (zone, name, content, present, generation, published_at)
              SELECT ${zone}, name, content, 1, generation, ${integer(sql, nowMillis)}
              FROM ${asTable(
                sql,
                "r",
                { name: "text", content: "text", generation: "bigint" },
                standing.map((s) => ({ name: s.name, content: toContent(s.rrsets), generation: s.generation }))
              )} WHERE true ORDER BY name
              ON CONFLICT (zone, name) DO UPDATE SET
                content = excluded.content, sent = NULL, generation = excluded.generation,
                published_at = excluded.published_at`
          }
          if (gone.length > 0) {
            yield* sql`DELETE FROM published WHERE zone = ${zone} AND name IN ${asList(sql, gone)}`
          }
          yield* sql`
            DELETE FROM outbox WHERE zone = ${zone} AND (name, generation) IN (
              SELECT name, generation FROM ${asTable(
                sql,
                "r",
                { name: "text", generation: "bigint" },
                settlements.map((s) => ({ name: s.name, generation: s.generation }))
              )})`
          yield* sql`
            INSERT INTO zone_publication (zone, published_at) VALUES (${zone}, ${nowMillis})
            ON CONFLICT (zone) DO UPDATE SET published_at = excluded.published_at`
        },
        (effect) => sql.withTransaction(effect)
      )

      const doubt = Effect.fnUntraced(
        function* (zone: DomainName, names: ReadonlyArray<DomainName>, nowMillis: number) {
          yield* claim(zone, names, nowMillis)
          yield* mark(
            names.map((name) => ({ zone, name })),
            yield* Generation.next(sql),
            nowMillis,
            "doubt"
          )
        },
        (effect) => sql.withTransaction(effect)
      )

      const park = (zone: DomainName, parkings: ReadonlyArray<Parking>, nowMillis: number) =>
        Effect.forEach(
          parkings,
          (parking) => sql`
            UPDATE outbox SET parked_at = ${nowMillis}, parked_reason = ${parking.reason}
            WHERE zone = ${zone} AND name = ${parking.name} AND generation = ${parking.generation}`,
          { discard: true }
        ).pipe(sql.withTransaction)

      const list: Outbox["Service"]["list"] = (options) =>
        Effect.map(
          sql<PendingRow>`
            SELECT zone, name, generation, marked_at, parked_reason FROM outbox
            ${options.zone === undefined ? sql.literal("") : sql`WHERE zone = ${options.zone}`}
            ORDER BY marked_at, zone, name LIMIT ${options.limit}`,
          (rows) => rows.map(toPending)
        )

      const placesTable = (places: ReadonlyArray<RecordPlace>) =>
        asTable(
          sql,
          "r",
          { zone: "text", name: "text" },
          places.map(({ name, zone }) => ({ zone, name }))
        )

      const findMarks: Outbox["Service"]["findMarks"] = (places) =>
        Effect.map(
          sql<PendingRow>`
            SELECT o.zone, o.name, o.generation, o.marked_at, o.parked_reason
            FROM ${placesTable(places)} JOIN outbox o ON o.zone = r.zone AND o.name = r.name`,
          (rows) => rows.map(toPending)
        )

      const publishedAt: Outbox["Service"]["publishedAt"] = (places) =>
        Effect.map(
          sql<{ readonly name: DomainName; readonly published_at: number | bigint }>`
            SELECT p.name, p.published_at
            FROM ${placesTable(places)} JOIN published p ON p.zone = r.zone AND p.name = r.name
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

      return Outbox.of({
        mark,
        wake: (zones) =>
          Effect.sync(() => {
            for (const zone of zones) woken.add(zone)
            signal.openUnsafe()
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
        claim: (zone, names, nowMillis) =>
          names.length === 0 ? Effect.void : Effect.andThen(claim(zone, names, nowMillis), durability.flush),
        disclaim: (zone, names) => (names.length === 0 ? Effect.void : disclaim(zone, names)),
        settle: (zone, settlements, nowMillis) =>
          settlements.length === 0 ? Effect.void : settle(zone, settlements, nowMillis),
        doubt: (zone, names, nowMillis) => (names.length === 0 ? Effect.void : doubt(zone, names, nowMillis)),
        park: (zone, parkings, nowMillis) => (parkings.length === 0 ? Effect.void : park(zone, parkings, nowMillis)),
        list,
        findMarks,
        publishedAt,
        backlog
      })
    })
  )
}

interface MarkRow {
  readonly name: DomainName
  readonly generation: number | bigint
  readonly marked_at: number | bigint
}

const toMark = (row: MarkRow): Mark => ({
  name: row.name,
  generation: Number(row.generation),
  markedAtMillis: Number(row.marked_at)
})

interface PendingRow extends MarkRow {
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

const fromContent = (name: DomainName, content: string | null): Published =>
  content === null
    ? "unknown"
    : (JSON.parse(content) as ReadonlyArray<[string, number, ReadonlyArray<string>]>).map(
        ([type, ttlSeconds, contents]) => ({ name, type, ttlSeconds, contents })
      )
