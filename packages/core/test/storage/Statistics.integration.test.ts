import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { look } from "@prism-dns/core/storage/Statistics"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect("a table that has grown to a multiple is looked at anew, one that has not is left alone", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const rowsKnown = Effect.map(
        sql<{ readonly n: number }>`SELECT reltuples::int AS n FROM pg_class WHERE relname = 'outbox'`,
        ([row]) => row!.n
      )
      const fill = (from: number, count: number) => sql`
        INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at)
        SELECT 'z.', 'n' || i, 1, 'registered', 0, 1 FROM generate_series(${from}::int, ${from + count - 1}::int) i`
      const grown = waitUntil("a table has grown", look(sql), (names) => names.length > 0)

      yield* fill(1, 1000)
      assert.deepStrictEqual(yield* grown, ["outbox"])
      assert.strictEqual(yield* rowsKnown, 1000)
      yield* fill(1001, 6000)
      assert.deepStrictEqual(yield* grown, ["outbox"])
      assert.strictEqual(yield* rowsKnown, 7000)
      // A little more is no multiple.
      yield* fill(7001, 1000)
      yield* waitUntil(
        "what was written is counted",
        sql<{ readonly n: number }>`
          SELECT n_mod_since_analyze::int AS n FROM pg_stat_user_tables WHERE relname = 'outbox'`,
        ([row]) => row!.n === 1000
      )
      assert.deepStrictEqual(yield* look(sql), [])
    }).pipe(Effect.provide(Layer.fresh(T.postgres)))
  )
})
