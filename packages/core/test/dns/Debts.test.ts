import { assert, describe, it } from "@effect/vitest"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Effect } from "effect"
import * as T from "../layers.ts"
import { debts, one, owed, suite, zone } from "./DebtsSuite.ts"

describe("what databases lack", () => {
  suite(it, T.sqlite())

  it.effect("is still owed by one that is not configured for a while, and is filled anew then", () =>
    Effect.gen(function* () {
      const known = Effect.flatMap(Debts, (debts) => debts.isKnown("b", zone))
      yield* Effect.gen(function* () {
        const debts = yield* Debts
        yield* debts.owe(zone, ["b"], [{ name: one, generation: 1, types: ["A"], unseen: false }])
        yield* debts.know("a", zone)
        yield* debts.know("b", zone)
        yield* debts.know("b", zone)
        assert.isTrue(yield* known)
      }).pipe(Effect.provide(debts("a", "b")))
      yield* Effect.provide(Effect.void, debts("a"))
      yield* Effect.gen(function* () {
        assert.isFalse(yield* known)
        assert.lengthOf(yield* owed("b"), 1)
      }).pipe(Effect.provide(debts("a", "b")))
    }).pipe(Effect.provide(T.sqlite()))
  )
})
