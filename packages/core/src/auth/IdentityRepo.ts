/**
 * The statements of `Identities`, which decides and holds the transaction
 * open.
 */
import { Effect } from "effect"
import type { SqlClient, Statement } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { asList, asTable } from "../storage/Rows.ts"
import * as Grants from "./Grants.ts"
import type { Grant } from "./Principal.ts"

/** A key that was enrolled, and what its holder may claim. Times are milliseconds since 1970. */
export interface Identity {
  /** The name of its principal: `i-` and 16 characters of a-z2-7. */
  readonly id: string
  readonly publicKey: string
  readonly grant: Grant
  /** The name of the token that it was enrolled with. */
  readonly enrolledBy: string
  readonly enrolledAtMillis: number
  readonly rotatedAtMillis: number | undefined
  /** Exact to within the flush interval. */
  readonly lastUsedMillis: number | undefined
  readonly revokedAtMillis: number | undefined
  readonly revokedReason: string | undefined
}

export const identityStates = ["active", "revoked"] as const
export type IdentityState = (typeof identityStates)[number]

export interface IdentityFilter {
  readonly state?: IdentityState | undefined
  /** Only those that were enrolled with the token of this name. */
  readonly enrolledBy?: string | undefined
}

interface IdentityRow {
  readonly id: string
  readonly public_key: string
  readonly grants: string
  readonly enrolled_by: string
  readonly enrolled_at: number | bigint
  readonly rotated_at: number | bigint | null
  readonly last_used: number | bigint | null
  readonly revoked_at: number | bigint | null
  readonly revoked_reason: string | null
}

const optional = (value: number | bigint | null): number | undefined => (value === null ? undefined : Number(value))

const toIdentity = (row: IdentityRow): Identity => ({
  id: row.id,
  publicKey: row.public_key,
  grant: Grants.decode(row.grants),
  enrolledBy: row.enrolled_by,
  enrolledAtMillis: Number(row.enrolled_at),
  rotatedAtMillis: optional(row.rotated_at),
  lastUsedMillis: optional(row.last_used),
  revokedAtMillis: optional(row.revoked_at),
  revokedReason: row.revoked_reason ?? undefined
})

export const make = (sql: SqlClient.SqlClient) => {
  const columns = sql.literal(
    "id, public_key, grants, enrolled_by, enrolled_at, rotated_at, last_used, revoked_at, revoked_reason"
  )
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))

  const findOne = (condition: Statement.Fragment, lock: Statement.Fragment = sql.literal("")) =>
    Effect.map(sql<IdentityRow>`SELECT ${columns} FROM identity WHERE ${condition} ${lock}`, (rows) =>
      rows[0] === undefined ? undefined : toIdentity(rows[0])
    )

  const insert = (identity: Identity) => sql`
    INSERT INTO identity (${columns}) VALUES (
      ${identity.id}, ${identity.publicKey}, ${Grants.encode(identity.grant)}, ${identity.enrolledBy},
      ${identity.enrolledAtMillis}, NULL, NULL, NULL, NULL)`

  /** True when an identity had this key before it was replaced. */
  const isFormer = (publicKey: string) =>
    Effect.map(
      sql`SELECT public_key FROM identity_former_key WHERE public_key = ${publicKey}`,
      (rows) => rows.length > 0
    )

  const replaceKey = Effect.fnUntraced(function* (before: Identity, publicKey: string, nowMillis: number) {
    yield* sql`
      INSERT INTO identity_former_key (public_key, identity, replaced_at)
      VALUES (${before.publicKey}, ${before.id}, ${nowMillis})`
    yield* sql`UPDATE identity SET public_key = ${publicKey}, rotated_at = ${nowMillis} WHERE id = ${before.id}`
    return { ...before, publicKey, rotatedAtMillis: nowMillis }
  })

  /** Revokes an identity that is not revoked; what it is then. */
  const revoke = (id: string, reason: string, nowMillis: number) =>
    Effect.map(
      sql<IdentityRow>`
        UPDATE identity SET revoked_at = ${nowMillis}, revoked_reason = ${reason}
        WHERE id = ${id} AND revoked_at IS NULL RETURNING ${columns}`,
      (rows) => (rows[0] === undefined ? undefined : toIdentity(rows[0]))
    )

  /** Moves the last use of identities forward, never back. */
  const flushUsed = (used: ReadonlyArray<{ readonly id: string; readonly at: number }>) => sql`
    UPDATE identity SET
      last_used = CASE WHEN last_used IS NULL OR last_used < r.at THEN r.at ELSE last_used END
    FROM ${asTable(sql, "r", { id: "text", at: "bigint" }, used)} WHERE identity.id = r.id`

  const list = (filter: IdentityFilter, after: string, limit: number) => {
    const conditions = [
      sql`id > ${after}`,
      filter.state === undefined
        ? undefined
        : filter.state === "active"
          ? sql`revoked_at IS NULL`
          : sql`revoked_at IS NOT NULL`,
      filter.enrolledBy === undefined ? undefined : sql`enrolled_by = ${filter.enrolledBy}`
    ].filter((condition) => condition !== undefined)
    return Effect.map(
      sql<IdentityRow>`
        SELECT ${columns} FROM identity WHERE ${sql.and(conditions)} ORDER BY id LIMIT ${limit}`,
      (rows) => rows.map(toIdentity)
    )
  }

  /** How many hosts each of these owners has. */
  const countHosts = (owners: ReadonlyArray<string>) =>
    Effect.map(
      sql<{ readonly owner: string; readonly hosts: number | bigint }>`
        SELECT owner, COUNT(*) AS hosts FROM host WHERE owner IN ${asList(sql, owners)} GROUP BY owner`,
      (rows): ReadonlyMap<string, number> => new Map(rows.map(({ hosts, owner }) => [owner, Number(hosts)]))
    )

  const count = Effect.map(
    sql<{ readonly revoked: number | bigint; readonly all: number | bigint }>`
      SELECT COUNT(revoked_at) AS revoked, COUNT(*) AS "all" FROM identity`,
    (rows) => ({ revoked: Number(rows[0]!.revoked), active: Number(rows[0]!.all) - Number(rows[0]!.revoked) })
  )

  /** Those revoked since then, the latest first. */
  const revokedSince = (sinceMillis: number, limit: number) =>
    Effect.map(
      sql<{ readonly id: string }>`
        SELECT id FROM identity WHERE revoked_at > ${sinceMillis} ORDER BY revoked_at DESC LIMIT ${limit}`,
      (rows) => rows.map(({ id }) => id)
    )

  return {
    insert,
    revokedSince,
    isFormer,
    replaceKey,
    revoke,
    flushUsed,
    list,
    countHosts,
    count,
    find: (id: string) => findOne(sql`id = ${id}`),
    findByKey: (publicKey: string) => findOne(sql`public_key = ${publicKey}`),
    lock: (id: string) => findOne(sql`id = ${id}`, forUpdate),
    lockByKey: (publicKey: string) => findOne(sql`public_key = ${publicKey}`, forUpdate),
    /** Names of an owner's hosts, in order. */
    hostsOf: (owner: string, limit: number) =>
      Effect.map(
        sql<{ readonly fqdn: DomainName }>`SELECT fqdn FROM host WHERE owner = ${owner} ORDER BY fqdn LIMIT ${limit}`,
        (rows) => rows.map(({ fqdn }) => fqdn)
      )
  }
}
