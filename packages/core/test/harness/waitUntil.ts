/**
 * Waiting for a condition of the real world, instead of sleeping.
 *
 * Promises: ends within its deadline; a failure says what was waited for and
 * what was seen last. Use with `it.live`: under a test clock time stands still.
 */
import { Cause, Clock, Duration, Effect, Exit } from "effect"
import { inspect } from "node:util"

/** The condition did not hold in time. */
export class WaitedInVain extends Error {
  override readonly name = "WaitedInVain"
}

/**
 * Runs `look` until `holds` is true of what it gives, and gives that. A failing `look` is a thing seen, like any other.
 * Default: within 20 s, a look each 10 ms: a machine with much else to do may stand for seconds, and who does not wait in vain
 * waits no longer for it.
 */
export const waitUntil = Effect.fnUntraced(function* <A, E, R>(
  what: string,
  look: Effect.Effect<A, E, R>,
  holds: (seen: A) => boolean,
  options?: { readonly within?: Duration.Input; readonly every?: Duration.Input }
) {
  const within = Duration.fromInputUnsafe(options?.within ?? "20 seconds")
  const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(within)
  /** The look before, since the last one may be cut short by the deadline. */
  let before: Exit.Exit<A, E> | undefined
  while (true) {
    const left = deadline - (yield* Clock.currentTimeMillis)
    const exit = yield* Effect.exit(
      Effect.timeoutOrElse(look, {
        duration: Math.max(left, 1),
        orElse: () => Effect.die(new Error("the look itself took until the deadline"))
      })
    )
    if (Exit.isSuccess(exit) && holds(exit.value)) return exit.value
    if ((yield* Clock.currentTimeMillis) >= deadline) {
      const seen = before === undefined ? words(exit) : `${words(exit)}; before that: ${words(before)}`
      return yield* Effect.die(
        new WaitedInVain(`waited ${Duration.format(within)} in vain until ${what}; last seen: ${seen}`)
      )
    }
    before = exit
    yield* Effect.sleep(options?.every ?? "10 millis")
  }
})

const words = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit) ? inspect(exit.value, { depth: 6 }) : Cause.pretty(exit.cause)
