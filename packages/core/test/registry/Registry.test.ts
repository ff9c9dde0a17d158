import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"
import { suite } from "./RegistrySuite.ts"

suite("the registry on SQLite", it, T.sqlite())

describe("a database that does not answer", () => {
  it.effect("keeps nobody waiting for long, and is used again once it answers", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const registry = yield* Registry
      const register = (hostname: string) =>
        Effect.forkChild(Effect.flip(registry.register(T.registration(hostname, "192.0.2.1"))), {
          startImmediately: true
        })
      const silence = yield* Effect.forkChild(sql.withTransaction(Effect.never), { startImmediately: true })
      const first = yield* register("first")
      yield* TestClock.adjust("9 seconds")
      const second = yield* register("second")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      const third = yield* register("third")
      yield* TestClock.adjust("2 seconds")
      for (const fiber of [first, second, third]) {
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "RegistryUnavailable")
        assert.match(error.message, /has not answered for 10 s/)
      }
      yield* Fiber.interrupt(silence)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* registry.register(T.registration("fourth", "192.0.2.4"))).outcome, "created")
      // The first was stored in the end, which does no harm; nobody waits for its records.
      const stored = (yield* registry.list({ limit: 10 })).map(({ hostname }) => String(hostname))
      assert.deepStrictEqual(stored, ["first", "fourth"])
      assert.strictEqual((yield* Acknowledgements).size(), 1)
    }).pipe(Effect.provide(T.registry().pipe(Layer.provideMerge(T.sqlite()))))
  )
})
