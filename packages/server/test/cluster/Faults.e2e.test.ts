/**
 * Random faults of all parts, by seeds. Here a few; as many as wanted by
 * `./prism cluster`, which also cuts down what fails.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Faults from "./Faults.ts"
import { isFull } from "./Trial.ts"

const seeds = Array.from({ length: isFull ? 100 : 3 }, (_, i) => i + 1)
const millis = 15_000
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
