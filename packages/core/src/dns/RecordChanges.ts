/**
 * Changes of the records that people manage, many at once, inside the
 * transaction of whoever makes them: the record, its history, and the mark.
 *
 * Belongs to `ManagedRecords` and `Plans`, which hold the transaction and write
 * its audit as the last thing. Promises: each change is judged against what
 * those before it left; one that may not be is refused by itself, with why, and
 * the others go on; changes of one zone come one after the other, so that what
 * was looked at stays so until the commit, hosts included.
 */
import { Effect, Result, Schema } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import { parseSet, type RecordType } from "../domain/RecordContent.ts"
import * as Zone from "../domain/Zone.ts"
import { asList, asTable } from "../storage/Rows.ts"
import type { Outbox } from "./Outbox.ts"
import * as RecordRules from "./RecordRules.ts"
import type { Zones } from "./Zones.ts"

/** `managed`: made by people through Prism; `adopted`: stood in PowerDNS, and was taken over as it was. */
export const origins = ["managed", "adopted"] as const
export type Origin = (typeof origins)[number]

/** A record set that people manage. */
export interface ManagedRecord extends RRset.RRset {
  readonly zone: DomainName
  /** Who changed it last. */
  readonly owner: string
  readonly origin: Origin
  /** Rises with each change; never reused, also not by a set that comes back. */
  readonly generation: number
  /** Since when it stands as it does. */
  readonly sinceMillis: number
}

/** The set is not one that can be: its name or its contents are wrong by themselves. */
export class RecordInvalid extends Schema.TaggedError<RecordInvalid>()("RecordInvalid", {
  name: Schema.String,
  type: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** Something else stands in its way. */
export class RecordConflict extends Schema.TaggedError<RecordConflict>()("RecordConflict", {
  name: Schema.String,
  type: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** People manage no such set. */
export class RecordNotFound extends Schema.TaggedError<RecordNotFound>()("RecordNotFound", {
  name: Schema.String,
  type: Schema.String
}) {
  override get message(): string {
    return `there is no ${this.type} record set of people's at ${this.name}`
  }
}

/** It is not as whoever changes it said that it is. */
export class RecordMoved extends Schema.TaggedError<RecordMoved>()("RecordMoved", {
  name: Schema.String,
  type: Schema.String,
  /** Of what is there; undefined: nothing is. */
  generation: Schema.UndefinedOr(Schema.Int)
}) {
  override get message(): string {
    return this.generation === undefined
      ? `${this.name} has no ${this.type} record set any more`
      : `the ${this.type} record set of ${this.name} has changed since`
  }
}

export type RecordRefusal = RecordInvalid | RecordConflict | RecordNotFound | RecordMoved

export interface RecordChange {
  readonly name: DomainName
  readonly type: RecordType
  /** What the set is to be; undefined: gone. Without a TTL it keeps the one it has, or gets its zone's. */
  readonly after: { readonly ttlSeconds?: number | undefined; readonly contents: ReadonlyArray<string> } | undefined
  /** Whether it may be changed, by what is there now; undefined: whatever that is. */
  readonly mayChange?: ((current: ManagedRecord | undefined, newest: number) => boolean) | undefined
}

/** What became of one change. */
export type RecordOutcome =
  | {
      readonly _tag: "Changed"
      readonly event: "created" | "changed" | "deleted"
      readonly before: ManagedRecord | undefined
      /** Of a deleted one undefined. */
      readonly after: ManagedRecord | undefined
    }
  | { readonly _tag: "Unchanged"; readonly record: ManagedRecord }
  | { readonly _tag: "Refused"; readonly error: RecordRefusal }

/** Record sets that people may manage in one zone. */
export const recordSetsMax = 200_000

/** Events of a record set, in its history. */
export type RecordEvent = "created" | "changed" | "deleted" | "adopted" | "released"

export interface RecordRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly type: string
  readonly ttl: number | bigint
  readonly contents: string
  readonly owner: string
  readonly origin: Origin
  readonly generation: number | bigint
  readonly since: number | bigint
}

export const toRecord = (row: RecordRow): ManagedRecord => ({
  zone: row.zone,
  name: row.name,
  type: row.type,
  ttlSeconds: Number(row.ttl),
  contents: JSON.parse(row.contents) as ReadonlyArray<string>,
  owner: row.owner,
  origin: row.origin,
  generation: Number(row.generation),
  sinceMillis: Number(row.since)
})

export const recordColumns = "zone, name, type, ttl, contents, owner, origin, generation, since"

export interface Context {
  readonly zone: Zone.Zone
  /** Who changes them: the sets' owner from now on. */
  readonly by: string
  readonly generation: number
  readonly nowMillis: number
}

/** The second half of the key of PostgreSQL's advisory locks; the first is the zone's. */
const zoneLock = 7_001_003

const keyOf = (name: string, type: string): string => `${name} ${type}`

export const make = (sql: SqlClient.SqlClient, zones: Zones["Service"], outbox: Pick<Outbox["Service"], "mark">) => {
  const columns = sql.literal(recordColumns)

  /** Changes of one zone's records come one after the other; with `hosts`, no host comes meanwhile either. */
  const takeTurn = (zone: DomainName, hosts: boolean) =>
    sql.onDialectOrElse({
      pg: () =>
        Effect.gen(function* () {
          yield* sql`SELECT pg_advisory_xact_lock(${zoneLock}, hashtext(${zone}))`
          // Waits for registrations under way, and they for us: each of them looks for records of people after it has locked.
          if (hosts) yield* sql`LOCK TABLE host IN EXCLUSIVE MODE`
        }),
      orElse: () => Effect.void
    })

  const recordsAt = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
    Effect.map(
      sql<RecordRow>`SELECT ${columns} FROM record WHERE zone = ${zone} AND name IN ${asList(sql, names)}`,
      (rows) => rows.map(toRecord)
    )

  /** The newest generation of each set that ever was at `names`, by `keyOf`. */
  const newestOf = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
    Effect.map(
      sql<{ readonly name: string; readonly type: string; readonly generation: number | bigint }>`
        SELECT name, type, MAX(generation) AS generation FROM record_history
        WHERE zone = ${zone} AND name IN ${asList(sql, names)} GROUP BY name, type`,
      (rows) => new Map(rows.map((row) => [keyOf(row.name, row.type), Number(row.generation)]))
    )

  /** Those of `names` that a host holds. */
  const hostsAt = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
    if (!Zone.isReverse(zone)) {
      const rows = yield* sql<{ readonly fqdn: string }>`SELECT fqdn FROM host WHERE fqdn IN ${asList(sql, names)}`
      return new Set(rows.map(({ fqdn }) => fqdn))
    }
    const nameOf = new Map<string, DomainName>()
    for (const name of names) {
      const address = Zone.addressOfPointer(name, zone)
      if (address !== undefined) nameOf.set(address, name)
    }
    const rows = yield* sql<{ readonly address: string }>`
      SELECT DISTINCT a.address FROM host_address a JOIN host h ON h.id = a.host_id
      WHERE a.address IN ${asList(sql, [...nameOf.keys()])} AND h.withdrawn_since IS NULL AND h.state <> 'retired'`
    return new Set<string>(rows.map(({ address }) => nameOf.get(address)!))
  })

  /** A name below `name` that a delegation there would hide. Reads the zone's names: delegations are rare. */
  const hiddenBelow = Effect.fnUntraced(function* (zone: DomainName, name: DomainName) {
    const below = `%.${name.replace(/[\\%_]/g, "\\$&")}`
    const [host] = yield* sql<{ readonly name: DomainName }>`
      SELECT fqdn AS name FROM host WHERE zone = ${zone} AND fqdn LIKE ${below} ESCAPE '\\' LIMIT 1`
    if (host !== undefined) return host.name
    const [record] = yield* sql<{ readonly name: DomainName }>`
      SELECT name FROM record
      WHERE zone = ${zone} AND type NOT IN ('A', 'AAAA') AND name LIKE ${below} ESCAPE '\\' LIMIT 1`
    return record?.name
  })

  const lookUp = Effect.fnUntraced(function* (zone: Zone.Zone, changes: ReadonlyArray<RecordChange>) {
    const names = [...new Set(changes.map(({ name }) => name))]
    const above = [...new Set(names.flatMap((name) => RecordRules.namesAbove(name, zone.name)))]
    const records = new Map<string, Map<string, ManagedRecord>>(names.map((name) => [name, new Map()]))
    for (const record of yield* recordsAt(zone.name, names)) records.get(record.name)!.set(record.type, record)
    const delegations = new Set(
      (yield* sql<{ readonly name: DomainName }>`
        SELECT name FROM record WHERE zone = ${zone.name} AND type = 'NS' AND name IN ${asList(sql, above)}`).map(
        ({ name }) => name
      )
    )
    const needsHosts = changes.some(({ after, type }) => after !== undefined && RecordRules.concernsHosts(type, zone))
    const hosts = needsHosts ? yield* hostsAt(zone, names) : new Set<string>()
    const creates = changes.some(({ after, name, type }) => after !== undefined && !records.get(name)!.has(type))
    const [count] = creates
      ? yield* sql<{ readonly sets: number | bigint }>`SELECT COUNT(*) AS sets FROM record WHERE zone = ${zone.name}`
      : []
    const newest = yield* newestOf(zone.name, names)
    return { records, delegations, hosts, newest, sets: Number(count?.sets ?? 0) }
  })

  /** The set as it is to be, or why it may not. */
  const judgePut = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    { name, type }: RecordChange,
    after: NonNullable<RecordChange["after"]>,
    known: Effect.Success<ReturnType<typeof lookUp>>
  ) {
    const fault = RecordRules.nameFault(zone, zones.all, name, type)
    if (fault !== undefined) return yield* new RecordInvalid({ name, type, reason: fault })
    const { ttlSeconds = known.records.get(name)!.get(type)?.ttlSeconds ?? zone.policy.ttlSeconds } = after
    const parsed = parseSet(name, type, ttlSeconds, after.contents)
    if (Result.isFailure(parsed)) return yield* new RecordInvalid({ name, type, reason: parsed.failure.message })
    const rrset = parsed.success
    const reason = RecordRules.conflict(zone, rrset, {
      types: [...known.records.get(name)!.keys()].filter((each) => each !== type),
      host: known.hosts.has(name),
      delegation: RecordRules.namesAbove(name, zone.name).find((each) => known.delegations.has(each)),
      hidden: type === "NS" && name !== zone.name ? yield* hiddenBelow(zone.name, name) : undefined
    })
    if (reason !== undefined) return yield* new RecordConflict({ name, type, reason })
    if (!known.records.get(name)!.has(type) && known.sets >= recordSetsMax) {
      const reason = `${zone.name} has ${recordSetsMax} record sets of people's, and may not have more`
      return yield* new RecordConflict({ name, type, reason })
    }
    return rrset
  })

  const judge = Effect.fnUntraced(function* (
    { by, generation, nowMillis, zone }: Context,
    change: RecordChange,
    known: Effect.Success<ReturnType<typeof lookUp>>
  ) {
    const { after, mayChange, name, type } = change
    const atName = known.records.get(name)!
    const current = atName.get(type)
    if (after === undefined && current === undefined && mayChange === undefined) {
      return yield* new RecordNotFound({ name, type })
    }
    if (mayChange !== undefined && !mayChange(current, known.newest.get(keyOf(name, type)) ?? 0)) {
      return yield* new RecordMoved({ name, type, generation: current?.generation })
    }
    if (after === undefined) {
      if (current === undefined) return yield* new RecordNotFound({ name, type })
      const reason = RecordRules.deletionConflict(zone, name, type)
      if (reason !== undefined) return yield* new RecordConflict({ name, type, reason })
      atName.delete(type)
      if (type === "NS") known.delegations.delete(name)
      known.sets -= 1
      return { _tag: "Changed", event: "deleted", before: current, after: undefined } as const
    }
    const rrset = yield* judgePut(zone, change, after, known)
    if (
      current?.origin === "managed" &&
      current.ttlSeconds === rrset.ttlSeconds &&
      current.contents.join("\n") === rrset.contents.join("\n")
    ) {
      return { _tag: "Unchanged", record: current } as const
    }
    const record: ManagedRecord = {
      ...rrset,
      zone: zone.name,
      owner: by,
      origin: "managed",
      generation,
      sinceMillis: nowMillis
    }
    atName.set(type, record)
    if (type === "NS" && name !== zone.name) known.delegations.add(name)
    if (current === undefined) known.sets += 1
    return {
      _tag: "Changed",
      event: current === undefined ? "created" : "changed",
      before: current,
      after: record
    } as const
  })

  /** Writes history rows; a set's row from before ends where the new one begins. */
  const writeHistory = Effect.fnUntraced(function* (
    rows: ReadonlyArray<{ readonly event: RecordEvent; readonly record: ManagedRecord }>,
    nowMillis: number
  ) {
    if (rows.length === 0) return
    const keys = asTable(
      sql,
      "r",
      { zone: "text", name: "text", type: "text" },
      rows.map(({ record: { name, type, zone } }) => ({ zone, name, type }))
    )
    // None ends before it began, even when the clock goes back.
    const closed = yield* sql<{
      readonly name: string
      readonly type: string
      readonly valid_to: number | bigint
    }>`
      UPDATE record_history SET valid_to = CASE WHEN valid_from > ${nowMillis} THEN valid_from ELSE ${nowMillis} END
      WHERE valid_to IS NULL AND (zone, name, type) IN (SELECT zone, name, type FROM ${keys})
      RETURNING name, type, valid_to`
    const validFrom = new Map(closed.map((row) => [keyOf(row.name, row.type), Number(row.valid_to)]))
    // What ends is a moment: nothing is true of the set from then on.
    yield* sql`
      INSERT INTO record_history (
        zone, name, type, event, ttl, contents, owner, origin, generation, valid_from, valid_to)
      SELECT zone, name, type, event, ttl, contents, owner, origin, generation, valid_from,
        CASE WHEN event IN ('deleted', 'released') THEN valid_from END
      FROM ${asTable(
        sql,
        "r",
        {
          zone: "text",
          name: "text",
          type: "text",
          event: "text",
          ttl: "bigint",
          contents: "text",
          owner: "text",
          origin: "text",
          generation: "bigint",
          valid_from: "bigint"
        },
        rows.map(({ event, record }) => ({
          zone: record.zone,
          name: record.name,
          type: record.type,
          event,
          ttl: record.ttlSeconds,
          contents: JSON.stringify(record.contents),
          owner: record.owner,
          origin: record.origin,
          generation: record.generation,
          valid_from: validFrom.get(keyOf(record.name, record.type)) ?? nowMillis
        }))
      )}`
    yield* sql`
      INSERT INTO record_name (zone, name, type) SELECT zone, name, type FROM ${keys} WHERE true
      ON CONFLICT (zone, name, type) DO NOTHING`
  })

  const insert = (records: ReadonlyArray<ManagedRecord>) =>
    records.length === 0
      ? Effect.void
      : Effect.asVoid(sql`
          INSERT INTO record (zone, name, type, ttl, contents, owner, origin, generation, since)
          SELECT zone, name, type, ttl, contents, owner, origin, generation, since
          FROM ${asTable(
            sql,
            "r",
            {
              zone: "text",
              name: "text",
              type: "text",
              ttl: "bigint",
              contents: "text",
              owner: "text",
              origin: "text",
              generation: "bigint",
              since: "bigint"
            },
            records.map((record) => ({
              zone: record.zone,
              name: record.name,
              type: record.type,
              ttl: record.ttlSeconds,
              contents: JSON.stringify(record.contents),
              owner: record.owner,
              origin: record.origin,
              generation: record.generation,
              since: record.sinceMillis
            }))
          )} WHERE true
          ON CONFLICT (zone, name, type) DO UPDATE SET
            ttl = excluded.ttl, contents = excluded.contents, owner = excluded.owner, origin = excluded.origin,
            generation = excluded.generation, since = excluded.since`)

  const remove = (records: ReadonlyArray<Pick<ManagedRecord, "zone" | "name" | "type">>) =>
    records.length === 0
      ? Effect.void
      : Effect.asVoid(sql`
          DELETE FROM record WHERE (zone, name, type) IN (SELECT zone, name, type FROM ${asTable(
            sql,
            "r",
            { zone: "text", name: "text", type: "text" },
            records.map(({ name, type, zone }) => ({ zone, name, type }))
          )})`)

  /** Judges changes in their order; with `dryRun` nothing is written. In the transaction around. */
  const apply: (
    context: Context,
    changes: ReadonlyArray<RecordChange>,
    dryRun?: boolean
  ) => Effect.Effect<ReadonlyArray<RecordOutcome>, SqlError.SqlError> = Effect.fnUntraced(function* (
    context,
    changes,
    dryRun = false
  ) {
    if (changes.length === 0) return []
    const { generation, nowMillis, zone } = context
    yield* takeTurn(
      zone.name,
      changes.some(({ after, type }) => after !== undefined && RecordRules.concernsHosts(type, zone))
    )
    const known = yield* lookUp(zone, changes)
    const outcomes: Array<RecordOutcome> = []
    /** By set: one that changes twice is written once. */
    const written = new Map<string, { before: ManagedRecord | undefined; after: ManagedRecord | undefined }>()
    for (const change of changes) {
      const outcome: RecordOutcome = yield* Effect.catchIf(
        judge(context, change, known),
        (error): error is RecordRefusal => error._tag !== "SqlError",
        (error) => Effect.succeed({ _tag: "Refused", error } as const)
      )
      outcomes.push(outcome)
      if (outcome._tag !== "Changed") continue
      const key = keyOf(change.name, change.type)
      const earlier = written.get(key)
      written.set(key, { before: earlier === undefined ? outcome.before : earlier.before, after: outcome.after })
    }
    if (dryRun || written.size === 0) return outcomes
    const puts: Array<ManagedRecord> = []
    const gone: Array<ManagedRecord> = []
    const history: Array<{ readonly event: RecordEvent; readonly record: ManagedRecord }> = []
    for (const { after, before } of written.values()) {
      if (after !== undefined) {
        puts.push(after)
        history.push({ event: before === undefined ? "created" : "changed", record: after })
      } else if (before !== undefined) {
        gone.push(before)
        history.push({ event: "deleted", record: { ...before, owner: context.by, generation } })
      }
    }
    yield* remove(gone)
    yield* insert(puts)
    yield* writeHistory(history, nowMillis)
    const places = [...puts, ...gone].map(({ name }) => ({ zone: zone.name, name }))
    yield* outbox.mark(places, generation, nowMillis, "record")
    return outcomes
  })

  return { apply, recordsAt, newestOf, insert, remove, writeHistory, takeTurn, columns }
}

export type RecordChanges = ReturnType<typeof make>

/**
 * Why no host may come to have some of `places`: by name, with who made the record that is in the way. In the transaction
 * that is to make the host, once it has looked for it with a lock.
 */
export const hostConflicts = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  zones: Pick<Zones["Service"], "find">,
  places: ReadonlyArray<{ readonly zone: DomainName; readonly name: DomainName }>
) {
  const conflicts = new Map<DomainName, { readonly reason: string; readonly owner: string }>()
  if (places.length === 0) return conflicts
  const looked = new Map<string, { readonly zone: DomainName; readonly name: DomainName }>()
  for (const { name, zone } of places) {
    for (const each of [name, ...RecordRules.namesAbove(name, zone)])
      looked.set(keyOf(zone, each), { zone, name: each })
  }
  const rows = yield* sql<Pick<RecordRow, "zone" | "name" | "type" | "origin" | "owner">>`
    SELECT c.zone, c.name, c.type, c.origin, c.owner
    FROM ${asTable(sql, "r", { zone: "text", name: "text" }, [...looked.values()])}
    JOIN record c ON c.zone = r.zone AND c.name = r.name
    WHERE c.type IN ('A', 'AAAA', 'CNAME', 'ALIAS', 'LUA', 'NS')`
  if (rows.length === 0) return conflicts
  const found = Map.groupBy(rows, (row) => keyOf(row.zone, row.name))
  for (const { name, zone: zoneName } of places) {
    const zone = zones.find(zoneName)
    if (zone === undefined) continue
    for (const each of [name, ...RecordRules.namesAbove(name, zoneName)]) {
      for (const row of found.get(keyOf(zoneName, each)) ?? []) {
        const reason = RecordRules.hostConflict(zone, name, row)
        if (reason !== undefined) conflicts.set(name, { reason, owner: row.owner })
      }
    }
  }
  return conflicts
})

/** What the audit says of a set. */
export const auditView = (record: Pick<RRset.RRset, "type" | "ttlSeconds" | "contents"> | undefined) =>
  record === undefined ? undefined : { type: record.type, ttl: record.ttlSeconds, contents: record.contents }
