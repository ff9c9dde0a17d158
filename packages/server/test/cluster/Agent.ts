/**
 * An agent of the load: one host, one session of protocol 2, and the manners of
 * the SDK's agent at a fraction of its cost.
 *
 * Promises: it connects for ever, at random moments that lie further apart with
 * each failure, to one address after the other; on `drain` it holds the old
 * session until the new one has its host, and asks nothing of the new one while
 * the old one owes an answer, for a moment at the most; on a new session it says
 * first what it wants to be true; a beat or a request that is not answered in
 * time is a lost connection, which is reset, so that nothing is delivered of it
 * later. All that it asked and was told stands in the records it is given.
 * Leaves to others: what it is to want, and when (`Load`).
 */
import * as MessageV2 from "@prism-dns/core/protocol/MessageV2"
import { encode, FrameDecoder } from "@prism-dns/core/protocol/Wire"
import { Result } from "effect"
import * as Net from "node:net"
import type { Dice } from "../../../core/test/simulation/Dice.ts"
import { type Away, nowMillis, type Request } from "./History.ts"

export interface Endpoint {
  readonly host: string
  readonly port: number
}

/** Where agents write down what they see. */
export interface Records {
  readonly requests: Array<Request>
  readonly away: Array<Away>
  /** What a program that uses the SDK would see as an error: it was refused, or the server spoke of a fault. */
  readonly errors: Array<{ readonly host: string; readonly atMillis: number; readonly what: string }>
}

export interface Options {
  readonly hostname: string
  readonly zone: string
  readonly token: string
  /** In the order in which they are tried. */
  readonly servers: ReadonlyArray<Endpoint>
  /** Where it comes from; undefined: anywhere. */
  readonly localAddress: string | undefined
  readonly ack: MessageV2.Register["ack"]
  readonly dice: Dice
  readonly records: Records
}

/** As the SDK's defaults are, but for the cap: the runs are short. */
const backoffBaseMillis = 1000
const backoffCapMillis = 4000
const connectMillisMax = 4000
const answerMillisMax = 10_000
/** How long a successor waits for what its predecessor owes. */
const patienceMillis = 1000

/** A connection of the agent. */
interface Link {
  readonly socket: Net.Socket
  readonly decoder: FrameDecoder
  instance: string | undefined
  beatMillis: number
  /** The server knows who we are. */
  isWelcome: boolean
  /** This session has registered the host. */
  holds: boolean
  isClosed: boolean
  /** The request that is under way, by its id. */
  asked: { readonly id: number; readonly request: Request } | undefined
  /** Requests whose later levels still come. */
  readonly following: Map<number, Request>
  answer: NodeJS.Timeout | undefined
  beat: NodeJS.Timeout | undefined
}

const frame = (message: MessageV2.AgentMessage): Uint8Array => encode(MessageV2.encodeText(message))

export class LoadAgent {
  readonly host: string
  readonly #options: Options
  #wanted: ReadonlyArray<string> = []
  /** What was acknowledged last is what is wanted. */
  #isSettled = true
  #settledMillis = 0
  #current: Link | undefined
  #next: Link | undefined
  #attempt: NodeJS.Timeout | undefined
  #server: number
  #failures = 0
  #ids = 0
  #away: Away | undefined
  #isOver = false

  constructor(options: Options) {
    this.#options = options
    this.host = `${options.hostname}.${options.zone}`
    // Half of those with several addresses begin with each.
    this.#server = options.dice.int(options.servers.length)
  }

  /** It knows the servers' own addresses, and so has to find out itself that one is silent. */
  get isDirect(): boolean {
    return this.#options.servers.length > 1
  }

  get wanted(): ReadonlyArray<string> {
    return this.#wanted
  }

  /** It is connected, and the server has acknowledged all that it wants. */
  get isSettled(): boolean {
    return this.#isSettled && this.#current?.isWelcome === true && this.#current.asked === undefined
  }

  /** When all that it wanted was acknowledged last. */
  get settledMillis(): number {
    return this.#settledMillis
  }

  get isConnected(): boolean {
    return this.#current?.isWelcome === true
  }

  /** Which server has its session, by its own name. */
  get instance(): string | undefined {
    return this.#current?.isWelcome === true ? this.#current.instance : undefined
  }

  /** Connects, and wants this from the start. */
  start(addresses: ReadonlyArray<string>): void {
    this.#wanted = addresses
    this.#isSettled = addresses.length === 0
    this.#connect("current")
  }

  /** Wants other addresses, or with none that its host is released. */
  want(addresses: ReadonlyArray<string>): void {
    this.#wanted = addresses
    this.#isSettled = false
    this.#say()
  }

  /** Ends its connections without a word. */
  close(): void {
    this.#isOver = true
    clearTimeout(this.#attempt)
    for (const link of [this.#current, this.#next]) if (link !== undefined) this.#drop(link, "the load ends")
    this.#current = undefined
    this.#next = undefined
  }

  // --- Connections -------------------------------------------------------------------------------------------------

  #connect(as: "current" | "next"): void {
    const { localAddress, servers } = this.#options
    const to = servers[this.#server++ % servers.length]!
    const socket = Net.connect({ ...to, noDelay: true, ...(localAddress === undefined ? {} : { localAddress }) })
    const link: Link = {
      socket,
      decoder: new FrameDecoder(),
      instance: undefined,
      beatMillis: answerMillisMax,
      isWelcome: false,
      holds: false,
      isClosed: false,
      asked: undefined,
      following: new Map(),
      answer: undefined,
      beat: undefined
    }
    if (as === "current") this.#current = link
    else this.#next = link
    this.#expectAnswer(link, connectMillisMax)
    socket.on("connect", () => {
      link.socket.write(
        frame({
          type: "hello",
          id: ++this.#ids,
          version: MessageV2.version,
          client: "prism-load/1",
          auth: { method: "token", token: this.#options.token }
        })
      )
    })
    socket.on("data", (chunk) => {
      for (const received of link.decoder.push(new Uint8Array(chunk))) {
        if (received._tag === "Payload" && !link.isClosed) this.#receive(link, received.bytes)
      }
    })
    socket.on("error", () => undefined)
    socket.on("close", () => this.#lost(link, "it was closed"))
  }

  #expectAnswer(link: Link, millis: number): void {
    clearTimeout(link.answer)
    link.answer = setTimeout(() => this.#lost(link, "no answer in time", true), millis)
  }

  #drop(link: Link, why: string, isUnanswered = false): void {
    if (link.isClosed) return
    link.isClosed = true
    clearTimeout(link.answer)
    clearTimeout(link.beat)
    const { connecting, destroyed, writableEnded } = link.socket
    if (isUnanswered && !connecting && !destroyed && !writableEnded) link.socket.resetAndDestroy()
    else link.socket.destroy()
    const atMillis = nowMillis()
    if (link.asked !== undefined) link.asked.request.lostMillis = atMillis
    for (const request of link.following.values()) request.lostMillis ??= atMillis
    // Also one that was never acknowledged may stand, and expires.
    if (link === this.#current && this.#wanted.length > 0 && this.#away === undefined) {
      this.#away = { host: this.host, fromMillis: atMillis, toMillis: undefined, why }
      this.#options.records.away.push(this.#away)
    }
  }

  #lost(link: Link, why: string, isUnanswered = false): void {
    if (link.isClosed) return
    this.#drop(link, why, isUnanswered)
    if (this.#isOver) return
    if (link === this.#next) {
      // The old one still holds the host.
      this.#next = undefined
      this.#again("next")
      this.#say()
    } else if (link === this.#current) {
      this.#current = undefined
      if (this.#next === undefined) this.#again("current")
      else {
        this.#current = this.#next
        this.#next = undefined
        this.#say()
      }
    }
  }

  #again(as: "current" | "next", withinMillis?: number): void {
    this.#failures += 1
    const ceiling = Math.min(backoffCapMillis, backoffBaseMillis * 2 ** Math.min(this.#failures - 1, 10))
    clearTimeout(this.#attempt)
    this.#attempt = setTimeout(
      () => {
        if (as === "next" && this.#current === undefined) this.#connect("current")
        else if (as === "next" ? this.#next === undefined : this.#current === undefined) this.#connect(as)
      },
      this.#options.dice.next() * (withinMillis ?? ceiling)
    )
  }

  // --- What is said -------------------------------------------------------------------------------------------------

  /** Says what is wanted, on the connection that counts, unless that was said or something is under way. */
  #say(): void {
    const link = this.#next?.isWelcome === true ? this.#next : this.#current
    // What the one does would be news to the other, were both asked side by side.
    if (link?.isWelcome !== true || link.asked !== undefined || this.#current?.asked !== undefined) return
    if (this.#wanted.length === 0) {
      if (this.#isSettled) return
      this.#ask(link, "release")
    } else if (!this.#isSettled || !link.holds) {
      this.#ask(link, "register")
    }
  }

  #ask(link: Link, kind: Request["kind"]): void {
    const { ack, hostname, records, zone } = this.#options
    const id = ++this.#ids
    const request: Request = {
      host: this.host,
      kind,
      addresses: this.#wanted,
      protocol: 2,
      instance: link.instance,
      askedMillis: nowMillis(),
      told: [],
      refused: undefined,
      lostMillis: undefined
    }
    records.requests.push(request)
    link.asked = { id, request }
    this.#expectAnswer(link, answerMillisMax)
    const level = ack === undefined ? {} : { ack }
    if (kind === "release") link.socket.write(frame({ type: "release", id, host: `${this.host}.`, ...level }))
    else if (link.holds) {
      link.socket.write(frame({ type: "update", id, host: `${this.host}.`, addresses: this.#wanted, ...level }))
    } else link.socket.write(frame({ type: "register", id, hostname, zone, addresses: this.#wanted, ...level }))
  }

  #receive(link: Link, payload: Uint8Array): void {
    const object = MessageV2.parseObject(payload)
    const decoded = Result.isFailure(object) ? object : MessageV2.decodeServerMessage(object.success)
    if (Result.isFailure(decoded)) return this.#complain(`it said what nobody knows: ${decoded.failure.message}`)
    const message = decoded.success
    switch (message.type) {
      case "welcome": {
        link.isWelcome = true
        link.instance = message.server.instance
        link.beatMillis = message.lease.beatSeconds * 1000
        clearTimeout(link.answer)
        this.#failures = 0
        this.#beatIn(link, link.beatMillis * (0.5 + 0.5 * this.#options.dice.next()))
        if (link === this.#next && this.#wanted.length === 0 && this.#isSettled) this.#replace(link)
        if (link === this.#next && this.#current?.asked !== undefined) this.#awaitFormer(link)
        return this.#say()
      }
      case "ack": {
        const atMillis = nowMillis()
        const request = link.asked?.id === message.id ? link.asked.request : link.following.get(message.id)
        request?.told.push({
          level: message.level,
          atMillis,
          generation: message.generation,
          outcome: message.outcome
        })
        if (message.level === "served") link.following.delete(message.id)
        if (link.asked?.id === message.id && message.level === "accepted") this.#accepted(link, link.asked)
        return
      }
      case "beat":
        if (link.asked === undefined) clearTimeout(link.answer)
        return this.#beatIn(link, link.beatMillis * (0.9 + 0.1 * this.#options.dice.next()))
      case "drain":
        if (link === this.#next) return this.#lost(link, "the server is about to stop", link.asked !== undefined)
        if (link !== this.#current || this.#next !== undefined) return
        return this.#again("next", message.withinSeconds * 1000)
      case "lease-unknown":
        link.holds = false
        this.#isSettled &&= this.#wanted.length === 0
        return this.#say()
      case "error":
        return this.#refused(link, message)
      default:
        return
    }
  }

  #accepted(link: Link, { id, request }: NonNullable<Link["asked"]>): void {
    link.asked = undefined
    link.following.set(id, request)
    clearTimeout(link.answer)
    link.holds = request.kind === "register"
    this.#isSettled = request.addresses === this.#wanted
    if (this.#isSettled) this.#settledMillis = nowMillis()
    if (this.#away !== undefined) this.#away.toMillis = nowMillis()
    this.#away = undefined
    if (link === this.#next) this.#replace(link)
    this.#say()
  }

  /** The successor has the host: the old connection is let go. */
  #replace(link: Link): void {
    const former = this.#current
    this.#current = link
    this.#next = undefined
    if (former === undefined) return
    former.holds = false
    this.#drop(former, "its successor has the host", former.asked !== undefined)
  }

  /** The old connection owes an answer: it is waited for, but not for long. */
  #awaitFormer(link: Link): void {
    clearTimeout(link.answer)
    link.answer = setTimeout(() => {
      const former = this.#current
      if (link.isClosed || link !== this.#next || former?.asked === undefined) return
      former.asked.request.isLeft = true
      this.#lost(former, "it owed an answer to its successor", true)
    }, patienceMillis)
  }

  #refused(link: Link, message: MessageV2.ErrorFrame): void {
    const asked = link.asked?.id === message.id ? link.asked : undefined
    // The release of what is not there any more is done: one whose answer was lost has released it.
    const isGone = asked?.request.kind === "release" && message.code === "host-unknown"
    if (!isGone) this.#complain(`${message.code}: ${message.message}`)
    if (asked !== undefined) {
      const { code, message: words } = message
      asked.request.refused = { code, message: words, atMillis: nowMillis() }
      link.asked = undefined
      clearTimeout(link.answer)
      if (isGone && asked.request.addresses === this.#wanted) this.#isSettled = true
    }
    if (message.closing === true || !link.isWelcome) return this.#lost(link, message.code)
    const wait = setTimeout(
      () => {
        if (!link.isClosed) this.#say()
      },
      500 + 500 * this.#options.dice.next()
    )
    wait.unref()
  }

  #beatIn(link: Link, millis: number): void {
    clearTimeout(link.beat)
    link.beat = setTimeout(() => {
      link.socket.write(frame({ type: "heartbeat", id: ++this.#ids }))
      if (link.asked === undefined) this.#expectAnswer(link, Math.min(answerMillisMax, link.beatMillis))
    }, millis)
  }

  #complain(what: string): void {
    this.#options.records.errors.push({ host: this.host, atMillis: nowMillis(), what })
  }
}
