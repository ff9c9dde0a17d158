/**
 * A rate with a burst: each permit taken comes back after 1 / `ratePerSecond`.
 * A bucket that nobody has taken from for long is as good as a new one.
 */
export interface Rate {
  readonly ratePerSecond: number
  /** How many may be taken at once. */
  readonly burst: number
}

export class TokenBucket {
  readonly #ratePerMilli: number
  readonly #burst: number
  #permits: number
  #atMillis: number

  constructor({ burst, ratePerSecond }: Rate, nowMillis: number) {
    this.#ratePerMilli = ratePerSecond / 1000
    this.#burst = burst
    this.#permits = burst
    this.#atMillis = nowMillis
  }

  /** Takes one permit; the seconds to wait when there is none, else 0. */
  take(nowMillis: number): number {
    const waitSeconds = this.waitSeconds(nowMillis)
    if (waitSeconds === 0) this.#permits -= 1
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
    return Math.floor(this.#permits)
  }

  /** Until it is as good as a new one, from then on. */
  get secondsToFull(): number {
    return (this.#burst - this.#permits) / this.#ratePerMilli / 1000
  }

  /** Returns a permit that was taken and not needed. */
  giveBack(): void {
    this.#permits = Math.min(this.#burst, this.#permits + 1)
  }
}
