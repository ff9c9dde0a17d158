/**
 * What differs between two times: hosts and the records that people manage, in
 * the order of their names.
 *
 * A walk over all names that ever were, each looked up at both times; one
 * request looks at `namesMax` of them at the most, so a page may be short, or
 * empty, and go on all the same. Only the two ends are compared: what was
 * changed and changed back in between is in the histories, not here.
 */
import { Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { asTable } from "../storage/Rows.ts"
import * as HostRows from "./HostRows.ts"
import type { HostVersion } from "./HostRows.ts"

/** Names looked at for one page at the most. */
export const namesMax = 2000

/** Names looked up in one statement. */
const chunkSize = 500

/** A record set of people's, as it was. */
export interface RecordVersion {
  readonly zone: DomainName
  readonly name: DomainName
  readonly type: string
  readonly ttlSeconds: number
  readonly contents: ReadonlyArray<string>
  readonly owner: string
  readonly origin: "managed" | "adopted"
  readonly generation: number
  readonly fromMillis: number
}

export interface Difference<A> {
  /** Undefined: there was none. */
  readonly before: A | undefined
  readonly after: A | undefined
}

export interface SetPlace {
  readonly zone: DomainName
  readonly name: DomainName
  readonly type: string
}

export interface Found<A, Place> {
  readonly items: ReadonlyArray<Difference<A>>
  /** The walk goes on behind this; undefined: it has ended. */
  readonly next: Place | undefined
}

export interface DifferenceFilter {
  readonly fromMillis: number
  readonly toMillis: number
  readonly zone?: DomainName | undefined
  /** Only names that begin so. */
  readonly prefix?: string | undefined
  /** Only names that it is true of. */
  readonly has?: ((place: { readonly zone: DomainName; readonly name: DomainName }) => boolean) | undefined
  readonly limit: number
}

export class Differences extends Context.Service<
  Differences,
  {
    /** The hosts of `names` as they were: what was released is absent. */
    readonly hostsAt: (
      names: ReadonlyArray<DomainName>,
      atMillis: number
    ) => Effect.Effect<ReadonlyMap<DomainName, HostVersion>, SqlError.SqlError>
    /** Sets as they were, by zone, name and type with spaces between: what was deleted is absent. */
    readonly recordsAt: (
      sets: ReadonlyArray<SetPlace>,
      atMillis: number
    ) => Effect.Effect<ReadonlyMap<string, RecordVersion>, SqlError.SqlError>
    /** Names of hosts, in order, whether one has them now or not. */
    readonly hostNames: (
      zone: DomainName | undefined,
      after: DomainName | undefined,
      limit: number,
      prefix?: string
    ) => Effect.Effect<ReadonlyArray<DomainName>, SqlError.SqlError>
    /** Record sets that people ever managed, by zone, name and type. */
    readonly recordSets: (
      zone: DomainName | undefined,
      after: SetPlace | undefined,
      limit: number
    ) => Effect.Effect<ReadonlyArray<SetPlace>, SqlError.SqlError>
    readonly hosts: (
      filter: DifferenceFilter,
      after: DomainName | undefined
    ) => Effect.Effect<Found<HostVersion, DomainName>, SqlError.SqlError>
    readonly records: (
      filter: DifferenceFilter,
      after: SetPlace | undefined
    ) => Effect.Effect<Found<RecordVersion, SetPlace>, SqlError.SqlError>
  }
>()("@prism-dns/core/registry/Differences") {
  static readonly layer = Layer.effect(
    Differences,
    Effect.map(SqlClient.SqlClient, (sql) => Differences.of(make(sql)))
  )
}

interface RecordRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly type: string
  readonly event: string
  readonly ttl: number | bigint
  readonly contents: string
  readonly owner: string
  readonly origin: "managed" | "adopted"
  readonly generation: number | bigint
  readonly valid_from: number | bigint
}

export const keyOf = ({ name, type, zone }: SetPlace): string => `${zone} ${name} ${type}`

const toVersion = (row: RecordRow): RecordVersion => ({
  zone: row.zone,
  name: row.name,
  type: row.type,
  ttlSeconds: Number(row.ttl),
  contents: JSON.parse(row.contents),
  owner: row.owner,
  origin: row.origin,
  generation: Number(row.generation),
  fromMillis: Number(row.valid_from)
})

/** Events of a record set behind which there is none. */
const endings: ReadonlySet<string> = new Set(["deleted", "released"])

const labelsText = (labels: HostVersion["labels"]): string =>
  JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))

/** What of a host is another: nothing of it, when only its generation is. */
export const hostFields = (before: HostVersion, after: HostVersion): ReadonlyArray<string> => [
  ...(before.id === after.id ? [] : ["id"]),
  ...(before.zone === after.zone ? [] : ["zone"]),
  ...(before.addresses.join() === after.addresses.join() ? [] : ["addresses"]),
  ...(labelsText(before.labels) === labelsText(after.labels) ? [] : ["labels"]),
  ...(before.ttlSeconds === after.ttlSeconds ? [] : ["ttlSeconds"]),
  ...(before.owner === after.owner ? [] : ["owner"]),
  ...(before.isStatic === after.isStatic ? [] : ["lease"]),
  ...(before.state === after.state ? [] : ["state"])
]

export const recordFields = (before: RecordVersion, after: RecordVersion): ReadonlyArray<string> => [
  ...(before.ttlSeconds === after.ttlSeconds ? [] : ["ttlSeconds"]),
  ...(before.contents.join("\n") === after.contents.join("\n") ? [] : ["contents"]),
  ...(before.origin === after.origin ? [] : ["origin"])
]

const make = (sql: SqlClient.SqlClient): Differences["Service"] => {
  const versionColumns = sql.literal(HostRows.versionColumns)

  const hostsAt: Differences["Service"]["hostsAt"] = Effect.fnUntraced(function* (names, atMillis) {
    if (names.length === 0) return new Map()
    const asked = asTable(
      sql,
      "r",
      { fqdn: "text" },
      names.map((fqdn) => ({ fqdn }))
    )
    const rows = yield* sql.onDialectOrElse({
      pg: () => sql<HostRows.VersionRow>`
        SELECT h.* FROM ${asked} CROSS JOIN LATERAL (
          SELECT ${versionColumns} FROM host_history v
          WHERE v.fqdn = r.fqdn AND valid_from <= ${atMillis} ${HostRows.reaching(sql, atMillis)}
          ORDER BY valid_from DESC, sequence DESC LIMIT 1
        ) h WHERE event <> 'released'`,
      orElse: () => sql<HostRows.VersionRow>`
        SELECT ${versionColumns} FROM host_history WHERE event <> 'released' AND sequence IN (
          SELECT (
            SELECT v.sequence FROM host_history v WHERE v.fqdn = r.fqdn AND v.valid_from <= ${atMillis}
            ORDER BY v.valid_from DESC, v.sequence DESC LIMIT 1
          ) FROM ${asked})`
    })
    return new Map(rows.map((row) => [row.fqdn, HostRows.toVersion(row)]))
  })

  const recordsAt: Differences["Service"]["recordsAt"] = Effect.fnUntraced(function* (sets, atMillis) {
    if (sets.length === 0) return new Map()
    const rows = yield* sql<RecordRow>`
      SELECT zone, name, type, event, ttl, contents, owner, origin, generation, valid_from FROM record_history
      WHERE sequence IN (
        SELECT (
          SELECT v.sequence FROM record_history v
          WHERE v.zone = r.zone AND v.name = r.name AND v.type = r.type AND v.valid_from <= ${atMillis}
          ORDER BY v.valid_from DESC, v.sequence DESC LIMIT 1
        ) FROM ${asTable(
          sql,
          "r",
          { zone: "text", name: "text", type: "text" },
          sets.map(({ name, type, zone }) => ({ zone, name, type }))
        )})`
    return new Map(rows.filter(({ event }) => !endings.has(event)).map((row) => [keyOf(row), toVersion(row)]))
  })

  const hostNames: Differences["Service"]["hostNames"] = (zone, after, limit, prefix) => {
    const conditions = [
      ...(zone === undefined ? [] : [sql`zone = ${zone}`]),
      ...(prefix === undefined ? [] : [sql`fqdn >= ${prefix} AND fqdn < ${`${prefix}\u{7f}`}`]),
      sql`fqdn > ${after ?? ""}`
    ]
    return Effect.map(
      sql<{ readonly fqdn: DomainName }>`
        SELECT ${sql.literal(zone === undefined ? "DISTINCT " : "")}fqdn FROM host_name WHERE ${sql.and(conditions)}
        ORDER BY fqdn LIMIT ${limit}`,
      (rows) => rows.map(({ fqdn }) => fqdn)
    )
  }

  const recordSets: Differences["Service"]["recordSets"] = (zone, after, limit) => {
    const behind = { zone: after?.zone ?? "", name: after?.name ?? "", type: after?.type ?? "" }
    return zone === undefined
      ? sql<SetPlace>`
          SELECT zone, name, type FROM record_name
          WHERE (zone, name, type) > (${behind.zone}, ${behind.name}, ${behind.type})
          ORDER BY zone, name, type LIMIT ${limit}`
      : sql<SetPlace>`
          SELECT zone, name, type FROM record_name
          WHERE zone = ${zone} AND (name, type) > (${behind.name}, ${behind.type}) ORDER BY name, type LIMIT ${limit}`
  }

  /** Walks on until the page is full, the walk has ended, or enough was looked at. */
  const walk = Effect.fnUntraced(function* <A, Place>(
    limit: number,
    begin: Place | undefined,
    options: {
      readonly read: (after: Place | undefined, count: number) => Effect.Effect<ReadonlyArray<Place>, SqlError.SqlError>
      readonly differences: (
        places: ReadonlyArray<Place>
      ) => Effect.Effect<ReadonlyArray<readonly [Place, Difference<A>]>, SqlError.SqlError>
    }
  ): Effect.fn.Return<Found<A, Place>, SqlError.SqlError> {
    const items: Array<Difference<A>> = []
    let after = begin
    for (let looked = 0; looked < namesMax; looked += chunkSize) {
      const places = yield* options.read(after, chunkSize)
      for (const [place, difference] of yield* options.differences(places)) {
        items.push(difference)
        if (items.length === limit) return { items, next: place }
      }
      if (places.length < chunkSize) return { items, next: undefined }
      after = places.at(-1)
    }
    return { items, next: after }
  })

  const hosts: Differences["Service"]["hosts"] = (filter, begin) =>
    walk<HostVersion, DomainName>(filter.limit, begin, {
      read: (after, count) => hostNames(filter.zone, after, count, filter.prefix),
      differences: Effect.fnUntraced(function* (names) {
        const [then, now] = yield* Effect.all([hostsAt(names, filter.fromMillis), hostsAt(names, filter.toMillis)], {
          concurrency: 2
        })
        return names.flatMap((name): ReadonlyArray<readonly [DomainName, Difference<HostVersion>]> => {
          // A name may have been in another zone: what it was there is for who may see that zone.
          const visible = (version: HostVersion | undefined) =>
            version === undefined || filter.has?.({ zone: version.zone, name }) === false ? undefined : version
          const before = visible(then.get(name))
          const after = visible(now.get(name))
          if (before === undefined && after === undefined) return []
          if (filter.zone !== undefined && before?.zone !== filter.zone && after?.zone !== filter.zone) return []
          if (before !== undefined && after !== undefined && hostFields(before, after).length === 0) return []
          return [[name, { before, after }]]
        })
      })
    })

  const records: Differences["Service"]["records"] = (filter, begin) =>
    walk<RecordVersion, SetPlace>(filter.limit, begin, {
      read: (after, count) => recordSets(filter.zone, after, count),
      differences: Effect.fnUntraced(function* (sets) {
        const [then, now] = yield* Effect.all([recordsAt(sets, filter.fromMillis), recordsAt(sets, filter.toMillis)], {
          concurrency: 2
        })
        return sets.flatMap((set): ReadonlyArray<readonly [SetPlace, Difference<RecordVersion>]> => {
          const before = then.get(keyOf(set))
          const after = now.get(keyOf(set))
          if (before === undefined && after === undefined) return []
          if (filter.prefix !== undefined && !set.name.startsWith(filter.prefix)) return []
          if (filter.has?.({ zone: set.zone, name: set.name }) === false) return []
          if (before !== undefined && after !== undefined && recordFields(before, after).length === 0) return []
          return [[set, { before, after }]]
        })
      })
    })

  return { hostsAt, recordsAt, hostNames, recordSets, hosts, records }
}
