/**
 * How often one caller may ask: a bucket of permits for each, for reads and
 * for changes apart, and one for each address that fails to prove who it is.
 *
 * Promises: costs the way of a request next to nothing, and holds a bounded
 * number of buckets, of which the longest unused is forgotten. In memory, and
 * shared with other instances where they can be (`auth/SharedRates`). Leaves to
 * others: who the caller is, and saying 429.
 */
import { Buckets } from "@prism-dns/core/auth/Buckets"
import { SharedRates } from "@prism-dns/core/auth/SharedRates"
import type { Rate, TokenBucket } from "@prism-dns/core/auth/TokenBucket"
import { Clock, Context, Effect, Layer, Metric } from "effect"
import * as HttpMetrics from "./HttpMetrics.ts"

export interface RateLimitOptions {
  /** Of one caller: requests that change nothing. */
  readonly reads: Rate
  /** Of one caller: all others. */
  readonly changes: Rate
  /** Of one address: requests without a proof that is good here. */
  readonly failures: Rate
  /** Callers, and addresses, that are counted at once. */
  readonly callersMax: number
}

/** Far above what people and scripts do, and below what would crowd out others. */
export const defaultOptions: RateLimitOptions = {
  reads: { ratePerSecond: 2000, burst: 10_000 },
  changes: { ratePerSecond: 500, burst: 5000 },
  failures: { ratePerSecond: 10, burst: 500 },
  callersMax: 10_000
}

export type Policy = "reads" | "changes" | "failures"

export interface Taken {
  /** Until the next one may succeed; 0: this one may go on. */
  readonly waitSeconds: number
  /** What the answer says of it: `RateLimit` and `RateLimit-Policy`. */
  readonly headers: Readonly<Record<string, string>>
}

export class RateLimits extends Context.Service<
  RateLimits,
  {
    /** Takes a permit of the bucket that `whose` has under `policy`. */
    readonly take: (policy: Policy, whose: string) => Taken
    /** Takes one where there is one, at this time by the monotonic clock; else undefined, and nothing is counted. */
    readonly takeOpen: (policy: Policy, whose: string, nowMillis: number) => Taken["headers"] | undefined
    /** Whether `takeOpen` would find one. */
    readonly isOpen: (policy: Policy, whose: string, nowMillis: number) => boolean
  }
>()("@prism-dns/server/http/RateLimits") {
  static readonly layer = (options: Partial<RateLimitOptions> = {}) =>
    Layer.effect(RateLimits, make({ ...defaultOptions, ...options }))
}

/** As draft-ietf-httpapi-ratelimit-headers-10 says: how much at once, and in how many seconds that much comes back. */
const policyHeader = (policy: Policy, { burst, ratePerSecond }: Rate): string =>
  `"${policy}";q=${burst};w=${Math.max(1, Math.ceil(burst / ratePerSecond))}`

const make = Effect.fnUntraced(function* (options: RateLimitOptions) {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const shared = yield* SharedRates
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const kept = Effect.fnUntraced(function* (policy: Policy) {
    const metric = Metric.withAttributes(HttpMetrics.callers, { policy })
    const refused = Metric.withAttributes(HttpMetrics.rateLimited, { policy })
    const touch = yield* shared.share(`api-${policy}`, now)
    return {
      rate: options[policy],
      header: policyHeader(policy, options[policy]),
      buckets: new Buckets(options.callersMax, (size) => metric.updateUnsafe(size, context), touch),
      refuse: () => refused.updateUnsafe(1, context)
    }
  })
  const policies = { reads: yield* kept("reads"), changes: yield* kept("changes"), failures: yield* kept("failures") }

  const headersOf = (policy: Policy, { header }: (typeof policies)[Policy], bucket: TokenBucket): Taken["headers"] => ({
    "ratelimit-policy": header,
    ratelimit: `"${policy}";r=${bucket.remaining};t=${Math.ceil(bucket.secondsToFull)}`
  })

  return RateLimits.of({
    isOpen: (policy, whose, nowMillis) => {
      const { buckets, rate } = policies[policy]
      return buckets.get(whose, rate, nowMillis).waitSeconds(nowMillis) === 0
    },
    takeOpen: (policy, whose, nowMillis) => {
      const of = policies[policy]
      const bucket = of.buckets.get(whose, of.rate, nowMillis)
      return bucket.take(nowMillis) > 0 ? undefined : headersOf(policy, of, bucket)
    },
    take: (policy, whose) => {
      const of = policies[policy]
      const nowMillis = now()
      const bucket = of.buckets.get(whose, of.rate, nowMillis)
      const waitSeconds = bucket.take(nowMillis)
      if (waitSeconds > 0) of.refuse()
      return { waitSeconds, headers: headersOf(policy, of, bucket) }
    }
  })
})

/** Whose bucket an address takes from: an IPv6 one shares that of its /64, which one machine usually has. */
export const peerOf = (address: string | undefined): string => {
  if (address === undefined) return "unknown"
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped !== null) return mapped[1]!
  if (!address.includes(":")) return address
  const [head = "", tail] = address.split("%")[0]!.toLowerCase().split("::")
  const front = head === "" ? [] : head.split(":")
  const back = tail === undefined || tail === "" ? [] : tail.split(":")
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - front.length - back.length)
  return [...front, ...Array.from({ length: zeros }, () => "0"), ...back].slice(0, 4).join(":")
}
