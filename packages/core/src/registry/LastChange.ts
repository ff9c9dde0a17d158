/** Who changed a host last, and when: by its audit entry, wherever that stands at the moment. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"

export interface LastChange {
  readonly actor: string
  readonly atMillis: number
}

/** The change that gave the host of this name its generation; undefined where retention took the entry. */
export const find = (sql: SqlClient.SqlClient, fqdn: DomainName, generation: number) =>
  Effect.map(
    sql<{ readonly actor: string; readonly at: number | bigint }>`
      SELECT actor, at FROM audit_entry WHERE subject = ${fqdn} AND generation = ${generation}
      UNION ALL SELECT actor, at FROM audit_log WHERE subject = ${fqdn} AND generation = ${generation} LIMIT 1`,
    ([row]): LastChange | undefined => (row === undefined ? undefined : { actor: row.actor, atMillis: Number(row.at) })
  )
