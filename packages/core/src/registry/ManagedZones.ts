/**
 * Zones that come, change and go by the API.
 *
 * A change of a zone, its history row and its audit entry commit together, one
 * change after the other, each against what the one before it left; then it is
 * in force (`dns/Zones.reload`), and whoever works on zones is told. A crash in
 * between leaves what was committed: the next start reads it. Promises: a zone
 * that would take over names of another one's hosts is refused, and so is the
 * removal of one that still has something in it; a registration that meets the
 * removal of its zone is in time for it to be refused, or is refused itself.
 * What the API sets lies over what the configuration says, and never alters it.
 *
 * Nothing is removed from PowerDNS: a zone that is managed no more stays there
 * as it is. Leaves to others: making it there (`dns/DnsManager`), and what
 * changed settings mean for records (`registry/ZoneChanges`).
 */
import { Clock, Context, Effect, Layer, Schedule, Schema } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import * as Turns from "../audit/Turns.ts"
import { Signals } from "../cluster/Signals.ts"
import * as ZoneRepo from "../dns/ZoneRepo.ts"
import { Zones } from "../dns/Zones.ts"
import { type DomainName, isWithin } from "../domain/DomainName.ts"
import * as Zone from "../domain/Zone.ts"
import { type Overlay, patched } from "../domain/ZoneSettings.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { isCollision } from "../storage/SqlFailure.ts"
import * as ZoneChanges from "./ZoneChanges.ts"

/** Prism does not manage a zone of this name. */
export class ZoneUnknown extends Schema.TaggedError<ZoneUnknown>()("ZoneUnknown", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} is not a zone that Prism manages`
  }
}

/** There is a zone of this name already. */
export class ZoneExists extends Schema.TaggedError<ZoneExists>()("ZoneExists", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} is a zone of Prism already; what is set for it can be changed`
  }
}

/** The zone would take over names that are in another one. */
export class ZoneOverlaps extends Schema.TaggedError<ZoneOverlaps>()("ZoneOverlaps", {
  zone: Schema.String,
  /** The zone that has the names now. */
  other: Schema.String,
  hosts: Schema.Finite,
  records: Schema.Finite,
  /** Some of them. */
  examples: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const what = [
      ...(this.hosts > 0 ? [`${this.hosts} ${this.hosts === 1 ? "host" : "hosts"}`] : []),
      ...(this.records > 0 ? [`${this.records} managed ${this.records === 1 ? "record set" : "record sets"}`] : [])
    ]
    return (
      `${this.zone} would take over names of ${this.other}: ${what.join(" and ")} (${this.examples.join(", ")}); ` +
      "release them there first"
    )
  }
}

/** The zone is one of the configuration, and goes by it. */
export class ZoneConfigured extends Schema.TaggedError<ZoneConfigured>()("ZoneConfigured", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} is a zone of the configuration; it goes by being taken out of it`
  }
}

/** What is still in a zone, or names it. */
export interface Content {
  readonly hosts: number
  readonly records: number
  /** Names that PowerDNS holds by our doing and that are about to be removed there. */
  readonly publishedNames: number
  /** Tokens, identities and roles that say the zone by its name: whoever makes the zone again would get what they may. */
  readonly tokens: number
  readonly identities: number
  readonly roles: number
}

/** The zone has something in it. */
export class ZoneInUse extends Schema.TaggedError<ZoneInUse>()("ZoneInUse", {
  zone: Schema.String,
  hosts: Schema.Finite,
  records: Schema.Finite,
  publishedNames: Schema.Finite,
  tokens: Schema.Finite,
  identities: Schema.Finite,
  roles: Schema.Finite
}) {
  override get message(): string {
    const named = (count: number, one: string, many: string) =>
      count === 0 ? [] : [`${count} ${count === 1 ? one : many}`]
    const what = [
      ...named(this.hosts, "host", "hosts"),
      ...named(this.records, "managed record set", "managed record sets"),
      ...named(
        this.publishedNames,
        "name that is still being removed from PowerDNS",
        "names that are still being removed from PowerDNS"
      ),
      ...named(this.tokens, "token that names it", "tokens that name it"),
      ...named(this.identities, "identity that names it", "identities that name it"),
      ...named(this.roles, "role that names it", "roles that name it")
    ]
    return `${this.zone} is in use: ${what.join(", ")}`
  }
}

/** Settings that do not go together, or a name that cannot be a zone's. */
export class ZoneInvalid extends Schema.TaggedError<ZoneInvalid>()("ZoneInvalid", {
  /** JSON Pointer. */
  pointer: Schema.String,
  message: Schema.String
}) {}

/** There are as many zones as there may be. */
export class TooManyZones extends Schema.TaggedError<TooManyZones>()("TooManyZones", { max: Schema.Finite }) {
  override get message(): string {
    return `there are ${this.max} zones of the API already, which is as many as there may be`
  }
}

export interface ChangeOptions<E = never, R = never> {
  readonly actor: Audit.Actor
  readonly reason?: string | undefined
  /** Says what would become of it, and changes nothing. */
  readonly dryRun?: boolean | undefined
  /** Asked with the zone as it is, in the transaction of the change; its failure ends that. */
  readonly check?: ((zone: Zone.Zone) => Effect.Effect<void, E, R>) | undefined
}

export interface Changed {
  readonly before: Zone.Zone | undefined
  /** Of a dry run at the generation of before. */
  readonly after: Zone.Zone
  /** About how many names are looked at again for it. */
  readonly namesMarked: number
}

/** What was in force for a zone from one moment to another. */
export type Version = ZoneRepo.Version

export interface ManagedZonesOptions {
  /** Zones of the API at the most. */
  readonly zonesMax: number
  /** The catalog of zone transfers, which is no zone for records. */
  readonly catalog: DomainName | undefined
}

/** Each has a writer and a schedule of its own, some kilobytes. */
export const defaultOptions: ManagedZonesOptions = { zonesMax: 10_000, catalog: undefined }

export class ManagedZones extends Context.Service<
  ManagedZones,
  {
    readonly create: (
      name: DomainName,
      settings: Overlay,
      options: Omit<ChangeOptions, "check">
    ) => Effect.Effect<Changed, ZoneExists | ZoneOverlaps | ZoneInvalid | TooManyZones | SqlError.SqlError>
    /** Lays a merge patch over what the API has set for a zone; `null` takes a value back. */
    readonly change: <E = never, R = never>(
      name: DomainName,
      patch: Overlay,
      options: ChangeOptions<E, R>
    ) => Effect.Effect<Changed, ZoneUnknown | ZoneInvalid | SqlError.SqlError | E, R>
    /** Manages a zone of the API no more, once nothing is in it. */
    readonly remove: <E = never, R = never>(
      name: DomainName,
      options: ChangeOptions<E, R>
    ) => Effect.Effect<Zone.Zone, ZoneUnknown | ZoneConfigured | ZoneInUse | SqlError.SqlError | E, R>
    /** A zone as it was at a generation of its settings. */
    readonly findVersion: (
      name: DomainName,
      generation: number
    ) => Effect.Effect<Version | undefined, SqlError.SqlError>
    /** What is in force, with who made it so. */
    readonly findCurrent: (name: DomainName) => Effect.Effect<Version | undefined, SqlError.SqlError>
    /** A zone as it was at a time. */
    readonly findAt: (name: DomainName, atMillis: number) => Effect.Effect<Version | undefined, SqlError.SqlError>
    /** All zones as they were at a time, by name. */
    readonly listAt: (
      atMillis: number,
      page: { readonly after: DomainName | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<Version>, SqlError.SqlError>
    /** What a zone was, the newest first; `before` is the sequence of the last one of the page before. */
    readonly history: (
      name: DomainName,
      page: { readonly before: number | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<Version & { readonly sequence: number }>, SqlError.SqlError>
  }
>()("@prism-dns/core/registry/ManagedZones") {
  static readonly layer = (options: Partial<ManagedZonesOptions> = {}) =>
    Layer.effect(ManagedZones, make({ ...defaultOptions, ...options }))
}

/** Names given as an example. */
const examplesMax = 5

const problemOf = (zone: Zone.Zone, catalog: DomainName | undefined): ZoneInvalid | undefined => {
  const { name, policy } = zone
  if (name === catalog) {
    return new ZoneInvalid({
      pointer: "/name",
      message: `${name} is the catalog of zone transfers (powerdns.transfer.catalog), which holds no records`
    })
  }
  if (!Zone.isReverse(zone) && /(?:^|\.)(?:in-addr|ip6)\.arpa\.$/.test(name)) {
    return new ZoneInvalid({
      pointer: "/name",
      message: `${name} names no network, for example 2.0.192.in-addr.arpa or 8.b.d.0.1.0.0.2.ip6.arpa`
    })
  }
  if (policy.ttlSecondsMin > policy.ttlSecondsMax) {
    return new ZoneInvalid({
      pointer: "/policy/ttlSecondsMin",
      message: `ttlSecondsMin is ${policy.ttlSecondsMin}, above ttlSecondsMax, which is ${policy.ttlSecondsMax}`
    })
  }
  return undefined
}

const make = Effect.fnUntraced(function* ({ catalog, zonesMax }: ManagedZonesOptions) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const durability = yield* Durability
  const signals = yield* Signals
  const repo = ZoneRepo.make(sql, zones.configured)
  const configured = new Set(zones.configured.map(({ name }) => name))

  const tell = Effect.suspend(() => {
    signals.send("zones")
    return zones.reload
  })

  /** One transaction, with other changes of zones kept out; once it has committed it is in force. */
  const inTurn = <A, E, R>(isDry: boolean, effect: Effect.Effect<A, E, R>) =>
    Effect.andThen(repo.lock, effect).pipe(
      sql.withTransaction,
      Effect.retry({
        while: (error) => SqlError.isSqlError(error) && isCollision(error),
        times: 5,
        schedule: Schedule.jittered(Schedule.exponential(5))
      }),
      Effect.tap(() => (isDry ? Effect.void : Effect.andThen(durability.flush, tell))),
      // What has committed is in force, also when whoever asked for it has gone.
      Effect.uninterruptible
    )

  /** The last bytes of a name are those of `suffix`. */
  const endsWith = (column: string, suffix: string) =>
    sql.onDialectOrElse({
      pg: () => sql`right(${sql(column)}, ${suffix.length}) = ${suffix}`,
      orElse: () => sql`substr(${sql(column)}, ${-suffix.length}) = ${suffix}`
    })

  const has = (column: string, text: string) =>
    sql.onDialectOrElse({
      pg: () => sql`strpos(${sql(column)}, ${text}) > 0`,
      orElse: () => sql`instr(${sql(column)}, ${text}) > 0`
    })

  const count = (statement: Effect.Effect<ReadonlyArray<{ readonly count: number | bigint }>, SqlError.SqlError>) =>
    Effect.map(statement, ([row]) => Number(row?.count ?? 0))

  /** The smallest zone of the same kind that `name` lies in. */
  const parentOf = (zone: Zone.Zone): Zone.Zone | undefined =>
    zones.all
      .filter(
        (other) =>
          other.name !== zone.name &&
          isWithin(zone.name, other.name) &&
          (Zone.isReverse(other) || !Zone.isReverse(zone))
      )
      .sort((a, b) => b.name.length - a.name.length)[0]

  /** What a new zone would take from another one. Pointers of hosts follow the zones, and are no reason against one. */
  const findOverlap = Effect.fnUntraced(function* (zone: Zone.Zone, parent: Zone.Zone) {
    const below = `.${zone.name}`
    const at = (column: string) => sql`(${sql(column)} = ${zone.name} OR ${endsWith(column, below)})`
    const hosts = yield* count(sql`SELECT COUNT(*) AS count FROM host WHERE zone = ${parent.name} AND ${at("fqdn")}`)
    const records = yield* count(
      sql`SELECT COUNT(*) AS count FROM record WHERE zone = ${parent.name} AND ${at("name")}`
    )
    if (hosts + records === 0) return undefined
    const examples = yield* sql<{ readonly name: string }>`
      SELECT name FROM (
        SELECT fqdn AS name FROM host WHERE zone = ${parent.name} AND ${at("fqdn")}
        UNION SELECT name FROM record WHERE zone = ${parent.name} AND ${at("name")}
      ) found ORDER BY name LIMIT ${examplesMax}`
    return new ZoneOverlaps({
      zone: zone.name,
      other: parent.name,
      hosts,
      records,
      examples: examples.map(({ name }) => name)
    })
  })

  /** Writes what becomes of a zone: its settings last, behind what it would have to wait for. */
  const write = Effect.fnUntraced(function* (
    change: {
      readonly name: DomainName
      readonly event: ZoneRepo.ZoneEvent
      readonly before: Zone.Zone | undefined
      readonly after: ((generation: number) => Zone.Zone) | undefined
      readonly setting: ZoneRepo.Setting | undefined
    },
    { actor, reason }: Pick<ChangeOptions, "actor" | "reason">
  ) {
    const { event, name, setting } = change
    const generation = yield* Generation.next(sql)
    const nowMillis = yield* Clock.currentTimeMillis
    const by = { actor: actor.name, generation, nowMillis }
    const before = change.before === undefined ? undefined : ZoneRepo.recordedOf(change.before)
    const zone = change.after?.(generation)
    const after = zone === undefined ? undefined : ZoneRepo.recordedOf(zone)
    yield* setting === undefined ? repo.removeSetting(name) : repo.writeSetting(setting, by)
    yield* repo.record({ name, event, settings: (after ?? before)! }, by)
    yield* Audit.writeAll(
      sql,
      [{ actor, action: `zone.${event}`, zone: name, subject: name, generation, before, after, reason }],
      nowMillis
    )
    return generation
  })

  /** Counted behind the transaction: a large registry takes its time over it. */
  const withCount = ({ after, before }: Omit<Changed, "namesMarked">) =>
    Effect.map(
      before !== undefined && !ZoneChanges.isForRecords(before, after)
        ? Effect.succeed(0)
        : ZoneChanges.countAffected(sql, after),
      (namesMarked): Changed => ({ before, after, namesMarked })
    )

  const create: ManagedZones["Service"]["create"] = Effect.fn("ManagedZones.create")(
    function* (name, settings, options) {
      const overlay = patched({}, settings)
      const isDry = options.dryRun === true
      const done = yield* inTurn(
        isDry,
        Effect.gen(function* () {
          if (configured.has(name) || (yield* repo.findCurrent(name)) !== undefined) {
            return yield* new ZoneExists({ zone: name })
          }
          const after = repo.zoneWith(name, overlay, 0)
          const problem = problemOf(after, catalog)
          if (problem !== undefined) return yield* problem
          const zonesOfApi = yield* count(sql`SELECT COUNT(*) AS count FROM zone_setting WHERE origin = 'api'`)
          if (zonesOfApi >= zonesMax) return yield* new TooManyZones({ max: zonesMax })
          const parent = parentOf(after)
          // What was known of one of this name that was managed before.
          if (!isDry) yield* sql`DELETE FROM zone_fingerprint WHERE zone = ${name}`
          // Nothing is put into either from here on but what sees this zone.
          if (!isDry) yield* Turns.close(sql, [name, ...(parent === undefined ? [] : [parent.name])])
          const overlap = parent === undefined ? undefined : yield* findOverlap(after, parent)
          if (overlap !== undefined) return yield* overlap
          if (isDry) return { before: undefined, after }
          const zoneAt = (generation: number) => repo.zoneWith(name, overlay, generation)
          const generation = yield* write(
            { name, event: "created", before: undefined, after: zoneAt, setting: { name, origin: "api", overlay } },
            options
          )
          return { before: undefined, after: zoneAt(generation) }
        })
      )
      return yield* withCount(done)
    }
  )

  const change: ManagedZones["Service"]["change"] = Effect.fn("ManagedZones.change")(function* <E, R>(
    name: DomainName,
    patch: Overlay,
    options: ChangeOptions<E, R>
  ) {
    const isDry = options.dryRun === true
    const done = yield* inTurn(
      isDry,
      Effect.gen(function* () {
        const current = yield* repo.findCurrent(name)
        if (current === undefined) return yield* new ZoneUnknown({ zone: name })
        const setting = yield* repo.findSetting(name)
        const before = repo.zoneWith(name, setting?.overlay ?? {}, current.generation)
        if (options.check !== undefined) yield* options.check(before)
        const overlay = patched(setting?.overlay ?? {}, patch)
        const zoneAt = (generation: number) => repo.zoneWith(name, overlay, generation)
        const tried = zoneAt(before.generation)
        const problem = problemOf(tried, catalog)
        if (problem !== undefined) return yield* problem
        if (JSON.stringify(ZoneRepo.recordedOf(before)) === JSON.stringify(ZoneRepo.recordedOf(tried))) {
          return { before, after: before }
        }
        if (isDry) return { before, after: tried }
        const origin = setting?.origin ?? "configuration"
        const isNothing = origin === "configuration" && Object.keys(overlay).length === 0
        // What is put in by the settings of before has committed, and is seen by whoever looks at names anew for these.
        yield* Turns.close(sql, [name])
        const generation = yield* write(
          { name, event: "changed", before, after: zoneAt, setting: isNothing ? undefined : { name, origin, overlay } },
          options
        )
        return { before, after: zoneAt(generation) }
      })
    )
    return yield* withCount(done)
  })

  const contentOf = Effect.fnUntraced(function* (zone: Zone.Zone): Effect.fn.Return<Content, SqlError.SqlError> {
    const { name } = zone
    const quoted = JSON.stringify(name)
    const nowMillis = yield* Clock.currentTimeMillis
    const hosts = yield* count(sql`SELECT COUNT(*) AS count FROM host WHERE zone = ${name}`)
    const records = yield* count(sql`SELECT COUNT(*) AS count FROM record WHERE zone = ${name}`)
    return {
      hosts,
      records,
      // While something is in it, that is what they are of. Those of a reverse zone belong to hosts of others, and stay in
      // PowerDNS with it.
      publishedNames:
        hosts + records > 0 || Zone.isReverse(zone)
          ? 0
          : yield* count(sql`
              SELECT COUNT(*) AS count FROM published WHERE zone = ${name} AND (content <> '[]' OR sent IS NOT NULL)`),
      tokens: yield* count(sql`
        SELECT COUNT(*) AS count FROM access_token
        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${nowMillis}) AND ${has("grants", quoted)}`),
      identities: yield* count(sql`
        SELECT COUNT(*) AS count FROM identity WHERE revoked_at IS NULL AND ${has("grants", quoted)}`),
      roles: yield* count(sql`SELECT COUNT(*) AS count FROM access_role WHERE ${has("permissions", quoted)}`)
    }
  })

  const requireEmpty = Effect.fnUntraced(function* (zone: Zone.Zone) {
    const content = yield* contentOf(zone)
    if (Object.values(content).some((each) => each > 0)) return yield* new ZoneInUse({ zone: zone.name, ...content })
  })

  const remove: ManagedZones["Service"]["remove"] = Effect.fn("ManagedZones.remove")(function* <E, R>(
    name: DomainName,
    options: ChangeOptions<E, R>
  ) {
    const isDry = options.dryRun === true
    return yield* inTurn(
      isDry,
      Effect.gen(function* () {
        const current = yield* repo.findCurrent(name)
        if (current === undefined) return yield* new ZoneUnknown({ zone: name })
        const setting = yield* repo.findSetting(name)
        const before = repo.zoneWith(name, setting?.overlay ?? {}, current.generation)
        if (options.check !== undefined) yield* options.check(before)
        if (configured.has(name)) return yield* new ZoneConfigured({ zone: name })
        yield* requireEmpty(before)
        if (isDry) return before
        // What waits is nobody's to do. Before the turn: for these rows it may have to wait.
        for (const table of ["unserved", "zone_fingerprint", "zone_publication", "outbox"]) {
          yield* sql`DELETE FROM ${sql(table)} WHERE zone = ${name}`
        }
        yield* Turns.close(sql, [name])
        // What was put in before the turn is seen here, and what comes after it sees that the zone has gone.
        yield* requireEmpty(before)
        yield* write({ name, event: "deleted", before, after: undefined, setting: undefined }, options)
        return before
      })
    )
  })

  return ManagedZones.of({
    create,
    change,
    remove,
    findVersion: repo.findVersion,
    findCurrent: repo.findCurrent,
    findAt: repo.findAt,
    listAt: repo.listAt,
    history: repo.history
  })
})
