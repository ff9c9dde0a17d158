import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import { defaultOptions, Sealer } from "@prism-dns/core/audit/Sealer"
import * as T from "../layers.ts"
import { suite, write } from "./SealerSuite.ts"

suite("sealing on SQLite", it, T.sqlite())

/** No other server is there. */
const alone = Layer.merge(Cluster.layerAlone, Signals.layerNone)

const sealer = () =>
  Sealer.layer().pipe(Layer.provideMerge(AuditLog.layer), Layer.provideMerge(alone), Layer.provideMerge(T.sqlite()))

it.effect("what is committed is sealed within moments, and what others wrote within a second", () =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const log = yield* AuditLog
    yield* TestClock.adjust(defaultOptions.gatherMillis)
    const waiting = yield* Effect.forkChild(log.awaitBeyond(0), { startImmediately: true })
    yield* write("a")
    yield* TestClock.adjust(defaultOptions.gatherMillis)
    assert.strictEqual(yield* Fiber.join(waiting), 1)
    yield* sql`
      INSERT INTO audit_entry (at, actor, action, subject, generation) VALUES (5, 'alice', 'host.created', 'b', 1)`
    yield* TestClock.adjust(defaultOptions.pollMillis + defaultOptions.gatherMillis)
    assert.strictEqual((yield* log.head).position, 2)
  }).pipe(Effect.provide(sealer()))
)

it.effect("an entry of a transaction that is rolled back is never sealed", () =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* Effect.flip(sql.withTransaction(Effect.andThen(write("a"), Effect.fail("no"))))
    yield* write("b")
    yield* (yield* Sealer).drain
    assert.deepStrictEqual(
      (yield* (yield* AuditLog).after(0, 10)).map(({ subject }) => subject),
      ["b"]
    )
  }).pipe(Effect.provide(sealer()))
)

it.effect("what is not sealed when the server stops is sealed then", () =>
  Effect.gen(function* () {
    const log = yield* AuditLog
    yield* Effect.provide(write("a"), Layer.provide(Sealer.layer(), alone))
    assert.strictEqual((yield* log.head).position, 1)
  }).pipe(Effect.provide(AuditLog.layer.pipe(Layer.provideMerge(T.sqlite()))))
)
