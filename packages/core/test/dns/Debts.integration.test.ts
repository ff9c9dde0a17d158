import { assert, layer } from "@effect/vitest"
import { Debts } from "@prism-dns/core/dns/Debts"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { debts, one, owed, suite, zone } from "./DebtsSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite(it, T.postgres)

  it.effect("what was looked at while the name is published anew stays looked at, and no type is lost", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const debts = yield* Debts
      const owe = (generation: number, types: ReadonlyArray<string>) =>
        sql.withTransaction(debts.owe(zone, ["b"], [{ name: one, generation, types, unseen: true }]))
      yield* owe(1, ["A"])
      const isLooked = yield* Deferred.make<void>()
      const mayEnd = yield* Deferred.make<void>()
      // Whoever pays has looked, and has not committed that yet.
      const paying = yield* debts
        .seen("b", zone, [one])
        .pipe(
          Effect.andThen(owe(2, ["TXT"])),
          Effect.andThen(Deferred.succeed(isLooked, undefined)),
          Effect.andThen(Deferred.await(mayEnd)),
          sql.withTransaction,
          Effect.forkChild
        )
      yield* Deferred.await(isLooked)
      const publishing = yield* Effect.forkChild(owe(3, ["AAAA"]))
      yield* waitUntil(
        "the publisher waits for the row",
        sql<{
          readonly n: number
        }>`SELECT COUNT(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`,
        (rows) => rows[0]?.n === 1
      )
      yield* Deferred.succeed(mayEnd, undefined)
      yield* Fiber.join(paying)
      yield* Fiber.join(publishing)
      assert.deepStrictEqual(yield* owed("b"), [
        { name: one, generation: 3, types: ["A", "AAAA", "TXT"], unseen: false }
      ])
    }).pipe(Effect.provide(debts("a", "b").pipe(Layer.provideMerge(T.postgres))))
  )

  it.effect("those who publish a zone and those who pay it wait for each other one way only", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const debts = yield* Debts
      const names = ["one", "three", "two"].map(T.nameOf)
      const owe = (names: ReadonlyArray<DomainName>) =>
        debts.owe(
          zone,
          ["b"],
          names.map((name) => ({ name, generation: 1, types: ["A"], unseen: true }))
        )
      const untilWaiting = (count: number) =>
        waitUntil(
          `${count} wait for a row`,
          sql<{
            readonly n: number
          }>`SELECT COUNT(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`,
          (rows) => rows[0]?.n === count
        )
      // The last one by name is the first one in the table, and comes first where nothing else is said.
      for (const name of names.toReversed()) yield* owe([name])
      const payings = [
        debts.seen("b", zone, names),
        debts.clear(
          "b",
          zone,
          names.map((name) => ({ name, generation: 1 }))
        )
      ]
      for (const pay of payings) {
        const isHeld = yield* Deferred.make<void>()
        const mayEnd = yield* Deferred.make<void>()
        const holding = yield* owe(names.slice(1, 2)).pipe(
          Effect.andThen(Deferred.succeed(isHeld, undefined)),
          Effect.andThen(Deferred.await(mayEnd)),
          sql.withTransaction,
          Effect.forkChild
        )
        yield* Deferred.await(isHeld)
        const paying = yield* sql`SET LOCAL enable_indexscan = off`.pipe(
          Effect.andThen(sql`SET LOCAL enable_bitmapscan = off`),
          Effect.andThen(pay),
          sql.withTransaction,
          Effect.forkChild
        )
        yield* untilWaiting(1)
        const publishing = yield* Effect.forkChild(sql.withTransaction(owe(names)))
        yield* untilWaiting(2)
        yield* Deferred.succeed(mayEnd, undefined)
        // With a deadlock one of them would fail.
        for (const each of [holding, paying, publishing]) yield* Fiber.join<void | boolean, SqlError.SqlError>(each)
      }
    }).pipe(Effect.provide(debts("a", "b").pipe(Layer.provideMerge(T.postgres))))
  )
})
