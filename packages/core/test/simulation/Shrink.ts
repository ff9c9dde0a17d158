/**
 * The part of a scenario that matters: events, agents and settings are taken
 * out as long as the same rule is still broken.
 *
 * Leaves to others: what a run is (`Simulation`).
 */
import type { Event, Scenario, Settings } from "./Scenario.ts"

/** Runs at the most. */
const attemptsMax = 400

/** Settings as harmless as they come, each tried by itself. */
const simpler: ReadonlyArray<(settings: Settings) => Settings> = [
  (settings) => ({ ...settings, preemption: 0 }),
  (settings) => ({ ...settings, order: "fifo" }),
  (settings) => ({ ...settings, lossShare: 0 }),
  (settings) => ({ ...settings, statementMillisMax: 0 }),
  (settings) => ({ ...settings, batchNamesMax: 500 }),
  (settings) => ({ ...settings, powerdns: { ...settings.powerdns, changesMax: 500 } }),
  (settings) => ({ ...settings, powerdns: { ...settings.powerdns, backend: "lmdb" } }),
  (settings) => ({ ...settings, powerdns: { ...settings.powerdns, latencyMillisMax: 0 } }),
  (settings) => ({ ...settings, powerdns: { ...settings.powerdns, workMillisMax: 5 } })
]

/** The smallest scenario found for which `breaks` holds, which it does for `scenario`. */
export const shrink = (scenario: Scenario, breaks: (scenario: Scenario) => boolean): Scenario => {
  let best = scenario
  let attempts = 0
  const attempt = (candidate: Scenario): boolean => {
    if (attempts >= attemptsMax) return false
    attempts += 1
    if (!breaks(candidate)) return false
    best = candidate
    return true
  }

  const withEvents = (events: ReadonlyArray<Event>): Scenario => {
    const used = new Set(events.flatMap((event) => ("agent" in event ? [event.agent] : [])))
    return { ...best, events, agents: scenario.agents.filter(({ id }) => used.has(id)) }
  }

  const takeOut = () => {
    for (let size = Math.max(1, best.events.length >> 1); size >= 1; size >>= 1) {
      for (let from = best.events.length - size; from > -size; from -= size) {
        const start = Math.max(0, from)
        attempt(withEvents([...best.events.slice(0, start), ...best.events.slice(start + size)]))
      }
    }
  }

  takeOut()
  attempt({ ...best, endMillis: (best.events.at(-1)?.atMillis ?? 0) + 60_000 })
  for (const change of simpler) attempt({ ...best, settings: change(best.settings) })
  const before = best.events.length
  takeOut()
  if (best.events.length < before) takeOut()
  return best
}
