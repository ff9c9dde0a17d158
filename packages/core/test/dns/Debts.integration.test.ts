import { assert, layer } from "@effect/vitest"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
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
})
