/**
 * One connection of an agent: bytes become frames, frames become answers, in
 * order.
 *
 * A plain state machine on a `node:net` socket, with no fiber of its own: an
 * idle connection costs its socket, one timer and this object; handlers are
 * shared by all. What is spoken is the business of its `protocol`, which the
 * first frame decides. Promises: answers go out in the order of requests, what
 * follows from a request after its answer; what was read of protocol 1 is
 * processed even when the peer is gone by then; at most `pipelineMax` requests
 * are under way at once and no answer is produced faster than it is taken; a
 * peer that takes no answers is let go after the time limit, one that does not
 * take what is pushed once that is more than `unsentBytesMax`; whatever ends
 * the connection, nothing is left behind.
 */
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import { encode, encodeAll, type Frame, FrameDecoder } from "@prism-dns/core/protocol/Wire"
import type * as Net from "node:net"
import type { Connection } from "./Connection.ts"

/** What is spoken on a connection: one object for all connections that have no state of their own. */
export interface Protocol {
  /** Answers one payload: at once by the text of a frame, or later at a place that it reserves meanwhile. */
  readonly answer: (payload: Uint8Array, session: AgentSession) => string | undefined
  /**
   * Answers bytes that came alone, when nothing else is under way, if they are one whole frame that needs no more than its
   * answer; undefined: they go the way of all others.
   */
  readonly answerAlone?: (chunk: Uint8Array) => string | undefined
  /** The text of an error for what no request stands behind. */
  readonly refuse: (reason: Refusal, session: AgentSession) => string
  /** Whether what was read counts when the connection is closed before its turn comes. */
  readonly outlivesConnection: boolean
  /** The connection is gone. */
  readonly closed: (session: AgentSession) => void
  /** It was told to go to another server, and does so by itself. Default false. */
  readonly isLeaving?: boolean
}

export interface SessionOptions {
  /** From one complete frame to the next, in milliseconds. */
  readonly frameTimeoutMillis: number
  readonly payloadBytesMax: number
  /** Requests of one connection that are under way at once. */
  readonly pipelineMax: number
  /** Until a frame decides otherwise. */
  readonly protocol: Protocol
  readonly onClose: (session: AgentSession) => void
}

/** Why a connection is ended from our side. */
export type Refusal = "too-large" | "http" | "tls" | "proxy" | "timeout"

/** A place in the order of answers. */
export interface Slot {
  /** The answer and what follows from it; undefined while the request is under way. */
  texts: Array<string> | undefined
  /** They are on their way: what follows from now on goes out by itself. */
  isSent: boolean
  /** Later requests begin only when this one is answered. */
  readonly holds: boolean
}

/** How long a peer may take to read its last answer once we have ended the connection. */
const lingerMillis = 1000

/** How long a peer that has ended its side is taken to wait for its answers, in milliseconds. */
const halfClosedMillisMax = 1000

/** What may wait to be taken by a peer until pushing more ends its connection, in bytes. */
export const unsentBytesMax = 262_144

/** The session of a socket, for handlers that all sockets share. */
const ownSession = Symbol("AgentSession")
type OwnedSocket = Net.Socket & { [ownSession]: AgentSession }
let onData: (this: OwnedSocket, chunk: Uint8Array) => void
let onDrain: (this: OwnedSocket) => void
let onEnd: (this: OwnedSocket) => void
let onClose: (this: OwnedSocket) => void
let onTimer: (session: AgentSession) => void

/** A reset or a broken pipe is how deployed clients say goodbye. */
const onError = function (this: Net.Socket): void {
  this.destroy()
}

const none: ReadonlyArray<Frame> = []

export class AgentSession {
  static {
    onData = function (chunk) {
      this[ownSession].#receive(chunk)
    }
    onDrain = function () {
      this[ownSession].#proceed()
    }
    onEnd = function () {
      this[ownSession].#peerEndedMillis = performance.now()
      this[ownSession].#stopReading()
    }
    onClose = function () {
      this[ownSession].#close()
    }
    onTimer = (session) => session.#expire()
  }

  readonly peer: IpAddress | undefined
  readonly transport: Connection["transport"]
  /** Changed by the frame that decides it. */
  protocol: Protocol
  readonly #socket: Net.Socket
  readonly #options: SessionOptions
  readonly #decoder: FrameDecoder
  #timer: NodeJS.Timeout
  /** The timer runs for another time than that of a frame. */
  #isPatient = false
  readonly #slots: Array<Slot> = []
  /** Frames that were read and wait for their turn. */
  #backlog: ReadonlyArray<Frame> = none
  /** Answers that are due while a chunk is being worked on: one write takes them all. */
  #due: Array<string> | undefined
  /** Of the slots, those that hold later requests. */
  #holding = 0
  #state: "open" | "ending" | "closed" = "open"
  /** When the peer ended its side. */
  #peerEndedMillis = Number.POSITIVE_INFINITY

  constructor({ peer, socket, transport }: Connection, options: SessionOptions) {
    this.peer = peer
    this.transport = transport
    this.protocol = options.protocol
    const owned = Object.assign(socket, { [ownSession]: this })
    this.#socket = owned
    this.#options = options
    this.#decoder = new FrameDecoder(options.payloadBytesMax)
    this.#timer = setTimeout(onTimer, options.frameTimeoutMillis, this)
    owned.setNoDelay(true)
    owned.on("data", onData)
    owned.on("drain", onDrain)
    owned.on("end", onEnd)
    owned.on("error", onError)
    owned.on("close", onClose)
  }

  /** True until it ends from either side. */
  get isOpen(): boolean {
    return this.#state === "open"
  }

  /** True once it has ended and nobody hears any more. */
  get isClosed(): boolean {
    return this.#state === "closed"
  }

  /** It is open, and its peer goes to another server by itself. */
  get isLeaving(): boolean {
    return this.isOpen && this.protocol.isLeaving === true
  }

  /** The peer has said that it will say no more. */
  get hasPeerEnded(): boolean {
    return this.#peerEndedMillis !== Number.POSITIVE_INFINITY
  }

  /**
   * False once nobody hears any more, as far as one can tell: it has ended, or the peer ended its side a while ago. Whoever
   * gives up says the same as whoever only has no more to say, and is told apart by its patience.
   */
  get isHeard(): boolean {
    return this.#state !== "closed" && performance.now() - this.#peerEndedMillis < halfClosedMillisMax
  }

  /** Takes the next place in the order of answers, for the request that is being answered. */
  reserve(holds = false): Slot {
    const slot: Slot = { texts: undefined, isSent: false, holds }
    this.#slots.push(slot)
    if (holds) this.#holding += 1
    return slot
  }

  /** The answer of a place. */
  respond(slot: Slot, text: string): void {
    if (slot.texts !== undefined) return
    slot.texts = [text]
    if (slot.holds) this.#holding -= 1
    this.#proceed()
  }

  /** Something that follows from a request and comes behind its answer. */
  follow(slot: Slot, text: string): void {
    if (slot.isSent) this.push(text)
    else slot.texts?.push(text)
  }

  /** Something that no request asks for. A peer that does not take it is let go. */
  push(text: string): void {
    if (this.#due !== undefined) this.#due.push(text)
    else this.#write(encode(text))
    if (this.#socket.writableLength > unsentBytesMax) this.#socket.destroy()
  }

  /** As long as it is open it may be silent for so long. */
  allowSilence(millis: number): void {
    if (this.#state !== "open") return
    this.#isPatient = true
    this.#wait(millis)
  }

  #wait(millis: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(onTimer, millis, this)
  }

  /** Takes no further request, answers those under way, then closes. */
  finish(): void {
    if (this.#state !== "open") return
    this.#stopReading()
    this.#lingerThenDestroy()
  }

  /** Takes no further request, forgets those that have not begun, answers those under way, then closes. */
  conclude(): void {
    this.#backlog = none
    this.finish()
  }

  /** Closes behind `text`, whatever is under way. */
  terminate(text: string): void {
    if (this.#state !== "open") return
    this.push(text)
    this.#slots.length = 0
    this.conclude()
  }

  /** Closes at once; what is under way is still processed. */
  destroy(): void {
    this.#socket.destroy()
  }

  #stopReading(): void {
    if (this.#state !== "open") return
    this.#state = "ending"
    if (this.#isPatient) this.#wait(this.#options.frameTimeoutMillis)
    else this.#timer.refresh()
    this.#proceed()
  }

  #receive(chunk: Uint8Array): void {
    if (this.#state !== "open") return
    if (this.#slots.length === 0 && this.#backlog.length === 0 && !this.#decoder.isPartial) {
      const text = this.protocol.answerAlone?.(chunk)
      if (text !== undefined) {
        this.#timer.refresh()
        this.#write(encode(text))
        if (this.#socket.writableNeedDrain) this.#socket.pause()
        return
      }
    }
    const frames = this.#decoder.push(chunk)
    if (frames.length === 0) return
    this.#timer.refresh()
    this.#backlog = this.#backlog.length === 0 ? frames : [...this.#backlog, ...frames]
    // What follows cannot be told apart any more: what came before it is answered, then the connection ends.
    if (frames[frames.length - 1]!._tag === "TooLarge") this.finish()
    else this.#proceed()
  }

  /** Starts as many requests as may be under way, sends the answers that are due, and reads on or pauses. */
  #proceed(): void {
    // Called from within: what called us goes on with it.
    if (this.#due !== undefined) return
    this.#due = []
    let taken = 0
    while (taken < this.#backlog.length && this.#slots.length < this.#options.pipelineMax && this.#holding === 0) {
      const frames = this.#backlog
      this.#start(frames[taken]!)
      taken += 1
      // Whoever concludes forgets the rest.
      if (this.#backlog !== frames) taken = 0
      // Answers that were there at once make room for more.
      if (this.#slots.length === this.#options.pipelineMax) this.#collect()
    }
    if (taken === this.#backlog.length) this.#backlog = none
    else if (taken > 0) this.#backlog = this.#backlog.slice(taken)
    this.#collect()
    const due = this.#due
    this.#due = undefined
    if (due.length > 0) this.#write(due.length === 1 ? encode(due[0]!) : encodeAll(due))
    if (this.#state === "closed") return
    const full = this.#slots.length >= this.#options.pipelineMax || this.#holding > 0 || this.#socket.writableNeedDrain
    if (full && this.#state === "open") this.#socket.pause()
    else if (this.#socket.isPaused()) this.#socket.resume()
    if (this.#state === "ending" && this.#slots.length === 0 && this.#backlog.length === 0) this.#socket.end()
  }

  #start(frame: Frame): void {
    const places = this.#slots.length
    const text =
      frame._tag === "TooLarge"
        ? this.protocol.refuse(guessProtocol(frame.prefix), this)
        : this.protocol.answer(frame.bytes, this)
    if (text === undefined) return
    if (places === 0) this.#due?.push(text)
    else this.#slots.push({ texts: [text], isSent: false, holds: false })
  }

  /** Takes the answers at the head of the line. */
  #collect(): void {
    let ready = 0
    while (ready < this.#slots.length && this.#slots[ready]!.texts !== undefined) {
      const slot = this.#slots[ready]!
      this.#due?.push(...slot.texts!)
      slot.isSent = true
      ready += 1
    }
    if (ready > 0) this.#slots.splice(0, ready)
  }

  #write(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes)
  }

  #expire(): void {
    // An agent whose last request is still under way is waiting for us, not we for it.
    if (this.#slots.length > 0 || this.#backlog.length > 0) this.#timer.refresh()
    else if (this.#state === "open") {
      this.push(this.protocol.refuse("timeout", this))
      this.finish()
    } else {
      // It has had its time to take the last answer, and nobody else would ever end this connection.
      this.#socket.destroy()
    }
  }

  /**
   * Closing with unread bytes would reset the connection and with it the answers: what still comes is read and thrown
   * away, for a short time after the last answer.
   */
  #lingerThenDestroy(): void {
    this.#socket.resume()
    this.#socket.once("finish", () => setTimeout(() => this.#socket.destroy(), lingerMillis).unref())
  }

  #close(): void {
    if (this.#state === "closed") return
    const unstarted = this.#backlog
    this.#backlog = none
    this.#state = "closed"
    clearTimeout(this.#timer)
    // Frames that were read while earlier ones were under way are processed all the same.
    if (this.protocol.outlivesConnection) for (const frame of unstarted) this.#start(frame)
    this.protocol.closed(this)
    this.#options.onClose(this)
  }
}

/** What speaks another protocol is told so. */
const guessProtocol = (prefix: Uint8Array): Refusal => {
  if (prefix[0] === 0x16 && prefix[1] === 0x03) return "tls"
  const text = Buffer.from(prefix).toString("latin1")
  if (text === "PROX" || text === "\r\n\r\n") return "proxy"
  return /^[A-Z]{3,4} ?$/.test(text) ? "http" : "too-large"
}
