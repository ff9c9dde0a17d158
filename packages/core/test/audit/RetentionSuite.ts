/** What the retention of the audit promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Clock, Effect, Layer, Metric, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as Retention from "@prism-dns/core/audit/Retention"
import { entry, sealAll } from "./SealerSuite.ts"

const keepMillis = 1_000_000

/** Ten old entries and ten new ones, in batches of two. */
const fill = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const nowMillis = yield* Clock.currentTimeMillis
  yield* Audit.writeAll(
    sql,
    Array.from({ length: 20 }, (_, i) =>
      entry(`h${i + 1}`, { atMillis: i < 10 ? nowMillis - 2 * keepMillis : nowMillis })
    ),
    nowMillis
  )
  yield* sealAll(2)
})

const check = Effect.flatMap(SqlClient.SqlClient, (sql) => AuditCheck.make(sql).check({}))

const retention = (options: Partial<Retention.RetentionOptions> = {}) =>
  Retention.make({ keepMillis, slackMillis: 0, restMillis: 0, ...options })

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = (title: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient | AuditLog>) =>
    it.effect(`${name}: ${title}`, () =>
      Effect.andThen(fill, body).pipe(
        Effect.provide(Layer.fresh(AuditLog.layer.pipe(Layer.provideMerge(database)))),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )

  test(
    "what is old goes by whole batches once its removal is sealed, and the rest verifies from there on",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      const { announce, take } = yield* retention()
      const before = (yield* log.get(10))!
      yield* announce
      yield* take
      assert.strictEqual(yield* log.oldest, 1, "its removal is not sealed yet")
      yield* sealAll()
      yield* take
      assert.strictEqual(yield* log.oldest, 11)
      const pruned = (yield* log.after(20, 10))[0]!
      assert.deepInclude(pruned, { action: "audit.pruned", actor: "prism", subject: "audit" })
      assert.deepStrictEqual(pruned.after, { hash: before.hash, position: 10 })
      const report = yield* check
      assert.deepStrictEqual([report.findings, report.from, report.to], [[], 11, 21])
      const [seal] = yield* sql<{
        readonly position: number | bigint
      }>`SELECT MIN(last_position) AS position FROM audit_seal`
      assert.strictEqual(Number(seal!.position), 10)
      // Nothing more is old.
      yield* announce
      yield* sealAll()
      assert.strictEqual((yield* log.head).position, 21)
      const reader = AuditExport.reader()
      yield* Stream.runForEach(AuditExport.lines(sql, {}), (text) =>
        Effect.sync(() => text.split("\n").forEach((line) => reader.line(line)))
      )
      const exported = reader.end()
      assert.deepStrictEqual([exported.broken, exported.findings, exported.entries], [undefined, [], 11])
    })
  )

  test(
    "a removal that was cut off verifies, and goes on",
    Effect.gen(function* () {
      const log = yield* AuditLog
      const sql = yield* SqlClient.SqlClient
      const { announce, take } = yield* retention()
      yield* announce
      yield* sealAll()
      yield* sql`DELETE FROM audit_log WHERE position <= 4`
      yield* sql`DELETE FROM audit_seal WHERE last_position < 4`
      assert.deepStrictEqual((yield* check).findings, [])
      yield* take
      assert.strictEqual(yield* log.oldest, 11)
      assert.deepStrictEqual((yield* check).findings, [])
    })
  )

  test(
    "who removes more than was announced, or the seal that the rest begins with, is found out",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { announce, take } = yield* retention()
      yield* announce
      yield* sealAll()
      yield* take
      const places = Effect.map(check, ({ findings }) => findings.map(({ position, what }) => [what, position]))
      yield* sql`DELETE FROM audit_seal WHERE last_position = 10`
      assert.deepStrictEqual(yield* places, [["seal-missing", 10]])
      yield* sql`INSERT INTO audit_seal (last_position, first_position, at, hash) VALUES (10, 9, 1, 'x')`
      assert.deepStrictEqual(yield* places, [["seal-changed", 10]])
      yield* sql`DELETE FROM audit_log WHERE position <= 12`
      yield* sql`DELETE FROM audit_seal WHERE last_position <= 10`
      assert.deepInclude(yield* places, ["removed", 11])
    })
  )

  test(
    "for ever is for ever, and the newest batch stays however old it is",
    Effect.gen(function* () {
      const log = yield* AuditLog
      const sql = yield* SqlClient.SqlClient
      const forEver = yield* retention({ keepMillis: 0 })
      yield* forEver.announce
      yield* sealAll()
      assert.strictEqual((yield* log.head).position, 20)
      yield* sql`DELETE FROM audit_log WHERE position > 10`
      yield* sql`DELETE FROM audit_seal WHERE last_position > 10`
      const { announce, take } = yield* retention()
      yield* announce
      yield* sealAll()
      yield* take
      assert.strictEqual(yield* log.oldest, 9)
    })
  )
}
