/** On PostgreSQL, where transactions run side by side: the order of entries, and who waits for whom. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import { Identities } from "@prism-dns/core/auth/Identities"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Registry } from "@prism-dns/core/registry/Registry"
import { access, keyOf } from "../auth/AccessSuite.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { entry, sealAll } from "./SealerSuite.ts"

/** The database has granted as many locks of the audit's turns as this, and that many wait. */
const turns = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(
    sql<{ readonly granted: boolean }>`
      SELECT granted FROM pg_locks WHERE locktype = 'advisory' AND classid = 7001002
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    (rows) => ({
      granted: rows.filter(({ granted }) => granted).length,
      waiting: rows.filter(({ granted }) => !granted).length
    })
  )
)

const subjects = Effect.flatMap(AuditLog, (log) =>
  Effect.map(log.after(0, 1000), (entries) => entries.map(({ subject }) => subject))
)

const audit = AuditLog.layer.pipe(Layer.provideMerge(T.postgres))

const everything = access().pipe(Layer.provideMerge(audit))

const ann: Audit.Actor = { name: "ann", peer: undefined }

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect(
    "entries of a zone stand in the order of their commits, also when that is not the one of their beginnings",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const began = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        // Begins first, has its entry ready first, and commits last.
        const slow = yield* Effect.forkChild(
          Effect.gen(function* () {
            yield* Audit.writeAll(sql, [entry("began first")], 1)
            yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail) VALUES ('x', '', 1, '')`
            yield* Deferred.succeed(began, undefined)
            yield* Deferred.await(go)
          }).pipe(Audit.inTransaction(sql))
        )
        yield* Deferred.await(began)
        yield* Audit.inTransaction(sql)(Audit.writeAll(sql, [entry("committed first")], 2))
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.join(slow)
        yield* sealAll()
        assert.deepStrictEqual(yield* subjects, ["committed first", "began first"])
      }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("who has written an entry keeps others of its zone waiting until it has committed, and nobody else", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const wrote = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const first = yield* Effect.forkChild(
        Effect.gen(function* () {
          yield* Audit.writeAll(sql, [entry("first")], 1)
          yield* Deferred.succeed(wrote, undefined)
          yield* Deferred.await(go)
        }).pipe(sql.withTransaction)
      )
      yield* Deferred.await(wrote)
      const second = yield* Effect.forkChild(Audit.writeAll(sql, [entry("second")], 2))
      yield* waitUntil("the second waits for its turn", turns, ({ waiting }) => waiting === 1)
      yield* Audit.writeAll(sql, [entry("elsewhere", { zone: "other.test." })], 3)
      yield* sealAll()
      assert.deepStrictEqual(yield* subjects, ["elsewhere"])
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(first)
      yield* Fiber.join(second)
      yield* sealAll()
      assert.deepStrictEqual(yield* subjects, ["elsewhere", "first", "second"])
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect(
    "many transactions over several zones at once end without a deadlock, in the order of each zone's commits",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const zones = ["a.test.", "b.test.", "c.test.", undefined]
        // The number of a commit is drawn while the turn is held, from a table that every transaction reads and writes.
        yield* sql`CREATE TABLE counter (zone TEXT PRIMARY KEY, n BIGINT NOT NULL)`
        for (const zone of zones) yield* sql`INSERT INTO counter (zone, n) VALUES (${zone ?? ""}, 0)`
        const sealing = yield* Effect.forkChild(Effect.forever(Effect.andThen(sealAll(7), Effect.sleep("1 millis"))))
        yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) =>
            Effect.gen(function* () {
              const chosen = zones.filter((_, z) => ((i * 7 + z * 5) % 11) % 2 === 0)
              const order = i % 2 === 0 ? chosen : chosen.toReversed()
              yield* Audit.takeTurns(
                sql,
                order.map((zone) => zone ?? "")
              )
              for (const zone of order) {
                const [row] = yield* sql<{ readonly n: bigint }>`
                UPDATE counter SET n = n + 1 WHERE zone = ${zone ?? ""} RETURNING n`
                yield* Audit.writeAll(sql, [entry(`${row!.n}`, { zone })], i)
              }
            }).pipe(Audit.inTransaction(sql)),
          { concurrency: "unbounded", discard: true }
        )
        yield* Fiber.interrupt(sealing)
        yield* sealAll()
        const entries = yield* (yield* AuditLog).after(0, 10_000)
        for (const [, some] of Map.groupBy(entries, ({ zone }) => zone)) {
          assert.deepStrictEqual(
            some.map(({ subject }) => subject),
            some.map((_, i) => `${i + 1}`)
          )
        }
      }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect(
    "registrations, enrolments that take names over, and resets of the same names at once end without a deadlock",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const registry = yield* Registry
        const identities = yield* Identities
        const tokens = yield* Tokens
        const [before] = yield* sql<{ readonly deadlocks: bigint }>`
        SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`
        let keys = 0
        const names = Array.from({ length: 8 }, (_, i) => `h${i}`)
        for (const name of names) yield* registry.register(T.registration(name, "192.0.2.1", "fleet"))
        const enrol = Effect.fnUntraced(function* (name: string, turn: number) {
          const spec = { role: "agent", allows: "enrol", grant: unlimited, host: T.nameOf(name) } as const
          const { token } = yield* tokens.issue({ ...spec, name: `${name}-${turn}` }, ann, "a new machine")
          const holder = tokens.verify(Redacted.value(token), "agent", "enrol")
          if (holder instanceof TokenRefused) return yield* holder
          keys += 1
          const publicKey = keyOf(keys)
          yield* identities.enrol({ publicKey, token: holder, peer: "192.0.2.1" })
        })
        yield* Effect.forEach(
          Array.from({ length: 6 }, (_, turn) => turn),
          (turn) =>
            Effect.all(
              [
                Effect.forEach(names, (name) => enrol(name, turn), { concurrency: "unbounded" }),
                Effect.forEach(
                  names.toReversed(),
                  (name) => Effect.ignore(identities.reset(T.nameOf(name), ann, "a reset")),
                  { concurrency: "unbounded" }
                ),
                Effect.forEach(
                  names,
                  (name) => Effect.ignore(registry.register(T.registration(name, `192.0.2.${turn + 2}`, "fleet"))),
                  { concurrency: "unbounded" }
                )
              ],
              { concurrency: "unbounded" }
            ),
          { discard: true }
        )
        yield* sealAll()
        const [after] = yield* sql<{ readonly deadlocks: bigint }>`
        SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`
        assert.strictEqual(Number(after!.deadlocks), Number(before!.deadlocks))
        // Of one name, generations rise: its changes were written in the order of their commits.
        const entries = yield* (yield* AuditLog).after(0, 10_000)
        for (const name of names) {
          const generations = entries
            .filter(({ action, subject }) => subject === T.nameOf(name) && action.startsWith("host."))
            .map(({ generation }) => generation)
          assert.deepStrictEqual(
            generations,
            generations.toSorted((a, b) => a - b)
          )
          assert.isAtLeast(generations.length, 7)
        }
      }).pipe(Effect.provide(Layer.fresh(everything)))
  )

  it.effect("the entries of an attempt that failed within are not written with the rest", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const inner = (subject: string, fails: boolean) =>
        Audit.writeAll(sql, [entry(subject)], 1).pipe(
          Effect.andThen(fails ? Effect.fail("no") : Effect.void),
          Audit.inTransaction(sql),
          Effect.ignore
        )
      yield* Audit.inTransaction(sql)(
        Effect.andThen(
          inner("failed", true),
          Effect.andThen(inner("done", false), Audit.writeAll(sql, [entry("last")], 1))
        )
      )
      yield* sealAll()
      assert.deepStrictEqual(yield* subjects, ["done", "last"])
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )
})
