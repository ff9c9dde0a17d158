/**
 * Lists of hosts in the order of their names, as they are or as they were at a
 * time, by any combination of filters.
 *
 * A list walks one index over names, the one that leaves least: the names that
 * ever had the address, or a label, or that are in a zone or a state. Each name
 * on the way is looked up, and what does not fit is passed over. One request
 * looks at `scanRowsMax` names at the most: a page may so be short, or empty,
 * and say that the list goes on. What a request costs is thereby bounded,
 * whatever the filters and the number of hosts.
 */
import { Effect } from "effect"
import type { SqlClient, SqlError, Statement } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host, HostState } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import { asList } from "../storage/Rows.ts"
import * as HostRows from "./HostRows.ts"
import type { HostVersion } from "./HostRows.ts"

/** Names looked at for one list at the most. */
export const scanRowsMax = { present: 1000, past: 1000 }

/** Labels that a list is narrowed down by at the most. */
export const labelFiltersMax = 8

export interface HostFilter {
  readonly zone?: DomainName | undefined
  readonly state?: HostState | undefined
  readonly address?: IpAddress | undefined
  /** All of them. */
  readonly labels?: ReadonlyArray<readonly [key: string, value: string]> | undefined
  /** Only names that begin so. */
  readonly prefix?: string | undefined
  /** Only names behind this one, in order. */
  readonly after?: DomainName | undefined
  /** Only these zones. */
  readonly zones?: ReadonlyArray<DomainName> | undefined
  /** Only names that it is true of. */
  readonly has?: ((place: { readonly zone: DomainName; readonly name: DomainName }) => boolean) | undefined
  readonly limit: number
}

export interface HostsFound<A> {
  readonly hosts: ReadonlyArray<A>
  /** The list goes on behind this name; undefined: that was all. */
  readonly next: DomainName | undefined
}

/** Names that an index has in their order: where they stand, and the conditions that the index answers. */
interface Walk {
  readonly table: "host" | "host_name" | "host_name_address" | "host_name_label"
  readonly where: ReadonlyArray<Statement.Fragment>
  /** A name may stand there more than once. */
  readonly distinct?: boolean
}

interface NamedRow {
  readonly fqdn: DomainName
  readonly zone: DomainName
}

/** How names are looked up. */
interface Looking<Row, A> {
  readonly isPast: boolean
  /** Names at the most. */
  readonly max: number
  readonly lookUp: (names: Statement.Fragment, where: Statement.Fragment) => Statement.Fragment
  readonly read: (row: Row) => A
}

/** Rows read at once where names are passed over that the caller may not see. */
const unseenRowsMax = 1000

/** Zones that are walked side by side; of more than that, all names are. */
const zonesWalkedMax = 64

export const make = (sql: SqlClient.SqlClient) => {
  const contains = (column: "addresses" | "labels", text: string) =>
    sql.onDialectOrElse({
      pg: () => sql`strpos(${sql.literal(column)}, ${text}) > 0`,
      orElse: () => sql`instr(${sql.literal(column)}, ${text}) > 0`
    })

  const range = ({ after, prefix }: HostFilter) => [
    ...(prefix === undefined ? [] : [sql`fqdn >= ${prefix} AND fqdn < ${`${prefix}\u{7f}`}`]),
    ...(after === undefined ? [] : [sql`fqdn > ${after}`])
  ]

  /** What each row must be, whichever index led to it. */
  const conditions = ({ address, labels = [], state, zone, zones }: HostFilter) => [
    ...(zone === undefined ? [] : [sql`zone = ${zone}`]),
    ...(zones === undefined ? [] : [sql`zone IN ${asList(sql, zones)}`]),
    ...(state === undefined ? [] : [sql`state = ${state}`]),
    ...(address === undefined ? [] : [contains("addresses", JSON.stringify(address))]),
    // As JSON writes it: no other label, and no value, has these characters in it without a backslash.
    ...labels.map(([key, value]) => contains("labels", `${JSON.stringify(key)}:${JSON.stringify(value)}`))
  ]

  /** The indexes that could lead to what is asked for; each inner list is walked side by side. */
  const walks = (filter: HostFilter, isPast: boolean): ReadonlyArray<ReadonlyArray<Walk>> => {
    const { address, labels = [], state, zone, zones } = filter
    if (address !== undefined) return [[{ table: "host_name_address", where: [sql`address = ${address}`] }]]
    const within = (zone: Statement.Fragment | undefined): Walk => ({
      table: isPast ? "host_name" : "host",
      where: [...(zone === undefined ? [] : [zone]), ...(isPast || state === undefined ? [] : [sql`state = ${state}`])],
      distinct: isPast && zone === undefined
    })
    const wanted = zone === undefined ? zones : zones?.includes(zone) === false ? [] : [zone]
    const byZone =
      wanted === undefined || wanted.length > zonesWalkedMax
        ? [within(undefined)]
        : wanted.map((name) => within(sql`zone = ${name}`))
    const byLabel = labels.map((label): ReadonlyArray<Walk> => [
      { table: "host_name_label", where: [sql`label = ${HostRows.labelText(label)}`] }
    ])
    // All names, with nothing to narrow them down, are never less than those of a label.
    const isNarrow = byZone.every(({ where }) => where.length > 0)
    return byLabel.length === 0 || isNarrow ? [...byLabel, byZone] : byLabel
  }

  /** `count` names of a walk. */
  const names = (walk: ReadonlyArray<Walk>, filter: HostFilter, count: number): Statement.Fragment => {
    const limit = sql.literal(`LIMIT ${count}`)
    const one = ({ distinct, table, where }: Walk) => {
      const all = [...where, ...range(filter)]
      return sql`
        SELECT ${sql.literal(distinct === true ? "DISTINCT " : "")}fqdn AS name FROM ${sql(table)}
        ${all.length === 0 ? sql.literal("") : sql`WHERE ${sql.and(all)}`} ORDER BY fqdn ${limit}`
    }
    if (walk.length === 1) return one(walk[0]!)
    const parts = walk.map((each, i) => sql`SELECT name FROM (${one(each)}) ${sql.literal(`z${i}`)}`)
    const [first, ...rest] = parts
    return rest.reduce<Statement.Fragment>((all, each) => sql`${all} UNION ALL ${each}`, sql`${first!}`)
  }

  const ordered = (walk: ReadonlyArray<Walk>, filter: HostFilter, count: number) =>
    walk.length === 1
      ? names(walk, filter, count)
      : sql`SELECT name FROM (${names(walk, filter, count)}) z ORDER BY name ${sql.literal(`LIMIT ${count}`)}`

  /** The walk that leaves least, as far as `max` tells. */
  const shortest = Effect.fnUntraced(function* (filter: HostFilter, isPast: boolean, max: number) {
    const possible = walks(filter, isPast)
    if (possible.length === 1) return possible[0]!
    let best = possible[0]!
    let least = Infinity
    for (const walk of possible) {
      const enough = Math.min(max, least)
      const [row] = yield* sql<{ readonly names: number | bigint }>`
        SELECT COUNT(*) AS names FROM (${ordered(walk, filter, enough)}) n`
      const found = Number(row!.names)
      if (found < least) {
        best = walk
        least = found
      }
      if (least === 0) break
    }
    return best
  })

  const list = Effect.fnUntraced(function* <Row extends NamedRow, A>(
    filter: HostFilter,
    options: Looking<Row, A>
  ): Effect.fn.Return<HostsFound<A>, SqlError.SqlError> {
    const { has, labels = [], limit, zone, zones } = filter
    if (zones?.length === 0 || (zone !== undefined && zones?.includes(zone) === false)) {
      return { hosts: [], next: undefined }
    }
    const { isPast, lookUp, max, read } = options
    const walk = yield* shortest(filter, isPast, max)
    const wanted = has === undefined ? limit + 1 : Math.max(limit + 1, unseenRowsMax)
    // Where the index answers all that is asked, each name in it is one that is wanted.
    const isWhole = zones === undefined || zone !== undefined || zones.length <= zonesWalkedMax
    const isExact = isWhole && labels.length === 0 && walk.every(({ table }) => table === "host")
    const count = isExact ? wanted : max
    const where = conditions(filter)
    const rows = yield* sql<Row>`${lookUp(
      ordered(walk, filter, count),
      where.length === 0 ? sql.literal("") : sql`AND ${sql.and(where)}`
    )} ORDER BY name ${sql.literal(`LIMIT ${wanted}`)}`
    const seen = has === undefined ? rows : rows.filter(({ fqdn, zone }) => has({ zone, name: fqdn }))
    const hosts = seen.slice(0, limit)
    if (seen.length > limit) return { hosts: hosts.map(read), next: hosts.at(-1)!.fqdn }
    if (rows.length === wanted) return { hosts: hosts.map(read), next: rows.at(-1)!.fqdn }
    if (isExact) return { hosts: hosts.map(read), next: undefined }
    // Whether that was all, or only as far as we look at once.
    const [last] = yield* sql<{ readonly name: DomainName }>`
      SELECT name FROM (${ordered(walk, filter, max)}) n ORDER BY name ${sql.literal(`LIMIT 1 OFFSET ${max - 1}`)}`
    return { hosts: hosts.map(read), next: last?.name }
  })

  const columns = sql.literal(HostRows.columns)
  const versionColumns = sql.literal(HostRows.versionColumns)

  /** Hosts as they are. */
  const present = (filter: HostFilter): Effect.Effect<HostsFound<Host>, SqlError.SqlError> =>
    list<HostRows.HostRow, Host>(filter, {
      isPast: false,
      max: scanRowsMax.present,
      read: HostRows.toHost,
      // Name by name, and not the other way around: then reading ends with the page.
      lookUp: (names, where) =>
        sql.onDialectOrElse({
          pg: () => sql`
            SELECT n.name, h.* FROM (${names}) n
            CROSS JOIN LATERAL (SELECT ${columns} FROM host WHERE fqdn = n.name ${where} LIMIT 1) h`,
          orElse: () => sql`SELECT name, ${columns} FROM (${names}) n CROSS JOIN host WHERE fqdn = n.name ${where}`
        })
    })

  /** Hosts as they were at a time: of each name the newest version of before. */
  const past = (filter: HostFilter, atMillis: number): Effect.Effect<HostsFound<HostVersion>, SqlError.SqlError> =>
    list<HostRows.VersionRow, HostVersion>(filter, {
      isPast: true,
      max: scanRowsMax.past,
      read: HostRows.toVersion,
      lookUp: (names, where) =>
        sql.onDialectOrElse({
          pg: () => sql`
            SELECT n.name, h.* FROM (${names}) n
            CROSS JOIN LATERAL (
              SELECT ${versionColumns} FROM host_history
              WHERE fqdn = n.name AND valid_from <= ${atMillis} ${HostRows.reaching(sql, atMillis)}
              ORDER BY valid_from DESC, sequence DESC LIMIT 1
            ) h WHERE event <> 'released' ${where}`,
          orElse: () => sql`
            SELECT name, ${versionColumns} FROM (${names}) n CROSS JOIN host_history
            WHERE sequence = (
              SELECT v.sequence FROM host_history v WHERE v.fqdn = n.name AND v.valid_from <= ${atMillis}
              ORDER BY v.valid_from DESC, v.sequence DESC LIMIT 1
            ) AND event <> 'released' ${where}`
        })
    })

  return { present, past }
}
