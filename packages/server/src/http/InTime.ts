/**
 * Answers in time, also where what is waited for cannot be ended at once: a
 * query to a PostgreSQL that stands still takes seconds to be given up.
 */
import { type Duration, Effect, Fiber } from "effect"

/**
 * What `effect` gives, or `orElse` once `duration` has passed. Then, and when the caller is interrupted, `effect` is
 * interrupted too, but not waited for.
 */
export const inTime =
  <A2, E2, R2>(duration: Duration.Input, orElse: () => Effect.Effect<A2, E2, R2>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A | A2, E | E2, R | R2> =>
    Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) =>
      Fiber.join(fiber).pipe(
        Effect.onInterrupt(() => Effect.sync(() => fiber.interruptUnsafe())),
        Effect.timeoutOrElse({ duration, orElse })
      )
    )
