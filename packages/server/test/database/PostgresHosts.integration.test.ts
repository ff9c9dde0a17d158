/** A client of two PostgreSQL servers, of which one takes writes. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import { Postgres } from "../../../core/test/harness/Postgres.ts"
import * as PostgresPair from "../../../core/test/harness/PostgresPair.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Failover } from "@prism-dns/core/storage/Failover"
import * as Loss from "@prism-dns/core/storage/Loss"
import * as PostgresHosts from "../../src/database/PostgresHosts.ts"
import * as PostgresUrl from "../../src/database/PostgresUrl.ts"

const open = Effect.fnUntraced(function* (url: string) {
  const services = yield* Layer.build(
    PostgresHosts.layer(Result.getOrThrow(PostgresUrl.parse(url)), {
      pool: { maxConnections: 4 },
      servers: { probeMillis: 200, answerMillisMax: 1000, startMillisMax: 3000 }
    })
  )
  const sql = Context.get(services, SqlClient.SqlClient)
  const write = (x: number) => sql`INSERT INTO t VALUES (${x})`
  const port = sql<{ readonly port: number }>`SELECT inet_server_port() AS port`.pipe(Effect.map(([row]) => row!.port))
  return { sql, write, port, failover: Context.get(services, Failover) }
})

const start = Effect.fnUntraced(function* (options: PostgresPair.PairOptions = {}) {
  const pair = yield* PostgresPair.make(options)
  const { database, url, urlOf } = yield* pair.createDatabase()
  yield* pair.one.query(database, "CREATE TABLE t (x int)")
  yield* pair.caughtUp(pair.one, pair.two)
  return { ...pair, database, url, urlOf }
})

describe("two PostgreSQL servers", () => {
  it.live("are told apart, and followed when the replica is promoted; the former primary is not written any more", () =>
    Effect.gen(function* () {
      const { database, one, two, url } = yield* start({ synchronous: true })
      const { failover, port, sql, write } = yield* open(url.replace(`${one.at},${two.at}`, `${two.at},${one.at}`))
      let moves = 0
      failover.onMoved(() => (moves += 1))
      assert.strictEqual(yield* port, one.port)
      yield* write(1)
      // A transaction that is under way when its server dies fails, and nothing of it is there.
      const undone = yield* Effect.gen(function* () {
        yield* write(2)
        yield* one.kill
        yield* write(3)
      }).pipe(sql.withTransaction, Effect.exit)
      assert.strictEqual(undone._tag, "Failure")
      yield* two.promote
      yield* waitUntil("it is written", write(4), () => true)
      assert.strictEqual(yield* port, two.port)
      assert.strictEqual(moves, 1)
      // It comes back and believes itself the primary; and even when the new one is away it is not written.
      yield* one.start
      yield* two.kill
      let refusals = 0
      yield* waitUntil(
        "it was tried often enough to have found the old one",
        Effect.flip(write(5)).pipe(Effect.map(() => (refusals += 1))),
        (tries) => tries > 10,
        { every: "100 millis" }
      )
      yield* two.start
      yield* waitUntil("it is written again", write(6), () => true)
      assert.strictEqual((yield* one.query(database, "SELECT x FROM t ORDER BY x")).trim(), "1")
      const kept = (yield* two.query(database, "SELECT x FROM t ORDER BY x")).trim().split("\n")
      assert.includeMembers(kept, ["1", "4", "6"])
      assert.notIncludeMembers(kept, ["2", "3"])
    }).pipe(Effect.scoped)
  )

  it.live("a frozen primary holds up nobody once the replica is promoted, and hears no more when it wakes up", () =>
    Effect.gen(function* () {
      const { database, one, two, url } = yield* start()
      const { port, write } = yield* open(url)
      yield* write(1)
      yield* Effect.gen(function* () {
        yield* one.freeze
        const waiting = yield* Effect.forkChild(Effect.exit(write(2)))
        yield* two.promote
        yield* waitUntil("it is written", Effect.timeout(write(3), "5 seconds"), () => true, { within: "20 seconds" })
        // Who waited for the frozen one was told.
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Failure")
        assert.strictEqual(yield* port, two.port)
      }).pipe(Effect.scoped)
      yield* write(4)
      assert.notInclude(yield* one.query(database, "SELECT x FROM t WHERE x > 2"), "4")
    }).pipe(Effect.scoped)
  )

  it.live("none of which takes writes, or that hold different databases, are refused with what each is", () =>
    Effect.gen(function* () {
      const { one, two, url } = yield* start()
      yield* one.kill
      const error = yield* Effect.flip(open(url))
      assert.match(
        error.message,
        new RegExp(`no PostgreSQL server takes writes: ${one.at} connect ECONNREFUSED .*; ${two.at} takes no writes`)
      )
      const other = yield* PostgresPair.make()
      yield* other.createDatabase()
      yield* one.start
      const mixed = yield* Effect.flip(open(url.replace(two.at, other.one.at)))
      assert.include(mixed.message, "the servers of the address hold different databases")
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("one address of a PostgreSQL", (it) => {
  it.effect("leads to another server once the one behind it takes no writes; what was opened before is given up", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { database, url } = yield* postgres.createDatabase()
      yield* postgres.query(database, "CREATE TABLE t (x int)")
      yield* postgres.query(database, `ALTER DATABASE "${database}" SET default_transaction_read_only = on`)
      const { failover, sql, write } = yield* open(url)
      assert.strictEqual(failover.patienceMillis, 0)
      // All of the pool are opened while it only reads.
      yield* Effect.all(
        [1, 2, 3, 4].map(() => sql`SELECT pg_sleep(0.2)`),
        { concurrency: "unbounded" }
      )
      yield* postgres.query("postgres", `ALTER DATABASE "${database}" RESET default_transaction_read_only`)
      const refused = yield* Effect.flip(sql.withTransaction(write(1)))
      assert.isTrue(Loss.isLost(refused))
      assert.isAbove(failover.patienceMillis, 0)
      const each = Effect.all([2, 3, 4, 5].map(write), { concurrency: "unbounded" })
      yield* waitUntil("all connections of the pool take writes", each, () => true)
    }).pipe(Effect.scoped)
  )

  it.effect("tells of another server by the timeline that is written", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { url } = yield* postgres.createDatabase()
      const { failover } = yield* open(url)
      let moves = 0
      failover.onMoved(() => (moves += 1))
      for (const timeline of ["00000001", "00000001", "00000002", "00000002"]) failover.saw?.(timeline)
      assert.strictEqual(moves, 1)
    }).pipe(Effect.scoped)
  )
})
