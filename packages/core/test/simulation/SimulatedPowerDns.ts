/**
 * PowerDNS as a simulated server meets it: two primaries that share a database,
 * and a secondary that fetches the zones from them, with the rules of
 * `PowerDnsMemory` behind a network and processes that fail as real ones do.
 *
 * What can happen to a call: it is lost before or after its work; it takes
 * long; the server is down, is killed in the middle of it, or stands still and
 * works off later, in any order, what it had received, whoever still waits for
 * it; the body is too large. Two writes of a zone at once do what the backend
 * does: PostgreSQL keeps the records of both, SQLite refuses one, LMDB takes one
 * after the other. Someone else may write into the zones.
 *
 * What a name server answers: a primary what it has cached (20 s, and 60 s that
 * there is nothing), and what it was not told to drop it keeps; a secondary what
 * it has fetched, after a NOTIFY, which may get lost, or within a minute, and not
 * before the primary it asks says that the serial has risen, from its cache too.
 *
 * Leaves to others: what should be there (`Oracle`).
 */
import { Clock, Context, Effect, Exit, Layer, Stream } from "effect"
import { type Answer, NameServers, NoAnswer } from "@prism-dns/core/dns/NameServers"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { BackendFailed, Malformed, PowerDnsError, Uncertain, Unreachable } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import type { Node } from "@prism-dns/core/powerdns/PowerDnsNodes"
import type { RawRecord } from "@prism-dns/core/powerdns/PowerDnsZoneFile"
import type { Dice } from "./Dice.ts"
import type { Life, World } from "./World.ts"

export const backends = ["postgresql", "sqlite", "lmdb"] as const
export type Backend = (typeof backends)[number]

export const nodeNames = ["p1", "p2", "s1"] as const
export type NodeName = (typeof nodeNames)[number]

export interface PowerDnsOptions {
  /** The first is the preferred primary; `s1` is a secondary. */
  readonly nodes: ReadonlyArray<NodeName>
  readonly backend: Backend
  /** Changes in one PATCH at the most, as the body's limit in bytes has it. */
  readonly changesMax: number
  /** One way through the network takes up to this. */
  readonly latencyMillisMax: number
  /** The work of a call takes up to this. */
  readonly workMillisMax: number
  /** How long the client waits for an answer. */
  readonly timeoutMillis: number
  /** Writes that are answered as done and are not, for tests that want to see it noticed. */
  readonly lieShare?: number
}

/** A write of ours that took effect. */
export interface Write {
  readonly zone: DomainName
  readonly changes: ReadonlyArray<RRset.RRsetChange>
  readonly sentMillis: number
  /** Nobody waits for its answer any more. */
  readonly abandoned: boolean
}

/** Who asks, and what becomes of him: see `StatementFate`. */
export interface Caller {
  readonly life: Life
  readonly dies: (point: string) => boolean
}

interface Running {
  readonly zone: DomainName
  readonly changes: ReadonlyArray<RRset.RRsetChange>
}

type Work = Effect.Effect<unknown, PowerDnsError>

const positiveCacheMillis = 20_000
const negativeCacheMillis = 60_000
const transferCycleMillis = 60_000

const keyOf = (zone: string, name: string, type: string) => `${zone} ${name} ${type}`

const changeKey = (zone: string, change: RRset.RRsetChange) =>
  keyOf(zone, RRset.changedName(change), change._tag === "Replace" ? change.rrset.type : change.type)

/** What one server is like now. */
class Server {
  readonly name: NodeName
  /** Rises when it is killed: what it was at is lost. */
  epoch = 0
  downUntilMillis = 0
  slowUntilMillis = 0
  slowMillis = 0
  loseRequests = 0
  loseAnswers = 0
  /** What goes on once it moves again; undefined while it does. */
  stuck: Array<() => void> | undefined
  cancelThaw: () => void = () => undefined
  /** By name and type. */
  readonly cache = new Map<
    string,
    { readonly zone: string; readonly untilMillis: number; readonly answer: Answer; readonly serial: number }
  >()
  /** What a secondary has fetched. */
  readonly fetched = new Map<DomainName, { readonly serial: number; readonly sets: ReadonlyArray<RRset.RRset> }>()

  constructor(name: NodeName) {
    this.name = name
  }
}

export class SimulatedPowerDns {
  readonly #world: World
  readonly #dice: Dice
  readonly #options: PowerDnsOptions
  readonly #inner: PowerDnsClient["Service"]
  readonly #memory: PowerDnsMemory["Service"]
  readonly #clock: Context.Context<never>
  readonly #servers: ReadonlyMap<NodeName, Server>
  /** Records that stand twice, or beside their successors, because two writes met. */
  readonly #doubled = new Map<string, ReadonlyArray<string>>()
  readonly #writing = new Set<Running>()
  /** What was written, and when, for those that were already at work then. */
  #recent: Array<{ readonly atMillis: number; readonly key: string; readonly contents: ReadonlyArray<string> }> = []
  #inFlight = 0
  #loseNotifications = 0
  /** Called for each write that took effect, before the next thing happens. */
  onWrite: (write: Write) => void = () => undefined
  writes = 0

  constructor(world: World, dice: Dice, options: PowerDnsOptions) {
    this.#world = world
    this.#dice = dice
    this.#options = options
    const made = Effect.runSync(Effect.scoped(Layer.build(PowerDnsMemory.layer({ node: "memory" }))))
    this.#inner = Context.get(made, PowerDnsClient)
    this.#memory = Context.get(made, PowerDnsMemory)
    this.#clock = Context.make(
      Clock.Clock,
      world.clockFor({ name: "p", alive: true, held: undefined, clockOffsetMillis: 0 })
    )
    this.#servers = new Map(options.nodes.map((name) => [name, new Server(name)]))
    if (this.#servers.has("s1")) this.#cycle()
  }

  /** The nodes as one life of a server knows them. */
  nodesFor(caller: Caller): ReadonlyArray<Node> {
    return [...this.#servers.values()].map((server, i): Node => ({
      name: server.name,
      role: server.name === "s1" ? "secondary" : "primary",
      api: server.name === "s1" ? undefined : this.#clientFor(caller, server),
      dns: { host: `192.0.2.${250 + i}`, port: 53 }
    }))
  }

  /** The client of one server. Works for whatever methods the contract has. */
  #clientFor(caller: Caller, server: Server): PowerDnsClient["Service"] {
    const wrapped: Record<string, unknown> = {}
    for (const [operation, member] of Object.entries(this.#inner)) {
      const call = (args: ReadonlyArray<unknown>, work: Work) => this.#call(caller, server, operation, args, work)
      if (Effect.isEffect(member)) {
        wrapped[operation] = call([], member)
      } else if (operation === "records") {
        const records = member as PowerDnsClient["Service"]["records"]
        wrapped[operation] = (zone: DomainName) =>
          Stream.unwrap(
            Effect.map(
              call(
                [zone],
                Effect.map(Stream.runCollect(records(zone)), (pieces) => this.#doubledRecords(zone, pieces.flat()))
              ),
              (all) => Stream.make(all as ReadonlyArray<RawRecord>)
            )
          )
      } else if (typeof member === "function") {
        wrapped[operation] = (...args: ReadonlyArray<unknown>) => {
          const work = (member as (...args: ReadonlyArray<unknown>) => Work)(...args)
          return call(
            args,
            operation === "rrsets" || operation === "exportZone" ? this.#withDoubled(args[0], work) : work
          )
        }
      } else wrapped[operation] = member
    }
    wrapped["node"] = server.name
    return PowerDnsClient.of(wrapped as unknown as PowerDnsClient["Service"])
  }

  #withDoubled(zone: unknown, work: Work): Work {
    return Effect.map(work, (rrsets) =>
      (rrsets as ReadonlyArray<RRset.RRset>).map((rrset) => {
        const more = this.#doubled.get(keyOf(String(zone), rrset.name, rrset.type))
        return more === undefined
          ? rrset
          : RRset.make(rrset.name, rrset.type, rrset.ttlSeconds, [...rrset.contents, ...more])
      })
    )
  }

  #doubledRecords(zone: DomainName, records: ReadonlyArray<RawRecord>): ReadonlyArray<RawRecord> {
    if (this.#doubled.size === 0) return records
    const seen = new Set<string>()
    return records.flatMap((record) => {
      const key = keyOf(zone, record.name, record.type)
      const more = seen.has(key) ? undefined : this.#doubled.get(key)
      seen.add(key)
      return more === undefined ? [record] : [record, ...more.map((content) => ({ ...record, content }))]
    })
  }

  #call(caller: Caller, server: Server, operation: string, args: ReadonlyArray<unknown>, work: Work) {
    return Effect.callback<unknown, PowerDnsError>((resume) => {
      const world = this.#world
      const isWrite = operation === "patch"
      const zone = args[0] as DomainName
      const changes = isWrite ? (args[1] as ReadonlyArray<RRset.RRsetChange>) : []
      const point = `${operation} ${typeof zone === "string" ? zone : ""}`.trim()
      if (!caller.life.alive || caller.dies(`before ${point}`)) return undefined
      if (isWrite && changes.length === 0) return resume(Effect.void)
      const sentMillis = world.nowMillis
      const about = isWrite ? `${point}: ${changes.map(describe).join(", ")}` : point
      let waiting = true
      this.#inFlight += 1
      const answer = (result: Effect.Effect<unknown, PowerDnsError>, said: string) => {
        if (!waiting) return
        waiting = false
        this.#inFlight -= 1
        cancelTimeout()
        if (!caller.life.alive) return
        if (isWrite) world.say(`${server.name} -> ${caller.life.name}: ${said} (${point})`)
        if (!caller.dies(`after ${point}`)) resume(result)
      }
      const fail = (reason: PowerDnsError["reason"]) =>
        answer(
          Effect.fail(new PowerDnsError({ node: server.name, operation, reason })),
          `${reason._tag}: ${reason.detail}`
        )
      const cancelTimeout = world.after(this.#options.timeoutMillis, caller.life, () =>
        fail(new Uncertain({ detail: "no answer in time" }))
      )
      const later = (millis: number, run: () => void) => void world.after(millis, undefined, run)
      const latency = () => this.#dice.between(0, this.#options.latencyMillisMax)
      const isAbandoned = () => !waiting || !caller.life.alive
      const reply = (run: () => void) => {
        if (server.loseAnswers > 0) {
          server.loseAnswers -= 1
          world.say(`network: the answer of ${server.name} is lost (${point})`)
          return
        }
        world.after(latency(), caller.life, run)
      }
      const work1 = () => {
        const epoch = server.epoch
        const running: Running = { zone, changes }
        if (isWrite) this.#writing.add(running)
        const startMillis = world.nowMillis
        const broken = () => fail(new Uncertain({ detail: "the connection broke before the answer" }))
        const finish = () => {
          if (server.stuck !== undefined) return void server.stuck.push(finish)
          this.#writing.delete(running)
          if (server.epoch !== epoch) return later(latency(), broken)
          const isLie = isWrite && this.#options.lieShare !== undefined && this.#dice.chance(this.#options.lieShare)
          const exit = Effect.runSyncExitWith(this.#clock)(isLie ? Effect.void : work)
          if (isWrite && Exit.isSuccess(exit)) {
            if (isAbandoned()) world.say(`${server.name}: ${about} takes effect, and nobody waits for it`)
            this.#wrote({ zone, changes, sentMillis, abandoned: isAbandoned() }, startMillis)
            this.#drop(server, zone)
          }
          if (operation === "flush") this.#drop(server, zone)
          if (operation === "notify") this.#notify()
          reply(() =>
            server.epoch === epoch
              ? answer(Exit.isSuccess(exit) ? Effect.succeed(exit.value) : Effect.failCause(exit.cause), toWord(exit))
              : broken()
          )
        }
        const slow = server.slowUntilMillis > world.nowMillis ? this.#dice.between(0, server.slowMillis) : 0
        later(this.#dice.between(0, this.#options.workMillisMax) + slow, finish)
      }
      const arrive = () => {
        if (server.downUntilMillis > world.nowMillis) {
          return reply(() => fail(new Unreachable({ detail: "cannot connect (ECONNREFUSED)" })))
        }
        if (server.stuck !== undefined) return void server.stuck.push(arrive)
        if (isWrite && changes.length > this.#options.changesMax) {
          return reply(() => fail(new Malformed({ status: 400, detail: "Bad Request" })))
        }
        if (isWrite && this.#options.backend === "sqlite" && this.#isWriting(zone)) {
          return reply(() => fail(new BackendFailed({ status: 500, detail: "database is locked" })))
        }
        work1()
      }
      if (isWrite) world.say(`${caller.life.name} -> ${server.name}: ${about}`)
      if (server.loseRequests > 0) {
        server.loseRequests -= 1
        world.say(`network: the request to ${server.name} is lost (${point})`)
      } else {
        later(latency(), arrive)
      }
      return Effect.sync(() => {
        if (waiting) this.#inFlight -= 1
        waiting = false
        cancelTimeout()
      })
    })
  }

  #isWriting(zone: DomainName): boolean {
    for (const each of this.#writing) if (each.zone === zone) return true
    return false
  }

  #wrote(write: Write, startMillis: number): void {
    this.writes += 1
    const { nowMillis } = this.#world
    this.#recent = this.#recent.filter(({ atMillis }) => nowMillis - atMillis < 120_000)
    const mine = write.changes.map((change) => ({
      key: changeKey(write.zone, change),
      contents: change._tag === "Replace" && change.disabled !== true ? change.rrset.contents : []
    }))
    for (const { contents, key } of mine) {
      this.#doubled.delete(key)
      if (this.#options.backend !== "postgresql") continue
      // What came while this write was at work it did not see, and so did not remove.
      const met = this.#recent.findLast((each) => each.key === key && each.atMillis > startMillis)
      if (met !== undefined && met.contents.length > 0 && contents.length > 0) {
        this.#doubled.set(key, met.contents)
        this.#world.say(`two writes met, and both stand: ${key} ${[...met.contents, ...contents].join(" | ")}`)
      }
    }
    for (const each of mine) this.#recent.push({ ...each, atMillis: nowMillis })
    this.onWrite(write)
  }

  // What happens to it.

  #server(name: NodeName): Server | undefined {
    return this.#servers.get(name)
  }

  down(name: NodeName, millis: number): void {
    const server = this.#server(name)
    if (server === undefined) return
    server.epoch += 1
    server.downUntilMillis = this.#world.nowMillis + millis
    server.cache.clear()
  }

  freeze(name: NodeName, millis: number): void {
    const server = this.#server(name)
    if (server === undefined) return
    server.stuck ??= []
    server.cancelThaw()
    server.cancelThaw = this.#world.after(millis, undefined, () => this.#thaw(server))
  }

  /** What it had received it now works off, in any order. */
  #thaw(server: Server): void {
    const stuck = server.stuck ?? []
    server.stuck = undefined
    server.cancelThaw()
    for (const run of stuck) this.#world.after(this.#dice.int(20), undefined, run)
  }

  slow(name: NodeName, millis: number, byMillis: number): void {
    const server = this.#server(name)
    if (server === undefined) return
    server.slowUntilMillis = this.#world.nowMillis + millis
    server.slowMillis = byMillis
  }

  loseRequests(name: NodeName, count: number): void {
    const server = this.#server(name)
    if (server !== undefined) server.loseRequests = count
  }

  loseAnswers(name: NodeName, count: number): void {
    const server = this.#server(name)
    if (server !== undefined) server.loseAnswers = count
  }

  loseNotifications(count: number): void {
    this.#loseNotifications = count
  }

  refuse(name: DomainName, sentence: string): void {
    Effect.runSync(this.#memory.refuseName(name, sentence))
  }

  accept(name: DomainName): void {
    Effect.runSync(this.#memory.acceptName(name))
  }

  /** Everything works from here on; what was sent before may still come. */
  heal(): void {
    for (const server of this.#servers.values()) {
      server.downUntilMillis = 0
      this.#thaw(server)
      server.slowUntilMillis = 0
      server.loseRequests = 0
      server.loseAnswers = 0
    }
    this.#loseNotifications = 0
  }

  // Someone else.

  /** Through the same API. True when it was done: not while calls of ours are under way, when nobody could say which came first. */
  change(zone: DomainName, change: RRset.RRsetChange): boolean {
    if (this.#inFlight > 0 || Exit.isFailure(Effect.runSyncExit(this.#inner.patch(zone, [change])))) return false
    for (const server of this.#servers.values()) this.#drop(server, zone)
    return true
  }

  /** In the database, past all servers, which go on answering what they have cached. */
  edit(zone: DomainName, name: DomainName, type: string, contents: ReadonlyArray<string>): boolean {
    if (this.#inFlight > 0 || !this.has(zone)) return false
    this.#doubled.delete(keyOf(zone, name, type))
    Effect.runSync(
      contents.length === 0
        ? this.#memory.remove(zone, name, type)
        : this.#memory.put(zone, RRset.make(name, type, 60, contents))
    )
    return true
  }

  /** The whole zone. */
  drop(zone: DomainName): boolean {
    if (this.#inFlight > 0 || !this.has(zone)) return false
    Effect.runSync(this.#inner.deleteZone(zone))
    for (const key of this.#doubled.keys()) if (key.startsWith(`${zone} `)) this.#doubled.delete(key)
    for (const server of this.#servers.values()) this.#drop(server, zone)
    return true
  }

  has(zone: DomainName): boolean {
    return this.#serial(zone) !== undefined
  }

  // What there is.

  #setsAt(zone: DomainName, name: DomainName): ReadonlyArray<RRset.RRset> {
    const exit = Effect.runSyncExit(this.#withDoubled(zone, this.#inner.rrsets(zone, [name])))
    return Exit.isSuccess(exit) ? (exit.value as ReadonlyArray<RRset.RRset>) : []
  }

  #serial(zone: DomainName): number | undefined {
    const found = Effect.runSync(this.#inner.findZone(zone))
    return found._tag === "Some" ? found.value.serial : undefined
  }

  /** The record sets of `types` in a zone by name, contents sorted, doubled records and all; undefined without the zone. */
  records(zone: DomainName, types: ReadonlyArray<string>): ReadonlyMap<string, ReadonlyArray<string>> | undefined {
    const exit = Effect.runSyncExit(this.#inner.exportZone(zone))
    if (Exit.isFailure(exit)) return undefined
    const found = new Map<string, Array<string>>()
    for (const rrset of exit.value) if (types.includes(rrset.type)) this.#gather(found, zone, rrset)
    return found
  }

  /** The same of one name. */
  at(zone: DomainName, name: DomainName, types: ReadonlyArray<string>): ReadonlyArray<string> {
    const exit = Effect.runSyncExit(this.#inner.rrsets(zone, [name]))
    if (Exit.isFailure(exit)) return []
    const found = new Map<string, Array<string>>()
    for (const rrset of exit.value) if (types.includes(rrset.type)) this.#gather(found, zone, rrset)
    return found.get(name) ?? []
  }

  #gather(found: Map<string, Array<string>>, zone: DomainName, rrset: RRset.RRset): void {
    const doubled = this.#doubled.get(keyOf(zone, rrset.name, rrset.type)) ?? []
    const texts = [...rrset.contents, ...doubled].map((content) => `${rrset.type} ${content}`)
    found.set(rrset.name, [...(found.get(rrset.name) ?? []), ...texts].sort())
  }

  /** The TTLs of the record sets of `types`, by name. */
  ttls(zone: DomainName, types: ReadonlyArray<string>): ReadonlyMap<string, number> {
    const exit = Effect.runSyncExit(this.#inner.exportZone(zone))
    if (Exit.isFailure(exit)) return new Map()
    return new Map(exit.value.filter(({ type }) => types.includes(type)).map((rrset) => [rrset.name, rrset.ttlSeconds]))
  }

  // What name servers answer.

  #drop(server: Server, zone: DomainName): void {
    for (const [key, cached] of server.cache) {
      if (cached.zone === zone || cached.zone.endsWith(`.${zone}`)) server.cache.delete(key)
    }
  }

  #zoneOf(name: DomainName): DomainName | undefined {
    for (let rest: string = name; rest !== ""; rest = rest.slice(rest.indexOf(".") + 1)) {
      if (this.has(rest as DomainName)) return rest as DomainName
    }
    return undefined
  }

  /** What a server answers now; undefined when it says nothing. */
  #resolve(server: Server, name: DomainName, type: string): { answer: Answer; serial: number } | undefined {
    const { nowMillis } = this.#world
    if (server.downUntilMillis > nowMillis || server.stuck !== undefined) return undefined
    const refused: Answer = { rcode: "REFUSED", authoritative: false, ttlSeconds: undefined, contents: [] }
    const zone = this.#zoneOf(name)
    if (zone === undefined) return { answer: refused, serial: 0 }
    if (server.name === "s1") {
      const fetched = server.fetched.get(zone)
      if (fetched === undefined) return { answer: refused, serial: 0 }
      const sets = fetched.sets.filter((rrset) => rrset.name === name)
      return { answer: answerFrom(sets, type), serial: fetched.serial }
    }
    const key = `${name} ${type}`
    const cached = server.cache.get(key)
    if (cached !== undefined && cached.untilMillis > nowMillis) return cached
    const answer = answerFrom(this.#setsAt(zone, name), type)
    const entry = {
      zone,
      answer,
      serial: this.#serial(zone) ?? 0,
      untilMillis: nowMillis + (answer.contents.length > 0 ? positiveCacheMillis : negativeCacheMillis)
    }
    server.cache.set(key, entry)
    return entry
  }

  /** What it answers, as `TYPE content`; undefined when it says nothing. */
  answers(node: NodeName, name: DomainName, types: ReadonlyArray<string>): ReadonlyArray<string> | undefined {
    const server = this.#server(node)
    if (server === undefined) return undefined
    const texts: Array<string> = []
    for (const type of types) {
      const resolved = this.#resolve(server, name, type)
      if (resolved === undefined) return undefined
      for (const content of resolved.answer.contents) texts.push(`${type} ${content}`)
    }
    return texts.sort()
  }

  nameServersFor({ life }: Caller): NameServers["Service"] {
    const askThen: NameServers["Service"]["askThen"] = (endpoint, name, type, tell) => {
      const server = [...this.#servers.values()][Number(endpoint.host.split(".")[3]) - 250]!
      const latency = () => this.#dice.between(0, this.#options.latencyMillisMax)
      const isLost = server.loseRequests > 0 && this.#dice.chance(0.5)
      let told = false
      const once = (answer: Answer | NoAnswer) => {
        if (told) return
        told = true
        tell(answer)
      }
      this.#world.after(1000, life, () => once(new NoAnswer({ reason: "silent", detail: `${server.name} is silent` })))
      if (isLost) return
      this.#world.after(latency(), undefined, () => {
        const resolved = this.#resolve(server, name, type)
        if (resolved !== undefined) this.#world.after(latency(), life, () => once(resolved.answer))
      })
    }
    return NameServers.of({
      askThen,
      ask: (server, name, type) =>
        Effect.callback<Answer, NoAnswer>((resume) => {
          askThen(server, name, type, (answer) =>
            resume(answer instanceof NoAnswer ? Effect.fail(answer) : Effect.succeed(answer))
          )
        })
    })
  }

  // The secondary.

  #notify(): void {
    if (!this.#servers.has("s1")) return
    if (this.#loseNotifications > 0) {
      this.#loseNotifications -= 1
      this.#world.say("network: a NOTIFY is lost")
      return
    }
    this.#world.after(this.#dice.between(0, this.#options.latencyMillisMax), undefined, () => this.#fetch())
  }

  #cycle(): void {
    this.#fetch()
    this.#world.after(transferCycleMillis, undefined, () => this.#cycle())
  }

  /** Fetches each zone whose serial has risen, as far as one of the primaries says so. */
  #fetch(): void {
    const { nowMillis } = this.#world
    const secondary = this.#servers.get("s1")!
    if (secondary.downUntilMillis > nowMillis || secondary.stuck !== undefined) return
    const primaries = [...this.#servers.values()].filter(
      (each) => each !== secondary && each.downUntilMillis <= nowMillis && each.stuck === undefined
    )
    if (primaries.length === 0) return
    const zones = Effect.runSync(this.#inner.listZones)
    for (const { name: zone } of zones) {
      const asked = this.#dice.pick(primaries)
      const said = this.#resolve(asked, zone, "SOA")
      const serial = said?.serial ?? 0
      if (serial <= (secondary.fetched.get(zone)?.serial ?? 0)) continue
      this.#world.after(this.#dice.between(1, 50), undefined, () => {
        const exit = Effect.runSyncExit(this.#withDoubled(zone, this.#inner.exportZone(zone)))
        if (Exit.isFailure(exit)) return
        const sets = exit.value as ReadonlyArray<RRset.RRset>
        secondary.fetched.set(zone, { serial: this.#serial(zone) ?? 0, sets })
      })
    }
  }
}

const answerFrom = (sets: ReadonlyArray<RRset.RRset>, type: string): Answer => {
  const found = sets.find((rrset) => rrset.type === type)
  return {
    rcode: sets.length === 0 ? "NXDOMAIN" : "NOERROR",
    authoritative: true,
    ttlSeconds: found?.ttlSeconds,
    contents: found?.contents ?? []
  }
}

const toWord = (exit: Exit.Exit<unknown, PowerDnsError>): string =>
  Exit.isSuccess(exit) ? "done" : String(exit.cause.reasons.map((r) => (r._tag === "Fail" ? r.error.message : r._tag)))

const describe = (change: RRset.RRsetChange): string =>
  change._tag === "Replace"
    ? `${change.rrset.name} ${change.rrset.type} = ${change.rrset.contents.join(" | ")}${change.disabled === true ? " (disabled)" : ""}`
    : `${change.name} ${change.type} gone`
