/**
 * Another try for names that are parked, by a person's word.
 *
 * Promises: names that a plan holds back are left to that plan; a name comes
 * back at the generation it has. Leaves to others: parking (`dns/Outbox`,
 * `dns/DnsManager`).
 */
import { Clock, Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { integer } from "../storage/Rows.ts"
import { Outbox } from "./Outbox.ts"

export class Parked extends Context.Service<
  Parked,
  {
    /** Tries parked names again, those of a zone or one name where said; returns how many. */
    readonly retry: (options: {
      readonly zone?: DomainName | undefined
      readonly name?: DomainName | undefined
    }) => Effect.Effect<number, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Parked") {
  static readonly layer = Layer.effect(
    Parked,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      return Parked.of({
        retry: Effect.fn("Parked.retry")(function* ({ name, zone }) {
          const nowMillis = yield* Clock.currentTimeMillis
          const rows = yield* sql<{ readonly zone: DomainName }>`
            UPDATE outbox SET parked_at = NULL, parked_reason = NULL, marked_at = ${integer(sql, nowMillis)}
            WHERE ${sql.and([
              sql`parked_at IS NOT NULL AND plan IS NULL`,
              ...(zone === undefined ? [] : [sql`zone = ${zone}`]),
              ...(name === undefined ? [] : [sql`name = ${name}`])
            ])}
            RETURNING zone`
          yield* outbox.wake(new Set(rows.map((row) => row.zone)))
          return rows.length
        })
      })
    })
  )
}
