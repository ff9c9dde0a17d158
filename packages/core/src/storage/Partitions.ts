/**
 * Partitions of PostgreSQL's tables of what was: `audit_log` by ranges of
 * positions, `host_history` by when a version ended, with what is true in a
 * partition of its own.
 *
 * Promises: a row that no partition was made for goes to the table's rest, and
 * is moved into the partition once there is one; two servers that make the same
 * one make it once; nobody waits behind us for a lock longer than `lockMillis`.
 * One that is made needs the rest to itself for a moment, one that is dropped the
 * whole table. Leaves to others: which are made (`storage/PartitionsAhead`) and which
 * go (`audit/Retention`, `registry/HistoryRetention`). SQLite has no partitions.
 */
import { Effect } from "effect"
import type { SqlClient, SqlError, Statement } from "effect/sql"

export const dayMillis = 86_400_000

/** How much time one partition may be made for. Each is a multiple of the one before, and all begin with 1970. */
const spans = [dayMillis, 7 * dayMillis, 28 * dayMillis] as const

const longestSpan = spans[2]

/** What is kept for so long has four partitions or more: what goes by whole ones goes at most a quarter late. */
const partitionsMin = 4

/** How much time one partition is for where rows are kept for `keepMillis`; 0: for ever. */
export const spanFor = (keepMillis: number): number =>
  keepMillis === 0 ? longestSpan : (spans.findLast((span) => span * partitionsMin <= keepMillis) ?? spans[0])

export const floorTo = (span: number, millis: number): number => Math.floor(millis / span) * span

/** No later than the partition of that time begins, whatever spans partitions were made for. */
export const reachOf = (atMillis: number): number => floorTo(longestSpan, atMillis)

/** When a version of a host ended, as PostgreSQL's partitions are made by it: open ones end last. */
export const ended = "COALESCE(valid_to, 9223372036854775807)"

/** That a version is open, for PostgreSQL's statements: then they look at what is open alone. */
export const isOpen = `${ended} = 9223372036854775807`

/** How long we wait for a lock, and others behind us, in milliseconds; then it is given up, and tried again later. */
const lockMillis = 500

/** The number of the lock under which partitions are made and dropped; any will do, as long as it stays. */
const partitionLock = 7_001_004

interface Table {
  readonly name: "audit_log" | "host_history"
  /** Where rows go that no partition was made for. */
  readonly rest: "audit_log_rest" | "host_history_rest"
  readonly key: "position" | "valid_to"
}

export const auditLog: Table = { name: "audit_log", rest: "audit_log_rest", key: "position" }

export const hostHistory: Table = { name: "host_history", rest: "host_history_rest", key: "valid_to" }

export interface Range {
  /** `-Infinity`: from the beginning. */
  readonly from: number
  /** The first that is not in it. */
  readonly to: number
}

export interface Partition extends Range {
  readonly name: string
}

const boundsPattern = /^FOR VALUES FROM \((?:MINVALUE|'?(-?\d+)'?)\) TO \('?(-?\d+)'?\)$/

/** What PostgreSQL says of a partition's bounds; undefined: of the rest, and of what is open. */
export const rangeOf = (bounds: string): Range | undefined => {
  const found = boundsPattern.exec(bounds)
  return found === null
    ? undefined
    : { from: found[1] === undefined ? -Infinity : Number(found[1]), to: Number(found[2]) }
}

/** The partitions of a table, in order, without the rest and what is open; on SQLite none. */
export const list = (
  sql: SqlClient.SqlClient,
  table: Table
): Effect.Effect<ReadonlyArray<Partition>, SqlError.SqlError> =>
  sql.onDialectOrElse({
    pg: () =>
      Effect.map(
        sql<{ readonly name: string; readonly bounds: string }>`
          SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(${table.name})`,
        (rows) =>
          rows
            .flatMap(({ bounds, name }): ReadonlyArray<Partition> => {
              const range = rangeOf(bounds)
              return range === undefined ? [] : [{ name, ...range }]
            })
            .sort((a, b) => a.to - b.to)
      ),
    orElse: () => Effect.succeed([])
  })

/** Rather than wait, and have all others wait behind us, it is done another time. */
const hurry = (sql: SqlClient.SqlClient) => sql.unsafe(`SET LOCAL lock_timeout = ${lockMillis}`)

const alone = (sql: SqlClient.SqlClient) => sql`SELECT pg_advisory_xact_lock(${partitionLock})`

/**
 * Makes a partition, unless another server has made one there meanwhile, and moves into it what went to the rest. The name is
 * of its beginning. True: it was made.
 */
export const add = (
  sql: SqlClient.SqlClient,
  table: Table,
  { from, to }: Range
): Effect.Effect<boolean, SqlError.SqlError> =>
  Effect.gen(function* () {
    yield* alone(sql)
    yield* hurry(sql)
    const others = yield* list(sql, table)
    if (others.some((other) => other.from < to && from < other.to)) return false
    const parent = sql.literal(table.name)
    const rest = sql.literal(table.rest)
    const key = sql.literal(table.key)
    const name = sql.literal(nameOf(table, from))
    // Not as a partition at once: that would keep everybody from the whole table, and not from the rest alone.
    yield* sql`CREATE TABLE ${name} (LIKE ${rest} INCLUDING DEFAULTS INCLUDING INDEXES)`
    const isRest: Statement.Fragment = sql`${key} >= ${from} AND ${key} < ${to}`
    const [stray] = yield* sql`SELECT 1 FROM ${rest} WHERE ${isRest} LIMIT 1`
    if (stray !== undefined) {
      // Who writes there, or moves what stands there, waits until it is known where that belongs.
      yield* sql`LOCK TABLE ${rest} IN ACCESS EXCLUSIVE MODE`
      yield* sql`
        WITH moved AS (DELETE FROM ${rest} WHERE ${isRest} RETURNING *)
        INSERT INTO ${name} SELECT * FROM moved`
    }
    yield* sql`ALTER TABLE ${parent} ATTACH PARTITION ${name} FOR VALUES FROM (${sql.literal(`${from}`)}) TO (${sql.literal(`${to}`)})`
    return true
  }).pipe(sql.withTransaction)

/** `host_history_20261105`, `audit_log_4000000`. */
const nameOf = (table: Table, from: number): string =>
  table.key === "position"
    ? `audit_log_${from}`
    : `host_history_${new Date(from).toISOString().slice(0, 10).replaceAll("-", "")}`

/** Drops partitions with all that is in them, within the transaction around. */
export const drop = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, partitions: ReadonlyArray<Partition>) {
  if (partitions.length === 0) return
  yield* alone(sql)
  yield* hurry(sql)
  for (const { name } of partitions) yield* sql`DROP TABLE IF EXISTS ${sql(name)}`
})
