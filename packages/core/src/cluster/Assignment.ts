/**
 * Who is to hold which lease: a pure function of who is there and who holds what.
 *
 * Every instance computes it by itself from the same rows, and does its own part:
 * it takes what is free and to be its own, and hands over what is to be
 * another's. Promises: each lease that anybody stands for has exactly one that
 * is to hold it; of leases that all stand for, no live instance has more than
 * one more than another, of zones and of jobs each; a holder keeps what it has up
 * to that, so that nothing moves without need; the order in which rows come does
 * not matter. Draining ones get nothing while another is live, and keep what
 * they have while none is: then nobody else would do it.
 */
import type { InstanceState, LeaseName } from "./Cluster.ts"

export interface Candidate {
  readonly id: string
  readonly state: InstanceState
  readonly startedMillis: number
  /** Leases that it does not stand for, though others do: its configuration is another, or it has not heard of a zone yet. */
  readonly lacks: ReadonlySet<string>
}

export interface Claimed {
  readonly name: LeaseName
  /** Who holds it, of those that are live or draining. */
  readonly holder: string | undefined
}

/** By the name of each lease the id of the one that is to hold it; those that nobody stands for are missing. */
export type Targets = ReadonlyMap<LeaseName, string>

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

const kindOf = (name: LeaseName): string => name.slice(0, name.indexOf("/"))

export const assign = (candidates: ReadonlyArray<Candidate>, leases: ReadonlyArray<Claimed>): Targets => {
  const targets = new Map<LeaseName, string>()
  const live = candidates
    .filter(({ state }) => state === "live")
    .sort((a, b) => a.startedMillis - b.startedMillis || compare(a.id, b.id))
  if (live.length === 0) {
    const draining = new Set(candidates.filter(({ state }) => state === "draining").map(({ id }) => id))
    for (const { holder, name } of leases) {
      if (holder !== undefined && draining.has(holder)) targets.set(name, holder)
    }
    return targets
  }
  /** What each is to hold of the kinds before: who has one more of one kind is not the first to have one more of the next. */
  const loads = new Map(live.map(({ id }) => [id, 0]))
  const kinds = Map.groupBy(leases, ({ name }) => kindOf(name))
  for (const kind of [...kinds.keys()].sort((a, b) => compare(b, a))) spread(live, kinds.get(kind)!, loads, targets)
  return targets
}

/** Spreads the leases of one kind. */
const spread = (
  live: ReadonlyArray<Candidate>,
  leases: ReadonlyArray<Claimed>,
  loads: Map<string, number>,
  targets: Map<LeaseName, string>
): void => {
  const common: Array<Claimed> = []
  const counts = new Map(live.map(({ id }) => [id, 0]))
  const give = (name: LeaseName, id: string) => {
    targets.set(name, id)
    counts.set(id, counts.get(id)! + 1)
    loads.set(id, loads.get(id)! + 1)
  }
  /** Who has the fewest of this kind, then of all, then has been there for longest. */
  const least = (among: ReadonlyArray<Candidate>) =>
    among.reduce((best, each) => {
      const fewer = counts.get(each.id)! - counts.get(best.id)! || loads.get(each.id)! - loads.get(best.id)!
      return fewer < 0 ? each : best
    })
  const byName = [...leases].sort((a, b) => compare(a.name, b.name))

  // Those that not all stand for have less choice, and come first.
  for (const lease of byName) {
    const standing = live.filter(({ lacks }) => !lacks.has(lease.name))
    if (standing.length === live.length) common.push(lease)
    else if (standing.length > 0) {
      const holder = standing.find(({ id }) => id === lease.holder)
      give(lease.name, (holder ?? least(standing)).id)
    }
  }

  // The others level that out: everybody may keep as many as are due to each, and some one more.
  const total = common.length + [...counts.values()].reduce((sum, count) => sum + count, 0)
  const share = Math.floor(total / live.length)
  const free: Array<Claimed> = []
  const beyond: Array<{ readonly lease: Claimed; readonly holder: string }> = []
  for (const lease of common) {
    const { holder } = lease
    const has = holder === undefined ? undefined : counts.get(holder)
    if (holder === undefined || has === undefined) free.push(lease)
    else if (has < share) give(lease.name, holder)
    else beyond.push({ lease, holder })
  }
  let more = total - share * live.length - [...counts.values()].filter((count) => count > share).length
  for (const { holder, lease } of beyond) {
    if (more > 0 && counts.get(holder) === share) {
      give(lease.name, holder)
      more -= 1
    } else free.push(lease)
  }
  for (const lease of free) give(lease.name, least(live).id)
}
