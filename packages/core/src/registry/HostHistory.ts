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
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
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

export class HostHistory extends Context.Service<
  HostHistory,
  {
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
  }
>()("@prism-dns/core/registry/HostHistory") {
  static readonly layer = Layer.effect(
    HostHistory,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const columns = sql.literal(HostRows.versionColumns)
      const of = (reference: HostReference) =>
        reference._tag === "Id" ? sql`host_id = ${reference.id}` : sql`fqdn = ${reference.fqdn}`

      const find: HostHistory["Service"]["find"] = (reference, atMillis) =>
        Effect.map(
          sql<HostRows.VersionRow>`
            SELECT ${columns} FROM host_history WHERE ${of(reference)} AND valid_from <= ${atMillis}
            ORDER BY valid_from DESC, sequence DESC LIMIT 1`,
          (rows) => Option.map(Option.fromNullishOr(rows[0]), HostRows.toVersion)
        )

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

      return HostHistory.of({
        list: Effect.fn("HostHistory.list")(HostLists.make(sql).past),
        find: Effect.fn("HostHistory.find")(find),
        versions: Effect.fn("HostHistory.versions")(versions)
      })
    })
  )
}
