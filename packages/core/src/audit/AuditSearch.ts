/**
 * Looks entries of the audit log up by what is known of them, the newest first.
 *
 * Promises: the work of one page is bounded however long the log is: it walks
 * one index, the one with the fewest entries that come into question, and looks
 * at `scanMax` entries at the most. So a page may be short, or empty, and still
 * say where to go on. The order is that of positions. Times are turned into
 * positions by looking at the entries around them, `disorderMax` of them: where a
 * clock that was wrong has put more entries than that out of order, some may be
 * missed. Where the log has partitions they are walked one by one, the newest
 * first, until the page is full: of all of them at once PostgreSQL may read whole
 * ranges to sort them. Belongs to `AuditLog`.
 */
import { Effect } from "effect"
import type { SqlClient, SqlError, Statement } from "effect/sql"
import * as Partitions from "../storage/Partitions.ts"
import { asList } from "../storage/Rows.ts"
import { columns, type LogEntry, type LogRow, toEntry } from "./Chain.ts"

export interface AuditFilter {
  readonly zone?: string | undefined
  readonly actor?: string | undefined
  /** One of these (`Actions.matching`). */
  readonly actions?: ReadonlyArray<string> | undefined
  readonly subject?: string | undefined
  /** The id of an API request. */
  readonly request?: string | undefined
  readonly result?: string | undefined
  /** Not before. */
  readonly sinceMillis?: number | undefined
  /** Not after. */
  readonly untilMillis?: number | undefined
  /** Only entries of these zones, and none that belongs to no zone; undefined: any. */
  readonly zones?: ReadonlyArray<string> | undefined
}

export interface AuditPage {
  readonly entries: ReadonlyArray<LogEntry>
  /** Where to go on: only entries before this position are left; undefined: none is. */
  readonly before: number | undefined
}

/** Entries that are looked at for one page at the most. */
export const scanMax = 2000

/** Entries around a time that may stand out of its order. */
const disorderMax = 1000

/** Entries that are counted of each index to choose one. */
const probeMax = 1000

/** Values of one column that are walked side by side; of more the whole log is walked. */
const walksMax = 64

type Column = "zone" | "actor" | "action" | "subject" | "request"

/** Entries with one of `values` in `column`. */
interface Walk {
  readonly column: Column
  readonly values: ReadonlyArray<string>
}

const whole: Partitions.Range = { from: -Infinity, to: Infinity }

/** All positions in parts that each lie in one partition, or in none: those that have some between the two, the newest first. */
const partsOf = (
  partitions: ReadonlyArray<Partitions.Range>,
  low: number,
  high: number
): ReadonlyArray<Partitions.Range> => {
  const cuts = [-Infinity, ...new Set(partitions.flatMap(({ from, to }) => [from, to])), Infinity]
  const ends = [...new Set(cuts)].sort((a, b) => a - b)
  return ends
    .flatMap((to, i) => (i === 0 ? [] : [{ from: ends[i - 1]!, to }]))
    .filter(({ from, to }) => from < high && to > low + 1)
    .toReversed()
}

export const make = (sql: SqlClient.SqlClient) => {
  const all = sql.literal(columns)

  const partsBetween = (low: number, high: number) =>
    sql.onDialectOrElse({
      pg: () => Effect.map(Partitions.list(sql, Partitions.auditLog), (partitions) => partsOf(partitions, low, high)),
      orElse: () => Effect.succeed([whole])
    })

  /** In the text, and not as parameters: it is always the same for a partition, and known when the statement is planned. */
  const within = ({ from, to }: Partitions.Range) =>
    sql.literal(
      `${from === -Infinity ? "" : `position >= ${from} AND `}${to === Infinity ? "" : `position < ${to} AND `}`
    )

  /**
   * Entries of a walk between two positions, the newest first. The column stands among what is compared and sorted by, as a
   * pair with the position: so only its index gives them in order, and no planner takes another one.
   */
  const inner = (
    part: Partitions.Range,
    walk: Walk | undefined,
    what: string,
    low: number,
    high: number,
    limit: number
  ): Statement.Fragment => {
    const selected = sql.literal(what)
    if (walk === undefined) {
      return sql`
        SELECT ${selected} FROM audit_log WHERE ${within(part)} position > ${low} AND position < ${high}
        ORDER BY position DESC LIMIT ${limit}`
    }
    const column = sql.literal(walk.column)
    const isThere = sql.literal(walk.column === "request" ? "request IS NOT NULL AND" : "")
    const one = (value: string) => sql`
      SELECT ${selected} FROM audit_log
      WHERE ${within(part)} ${isThere} (${column}, position) > (${value}, ${low}) AND (${column}, position) < (${value}, ${high})
      ORDER BY ${column} DESC, position DESC LIMIT ${limit}`
    if (walk.values.length === 1) return one(walk.values[0]!)
    return walk.values
      .map((value) => sql`SELECT * FROM (${one(value)}) AS one`)
      .reduce((before, next) => sql`${before} UNION ALL ${next}`)
  }

  /** How many entries a walk has between two positions, as far as that is counted. */
  const probe = Effect.fnUntraced(function* (
    parts: ReadonlyArray<Partitions.Range>,
    walk: Walk,
    low: number,
    high: number
  ) {
    let entries = 0
    for (const part of parts) {
      const [row] = yield* sql<{ readonly entries: number | bigint }>`
        SELECT COUNT(*) AS entries FROM (${inner(part, walk, "position", low, high, probeMax)}) AS probed`
      entries += Number(row!.entries)
      if (entries >= probeMax) break
    }
    return entries
  })

  /** The walk with the fewest entries; undefined: the whole log. */
  const choose = Effect.fnUntraced(function* (
    parts: ReadonlyArray<Partitions.Range>,
    filter: AuditFilter,
    low: number,
    high: number
  ) {
    const walk = (column: Column, values: ReadonlyArray<string> | undefined): ReadonlyArray<Walk> =>
      values === undefined || values.length === 0 || values.length > walksMax ? [] : [{ column, values }]
    const value = (text: string | undefined) => (text === undefined ? undefined : [text])
    const walks = [
      ...walk("request", value(filter.request)),
      ...walk("subject", value(filter.subject)),
      ...walk("actor", value(filter.actor)),
      ...walk("action", filter.actions),
      ...walk("zone", value(filter.zone) ?? filter.zones)
    ]
    if (walks.length <= 1) return walks[0]
    let best: { readonly walk: Walk; readonly entries: number } | undefined
    for (const each of walks) {
      const entries = yield* probe(parts, each, low, high)
      if (best === undefined || entries < best.entries) best = { walk: each, entries }
      if (entries === 0) break
    }
    return best?.walk
  })

  /** What of the filter a walk does not say. */
  const rest = (filter: AuditFilter, walk: Walk | undefined): ReadonlyArray<Statement.Fragment> => [
    ...(filter.request !== undefined && walk?.column !== "request" ? [sql`request = ${filter.request}`] : []),
    ...(filter.subject !== undefined && walk?.column !== "subject" ? [sql`subject = ${filter.subject}`] : []),
    ...(filter.actor !== undefined && walk?.column !== "actor" ? [sql`actor = ${filter.actor}`] : []),
    ...(filter.actions !== undefined && walk?.column !== "action"
      ? [sql`action IN ${asList(sql, filter.actions)}`]
      : []),
    ...(filter.zone !== undefined && walk?.column !== "zone" ? [sql`zone = ${filter.zone}`] : []),
    ...(filter.zones !== undefined && !(walk?.column === "zone" && filter.zone === undefined)
      ? [sql`zone IN ${asList(sql, filter.zones)}`]
      : []),
    ...(filter.result !== undefined ? [sql`result = ${filter.result}`] : []),
    ...(filter.sinceMillis !== undefined ? [sql`at >= ${filter.sinceMillis}`] : []),
    ...(filter.untilMillis !== undefined ? [sql`at <= ${filter.untilMillis}`] : [])
  ]

  const positionAround = (which: "MIN" | "MAX", around: Statement.Fragment) =>
    Effect.map(
      sql<{ readonly position: number | bigint | null }>`
        SELECT ${sql.literal(which)}(position) AS position FROM (${around}) AS around`,
      ([row]) => (row?.position == null ? undefined : Number(row.position))
    )

  /** Between which positions entries of the filter's times stand. */
  const boundsOf = Effect.fnUntraced(function* ({ sinceMillis, untilMillis }: AuditFilter) {
    const low =
      sinceMillis === undefined
        ? undefined
        : yield* positionAround(
            "MIN",
            sql`SELECT position FROM audit_log WHERE at < ${sinceMillis} ORDER BY at DESC, position DESC LIMIT ${disorderMax}`
          )
    const high =
      untilMillis === undefined
        ? undefined
        : yield* positionAround(
            "MAX",
            sql`SELECT position FROM audit_log WHERE at > ${untilMillis} ORDER BY at, position LIMIT ${disorderMax}`
          )
    return { low: low ?? 0, high: high ?? Number.MAX_SAFE_INTEGER }
  })

  return Effect.fn("AuditLog.list")(function* (
    filter: AuditFilter,
    page: { readonly before?: number | undefined; readonly limit: number }
  ): Effect.fn.Return<AuditPage, SqlError.SqlError> {
    if (filter.zones?.length === 0 || filter.actions?.length === 0) return { entries: [], before: undefined }
    const bounds = yield* boundsOf(filter)
    const low = bounds.low
    const high = Math.min(bounds.high, page.before ?? Number.MAX_SAFE_INTEGER)
    const parts = yield* partsBetween(low, high)
    const walk = yield* choose(parts, filter, low, high)
    const conditions = rest(filter, walk)
    const entries: Array<LogEntry> = []
    let left = scanMax
    for (const part of parts) {
      const wanted = page.limit + 1 - entries.length
      const scanned = conditions.length === 0 ? wanted : left
      const rows = yield* sql<LogRow>`
        SELECT ${all} FROM (
          SELECT ${all} FROM (${inner(part, walk, columns, low, high, scanned)}) AS walked
          ORDER BY position DESC LIMIT ${scanned}) AS scanned
        WHERE ${sql.and([sql`1 = 1`, ...conditions])} ORDER BY position DESC LIMIT ${wanted}`
      if (rows.length === wanted) {
        entries.push(...rows.slice(0, -1).map(toEntry))
        return { entries, before: entries.at(-1)!.position }
      }
      entries.push(...rows.map(toEntry))
      if (conditions.length === 0) continue
      // There may be more behind what was looked at.
      const [looked] = yield* sql<{ readonly entries: number | bigint; readonly last: number | bigint | null }>`
        SELECT COUNT(*) AS entries, MIN(position) AS last FROM (
          SELECT position FROM (${inner(part, walk, "position", low, high, scanned)}) AS walked
          ORDER BY position DESC LIMIT ${scanned}) AS scanned`
      left -= Number(looked!.entries)
      if (left <= 0) return { entries, before: Number(looked!.last) }
    }
    return { entries, before: undefined }
  })
}
