/**
 * Rates that several instances keep together, as if they were one.
 *
 * Each instance decides by buckets of its own, at once. What was taken from them
 * is exchanged in the background: an instance tells what it has let through, and
 * learns what is left after what all others have.
 *
 * Promises: with N instances, in any span of T seconds all of them together let
 * no more through than burst + rate * T + (N - 1) * A, where A is the most that
 * one lets through within two exchanges, its own and another's; what was too much
 * is made up for, so that A does not add up over the spans. Where nothing can be
 * exchanged, each counts for itself, and nothing is refused because of it. Leaves
 * to others: how it is exchanged. Where nothing is said of it, an instance counts
 * alone.
 */
import { Context, Effect, type Scope } from "effect"
import type { TokenBucket } from "./TokenBucket.ts"

/** Called when a bucket has something to tell. It must not wait. */
export type Touch = (key: string, bucket: TokenBucket) => void

export interface SharedRatesService {
  /**
   * Shares all buckets of a kind by their keys, until the scope ends. `nowMillis` is the clock of these buckets; undefined:
   * they are not shared.
   */
  readonly share: (kind: string, nowMillis: () => number) => Effect.Effect<Touch | undefined, never, Scope.Scope>
}

const none: SharedRatesService = { share: () => Effect.succeed(undefined) }

export class SharedRates extends Context.Reference<SharedRatesService>("@prism-dns/core/auth/SharedRates", {
  defaultValue: () => none
}) {}
