/**
 * Turns of zones, kept by PostgreSQL until a transaction ends.
 *
 * Whoever writes entries of a zone, or puts something into it, shares its turn
 * with all others who do (`share`): none of them waits for another. Whoever
 * changes or removes the zone has it alone (`close`), and so finds what was put
 * into it, or is found by who comes later.
 *
 * Promises: entries of a zone get their sequences while their writer shares its
 * turn, since the statement that writes them begins with it (`sharing`). So they
 * stand as a whole before what was done to the zone alone, or behind it.
 *
 * Nobody who shares a turn closes it later in the same transaction: two who did
 * would wait for each other. SQLite has one writer, whose turn it always is.
 */
import { Effect } from "effect"
import type { SqlClient, Statement } from "effect/sql"

/** Any number will do, as long as it stays: the first half of the key of PostgreSQL's advisory locks. */
const turnLock = 7_001_002

/** Takes the turns of `zones` by `lock`, in the order of the locks, so that nobody waits for one who waits for it. */
const taking = (sql: SqlClient.SqlClient, lock: string, zones: Iterable<string>): Statement.Fragment => sql`
  SELECT COUNT(${sql.literal(lock)}(${turnLock}, turn)) FROM (
    SELECT DISTINCT hashtext(zone) AS turn
    FROM jsonb_array_elements_text(${JSON.stringify([...new Set(zones)])}::jsonb) AS zones(zone) ORDER BY turn
  ) AS turns`

const shared = "pg_advisory_xact_lock_shared"
const alone = "pg_advisory_xact_lock"

const take = (sql: SqlClient.SqlClient, lock: string, zones: Iterable<string>) =>
  sql.onDialectOrElse({
    pg: () => Effect.asVoid(sql`${taking(sql, lock, zones)}`),
    orElse: () => Effect.void
  })

/** Until the transaction ends nobody changes or removes any of `zones`. Waits for who does. */
export const share = (sql: SqlClient.SqlClient, zones: Iterable<string>) => take(sql, shared, zones)

/** Until the transaction ends nobody puts anything into any of `zones`, or writes entries of them. Waits for who does. */
export const close = (sql: SqlClient.SqlClient, zones: Iterable<string>) => take(sql, alone, zones)

/**
 * The condition of a statement of PostgreSQL that shares the turns of `zones` ("" for what concerns none) before its first
 * row. Who has them already takes them once more, which costs nothing.
 */
export const sharing = (sql: SqlClient.SqlClient, zones: Iterable<string>): Statement.Fragment =>
  sql`(${taking(sql, shared, zones)}) > 0`
