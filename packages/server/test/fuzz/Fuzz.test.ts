import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fuzz from "./Fuzz.ts"

describe("bytes that are almost right", () => {
  // The full million: ./prism fuzz
  it.live(
    "100,000 in the process and 2,000 through sockets crash nothing, leave nothing, and good clients are answered",
    () =>
      Effect.gen(function* () {
        const report = yield* Fuzz.run({ seed: "suite", cases: 100_000, socketCases: 2000 })
        assert.deepStrictEqual(report.failures, [])
      }),
    120_000
  )
})
