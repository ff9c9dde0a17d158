/**
 * The records that people manage, beside those of hosts.
 *
 * A change of a set, its history, its audit entry and the mark of its name
 * commit together or not at all; publishing goes the way of any change. What
 * people have said is a fact: a set they delete is not guarded by the zone's
 * budget. Sets that were adopted are among them. Promises: sets of one zone
 * change one after the other; one that may not be is refused with what stands
 * in its way, before anything of it is stored; what somebody else has in
 * PowerDNS is not overwritten. Leaves to others: what may be
 * (`domain/RecordContent`, `dns/RecordRules`), and publishing
 * (`dns/DnsManager`).
 */
import { Clock, Context, Effect, Layer, Option, Schedule, Schema } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import * as Turns from "../audit/Turns.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { AckLevel } from "../domain/Host.ts"
import { isComputed } from "../domain/RecordContent.ts"
import type * as RRset from "../domain/RRset.ts"
import type { Zone } from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { isCollision } from "../storage/SqlFailure.ts"
import { Acknowledgements, type Ticket } from "./Acknowledgements.ts"
import { Outbox } from "./Outbox.ts"
import { Ownership } from "./Ownership.ts"
import * as Progress from "./Progress.ts"
import { knownTypes } from "./Publication.ts"
import * as RecordChanges from "./RecordChanges.ts"
import {
  auditView,
  type ManagedRecord,
  type RecordChange,
  RecordConflict,
  type RecordOutcome,
  type RecordRefusal
} from "./RecordChanges.ts"
import { Zones, ZonesMoved } from "./Zones.ts"

export type { ManagedRecord, RecordChange, RecordOutcome, RecordRefusal } from "./RecordChanges.ts"

/** Record sets changed in one transaction. */
export const changesMax = 1000

/** How long PowerDNS may take to say what stands at names, in milliseconds; then the publisher finds out. */
const lookMillisMax = 2000

/** The zone is not one that Prism manages. */
export class RecordZoneUnknown extends Schema.TaggedError<RecordZoneUnknown>()("RecordZoneUnknown", {
  zone: Schema.String
}) {
  override get message(): string {
    return `${this.zone} is not a zone that Prism manages`
  }
}

export interface ChangeOptions {
  readonly actor: Audit.Actor
  readonly reason?: string | undefined
  /** What led to it, where that is not the person's word alone. */
  readonly cause?: string | undefined
  /** Says what would become of it, and changes nothing. */
  readonly dryRun?: boolean | undefined
}

export interface Changes {
  /** In the order of the changes. */
  readonly outcomes: ReadonlyArray<RecordOutcome>
  /** Of what was changed; of a dry run, of what was there before. */
  readonly generation: number
  /** Settles when what was changed reaches the DNS; of no change it has at once. */
  readonly ticket: Ticket
}

/** How far a set has come on its way to the DNS. */
export interface RecordPublication {
  readonly level: AckLevel
  /** Why it goes no further, when something stands in the way. */
  readonly error: string | undefined
}

/** A change of one set that was not refused. */
export type Change = Exclude<RecordOutcome, { readonly _tag: "Refused" }>

/** Where a list goes on. */
export interface SetPlace {
  readonly name: DomainName
  readonly type: string
}

export class ManagedRecords extends Context.Service<
  ManagedRecords,
  {
    readonly find: (
      zone: DomainName,
      name: DomainName,
      type: string
    ) => Effect.Effect<Option.Option<ManagedRecord>, SqlError.SqlError>
    /** Sets in the order of names and types. */
    readonly list: (
      zone: DomainName,
      options: { readonly after?: SetPlace | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<ManagedRecord>, SqlError.SqlError>
    /** A set as it was at a generation of its own, and who made it so. A deleted one as it was last. */
    readonly version: (
      zone: DomainName,
      name: DomainName,
      type: string,
      generation: number | "newest"
    ) => Effect.Effect<Option.Option<ManagedRecord & { readonly event: RecordChanges.RecordEvent }>, SqlError.SqlError>
    /** Changes sets, at most `changesMax`, in one transaction, each judged against what those before it left. */
    readonly change: (
      zone: DomainName,
      changes: ReadonlyArray<RecordChange>,
      options: ChangeOptions
    ) => Effect.Effect<Changes, RecordZoneUnknown | SqlError.SqlError>
    /** Makes a set, or changes it. The one that is there already is no change. */
    readonly put: (
      zone: DomainName,
      set: Omit<RecordChange, "after"> & { readonly after: NonNullable<RecordChange["after"]> },
      options: ChangeOptions
    ) => Effect.Effect<Change & { readonly ticket: Ticket }, RecordZoneUnknown | RecordRefusal | SqlError.SqlError>
    readonly remove: (
      zone: DomainName,
      set: Omit<RecordChange, "after">,
      options: ChangeOptions
    ) => Effect.Effect<Change & { readonly ticket: Ticket }, RecordZoneUnknown | RecordRefusal | SqlError.SqlError>
    /** How far the present generation of each of `records` has come, in the same order. */
    readonly publications: (
      records: ReadonlyArray<Pick<ManagedRecord, "zone" | "name" | "type" | "generation">>
    ) => Effect.Effect<ReadonlyArray<RecordPublication>, SqlError.SqlError>
    /**
     * Waits until a change has reached `level`, at most `millis`, and lets its ticket go. What is computed when asked is never
     * seen to be served: then `applied` will do.
     */
    readonly settle: (ticket: Ticket, level: "applied" | "served", millis: number) => Effect.Effect<void>
    /** Lets a ticket go that nobody waits for. */
    readonly letGo: (ticket: Ticket) => void
    /** For plans: changes sets inside the transaction around, which writes the audit and wakes the publisher. */
    readonly applyChanges: RecordChanges.RecordChanges["apply"]
  }
>()("@prism-dns/core/dns/ManagedRecords") {
  static readonly layer = Layer.effect(
    ManagedRecords,
    Effect.suspend(() => make)
  )
}

const keyOf = ({ name, type }: SetPlace): string => `${name} ${type}`

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const acknowledgements = yield* Acknowledgements
  const powerdns = yield* PowerDnsClient
  const durability = yield* Durability
  const records = RecordChanges.make(sql, zones, outbox)
  const { columns } = records

  const find: ManagedRecords["Service"]["find"] = Effect.fn("ManagedRecords.find")(function* (zone, name, type) {
    const rows = yield* sql<RecordChanges.RecordRow>`
      SELECT ${columns} FROM record WHERE zone = ${zone} AND name = ${name} AND type = ${type}`
    return Option.map(Option.fromNullishOr(rows[0]), RecordChanges.toRecord)
  })

  const list: ManagedRecords["Service"]["list"] = Effect.fn("ManagedRecords.list")(function* (zone, { after, limit }) {
    const rows = yield* sql<RecordChanges.RecordRow>`
      SELECT ${columns} FROM record
      WHERE zone = ${zone} AND (name, type) > (${after?.name ?? ""}, ${after?.type ?? ""})
      ORDER BY name, type LIMIT ${limit}`
    return rows.map(RecordChanges.toRecord)
  })

  const version: ManagedRecords["Service"]["version"] = Effect.fn("ManagedRecords.version")(
    function* (zone, name, type, generation) {
      const rows = yield* sql<RecordChanges.RecordRow & { readonly event: RecordChanges.RecordEvent }>`
        SELECT zone, name, type, ttl, contents, owner, origin, generation, valid_from AS since, event
        FROM record_history WHERE ${sql.and([
          sql`zone = ${zone}`,
          sql`name = ${name}`,
          sql`type = ${type}`,
          ...(generation === "newest" ? [] : [sql`generation = ${generation}`])
        ])} ORDER BY sequence DESC LIMIT 1`
      return Option.map(Option.fromNullishOr(rows[0]), (row) => ({ ...RecordChanges.toRecord(row), event: row.event }))
    }
  )

  /** Those of `sets` that are not known to be ours: neither published, nor sent and perhaps taken. */
  const unknownAmong = Effect.fnUntraced(function* <A extends SetPlace>(zone: Zone, sets: ReadonlyArray<A>) {
    if (sets.length === 0) return sets
    const published = yield* outbox.published(zone.name, [...new Set(sets.map(({ name }) => name))])
    return sets.filter(({ name, type }) => {
      const known = published.get(name)
      return known?.sent !== "anything" && !knownTypes(known).has(type)
    })
  })

  /** Sets that would take the place of what somebody else has in PowerDNS, with what stands there. */
  const foreignSets = Effect.fnUntraced(function* (zone: Zone, changes: ReadonlyArray<RecordChange>) {
    // The zone's own name servers are there from the start.
    const puts = changes.filter(
      ({ after, name, type }) => after !== undefined && !(type === "NS" && name === zone.name)
    )
    const newcomers = yield* unknownAmong(zone, puts)
    if (newcomers.length === 0) return new Map<string, RRset.RRset>()
    const wanted = new Map(newcomers.map((put) => [keyOf(put), put]))
    const found = yield* powerdns.rrsets(zone.name, [...new Set(newcomers.map(({ name }) => name))]).pipe(
      Effect.timeout(lookMillisMax),
      // The publisher looks again, and parks what it finds.
      Effect.orElseSucceed(() => [])
    )
    const others = found.filter((rrset) => {
      const after = wanted.get(keyOf(rrset))?.after
      const isSame =
        after?.ttlSeconds === rrset.ttlSeconds &&
        after.contents.length === rrset.contents.length &&
        after.contents.every((content) => rrset.contents.includes(content))
      return after !== undefined && !isSame
    })
    // What was published meanwhile, before we looked, is ours; it is known by now, since it is noted before it is sent.
    return new Map((yield* unknownAmong(zone, others)).map((rrset) => [keyOf(rrset), rrset]))
  })

  /** What is refused before the registry is asked. */
  const refusedBefore = Effect.fnUntraced(function* (zone: Zone, changes: ReadonlyArray<RecordChange>) {
    const foreign = yield* foreignSets(zone, changes)
    return changes.map(({ after, name, type }) => {
      if (after === undefined) return undefined
      if (ownership.isIgnored(zone.name, name)) {
        return new RecordConflict({ name, type, reason: `${name} is ignored by a person's word; undo that first` })
      }
      const standing = foreign.get(keyOf({ name, type }))
      return standing === undefined
        ? undefined
        : new RecordConflict({
            name,
            type,
            reason: `${name} has a ${type} record that Prism did not make (${standing.contents.slice(0, 4).join(", ")}); adopt it first`
          })
    })
  })

  const write = Effect.fnUntraced(function* (zone: Zone, changes: ReadonlyArray<RecordChange>, options: ChangeOptions) {
    const before = yield* Generation.current(sql)
    const isDry = options.dryRun === true
    const zonesVersion = zones.version
    return yield* Effect.gen(function* () {
      const generation = isDry ? before : yield* Generation.next(sql)
      const nowMillis = yield* Clock.currentTimeMillis
      const by = options.actor.name
      const outcomes = yield* records.apply({ zone, by, generation, nowMillis }, changes, isDry)
      const changed = outcomes.flatMap((outcome, i) =>
        outcome._tag === "Changed" ? [{ ...outcome, name: changes[i]!.name, type: changes[i]!.type }] : []
      )
      const places = isDry
        ? []
        : [...new Set(changed.map(({ name }) => name))].map((name) => ({ zone: zone.name, name }))
      const ticket = acknowledgements.open(places, generation)
      if (!isDry) {
        yield* Effect.onError(
          Effect.andThen(
            Effect.andThen(Turns.share(sql, [zone.name]), zones.verify(zonesVersion)),
            Audit.writeAll(
              sql,
              changed.map((each) => ({
                actor: options.actor,
                action: `record.${each.event}`,
                zone: zone.name,
                subject: each.name,
                before: auditView(each.before),
                after: auditView(each.after),
                reason: options.reason,
                cause: options.cause,
                generation
              })),
              nowMillis
            )
          ),
          () => Effect.sync(() => acknowledgements.close(ticket))
        )
      }
      return { outcomes, generation, ticket }
    }).pipe(Audit.inTransaction(sql))
  })

  const attempt = Effect.fnUntraced(function* (
    name: DomainName,
    changes: ReadonlyArray<RecordChange>,
    options: ChangeOptions
  ) {
    const zone = zones.find(name)
    if (zone === undefined) return yield* new RecordZoneUnknown({ zone: name })
    const refused = yield* refusedBefore(zone, changes)
    const going = changes.filter((_, i) => refused[i] === undefined)
    return { ...(yield* write(zone, going, options)), refused }
  })

  const change: ManagedRecords["Service"]["change"] = Effect.fn("ManagedRecords.change")(
    function* (name, changes, options) {
      const done = yield* attempt(name, changes, options).pipe(
        // Somebody changed the same at the same moment, or the zones: look again.
        Effect.retry({
          while: (error) =>
            error instanceof ZonesMoved
              ? Effect.as(zones.reload, true)
              : Effect.succeed(SqlError.isSqlError(error) && isCollision(error)),
          times: 5,
          schedule: Schedule.jittered(Schedule.exponential(5))
        }),
        Effect.catchTag("ZonesMoved", () => Effect.fail(new RecordZoneUnknown({ zone: name })))
      )
      if (options.dryRun !== true && done.ticket.places.length > 0) {
        yield* Effect.onError(durability.flush, () => Effect.sync(() => acknowledgements.close(done.ticket)))
        acknowledgements.committed([done.ticket])
        yield* outbox.wake([name])
      }
      const { outcomes, refused, ...rest } = done
      const decided = [...outcomes]
      return {
        ...rest,
        outcomes: refused.map((error): RecordOutcome =>
          error === undefined ? decided.shift()! : { _tag: "Refused", error }
        )
      }
    }
  )

  const changeOne = Effect.fnUntraced(function* (zone: DomainName, one: RecordChange, options: ChangeOptions) {
    const { outcomes, ticket } = yield* change(zone, [one], options)
    const outcome = outcomes[0]!
    return outcome._tag === "Refused" ? yield* outcome.error : { ...outcome, ticket }
  })

  const publications: ManagedRecords["Service"]["publications"] = Effect.fn("ManagedRecords.publications")(
    function* (list) {
      const progress = yield* Progress.find(sql, list)
      return list.map((record): RecordPublication => {
        const found = progress.get(Progress.keyOf(record))
        if (found?.markedMillis !== undefined) return { level: "accepted", error: found.parkedReason }
        return { level: found?.unserved === true || isComputed(record.type) ? "applied" : "served", error: undefined }
      })
    }
  )

  return ManagedRecords.of({
    find,
    list,
    version,
    change,
    put: Effect.fn("ManagedRecords.put")(changeOne),
    remove: Effect.fn("ManagedRecords.remove")((zone, set, options) =>
      changeOne(zone, { ...set, after: undefined }, options)
    ),
    publications,
    settle: (ticket, level, millis) =>
      ticket.places.length === 0
        ? Effect.void
        : acknowledgements
            .wait(ticket, level)
            .pipe(Effect.timeoutOption(millis), Effect.ensuring(Effect.sync(() => acknowledgements.close(ticket)))),
    letGo: acknowledgements.close,
    applyChanges: records.apply
  })
})
