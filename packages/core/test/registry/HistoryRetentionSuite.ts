/** What the retention of hosts' history promises, on whatever database. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import * as HistoryRetention from "@prism-dns/core/registry/HistoryRetention"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as Partitions from "@prism-dns/core/storage/Partitions"
import * as PartitionsAhead from "@prism-dns/core/storage/PartitionsAhead"
import * as T from "../layers.ts"

const day = Partitions.dayMillis
const begin = 700 * 28 * day
const keepMillis = 10 * day
const ops = { name: "ops", peer: undefined }

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = <E>(
    title: string,
    body: Effect.Effect<void, E, Registry | HostHistory | SqlClient.SqlClient | T.Time>
  ) =>
    it.effect(`${name}: ${title}`, () =>
      T.withTime(
        "still",
        Effect.gen(function* () {
          yield* (yield* T.Time).set(begin)
          const services = Layer.merge(T.registry(), HostHistory.layer).pipe(Layer.provideMerge(Layer.fresh(database)))
          yield* Effect.provide(body, services)
        })
      ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )

  /** A hundred days: one host that stays as it is, one that changes each day, one that is released, with a new one each week. */
  const live = Effect.gen(function* () {
    const registry = yield* Registry
    const time = yield* T.Time
    const ahead = yield* PartitionsAhead.make({ historyKeepMillis: keepMillis })
    yield* registry.register(T.registration("stays", "192.0.2.1", "fleet"))
    for (let i = 1; i <= 100; i++) {
      yield* time.set(begin + i * day)
      yield* ahead
      yield* registry.register(T.registration("changes", `192.0.2.${i + 10}`, "fleet"))
      if (i % 7 === 1) yield* registry.register(T.registration("goes", "192.0.2.250", "fleet"))
      if (i % 7 === 4) yield* registry.release(T.nameOf("goes"), ops, "test")
    }
  })

  const lists = (from: number) =>
    Effect.flatMap(HostHistory, (history) =>
      Effect.forEach(
        Array.from({ length: Math.floor((begin + 100 * day - from) / (day / 4)) }, (_, i) => from + i * (day / 4)),
        (atMillis) => Effect.map(history.list({ limit: 10 }, atMillis), ({ hosts }) => hosts)
      )
    )

  const count = Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ readonly count: number | bigint }>`SELECT COUNT(*) AS count FROM host_history`, ([row]) =>
      Number(row!.count)
    )
  )

  test(
    "what ended before goes, and what hosts were since then is known as before",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* live
      const sinceMillis = begin + 90 * day
      const before = yield* lists(sinceMillis)
      const all = yield* count
      const retention = yield* HistoryRetention.make({ keepMillis, restMillis: 0, pieceMax: 7 })
      assert.strictEqual(yield* HistoryRetention.startOf(sql), 0)
      yield* retention
      const left = yield* count
      assert.isBelow(left, 20)
      assert.isAbove(all, 100)
      assert.deepStrictEqual(yield* lists(sinceMillis), before)
      const [stays] = before[0]!.filter(({ fqdn }) => fqdn === T.nameOf("stays"))
      assert.strictEqual(stays?.fromMillis, begin, "however long ago it began")
      assert.strictEqual(yield* HistoryRetention.startOf(sql), sinceMillis)
      yield* retention
      assert.strictEqual(yield* count, left)
    })
  )

  test(
    "for ever is for ever",
    Effect.gen(function* () {
      yield* live
      const all = yield* count
      yield* yield* HistoryRetention.make()
      assert.strictEqual(yield* count, all)
    })
  )
}
