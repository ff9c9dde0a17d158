/** What sealing promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as AuditMetrics from "@prism-dns/core/audit/AuditMetrics"
import * as Chain from "@prism-dns/core/audit/Chain"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as Sealer from "@prism-dns/core/audit/Sealer"

export const entry = (subject: string, more: Partial<Audit.Entry> = {}): Audit.Entry => ({
  actor: { name: "alice", peer: "192.0.2.1", request: "r-1" },
  action: "host.created",
  zone: "hosts.test.",
  subject,
  after: { state: "online", addresses: ["192.0.2.7"] },
  ...more
})

/** Writes one entry for each of `subjects`, together. */
export const write = (...subjects: ReadonlyArray<string>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Audit.writeAll(
      sql,
      subjects.map((subject) => entry(subject)),
      1_700_000_000_000
    )
  )

/** Seals all there is, by batches of `batchMax`. */
export const sealAll = (batchMax = 500) =>
  Effect.gen(function* () {
    const seal = yield* Sealer.make({ ...Sealer.defaultOptions, batchMax })
    while ((yield* seal) > 0);
  })

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = (title: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient | AuditLog>) =>
    it.effect(`${name}: ${title}`, () =>
      body.pipe(
        Effect.provide(Layer.fresh(AuditLog.layer.pipe(Layer.provideMerge(database)))),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )

  test(
    "entries get positions without gaps, each with a hash that covers it and the one before",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      assert.deepStrictEqual(yield* log.head, { position: 0, hash: "" })
      assert.strictEqual(yield* log.oldest, 1)
      yield* write("a", "b", "c")
      yield* write("d", "e")
      yield* sealAll(2)
      const entries = yield* log.after(0, 100)
      assert.deepStrictEqual(
        entries.map(({ position, subject }) => [position, subject]),
        [
          [1, "a"],
          [2, "b"],
          [3, "c"],
          [4, "d"],
          [5, "e"]
        ]
      )
      let hash = Chain.genesis
      for (const row of yield* sql<Chain.LogRow>`SELECT * FROM audit_log ORDER BY position`) {
        hash = Chain.hashOf(hash, Chain.textOf(row))
        assert.strictEqual(row.hash, hash)
      }
      assert.deepStrictEqual(yield* log.head, { position: 5, hash })
      const seals = yield* sql<Record<string, unknown>>`SELECT first_position, last_position FROM audit_seal ORDER BY 1`
      assert.deepStrictEqual(
        seals.map((seal) => [Number(seal["first_position"]), Number(seal["last_position"])]),
        [
          [1, 2],
          [3, 4],
          [5, 5]
        ]
      )
      assert.isEmpty(yield* sql`SELECT 1 AS n FROM audit_entry`)
    })
  )

  test(
    "an entry is read as it was written, with its JSON in canonical form",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      yield* Audit.writeAll(
        sql,
        [
          entry("a", {
            before: { z: [1, { y: null, x: "\ud800 \u0000 é" }], a: true },
            after: undefined,
            reason: "a reason\nof two lines",
            cause: "plan:1",
            result: "refused",
            generation: 7
          }),
          { actor: Audit.prism, action: "audit.pruned", subject: "", after: null }
        ],
        1_700_000_000_123
      )
      yield* sealAll()
      const [first, second] = yield* log.after(0, 10)
      assert.deepStrictEqual(
        { ...first, sequence: 0, hash: "" },
        {
          position: 1,
          sequence: 0,
          atMillis: 1_700_000_000_123,
          actor: "alice",
          peer: "192.0.2.1",
          action: "host.created",
          zone: "hosts.test.",
          subject: "a",
          generation: 7,
          before: { a: true, z: [1, { x: "\ud800 \u0000 é", y: null }] },
          after: undefined,
          reason: "a reason\nof two lines",
          cause: "plan:1",
          request: "r-1",
          result: "refused",
          hash: ""
        }
      )
      assert.isNull(second!.after)
      assert.strictEqual(second!.result, "done")
      assert.isAbove(second!.generation, 0)
      assert.deepStrictEqual(yield* log.get(2), second)
      assert.isUndefined(yield* log.get(3))
      const [row] = yield* sql<{ readonly before: string }>`SELECT before FROM audit_log WHERE position = 1`
      assert.strictEqual(row!.before, '{"a":true,"z":[1,{"x":"\\ud800 \\u0000 é","y":null}]}')
    })
  )

  test(
    "an entry of an early version, whose text is no JSON, is sealed as a string",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`
        INSERT INTO audit_entry (at, actor, action, subject, generation, before)
        VALUES (5, 'alice', 'guard.allowed', 'mass-expiry', 1, '7 of 9 hosts have vanished')`
      yield* sealAll()
      assert.strictEqual((yield* (yield* AuditLog).get(1))!.before, "7 of 9 hosts have vanished")
    })
  )

  test(
    "a batch that fails is sealed later, once",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* write("a", "b")
      yield* sql`ALTER TABLE audit_seal RENAME TO audit_seal_away`
      const seal = yield* Sealer.make()
      yield* Effect.flip(seal)
      assert.strictEqual((yield* sql`SELECT 1 AS n FROM audit_entry`).length, 2)
      yield* sql`ALTER TABLE audit_seal_away RENAME TO audit_seal`
      assert.strictEqual(yield* seal, 2)
      assert.strictEqual((yield* (yield* AuditLog).after(0, 10)).length, 2)
    })
  )

  test(
    "an end of the log that was cut off raises an alarm, and the gap stays to be seen",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      const seal = yield* Sealer.make()
      yield* write("a", "b")
      yield* seal
      yield* write("c")
      yield* seal
      yield* sql`DELETE FROM audit_log WHERE position = 3`
      yield* sql`DELETE FROM audit_seal WHERE last_position = 3`
      yield* write("d")
      yield* seal
      assert.deepStrictEqual(
        (yield* log.after(0, 10)).map(({ position, subject }) => [position, subject]),
        [
          [1, "a"],
          [2, "b"],
          [4, "d"]
        ]
      )
      assert.strictEqual((yield* Metric.value(AuditMetrics.sealAlarms)).count, 1)
    })
  )

  test(
    "an end of the log that a database server lacks which took over is no alarm, and its positions come again",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const log = yield* AuditLog
      let moves = 0
      const seal = yield* Sealer.make(Sealer.defaultOptions, () => moves)
      yield* write("a", "b")
      yield* seal
      yield* write("c")
      yield* seal
      yield* sql`DELETE FROM audit_log WHERE position = 3`
      yield* sql`DELETE FROM audit_seal WHERE last_position = 3`
      moves += 1
      yield* write("d")
      yield* seal
      yield* write("e")
      yield* seal
      assert.deepStrictEqual(
        (yield* log.after(0, 10)).map(({ position, subject }) => [position, subject]),
        [
          [1, "a"],
          [2, "b"],
          [3, "d"],
          [4, "e"]
        ]
      )
      assert.strictEqual((yield* Metric.value(AuditMetrics.sealAlarms)).count, 0)
    })
  )

  test(
    "an entry that somebody put behind the end is left there, without a seal, and stops nothing",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* write("a")
      yield* sealAll()
      yield* sql`
        INSERT INTO audit_log (position, sequence, at, actor, action, subject, generation, result, hash)
        VALUES (2, 9, 9, 'mallory', 'host.created', 'x', 9, 'done', 'x')`
      yield* write("b")
      yield* sealAll()
      const [seal] = yield* sql<Record<string, unknown>>`
        SELECT first_position, last_position FROM audit_seal ORDER BY last_position DESC LIMIT 1`
      assert.deepStrictEqual([Number(seal!["first_position"]), Number(seal!["last_position"])], [3, 3])
      assert.strictEqual((yield* Metric.value(AuditMetrics.sealAlarms)).count, 1)
    })
  )

  test(
    "who waits for what comes is told once it is sealed",
    Effect.gen(function* () {
      const log = yield* AuditLog
      const waiting = yield* Effect.forkChild(log.awaitBeyond(1), { startImmediately: true })
      yield* write("a")
      yield* sealAll()
      assert.isUndefined(waiting.pollUnsafe())
      yield* write("b")
      yield* sealAll()
      assert.strictEqual(yield* Fiber.join(waiting), 2)
      assert.strictEqual(yield* log.awaitBeyond(0), 2)
    })
  )
}
