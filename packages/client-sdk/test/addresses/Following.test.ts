import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { integer, oneOf } from "../../../core/test/arbitraries.ts"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Following from "../../src/addresses/Following.ts"
import type { Snapshot } from "../../src/addresses/Snapshot.ts"

const options = { settleMillis: 3000, settleMaxMillis: 30_000 }

/** Looks `[at, address]` in turn; gives what was passed on. */
const told = (looks: ReadonlyArray<readonly [number, string]>): ReadonlyArray<readonly [number, string]> => {
  let state = Following.initial
  return looks.filter(([atMillis, address]) => {
    const addresses = address === "" ? [] : [IpAddress.make(address)]
    const next = Following.step(state, { addresses }, atMillis, options)
    state = next.state
    return next.tell
  })
}

describe("a change of addresses", () => {
  it("the first one is passed on at once", () => {
    assert.deepStrictEqual(told([[0, "192.0.2.1"]]), [[0, "192.0.2.1"]])
  })

  it("is passed on when it has stood for a while", () => {
    assert.deepStrictEqual(
      told([
        [0, "192.0.2.1"],
        [5000, "192.0.2.2"],
        [7000, "192.0.2.2"],
        [8000, "192.0.2.2"],
        [9000, "192.0.2.2"]
      ]),
      [
        [0, "192.0.2.1"],
        [8000, "192.0.2.2"]
      ]
    )
  })

  it("is none when all is as before within that time", () => {
    assert.deepStrictEqual(
      told([
        [0, "192.0.2.1"],
        [1000, "192.0.2.2"],
        [3000, "192.0.2.1"],
        [4500, "192.0.2.2"],
        [6000, "192.0.2.1"]
      ]),
      [[0, "192.0.2.1"]]
    )
  })

  it("no address at all is none", () => {
    assert.deepStrictEqual(
      told([
        [0, ""],
        [1000, "192.0.2.1"],
        [2000, ""],
        [90_000, ""],
        [91_000, "192.0.2.1"]
      ]),
      [[1000, "192.0.2.1"]]
    )
  })

  it("one that never settles is passed on after a longer while", () => {
    const looks = Array.from({ length: 40 }, (_, i) => [i * 1000, `192.0.2.${1 + i}`] as const)
    assert.deepStrictEqual(
      told(looks).map(([atMillis]) => atMillis),
      [0, 31_000]
    )
  })

  it("is passed on all the same when the clock is set back meanwhile", () => {
    assert.deepStrictEqual(
      told([
        [1_000_000, "192.0.2.1"],
        [1_001_000, "192.0.2.2"],
        [2000, "192.0.2.2"],
        [6000, "192.0.2.2"]
      ]),
      [
        [1_000_000, "192.0.2.1"],
        [6000, "192.0.2.2"]
      ]
    )
  })

  const looks = Arbitrary.array(Arbitrary.all([integer(0, 10_000), oneOf(["", "192.0.2.1", "192.0.2.2"])] as const), {
    minLength: 0,
    maxLength: 30
  })
  it.effect.prop("whatever has stood long enough has been passed on, once", { looks }, ({ looks }) =>
    Effect.sync(() => {
      let nowMillis = 0
      const at = looks.map(([millis, address]) => [(nowMillis += millis), address] as const)
      const last = at.findLast(([, address]) => address !== "")?.[1]
      const passedOn = told([
        ...at,
        ...(last === undefined ? [] : [0, 4000].map((millis) => [nowMillis + millis, last] as const))
      ])
      assert.strictEqual(passedOn.at(-1)?.[1], last)
      for (const [i, [, address]] of passedOn.entries()) assert.notStrictEqual(address, passedOn[i - 1]?.[1])
    })
  )
})

describe("following a machine", () => {
  it.effect("tells the first addresses and then each change, and not what comes and goes", () =>
    Effect.gen(function* () {
      const at = (address: string): Snapshot => ({
        interfaces: { eth0: [{ address, internal: false }] },
        links: undefined,
        inet6: [],
        defaultRoutes: []
      })
      let present = at("192.0.2.1")
      const heard: Array<string> = []
      const fiber = yield* Effect.forkChild(
        Following.follow({ read: () => present }, ({ addresses }) => Effect.sync(() => void heard.push(...addresses)))
      )
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(heard, ["192.0.2.1"])
      present = at("192.0.2.2")
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(heard, ["192.0.2.1"])
      present = at("192.0.2.3")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(heard, ["192.0.2.1", "192.0.2.3"])
      yield* Fiber.interrupt(fiber)
    })
  )
})
