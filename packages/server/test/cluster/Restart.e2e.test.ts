/** All servers end at once and come back, while every host wants its place again. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Trial from "./Trial.ts"

const all = { concurrency: "unbounded", discard: true } as const

describe("all servers at once", () => {
  it.live(
    "are killed and come back: no live host is lost or expires, and none that was released comes back",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2 })
        const { cluster, load } = trial
        yield* Trial.steady()
        const released = load.agents.filter(({ wanted }) => wanted.length === 0).length
        assert.isAbove(released, 0)
        yield* Effect.forEach(cluster.servers, ({ kill }) => kill, all)
        yield* Effect.forEach(cluster.servers, ({ start }) => start, all)
        yield* Trial.steady()
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    300_000
  )
})
