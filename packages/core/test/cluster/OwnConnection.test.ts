/** The connection that proves that a server lives. */
import { assert, it } from "@effect/vitest"
import * as OwnConnection from "@prism-dns/core/cluster/OwnConnection"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as T from "../layers.ts"

it.effect("is opened once more beside an attempt that hangs, in time for a lease to be kept", () =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const opened: Array<number> = []
    const closed: Array<number> = []
    let attempts = 0
    const open = Effect.suspend(() => {
      const attempt = ++attempts
      // Into nowhere, as after a machine has gone; and then one that comes up late.
      if (attempt === 1) return Effect.never
      return Effect.acquireRelease(
        Effect.sync(() => {
          opened.push(attempt)
          return sql
        }),
        () => Effect.sync(() => void closed.push(attempt))
      )
    })
    const own = yield* OwnConnection.make(1000).pipe(
      Effect.provide(Layer.succeed(OwnConnection.OwnConnections, { open }))
    )
    const use = own.use((sql) => sql<{ readonly x: number }>`SELECT 1 AS x`)
    const first = yield* Effect.forkChild(use)
    yield* TestClock.adjust(999)
    assert.strictEqual(attempts, 1)
    yield* TestClock.adjust(1)
    assert.deepStrictEqual(yield* Fiber.join(first), [{ x: 1 }])
    // It is kept, and is the only one.
    yield* use
    assert.deepStrictEqual([opened, closed], [[2], []])
  }).pipe(Effect.scoped, Effect.provide(T.sqlite()))
)

it.effect("that cannot be opened says so at once", () =>
  Effect.gen(function* () {
    let attempts = 0
    const own = yield* OwnConnection.make(1000).pipe(
      Effect.provide(
        Layer.succeed(OwnConnection.OwnConnections, {
          open: Effect.suspend(() => {
            attempts += 1
            return Effect.die("refused")
          })
        })
      )
    )
    const exit = yield* Effect.exit(own.use(() => Effect.void))
    assert.strictEqual(exit._tag, "Failure")
    assert.strictEqual(attempts, 1)
  }).pipe(Effect.scoped)
)
