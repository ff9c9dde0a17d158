import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as RRset from "@prism-dns/core/domain/RRset"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"

const zone = T.forward
const rounds = 40
/** The same names in another order each round, the same in each run. */
const inOrder = (round: number) =>
  Array.from({ length: 211 }, (_, i) => T.nameOf(`h${(i * (round + 2) * 7) % 211}`)).map((name) => ({
    zone: zone.name,
    name
  }))

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect("who marks, publishes and looks what has elapsed at the same names waits, but not for each other", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const repeat = <A, E>(body: (round: number) => Effect.Effect<A, E>) =>
        Effect.forEach(
          Array.from({ length: rounds }, (_, i) => i),
          body,
          { discard: true }
        )
      const marking = repeat((round) =>
        sql.withTransaction(outbox.mark(inOrder(round), 1_000_000 + round, 1, "registered"))
      )
      const settling = repeat((round) =>
        Effect.gen(function* () {
          const due = yield* outbox.due(zone.name, 500)
          const marks = round % 2 === 0 ? due : due.toReversed()
          const rrsets = (name: (typeof marks)[number]["name"]) => [RRset.make(name, "A", 60, ["192.0.2.1"])]
          yield* outbox.settle(
            zone,
            marks.map(({ generation, name }) => ({ name, generation, rrsets: rrsets(name) })),
            1
          )
          yield* sql`UPDATE published SET doubt_until = 1 WHERE zone = ${zone.name} AND name = ${T.nameOf(`h${round}`)}`
        })
      )
      const elapsing = repeat((round) =>
        Effect.andThen(
          outbox.markElapsed(10, 5000),
          outbox.recheck(
            zone.name,
            inOrder(round + 1).map(({ name }) => name),
            1,
            "drift"
          )
        )
      )
      // A deadlock would fail one of them.
      yield* Effect.all([marking, settling, elapsing], { concurrency: "unbounded" })
    }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )
})
