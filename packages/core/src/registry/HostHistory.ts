/**
 * What hosts were: each change of a host leaves a version, with the range of
 * time in which it was true, and any list or host can be read as of a time.
 *
 * Beats are no changes and leave nothing, so when a host was last seen at some
 * time is not known; and of two hosts that had one name, the later one is taken
 * for that name at a time that both claim, which only a clock that was set back
 * can bring about.
 */
import { Context, Effect, Layer, Option } from "effect"
import { SqlClient, type SqlError, type Statement } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { asTable } from "../storage/Rows.ts"
import * as HistoryRetention from "./HistoryRetention.ts"
import * as HostLists from "./HostLists.ts"
import * as HostRows from "./HostRows.ts"
import type { HostVersion } from "./HostRows.ts"

export type { HostVersion } from "./HostRows.ts"

/** A host by its id, or whoever has, or had, a name. */
export type HostReference =
  | { readonly _tag: "Id"; readonly id: string }
  | { readonly _tag: "Name"; readonly fqdn: DomainName }

/** Where a list of versions stands. */
export interface VersionPlace {
  readonly fromMillis: number
  readonly sequence: number
}

/** A version with its place among those of its host or name. */
export interface PlacedVersion extends HostVersion {
  readonly place: VersionPlace
}

/** Who made a version, as the audit has it. */
export interface VersionChange {
  readonly actor: string
  readonly peer: string | undefined
  readonly reason: string | undefined
  readonly cause: string | undefined
  readonly request: string | undefined
  /** In the audit log; undefined while the entry waits to be sealed. */
  readonly position: number | undefined
}

interface ChangeRow {
  readonly subject: DomainName
  readonly generation: number | bigint
  readonly action: string
  readonly actor: string
  readonly peer: string | null
  readonly reason: string | null
  readonly cause: string | null
  readonly request: string | null
  readonly position: number | bigint | null
}

export class HostHistory extends Context.Service<
  HostHistory,
  {
    /** From when on all that hosts were is known, as far as retention goes; 0: it has taken nothing. */
    readonly knownSince: Effect.Effect<number, SqlError.SqlError>
    /** Hosts in the order of their names, as they were then. */
    readonly list: (
      filter: HostLists.HostFilter,
      atMillis: number
    ) => Effect.Effect<HostLists.HostsFound<HostVersion>, SqlError.SqlError>
    /** The newest version of before: one whose event is `released` says that there was none then. */
    readonly find: (
      reference: HostReference,
      atMillis: number
    ) => Effect.Effect<Option.Option<HostVersion>, SqlError.SqlError>
    /** The versions of a host, or of all hosts that had a name, the newest first. */
    readonly versions: (
      reference: HostReference,
      options: { readonly before?: VersionPlace | undefined; readonly limit: number }
    ) => Effect.Effect<ReadonlyArray<PlacedVersion>, SqlError.SqlError>
    /** Who made each of these; undefined where retention has taken the audit's entry. In the same order. */
    readonly changes: (
      versions: ReadonlyArray<HostVersion>
    ) => Effect.Effect<ReadonlyArray<VersionChange | undefined>, SqlError.SqlError>
  }
>()("@prism-dns/core/registry/HostHistory") {
  static readonly layer = Layer.effect(
    HostHistory,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const columns = sql.literal(HostRows.versionColumns)
      const of = (reference: HostReference) =>
        reference._tag === "Id" ? sql`host_id = ${reference.id}` : sql`fqdn = ${reference.fqdn}`

      const newest = (reference: HostReference, atMillis: number, reaching: Statement.Fragment) =>
        Effect.map(
          sql<HostRows.VersionRow>`
            SELECT ${columns} FROM host_history WHERE ${of(reference)} AND valid_from <= ${atMillis} ${reaching}
            ORDER BY valid_from DESC, sequence DESC LIMIT 1`,
          (rows) => Option.map(Option.fromNullishOr(rows[0]), HostRows.toVersion)
        )

      const anywhere = sql.literal("")

      const find: HostHistory["Service"]["find"] = Effect.fnUntraced(function* (reference, atMillis) {
        const reaching = HostRows.reaching(sql, atMillis)
        const found = yield* newest(reference, atMillis, reaching)
        // Where all that was ended long before: how it did.
        const isAll = sql.onDialectOrElse({ pg: () => false, orElse: () => true })
        return Option.isSome(found) || isAll ? found : yield* newest(reference, atMillis, anywhere)
      })

      const versions: HostHistory["Service"]["versions"] = (reference, { before, limit }) =>
        Effect.map(
          sql<HostRows.VersionRow>`
            SELECT ${columns} FROM host_history WHERE ${of(reference)} ${
              before === undefined
                ? sql.literal("")
                : sql`AND (valid_from, sequence) < (${before.fromMillis}, ${before.sequence})`
            } ORDER BY valid_from DESC, sequence DESC LIMIT ${limit}`,
          (rows) =>
            rows.map((row) => ({
              ...HostRows.toVersion(row),
              place: { fromMillis: Number(row.valid_from), sequence: Number(row.sequence) }
            }))
        )

      const keyOf = (subject: string, generation: number | bigint, action: string) =>
        `${subject} ${generation} ${action}`

      const changes: HostHistory["Service"]["changes"] = Effect.fnUntraced(function* (versions) {
        const rows = versions.map(({ event, fqdn, generation }) => ({
          subject: fqdn,
          generation,
          action: `host.${event}`
        }))
        const asked = (some: typeof rows) =>
          asTable(sql, "r", { subject: "text", generation: "bigint", action: "text" }, some)
        const columns = sql.literal("subject, generation, action, actor, peer, reason, cause, request")
        // One probe of the index for each.
        const sealed = yield* sql<ChangeRow>`
          SELECT position, ${columns} FROM audit_log WHERE position IN (
            SELECT (
              SELECT l.position FROM audit_log l
              WHERE l.subject = r.subject AND l.generation = r.generation AND l.action = r.action LIMIT 1
            ) FROM ${asked(rows)})`
        const found = new Map(sealed.map((row) => [keyOf(row.subject, row.generation, row.action), row]))
        const missing = rows.filter((row) => !found.has(keyOf(row.subject, row.generation, row.action)))
        // What has committed a moment ago is not sealed yet.
        const unsealed =
          missing.length === 0
            ? []
            : yield* sql<ChangeRow>`
                SELECT NULL AS position, ${columns} FROM audit_entry WHERE (subject, generation, action) IN (
                  SELECT subject, generation, action FROM ${asked(missing)})`
        for (const row of unsealed) found.set(keyOf(row.subject, row.generation, row.action), row)
        return rows.map((row): VersionChange | undefined => {
          const change = found.get(keyOf(row.subject, row.generation, row.action))
          return change === undefined
            ? undefined
            : {
                actor: change.actor,
                peer: change.peer ?? undefined,
                reason: change.reason ?? undefined,
                cause: change.cause ?? undefined,
                request: change.request ?? undefined,
                position: change.position === null ? undefined : Number(change.position)
              }
        })
      })

      return HostHistory.of({
        knownSince: HistoryRetention.startOf(sql),
        changes: Effect.fn("HostHistory.changes")(changes),
        list: Effect.fn("HostHistory.list")(HostLists.make(sql).past),
        find: Effect.fn("HostHistory.find")(find),
        versions: Effect.fn("HostHistory.versions")(versions)
      })
    })
  )
}
