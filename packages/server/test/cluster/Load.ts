/**
 * Hosts at work against a cluster: agents that register, move, release and come
 * back at a set rate, hosts of protocol 1 that beat, and questions to the name
 * servers all the while.
 *
 * Half of the agents come through HAProxy, the others know the servers'
 * addresses. What happens is drawn from a seed; when it happens depends on the
 * machine. Promises: no two hosts ever want one address, and none wants one
 * twice within a run of minutes (the registry damps names that move to and fro);
 * all that was asked and told is in `history`; all ends with the scope.
 */
import { encode, FrameDecoder } from "@prism-dns/core/protocol/Wire"
import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import * as Dice from "../../../core/test/simulation/Dice.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { type Answer, message } from "../harness/AgentClient.ts"
import { type Endpoint, LoadAgent, type Records } from "./Agent.ts"
import { agentToken, type Cluster } from "./Cluster.ts"
import * as Dns from "./Dns.ts"
import { type Away, type History, type Level, nowMillis, type Poll, type Request } from "./History.ts"

export interface Options {
  readonly seed: string
  readonly sessions: number
  readonly changesPerSecond: number
  /** Hosts of protocol 1. */
  readonly protocol1: number
  readonly pollsPerSecond: number
  /** Share of the agents that come through HAProxy; the others come directly. */
  readonly throughHaproxy: number
}

export interface Load {
  readonly agents: ReadonlyArray<LoadAgent>
  readonly history: History
  readonly errors: Records["errors"]
  /** Changes that were asked for so far. */
  readonly changes: () => number
  /** How many changes a second that zone has, at least, while the load goes on. */
  readonly changesPerSecond: (zone: string) => number
  /** Waits until all agents are connected and have, or while changes go on have had, what they want. */
  readonly settled: (within?: "10 seconds" | "30 seconds" | "60 seconds") => Effect.Effect<void>
  /** Nothing is changed any more; sessions go on. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
}

/** Addresses of a host; they take turns. */
const addressesEach = 64
/** Hosts of a zone: its addresses share their first two numbers. */
export const hostsPerZoneMax = 65_536 / addressesEach
const tickMillis = 10
const releasedShare = 0.1
const levels: ReadonlyArray<Level> = ["accepted", "applied", "served"]

export const start = Effect.fnUntraced(function* (
  cluster: Cluster,
  options: Options
): Effect.fn.Return<Load, never, Scope.Scope> {
  const dice = Dice.make(options.seed)
  const requests: Array<Request> = []
  const away: Array<Away> = []
  const polls: Array<Poll> = []
  const errors: Records["errors"] = []
  const records = { requests, away, errors }
  const directly = cluster.servers.map(({ tcp }) => tcp)

  const perZone = Math.ceil(options.sessions / cluster.zones.length)
  if (perZone > hostsPerZoneMax) throw new Error(`a zone takes ${hostsPerZoneMax} hosts of the load, not ${perZone}`)
  const generations = new Map<LoadAgent, number>()
  const agents = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Array.from({ length: options.sessions }, (_, i) => {
        const isThrough = dice.chance(options.throughHaproxy)
        return new LoadAgent({
          hostname: `a-${i}`,
          zone: cluster.zones[i % cluster.zones.length]!,
          token: agentToken,
          servers: isThrough ? [cluster.haproxy.tcp] : directly,
          localAddress: isThrough ? undefined : cluster.directFrom,
          ack: dice.pick(levels),
          dice: Dice.make(`${options.seed}/${i}`),
          records
        })
      })
    ),
    (agents) => Effect.sync(() => agents.forEach((agent) => agent.close()))
  )
  const nextAddress = (agent: LoadAgent, i: number) => {
    const generation = generations.get(agent) ?? 0
    generations.set(agent, generation + 1)
    const zone = i % cluster.zones.length
    const at = Math.floor(i / cluster.zones.length) * addressesEach + (generation % addressesEach)
    return [`10.${60 + zone}.${at >> 8}.${at & 255}`]
  }

  let isPaused = true
  let changes = 0
  let due = 0
  let last = nowMillis()
  const change = () => {
    // Whoever waits for an answer asks nothing more.
    for (let attempt = 0; attempt < 8; attempt++) {
      const i = dice.int(agents.length)
      const agent = agents[i]!
      if (!agent.isSettled) continue
      changes += 1
      agent.want(agent.wanted.length > 0 && dice.chance(releasedShare) ? [] : nextAddress(agent, i))
      return
    }
  }
  yield* every(tickMillis, () => {
    const now = nowMillis()
    if (!isPaused) due += ((now - last) / 1000) * options.changesPerSecond
    last = now
    // What could not be asked in time is not made up for beyond a second.
    due = Math.min(due, options.changesPerSecond)
    for (; due >= 1; due--) change()
  })

  const beating = yield* beatByProtocol1(options.protocol1, cluster, records, dice, () => isPaused)

  // Begun over half a second: a listener's queue is not endless.
  agents.forEach((agent, i) => setTimeout(() => agent.start(nextAddress(agent, i)), (i * 500) / agents.length))

  const resolvers = yield* Effect.forEach(cluster.names, ({ dns, name }) =>
    Effect.map(Dns.resolver(dns), (resolver) => ({ ...resolver, node: name }))
  )
  yield* every(Math.max(1, 1000 / Math.max(options.pollsPerSecond, 1)), () => {
    if (options.pollsPerSecond === 0 || agents.length === 0) return
    const { host } = dice.pick(agents)
    const { ask, node } = dice.pick(resolvers)
    const askedMillis = nowMillis()
    void ask(host).then((addresses) => polls.push({ node, host, askedMillis, toldMillis: nowMillis(), addresses }))
  })

  return {
    agents,
    history: { requests, away, polls, writes: cluster.writes },
    errors,
    changes: () => changes,
    changesPerSecond: (zone) =>
      zone.includes("127.in-addr.arpa")
        ? (options.protocol1 * movingShare * 1000) / beatMillis
        : options.changesPerSecond / cluster.zones.length,
    settled: (within = "30 seconds") =>
      Effect.suspend(() => {
        const since = nowMillis()
        // While changes go on, some agent always waits for an answer: then it is enough that each has had one since.
        const waiting = () =>
          agents.filter((agent) => !agent.isSettled && (isPaused || !agent.isConnected || agent.settledMillis < since))
        return waitUntil(
          "all agents have what they want",
          Effect.sync(() => ({
            count: waiting().length,
            waiting: waiting()
              .slice(0, 3)
              .map(({ host, isConnected }) => ({
                host,
                isConnected,
                last: requests.findLast((one) => one.host === host)
              })),
            beats: beating.unanswered(),
            errors: errors.slice(-3)
          })),
          ({ beats, count }) => count === 0 && beats === 0,
          { within, every: "50 millis" }
        ).pipe(Effect.asVoid)
      }),
    pause: Effect.sync(() => (isPaused = true)),
    resume: Effect.sync(() => (isPaused = false))
  }
})

const every = (millis: number, act: () => void) =>
  Effect.acquireRelease(
    Effect.sync(() => setInterval(act, millis)),
    (timer) => Effect.sync(() => clearInterval(timer))
  )

// --- Protocol 1 ----------------------------------------------------------------------------------------------------

const beatMillis = 4000
const answerMillisMax = 10_000
const movingShare = 0.2

/** Hosts that send one frame at each beat and read the answer, through HAProxy, from the address they have. */
const beatByProtocol1 = Effect.fnUntraced(function* (
  count: number,
  cluster: Cluster,
  { away, errors, requests }: Records,
  dice: Dice.Dice,
  isPaused: () => boolean
) {
  const zone = cluster.zones[0]!
  const hosts = Array.from({ length: count }, (_, i) => ({
    hostname: `b-${i}`,
    turn: 0,
    successMillis: undefined as number | undefined,
    /** The address of the last beat was acknowledged. */
    isTold: false
  }))
  const open = new Set<Net.Socket>()
  const beat = (i: number) => {
    const host = hosts[i]!
    if (!isPaused() && host.isTold && dice.chance(movingShare)) host.turn += 1
    const at = i * addressesEach + (host.turn % addressesEach)
    const address = `127.${64 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`
    const request: Request = {
      host: `${host.hostname}.${zone}`,
      kind: "register",
      addresses: [address],
      protocol: 1,
      instance: undefined,
      askedMillis: nowMillis(),
      told: [],
      refused: undefined,
      lostMillis: undefined
    }
    host.isTold = false
    sendBeat(cluster.haproxy.tcp, address, host.hostname, open, (answer) => {
      const atMillis = nowMillis()
      if (answer === undefined) request.lostMillis = atMillis
      else if (answer.status === "success") {
        host.isTold = true
        const level = levels.find((each) => each === answer.level) ?? "accepted"
        for (const each of levels.slice(0, levels.indexOf(level) + 1)) {
          request.told.push({ level: each, atMillis, generation: undefined, outcome: undefined })
        }
        // It has no session to lose. Its answer waits for a commit and for its name to be applied, and the next beat is a beat later.
        if (host.successMillis !== undefined && atMillis - host.successMillis > cluster.leaseMillis) {
          away.push({
            host: request.host,
            fromMillis: host.successMillis,
            toMillis: atMillis,
            why: "its beats had no answer"
          })
        }
        host.successMillis = atMillis
      } else {
        const code = answer.code ?? "error"
        request.refused = { code, message: answer.message, atMillis }
        errors.push({ host: request.host, atMillis, what: `${code}: ${answer.message}` })
      }
    })
    requests.push(request)
  }
  let next = 0
  if (count > 0) yield* every(beatMillis / count, () => beat(next++ % count))
  yield* Effect.addFinalizer(() => Effect.sync(() => open.forEach((socket) => socket.destroy())))
  return {
    unanswered: () =>
      hosts.filter(({ successMillis }) => successMillis === undefined || nowMillis() - successMillis > 2 * beatMillis)
        .length
  }
})

const sendBeat = (
  to: Endpoint,
  localAddress: string,
  hostname: string,
  open: Set<Net.Socket>,
  done: (answer: Answer | undefined) => void
): void => {
  const socket = Net.connect({ ...to, localAddress, noDelay: true })
  const decoder = new FrameDecoder()
  let answer: Answer | undefined
  open.add(socket)
  const timer = setTimeout(() => socket.destroy(), answerMillisMax)
  socket.on("data", (chunk) => {
    for (const received of decoder.push(new Uint8Array(chunk))) {
      if (received._tag === "Payload") answer ??= JSON.parse(Buffer.from(received.bytes).toString()) as Answer
    }
    if (answer !== undefined) socket.destroy()
  })
  socket.on("error", () => undefined)
  socket.on("close", () => {
    clearTimeout(timer)
    open.delete(socket)
    done(answer)
  })
  socket.write(encode(message(hostname, { auth_token: agentToken })))
}
