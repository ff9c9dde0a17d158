/** What the audit of refusals promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Clock, Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import * as Audit from "@prism-dns/core/audit/Refusals"
import { type Refusal, Refusals } from "@prism-dns/core/audit/Refusals"
import { authFailures, refusalsLeftOut } from "@prism-dns/core/auth/AuthMetrics"

export const refusal: Refusal = {
  code: "name-reserved",
  message: "'wpad' is reserved",
  actor: "rack-7",
  peer: "10.0.0.1",
  subject: "wpad.hosts.test."
}

interface Row {
  readonly at: number | bigint
  readonly actor: string
  readonly peer: string | null
  readonly subject: string
  readonly generation: number | bigint
  readonly reason: string
}

const entries = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<Row>`SELECT at, actor, peer, subject, generation, reason FROM audit_entry
    WHERE action = 'access.refused' ORDER BY sequence`.pipe(Effect.orDie)
)

export const reasons = Effect.map(entries, (rows) => rows.map(({ reason }) => reason))

const failures = (reason: string) =>
  Effect.map(Metric.value(Metric.withAttributes(authFailures, { reason })), ({ count }) => count)

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  type Made = Effect.Success<ReturnType<typeof Audit.make>>

  /** A test with a database and metrics of its own. */
  const test = (
    title: string,
    body: (made: Made) => Effect.Effect<void, unknown, SqlClient.SqlClient>,
    options: Partial<Audit.RefusalsOptions> = {}
  ) =>
    it.effect(`${name}: ${title}`, () =>
      Effect.flatMap(Audit.make(options), body).pipe(
        Effect.provide(Layer.fresh(database)),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )

  test("a refusal is counted at once, and then there is an entry: who was refused what, from where, and why", (made) =>
    Effect.gen(function* () {
      const before = yield* Clock.currentTimeMillis
      made.record(refusal)
      assert.strictEqual(yield* failures("name-reserved"), 1)
      assert.isEmpty(yield* entries)
      yield* made.flush
      const [row] = yield* entries
      assert.deepInclude(row, {
        actor: "rack-7",
        peer: "10.0.0.1",
        subject: "wpad.hosts.test.",
        reason: "name-reserved: 'wpad' is reserved"
      })
      assert.isAtLeast(Number(row?.at), before)
      yield* made.flush
      assert.strictEqual((yield* entries).length, 1)
    }))

  test("what no database takes is written in other characters, and holds up none of the others", (made) =>
    Effect.gen(function* () {
      made.record(refusal)
      made.record({ ...refusal, subject: "a\u0000b" })
      made.record({ ...refusal, subject: "\ud800" })
      made.record({ ...refusal, subject: `${"x".repeat(511)}\u{1f600}` })
      yield* made.flush
      assert.deepStrictEqual(
        (yield* entries).map(({ subject }) => subject),
        ["wpad.hosts.test.", "a\ufffdb", "\ufffd", `${"x".repeat(511)}\ufffd…`]
      )
    }))

  test("equal ones are one entry with their number", (made) =>
    Effect.gen(function* () {
      for (let i = 0; i < 3; i++) made.record(refusal)
      made.record({ ...refusal, peer: undefined })
      yield* made.flush
      assert.deepStrictEqual(yield* reasons, [
        "name-reserved: 'wpad' is reserved (3 times)",
        "name-reserved: 'wpad' is reserved"
      ])
      assert.isNull((yield* entries)[1]?.peer)
    }))

  test(
    "a flood is a bounded number of entries, the last of which says how many have none",
    (made) =>
      Effect.gen(function* () {
        for (let i = 0; i < 5000; i++) made.record({ ...refusal, subject: `wpad-${i}` })
        for (let i = 0; i < 100; i++) made.record({ ...refusal, code: "token-invalid", subject: `${i}` })
        yield* made.flush
        assert.strictEqual((yield* reasons).length, 6)
        assert.strictEqual(
          (yield* reasons).at(-1),
          "more refusals than are written one by one: name-reserved 4995, token-invalid 100"
        )
        assert.strictEqual(yield* failures("name-reserved"), 5000)
        assert.strictEqual((yield* Metric.value(refusalsLeftOut)).count, 5095)
        made.record(refusal)
        yield* made.flush
        assert.strictEqual((yield* reasons).length, 7)
      }),
    { entriesMax: 5 }
  )

  test("text without end is cut", (made) =>
    Effect.gen(function* () {
      made.record({ ...refusal, actor: "a".repeat(5000), subject: "s".repeat(5000), message: "m".repeat(5000) })
      yield* made.flush
      const [row] = yield* entries
      for (const text of [row!.actor, row!.subject, row!.reason]) assert.strictEqual(text.length, 513)
    }))

  test(
    "what could not be written waits within the bound, and is written later",
    (made) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`ALTER TABLE audit_entry RENAME TO audit_entry_away`
        made.record(refusal)
        yield* Effect.flip(made.flush)
        for (let i = 0; i < 10; i++) made.record({ ...refusal, subject: `${i}` })
        yield* Effect.flip(made.flush)
        made.record(refusal)
        yield* sql`ALTER TABLE audit_entry_away RENAME TO audit_entry`
        yield* made.flush
        assert.deepStrictEqual(yield* reasons, [
          "name-reserved: 'wpad' is reserved (2 times)",
          "name-reserved: 'wpad' is reserved",
          "name-reserved: 'wpad' is reserved",
          "more refusals than are written one by one: name-reserved 8"
        ])
      }),
    { entriesMax: 3 }
  )

  it.effect(`${name}: what waits when the server stops is written`, () =>
    Effect.gen(function* () {
      yield* Effect.provide(
        Effect.map(Refusals, ({ record }) => record(refusal)),
        Refusals.layer()
      )
      assert.deepStrictEqual(yield* reasons, ["name-reserved: 'wpad' is reserved"])
    }).pipe(Effect.provide(Layer.fresh(database)))
  )
}
