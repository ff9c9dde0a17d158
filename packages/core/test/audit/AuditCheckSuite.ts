/** Must show 3: what somebody does to the tables of the audit is found, with the place, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import { entry, sealAll } from "./SealerSuite.ts"

const total = 20

/** Twenty entries, sealed five at a time. */
const fill = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Audit.writeAll(
    sql,
    Array.from({ length: total }, (_, i) =>
      entry(`h${i + 1}.hosts.test.`, {
        before: { n: i },
        reason: "a reason",
        cause: "registered",
        result: "done"
      })
    ),
    1_700_000_000_000
  )
  yield* sealAll(5)
})

const check = (request: AuditCheck.CheckRequest = {}) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => AuditCheck.make(sql).check(request))

const places = (request: AuditCheck.CheckRequest = {}) =>
  Effect.map(check(request), ({ findings }) =>
    findings.map(({ position, to, what }) => (to === undefined ? `${what} ${position}` : `${what} ${position}-${to}`))
  )

const contents =
  "sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result"

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

  /** What is found after these statements, each in a log of its own that is mended afterwards. */
  const tampered = (
    title: string,
    cases: ReadonlyArray<{ readonly sql: ReadonlyArray<string>; readonly found: ReadonlyArray<string> }>
  ) =>
    test(
      title,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        for (const { found, sql: statements } of cases) {
          const undone = yield* Effect.flip(
            sql.withTransaction(
              Effect.gen(function* () {
                for (const statement of statements) yield* sql.unsafe(statement)
                return yield* Effect.fail({ _tag: "Undone" as const, seen: yield* places() })
              })
            )
          )
          if (undone._tag !== "Undone") return yield* Effect.fail(undone)
          assert.deepStrictEqual(undone.seen, found, statements.join("; "))
        }
        assert.deepStrictEqual(yield* places(), [])
      })
    )

  test(
    "a log that nobody has touched is good, as a whole and in parts",
    Effect.gen(function* () {
      const whole = yield* check()
      assert.deepStrictEqual(whole.findings, [])
      assert.deepStrictEqual([whole.entries, whole.from, whole.to, whole.next], [total, 1, total, undefined])
      assert.deepStrictEqual(whole.last, yield* (yield* AuditLog).head)
      let entries = 0
      for (let from: number | undefined = 1; from !== undefined;) {
        const part: AuditCheck.Checked = yield* check({ from, positionsMax: 3 })
        assert.deepStrictEqual(part.findings, [])
        entries += part.entries
        from = part.next
      }
      assert.strictEqual(entries, total)
      assert.deepStrictEqual(yield* places({ from: 7, to: 12 }), [])
      assert.strictEqual((yield* check({ from: 7, to: 12 })).entries, 6)
      assert.deepStrictEqual(yield* places({ from: 100 }), [])
    })
  )

  tampered(
    "one byte in any column of an entry",
    [
      ["sequence", "sequence + 1000"],
      ["at", "at + 1"],
      ["actor", "'alicf'"],
      ["peer", "'192.0.2.2'"],
      ["peer", "NULL"],
      ["action", "'host.createe'"],
      ["zone", "'hosts.tesu.'"],
      ["subject", "'h7.hosts.tesu.'"],
      ["generation", "generation + 1"],
      ["before", `'{"n":7}'`],
      ["before", `'{"n": 6}'`],
      ["before", "'{'"],
      ["after", "NULL"],
      ["after", `'{"addresses":["192.0.2.7"],"state":"onlinf"}'`],
      ["reason", "'a reasoo'"],
      ["cause", "'registeree'"],
      ["request", "'r-2'"],
      ["result", "'donf'"],
      ["hash", "'x' || SUBSTR(hash, 2)"]
    ].map(([column, value]) => ({
      sql: [`UPDATE audit_log SET ${column} = ${value} WHERE position = 7`],
      found: ["changed 7"]
    }))
  )

  tampered(
    "an entry removed: the first, one in the middle, the last, and all",
    [1, 7, 10, 11, 20]
      .map((position) => ({
        sql: [`DELETE FROM audit_log WHERE position = ${position}`],
        found: [`removed ${position}`]
      }))
      .concat([
        { sql: ["DELETE FROM audit_log"], found: ["removed 1-20"] },
        {
          sql: [
            "DELETE FROM audit_log WHERE position = 7",
            "UPDATE audit_log SET position = -position WHERE position > 7",
            "UPDATE audit_log SET position = -position - 1 WHERE position < 0"
          ],
          found: ["removed 7"]
        }
      ])
  )

  tampered(
    "two entries swapped, their contents or their positions, also with their hashes",
    [
      [7, 8],
      [2, 18],
      [6, 14]
    ].flatMap(([one, other]) => [
      {
        sql: [
          `UPDATE audit_log SET position = -1 WHERE position = ${one}`,
          `UPDATE audit_log SET position = ${one} WHERE position = ${other}`,
          `UPDATE audit_log SET position = ${other} WHERE position = -1`
        ],
        found: [`swapped ${one}-${other}`]
      },
      {
        sql: [
          `CREATE TEMPORARY TABLE held AS SELECT * FROM audit_log WHERE position IN (${one}, ${other})`,
          `UPDATE audit_log SET (${contents}) = (SELECT ${contents} FROM held WHERE held.position = ${one! + other!} - audit_log.position)
             WHERE position IN (${one}, ${other})`,
          "DROP TABLE held"
        ],
        found: [`swapped ${one}-${other}`]
      }
    ])
  )

  tampered("an entry put in between, or behind the end", [
    {
      sql: [
        "UPDATE audit_log SET position = -position - 1 WHERE position >= 7",
        "UPDATE audit_log SET position = -position WHERE position < 0",
        `INSERT INTO audit_log SELECT 7, ${contents}, hash FROM audit_log WHERE position = 3`
      ],
      found: ["added 7"]
    },
    {
      sql: [`INSERT INTO audit_log SELECT 21, ${contents}, hash FROM audit_log WHERE position = 3`],
      found: ["seal-missing 21", "changed 21"]
    }
  ])

  tampered("a seal removed or changed", [
    { sql: ["DELETE FROM audit_seal WHERE last_position = 10"], found: ["seal-missing 6-10"] },
    { sql: ["DELETE FROM audit_seal WHERE last_position = 5"], found: ["seal-missing 1-5"] },
    { sql: ["DELETE FROM audit_seal WHERE last_position = 20"], found: ["seal-missing 16-20"] },
    { sql: ["DELETE FROM audit_seal"], found: ["seal-missing 1-20"] },
    {
      sql: ["UPDATE audit_seal SET hash = 'x' || SUBSTR(hash, 2) WHERE last_position = 10"],
      found: ["seal-changed 10"]
    },
    { sql: ["UPDATE audit_seal SET first_position = 7 WHERE last_position = 10"], found: ["seal-missing 6"] },
    { sql: ["UPDATE audit_seal SET first_position = 5 WHERE last_position = 10"], found: ["seal-changed 10"] }
  ])

  test(
    "what is wrong is found in the part in which it is, also where parts meet",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`DELETE FROM audit_seal WHERE last_position = 10`
      yield* sql`UPDATE audit_log SET reason = 'another' WHERE position = 13`
      yield* sql`DELETE FROM audit_log WHERE position = 15`
      const found: Array<string> = []
      for (let from: number | undefined = 1; from !== undefined;) {
        found.push(...(yield* places({ from, positionsMax: 5 })))
        from = (yield* check({ from, positionsMax: 5 })).next
      }
      assert.deepStrictEqual(found, ["seal-missing 6-10", "changed 13", "removed 15"])
    })
  )

  test(
    "a log whose end was cut off with its seals is found out by a head that was noted",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const head = yield* (yield* AuditLog).head
      assert.deepStrictEqual(yield* places({ noted: [head] }), [])
      yield* sql`DELETE FROM audit_log WHERE position > 15`
      yield* sql`DELETE FROM audit_seal WHERE last_position > 15`
      assert.deepStrictEqual(yield* places(), [])
      assert.deepStrictEqual(yield* places({ noted: [head] }), ["removed 16-20"])
      assert.deepStrictEqual(yield* places({ noted: [{ position: 9, hash: "x" }] }), ["not-as-noted 9"])
    })
  )
}
