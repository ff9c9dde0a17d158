/**
 * Makes plans that bring a zone, or one name, back to what it was at a time: its
 * hosts (`registry/HostRestore`) and the records that people manage. Nothing is
 * changed before such a plan is applied, which goes as with any other
 * (`dns/Plans`).
 */
import { Clock, Context, Effect, Layer, Option, Schema, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { Differences, keyOf, type RecordVersion, type SetPlace } from "../registry/Differences.ts"
import * as HistoryRetention from "../registry/HistoryRetention.ts"
import * as HostRestore from "../registry/HostRestore.ts"
import * as HostRows from "../registry/HostRows.ts"
import * as Generation from "../storage/Generation.ts"
import { asList } from "../storage/Rows.ts"
import { type NewChange, type Plan, Plans, type Said } from "./Plans.ts"
import { recordColumns, type RecordRow, toRecord } from "./RecordChanges.ts"
import { Zones } from "./Zones.ts"

/** Names looked at for one part of a plan. */
const chunkSize = 500

/** The zone is not one that Prism manages. */
export class RestoreZoneUnknown extends Schema.TaggedError<RestoreZoneUnknown>()("RestoreZoneUnknown", {
  zone: Schema.String
}) {
  override get message(): string {
    return `${this.zone} is not a zone that Prism manages`
  }
}

/** Nothing is known of that time, so what was not there cannot be told from what is not known: nothing is planned. */
export class TimeUnknown extends Schema.TaggedError<TimeUnknown>()("TimeUnknown", {
  at: Schema.String,
  /** When what is known begins; undefined: nothing is yet. */
  since: Schema.UndefinedOr(Schema.String),
  isAhead: Schema.Boolean
}) {
  override get message(): string {
    if (this.isAhead) return `${this.at} lies ahead`
    return this.since === undefined
      ? "nothing is known of any time yet"
      : `nothing is known of ${this.at}: what the registry keeps begins at ${this.since}`
  }
}

export interface RestoreOptions extends Said {
  readonly atMillis: number
  readonly reason: string
  readonly dryRun?: boolean | undefined
}

export class Restoration extends Context.Service<
  Restoration,
  {
    /** A plan for a whole zone. */
    readonly zone: (
      zone: DomainName,
      options: RestoreOptions
    ) => Effect.Effect<Plan, RestoreZoneUnknown | TimeUnknown | SqlError.SqlError>
    /** A plan for one name: its host, and the records of people there. */
    readonly name: (
      zone: DomainName,
      name: DomainName,
      options: RestoreOptions
    ) => Effect.Effect<Plan, RestoreZoneUnknown | TimeUnknown | SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Restoration") {
  static readonly layer = Layer.effect(
    Restoration,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const plans = yield* Plans
  const differences = yield* Differences
  const columns = sql.literal(HostRows.columns)

  const ofHosts = Effect.fnUntraced(function* (zone: DomainName, names: ReadonlyArray<DomainName>, atMillis: number) {
    const at = new Date(atMillis).toISOString()
    const then = yield* differences.hostsAt(names, atMillis)
    const rows = yield* sql<HostRows.HostRow>`SELECT ${columns} FROM host WHERE fqdn IN ${asList(sql, names)}`
    const current = new Map(rows.map((row) => [row.fqdn, HostRows.toHost(row)]))
    return names.flatMap((name): ReadonlyArray<NewChange> => {
      const was = then.get(name)
      const is = current.get(name)
      // A name that is in another zone now is that one's.
      if ((is ?? was)?.zone !== zone) return []
      const change = HostRestore.changeOf(is, was, at)
      return change === undefined ? [] : [{ ...change, cause: "registered" }]
    })
  })

  const asSet = ({
    contents,
    name,
    ttlSeconds,
    type
  }: Pick<RecordVersion, "contents" | "name" | "ttlSeconds" | "type">) => RRset.make(name, type, ttlSeconds, contents)

  const ofRecords = Effect.fnUntraced(function* (zone: DomainName, sets: ReadonlyArray<SetPlace>, atMillis: number) {
    if (sets.length === 0) return []
    const at = new Date(atMillis).toISOString()
    const then = yield* differences.recordsAt(sets, atMillis)
    const names = [...new Set(sets.map(({ name }) => name))]
    const rows = yield* sql<RecordRow>`
      SELECT ${sql.literal(recordColumns)} FROM record WHERE zone = ${zone} AND name IN ${asList(sql, names)}`
    const current = new Map(rows.map((row) => [keyOf(row), toRecord(row)]))
    return sets.flatMap((set): ReadonlyArray<NewChange> => {
      const was = then.get(keyOf(set))
      const is = current.get(keyOf(set))
      const before = is && asSet(is)
      const after = was && asSet(was)
      if (before === undefined && after === undefined) return []
      if (before !== undefined && after !== undefined && RRset.equals(before, after)) return []
      const common = { name: set.name, type: set.type, before, after, cause: "record" } as const
      if (before === undefined) return [{ ...common, action: "create", reason: `it was there at ${at}` }]
      if (after === undefined) return [{ ...common, action: "delete", reason: `it was not there at ${at}` }]
      return [{ ...common, action: "update", reason: `it was otherwise at ${at}` }]
    })
  })

  /** Parts of a walk; `read` gives a part and where the next one begins. */
  const parts = <Place>(
    read: (
      after: Place | undefined
    ) => Effect.Effect<readonly [ReadonlyArray<NewChange>, Place | undefined], SqlError.SqlError>
  ) =>
    Stream.paginate(undefined as Place | undefined, (after) =>
      Effect.map(
        read(after),
        ([changes, next]) =>
          [[changes], next === undefined ? Option.none() : Option.some<Place | undefined>(next)] as const
      )
    )

  const hostsOf = (zone: DomainName, atMillis: number) =>
    parts<DomainName>(
      Effect.fnUntraced(function* (after) {
        const names = yield* differences.hostNames(zone, after, chunkSize)
        return [yield* ofHosts(zone, names, atMillis), names.length < chunkSize ? undefined : names.at(-1)] as const
      })
    )

  const recordsOf = (zone: DomainName, atMillis: number) =>
    parts<SetPlace>(
      Effect.fnUntraced(function* (after) {
        const sets = yield* differences.recordSets(zone, after, chunkSize)
        if (sets.length < chunkSize) return [yield* ofRecords(zone, sets, atMillis), undefined] as const
        // All sets of a name stand in one part: those of the last name wait for the next one.
        const { name } = sets.at(-1)!
        const whole = sets.filter((set) => set.name !== name)
        return [yield* ofRecords(zone, whole, atMillis), whole.at(-1)] as const
      })
    )

  /** When the first of what is known began, and what was then is known whole; the rows of each table are in the order of time. */
  const knownSince = Effect.gen(function* () {
    const firsts = yield* Effect.forEach(["host_history", "record_history", "zone_history"], (table) =>
      Effect.map(
        sql<{ readonly at: number | bigint }>`SELECT valid_from AS at FROM ${sql(table)} ORDER BY sequence LIMIT 1`,
        ([row]) => (row === undefined ? Infinity : Number(row.at))
      )
    )
    return Math.max(Math.min(...firsts), yield* HistoryRetention.startOf(sql))
  })

  const checkTime = Effect.fnUntraced(function* (atMillis: number) {
    const sinceMillis = yield* knownSince
    const isAhead = atMillis > (yield* Clock.currentTimeMillis)
    if (atMillis >= sinceMillis && !isAhead) return
    const since = sinceMillis === Infinity ? undefined : new Date(sinceMillis).toISOString()
    return yield* new TimeUnknown({ at: new Date(atMillis).toISOString(), since, isAhead })
  })

  const makePlan = Effect.fnUntraced(function* (
    zone: DomainName,
    { atMillis, by, dryRun, peer, reason, request }: RestoreOptions,
    changes: Stream.Stream<ReadonlyArray<NewChange>, SqlError.SqlError>
  ) {
    if (zones.find(zone) === undefined) return yield* new RestoreZoneUnknown({ zone })
    yield* checkTime(atMillis)
    const generation = yield* Generation.current(sql)
    return yield* plans.make(zone, { kind: "restore", by, dryRun, peer, reason, request, generation, changes })
  })

  return Restoration.of({
    zone: Effect.fn("Restoration.zone")((zone, options) =>
      makePlan(zone, options, Stream.concat(hostsOf(zone, options.atMillis), recordsOf(zone, options.atMillis)))
    ),
    name: Effect.fn("Restoration.name")((zone, name, options) =>
      makePlan(
        zone,
        options,
        Stream.fromEffect(
          Effect.gen(function* () {
            const sets = yield* sql<SetPlace>`
              SELECT zone, name, type FROM record_name WHERE zone = ${zone} AND name = ${name} ORDER BY type`
            return [
              ...(yield* ofHosts(zone, [name], options.atMillis)),
              ...(yield* ofRecords(zone, sets, options.atMillis))
            ]
          })
        )
      )
    )
  })
})
