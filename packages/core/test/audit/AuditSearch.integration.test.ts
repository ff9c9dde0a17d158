import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import type { AuditFilter } from "@prism-dns/core/audit/AuditSearch"
import * as Partitions from "@prism-dns/core/storage/Partitions"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { suite } from "./AuditSearchSuite.ts"

const rows = 200_000

/** Many entries, of which few are about any one thing, and some about nearly all. */
const fillMany = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`DROP TABLE audit_log_first, audit_log_1000000`
  for (let from = 1; from < rows; from += rows / 4) {
    yield* Partitions.add(sql, Partitions.auditLog, { from, to: from + rows / 4 })
  }
  yield* sql`
    INSERT INTO audit_log (
      position, sequence, at, actor, action, zone, subject, generation, request, result, hash)
    SELECT n, n, 1700000000000 + n * 100, CASE WHEN n % 1000 = 0 THEN 'ann' ELSE 'prism' END,
      CASE WHEN n % 5 = 0 THEN 'host.created' WHEN n % 50000 = 1 THEN 'token.issued' ELSE 'publication.applied' END,
      CASE WHEN n < ${rows / 100} THEN 'old.test.' ELSE 'hosts.test.' END, 'h' || (n % 20000) || '.hosts.test.', n,
      CASE WHEN n % 10 = 0 THEN 'r-' || (n / 100) END, 'done', 'x'
    FROM generate_series(1, ${rows}) AS n`
  yield* sql`ANALYZE audit_log`
})

const filters: ReadonlyArray<AuditFilter> = [
  {},
  { zone: "old.test." },
  { zone: "hosts.test." },
  { zone: "none.test." },
  { actor: "ann" },
  { actor: "prism", zone: "old.test." },
  { actions: ["token.issued"] },
  { actions: ["host.created", "host.changed", "host.returned"], actor: "ann" },
  { subject: "h77.hosts.test." },
  { request: "r-77" },
  { result: "refused" },
  { sinceMillis: 1700000000000, untilMillis: 1700000100000 },
  { untilMillis: 1700000500000, zone: "hosts.test.", actor: "ann" },
  { zones: ["old.test.", "hosts.test."] },
  { zones: ["old.test."], actions: ["host.created"], sinceMillis: 1700010000000 }
]

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("a search of the audit", it, T.postgres)

  it.effect("every search walks an index, and touches a bounded number of rows of it", () =>
    Effect.gen(function* () {
      yield* fillMany
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      // PostgreSQL counts what a transaction's statements have done, which says more than what it planned.
      for (const filter of filters) {
        for (const before of [undefined, rows / 2]) {
          // For these values, and for any, as a statement is planned that was run some times.
          for (const mode of ["force_custom_plan", "force_generic_plan"]) {
            const page = yield* Effect.gen(function* () {
              yield* sql.unsafe(`SET LOCAL plan_cache_mode = ${mode}`)
              const counts = sql<{ readonly read: bigint; readonly fetched: bigint }>`
                SELECT SUM(seq_tup_read)::bigint AS read, SUM(idx_tup_fetch)::bigint AS fetched
                FROM pg_stat_xact_user_tables WHERE relname LIKE 'audit_log%'`
              const [start] = yield* counts
              const page = yield* log.list(filter, { before, limit: 100 })
              const [end] = yield* counts
              // A partition that is empty may be scanned.
              const said = `${mode} ${JSON.stringify(filter)}`
              assert.strictEqual(Number(end!.read - start!.read), 0, `a whole scan for ${said}`)
              assert.isBelow(Number(end!.fetched - start!.fetched), 15_000, said)
              return page
            }).pipe(sql.withTransaction)
            assert.isAtMost(page.entries.length, 100)
          }
        }
      }
    }).pipe(Effect.provide(Layer.fresh(AuditLog.layer.pipe(Layer.provideMerge(T.postgres)))))
  )
})
