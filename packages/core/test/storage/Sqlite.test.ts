import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { DatabaseSync } from "node:sqlite"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { temporaryFolder } from "../harness/PowerDns.ts"
import * as T from "../layers.ts"

const memory = <E>(name: string, body: Effect.Effect<void, E, SqlClient.SqlClient>) =>
  it.effect(name, () => Effect.provide(body, Sqlite.layer({ filename: ":memory:" })))

/** Rows have no prototype; to be compared they get one. */
const plain = (rows: ReadonlyArray<object>) => rows.map((row) => ({ ...row }))

const count = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly n: number }>`SELECT COUNT(*) AS n FROM t`, (rows) => rows[0]!.n)
)

describe("a database", () => {
  memory(
    "gives back the values it was given",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a TEXT, b BIGINT, c TEXT)`
      yield* sql`INSERT INTO t VALUES (${"x'; DROP TABLE t; --"}, ${1_800_000_000_000}, ${null})`
      assert.deepStrictEqual(plain(yield* sql`SELECT * FROM t`), [
        { a: "x'; DROP TABLE t; --", b: 1_800_000_000_000, c: null }
      ])
      assert.deepStrictEqual(yield* sql`SELECT a, b FROM t`.values, [["x'; DROP TABLE t; --", 1_800_000_000_000]])
      assert.deepStrictEqual(plain(yield* sql`UPDATE t SET b = 1 RETURNING b`), [{ b: 1 }])
    })
  )

  memory(
    "keeps a transaction whole: it commits, or nothing of it stays",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a TEXT)`
      const insert = sql`INSERT INTO t VALUES ('x')`
      yield* sql.withTransaction(insert)
      yield* Effect.exit(sql.withTransaction(Effect.andThen(insert, Effect.fail("no"))))
      yield* Effect.exit(sql.withTransaction(Effect.andThen(insert, Effect.die("no"))))
      const interrupted = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(insert, Effect.never)), {
        startImmediately: true
      })
      yield* Fiber.interrupt(interrupted)
      assert.strictEqual(yield* count, 1)
      // a failed part of a transaction may be undone alone
      yield* sql.withTransaction(
        Effect.andThen(insert, Effect.exit(sql.withTransaction(Effect.andThen(insert, Effect.fail("no")))))
      )
      assert.strictEqual(yield* count, 2)
    })
  )

  memory(
    "lets other fibers wait while one is in a transaction",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a TEXT)`
      const order: Array<string> = []
      const step = (name: string) =>
        sql.withTransaction(
          Effect.gen(function* () {
            order.push(`${name} begins`)
            yield* sql`INSERT INTO t VALUES (${name})`
            yield* Effect.yieldNow
            order.push(`${name} ends`)
          })
        )
      yield* Effect.all([step("one"), step("two"), step("three")], { concurrency: "unbounded" })
      for (let i = 0; i < order.length; i += 2) {
        assert.strictEqual(order[i + 1], order[i]!.replace("begins", "ends"))
      }
      assert.strictEqual(yield* count, 3)
    })
  )

  memory(
    "sorts its failures, and says them in SQLite's words",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a TEXT UNIQUE)`
      yield* sql`INSERT INTO t VALUES ('x')`
      const error = yield* Effect.flip(sql`INSERT INTO t VALUES ('x')`)
      assert.strictEqual(error.reason._tag, "UniqueViolation")
      assert.isFalse(error.isRetryable)
      assert.strictEqual(error.message, "SQLite: UNIQUE constraint failed: t.a")
    })
  )

  memory(
    "runs more different statements than it keeps ready",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (let i = 0; i < 450; i++) {
        assert.deepStrictEqual(plain(yield* sql.unsafe(`SELECT ${i} AS n`)), [{ n: i }])
        assert.deepStrictEqual(plain(yield* sql`SELECT ${i} AS n`), [{ n: i }])
      }
    })
  )

  it.live("in a file is there again after it was closed, and waits for another process that writes", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-sqlite-")
      const filename = `${folder}/registry.db`
      yield* Effect.flatMap(Registry, (registry) => registry.register(T.registration("web", "192.0.2.1"))).pipe(
        Effect.provide(T.registry().pipe(Layer.provide(T.sqlite(filename))))
      )
      const hosts = yield* Effect.flatMap(Registry, (registry) => registry.list({ limit: 10 })).pipe(
        Effect.provide(Layer.fresh(T.registry().pipe(Layer.provide(T.sqlite(filename)))))
      )
      assert.deepStrictEqual(
        hosts.map(({ fqdn }) => fqdn),
        [T.nameOf("web")]
      )
      const other = new DatabaseSync(filename)
      assert.strictEqual(other.prepare("PRAGMA journal_mode").get()!["journal_mode"], "wal")
      other.close()
    })
  )

  it.live("that cannot be opened says so", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-sqlite-")
      const exit = yield* Effect.exit(Layer.build(Sqlite.layer({ filename: `${folder}/missing/registry.db` })))
      assert.isTrue(Exit.isFailure(exit))
    })
  )
})

describe("a full disk", () => {
  it.effect("is told to who registers, leaves nothing half written, and is forgotten once there is room", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const registry = yield* Registry
      yield* registry.register(T.registration("before", "192.0.2.1"))
      const [pages] = yield* sql<{ readonly page_count: number }>`PRAGMA page_count`
      yield* sql.unsafe(`PRAGMA max_page_count = ${pages!.page_count}`)
      const exits = yield* Effect.forEach(
        Array.from({ length: 500 }, (_, i) => T.registration(`during-${i}`, "192.0.2.2")),
        (each) => Effect.exit(registry.register(each)),
        { concurrency: "unbounded" }
      )
      const failed = exits.filter(Exit.isFailure)
      assert.isAtLeast(failed.length, 400)
      for (const exit of failed) assert.match(String(exit.cause), /RegistryUnavailable.*full/s)
      yield* sql.unsafe("PRAGMA max_page_count = 1000000")
      assert.strictEqual((yield* registry.register(T.registration("after", "192.0.2.3"))).outcome, "created")
      const stored = 2 + exits.filter(Exit.isSuccess).length
      for (const table of ["host", "host_history", "audit_entry", "host_address"]) {
        const [row] = yield* sql<{ readonly n: number }>`SELECT COUNT(*) AS n FROM ${sql(table)}`
        assert.strictEqual(row!.n, stored, table)
      }
    }).pipe(Effect.provide(T.registry().pipe(Layer.provideMerge(T.sqlite()))))
  )
})

describe("a database that is opened to be read", () => {
  it.live("is left as it is, also while another process writes, and is not made where there is none", () =>
    Effect.gen(function* () {
      const filename = `${yield* temporaryFolder("prism-sqlite-")}/registry.db`
      const reader = Sqlite.layer({ filename, readOnly: true })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.scoped(Layer.build(reader)))))
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE t (a TEXT)`
        yield* sql`INSERT INTO t VALUES ('x')`
        yield* Effect.gen(function* () {
          const reading = yield* SqlClient.SqlClient
          assert.strictEqual(yield* count, 1)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(reading`INSERT INTO t VALUES ('y')`)))
          yield* sql`INSERT INTO t VALUES ('z')`
          assert.strictEqual(yield* count, 2)
        }).pipe(Effect.provide(Layer.fresh(reader)))
      }).pipe(Effect.provide(Sqlite.layer({ filename })))
      // The writer has gone.
      assert.strictEqual(yield* Effect.provide(count, Layer.fresh(reader)), 2)
    }).pipe(Effect.scoped)
  )
})
