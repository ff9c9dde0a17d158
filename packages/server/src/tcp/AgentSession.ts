/**
 * One connection of an agent: bytes become frames, frames become answers, in
 * order.
 *
 * A plain state machine on a `node:net` socket, with no fiber of its own: an
 * idle connection costs its socket and one timer. Promises: answers go out in
 * the order of requests, each whole within one write; what was read is
 * processed even when the peer is gone by then; at most `pipelineMax` requests
 * are under way at once and no answer is produced faster than it is taken; a
 * peer that takes no answers is let go after the time limit; whatever ends the
 * connection, nothing is left behind.
 */
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import { encode, type Frame, FrameDecoder } from "@prism-dns/core/protocol/Wire"
import type * as Net from "node:net"

/** Answers one payload: at once with the text of a response, or later through `respond`. */
export type Answer = (
  payload: Uint8Array,
  peer: IpAddress | undefined,
  respond: (text: string) => void
) => string | undefined

export interface SessionOptions {
  /** From one complete frame to the next, in milliseconds. */
  readonly frameTimeoutMillis: number
  readonly payloadBytesMax: number
  /** Requests of one connection that are under way at once. */
  readonly pipelineMax: number
  readonly answer: Answer
  /** The text of an error response for what no request stands behind. */
  readonly refuse: (reason: Refusal) => string
  readonly onClose: (session: AgentSession) => void
}

/** Why a connection is ended from our side. */
export type Refusal = "too-large" | "http" | "tls" | "timeout"

/** A place in the order of answers; undefined while its request is under way. */
interface Slot {
  text: string | undefined
}

/** How long a peer may take to read its last answer once we have ended the connection. */
const lingerMillis = 1000

export class AgentSession {
  readonly #socket: Net.Socket
  readonly #peer: IpAddress | undefined
  readonly #options: SessionOptions
  readonly #decoder: FrameDecoder
  readonly #slots: Array<Slot> = []
  readonly #timer: NodeJS.Timeout
  /** Frames that were read and wait for their turn. */
  #backlog: Array<Frame> = []
  #state: "open" | "ending" | "closed" = "open"

  constructor(socket: Net.Socket, peer: IpAddress | undefined, options: SessionOptions) {
    this.#socket = socket
    this.#peer = peer
    this.#options = options
    this.#decoder = new FrameDecoder(options.payloadBytesMax)
    this.#timer = setTimeout(() => this.#expire(), options.frameTimeoutMillis)
    socket.setNoDelay(true)
    socket.on("data", (chunk: Uint8Array) => this.#receive(chunk))
    socket.on("drain", () => this.#proceed())
    socket.on("end", () => this.#stopReading())
    // A reset or a broken pipe is how deployed clients say goodbye.
    socket.on("error", () => socket.destroy())
    socket.on("close", () => this.#close())
  }

  /** Takes no further request, answers those under way, then closes. */
  finish(): void {
    if (this.#state !== "open") return
    this.#stopReading()
    this.#lingerThenDestroy()
  }

  /** Closes at once; what is under way is still processed. */
  destroy(): void {
    this.#socket.destroy()
  }

  #stopReading(): void {
    if (this.#state !== "open") return
    this.#state = "ending"
    this.#timer.refresh()
    this.#proceed()
  }

  #receive(chunk: Uint8Array): void {
    if (this.#state !== "open") return
    const frames = this.#decoder.push(chunk)
    if (frames.length === 0) return
    this.#timer.refresh()
    this.#backlog.push(...frames)
    // What follows cannot be told apart any more: what came before it is answered, then the connection ends.
    if (frames.at(-1)?._tag === "TooLarge") this.finish()
    else this.#proceed()
  }

  /** Starts as many requests as may be under way, sends the answers that are due, and reads on or pauses. */
  #proceed(): void {
    let taken = 0
    while (taken < this.#backlog.length && this.#slots.length < this.#options.pipelineMax) {
      this.#start(this.#backlog[taken]!)
      taken += 1
      // Answers that were there at once make room for more.
      if (this.#slots.length === this.#options.pipelineMax) this.#flush()
    }
    if (taken > 0) this.#backlog = this.#backlog.slice(taken)
    this.#flush()
    if (this.#state === "closed") return
    const full = this.#slots.length >= this.#options.pipelineMax || this.#socket.writableNeedDrain
    if (full && this.#state === "open") this.#socket.pause()
    else if (this.#socket.isPaused()) this.#socket.resume()
    if (this.#state === "ending" && this.#slots.length === 0 && this.#backlog.length === 0) this.#socket.end()
  }

  #start(frame: Frame): void {
    const slot: Slot = { text: undefined }
    this.#slots.push(slot)
    slot.text =
      frame._tag === "TooLarge"
        ? this.#options.refuse(guessProtocol(frame.prefix))
        : this.#options.answer(frame.bytes, this.#peer, (text) => {
            slot.text = text
            this.#proceed()
          })
  }

  /** Sends the answers at the head of the line as one write. */
  #flush(): void {
    let due = 0
    while (due < this.#slots.length && this.#slots[due]!.text !== undefined) due += 1
    if (due === 0) return
    const frames = this.#slots.splice(0, due).map((slot) => encode(slot.text!))
    if (this.#socket.writable) this.#socket.write(frames.length === 1 ? frames[0]! : Buffer.concat(frames))
  }

  #expire(): void {
    // An agent whose last request is still under way is waiting for us, not we for it.
    if (this.#slots.length > 0 || this.#backlog.length > 0) this.#timer.refresh()
    else if (this.#state === "open") {
      this.#slots.push({ text: this.#options.refuse("timeout") })
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
    // Frames that were read while earlier ones were under way are processed all the same.
    const unstarted = this.#backlog
    this.#backlog = []
    this.#state = "closed"
    clearTimeout(this.#timer)
    for (const frame of unstarted) this.#start(frame)
    this.#options.onClose(this)
  }
}

/** What speaks another protocol is told so. */
const guessProtocol = (prefix: Uint8Array): Refusal => {
  if (prefix[0] === 0x16 && prefix[1] === 0x03) return "tls"
  return /^[A-Z]{3,4} ?$/.test(Buffer.from(prefix).toString("latin1")) ? "http" : "too-large"
}
