/** How often a zone is written. */
import { assert, describe, it } from "@effect/vitest"
import * as Pace from "../../src/dns/Pace.ts"

/** When writes begin that come as soon as they may, each of which takes `tookMillis`. */
const writes = (count: number, perSecond: number, tookMillis: number): ReadonlyArray<number> => {
  const begun: Array<number> = []
  let pace = Pace.begin
  let now = 1_000_000
  for (let i = 0; i < count; i++) {
    begun.push(now)
    now += tookMillis
    const next = Pace.after(pace, now, perSecond)
    pace = next.pace
    now += next.restMillis
  }
  return begun
}

describe("the pace of a zone", () => {
  it("a zone that was quiet is written a few times without a rest, and then so often in a second", () => {
    const begun = writes(60, 10, 5)
    const between = begun.slice(1).map((at, i) => at - begun[i]!)
    assert.deepStrictEqual(
      between.slice(0, Pace.burst),
      Array.from({ length: Pace.burst }, () => 5)
    )
    const later = between.slice(-20).reduce((a, b) => a + b) / 20
    assert.closeTo(later, 100, 1)
  })

  it("writes that take longer than the time between them have no rest", () => {
    const begun = writes(20, 10, 150)
    assert.deepStrictEqual(
      begun.slice(1).map((at, i) => at - begun[i]!),
      Array.from({ length: 19 }, () => 150)
    )
  })

  it("no rest is longer than the time between two writes, whatever the clock does", () => {
    let state = 7
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor((state / 2 ** 32) * below)
    }
    for (let run = 0; run < 500; run++) {
      const perSecond = 1 + random(1000)
      let pace = Pace.begin
      let now = 1_800_000_000_000
      for (let step = 0; step < 50; step++) {
        now += random(3) === 0 ? random(20_000_000) - 10_000_000 : random(50)
        const next = Pace.after(pace, now, perSecond)
        assert.isAtLeast(next.restMillis, 0)
        assert.isAtMost(next.restMillis, 1000 / perSecond)
        pace = next.pace
      }
    }
  })
})
