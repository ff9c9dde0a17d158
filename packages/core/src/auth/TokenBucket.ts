/**
 * A rate with a burst: each permit taken comes back after 1 / `ratePerSecond`.
 * A bucket that nobody has taken from for long is as good as a new one.
 *
 * One that is shared (`auth/SharedRates`) counts what was taken here until that
 * is told to others, and follows what is left for all.
 */
export interface Rate {
  readonly ratePerSecond: number
  /** How many may be taken at once. */
  readonly burst: number
}

export class TokenBucket {
  readonly #ratePerMilli: number
  readonly #burst: number
  /** Called with the first change, or refusal, after `tell`. */
  readonly #touch: ((bucket: TokenBucket) => void) | undefined
  #permits: number
  #atMillis: number
  #isTouched = false
  /** Taken here and told to nobody; below 0: given back. */
  #untold = 0
  #hasRefused = false

  constructor({ burst, ratePerSecond }: Rate, nowMillis: number, touch?: (bucket: TokenBucket) => void) {
    this.#ratePerMilli = ratePerSecond / 1000
    this.#burst = burst
    this.#permits = burst
    this.#atMillis = nowMillis
    this.#touch = touch
  }

  /** Takes one permit; the seconds to wait when there is none, else 0. */
  take(nowMillis: number): number {
    const waitSeconds = this.waitSeconds(nowMillis)
    if (waitSeconds === 0) this.#change(1)
    else this.#refuse()
    return waitSeconds
  }

  /** What `take` would say, without taking. */
  waitSeconds(nowMillis: number): number {
    // A clock that goes back gives nothing.
    const elapsed = Math.max(0, nowMillis - this.#atMillis)
    this.#atMillis = nowMillis
    this.#permits = Math.min(this.#burst, this.#permits + elapsed * this.#ratePerMilli)
    return this.#permits >= 1 ? 0 : (1 - this.#permits) / this.#ratePerMilli / 1000
  }

  /** Permits that are left, as of the last time that somebody asked. */
  get remaining(): number {
    return Math.max(0, Math.floor(this.#permits))
  }

  /** Until it is as good as a new one, from then on. */
  get secondsToFull(): number {
    return (this.#burst - this.#permits) / this.#ratePerMilli / 1000
  }

  /** Returns a permit that was taken and not needed. */
  giveBack(): void {
    this.#change(-1)
  }

  /** What was taken here since the last time, and what is left here after it; from then on it is known. */
  tell(nowMillis: number): Told {
    this.waitSeconds(nowMillis)
    const told: Told = {
      taken: this.#untold,
      hasRefused: this.#hasRefused,
      permits: this.#permits,
      ratePerMilli: this.#ratePerMilli,
      burst: this.#burst
    }
    this.#untold = 0
    this.#hasRefused = false
    this.#isTouched = false
    return told
  }

  /** So much is left for all, what was taken here until `tell` among what was taken; below 0 where it was too much. */
  follow(permits: number, nowMillis: number): void {
    this.waitSeconds(nowMillis)
    this.#permits = Math.min(this.#burst, permits - this.#untold)
  }

  #change(taken: number): void {
    this.#permits = Math.min(this.#burst, this.#permits - taken)
    if (this.#touch === undefined) return
    this.#untold += taken
    this.#touched(this.#touch)
  }

  /** Others may have given something back since. */
  #refuse(): void {
    if (this.#touch === undefined) return
    this.#hasRefused = true
    this.#touched(this.#touch)
  }

  #touched(touch: (bucket: TokenBucket) => void): void {
    if (this.#isTouched) return
    this.#isTouched = true
    touch(this)
  }
}

/** One instance's part in a bucket that is shared. */
export interface Told {
  /** Below 0: given back. */
  readonly taken: number
  /** Whether somebody was refused, who may ask again. */
  readonly hasRefused: boolean
  readonly permits: number
  readonly ratePerMilli: number
  readonly burst: number
}
