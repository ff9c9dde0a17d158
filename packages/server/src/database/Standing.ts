/**
 * Which of several PostgreSQL servers is written to, from what each says of
 * itself.
 *
 * PostgreSQL counts the promotions of a database: each begins a timeline of a
 * higher number. A primary that was replaced, and comes back without knowing,
 * still says that it takes writes, on the older timeline. So the highest
 * timeline that anyone was seen on is remembered, and who claims to be a
 * primary on a lower one is refused, also when nobody else answers.
 *
 * Pure: asking them is `database/PostgresHosts`.
 */

export type Seen =
  /** It has not been asked yet. */
  | { readonly _tag: "Unseen" }
  /** It does not answer, or not as a database that could be used. */
  | { readonly _tag: "Silent"; readonly detail: string }
  /** It takes no writes: a replica, or one that is set to be only read. */
  | { readonly _tag: "Replica"; readonly system: string; readonly timeline: number }
  | {
      readonly _tag: "Primary"
      /** One for each database cluster and its copies: the system identifier. */
      readonly system: string
      readonly timeline: number
      /** How far its log is flushed, in bytes. */
      readonly position: bigint
      /** When it was started: tells one server by two addresses from two servers. */
      readonly started: string
    }

type Primary = Extract<Seen, { readonly _tag: "Primary" }>

/** What has been learnt so far. Servers are named by their place in the address. */
export interface Known {
  /** The one that is written to. */
  readonly current: number | undefined
  /** The timeline it was chosen on. */
  readonly currentTimeline: number
  readonly system: string | undefined
  /** The highest that was seen. */
  readonly timeline: number
  /** How far the log of that timeline was seen to be flushed. */
  readonly position: bigint
}

export const nothingKnown: Known = {
  current: undefined,
  currentTimeline: 0,
  system: undefined,
  timeline: 0,
  position: 0n
}

export interface Choice {
  readonly known: Known
  /** Servers that claim to take writes and are not written to, and why. */
  readonly refused: ReadonlyMap<number, string>
}

const isTold = (seen: Seen): seen is Extract<Seen, { readonly system: string }> => "system" in seen

/** Chooses anew, once something was seen. Nobody is chosen where one cannot tell. */
export const choose = (known: Known, seen: ReadonlyArray<Seen>): Choice => {
  const refused = new Map<number, string>()
  const systems = new Set(seen.flatMap((each) => (isTold(each) ? [each.system] : [])))
  const [only] = systems.size === 1 ? systems : []
  const system = known.system ?? only
  const primaries = seen.flatMap((each, at) => (each._tag === "Primary" ? [{ ...each, at }] : []))
  if (system === undefined) {
    for (const { at } of primaries) refused.set(at, "the servers of the address hold different databases")
    return { known: { ...known, current: undefined }, refused }
  }

  const timeline = Math.max(
    known.timeline,
    ...seen.flatMap((each) => (isTold(each) && each.system === system ? [each.timeline] : []))
  )
  const eligible: Array<Primary & { readonly at: number }> = []
  for (const primary of primaries) {
    const { at } = primary
    if (primary.system !== system) refused.set(at, "it holds another database than the one that was written so far")
    else if (primary.timeline < timeline) {
      refused.set(
        at,
        `another one was promoted: it is on timeline ${primary.timeline}, and timeline ${timeline} is known; ` +
          "what is written to it is lost"
      )
    } else eligible.push(primary)
  }

  const standing = eligible.find(({ at }) => at === known.current)
  const servers = new Set(eligible.map(({ started }) => started))
  // What an address leads to may have been restarted meanwhile; its log never goes back.
  const isBehind = ({ position }: Primary) => timeline === known.timeline && position < known.position
  let chosen = standing
  if (standing !== undefined) {
    for (const { at, started } of eligible) {
      if (started !== standing.started)
        refused.set(at, "there are two primaries on one timeline, and the other is written")
    }
  } else if (servers.size > 1) {
    for (const { at } of eligible)
      refused.set(at, "there are two primaries on one timeline, and nobody can tell which is right")
  } else {
    for (const primary of eligible) {
      if (isBehind(primary)) refused.set(primary.at, "it lacks what was written on its timeline before")
      else chosen ??= primary
    }
  }

  // Who is away for a moment may come back as it was, unless another was promoted meanwhile.
  const before = known.current === undefined ? undefined : seen[known.current]
  const mayReturn =
    before !== undefined && (before._tag === "Silent" || before._tag === "Unseen") && known.currentTimeline === timeline
  const current = chosen?.at ?? (mayReturn ? known.current : undefined)
  const position = chosen?.position ?? 0n
  return {
    known: {
      current,
      currentTimeline: current === undefined ? 0 : timeline,
      system,
      timeline,
      position: timeline === known.timeline && position < known.position ? known.position : position
    },
    refused
  }
}
