/**
 * How often a zone is written. Each PATCH empties PowerDNS's caches of the
 * zone, so that a zone under steady change is written at an even pace, with what
 * has gathered meanwhile; one that was quiet is written at once, a few times.
 *
 * Promises: what is kept of a zone is one number; a rest is never longer than
 * the time between two writes at that pace, whatever a clock does.
 */

/** Writes of a zone in a second: with caches emptied so often PowerDNS answers most questions from them. */
export const perSecondByDefault = 10

/** Writes at once after a zone was quiet. */
export const burst = 10

/** Until when the writes of a zone, at its pace, would have taken; in milliseconds. */
export type Pace = number

export const begin: Pace = 0

/** After a write that ended at `nowMillis`: the pace from then on, and how long to rest before the next one. */
export const after = (
  pace: Pace,
  nowMillis: number,
  perSecond: number
): { readonly pace: Pace; readonly restMillis: number } => {
  const betweenMillis = 1000 / perSecond
  // A clock that was put back does not leave a debt of hours.
  const owed = Math.min(Math.max(pace, nowMillis), nowMillis + (burst + 1) * betweenMillis)
  const next = owed + betweenMillis
  return { pace: next, restMillis: Math.min(betweenMillis, Math.max(0, next - nowMillis - burst * betweenMillis)) }
}
