/**
 * One run: core's own layers, from the registry to the publisher, on simulated
 * time, a simulated network, a simulated PowerDNS and a real SQLite, through
 * everything a scenario has in store; and what was wrong with it.
 *
 * Promises: the same scenario gives the same trace, byte for byte; nothing real
 * is waited for. Leaves to others: what happens (`Scenario`), what should be
 * (`Oracle`), and finding the part of a scenario that matters (`Shrink`).
 */
import { Clock, Context, Duration, Effect, Exit, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements, type Ticket } from "@prism-dns/core/dns/Acknowledgements"
import { Adoption } from "@prism-dns/core/dns/Adoption"
import * as DeleteBudget from "@prism-dns/core/dns/DeleteBudget"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import * as LateWrites from "@prism-dns/core/dns/LateWrites"
import { ManagedRecords } from "@prism-dns/core/dns/ManagedRecords"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import * as Reconciliation from "@prism-dns/core/dns/Reconciler"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import * as ZoneList from "@prism-dns/core/dns/Zones"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { Host } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { anonymous, type Registration } from "@prism-dns/core/registry/Decision"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import { Guards } from "@prism-dns/core/registry/Guards"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Durability } from "@prism-dns/core/storage/Durability"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import * as Dice from "./Dice.ts"
import * as Oracle from "./Oracle.ts"
import type { Agent, Event, Scenario, Settings, Wishes } from "./Scenario.ts"
import type { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { type Caller, SimulatedPowerDns, type Write } from "./SimulatedPowerDns.ts"
import { type Life, Spinning, World } from "./World.ts"

export interface Violation {
  /** Which rule; the same for each breach of it. */
  readonly rule: string
  readonly detail: string
}

export interface Outcome {
  readonly violations: ReadonlyArray<Violation>
  readonly trace: ReadonlyArray<string>
  readonly stats: {
    readonly simulatedMillis: number
    readonly accepted: number
    readonly applied: number
    readonly served: number
    readonly writes: number
    readonly lives: number
  }
}

/** 2023-11-14, some day. */
const startMillis = 1_700_000_000_000

/**
 * How long after everything is well again each live host has its records: the doubt about a lost write, another primary
 * that takes over, a comparison of the zones, and some.
 */
const recoveryMillis = (settings: Settings): number =>
  settings.reconcileMillis === undefined ? 75_000 : 90_000 + settings.reconcileMillis

/** Of all hosts; see `Expiry`. */
const massExpiryShare = 0.15

/** Violations of one run that are kept. */
const violationsMax = 20

type Services = Registry | Leases | Acknowledgements | Plans | Adoption | Guards | ManagedRecords

export const run = (scenario: Scenario, database: SimulatedDatabase): Outcome => {
  const { settings } = scenario
  const dice = (what: string) => Dice.make(`${what} of ${scenario.seed}`)
  const world = new World({
    dice: dice("order"),
    order: settings.order,
    preemption: settings.preemption,
    startMillis
  })
  database.empty(settings.powerCuts)
  let ttlSeconds = 60
  let { ttlSecondsMin } = Zone.defaultPolicy
  let zones = zonesOf(settings, ttlSeconds, ttlSecondsMin)
  const list = ZoneList.make(zones)
  const forward = zones[0]!
  const oracle = Oracle.make(database, list)
  const violations: Array<Violation> = []
  const violate = (rule: string, detail: string) => {
    if (violations.length >= violationsMax || violations.some((v) => v.rule === rule && v.detail === detail)) return
    violations.push({ rule, detail })
    world.say(`VIOLATION: ${rule}: ${detail}`)
  }
  world.onDefect = (text) => violate("no fault of ours", text)

  const powerdns = new SimulatedPowerDns(world, dice("powerdns"), settings.powerdns)
  const network = dice("network")
  const statements = dice("statements")
  const ids = dice("ids")
  let accepted = 0
  let applied = 0
  let served = 0

  // --- The server -----------------------------------------------------------------------------------------------

  let life: Life | undefined
  let scope: Scope.Closeable | undefined
  let services: Context.Context<Services> | undefined
  let lives = 0
  let pointsLeft = 0
  let downMillis = 0
  let isPowerCut = false
  /** Only those at which PowerDNS is waited for are counted. */
  let pointsAreCalls = false
  let cancelStart = () => undefined as void
  let databaseFailsUntil = 0
  let { lossShare } = settings

  const crash = (point: string) => {
    if (life === undefined) return
    world.say(`${life.name} dies, ${point}${isPowerCut ? ", by a power cut" : ""}`)
    life.alive = false
    life = undefined
    services = undefined
    pointsLeft = 0
    if (isPowerCut) database.cutPower(statements.int(3))
    else database.rollBack()
    isPowerCut = false
    cancelStart = world.after(downMillis, undefined, start)
  }

  const start = () => {
    if (life !== undefined) return
    lives += 1
    const born: Life = { name: `prism#${lives}`, alive: true, held: undefined, clockOffsetMillis }
    life = born
    world.say(`${born.name} starts`)
    const diesAt = (kind: "statement" | "call") => (point: string) => {
      if (!born.alive) return true
      if (kind === "statement" && pointsAreCalls) return false
      if (pointsLeft === 0 || --pointsLeft > 0) return false
      crash(point.length > 100 ? `${point.slice(0, 100).replaceAll(/\s+/g, " ")}...` : point)
      return true
    }
    const dies = diesAt("statement")
    /** What was committed before is safe after it. */
    const flush = Effect.suspend(() => {
      if (settings.powerCuts !== true || settings.syncs === false) return Effect.void
      const { commits } = database
      if (dies("before a sync")) return Effect.never
      return Effect.delay(
        Effect.suspend(() => {
          database.sync(commits)
          return dies("after a sync") ? Effect.never : Effect.void
        }),
        1 + statements.int(10)
      )
    })
    const opened = Scope.makeUnsafe()
    scope = opened
    const layer = layerOf(settings, zones, powerdns, { life: born, dies: diesAt("call") }).pipe(
      Layer.provide(Layer.succeed(SecureRandom.SecureRandom, seededRandom(ids))),
      Layer.provideMerge(coarse(world, born)),
      Layer.provide(Layer.succeed(Durability, { flush })),
      Layer.provide(
        database.layer({
          dies,
          failure: () => (databaseFailsUntil > world.nowMillis ? "the database is away" : undefined),
          commitsAnyway: () => statements.chance(0.5),
          delayMillis: () => (settings.statementMillisMax === 0 ? 0 : statements.int(settings.statementMillisMax + 1))
        })
      )
    )
    const fiber = Effect.runForkWith(world.servicesFor(born))(Layer.buildWithScope(layer, opened))
    fiber.addObserver((exit) => {
      if (!born.alive) return
      if (Exit.isSuccess(exit)) services = Context.merge(exit.value, world.servicesFor(born))
      else {
        world.say(`${born.name} does not start: ${String(exit.cause)}`)
        downMillis = 5000
        crash("having failed to start")
      }
    })
  }

  const stop = (millis: number) => {
    const stopping = life
    if (stopping === undefined || scope === undefined || services === undefined) return
    world.say(`${stopping.name} stops`)
    services = undefined
    downMillis = millis
    const fiber = Effect.runForkWith(world.servicesFor(stopping))(Scope.close(scope, Exit.void))
    const killed = world.after(60_000, undefined, () => life === stopping && crash("having not stopped in time"))
    fiber.addObserver(() => {
      if (life !== stopping) return
      killed()
      crash("having stopped")
    })
  }

  // --- Agents ---------------------------------------------------------------------------------------------------

  const agents = new Map(
    scenario.agents.map((agent) => [agent.id, makeAgent(agent, forward, settings.hostsMax?.owner)])
  )
  const promised: Array<{ readonly fqdn: DomainName.DomainName; readonly generation: number }> = []

  const beat = (agent: AgentState) => {
    agent.cancel()
    if (!agent.on) {
      agent.session = undefined
      return
    }
    agent.cancel = world.after(settings.beatMillis + network.int(1000), undefined, () => beat(agent))
    const registration = agent.registration()
    if (network.chance(lossShare)) return
    world.after(network.between(0, 20), undefined, () => {
      const at = life
      if (at === undefined || services === undefined) {
        agent.cancel()
        agent.cancel = world.after(2000 + network.int(3000), undefined, () => beat(agent))
        return
      }
      const context = services
      world.soon(at, () => perform(agent, registration, at, context))
    })
  }

  const perform = (agent: AgentState, registration: Registration, at: Life, context: Context.Context<Services>) => {
    const { addresses } = registration
    const nowMillis = world.nowMillis + at.clockOffsetMillis
    // As a session does: what changes nothing is answered at once.
    const leases = Context.get(context, Leases)
    const { session } = agent
    if (session?.at === at && session.asked === JSON.stringify(registration) && leases.beat(session.host, nowMillis)) {
      return
    }
    agent.session = undefined
    const held = leases.renew(registration.fqdn, addresses, registration.registrant, nowMillis, registration)
    if (held !== undefined) {
      agent.told = { fqdn: held.fqdn, addresses }
      if (agent.speaks === "2.0") {
        agent.session = { at, host: held, asked: JSON.stringify(registration) }
        run(at, context, follow(agent, held, at))
      }
      return
    }
    run(
      at,
      context,
      Effect.gen(function* () {
        const done = yield* Effect.exit((yield* Registry).register(registration))
        if (!at.alive) return
        if (Exit.isFailure(done)) {
          agent.told = undefined
          const why = done.cause.reasons.map((r) => (r._tag === "Fail" ? r.error.message : r._tag)).join("; ")
          world.say(`${at.name} -> ${agent.id}: no: ${why}`)
          if (done.cause.reasons.some((r) => r._tag === "Die")) violate("no fault of ours", why)
          return
        }
        const { host, outcome, ticket } = done.value
        const { fqdn, generation } = host
        accepted += 1
        agent.told = { fqdn, addresses }
        if (agent.speaks === "2.0") agent.session = { at, host, asked: JSON.stringify(registration) }
        world.say(`${at.name} -> ${agent.id}: ${fqdn} ${outcome} at ${generation}: ${addresses.join(" ")}`)
        promised.push({ fqdn, generation })
        checkPromise(fqdn, generation)
        if (outcome === "created") checkQuota(host.owner)
        if (ticket !== undefined) yield* acknowledged(at, ticket, fqdn, world.nowMillis)
        else if (agent.speaks === "2.0") yield* follow(agent, host, at)
      })
    )
  }

  /** Waits for the levels of a change, and looks whether they are true. */
  const acknowledged = Effect.fnUntraced(function* (
    at: Life,
    ticket: Ticket,
    fqdn: DomainName.DomainName,
    acceptedMillis: number
  ) {
    const acknowledgements = yield* Acknowledgements
    const reached = yield* acknowledgements.wait(ticket)
    if (reached._tag !== "Applied" || !at.alive) return
    applied += 1
    checkApplied(fqdn, ticket.generation, acceptedMillis)
    const last = yield* acknowledgements.wait(ticket, "served")
    if (last._tag !== "Served" || !at.alive) return
    served += 1
    checkServed(fqdn, ticket.generation)
  })

  /** Learns how far a host has come that was registered before. */
  const follow = Effect.fnUntraced(function* (agent: AgentState, host: Host, at: Life) {
    const followed = yield* Effect.exit(Effect.flatMap(Registry, (registry) => registry.follow(host)))
    if (!at.alive || Exit.isFailure(followed)) return
    const { publication, ticket } = followed.value
    world.say(`${at.name} -> ${agent.id}: ${host.fqdn} at ${host.generation} is ${publication.level}`)
    // Whatever has disturbed it since it came so far may be to be seen.
    yield* acknowledged(at, ticket, host.fqdn, startMillis)
  })

  /** An agent gives its host up, as far as it knows that it has one. */
  const leave = (agent: AgentState) => {
    const { session } = agent
    agent.on = false
    beat(agent)
    const [at, context] = [life, services]
    if (session === undefined || session.at !== at || at === undefined || context === undefined) return
    const actor = { name: session.host.owner, peer: undefined }
    const effect = Effect.gen(function* () {
      const { fqdn } = session.host
      const done = yield* Effect.exit((yield* Registry).retire(fqdn, actor, "released by its agent"))
      if (!at.alive || Exit.isFailure(done)) return
      world.say(`${at.name} -> ${agent.id}: ${fqdn} is given up at ${done.value.host.generation}`)
      yield* acknowledged(at, done.value.ticket, fqdn, world.nowMillis)
    })
    world.soon(at, () => run(at, context, effect))
  }

  /** Something that a message or a person makes the server do. */
  const run = (at: Life, context: Context.Context<Services>, effect: Effect.Effect<void, never, Services>) => {
    const fiber = Effect.runForkWith(context)(effect)
    fiber.addObserver((exit) => {
      if (at.alive && Exit.isFailure(exit)) violate("no fault of ours", String(exit.cause))
    })
  }

  // --- What must hold while it goes on --------------------------------------------------------------------------

  const checkPromise = (fqdn: DomainName.DomainName, generation: number) => {
    if (!oracle.versions(fqdn).some((version) => version.generation === generation)) {
      violate("accepted is durable", `${fqdn} was accepted at ${generation}, which the registry does not have`)
    }
  }

  /** A person has given hosts to owners, however many they had. */
  let isTransferred = false

  const checkQuota = (owner: string) => {
    const { hostsMax } = settings
    if (hostsMax === undefined || isTransferred) return
    const hosts = oracle.hosts()
    const own = hosts.filter((host) => host.owner === owner).length
    if (owner !== anonymous.name && own > hostsMax.owner) violate("quotas are kept to", `${owner} has ${own} hosts`)
    if (hosts.length > hostsMax.zone) violate("quotas are kept to", `there are ${hosts.length} hosts`)
  }

  /** What stood at a name of the forward zone, and since when; the latest last. */
  const contents = new Map<string, Array<{ readonly atMillis: number; readonly texts: Oracle.Texts }>>()
  /** When a write that nobody waited for any more last changed a name. */
  const disturbed = new Map<string, number>()
  /** Names that someone else changed behind our back, and that were not seen right since. */
  const edited = new Set<string>()
  const lastApplied = new Map<string, { readonly generation: number; readonly atMillis: number }>()
  /** Names at which a person has taken over what stood there. */
  const adoptable = new Set<string>()
  const foreign = new Map<string, { readonly name: DomainName.DomainName; readonly texts: Oracle.Texts }>()

  /** The contents that a name may have once `generation` was published: those of that change or of a later one. */
  const allowedSince = (fqdn: DomainName.DomainName, generation: number): ReadonlyArray<Oracle.Texts> => {
    // What a name has without its host: nothing, what a person took over there, or what is someone else's.
    const without = [oracle.adopted(forward).get(fqdn) ?? []]
    const other = foreign.get(`${forward.name} ${fqdn}`)
    if (other !== undefined) without.push(other.texts)
    return oracle
      .versions(fqdn)
      .filter((version) => version.generation >= generation)
      .flatMap(({ addresses, effect }) =>
        effect === "withdrawn" ||
        effect === "retired" ||
        effect === "released" ||
        (effect === "offline" && settings.withdrawMillis === 0)
          ? without
          : [Oracle.textsOf(addresses)]
      )
  }

  const checkApplied = (fqdn: DomainName.DomainName, generation: number, acceptedMillis: number) => {
    const allowed = allowedSince(fqdn, generation)
    const isAllowed = (texts: Oracle.Texts) => allowed.some((each) => Oracle.same(each, texts))
    const now = powerdns.at(forward.name, fqdn, ["A", "AAAA"])
    const before = lastApplied.get(fqdn)
    if (before === undefined || before.generation < generation) {
      lastApplied.set(fqdn, { generation, atMillis: world.nowMillis })
    }
    if (isAllowed(now)) return void edited.delete(fqdn)
    if (edited.has(fqdn)) return
    // A write that was given up may have come since, or at the same time; it is written over once the doubt is over.
    const isDoubtful = (disturbed.get(fqdn) ?? 0) >= acceptedMillis
    const wasThere = (contents.get(fqdn) ?? []).some(
      ({ atMillis, texts }) => atMillis >= acceptedMillis && isAllowed(texts)
    )
    const isAmong = allowed.some((texts) => texts.every((text) => now.includes(text)))
    if (isDoubtful && (wasThere || isAmong)) return
    violate("applied is in PowerDNS", `${fqdn} was applied at ${generation}, and ${Oracle.show(now)} stands there`)
  }

  const checkServed = (fqdn: DomainName.DomainName, generation: number) => {
    // Somebody else's hand may have changed what was right when it was asked for. A write given up before may not: while it
    // may come, nobody is told.
    if (edited.has(fqdn)) return
    const allowed = allowedSince(fqdn, generation)
    for (const node of settings.powerdns.nodes) {
      const texts = powerdns.answers(node, fqdn, ["A", "AAAA"])
      if (texts === undefined) continue
      // Each type for itself: a server may have one of them from before the latest change, and the other from after it.
      const isRight = (["A ", "AAAA "] as const).every((type) => {
        const only = (list: Oracle.Texts) => list.filter((text) => text.startsWith(type))
        return allowed.some((each) => Oracle.same(only(each), only(texts)))
      })
      if (!isRight) {
        violate(
          "served is answered by each",
          `${fqdn} was served at ${generation}, and ${node} answers ${Oracle.show(texts)}`
        )
      }
    }
  }

  /** When names lost their answers by a conclusion of ours, and how many were published then. */
  const deletions: Array<{ readonly atMillis: number; readonly name: string; readonly allowed: number }> = []
  let isOverridden = false
  /** A person let hosts expire, however many. */
  let isAllowed = false
  /** Names that a person told Prism to leave alone at some time. */
  const untended = new Set<string>()

  /** Names that lose their answers because their host stayed away are few in any window of time. */
  const checkBudget = (name: DomainName.DomainName) => {
    const last = oracle.versions(name).at(-1)
    const isInferred = last?.effect === "withdrawn" || (last?.effect === "offline" && settings.withdrawMillis === 0)
    if (!isInferred || isOverridden) return
    const { nowMillis } = world
    const policy = forward.policy.deleteBudget
    const [row] = database.rows("SELECT COUNT(*) AS n FROM published WHERE zone = ?", forward.name)
    deletions.push({ atMillis: nowMillis, name, allowed: DeleteBudget.allowed(policy, Number(row!["n"])) })
    const within = deletions.filter(({ atMillis }) => atMillis > nowMillis - Duration.toMillis(policy.window))
    const names = new Set(within.map((deletion) => deletion.name))
    if (names.size > Math.max(...within.map((deletion) => deletion.allowed))) {
      violate("deletions keep to the budget", `${[...names].join(", ")} within ${Duration.format(policy.window)}`)
    }
  }

  powerdns.onWrite = (write: Write) => {
    for (const change of write.changes) {
      const name = RRset.changedName(change)
      const known = foreign.get(`${write.zone} ${name}`)
      const type = change._tag === "Replace" ? change.rrset.type : change.type
      // Beside what is someone else's a person may have a note.
      if (known !== undefined && type !== "TXT" && !adoptable.has(`${write.zone} ${name}`)) {
        violate(
          "foreign records are left alone",
          `${name} was ${Oracle.show(known.texts)} and not ours, and was written`
        )
      }
      if (write.abandoned) disturbed.set(name, world.nowMillis)
    }
    if (write.zone !== forward.name) return
    for (const name of new Set(write.changes.map(RRset.changedName))) {
      const texts = powerdns.at(forward.name, name, ["A", "AAAA"])
      const past = contents.get(name) ?? []
      if (texts.length === 0 && (past.at(-1)?.texts.length ?? 0) > 0 && !write.abandoned) checkBudget(name)
      past.push({ atMillis: world.nowMillis, texts })
      contents.set(name, past)
      const last = lastApplied.get(name)
      if (write.abandoned || last === undefined || last.atMillis > write.sentMillis) continue
      if ((disturbed.get(name) ?? 0) >= write.sentMillis || edited.has(name)) continue
      if (!allowedSince(name, last.generation).some((each) => Oracle.same(each, texts))) {
        violate(
          "no older generation over a newer one",
          `${name} was applied at ${last.generation}, and ${Oracle.show(texts)} was written after it`
        )
      }
    }
  }

  // --- Events ---------------------------------------------------------------------------------------------------

  let clockOffsetMillis = 0
  const fqdnOf = (hostname: string) => DomainName.make(`${hostname}.${forward.name}`)

  const happen = (event: Event) => {
    world.say(`* ${describe(event)}`)
    switch (event.do) {
      case "on":
      case "off": {
        const agent = agents.get(event.agent)!
        agent.on = event.do === "on"
        return beat(agent)
      }
      case "move": {
        const agent = agents.get(event.agent)!
        agent.addresses = event.addresses
        return beat(agent)
      }
      case "wish": {
        const agent = agents.get(event.agent)!
        agent.wishes = event.wishes
        return beat(agent)
      }
      case "leave":
        return leave(agents.get(event.agent)!)
      case "crash":
      case "power cut": {
        if (life === undefined) return
        isPowerCut = event.do === "power cut"
        pointsAreCalls = event.do === "crash" && event.at === "calls"
        pointsLeft = event.points
        downMillis = event.downMillis
        return
      }
      case "restart": {
        if (event.ttlSeconds !== undefined) ttlSeconds = event.ttlSeconds
        if (event.ttlSecondsMin !== undefined) ttlSecondsMin = event.ttlSecondsMin
        zones = zonesOf(settings, ttlSeconds, ttlSecondsMin)
        return stop(event.downMillis)
      }
      case "pause": {
        const paused = life
        if (paused === undefined) return
        world.pause(paused)
        return void world.after(event.millis, undefined, () => world.wake(paused))
      }
      case "clock": {
        clockOffsetMillis += event.byMillis
        if (life !== undefined) life.clockOffsetMillis = clockOffsetMillis
        return
      }
      case "powerdns down":
        return powerdns.down(event.node, event.millis)
      case "powerdns frozen":
        return powerdns.freeze(event.node, event.millis)
      case "powerdns slow":
        return powerdns.slow(event.node, event.millis, event.byMillis)
      case "lose requests":
        return powerdns.loseRequests(event.node, event.count)
      case "lose answers":
        return powerdns.loseAnswers(event.node, event.count)
      case "lose notifications":
        return powerdns.loseNotifications(event.count)
      case "refuse": {
        const name = fqdnOf(event.hostname)
        powerdns.refuse(name, `Record ${name}/A: refused for this test`)
        return void world.after(event.millis, undefined, () => powerdns.accept(name))
      }
      case "foreign":
        return putForeign(fqdnOf(event.hostname))
      case "foreign gone": {
        const name = fqdnOf(event.hostname)
        const key = `${forward.name} ${name}`
        if (!foreign.has(key) || adoptable.has(key)) return
        if (powerdns.change(forward.name, { _tag: "Delete", name, type: "A" })) foreign.delete(key)
        return
      }
      case "edit": {
        const name = fqdnOf(event.hostname)
        // Of ours only: what else it may be is said by "foreign".
        if (database.rows("SELECT 1 FROM published WHERE name = ? AND content LIKE '%\"A%'", name).length === 0) return
        if (foreign.has(`${forward.name} ${name}`)) return
        if (!powerdns.edit(forward.name, name, "A", event.contents)) return
        world.say(`someone else: ${name} A = ${event.contents.join(" | ")}`)
        edited.add(name)
        return
      }
      case "look up": {
        for (const node of settings.powerdns.nodes) powerdns.answers(node, fqdnOf(event.hostname), ["A", "AAAA"])
        return
      }
      case "retire":
      case "release": {
        const word = event.do
        return ask(Effect.flatMap(Registry, (registry) => registry[word](fqdnOf(event.hostname), person, "said so")))
      }
      case "transfer": {
        isTransferred = true
        const { hostname, owner } = event
        return ask(
          Effect.gen(function* () {
            const { fqdn, generation } = yield* (yield* Registry).transfer(fqdnOf(hostname), owner, person, "said so")
            world.say(`a person: ${fqdn} is ${owner}'s at ${generation}`)
          })
        )
      }
      case "approve":
        return approve()
      case "adopt":
      case "give back": {
        const name = fqdnOf(event.hostname)
        const request = { zone: forward.name, patterns: [event.hostname], by: person.name, reason: "said so" }
        // From here on whose it is shows only in the end.
        const key = `${forward.name} ${name}`
        if (event.do === "adopt") adoptable.add(key)
        return ask(
          Effect.gen(function* () {
            const adoption = yield* Adoption
            const plan = yield* event.do === "adopt" ? adoption.adopt(request) : adoption.release(request)
            if (plan.state !== "open") return
            const { applied } = yield* (yield* Plans).apply(plan.id, { by: person.name })
            if (applied > 0) world.say(`a person: ${event.do} ${name}: done`)
          })
        )
      }
      case "note":
      case "note gone":
      case "alias":
      case "alias gone": {
        const name = fqdnOf(event.hostname)
        const isNote = event.do.startsWith("note")
        const type = isNote ? ("TXT" as const) : ("CNAME" as const)
        const contents = [isNote ? `"note at ${world.nowMillis}"` : "elsewhere.example."]
        return ask(
          Effect.gen(function* () {
            const records = yield* ManagedRecords
            const options = { actor: person }
            const isGone = event.do.endsWith("gone")
            const done = yield* isGone
              ? records.remove(forward.name, { name, type }, options)
              : records.put(forward.name, { name, type, after: { ttlSeconds: 60, contents } }, options)
            records.letGo(done.ticket)
            world.say(`a person: ${event.do} ${name}: ${done._tag}`)
          })
        )
      }
      case "ignore":
      case "heed": {
        const request = { zone: forward.name, patterns: [event.hostname], by: person.name, reason: "said so" }
        const undo = event.do === "heed"
        // What happens meanwhile to a name that is left alone is nobody's business.
        if (!undo) untended.add(`${forward.name} ${fqdnOf(event.hostname)}`)
        return ask(
          Effect.gen(function* () {
            const plan = yield* (yield* Adoption).ignore({ ...request, undo })
            if (plan.state === "open") yield* (yield* Plans).apply(plan.id, { by: person.name })
          })
        )
      }
      case "allow expiry": {
        isAllowed = true
        return ask(Effect.flatMap(Guards, (guards) => guards.allow("mass-expiry", person, "said so")))
      }
      case "zone lost": {
        const { name } = zones[event.zone]!
        if (!powerdns.drop(name)) return
        world.say(`someone else: the zone ${name} is deleted`)
        for (const host of oracle.hosts()) edited.add(host.fqdn)
        if (name === forward.name) foreign.clear()
        return
      }
      case "database fails": {
        databaseFailsUntil = Math.max(databaseFailsUntil, world.nowMillis + event.millis)
        return
      }
    }
  }

  /** A person lets everything go on that waits for a word. */
  const approve = () => {
    isOverridden = true
    ask(
      Effect.gen(function* () {
        const plans = yield* Plans
        for (const { id, kind } of yield* plans.list({ state: "open", limit: 100 })) {
          world.say(`a person applies a plan (${kind})`)
          yield* Effect.exit(plans.apply(id, { by: person.name, overrideBudget: "said so" }))
        }
      })
    )
  }

  /** What a person asks of the server; a failure is told to that person. */
  const ask = (request: Effect.Effect<unknown, { readonly message: string }, Services>) => {
    const [at, context] = [life, services]
    if (at === undefined || context === undefined) return
    const tell = ({ message }: { readonly message: string }) =>
      Effect.sync(() => world.say(`a person is told: ${message}`))
    world.soon(at, () => run(at, context, Effect.catch(Effect.asVoid(request), tell)))
  }

  /** A record of someone else, where we have none, want none, and are not about to look. */
  const putForeign = (name: DomainName.DomainName) => {
    const isOurs =
      database.rows("SELECT 1 FROM published WHERE name = ?", name).length > 0 ||
      database.rows("SELECT 1 FROM outbox WHERE name = ? AND parked_at IS NULL", name).length > 0 ||
      powerdns.at(forward.name, name, ["A", "AAAA"]).length > 0
    if (isOurs) return
    const rrset = RRset.make(name, "A", 300, ["203.0.113.9"])
    if (!powerdns.change(forward.name, { _tag: "Replace", rrset })) return
    world.say(`someone else: ${name} A = 203.0.113.9`)
    foreign.set(`${forward.name} ${name}`, { name, texts: ["A 203.0.113.9"] })
  }

  // --- What must hold in the end --------------------------------------------------------------------------------

  /** Every host that is live, or all that there is, against what PowerDNS holds. */
  const checkRecords = (which: "live" | "all") => {
    const parked = new Set(oracle.marks().flatMap((m) => (m.parkedReason === undefined ? [] : [`${m.zone} ${m.name}`])))
    const live = new Set(oracle.hosts().flatMap((host) => (host.state === "online" ? [host.fqdn] : [])))
    for (const zone of zones) {
      const isForward = zone.name === forward.name
      const types = Oracle.typesOf(zone)
      const wanted = oracle.desired(zone)
      const found = powerdns.records(zone.name, types) ?? new Map<string, Oracle.Texts>()
      for (const [name, texts] of wanted) {
        const key = `${zone.name} ${name}`
        if (parked.has(key) || untended.has(key) || (which === "live" && isForward && !live.has(name))) continue
        const has = found.get(name) ?? []
        if (!Oracle.same(has, texts)) {
          violate("a live host has its records", `${name} should be ${Oracle.show(texts)} and is ${Oracle.show(has)}`)
        }
      }
      if (which === "live") continue
      const others = isForward ? foreignNow() : new Map<string, Oracle.Texts>()
      for (const [name, texts] of found) {
        const known = others.get(name)
        if (known !== undefined ? Oracle.same(known, texts) : wanted.has(name as DomainName.DomainName)) continue
        if (parked.has(`${zone.name} ${name}`) || untended.has(`${zone.name} ${name}`)) continue
        violate("no record without an owner", `${name} is ${Oracle.show(texts)}, which nobody wants`)
      }
      for (const [name, texts] of others) {
        const has = found.get(name) ?? []
        if (Oracle.same(has, texts)) continue
        violate("foreign records are left alone", `${name} was ${Oracle.show(texts)} and is ${Oracle.show(has)}`)
      }
      checkTtls(zone, types, parked)
      if (isForward) checkPeoples(parked)
      if (isForward && untended.size === 0) checkPlaceholders(zone, found, others, parked)
    }
  }

  /** What is someone else's, and was not taken over by a person. */
  const foreignNow = () =>
    new Map(
      [...foreign]
        .filter(([key, { name }]) => !adoptable.has(key) || !isPublished(name))
        .map(([, { name, texts }]) => [name as string, texts])
    )

  const isPublished = (name: DomainName.DomainName) =>
    database.rows("SELECT 1 FROM published WHERE name = ? AND content LIKE '%[\"A%'", name).length > 0

  const checkTtls = (zone: Zone.Zone, types: ReadonlyArray<string>, parked: ReadonlySet<string>) => {
    const found = powerdns.ttls(zone.name, types)
    for (const [name, due] of oracle.ttls(zone)) {
      const has = found.get(name)
      if (has === undefined || parked.has(`${zone.name} ${name}`) || untended.has(`${zone.name} ${name}`)) continue
      if (has !== due) violate("records have the TTL that is due", `${name} has ${has} s, not ${due} s`)
    }
  }

  /** What people manage, by name: the texts beside hosts, and the names that stand for others. */
  const peoples = (type: string) =>
    new Map(
      database
        .rows("SELECT name, contents FROM record WHERE type = ?", type)
        .map((row) => [String(row["name"]), JSON.parse(String(row["contents"])) as ReadonlyArray<string>])
    )

  /** They stand as people said last, and nothing is left of what they took away. */
  const checkPeoples = (parked: ReadonlySet<string>) => {
    for (const type of ["TXT", "CNAME"]) {
      const wanted = peoples(type)
      const found = powerdns.records(forward.name, [type]) ?? new Map<string, Oracle.Texts>()
      for (const name of new Set([...wanted.keys(), ...found.keys()])) {
        const key = `${forward.name} ${name}`
        if (parked.has(key) || untended.has(key)) continue
        const due = (wanted.get(name) ?? []).map((content) => `${type} ${content}`)
        const has = (found.get(name) ?? []).filter((text) => !text.includes("something stands below"))
        if (!Oracle.same(has, due)) {
          violate(
            "records of people stand as they said",
            `${name} should be ${Oracle.show(due)} and is ${Oracle.show(has)}`
          )
        }
      }
    }
    const hosts = new Set(oracle.hosts().map(({ fqdn }) => fqdn as string))
    for (const name of peoples("CNAME").keys()) {
      if (hosts.has(name)) violate("a CNAME stands alone", `${name} is a host's too`)
    }
  }

  /** A name that has something of ours below it exists, by records of its own or by a placeholder; no other has one. */
  const checkPlaceholders = (
    zone: Zone.Zone,
    found: ReadonlyMap<string, Oracle.Texts>,
    others: ReadonlyMap<string, Oracle.Texts>,
    parked: ReadonlySet<string>
  ) => {
    const texts = powerdns.records(zone.name, ["TXT"]) ?? new Map<string, Oracle.Texts>()
    const notes = peoples("TXT")
    const held = new Map([...texts].filter(([name]) => !notes.has(name)))
    const standing = new Set([...found.keys(), ...notes.keys(), ...peoples("CNAME").keys()])
    const needed = new Set<string>()
    for (const name of standing) {
      if (others.has(name)) continue
      let rest = name.slice(name.indexOf(".") + 1)
      for (; rest !== zone.name; rest = rest.slice(rest.indexOf(".") + 1)) if (!standing.has(rest)) needed.add(rest)
    }
    for (const name of needed) {
      if (!held.has(name) && !parked.has(`${zone.name} ${name}`))
        violate("names above ours exist", `nothing stands at ${name}, and something of ours below it`)
    }
    for (const name of held.keys()) {
      if (!needed.has(name) && !parked.has(`${zone.name} ${name}`))
        violate("names above ours exist", `a placeholder stands at ${name} for nothing`)
    }
  }

  const checkBooks = () => {
    for (const detail of oracle.bookkeeping()) violate("audit entries equal effective changes", detail)
    for (const detail of oracle.miscounts()) violate("hosts are counted as they are", detail)
    for (const { fqdn, generation } of promised) checkPromise(fqdn, generation)
    for (const { cause, name, parkedReason } of oracle.marks()) {
      if (parkedReason === undefined) violate("nothing waits for ever", `${name} is still marked (${cause})`)
    }
    if (!isAllowed && clockOffsetMillis === 0) {
      for (const mass of oracle.masses(settings.leaseMillis, settings.massExpiryMin, massExpiryShare)) {
        violate("a mass of hosts does not expire without a word", mass)
      }
    }
    for (const what of oracle.heldByNothing()) violate("what waits for a person can be approved", what)
  }

  const checkAgents = () => {
    const byName = new Map(oracle.hosts().map((host) => [host.fqdn, host]))
    for (const agent of agents.values()) {
      if (!agent.on || agent.told === undefined) continue
      const { addresses, fqdn } = agent.told
      const host = byName.get(fqdn)
      if (host?.state !== "online" || !Oracle.same(host.addresses, addresses)) {
        violate(
          "a host that beats is online",
          `${agent.id} beats and was told that it is ${fqdn}, and the registry has ${host?.state} ${host?.addresses.join(" ")}`
        )
      }
    }
  }

  /** Every server answers for every name with what stands in the database. */
  const checkAnswers = () => {
    for (const { fqdn, zone } of oracle.hosts()) {
      if (zone !== forward.name || untended.has(`${zone} ${fqdn}`)) continue
      const stands = powerdns.at(zone, fqdn, ["A", "AAAA"])
      for (const node of settings.powerdns.nodes) {
        const texts = powerdns.answers(node, fqdn, ["A", "AAAA"])
        if (texts === undefined || Oracle.same(texts, stands)) continue
        violate(
          "every server answers the same",
          `${node} says of ${fqdn} ${Oracle.show(texts)}, and it is ${Oracle.show(stands)}`
        )
      }
    }
    for (const { name, what } of oracle.unserved()) {
      // Deleted by us and made by somebody else before each server had shown that it is gone: known to wait for ever.
      if (!foreign.has(`${forward.name} ${name}`) && !untended.has(`${forward.name} ${name}`))
        violate("all is served in the end", what)
    }
  }

  // --- The run --------------------------------------------------------------------------------------------------

  const heal = () => {
    world.say("* everything is well again")
    downMillis = 0
    cancelStart()
    start()
    powerdns.heal()
    databaseFailsUntil = 0
    lossShare = 0
    pointsLeft = 0
    if (life !== undefined) world.wake(life)
    const names = new Set<string>()
    for (const agent of agents.values()) {
      powerdns.accept(agent.fqdn)
      // Two that take a name from each other would never rest.
      if (agent.on && names.has(agent.fqdn)) agent.on = false
      if (agent.on) names.add(agent.fqdn)
    }
  }

  /** Lets what was only just marked be published, so that a check does not fall into the middle of it. */
  const breathe = () => {
    const untilMillis = world.nowMillis + 20_000
    while (world.nowMillis < untilMillis && oracle.marks().some((mark) => mark.parkedReason === undefined)) {
      world.run(world.nowMillis + 500)
    }
  }

  try {
    start()
    for (const event of scenario.events) {
      world.run(startMillis + event.atMillis)
      happen(event)
    }
    world.run(startMillis + scenario.endMillis)
    heal()
    // A server that was away starts in this time, hosts beat again, doubts are settled.
    world.run(world.nowMillis + recoveryMillis(settings))
    breathe()
    checkRecords("live")
    checkAgents()
    // Hosts that are silent go their way: lease, grace, withdrawal.
    world.run(world.nowMillis + settings.leaseMillis * 3 + (settings.withdrawMillis ?? 0) + settings.quarantineMillis)
    breathe()
    checkRecords("all")
    checkAgents()
    checkBooks()
    // Secondaries hear of a change by NOTIFY, or else within a minute.
    const untilMillis = world.nowMillis + 130_000
    while (world.nowMillis < untilMillis && oracle.unserved().length > 0) world.run(world.nowMillis + 5000)
    checkAnswers()
    if (oracle.held().length > 0) {
      approve()
      world.run(world.nowMillis + 30_000)
      breathe()
      for (const name of oracle.held()) violate("what waits for a person can be approved", `${name} waits on`)
      checkRecords("all")
    }
    const before = { writes: powerdns.writes, generation: oracle.generation() }
    world.run(world.nowMillis + 45_000)
    // What time does to hosts may go on; each name of such a change is written once, with or without others.
    const allowed = (oracle.generation() - before.generation) * zones.length * agents.size
    const writes = powerdns.writes - before.writes
    if (writes > allowed) violate("no change, no write", `${writes} writes while all was quiet`)
  } catch (error) {
    if (!(error instanceof Spinning)) throw error
    violate("it comes to rest", error.message)
  } finally {
    if (life !== undefined) life.alive = false
    database.rollBack()
  }
  return {
    violations,
    trace: world.lines,
    stats: { simulatedMillis: world.nowMillis - startMillis, accepted, applied, served, writes: powerdns.writes, lives }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

const person = { name: "ops", peer: undefined }

const zonesOf = (settings: Settings, ttlSeconds: number, ttlSecondsMin: number): ReadonlyArray<Zone.Zone> => {
  const policy: Partial<Zone.ZonePolicy> = {
    ttlSeconds,
    ttlSecondsMin,
    hostsMax: settings.hostsMax?.zone ?? Zone.defaultPolicy.hostsMax,
    whenOffline:
      settings.withdrawMillis === undefined
        ? { _tag: "Keep" }
        : { _tag: "Withdraw", after: Duration.millis(settings.withdrawMillis) },
    conflict: settings.conflict,
    retireAfter: Duration.millis(settings.retireMillis),
    holdFor: Duration.millis(settings.holdMillis),
    quarantine: Duration.millis(settings.quarantineMillis),
    deleteBudget: { share: 0.1, min: settings.budget.min, window: Duration.millis(settings.budget.windowMillis) }
  }
  const reconciliation = { interval: Duration.millis(settings.reconcileMillis ?? 3_600_000) }
  return ["hosts.test", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"].map((name) =>
    Zone.make(DomainName.make(name), { policy, reconciliation })
  )
}

/** What a server is made of, without its sockets. Loops that tick for nothing tick rarely: they cost a run most. */
const layerOf = (settings: Settings, zones: ReadonlyArray<Zone.Zone>, powerdns: SimulatedPowerDns, caller: Caller) =>
  Expiry.layer({
    leaseMillis: settings.leaseMillis,
    sweepMillis: settings.sweepMillis,
    flushMillis: settings.flushMillis,
    massExpiryMin: settings.massExpiryGuard ?? settings.massExpiryMin,
    massExpiryShare
  }).pipe(
    Layer.provideMerge(Guards.layer),
    Layer.provideMerge(ZoneChanges.layer),
    Layer.provideMerge(Registry.layer()),
    Layer.provideMerge(settings.reconcileMillis === undefined ? Layer.empty : Reconciliation.scheduled),
    Layer.provideMerge(Reconciliation.Reconciler.layer()),
    Layer.provideMerge(Layer.mergeAll(Adoption.layer, ManagedRecords.layer, LateWrites.layer)),
    Layer.provideMerge(
      DnsManager.layer({
        batchNamesMax: settings.batchNamesMax,
        doubtMillis: settings.doubtMillis,
        pollMillis: 20_000
      })
    ),
    Layer.provideMerge(Plans.layer),
    Layer.provideMerge(
      Serving.layer({
        tickMillis: 500,
        rescanMillis: 60_000,
        commitMillis: 50,
        retryMillisMin: 500,
        retryMillisMax: 5000,
        probeMillis: 5000
      })
    ),
    Layer.provideMerge(Layer.succeed(NameServers, powerdns.nameServersFor(caller))),
    Layer.provideMerge(Provisioner.layer()),
    Layer.provideMerge(Debts.layer.pipe(Layer.provideMerge(PowerDnsDatabases.layerOne))),
    Layer.provideMerge(PowerDnsWriter.layer({ probeMillis: 12_000, awayMillis: 6000 })),
    Layer.provideMerge(PowerDnsNodes.layerOf(powerdns.nodesFor(caller))),
    Layer.provideMerge(RecordSource.layer),
    Layer.provideMerge(Ownership.layer),
    Layer.provideMerge(Outbox.layer),
    Layer.provideMerge(Cluster.layerAlone),
    Layer.provideMerge(Leases.layer),
    Layer.provideMerge(Zones.layer(zones))
  )

/** Its loop looks at deadlines twenty times a second, most often for nothing; once in five seconds will do. */
const coarse = (world: World, life: Life) =>
  Acknowledgements.layer.pipe(Layer.provide(Layer.succeed(Clock.Clock, world.clockFor(life, 5000))))

const seededRandom = (dice: Dice.Dice) =>
  SecureRandom.make((size) => Uint8Array.from({ length: size }, () => dice.int(256)))

interface AgentState {
  readonly id: string
  readonly fqdn: DomainName.DomainName
  readonly speaks: Agent["speaks"]
  on: boolean
  addresses: ReadonlyArray<string>
  wishes: Wishes | undefined
  /** Of protocol 2: the host that it has registered, with what, in which life of the server. */
  session: { readonly at: Life; readonly host: Host; readonly asked: string } | undefined
  /** What it was told last: that it has this name with these addresses; undefined when it was told no. */
  told: { readonly fqdn: DomainName.DomainName; readonly addresses: ReadonlyArray<string> } | undefined
  cancel: () => void
  readonly registration: () => Registration
}

const makeAgent = (agent: Agent, zone: Zone.Zone, hostsMax: number | undefined): AgentState => {
  const fqdn = DomainName.make(`${agent.hostname}.${zone.name}`)
  const state: AgentState = {
    id: agent.id,
    fqdn,
    speaks: agent.speaks,
    on: false,
    addresses: agent.addresses,
    wishes: agent.wishes,
    session: undefined,
    told: undefined,
    cancel: () => undefined,
    registration: () => ({
      fqdn,
      hostname: agent.hostname as Registration["hostname"],
      zone: zone.name,
      addresses: IpAddress.sorted(state.addresses.map(IpAddress.make)),
      registrant:
        agent.owner === undefined ? anonymous : { name: agent.owner, anonymous: false, actsFor: agent.actsFor },
      peer: "198.51.100.1",
      hostsMax: agent.owner === undefined ? undefined : hostsMax,
      ...state.wishes
    })
  }
  return state
}

const describe = (event: Event): string =>
  `${event.do} ${Object.entries(event)
    .filter(([key]) => key !== "do" && key !== "atMillis")
    .map(([, value]) =>
      Array.isArray(value) ? value.join(" ") : typeof value === "object" ? JSON.stringify(value) : String(value)
    )
    .join(", ")}`.trim()
