import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import * as T from "../layers.ts"
import { reasons, refusal, suite } from "./RefusalsSuite.ts"

suite("the audit of refusals on SQLite", it, T.sqlite())

it.effect("what was refused is in the audit within a second", () =>
  Effect.gen(function* () {
    const { record } = yield* Refusals
    for (let count = 1; count <= 3; count++) {
      record(refusal)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* reasons).length, count)
    }
  }).pipe(Effect.provide(Refusals.layer().pipe(Layer.provideMerge(T.sqlite()))))
)

it.effect("what goes wrong once and should not ends the audit for no longer than it lasts", () =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { record } = yield* Refusals
    yield* sql`DELETE FROM registry_generation`
    record(refusal)
    yield* TestClock.adjust("1 second")
    yield* sql`INSERT INTO registry_generation (value) VALUES (7)`
    yield* TestClock.adjust("1 second")
    assert.deepStrictEqual(yield* reasons, ["name-reserved: 'wpad' is reserved"])
  }).pipe(Effect.provide(Refusals.layer().pipe(Layer.provideMerge(T.sqlite()))))
)
