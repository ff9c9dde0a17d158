/** A Redis beside the servers is killed, stands still and comes back empty: nobody notices but the metrics. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Trial from "./Trial.ts"

describe("the Redis of a cluster", () => {
  it.live(
    "is killed, stands still and comes back: no host notices, and the metrics say so",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2, redis: true })
        const { cluster, load } = trial
        const redis = cluster.redis!
        const untilConnected = (value: number) =>
          Effect.forEach(
            cluster.servers,
            (server) =>
              waitUntil(
                `${server.name} says ${value} of Redis`,
                Effect.map(
                  cluster.get("/metrics", server),
                  (text) => /^prism_redis_connected (.*)$/m.exec(String(text))?.[1]
                ),
                (seen) => seen === `${value}`,
                { within: "20 seconds", every: "100 millis" }
              ),
            { concurrency: "unbounded", discard: true }
          )
        yield* untilConnected(1)
        // In full the crowd that comes at the start keeps some beats waiting.
        yield* load.settled("60 seconds")
        yield* Trial.steady()
        const before = { away: load.history.away.length, requests: load.history.requests.length }
        yield* redis.kill
        yield* untilConnected(0)
        yield* Trial.steady()
        yield* redis.start
        yield* untilConnected(1)
        yield* redis.freeze
        yield* untilConnected(0)
        yield* Trial.steady()
        yield* redis.thaw
        yield* untilConnected(1)
        yield* load.pause
        yield* load.settled()
        assert.strictEqual(
          load.history.away.length,
          before.away,
          `hosts lost their sessions: ${Trial.whys(load, before.away)}`
        )
        assert.deepStrictEqual(load.errors, [])
        assert.deepStrictEqual(
          load.history.requests
            .slice(before.requests)
            .filter(({ lostMillis, refused }) => lostMillis !== undefined || refused !== undefined),
          []
        )
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    300_000
  )
})
