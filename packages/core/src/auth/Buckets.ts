/**
 * Rates by what they are kept for, in memory. Of more than `max` the one that
 * was not asked for longest is forgotten, which is as good as a full one.
 */
import type { Touch } from "./SharedRates.ts"
import { type Rate, TokenBucket } from "./TokenBucket.ts"

export class Buckets {
  readonly #max: number
  readonly #onSize: (size: number) => void
  readonly #touch: Touch | undefined
  /** In the order in which they were asked for last. */
  readonly #buckets = new Map<string, TokenBucket>()
  /** Who asked last asks again, more often than not. */
  #last: { readonly key: string; readonly bucket: TokenBucket } | undefined = undefined

  /** `touch`: where they are shared with other instances. */
  constructor(max: number, onSize: (size: number) => void, touch?: Touch) {
    this.#max = max
    this.#onSize = onSize
    this.#touch = touch
  }

  get(key: string, rate: Rate, nowMillis: number): TokenBucket {
    if (this.#last?.key === key) return this.#last.bucket
    const bucket = this.#find(key, rate, nowMillis)
    this.#last = { key, bucket }
    return bucket
  }

  #find(key: string, rate: Rate, nowMillis: number): TokenBucket {
    const known = this.#buckets.get(key)
    if (known !== undefined) {
      this.#buckets.delete(key)
      this.#buckets.set(key, known)
      return known
    }
    if (this.#buckets.size >= this.#max) {
      const [oldest] = this.#buckets.keys()
      this.#buckets.delete(oldest!)
    }
    const touch = this.#touch
    const bucket = new TokenBucket(rate, nowMillis, touch && ((touched) => touch(key, touched)))
    this.#buckets.set(key, bucket)
    this.#onSize(this.#buckets.size)
    return bucket
  }
}
