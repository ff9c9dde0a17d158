/**
 * Another try for names that are parked, by a person's word.
 *
 * Promises: names that a plan holds back are left to that plan; a name comes
 * back at the generation it has; each has an entry in the audit. Transactions
 * are those of a page, however many names there are. Leaves to others: parking
 * (`dns/Outbox`, `dns/DnsManager`).
 */
import { Clock, Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { integer } from "../storage/Rows.ts"
import { Outbox } from "./Outbox.ts"

/** Names in one transaction at the most. */
const pageSize = 1000

interface RetriedRow {
  readonly zone: DomainName
  readonly name: DomainName
  readonly generation: number | bigint
}

export class Parked extends Context.Service<
  Parked,
  {
    /** Tries parked names again, those of a zone or one name where said; returns how many. With `dryRun` they are only counted. */
    readonly retry: (options: {
      readonly zone?: DomainName | undefined
      readonly name?: DomainName | undefined
      readonly actor: Audit.Actor
      readonly dryRun?: boolean | undefined
    }) => Effect.Effect<number, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Parked") {
  static readonly layer = Layer.effect(
    Parked,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
      return Parked.of({
        retry: Effect.fn("Parked.retry")(function* ({ actor, dryRun, name, zone }) {
          const nowMillis = yield* Clock.currentTimeMillis
          const wanted = sql.and([
            // What is parked anew meanwhile had its try.
            sql`parked_at <= ${nowMillis} AND plan IS NULL`,
            ...(zone === undefined ? [] : [sql`zone = ${zone}`]),
            ...(name === undefined ? [] : [sql`name = ${name}`])
          ])
          if (dryRun === true) {
            const [row] = yield* sql<{ readonly names: number | bigint }>`
              SELECT COUNT(*) AS names FROM outbox WHERE ${wanted}`
            return Number(row!.names)
          }
          const page = Effect.gen(function* () {
            const rows = yield* sql<RetriedRow>`
              UPDATE outbox SET parked_at = NULL, parked_reason = NULL, marked_at = ${integer(sql, nowMillis)}
              WHERE (zone, name) IN (
                SELECT zone, name FROM outbox WHERE ${wanted} ORDER BY zone, name LIMIT ${pageSize} ${forUpdate})
              RETURNING zone, name, generation`
            yield* Audit.writeAll(
              sql,
              rows.map((row) => ({
                actor,
                action: "publication.retried",
                zone: row.zone,
                subject: row.name,
                generation: Number(row.generation),
                cause: `generation:${row.generation}`
              })),
              nowMillis
            )
            return rows
          }).pipe(sql.withTransaction)
          for (let total = 0; ;) {
            const rows = yield* page
            yield* outbox.wake(new Set(rows.map((row) => row.zone)))
            total += rows.length
            if (rows.length < pageSize) return total
          }
        })
      })
    })
  )
}
