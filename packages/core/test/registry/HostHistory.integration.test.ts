import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Partitions from "@prism-dns/core/storage/Partitions"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { suite } from "./HostHistorySuite.ts"

/** All that a suite's registry lives through, by weeks. */
const partitioned = Layer.effectDiscard(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`DROP TABLE host_history_first`
    const week = 7 * Partitions.dayMillis
    for (const { name } of yield* Partitions.list(sql, Partitions.hostHistory)) yield* sql`DROP TABLE ${sql(name)}`
    for (let from = 0; from < 40 * week; from += week) {
      yield* Partitions.add(sql, Partitions.hostHistory, { from, to: from + week })
    }
  })
).pipe(Layer.orDie, Layer.provideMerge(T.postgres))

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("hosts as they were", it, T.postgres)
  suite("hosts as they were, over many partitions", it, partitioned, Partitions.dayMillis)
})
