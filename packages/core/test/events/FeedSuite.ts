/** What those who follow the log are promised, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import * as Audit from "@prism-dns/core/audit/Entries"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { Feed, type FeedOptions } from "@prism-dns/core/events/Feed"
import { Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { write } from "../audit/SealerSuite.ts"
import * as Failovers from "../harness/Failovers.ts"
import { waitUntil } from "../harness/waitUntil.ts"

const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `h-${from + i}`)

/** Reads on from `position` until it has `count` events, and gives their ids and subjects. */
export const read = Effect.fnUntraced(function* (position: number, count: number) {
  const feed = yield* Feed
  const seen: Array<readonly [number, string]> = []
  let at = position
  while (seen.length < count) {
    const page = yield* feed.after(at)
    for (const { id, subject } of page.items) seen.push([id, subject])
    if (page.position === at) yield* feed.awaitBeyond(at)
    at = page.position
  }
  return seen
})

const expected = (from: number, to: number) => names(from, to).map((name, i) => [from + i, name] as const)

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const parts = (options: Partial<FeedOptions> = {}) =>
    Feed.layer({ retryMillis: 20, ...options }).pipe(
      Layer.provideMerge(Sealer.layer({ gatherMillis: 1 })),
      Layer.provideMerge(AuditLog.layer),
      Layer.provideMerge(Layer.merge(Cluster.layerAlone, Signals.layerNone)),
      Layer.provideMerge(database)
    )
  const test = (
    title: string,
    body: Effect.Effect<void, unknown, SqlClient.SqlClient | AuditLog | Sealer | Feed>,
    options: Partial<FeedOptions> = {}
  ) => it.effect(`${name}: ${title}`, () => body.pipe(Effect.provide(Layer.fresh(parts(options)))))

  test(
    "many read each event once and in order, from wherever they start, while others are written",
    Effect.gen(function* () {
      yield* write(...names(1, 30))
      yield* (yield* Sealer).drain
      yield* (yield* Feed).following
      const readers = yield* Effect.forEach([0, 0, 7, 30], (from) => Effect.forkScoped(read(from, 60 - from)))
      for (let i = 31; i <= 60; i++) yield* write(`h-${i}`)
      for (const [i, from] of [0, 0, 7, 30].entries()) {
        assert.deepStrictEqual(yield* Fiber.join(readers[i]!), expected(from + 1, 60))
      }
    }).pipe(Effect.scoped),
    { pageMax: 7, recentMax: 10 }
  )

  test(
    "who is further behind than memory reaches reads on from the log, and joins the others",
    Effect.gen(function* () {
      const feed = yield* Feed
      yield* feed.following
      const quick = yield* Effect.forkScoped(read(0, 100))
      for (let i = 1; i <= 100; i += 5) yield* write(...names(i, i + 4))
      assert.deepStrictEqual(yield* Fiber.join(quick), expected(1, 100))
      const slow = yield* Effect.forkScoped(read(3, 98))
      yield* write("h-101")
      assert.deepStrictEqual(yield* Fiber.join(slow), expected(4, 101))
    }).pipe(Effect.scoped),
    { pageMax: 10, recentMax: 10 }
  )

  test(
    "who comes after all others have left has missed nothing",
    Effect.gen(function* () {
      const feed = yield* Feed
      yield* write("h-1")
      yield* Effect.scoped(Effect.andThen(feed.following, read(0, 1)))
      yield* write("h-2", "h-3")
      yield* (yield* Sealer).drain
      assert.deepStrictEqual(yield* Effect.scoped(Effect.andThen(feed.following, read(1, 2))), expected(2, 3))
    })
  )

  test(
    "what retention took is named, at the beginning and when it overtakes a reader",
    Effect.gen(function* () {
      const feed = yield* Feed
      const sql = yield* SqlClient.SqlClient
      yield* write(...names(1, 20))
      yield* (yield* Sealer).drain
      assert.strictEqual(yield* feed.beginning, 0)
      yield* sql`DELETE FROM audit_log WHERE position <= 12`
      assert.strictEqual(yield* feed.beginning, 12)
      const page = yield* feed.after(5)
      assert.deepStrictEqual(page.gap, { from: 6, to: 12, reason: "retention" })
      assert.deepStrictEqual(
        page.items.map(({ id }) => id),
        [13, 14, 15, 16, 17, 18, 19, 20]
      )
      yield* sql`DELETE FROM audit_log`
      assert.deepStrictEqual(yield* feed.after(15), {
        gap: { from: 16, to: 20, reason: "retention" },
        items: [],
        position: 20
      })
      assert.deepStrictEqual(yield* feed.after(20), { gap: undefined, items: [], position: 20 })
      assert.strictEqual(yield* feed.beginning, 20)
    })
  )

  test(
    "whoever knows events that the log does not, as after a restored backup, is told so and goes on at its end",
    Effect.gen(function* () {
      yield* write("h-1", "h-2")
      yield* (yield* Sealer).drain
      assert.deepStrictEqual(yield* (yield* Feed).after(9), {
        gap: { from: 3, to: 9, reason: "restored" },
        items: [],
        position: 2
      })
    })
  )

  it.effect(`${name}: whoever follows when a database server takes over that lacks the last events is told so`, () => {
    const failover = Failovers.make()
    return Effect.gen(function* () {
      const feed = yield* Feed
      const sql = yield* SqlClient.SqlClient
      yield* feed.following
      for (const some of [names(1, 3), names(4, 5)]) {
        yield* write(...some)
        yield* (yield* Sealer).drain
      }
      assert.deepStrictEqual(yield* read(0, 5), expected(1, 5))
      const waiting = yield* Effect.forkScoped(feed.awaitBeyond(5), { startImmediately: true })
      yield* sql`DELETE FROM audit_log WHERE position > 3`
      yield* sql`DELETE FROM audit_seal WHERE last_position > 3`
      failover.move()
      yield* Fiber.join(waiting)
      const page = yield* feed.after(5)
      assert.deepStrictEqual(page, { gap: { from: 4, to: 5, reason: "restored" }, items: [], position: 3 })
      yield* write("h-6")
      assert.deepStrictEqual(yield* read(3, 1), [[4, "h-6"]])
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(parts().pipe(Layer.provide(failover.layer)))))
  })

  test(
    "the position of a time is before its first entry",
    Effect.gen(function* () {
      const feed = yield* Feed
      const sql = yield* SqlClient.SqlClient
      for (const [i, at] of [1000, 2000, 3000].entries()) {
        yield* Audit.write(sql, { actor: Audit.prism, action: "host.created", subject: `h-${i}`, atMillis: at })
      }
      yield* (yield* Sealer).drain
      assert.deepStrictEqual(yield* Effect.forEach([0, 2000, 2001, 3001], feed.before), [0, 1, 2, 3])
    })
  )

  test(
    "a page ends where it would become too large, and holds one event however large that is",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const after = { text: "x".repeat(3000) }
      const entry = (subject: string) => ({ actor: Audit.prism, action: "host.created" as const, subject, after })
      yield* Audit.writeAll(sql, names(1, 5).map(entry), 1000)
      yield* (yield* Sealer).drain
      yield* (yield* Feed).following
      const page = yield* (yield* Feed).after(0)
      assert.strictEqual(page.items.length, 1)
      assert.deepStrictEqual(yield* read(0, 5), expected(1, 5))
    }).pipe(Effect.scoped),
    { pageCharactersMax: 2000, recentCharactersMax: 5000 }
  )

  test(
    "an event is there only once its transaction has committed, and never where it rolls back",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const feed = yield* Feed
      const sealer = yield* Sealer
      yield* feed.following
      const go = yield* Deferred.make<void>()
      const written = yield* Deferred.make<void>()
      const change = (subject: string, outcome: Effect.Effect<void, string>) =>
        sql.withTransaction(write(subject).pipe(Effect.andThen(outcome)))
      const held = yield* Effect.forkScoped(
        change("h-1", Effect.andThen(Deferred.succeed(written, undefined), Deferred.await(go)))
      )
      yield* Deferred.await(written)
      // On SQLite nobody reads while somebody writes: there is one connection, and the look waits for the commit.
      const look = yield* Effect.forkScoped(Effect.andThen(sealer.drain, feed.after(0)))
      const isAlone = sql.onDialectOrElse({ pg: () => false, orElse: () => true })
      if (!isAlone) assert.deepStrictEqual((yield* Fiber.join(look)).items, [])
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(held)
      assert.deepStrictEqual(yield* read(0, 1), expected(1, 1))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(change("h-none", Effect.fail("no")))))
      yield* write("h-2")
      assert.deepStrictEqual(yield* read(1, 1), expected(2, 2))
    }).pipe(Effect.scoped)
  )

  test(
    "while nobody follows nothing is kept in memory, and afterwards too",
    Effect.gen(function* () {
      const feed = yield* Feed
      const log = yield* AuditLog
      yield* write(...names(1, 3))
      yield* (yield* Sealer).drain
      assert.strictEqual((yield* log.head).position, 3)
      yield* Effect.scoped(Effect.andThen(feed.following, read(0, 3)))
      yield* waitUntil("the page comes from the log", feed.after(0), ({ items }) => items.length === 3)
    })
  )
}
