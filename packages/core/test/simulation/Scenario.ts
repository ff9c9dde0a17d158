/**
 * What happens in one simulated run: its settings, its hosts, and a list of
 * events with their times. A plain value, made from a seed or written by hand,
 * so that a run can be kept, cut down and run again. Pure.
 */
import * as Dice from "./Dice.ts"
import type { ConflictPolicy } from "@prism-dns/core/domain/Zone"
import { conflictPolicies } from "@prism-dns/core/domain/Zone"
import { backends, type NodeName, type PowerDnsOptions } from "./SimulatedPowerDns.ts"

/** A machine that registers. Several may want one name. */
export interface Agent {
  readonly id: string
  readonly hostname: string
  /** Undefined for one that proves nothing. */
  readonly owner: string | undefined
  readonly addresses: ReadonlyArray<string>
  /** It speaks protocol 2: its session holds the lease, and it says what it wishes for. */
  readonly speaks?: "2.0"
  /** Owners whose claims have passed to it. */
  readonly actsFor?: ReadonlyArray<string>
  readonly wishes?: Wishes
}

/** What an agent of protocol 2 wishes for; null: the zone's TTL. */
export interface Wishes {
  readonly ttlSeconds: number | null
  readonly labels: Readonly<Record<string, string>>
}

export type Event = { readonly atMillis: number } & (
  | { readonly do: "on" | "off"; readonly agent: string }
  | { readonly do: "move"; readonly agent: string; readonly addresses: ReadonlyArray<string> }
  /** The server dies at the n-th point from here on where it waits for something, or for PowerDNS. */
  | { readonly do: "crash"; readonly points: number; readonly downMillis: number; readonly at?: "calls" }
  /** The same, and the machine with it: what was committed and not synced may be gone. */
  | { readonly do: "power cut"; readonly points: number; readonly downMillis: number }
  /** An agent of protocol 2 changes its wishes, or gives its host up. */
  | { readonly do: "wish"; readonly agent: string; readonly wishes: Wishes }
  | { readonly do: "leave"; readonly agent: string }
  /** With another TTL for all records, or another least one that hosts may have, when one is given. */
  | {
      readonly do: "restart"
      readonly downMillis: number
      readonly ttlSeconds?: number
      readonly ttlSecondsMin?: number
    }
  | { readonly do: "pause"; readonly millis: number }
  | { readonly do: "clock"; readonly byMillis: number }
  | { readonly do: "powerdns down" | "powerdns frozen"; readonly node: NodeName; readonly millis: number }
  | { readonly do: "powerdns slow"; readonly node: NodeName; readonly millis: number; readonly byMillis: number }
  | { readonly do: "lose requests" | "lose answers"; readonly node: NodeName; readonly count: number }
  | { readonly do: "lose notifications"; readonly count: number }
  | { readonly do: "refuse"; readonly hostname: string; readonly millis: number }
  /** Someone else makes a record at a name that is not ours, or takes it away. */
  | { readonly do: "foreign" | "foreign gone"; readonly hostname: string }
  /** Someone else changes a record of ours, past the API. */
  | { readonly do: "edit"; readonly hostname: string; readonly contents: ReadonlyArray<string> }
  /** A resolver asks each server for a name, and what it is told is cached there. */
  | { readonly do: "look up"; readonly hostname: string }
  /** A person gives a host up, or lets deletions go on that wait for a word. */
  | { readonly do: "retire" | "release"; readonly hostname: string }
  /** A person gives a host to another owner. */
  | { readonly do: "transfer"; readonly hostname: string; readonly owner: string }
  | { readonly do: "approve" }
  /** A person takes over the record of someone else, or gives it back. */
  | { readonly do: "adopt" | "give back"; readonly hostname: string }
  /** A person makes a record beside a host, or one that stands alone, or deletes it. */
  | { readonly do: "note" | "note gone" | "alias" | "alias gone"; readonly hostname: string }
  /** A person says which names Prism is to leave alone, or no longer; or that hosts may expire, however many. */
  | { readonly do: "ignore" | "heed"; readonly hostname: string }
  | { readonly do: "allow expiry" }
  /** Someone else deletes a whole zone at PowerDNS: which, by its place in the list. */
  | { readonly do: "zone lost"; readonly zone: number }
  | { readonly do: "database fails"; readonly millis: number }
)

export interface Settings {
  readonly order: "fifo" | "any"
  readonly preemption: number
  readonly leaseMillis: number
  readonly beatMillis: number
  readonly sweepMillis: number
  readonly flushMillis: number
  /** Undefined to keep the records of hosts that are offline. */
  readonly withdrawMillis: number | undefined
  readonly conflict: ConflictPolicy
  readonly retireMillis: number
  readonly holdMillis: number
  readonly quarantineMillis: number
  /** Names that may be deleted in a zone by inference in any such time. */
  readonly budget: { readonly min: number; readonly windowMillis: number }
  /** Hosts that may vanish at once without a person's word; and, of the product alone, for a test that it is noticed. */
  readonly massExpiryMin: number
  readonly massExpiryGuard?: number
  /** Hosts that an owner, and a zone, may have; undefined for as many as they like. */
  readonly hostsMax?: { readonly owner: number; readonly zone: number } | undefined
  /** Whether there are power cuts; and whether commits are synced when that is asked for. */
  readonly powerCuts?: boolean
  readonly syncs?: boolean
  /** From one comparison of a zone with PowerDNS to the next; undefined for none. */
  readonly reconcileMillis: number | undefined
  readonly batchNamesMax: number
  readonly doubtMillis: number
  /** How long each statement of the database takes at the most; 0 for SQLite, which is waited for. */
  readonly statementMillisMax: number
  /** Messages between agents and server that are lost. */
  readonly lossShare: number
  readonly powerdns: PowerDnsOptions
}

export interface Scenario {
  /** Of everything the events do not say: order of fibers, latencies, ids. */
  readonly seed: string
  readonly settings: Settings
  readonly agents: ReadonlyArray<Agent>
  /** In order of time. */
  readonly events: ReadonlyArray<Event>
  /** When the last event is over. */
  readonly endMillis: number
}

const day = 86_400_000

const addressOf = (n: number) => `192.0.2.${n}`
const address6Of = (n: number) => `2001:db8::${n.toString(16)}`

/** A scenario from a seed. Each leaves out most faults, so that the others get far. */
export const generate = (seed: number): Scenario => {
  const dice = Dice.make(`scenario ${seed}`)
  const endMillis = dice.between(2, 6) * 30_000

  const settings: Settings = {
    order: dice.chance(0.8) ? "any" : "fifo",
    preemption: dice.chance(0.3) ? 0.01 : 0,
    leaseMillis: 45_000,
    beatMillis: 15_000,
    sweepMillis: 20_000,
    flushMillis: 20_000,
    withdrawMillis: dice.pick([undefined, 0, 45_000, 90_000]),
    conflict: dice.pick(["take-over-if-expired", ...conflictPolicies]),
    retireMillis: dice.pick([day, day, 120_000, 240_000]),
    holdMillis: dice.pick([day, 0, 120_000]),
    quarantineMillis: dice.pick([0, 30_000, 60_000]),
    budget: { min: dice.pick([10, 10, 1, 2]), windowMillis: dice.pick([60_000, 300_000]) },
    massExpiryMin: dice.pick([100, 100, 2]),
    powerCuts: dice.chance(0.1),
    reconcileMillis: dice.chance(0.1) ? 150_000 : undefined,
    batchNamesMax: dice.pick([1, 3, 8, 500]),
    doubtMillis: 15_000,
    statementMillisMax: dice.chance(0.3) ? dice.pick([1, 5, 50]) : 0,
    lossShare: dice.chance(0.3) ? 0.1 : 0,
    powerdns: {
      nodes: dice.pick<ReadonlyArray<NodeName>>([["p1"], ["p1", "p2"], ["p1", "p2", "s1"]]),
      backend: dice.pick(backends),
      changesMax: dice.chance(0.2) ? dice.between(3, 6) : 500,
      latencyMillisMax: dice.pick([0, 2, 30]),
      workMillisMax: dice.pick([5, 20, 200]),
      timeoutMillis: 10_000
    }
  }

  const owners = ["alice", "bob", undefined]
  const isCrowd = dice.chance(0.015)
  const hostnames = isCrowd
    ? Array.from({ length: dice.between(12, 30) }, (_, i) => `h${i}`)
    : dice.chance(0.25)
      ? ["h0", "h1", "a.h0", "b.h0", "x.y.h1", "p.q"].filter(() => dice.chance(0.7)).concat("h2")
      : Array.from({ length: dice.between(2, 4) }, (_, i) => `h${i}`)
  const addressPool = dice.pick([4, 30, 200])
  const pickAddresses = (): ReadonlyArray<string> => {
    const n = dice.between(1, addressPool)
    if (dice.chance(0.7)) return [addressOf(n)]
    return dice.chance(0.5) ? [address6Of(n)] : [addressOf(n), address6Of(n)]
  }
  const agents: Array<Agent> = []
  for (const hostname of hostnames) {
    const rivals = dice.chance(0.13) ? dice.between(2, 3) : 1
    const owner = dice.pick(owners)
    for (let i = 0; i < rivals; i++) {
      agents.push({
        id: `${hostname}/${"abc"[i]}`,
        hostname,
        owner: dice.chance(0.5) ? owner : dice.pick(owners),
        addresses: pickAddresses()
      })
    }
  }

  const anyAgent = () => dice.pick(agents).id
  const node = () => dice.pick(settings.powerdns.nodes)
  const kinds: ReadonlyArray<() => Omit<Event, "atMillis">> = [
    () => ({ do: "crash", points: dice.between(1, 60), downMillis: dice.pick([0, 500, 20_000]) }),
    () => ({ do: "crash", points: dice.between(1, 8), downMillis: dice.pick([0, 500, 20_000]), at: "calls" }),
    () => ({
      do: "restart",
      downMillis: dice.pick([0, 2000, 90_000]),
      ...(dice.chance(0.3) ? { ttlSeconds: dice.pick([30, 300]) } : {})
    }),
    () => ({ do: "pause", millis: dice.pick([2000, 15_000, 100_000]) }),
    () => ({ do: "clock", byMillis: dice.pick([-3_600_000, -5000, 5000, 3_600_000]) }),
    () => ({ do: "powerdns down", node: node(), millis: dice.pick([100, 5000, 60_000]) }),
    () => ({ do: "powerdns frozen", node: node(), millis: dice.pick([2000, 12_000, 40_000]) }),
    () => ({
      do: "powerdns slow",
      node: node(),
      millis: dice.pick([5000, 30_000]),
      byMillis: dice.pick([500, 9000, 14_000])
    }),
    () => ({ do: "lose requests", node: node(), count: dice.between(1, 3) }),
    () => ({ do: "lose answers", node: node(), count: dice.between(1, 3) }),
    () => ({ do: "lose notifications", count: dice.between(1, 3) }),
    () => ({ do: "refuse", hostname: dice.pick(hostnames), millis: dice.pick([1000, 60_000]) }),
    () => ({ do: "foreign", hostname: dice.pick(hostnames) }),
    () => ({ do: "foreign gone", hostname: dice.pick(hostnames) }),
    () => ({ do: "look up", hostname: dice.pick(hostnames) }),
    () => ({ do: "retire", hostname: dice.pick(hostnames) }),
    () => ({ do: "release", hostname: dice.pick(hostnames) }),
    () => ({ do: "approve" }),
    () => ({ do: "adopt", hostname: dice.pick(hostnames) }),
    () => ({ do: "give back", hostname: dice.pick(hostnames) }),
    () => ({ do: "ignore", hostname: dice.pick(hostnames) }),
    () => ({ do: "heed", hostname: dice.pick(hostnames) }),
    () => ({ do: "allow expiry" }),
    () => ({ do: "database fails", millis: dice.pick([50, 3000, 30_000]) })
  ] as ReadonlyArray<() => Omit<Event, "atMillis">>
  // Without a reconciler nobody would notice.
  const edit = () => ({
    do: "edit",
    hostname: dice.pick(hostnames),
    contents: dice.chance(0.5) ? [] : [addressOf(dice.between(201, 220))]
  })
  const cut = () => ({ do: "power cut", points: dice.between(1, 40), downMillis: dice.pick([1000, 20_000]) })
  const loss = () => ({ do: "zone lost", zone: dice.int(3) })
  const more = [
    ...(settings.reconcileMillis === undefined ? [] : [edit, loss]),
    ...(settings.powerCuts === true ? [cut, cut] : [])
  ]
  const possible = [...kinds, ...(more as unknown as typeof kinds)]
  const faults = possible.filter(() => dice.chance(0.35))

  const events: Array<Event> = []
  const add = (event: Omit<Event, "atMillis">, atMillis = dice.int(endMillis)) =>
    events.push({ ...event, atMillis } as Event)
  if (isCrowd) {
    // A rack comes, moves, and goes at once.
    const [comes, goes] = [dice.int(30_000), dice.int(endMillis)]
    for (const { id } of agents) {
      add({ do: "on", agent: id } as Event, comes + dice.int(200))
      if (dice.chance(0.3)) add({ do: "move", agent: id, addresses: pickAddresses() } as Event, comes + 40_000)
      if (dice.chance(0.6)) add({ do: "off", agent: id } as Event, goes)
    }
  }
  for (const agent of agents) if (dice.chance(0.8)) add({ do: "on", agent: agent.id } as Event, dice.int(5000))
  const moves = dice.between(3, 9)
  for (let i = 0; i < moves; i++) {
    const draw = dice.next()
    if (draw < 0.5) add({ do: "move", agent: anyAgent(), addresses: pickAddresses() } as Event)
    else if (draw < 0.7) add({ do: "off", agent: anyAgent() } as Event)
    else add({ do: "on", agent: anyAgent() } as Event)
  }
  if (dice.chance(0.2)) {
    // Somebody else's record is taken over, and given back, or a host wants its name.
    const hostname = dice.chance(0.5) ? "f0" : dice.pick(hostnames)
    const [from, pause] = [dice.int(endMillis), dice.pick([50, 5000, 40_000])]
    const story = ["foreign", "adopt", dice.pick(["give back", "foreign gone", "adopt"]), "adopt"] as const
    story.forEach((what, i) => add({ do: what, hostname } as Event, from + i * pause))
    const wants = agents.filter((agent) => agent.hostname === hostname)
    for (const { id } of wants) add({ do: dice.pick(["on", "off"]), agent: id } as Event, from + dice.int(4 * pause))
  }
  if (dice.chance(0.3)) {
    // Two addresses that one name goes back and forth between.
    const agent = anyAgent()
    const at = dice.int(endMillis)
    const every = dice.pick([10, 300, 4000])
    const [first, second] = [pickAddresses(), pickAddresses()]
    for (let i = 0; i < dice.between(4, 12); i++) {
      add({ do: "move", agent, addresses: i % 2 === 0 ? first : second } as Event, Math.min(endMillis, at + i * every))
    }
  }
  if (faults.length > 0) {
    for (let i = 0; i < dice.between(0, 4); i++) add(dice.pick(faults)())
    // Faults are most telling close together, and while something is on its way.
    for (let i = 0; i < dice.between(0, 3); i++) {
      const at = dice.int(endMillis)
      const agent = anyAgent()
      const withinMillis = dice.pick([50, 2000, 15_000])
      for (let j = 0; j < dice.between(2, 6); j++) {
        const atMillis = at + dice.int(withinMillis)
        if (dice.chance(0.5)) add(dice.pick(faults)(), atMillis)
        else add({ do: "move", agent, addresses: pickAddresses() } as Event, atMillis)
      }
    }
  }
  return withProtocol2({
    seed: `${seed}`,
    settings,
    agents,
    events: events.filter(({ atMillis }) => atMillis < endMillis).sort((a, b) => a.atMillis - b.atMillis),
    endMillis
  })
}

/**
 * Lets some agents of a scenario speak protocol 2, and adds what they and people do with it. With dice of its own, so that
 * the rest stays as it is.
 */
const withProtocol2 = (scenario: Scenario): Scenario => {
  const { endMillis } = scenario
  const dice = Dice.make(`protocol 2 of scenario ${scenario.seed}`)
  if (dice.chance(0.4)) return scenario
  const wishes = (): Wishes => ({
    ttlSeconds: dice.pick([null, 5, 30, 120, 7200]),
    labels: dice.chance(0.5) ? {} : { rack: `${dice.between(1, 3)}` }
  })
  const agents = scenario.agents.map((agent): Agent => {
    if (dice.chance(0.3)) return agent
    const heir = agent.owner !== undefined && dice.chance(0.3)
    return {
      ...agent,
      ...(heir ? { owner: `i-${agent.id}`, actsFor: [agent.owner] } : {}),
      speaks: "2.0",
      wishes: wishes()
    }
  })
  const speakers = agents.filter(({ speaks }) => speaks === "2.0").map(({ id }) => id)
  if (speakers.length === 0) return scenario
  const pickAddresses = () => [
    ...new Set(
      Array.from({ length: dice.between(1, 4) }, () => dice.pick([addressOf, address6Of])(dice.between(1, 200)))
    )
  ]
  const anyAgent = () => dice.pick(speakers)
  const anyHost = () => dice.pick(agents)
  const kinds: ReadonlyArray<() => Event> = [
    () => ({ do: "wish", agent: anyAgent(), wishes: wishes(), atMillis: dice.int(endMillis) }),
    () => ({ do: "wish", agent: anyAgent(), wishes: wishes(), atMillis: dice.int(endMillis) }),
    () => ({ do: "move", agent: anyAgent(), addresses: pickAddresses(), atMillis: dice.int(endMillis) }),
    () => ({ do: "leave", agent: anyAgent(), atMillis: dice.int(endMillis) }),
    () => ({ do: "on", agent: anyAgent(), atMillis: dice.int(endMillis) }),
    () => ({
      do: "transfer",
      hostname: anyHost().hostname,
      owner: anyHost().owner ?? "anonymous",
      atMillis: dice.int(endMillis)
    })
  ]
  const added = Array.from({ length: dice.between(1, 8) }, () => dice.pick(kinds)())
  const events = scenario.events.map((event): Event =>
    event.do === "restart" && dice.chance(0.5) ? { ...event, ttlSecondsMin: dice.pick([1, 30, 100]) } : event
  )
  return {
    ...scenario,
    settings: {
      ...scenario.settings,
      ...(dice.chance(0.15) ? { hostsMax: { owner: dice.between(1, 2), zone: dice.pick([1000, 1000, 2]) } } : {})
    },
    agents,
    events: [...events, ...added].sort((a, b) => a.atMillis - b.atMillis)
  }
}
