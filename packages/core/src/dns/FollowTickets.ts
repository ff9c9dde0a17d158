/**
 * Changes of this server on their way to the DNS, where another server publishes
 * them.
 *
 * Whoever publishes says in which zones names have come further; here the open
 * tickets of those zones are looked up in the registry, the oldest first, as the
 * outbox has them. Nothing depends on being told: while tickets stay open they
 * are looked up each `pollMillis` too. One look rests as long as it took, so that
 * many open tickets cost the database a part of its time and no more.
 *
 * Leaves to others: who waits for a ticket, and how long (`dns/Acknowledgements`).
 */
import { Clock, Duration, Effect, Latch, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Signals } from "../cluster/Signals.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Acknowledgements, type Ticket } from "./Acknowledgements.ts"
import * as Progress from "./Progress.ts"

export interface FollowOptions {
  /** How often open tickets are looked up without being told, in milliseconds. */
  readonly pollMillis: number
  /** Records in one look. */
  readonly placesMax: number
  /** Between two looks at the least, in milliseconds. */
  readonly restMillisMin: number
}

export const defaultOptions: FollowOptions = { pollMillis: 1000, placesMax: 1000, restMillisMin: 20 }

/** Of the time, this part at the most goes into looks of one's own. */
const pollShare = 4

/** On a database of one's own whoever publishes is this server, which tells it all. */
export const layer = (options: Partial<FollowOptions> = {}) =>
  Layer.effectDiscard(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql.onDialectOrElse({ pg: () => run({ ...defaultOptions, ...options }), orElse: () => Effect.void })
    )
  )

const run = Effect.fnUntraced(function* (options: FollowOptions) {
  const sql = yield* SqlClient.SqlClient
  const signals = yield* Signals
  const acknowledgements = yield* Acknowledgements

  yield* acknowledgements.settled((zone) => signals.send("published", [zone]))

  /** Looks up `tickets`, some at a time; with `onlyWhile` until some have not come further. */
  const look = Effect.fnUntraced(function* (tickets: ReadonlyArray<Ticket>, onlyWhile: "further" | "always") {
    for (let at = 0; at < tickets.length;) {
      const some: Array<Ticket> = []
      let places = 0
      while (at < tickets.length && places < options.placesMax) {
        some.push(tickets[at]!)
        places += tickets[at]!.places.length
        at += 1
      }
      const progress = yield* Progress.find(sql, distinct(some))
      const further = acknowledgements.looked(some, progress, yield* Clock.currentTimeMillis)
      if (further === 0 && onlyWhile === "further") return
      yield* Effect.yieldNow
    }
  })

  const patiently = (effect: Effect.Effect<void, SqlError.SqlError>) =>
    effect.pipe(
      Effect.catch((error) =>
        Effect.logWarning("how far changes have come could not be looked up, will try again").pipe(
          Effect.annotateLogs({ reason: detailOf(error) })
        )
      ),
      Effect.timed,
      Effect.map(([took]) => Duration.toMillis(took))
    )

  const heard = new Set<DomainName>()
  let isAll = false
  const hasHeard = yield* Latch.make(false)
  yield* signals.listen("published", (zones) => {
    if (zones === "all") isAll = true
    else for (const zone of zones) heard.add(zone as DomainName)
    hasHeard.openUnsafe()
  })
  const follow = Effect.gen(function* () {
    yield* hasHeard.await
    hasHeard.closeUnsafe()
    const zones = isAll ? undefined : new Set<string>(heard)
    isAll = false
    heard.clear()
    const took = yield* patiently(look(acknowledgements.awaited(0, zones), "further"))
    yield* Effect.sleep(Math.max(options.restMillisMin, took))
  })

  const poll = Effect.gen(function* () {
    const took = yield* patiently(Effect.suspend(() => look(acknowledgements.awaited(options.pollMillis), "always")))
    yield* Effect.sleep(Math.max(options.pollMillis, took * pollShare))
  })

  yield* Effect.forkScoped(Effect.forever(follow))
  yield* Effect.forkScoped(Effect.forever(poll))
})

/** The records of tickets, each once. */
const distinct = (tickets: ReadonlyArray<Ticket>) => [
  ...new Map(tickets.flatMap(({ places }) => places.map((place) => [Progress.keyOf(place), place] as const))).values()
]
