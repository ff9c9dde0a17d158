/**
 * For what says zones by their names and is to go with them, such as grants and
 * roles: it is written in time for the removal of such a zone to see it, or the
 * zone has gone and it is not written.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import * as Turns from "../audit/Turns.ts"
import type { Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"

/**
 * In a transaction that has written such a thing, before its audit entry: shares the turns of the zones and gives the first
 * that is not there any more. Whoever removes one has its turn alone (`registry/ManagedZones`).
 */
export const hold = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  zones: Zones["Service"],
  names: ReadonlyArray<DomainName>
) {
  if (names.length === 0) return undefined
  yield* Turns.share(sql, names)
  yield* Effect.catchTag(zones.verify(zones.version), "ZonesMoved", () => zones.reload)
  return names.find((name) => zones.find(name) === undefined)
})
