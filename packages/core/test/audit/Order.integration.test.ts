/** On PostgreSQL, where transactions run side by side: the order of entries, and who waits for whom. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Metric, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import * as Sealer from "@prism-dns/core/audit/Sealer"
import * as Turns from "@prism-dns/core/audit/Turns"
import { Identities } from "@prism-dns/core/auth/Identities"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { Registry } from "@prism-dns/core/registry/Registry"
import { access, keyOf } from "../auth/AccessSuite.ts"
import { Postgres } from "../harness/Postgres.ts"
import { turns } from "../harness/turns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { entry, sealAll, write } from "./SealerSuite.ts"

const subjects = Effect.flatMap(AuditLog, (log) =>
  Effect.map(log.after(0, 1000), (entries) => entries.map(({ subject }) => subject))
)

const audit = AuditLog.layer.pipe(Layer.provideMerge(T.postgres))

const everything = access().pipe(Layer.provideMerge(audit))

/** No other server is there. */
const alone = Layer.merge(Cluster.layerAlone, Signals.layerNone)

/** A transaction that has done `what`, and is under way until it is told how to end. */
const underWay = Effect.fnUntraced(function* <E>(what: Effect.Effect<unknown, E, SqlClient.SqlClient>) {
  const sql = yield* SqlClient.SqlClient
  const done = yield* Deferred.make<void, E>()
  const end = yield* Deferred.make<void, "rolled back">()
  const fiber = yield* Effect.forkChild(
    Effect.exit(what.pipe(Deferred.into(done), Effect.andThen(Deferred.await(end)), sql.withTransaction))
  )
  yield* Deferred.await(done)
  return {
    commit: Effect.andThen(Deferred.succeed(end, undefined), Fiber.join(fiber)),
    rollBack: Effect.andThen(Deferred.fail(end, "rolled back"), Fiber.join(fiber))
  }
})

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

  it.effect("transactions of a zone write side by side; what is under way with a lower sequence holds up nothing", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const seal = yield* Sealer.make()
      yield* write("before")
      const first = yield* underWay(write("first"))
      // These have committed, and waited for nobody.
      yield* write("second")
      yield* Audit.writeAll(sql, [entry("elsewhere", { zone: "other.test." })], 3)
      assert.deepStrictEqual(yield* turns, { granted: 1, waiting: 0 })
      assert.strictEqual(yield* seal, 3)
      assert.strictEqual(yield* seal, 0)
      assert.deepStrictEqual(yield* subjects, ["before", "second", "elsewhere"])
      yield* first.commit
      yield* write("after")
      assert.strictEqual(yield* seal, 2)
      assert.strictEqual(yield* seal, 0)
      const entries = yield* (yield* AuditLog).after(0, 10)
      assert.deepStrictEqual(
        entries.map(({ position, sequence, subject }) => [position, sequence, subject]),
        [
          [1, 1, "before"],
          [2, 3, "second"],
          [3, 4, "elsewhere"],
          [4, 2, "first"],
          [5, 5, "after"]
        ]
      )
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("what commits while a batch is sealed, with a number below its last, comes in by the next", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const seal = yield* Sealer.make()
      const first = yield* underWay(write("first"))
      yield* write("second")
      // The sealer has looked, and waits for the log.
      const frozen = yield* underWay(sql`LOCK TABLE audit_log IN SHARE ROW EXCLUSIVE MODE`)
      const sealing = yield* Effect.forkChild(seal)
      yield* waitUntil(
        "the sealer waits",
        sql`SELECT 1 AS n FROM pg_locks WHERE NOT granted AND locktype = 'relation'`,
        (rows) => rows.length > 0
      )
      yield* first.commit
      yield* frozen.commit
      assert.strictEqual(yield* Fiber.join(sealing), 1)
      assert.deepStrictEqual(yield* subjects, ["second"])
      assert.strictEqual(yield* seal, 1)
      assert.deepStrictEqual(yield* subjects, ["second", "first"])
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("several gaps, in batches, are filled or left each by itself", () =>
    Effect.gen(function* () {
      const seal = yield* Sealer.make({ ...Sealer.defaultOptions, batchMax: 2 })
      const one = yield* underWay(write("1"))
      yield* write("2", "3")
      const four = yield* underWay(write("4"))
      yield* write("5")
      const six = yield* underWay(write("6"))
      yield* write("7")
      assert.strictEqual(yield* seal, 2)
      yield* four.rollBack
      yield* one.commit
      assert.strictEqual(yield* seal, 2)
      assert.deepStrictEqual(yield* subjects, ["2", "3", "1", "5"])
      yield* six.commit
      assert.strictEqual(yield* seal, 2)
      assert.strictEqual(yield* seal, 0)
      assert.deepStrictEqual(yield* subjects, ["2", "3", "1", "5", "6", "7"])
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("the job, and who asks for all that is committed, wait for nothing that is under way", () =>
    Effect.gen(function* () {
      const log = yield* AuditLog
      const sealer = yield* Sealer.Sealer
      const first = yield* underWay(write("first"))
      yield* write("second")
      yield* sealer.drain
      assert.deepStrictEqual(yield* subjects, ["second"])
      yield* write("third")
      yield* log.awaitBeyond(1)
      assert.deepStrictEqual(yield* subjects, ["second", "third"])
      yield* first.commit
      yield* log.awaitBeyond(2)
      assert.deepStrictEqual(yield* subjects, ["second", "third", "first"])
    }).pipe(
      Effect.provide(Layer.fresh(Sealer.Sealer.layer().pipe(Layer.provide(alone), Layer.provideMerge(audit)))),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

  it.effect(
    "what begins after another has committed stands behind it, in whatever zones, and each stands there once",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const zones = ["a.test.", "b.test.", undefined]
        const sealing = yield* Effect.forkChild(Effect.forever(Effect.andThen(sealAll(3), Effect.sleep("1 millis"))))
        const chains = Array.from({ length: 12 }, (_, chain) => chain)
        const links = Array.from({ length: 20 }, (_, link) => link)
        // In each chain one after the other; with every third number drawn, and not used.
        yield* Effect.forEach(
          chains,
          (chain) =>
            Effect.forEach(
              links,
              (link) => {
                const mine = Audit.writeAll(
                  sql,
                  [entry(`${chain}-${link}`, { zone: zones[(chain + link) % zones.length] })],
                  1
                )
                const kept = Effect.andThen(mine, sql`SELECT pg_sleep(${((chain * 7 + link) % 5) / 1000})`)
                return (chain + link) % 3 === 0
                  ? Effect.andThen(Effect.flip(Effect.andThen(kept, Effect.fail("no")).pipe(sql.withTransaction)), mine)
                  : sql.withTransaction(kept)
              },
              { discard: true }
            ),
          { concurrency: "unbounded", discard: true }
        )
        yield* Fiber.interrupt(sealing)
        yield* sealAll()
        const found = yield* (yield* AuditLog).after(0, 10_000)
        assert.strictEqual(found.length, chains.length * links.length)
        for (const chain of chains) {
          assert.deepStrictEqual(
            found.map(({ subject }) => subject).filter((subject) => subject.startsWith(`${chain}-`)),
            links.map((link) => `${chain}-${link}`)
          )
        }
      }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("who has a zone alone keeps its writers waiting, and they draw no number meanwhile", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const closing = yield* underWay(Turns.close(sql, ["hosts.test.", "other.test."]))
      const waiting = yield* Effect.forkChild(write("waits"))
      yield* waitUntil("the writer waits", turns, (seen) => seen.waiting === 1)
      yield* Audit.writeAll(sql, [entry("of no zone", { zone: undefined })], 1)
      yield* closing.commit
      yield* Fiber.join(waiting)
      yield* sealAll()
      assert.deepStrictEqual(yield* subjects, ["of no zone", "waits"])
      assert.deepStrictEqual(
        (yield* (yield* AuditLog).after(0, 10)).map(({ sequence }) => sequence),
        [1, 2]
      )
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect("who has a zone alone waits for its writers, and writes itself while others wait", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const first = yield* underWay(write("first"))
      const mine = yield* Deferred.make<void>()
      const alone = yield* Effect.forkChild(
        Effect.gen(function* () {
          yield* Turns.close(sql, ["hosts.test."])
          yield* Deferred.await(mine)
          yield* write("alone")
        }).pipe(sql.withTransaction)
      )
      yield* waitUntil("it waits for the first", turns, (seen) => seen.waiting === 1)
      yield* first.commit
      yield* waitUntil("it has the zone", turns, (seen) => seen.granted === 1 && seen.waiting === 0)
      const last = yield* Effect.forkChild(write("last"))
      yield* waitUntil("the last waits", turns, (seen) => seen.waiting === 1)
      yield* Deferred.succeed(mine, undefined)
      yield* Fiber.join(alone)
      yield* Fiber.join(last)
      yield* sealAll()
      assert.deepStrictEqual(yield* subjects, ["first", "alone", "last"])
    }).pipe(Effect.provide(Layer.fresh(audit)))
  )

  it.effect(
    "many transactions over several zones at once end without a deadlock, and of each row in the order of commits",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const zones = ["a.test.", "b.test.", "c.test.", undefined]
        // The number of a commit is drawn from a row of the zone's, which stays locked until then.
        yield* sql`CREATE TABLE counter (zone TEXT PRIMARY KEY, n BIGINT NOT NULL)`
        for (const zone of zones) yield* sql`INSERT INTO counter (zone, n) VALUES (${zone ?? ""}, 0)`
        const sealing = yield* Effect.forkChild(Effect.forever(Effect.andThen(sealAll(7), Effect.sleep("1 millis"))))
        yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) =>
            Effect.gen(function* () {
              const chosen = zones.filter((_, z) => ((i * 7 + z * 5) % 11) % 2 === 0)
              // Rows in one order, turns in any.
              if (i % 2 === 0) {
                yield* Turns.share(sql, chosen.map((zone) => zone ?? "").toReversed())
              }
              for (const zone of chosen) {
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
