/**
 * The statements of `Tokens`, which decides and holds the transaction open.
 */
import { Effect } from "effect"
import type { SqlClient, Statement } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { asTable } from "../storage/Rows.ts"
import * as Grants from "./Grants.ts"
import type { Grant } from "./Principal.ts"

/** Where it is shown: `agent` at the agents' port and the API, `admin` at the API alone. */
export type TokenRole = "agent" | "admin"
/** What a token is shown for: to speak as its holder, or to enrol a key. */
export type TokenUse = "bearer" | "enrol"

/** All that is kept of a token: not its text. Times are milliseconds since 1970. */
export interface TokenRecord {
  /** Undefined for a token of the configuration. */
  readonly id: string | undefined
  readonly name: string
  readonly role: TokenRole
  /** Names of the roles that say what its holder may do by the API, within the zones and names of its grant. */
  readonly roles: ReadonlyArray<string>
  readonly allows: TokenUse | "both"
  readonly grant: Grant
  /** The one name that it enrols for, taking it over from whoever holds it. */
  readonly host: DomainName | undefined
  readonly origin: "configuration" | "registry"
  /** Enrolments at the most; undefined: as many as one likes. */
  readonly usesMax: number | undefined
  /** Enrolments so far; those by a token of the configuration are counted from the start of the server. */
  readonly uses: number
  readonly createdAtMillis: number | undefined
  readonly createdBy: string | undefined
  readonly expiresAtMillis: number | undefined
  /** Exact to within the flush interval; of a token of the configuration since the start of the server. */
  readonly lastUsedMillis: number | undefined
  readonly revokedAtMillis: number | undefined
  readonly revokedReason: string | undefined
  /** Of its last change; 0 for a token of the configuration. */
  readonly generation: number
}

interface TokenRow {
  readonly id: string
  readonly name: string
  readonly hash: string
  readonly role: TokenRole
  readonly allows: TokenUse | "both"
  readonly grants: string
  readonly host: DomainName | null
  readonly uses_max: number | bigint | null
  readonly uses: number | bigint
  readonly created_at: number | bigint
  readonly created_by: string
  readonly expires_at: number | bigint | null
  readonly last_used: number | bigint | null
  readonly revoked_at: number | bigint | null
  readonly revoked_reason: string | null
  readonly roles: string | null
  readonly generation: number | bigint
}

const optional = (value: number | bigint | null): number | undefined => (value === null ? undefined : Number(value))

const toRecord = (row: TokenRow): TokenRecord & { readonly id: string } => ({
  id: row.id,
  name: row.name,
  role: row.role,
  roles: row.roles === null ? [row.role] : JSON.parse(row.roles),
  allows: row.allows,
  grant: Grants.decode(row.grants),
  host: row.host ?? undefined,
  origin: "registry",
  usesMax: optional(row.uses_max),
  uses: Number(row.uses),
  createdAtMillis: Number(row.created_at),
  createdBy: row.created_by,
  expiresAtMillis: optional(row.expires_at),
  lastUsedMillis: optional(row.last_used),
  revokedAtMillis: optional(row.revoked_at),
  revokedReason: row.revoked_reason ?? undefined,
  generation: Number(row.generation)
})

export const make = (sql: SqlClient.SqlClient) => {
  const columns = sql.literal(
    "id, name, hash, role, allows, grants, host, uses_max, uses, created_at, created_by, expires_at, last_used, revoked_at, revoked_reason, roles, generation"
  )
  // In the order of bytes, whatever the locale of the database: pages are joined with the tokens of the configuration.
  const byName = sql.literal(sql.onDialectOrElse({ pg: () => 'name COLLATE "C"', orElse: () => "name" }))

  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))

  const select = (condition: Statement.Fragment, lock: Statement.Fragment = sql.literal("")) =>
    Effect.map(sql<TokenRow>`SELECT ${columns} FROM access_token WHERE ${condition} ${lock}`, (rows) =>
      rows.map(toRecord)
    )

  const found = <A extends { readonly id: string }, E>(reference: string, rows: Effect.Effect<ReadonlyArray<A>, E>) =>
    Effect.map(rows, (all) => all.find(({ id }) => id === reference) ?? all[0])

  /** Tokens that are good, or were until after `sinceMillis`, each with the hash of its text. */
  const recent = (sinceMillis: number) =>
    Effect.map(
      sql<TokenRow>`
        SELECT ${columns} FROM access_token
        WHERE (revoked_at IS NULL OR revoked_at > ${sinceMillis}) AND (expires_at IS NULL OR expires_at > ${sinceMillis})
          AND (uses_max IS NULL OR uses < uses_max OR last_used > ${sinceMillis})`,
      (rows) => rows.map((row) => ({ hash: row.hash, record: toRecord(row) }))
    )

  const insert = (record: TokenRecord & { readonly id: string }, hash: string) => sql`
    INSERT INTO access_token (${columns}) VALUES (
      ${record.id}, ${record.name}, ${hash}, ${record.role}, ${record.allows}, ${Grants.encode(record.grant)},
      ${record.host ?? null}, ${record.usesMax ?? null}, ${record.uses}, ${record.createdAtMillis ?? 0},
      ${record.createdBy ?? ""}, ${record.expiresAtMillis ?? null}, NULL, NULL, NULL, ${JSON.stringify(record.roles)},
      ${record.generation})`

  /** Counts one enrolment, unless the token allows none any more; true when it was counted. */
  const countUse = (id: string, nowMillis: number) =>
    Effect.map(
      sql`
        UPDATE access_token SET uses = uses + 1, last_used = ${nowMillis}
        WHERE id = ${id} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${nowMillis})
          AND (uses_max IS NULL OR uses < uses_max) RETURNING id`,
      (rows) => rows.length > 0
    )

  /** Revokes a token that is not revoked; what it is then, and the hash of its text. */
  const revoke = (id: string, reason: string, nowMillis: number, generation: number) =>
    Effect.map(
      sql<TokenRow>`
        UPDATE access_token SET revoked_at = ${nowMillis}, revoked_reason = ${reason}, generation = ${generation}
        WHERE id = ${id} AND revoked_at IS NULL RETURNING ${columns}`,
      (rows) => (rows[0] === undefined ? undefined : { hash: rows[0].hash, record: toRecord(rows[0]) })
    )

  /** What the token is once its roles, its grant and its end are those of `after`, and the hash of its text. */
  const change = (after: TokenRecord & { readonly id: string }) =>
    Effect.map(
      sql<TokenRow>`
        UPDATE access_token SET roles = ${JSON.stringify(after.roles)}, grants = ${Grants.encode(after.grant)},
          expires_at = ${after.expiresAtMillis ?? null}, generation = ${after.generation}
        WHERE id = ${after.id} RETURNING ${columns}`,
      (rows) => ({ hash: rows[0]!.hash, record: toRecord(rows[0]!) })
    )

  /** Moves the last use of tokens forward, never back. */
  const flushUsed = (used: ReadonlyArray<{ readonly id: string; readonly at: number }>) => sql`
    UPDATE access_token SET
      last_used = CASE WHEN last_used IS NULL OR last_used < r.at THEN r.at ELSE last_used END
    FROM ${asTable(sql, "r", { id: "text", at: "bigint" }, used)} WHERE access_token.id = r.id`

  return {
    recent,
    insert,
    countUse,
    revoke,
    change,
    flushUsed,
    /** By id, or else by name. */
    find: (reference: string) => found(reference, select(sql`id = ${reference} OR name = ${reference}`)),
    /** The same, until the transaction ends nobody else's to change. */
    lock: (reference: string) => found(reference, select(sql`id = ${reference} OR name = ${reference}`, forUpdate)),
    /** Whether there is a good token for the API that has the role. */
    hasGood: (role: string, nowMillis: number) =>
      Effect.map(
        select(sql`role = 'admin' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${nowMillis})`),
        (rows) => rows.some(({ roles }) => roles.includes(role))
      ),
    /** In the order of their names. */
    list: (after: string, limit: number) => select(sql`${byName} > ${after} ORDER BY ${byName} LIMIT ${limit}`)
  }
}
