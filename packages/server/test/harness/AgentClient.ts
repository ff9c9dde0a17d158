/**
 * An agent as tests need it: raw bytes over TCP, from any loopback address,
 * well-behaved or not.
 */
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import * as Net from "node:net"

/** What an agent was told. */
export interface Answer {
  readonly status: "success" | "error"
  readonly message: string
  readonly code?: string
  readonly host?: string
  readonly address?: string
  readonly previousAddress?: string
  readonly level?: string
  readonly retryAfterSeconds?: number
}

/** The payload of a client 1.1 beat. */
export const message = (hostname: string, fields: object = {}): string =>
  JSON.stringify({
    version: "1.0",
    type: "registration",
    hostname,
    client_ip: "unknown",
    timestamp: "2026-11-23T06:14:00.123456+00:00",
    ...fields
  })

export const frame = (hostname: string, fields: object = {}): Uint8Array => Wire.encode(message(hostname, fields))

export class AgentClient {
  readonly socket: Net.Socket
  readonly #answers: Array<Answer> = []
  /** Answers that each chunk of bytes completed, to tell how they were written. */
  readonly answersPerChunk: Array<number> = []
  #closed = false
  #changed: () => void = () => undefined

  constructor(socket: Net.Socket) {
    this.socket = socket
    const decoder = new Wire.FrameDecoder(1 << 20)
    socket.on("data", (chunk) => {
      const frames = decoder.push(new Uint8Array(chunk))
      this.answersPerChunk.push(decoder.isPartial ? -1 : frames.length)
      for (const received of frames) {
        if (received._tag === "Payload") this.#answers.push(JSON.parse(Buffer.from(received.bytes).toString()))
      }
      this.#changed()
    })
    socket.on("error", () => undefined)
    socket.on("close", () => {
      this.#closed = true
      this.#changed()
    })
    socket.on("end", () => this.#changed())
  }

  /** The next `count` answers. Fails when the connection ends before. */
  receive(count = 1): Effect.Effect<ReadonlyArray<Answer>, Error> {
    return Effect.callback<ReadonlyArray<Answer>, Error>((resume) => {
      const look = () => {
        if (this.#answers.length >= count) {
          this.#changed = () => undefined
          resume(Effect.succeed(this.#answers.splice(0, count)))
        } else if (this.#closed) {
          resume(Effect.fail(new Error(`closed after ${this.#answers.length} of ${count} answers`)))
        }
      }
      this.#changed = look
      look()
    }).pipe(
      Effect.timeoutOrElse({
        duration: "10 seconds",
        orElse: () => Effect.fail(new Error(`${this.#answers.length} of ${count} answers within 10 s`))
      })
    )
  }

  /** Waits until the connection is closed, by either side. */
  get closed(): Effect.Effect<void, Error> {
    return Effect.callback<void>((resume) => {
      if (this.#closed) return resume(Effect.void)
      this.socket.once("close", () => resume(Effect.void))
    }).pipe(
      Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.fail(new Error("still open after 10 s")) })
    )
  }
}

export interface ConnectOptions {
  /** The loopback address to come from. */
  readonly from?: string
  /** Keep our side open when the server has ended its side. */
  readonly allowHalfOpen?: boolean
}

/** A connection to `address`, closed with the scope. */
export const connect = (address: { readonly host: string; readonly port: number }, options: ConnectOptions = {}) =>
  Effect.acquireRelease(
    Effect.callback<AgentClient, Error>((resume) => {
      const socket = Net.connect({
        host: address.host,
        port: address.port,
        ...(options.from === undefined ? {} : { localAddress: options.from }),
        allowHalfOpen: options.allowHalfOpen ?? false
      })
      const client = new AgentClient(socket)
      socket.once("connect", () => resume(Effect.succeed(client)))
      socket.once("error", (error) => resume(Effect.fail(error)))
    }),
    (client) => Effect.sync(() => client.socket.destroy())
  )

/** What deployed clients do on each beat: one frame, and gone without reading. */
export const sendAndClose = (
  address: { readonly host: string; readonly port: number },
  bytes: Uint8Array,
  how: "fin" | "reset",
  options: ConnectOptions = {}
) =>
  Effect.callback<void, Error>((resume) => {
    const socket = Net.connect({
      host: address.host,
      port: address.port,
      ...(options.from === undefined ? {} : { localAddress: options.from })
    })
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.once("connect", () => {
      socket.write(bytes, () => {
        if (how === "reset") socket.resetAndDestroy()
        else socket.destroy()
      })
    })
    socket.once("close", () => resume(Effect.void))
  })

/** Registers one host and waits for the answer. */
export const register = (
  address: { readonly host: string; readonly port: number },
  hostname: string,
  options: ConnectOptions & { readonly fields?: object } = {}
) =>
  Effect.gen(function* () {
    const client = yield* connect(address, options)
    client.socket.write(frame(hostname, options.fields))
    const [answer] = yield* client.receive()
    return answer!
  }).pipe(Effect.scoped)
