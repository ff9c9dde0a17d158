/**
 * Random faults of all parts, by seeds. Here a few; as many as wanted by
 * `./prism cluster`, which also cuts down what fails.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Faults from "./Faults.ts"
import { isFull } from "./Trial.ts"

/** Of the few, one has what stands still, is cut off and is stopped; one a wrong clock and a lost database; one cuts of all kinds. */
const seeds = isFull ? Array.from({ length: 100 }, (_, i) => i + 1) : [9, 22, 31]
const millis = 12_000
const options = { servers: 2, redis: false }

describe("a cluster under faults that come by chance", () => {
  for (const seed of seeds) {
    it.live(
      `keeps what it told its clients, by seed ${seed}`,
      () =>
        Effect.gen(function* () {
          const outcome = yield* Faults.runSeed(seed, millis, options)
          assert.isFalse(Faults.isBroken(outcome), `${Faults.report(outcome)}\n\nAgain: ${Faults.commandOf(outcome)}`)
        }),
      300_000
    )
  }
})
