/**
 * Whether the event loop has more to do than it can: what can wait then should.
 */

/** The share of a window in which the loop was busy from which on it counts as crowded. */
const crowdedShare = 0.8

/** How long a window is, in milliseconds. */
const windowMillis = 25

/** Looks at the loop when it is asked, at most once a window. */
export const make = (): (() => boolean) => {
  let last = performance.eventLoopUtilization()
  let lookedMillis = performance.now()
  let isCrowded = false
  return () => {
    const nowMillis = performance.now()
    if (nowMillis - lookedMillis < windowMillis) return isCrowded
    const current = performance.eventLoopUtilization()
    isCrowded = performance.eventLoopUtilization(current, last).utilization > crowdedShare
    last = current
    lookedMillis = nowMillis
    return isCrowded
  }
}
