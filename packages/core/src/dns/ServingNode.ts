/**
 * One node on the way to `served`: its caches are dropped, it is asked, and asked
 * again, until it answers every name as published.
 *
 * A plain state machine without fibers: a name costs some objects and its
 * questions. Promises: a name is asked only after the caches of the node were
 * dropped since its latest publication, where we can; at most `asksMax`
 * questions are under way; a node that does not answer is asked one question a
 * second until it does; one that answers with old contents is asked again at
 * growing distances, and not faster than `retriesPerSecond` until it gets
 * better. Leaves to others: when it is served (`Serving`).
 */
import type { DomainName } from "../domain/DomainName.ts"
import type { Node } from "../powerdns/PowerDnsNodes.ts"
import * as Expectation from "./Expectation.ts"
import { Fifo } from "./Fifo.ts"
import { type Answer, type NameServers, NoAnswer } from "./NameServers.ts"

export interface ServingNodeOptions {
  /** Names under way at one node at once. */
  readonly asksMax: number
  /** Zones whose caches are dropped at one node at once: others want its API too. */
  readonly flushesMax: number
  /** Between the starts of two flushes of a zone at a node, in milliseconds. */
  readonly flushSpacingMillis: number
  /**
   * How long after the last publication of a zone its caches are dropped once more, in milliseconds. PowerDNS drops them
   * with a write, but keeps an answer that it was just giving then: seen on 4.7.3, where a resolver was told for the 20 s of
   * the packet cache that a name does not exist which was there.
   */
  readonly flushAgainMillis: number
  /** From the first wrong answer to the next question; doubles. */
  readonly retryMillisMin: number
  readonly retryMillisMax: number
  /** Names asked again per second while none of them comes right; each that does allows some more. */
  readonly retriesPerSecond: number
  /** Between two questions to a node that does not answer, in milliseconds. */
  readonly probeMillis: number
  /** How long a name may wait to be asked while the process has more to do than it can, in milliseconds. */
  readonly crowdedMillisMax: number
}

/** What a node needs of the world around. */
export interface Surroundings {
  readonly nameServers: Pick<NameServers["Service"], "askThen">
  /** Milliseconds of a clock that only goes on, for all distances in time. */
  readonly elapsed: () => number
  /** The time of day, for what is told. */
  readonly now: () => number
  /** The process has more to do than it can. */
  readonly isCrowded: () => boolean
  /** Drops the node's cached answers of a zone; calls back when that ended, well or not. */
  readonly flush: (node: Node, zone: DomainName, done: () => void) => void
  /** The node answers the name as published. */
  readonly onAnswered: (expectation: Expectation.Expectation) => void
  /** It began or ceased to answer. */
  readonly onTurn: (node: ServingNode, why: string) => void
}

/** A zone at a node. */
interface Lane {
  readonly zone: DomainName
  awaiting: Array<Expectation.Expectation>
  flushing: boolean
  flushedMillis: number
  publishedMillis: number
  /** To be flushed once more when nothing was published for a moment. */
  again: boolean
  unserved: number
}

interface Entry {
  readonly expectation: Expectation.Expectation
  readonly version: number
}

interface Retry extends Entry {
  readonly dueMillis: number
}

/** How many retries each name that comes right allows. */
const retriesPerSuccess = 4

/** After so many answers for a type that is gone, a wildcard is asked for. */
const wildcardAttempts = 3

/** How many seconds' worth of retries may be saved up. */
const budgetSecondsMax = 20

export class ServingNode {
  readonly node: Node
  readonly #index: number
  readonly #options: ServingNodeOptions
  readonly #around: Surroundings
  readonly #lanes = new Map<DomainName, Lane>()
  readonly #ready = new Fifo<Entry>()
  /** By how often they were asked already: within one line the distance is the same, so the first is due first. */
  readonly #retries: ReadonlyArray<{ readonly millis: number; readonly line: Fifo<Retry> }>
  #budget: number
  #budgetMillis: number
  #underWay = 0
  #unserved = 0
  #up = true
  #probeMillis = -Infinity
  #lastAnsweredMillis: number | undefined
  #answeredMillis = -Infinity
  #flushesUnderWay = 0
  /** Questions since they were last counted. */
  readonly questions = { asPublished: 0, stale: 0, noAnswer: 0 }

  constructor(node: Node, index: number, options: ServingNodeOptions, around: Surroundings) {
    this.node = node
    this.#index = index
    this.#options = options
    this.#around = around
    const lines: Array<{ readonly millis: number; readonly line: Fifo<Retry> }> = []
    for (let millis = options.retryMillisMin; millis < options.retryMillisMax; millis *= 2) {
      lines.push({ millis, line: new Fifo() })
    }
    lines.push({ millis: options.retryMillisMax, line: new Fifo() })
    this.#retries = lines
    this.#budget = options.retriesPerSecond
    this.#budgetMillis = around.elapsed()
  }

  /** False once a question went unanswered, until one is answered. */
  get up(): boolean {
    return this.#up
  }

  get unserved(): number {
    return this.#unserved
  }

  get lastAnsweredMillis(): number | undefined {
    return this.#lastAnsweredMillis
  }

  /** True while there is something to do or to wait for. */
  get busy(): boolean {
    return this.#unserved > 0 || this.#lanes.values().some((lane) => lane.again)
  }

  unservedOf(zone: DomainName): number {
    return this.#lanes.get(zone)?.unserved ?? 0
  }

  /** The name was published anew. `fresh`: this node took the write itself, and with it has dropped what it had cached. */
  expect(expectation: Expectation.Expectation, fresh: boolean): void {
    const progress = expectation.nodes[this.#index]!
    const lane = this.#lane(expectation.zone)
    const { place } = progress
    progress.attempts = 0
    progress.seen = undefined
    lane.publishedMillis = this.#around.elapsed()
    if (this.node.api !== undefined) lane.again = true
    if (place === "answered") {
      this.#unserved += 1
      lane.unserved += 1
    } else if (place !== "retry") {
      // It is on its way there; whoever takes it up sees that its version is another.
      return
    }
    if (fresh) this.#toReady({ expectation, version: expectation.version })
    else this.#toAwaiting(expectation)
  }

  /** Lets a name go that is `gone`, wherever it stands here. */
  forget(expectation: Expectation.Expectation): void {
    const progress = expectation.nodes[this.#index]!
    if (progress.place === "answered") return
    progress.place = "answered"
    this.#unserved -= 1
    this.#lane(expectation.zone).unserved -= 1
  }

  /** Does what is due. To be called every few milliseconds while `busy`, and after names were published. */
  work(): void {
    const nowMillis = this.#around.elapsed()
    const { flushAgainMillis, flushSpacingMillis, retriesPerSecond } = this.#options
    const earned = ((nowMillis - this.#budgetMillis) * retriesPerSecond) / 1000
    this.#budgetMillis = nowMillis
    this.#budget = Math.min(Math.max(this.#budget, retriesPerSecond), this.#budget + Math.max(0, earned))
    this.#takeRetries(nowMillis)
    for (const lane of this.#lanes.values()) {
      if (lane.flushing || this.#flushesUnderWay >= this.#options.flushesMax) continue
      if (lane.awaiting.length > 0 && nowMillis - lane.flushedMillis >= flushSpacingMillis) this.#flush(lane)
      else if (lane.again && nowMillis - lane.publishedMillis >= flushAgainMillis) {
        lane.again = false
        // One that is away has nothing cached that outlives its absence and the flush at its return.
        if (this.#up) this.#flush(lane)
      }
    }
    this.#pump()
  }

  #lane(zone: DomainName): Lane {
    let lane = this.#lanes.get(zone)
    if (lane === undefined) {
      lane = {
        zone,
        awaiting: [],
        flushing: false,
        flushedMillis: -Infinity,
        publishedMillis: -Infinity,
        again: false,
        unserved: 0
      }
      this.#lanes.set(zone, lane)
    }
    return lane
  }

  #progress(expectation: Expectation.Expectation): Expectation.Progress {
    return expectation.nodes[this.#index]!
  }

  #toAwaiting(expectation: Expectation.Expectation): void {
    if (expectation.gone) return
    this.#progress(expectation).place = "awaiting"
    this.#lane(expectation.zone).awaiting.push(expectation)
  }

  #toReady(entry: Entry): void {
    if (entry.expectation.gone) return
    this.#progress(entry.expectation).place = "ready"
    this.#ready.push(entry)
  }

  #takeRetries(nowMillis: number): void {
    // The youngest first: when the node gets better they show it, and then there is budget for the others.
    for (const { line } of this.#retries) {
      for (let head = line.peek(); head !== undefined && head.dueMillis <= nowMillis; head = line.peek()) {
        const { expectation, version } = head
        const isCurrent = expectation.version === version && this.#progress(expectation).place === "retry"
        if (isCurrent && this.#budget < 1) return
        line.shift()
        if (!isCurrent) continue
        this.#budget -= 1
        this.#toAwaiting(expectation)
      }
    }
  }

  /** Drops the zone's caches, and then lets those that wait for it be asked. */
  #flush(lane: Lane): void {
    const entries = lane.awaiting
      .filter(({ gone }) => !gone)
      .map((expectation): Entry => ({ expectation, version: expectation.version }))
    lane.awaiting = []
    if (this.node.api === undefined || !this.#up) {
      for (const entry of entries) this.#toReady(entry)
      return
    }
    for (const { expectation } of entries) this.#progress(expectation).place = "flushing"
    lane.flushing = true
    this.#flushesUnderWay += 1
    lane.flushedMillis = this.#around.elapsed()
    this.#around.flush(this.node, lane.zone, () => {
      lane.flushing = false
      this.#flushesUnderWay -= 1
      for (const entry of entries) {
        if (entry.expectation.version === entry.version) this.#toReady(entry)
        else this.#toAwaiting(entry.expectation)
      }
      this.#pump()
    })
  }

  #pump(): void {
    while (this.#underWay < this.#options.asksMax) {
      // One that does not answer is asked a single question now and then.
      if (!this.#up && (this.#underWay > 0 || this.#around.elapsed() < this.#probeMillis)) return
      if (this.#mayWait()) return
      const entry = this.#ready.shift()
      if (entry === undefined) return
      if (entry.expectation.gone) continue
      if (entry.expectation.version !== entry.version) this.#toAwaiting(entry.expectation)
      else this.#ask(entry, 0)
    }
  }

  /** While others need the processor, the next name can wait a moment: that it is there matters more than that we know. */
  #mayWait(): boolean {
    const next = this.#ready.peek()
    return (
      next !== undefined &&
      this.#around.now() - next.expectation.publishedMillis < this.#options.crowdedMillisMax &&
      this.#around.isCrowded()
    )
  }

  #ask(entry: Entry, typeIndex: number): void {
    const { expectation } = entry
    const type = expectation.types[typeIndex]!
    const askedMillis = this.#around.elapsed()
    this.#progress(expectation).place = "asking"
    this.#underWay += 1
    this.#around.nameServers.askThen(this.node.dns, expectation.name, type, (answer) => {
      this.#underWay -= 1
      if (answer instanceof NoAnswer) this.#unanswered(entry, answer, askedMillis)
      else {
        this.#answered(entry, typeIndex, answer)
        this.#pump()
      }
    })
  }

  #unanswered(entry: Entry, { message, reason }: NoAnswer, askedMillis: number): void {
    // Nothing was sent: the next `work` tries again.
    if (reason === "busy") return this.#toReady(entry)
    this.questions.noAnswer += 1
    if (this.#up && this.#answeredMillis >= askedMillis) {
      // Others were answered meanwhile: this question or its answer was lost.
      this.#progress(entry.expectation).seen = message
      return this.#toRetry(entry.expectation)
    }
    this.#toReady(entry)
    this.#probeMillis = this.#around.elapsed() + this.#options.probeMillis
    if (this.#up) {
      this.#up = false
      this.#around.onTurn(this, message)
    }
  }

  #answered(entry: Entry, typeIndex: number, answer: Answer): void {
    const { expectation, version } = entry
    this.#lastAnsweredMillis = this.#around.now()
    this.#answeredMillis = this.#around.elapsed()
    if (!this.#up) this.#comeUp()
    if (expectation.gone) return
    if (expectation.version !== version) return this.#toAwaiting(expectation)
    const type = expectation.types[typeIndex]!
    const { attempts } = this.#progress(expectation)
    if (Expectation.isAsWanted(expectation.wanted, type, answer)) return this.#right(entry, typeIndex, answer)
    const parent = Expectation.parent(expectation.name)
    // A wildcard of someone else's answers for what is gone; asked for rarely, since few zones have one.
    const mayBeWildcard = attempts >= wildcardAttempts && Expectation.isUnwanted(expectation.wanted, type, answer)
    if (mayBeWildcard && parent !== undefined) this.#askWildcard(entry, typeIndex, answer, parent)
    else this.#wrong(entry, type, answer)
  }

  #wrong({ expectation }: Entry, type: string, answer: Answer): void {
    this.questions.stale += 1
    this.#progress(expectation).seen = Expectation.describe(type, answer)
    this.#toRetry(expectation)
  }

  /** Asks whether `answer` is that of a wildcard at or above `parent`: then the name itself is gone. */
  #askWildcard(entry: Entry, typeIndex: number, answer: Answer, parent: DomainName): void {
    const { expectation, version } = entry
    const type = expectation.types[typeIndex]!
    this.#underWay += 1
    this.#around.nameServers.askThen(this.node.dns, `*.${parent}` as DomainName, type, (wildcard) => {
      this.#underWay -= 1
      const above = Expectation.parent(parent)
      if (expectation.gone) return this.#pump()
      if (expectation.version !== version) this.#toAwaiting(expectation)
      else if (wildcard instanceof NoAnswer) this.#wrong(entry, type, answer)
      else if (wildcard.contents.length > 0) {
        if (Expectation.isSame(wildcard, answer)) this.#right(entry, typeIndex, answer)
        else this.#wrong(entry, type, answer)
      } else if (parent === expectation.zone || above === undefined) this.#wrong(entry, type, answer)
      else return this.#askWildcard(entry, typeIndex, answer, above)
      this.#pump()
    })
  }

  /** The answer for one type is as published. */
  #right(entry: Entry, typeIndex: number, answer: Answer): void {
    const { expectation } = entry
    const progress = this.#progress(expectation)
    this.questions.asPublished += 1
    // A name that does not exist has no records of any type.
    if (typeIndex + 1 < expectation.types.length && answer.rcode !== "NXDOMAIN") return this.#ask(entry, typeIndex + 1)
    if (progress.attempts > 0) {
      this.#budget = Math.min(this.#budget + retriesPerSuccess, budgetSecondsMax * this.#options.retriesPerSecond)
    }
    progress.place = "answered"
    progress.answeredMillis = this.#around.now()
    progress.seen = undefined
    this.#unserved -= 1
    this.#lane(expectation.zone).unserved -= 1
    expectation.remaining -= 1
    this.#around.onAnswered(expectation)
  }

  #toRetry(expectation: Expectation.Expectation): void {
    if (expectation.gone) return
    const progress = this.#progress(expectation)
    const { line, millis } = this.#retries[Math.min(progress.attempts, this.#retries.length - 1)]!
    progress.attempts += 1
    progress.place = "retry"
    line.push({ expectation, version: expectation.version, dueMillis: this.#around.elapsed() + millis })
  }

  /** It answers again: what it has cached may be of before. */
  #comeUp(): void {
    this.#up = true
    this.#around.onTurn(this, "it answers")
    for (const { expectation } of this.#ready.takeAll()) this.#toAwaiting(expectation)
  }
}
