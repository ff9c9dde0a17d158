import { assert, describe, it } from "@effect/vitest"
import * as Together from "@prism-dns/core/storage/Together"
import { Deferred, Effect, Exit, Fiber } from "effect"

/** A look that ends when it is told to, and what each one was asked for. */
const held = Effect.gen(function* () {
  const looks: Array<{ readonly keys: ReadonlyArray<string>; readonly end: Deferred.Deferred<void, string> }> = []
  const look = yield* Together.make(
    (keys: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const end = yield* Deferred.make<void, string>()
        looks.push({ keys, end })
        yield* Deferred.await(end)
        return new Set(keys)
      }),
    4
  )
  const ask = (...keys: ReadonlyArray<string>) => Effect.forkChild(look(keys), { startImmediately: true })
  const until = (count: number) =>
    Effect.gen(function* () {
      while (looks.length < count) yield* Effect.yieldNow
    })
  return { looks, ask, until }
})

describe("one look for many", () => {
  it.effect("who asks during a look shares the next one, with as many others as it has room for", () =>
    Effect.gen(function* () {
      const { ask, looks, until } = yield* held
      const first = yield* ask("a")
      yield* until(1)
      const others = [yield* ask("b", "c"), yield* ask("d"), yield* ask("e", "f"), yield* ask("g")]
      assert.deepStrictEqual(
        looks.map(({ keys }) => keys),
        [["a"]]
      )
      yield* Deferred.succeed(looks[0]!.end, undefined)
      assert.deepStrictEqual([...(yield* Fiber.join(first))], ["a"])
      yield* until(2)
      yield* Deferred.succeed(looks[1]!.end, undefined)
      yield* until(3)
      yield* Deferred.succeed(looks[2]!.end, undefined)
      for (const [i, key] of ["b", "d", "e", "g"].entries()) assert.isTrue((yield* Fiber.join(others[i]!)).has(key))
      assert.deepStrictEqual(
        looks.map(({ keys }) => keys),
        [["a"], ["b", "c", "d", "e", "f"], ["g"]]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a look that fails fails for all who shared it, and for nobody else", () =>
    Effect.gen(function* () {
      const { ask, looks, until } = yield* held
      const first = yield* ask("a")
      yield* until(1)
      const others = [yield* ask("b"), yield* ask("c")]
      yield* Deferred.succeed(looks[0]!.end, undefined)
      yield* until(2)
      yield* Deferred.fail(looks[1]!.end, "away")
      for (const other of others) assert.deepStrictEqual(yield* Fiber.await(other), Exit.fail("away"))
      assert.isTrue((yield* Fiber.join(first)).has("a"))
      const last = yield* ask("d")
      yield* until(3)
      yield* Deferred.succeed(looks[2]!.end, undefined)
      assert.isTrue((yield* Fiber.join(last)).has("d"))
    }).pipe(Effect.scoped)
  )

  it.effect("who goes away while it waits keeps nobody else from being answered", () =>
    Effect.gen(function* () {
      const { ask, looks, until } = yield* held
      const gone = yield* ask("a")
      yield* until(1)
      const stays = yield* ask("b")
      yield* Fiber.interrupt(gone)
      yield* Deferred.succeed(looks[0]!.end, undefined)
      yield* until(2)
      yield* Deferred.succeed(looks[1]!.end, undefined)
      assert.isTrue((yield* Fiber.join(stays)).has("b"))
    }).pipe(Effect.scoped)
  )
})
