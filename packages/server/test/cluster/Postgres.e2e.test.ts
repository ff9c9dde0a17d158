/** The PostgreSQL primary is killed, and its replica promoted. */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { nowMillis } from "./History.ts"
import * as Trial from "./Trial.ts"

/** From the promotion to registrations being taken, and zones written, again. */
const promisedMillis = 5000
/** How long there is none: whoever promotes needs a while to be sure. */
const outageMillis = Trial.isFull ? 10_000 : 2000

describe("the primary of PostgreSQL", () => {
  it.live(
    "is killed: within 5 s of the replica's promotion all goes on, and what was acknowledged is there",
    () =>
      Effect.gen(function* () {
        const trial = yield* Trial.begin({ servers: 2, replica: true })
        const { cluster, load } = trial
        yield* Trial.steady()
        yield* cluster.registry.kill
        yield* Effect.sleep(outageMillis)
        yield* cluster.registry.promote
        const since = nowMillis()
        const [answered, written] = yield* Effect.all(
          [
            waitUntil(
              "a change is acknowledged",
              Effect.sync(() =>
                load.history.requests
                  .flatMap(({ told }) => told)
                  .filter(({ atMillis, outcome }) => atMillis > since && outcome !== undefined && outcome !== "renewed")
              ),
              (told) => told.length > 0,
              { within: "60 seconds" }
            ),
            Trial.untilWritten(trial, cluster.zones, "nobody", since)
          ],
          { concurrency: "unbounded" }
        )
        Trial.within("promoted: a change is acknowledged", answered[0]!.atMillis - since, promisedMillis)
        Trial.within("promoted: zones are written", written, promisedMillis)
        yield* load.settled("60 seconds")
        yield* Trial.steady()
        yield* Trial.judge(trial)
      }).pipe(Effect.scoped),
    300_000
  )
})
