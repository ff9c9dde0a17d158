import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Outbox, writeServed } from "@prism-dns/core/dns/Outbox"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { meet } from "../harness/meet.ts"
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

/** `name` has come to have an address by which its generation is known. */
const settle = (outbox: Outbox["Service"], name: DomainName, generation: number) =>
  outbox.settle(zone, [{ name, generation, rrsets: [RRset.make(name, "A", 60, [`192.0.2.${generation}`])] }], 1)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect(
    "who marks, publishes, looks what has elapsed and what is served at the same names waits, but not for each other",
    () =>
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
            const rrsets = (name: (typeof marks)[number]["name"], i: number) =>
              (i + round) % 3 === 0 ? [] : [RRset.make(name, "A", 60, ["192.0.2.1"])]
            yield* outbox.settle(
              zone,
              marks.map(({ generation, name }, i) => ({ name, generation, rrsets: rrsets(name, i) })),
              1
            )
            yield* sql`UPDATE published SET doubt_until = 1 WHERE zone = ${zone.name} AND name = ${T.nameOf(`h${round}`)}`
          })
        )
        const elapsing = repeat((round) =>
          Effect.andThen(
            outbox.markElapsed(10, 5000, 15_000),
            outbox.recheck(
              zone.name,
              inOrder(round + 1).map(({ name }) => name),
              1,
              "drift"
            )
          )
        )
        const doubting = repeat((round) =>
          Effect.andThen(
            outbox.doubt(
              zone.name,
              inOrder(round + 2).map(({ name }) => name)
            ),
            outbox.endDoubts(zone.name, 1)
          )
        )
        const serving = repeat((round) =>
          writeServed(
            sql,
            inOrder(round + 3).map((place) => ({ ...place, generation: 1_000_000 + round, atMillis: 1, nodes: [] }))
          )
        )
        // A deadlock would fail one of them.
        yield* Effect.all([marking, settling, elapsing, doubting, serving], { concurrency: "unbounded" })
      }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect(
    "what is served is written down in the order in which it was settled: neither waits for the other that waits for it",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const outbox = yield* Outbox
        const name = T.nameOf("h1")
        yield* settle(outbox, name, 1)
        // A settlement writes what is published, and then what is unserved.
        yield* meet(
          sql`UPDATE published SET published_at = 2 WHERE name = ${name}`,
          writeServed(sql, [{ zone: zone.name, name, generation: 1, atMillis: 5, nodes: [["ns1", 5]] }]),
          sql`UPDATE unserved SET applied_at = 2 WHERE name = ${name}`
        )
        assert.deepStrictEqual(yield* sql`SELECT served_at::int, served_nodes FROM published`, [
          { served_at: 5, served_nodes: '[["ns1",5]]' }
        ])
        assert.deepStrictEqual(yield* sql`SELECT name FROM unserved`, [])
      }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect("names that are ours are counted, no further than is asked for", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const names = ["h1", "h2", "h3"].map(T.nameOf)
      yield* outbox.claim(
        zone.name,
        names.map((name) => ({ name, sent: [] })),
        1
      )
      const counts = yield* Effect.forEach([undefined, 2, 3, 4], (atMost) => outbox.countPublished(zone.name, atMost))
      assert.deepStrictEqual(counts, [3, 2, 3, 3])
      assert.strictEqual(yield* outbox.countPublished(T.reverse4.name, 2), 0)
    }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect("a settlement that waits for what is published holds no mark that a registration needs meanwhile", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const name = T.nameOf("h1")
      yield* settle(outbox, name, 1)
      yield* outbox.mark([{ zone: zone.name, name }], 2, 1, "registered")
      yield* meet(
        sql`UPDATE published SET published_at = 2 WHERE name = ${name}`,
        settle(outbox, name, 2),
        outbox.mark([{ zone: zone.name, name }], 3, 2, "registered")
      )
      // What was settled is older than what was marked meanwhile: the mark stands.
      assert.deepStrictEqual(yield* sql`SELECT name, generation::int FROM outbox`, [{ name, generation: 3 }])
      assert.deepStrictEqual(yield* sql`SELECT name, generation::int FROM published`, [{ name, generation: 2 }])
    }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )

  it.effect("the quarantine of a host that comes back at the moment it is over stays ended", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const outbox = yield* Outbox
      const name = T.nameOf("h1")
      yield* settle(outbox, name, 1)
      yield* sql`UPDATE published SET quarantined_until = 5 WHERE name = ${name}`
      yield* meet(
        sql`UPDATE published SET quarantined_until = NULL WHERE name = ${name}`,
        outbox.markElapsed(10, 100, 15_000),
        Effect.void
      )
      assert.deepStrictEqual(yield* sql`SELECT name, quarantined_until FROM published`, [
        { name, quarantined_until: null }
      ])
    }).pipe(Effect.provide(Layer.fresh(T.shared([zone]).pipe(Layer.provideMerge(T.postgres)))))
  )
})
