/**
 * Rates that instances share by Redis (`auth/SharedRates`).
 *
 * For each rate there is one bucket in Redis, which knows what all instances
 * have taken. Each `exchangeMillis` an instance tells what it took since, a few
 * hundred buckets in one script, and learns what is left. A bucket is forgotten
 * there when it is full, so there are no more than have been used of late.
 *
 * Promises: whoever takes a permit never waits for any of it. What could not be
 * told is forgotten: told twice it would be refused to somebody. A Redis that
 * begins empty takes what an instance knows.
 */
import { SharedRates } from "@prism-dns/core/auth/SharedRates"
import type { TokenBucket } from "@prism-dns/core/auth/TokenBucket"
import { Effect, Layer, Metric } from "effect"
import { RedisLink, script } from "./RedisLink.ts"
import * as RedisMetrics from "./RedisMetrics.ts"

export interface RatesOptions {
  /** Of all keys. */
  readonly prefix: string
  readonly exchangeMillis?: number
  /** Buckets in one script: one takes about 3 µs there. */
  readonly batchMax?: number
  /** Buckets of a kind that wait to be told; what is beyond it is not. */
  readonly touchedMax?: number
}

const defaults = { exchangeMillis: 100, batchMax: 500, touchedMax: 100_000 }

/**
 * For each key four arguments: what was taken, what is left at who tells it, permits per millisecond, and the burst. The
 * answer has what is left for all, in thousandths. Redis has one clock for all of them.
 */
const exchange = script(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local left = {}
for i, key in ipairs(KEYS) do
  local taken, permits = tonumber(ARGV[i * 4 - 3]), tonumber(ARGV[i * 4 - 2])
  local perMilli, burst = tonumber(ARGV[i * 4 - 1]), tonumber(ARGV[i * 4])
  local known = redis.call('GET', key)
  local was, at = string.match(known or '', '^(%S+) (%d+)$')
  if was then
    local elapsed = math.max(0, now - tonumber(at))
    permits = math.min(burst, math.min(burst, tonumber(was) + elapsed * perMilli) - taken)
  end
  local millis = math.ceil((burst - permits) / perMilli)
  if millis > 0 then
    redis.call('SET', key, string.format('%.3f %.0f', permits, now), 'PX', string.format('%.0f', millis))
  elseif known then
    redis.call('DEL', key)
  end
  left[i] = math.floor(permits * 1000)
end
return left
`)

/** The buckets of a kind. */
interface Kind {
  readonly name: string
  readonly nowMillis: () => number
  readonly touched: Map<string, TokenBucket>
}

export const layer = (options: RatesOptions) => Layer.effect(SharedRates, make(options))

const make = Effect.fnUntraced(function* (given: RatesOptions) {
  const { batchMax, exchangeMillis, prefix, touchedMax } = { ...defaults, ...given }
  const link = yield* RedisLink
  const kinds = new Set<Kind>()

  const exchangeOf = Effect.fnUntraced(function* ({ name, nowMillis, touched }: Kind) {
    const toldAt = nowMillis()
    // Beats take and give back: most have nothing to tell.
    const told = [...touched]
      .map(([key, bucket]) => ({ key, bucket, told: bucket.tell(toldAt) }))
      .filter(({ told }) => told.taken !== 0 || told.hasRefused)
    touched.clear()
    for (let i = 0; i < told.length; i += batchMax) {
      const some = told.slice(i, i + batchMax)
      const left = yield* link.run(
        "rates",
        exchange,
        some.map(({ key }) => `${prefix}rate:${name}:${key}`),
        some.flatMap(({ told }) => [told.taken, told.permits, told.ratePerMilli, told.burst].map(String))
      )
      if (!Array.isArray(left)) continue
      const now = nowMillis()
      for (const [at, { bucket }] of some.entries()) {
        const permits: unknown = left[at]
        if (typeof permits === "number") bucket.follow(permits / 1000, now)
      }
      yield* Metric.update(RedisMetrics.ratesTotal, some.length)
    }
  })

  yield* Effect.gen(function* () {
    while (true) {
      yield* Effect.sleep(exchangeMillis)
      // Told or not, they have their say anew with what is taken next.
      for (const kind of kinds) yield* Effect.ignore(exchangeOf(kind))
    }
  }).pipe(Effect.forkScoped)

  return {
    share: (name: string, nowMillis: () => number) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => {
            const kind: Kind = { name, nowMillis, touched: new Map() }
            kinds.add(kind)
            return kind
          }),
          (kind) => Effect.sync(() => kinds.delete(kind))
        ),
        ({ touched }) =>
          (key: string, bucket: TokenBucket) => {
            if (touched.size < touchedMax) touched.set(key, bucket)
            else bucket.tell(nowMillis())
          }
      )
  }
})
