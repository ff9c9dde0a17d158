/**
 * Notices that time has passed which this process did not live through: the
 * machine slept, the process was stopped, or someone set the clock.
 *
 * Two clocks are compared. The monotonic one never jumps, and on most systems
 * stands still while the machine sleeps; the wall clock goes on, and can be set.
 * Which of the reasons it was cannot always be told, and need not be: in each
 * case the answer is to ask the server at once whether it still knows us. No
 * wait is ever computed from the wall clock.
 */

export interface Reading {
  readonly wallMillis: number
  readonly monotonicMillis: number
}

export type Verdict =
  | { readonly _tag: "Steady" }
  /** The wall clock ran ahead: a sleep, or a clock set forward. */
  | { readonly _tag: "Slept"; readonly millis: number }
  /** This look came late: the process was stopped, or had no processor. */
  | { readonly _tag: "Stalled"; readonly millis: number }
  /** The wall clock went back. It concerns nobody here. */
  | { readonly _tag: "SetBack"; readonly millis: number }

/** Differences below this are the noise of timers and of time being disciplined. */
export const toleranceMillis = 2000

/** What happened between two looks that should lie `everyMillis` apart. */
export const judge = (before: Reading, now: Reading, everyMillis: number): Verdict => {
  const monotonic = now.monotonicMillis - before.monotonicMillis
  const ahead = now.wallMillis - before.wallMillis - monotonic
  if (ahead > toleranceMillis) return { _tag: "Slept", millis: Math.round(ahead) }
  const late = monotonic - everyMillis
  if (late > toleranceMillis) return { _tag: "Stalled", millis: Math.round(late) }
  if (ahead < -toleranceMillis) return { _tag: "SetBack", millis: Math.round(-ahead) }
  return { _tag: "Steady" }
}
