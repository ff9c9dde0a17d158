/**
 * How long to wait before the next attempt: full jitter below a ceiling that
 * doubles with each failure up to a cap.
 *
 * Every wait is drawn anew from zero on, also the first one after a loss: a
 * thousand agents that lose one server at the same moment come back spread
 * over the whole of it.
 */

export interface Settings {
  /** Ceiling of the first wait. */
  readonly baseMillis: number
  /** Ceiling of every wait. */
  readonly capMillis: number
}

/** A server that asks for more is asked again after this. */
export const retryAfterSecondsMax = 3600

/** Upper end of the wait after `failures` in a row, from 1. */
export const ceilingMillis = (failures: number, { baseMillis, capMillis }: Settings): number =>
  // Past 2^30 doublings the cap has long been reached, and the product must stay a number.
  Math.min(capMillis, baseMillis * 2 ** Math.min(Math.max(failures, 1) - 1, 30))

/** The wait. `random` is in [0, 1). What the server asks for is waited in full, and the jitter comes on top. */
export const delayMillis = (
  failures: number,
  settings: Settings,
  random: number,
  retryAfterSeconds?: number
): number => {
  const asked = Math.min(Math.max(retryAfterSeconds ?? 0, 0), retryAfterSecondsMax) * 1000
  return Math.round(asked + random * ceilingMillis(failures, settings))
}
