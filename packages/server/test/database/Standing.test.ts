import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import { integer } from "../../../core/test/arbitraries.ts"
import * as Standing from "../../src/database/Standing.ts"

const primary = (timeline: number, more: Partial<Extract<Standing.Seen, { _tag: "Primary" }>> = {}): Standing.Seen => ({
  _tag: "Primary",
  system: "db",
  timeline,
  position: 100n,
  started: `of timeline ${timeline}`,
  ...more
})
const replica = (timeline: number, system = "db"): Standing.Seen => ({ _tag: "Replica", system, timeline })
const silent: Standing.Seen = { _tag: "Silent", detail: "connection refused" }

/** One of all that may be seen, by a number below 64. */
const seenOf = (word: number): Standing.Seen => {
  const timeline = 1 + (word & 3)
  switch ((word >> 2) & 3) {
    case 0:
      return silent
    case 1:
      return replica(timeline)
    default:
      return primary(timeline, { started: word & 16 ? "a" : "b", position: word & 32 ? 1n : 2n })
  }
}

/** What is known after each of `rounds`, one after another. */
const after = (...rounds: ReadonlyArray<ReadonlyArray<Standing.Seen>>) =>
  rounds.reduce<Standing.Choice>(({ known }, seen) => Standing.choose(known, seen), {
    known: Standing.nothingKnown,
    refused: new Map()
  })

describe("which server is written to", () => {
  it("the one that takes writes, wherever it stands in the address", () => {
    assert.strictEqual(after([primary(1), replica(1)]).known.current, 0)
    assert.strictEqual(after([replica(1), silent, primary(1)]).known.current, 2)
    assert.isUndefined(after([replica(1), silent]).known.current)
  })

  it("who was promoted, at once, whether the former one is silent, still claims to be it, or follows", () => {
    for (const former of [silent, primary(1), replica(1), replica(2)]) {
      const { known } = after([primary(1), replica(1)], [former, primary(2)])
      assert.strictEqual(known.current, 1)
    }
  })

  it("a replaced one that comes back is refused, also when the new one is away for a while", () => {
    const { known, refused } = after([primary(1), replica(1)], [silent, primary(2)], [primary(1), silent])
    assert.strictEqual(known.current, 1)
    assert.match(refused.get(0)!, /another one was promoted: it is on timeline 1, and timeline 2 is known/)
  })

  it("at a start the higher timeline counts, and a replica's word that there is one", () => {
    assert.strictEqual(after([primary(1), primary(2)]).known.current, 1)
    const { known, refused } = after([primary(1), replica(2)])
    assert.isUndefined(known.current)
    assert.match(refused.get(0)!, /timeline 2 is known/)
  })

  it("a silent one stays chosen, unless another timeline has begun without it", () => {
    assert.strictEqual(after([primary(1), replica(1)], [silent, replica(1)]).known.current, 0)
    assert.isUndefined(after([primary(1), replica(1)], [silent, replica(2)]).known.current)
    assert.isUndefined(after([primary(1), replica(1)], [replica(1), replica(1)]).known.current)
  })

  it("two on one timeline: the one that was written stays; nobody where none was", () => {
    const one = primary(2, { started: "one" })
    const two = primary(2, { started: "two" })
    const stays = after([one, replica(2)], [one, two])
    assert.strictEqual(stays.known.current, 0)
    assert.match(stays.refused.get(1)!, /two primaries on one timeline/)
    const none = after([one, two])
    assert.isUndefined(none.known.current)
    assert.strictEqual(none.refused.size, 2)
  })

  it("two ways to one server are one server", () => {
    const { known, refused } = after([primary(1), primary(1)])
    assert.strictEqual(known.current, 0)
    assert.strictEqual(refused.size, 0)
    const restarted = primary(1, { started: "later", position: 120n })
    assert.strictEqual(after([primary(1), primary(1)], [silent, restarted]).known.current, 1)
  })

  it("of another server on the same timeline what was written before must be there", () => {
    const { known, refused } = after(
      [primary(1, { position: 500n }), replica(1)],
      [silent, primary(1, { started: "elsewhere", position: 400n })]
    )
    assert.strictEqual(known.current, 0)
    assert.match(refused.get(1)!, /lacks what was written/)
  })

  it("another database is not written to, and none where they differ at the start", () => {
    const { known, refused } = after([primary(1), replica(1)], [silent, primary(9, { system: "other" })])
    assert.strictEqual(known.current, 0)
    assert.match(refused.get(1)!, /another database/)
    assert.isUndefined(after([primary(1), replica(1, "other")]).known.current)
  })

  it.prop(
    "never goes back: whatever is seen, the timeline that is written on only rises",
    {
      words: Arbitrary.array(Arbitrary.array(integer(0, 63), { minLength: 3, maxLength: 3 }), {
        minLength: 0,
        maxLength: 12
      })
    },
    ({ words }) => {
      let known = Standing.nothingKnown
      let written = 0
      for (const round of words.map((each) => each.map(seenOf))) {
        const choice = Standing.choose(known, round)
        known = choice.known
        if (known.current === undefined) continue
        assert.isFalse(choice.refused.has(known.current))
        assert.isAtLeast(known.currentTimeline, written)
        written = known.currentTimeline
        const chosen = round[known.current]!
        if (chosen._tag === "Primary") assert.strictEqual(chosen.timeline, known.timeline)
      }
    }
  )
})
