/**
 * Until when a server may be written to: a write is begun only while its guard
 * says so, and is cut off when that ends before its answer.
 *
 * Whoever writes a zone under a lease puts it around all that it does there
 * (`cluster/Cluster`, `Held`). Without one writes are allowed.
 */
import { Context, Effect } from "effect"

export interface WriteGuard {
  /** Whether a write may be begun at this moment. */
  readonly isValid: () => boolean
  /** How long it may go on from now, as far as is known, in milliseconds. It may be longer when asked again. */
  readonly remainingMillis: () => number
}

export const WriteGuard = Context.Reference<WriteGuard | undefined>("@prism-dns/core/powerdns/WriteGuard", {
  defaultValue: () => undefined
})

/** Ends when the guard does. */
export const awaitEnd = (guard: WriteGuard): Effect.Effect<void> =>
  Effect.suspend(() => {
    const left = guard.remainingMillis()
    if (left <= 0) return Effect.void
    if (left === Number.POSITIVE_INFINITY) return Effect.never
    return Effect.andThen(Effect.sleep(left), awaitEnd(guard))
  })
