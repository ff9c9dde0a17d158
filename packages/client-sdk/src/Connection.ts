/**
 * One connection to a server: messages in both directions.
 *
 * Promises: the server's name is resolved anew; a certificate that is not
 * trusted is told from a server that is away; what the server sends is held
 * back, not piled up, while nobody takes it; nothing is left open when the
 * scope closes. Frames of a kind that this version does not know are passed
 * over. Leaves to others: limits of time, and what the messages mean.
 */
import * as Message from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import * as Wire from "@prism-dns/core/protocol/Wire"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Tls from "node:tls"
import type { TlsOptions } from "./Options.ts"
import type { Server } from "./Servers.ts"

/** The connection ended, or never began. */
export class ConnectionLost extends Error {
  readonly _tag = "ConnectionLost"
  /** No retry with the same certificates helps. */
  readonly untrusted: boolean
  /** What is there speaks, but not protocol 2. */
  readonly foreign: boolean
  /** The server's own code for it, where it said one that holds for either version. */
  readonly code: string | undefined
  /** When the server asks to be tried again, where it said so. */
  readonly retryAfterSeconds: number | undefined

  constructor(
    reason: string,
    kind: {
      readonly untrusted?: boolean
      readonly foreign?: boolean
      readonly code?: string | undefined
      readonly retryAfterSeconds?: number | undefined
    } = {}
  ) {
    super(reason)
    this.code = kind.code
    this.retryAfterSeconds = kind.retryAfterSeconds
    this.untrusted = kind.untrusted ?? false
    this.foreign = kind.foreign ?? false
  }
}

export interface Connection {
  readonly server: Server
  /** What a proof is bound to; undefined on plain TCP. */
  readonly channel: Uint8Array | undefined
  /** Writes at once. On a connection that is gone it does nothing; `receive` tells. */
  readonly send: (message: Message.AgentMessage) => void
  /** The next message, in order. */
  readonly receive: Effect.Effect<Message.ServerMessage, ConnectionLost>
  /**
   * Ends it at once, and takes back what was sent as far as that can be. Of a connection that is only closed, the system
   * sends what was not delivered again and again, across a cut that heals too, and a server carries it out: after what
   * another server was told since. One that is reset (RFC 9293, 3.5.2) drops it. One by TLS is only closed.
   */
  readonly reset: () => void
}

/** How a name becomes addresses. Node's own way asks the system each time. */
export class Lookup extends Context.Reference<Net.LookupFunction | undefined>("@prism-dns/client-sdk/Lookup", {
  defaultValue: () => undefined
}) {}

/** Messages held before reading pauses. */
const heldMax = 256

/** Codes that say nothing about what the server speaks, and pass. */
const passingCodes: ReadonlySet<string> = new Set(["capacity", "timeout", "unavailable", "internal", "peer-unknown"])

/** Codes of what is wrong with the connection, whatever would be spoken on it: who turns one away for them does not know the version yet. */
const ofConnection = /^(?:certificate-|proxy-|not-tls$)/

/** OpenSSL's words for a certificate that will not do. */
const isUntrusted = (error: Error & { readonly code?: unknown }): boolean =>
  typeof error.code === "string" &&
  /^(?:ERR_TLS_CERT|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/.test(
    error.code
  )

const textOf = (value: string | Uint8Array): string | Buffer => (typeof value === "string" ? value : Buffer.from(value))

const secureOptions = (server: Server, tls: TlsOptions): Tls.ConnectionOptions => {
  const servername = tls.servername ?? (Net.isIP(server.host) === 0 ? server.host : undefined)
  const ca = tls.ca === undefined ? undefined : ([tls.ca].flat() as ReadonlyArray<string | Uint8Array>)
  return {
    minVersion: "TLSv1.3",
    ...(servername === undefined ? {} : { servername }),
    ...(ca === undefined ? {} : { ca: ca.map(textOf) }),
    ...(tls.cert === undefined ? {} : { cert: textOf(tls.cert) }),
    ...(tls.key === undefined ? {} : { key: textOf(tls.key) })
  }
}

const reasonOf = (error: Error & { readonly errors?: unknown; readonly code?: unknown }): string => {
  // A name with several addresses fails with all of their errors; the first one says enough.
  const first: unknown = Array.isArray(error.errors) ? error.errors[0] : undefined
  const told: Error & { readonly code?: unknown } = first instanceof Error ? first : error
  // OpenSSL's own words name its sources, and end with a line end.
  if (told.code === "ERR_SSL_WRONG_VERSION_NUMBER" || told.code === "ERR_SSL_PACKET_LENGTH_TOO_LONG") {
    return "what answers there speaks no TLS; the server's port for TLS is another (8443 unless it says so)"
  }
  return told.message || (typeof error.code === "string" ? error.code : "the connection failed")
}

export interface ConnectOptions {
  readonly tls?: TlsOptions | undefined
  /** The connection alone does not keep the process running. */
  readonly unref?: boolean | undefined
}

/** Connects, with TLS where the server is so named. */
export const open = Effect.fnUntraced(function* (
  server: Server,
  options: ConnectOptions
): Effect.fn.Return<Connection, ConnectionLost, Scope.Scope> {
  const lookup = yield* Lookup
  // Loaded where it is needed: it takes as long to load as all else together.
  const tls = server.tls ? yield* Effect.promise(() => import("node:tls")) : undefined
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const address = { host: server.host, port: server.port, ...(lookup === undefined ? {} : { lookup }) }
      // Else the socket throws where nobody listens any more.
      const socket =
        tls === undefined
          ? Net.connect(address)
          : tls.connect({ ...address, ...secureOptions(server, options.tls ?? {}) })
      socket.on("error", () => undefined)
      socket.setNoDelay(true)
      if (options.unref === true) socket.unref()
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
  yield* Effect.callback<void, ConnectionLost>((resume) => {
    const failed = (error: Error) =>
      resume(Effect.fail(new ConnectionLost(reasonOf(error), { untrusted: isUntrusted(error) })))
    const closed = () => resume(Effect.fail(new ConnectionLost("the server closed the connection")))
    const ready = () => resume(Effect.void)
    const event = server.tls ? "secureConnect" : "connect"
    socket.once(event, ready).once("error", failed).once("close", closed)
    return Effect.sync(() => socket.off(event, ready).off("error", failed).off("close", closed))
  })
  const messages = yield* Queue.unbounded<Message.ServerMessage, ConnectionLost>()
  const decoder = new Wire.FrameDecoder()
  const end = (lost: ConnectionLost) => {
    Queue.failCauseUnsafe(messages, Cause.fail(lost))
    socket.destroy()
  }
  const read = (bytes: Uint8Array): Message.ServerMessage | "pass" | ConnectionLost => {
    const value = Message.parseObject(bytes)
    if (Result.isFailure(value)) return new ConnectionLost(`the server's message is ${value.failure.code}`)
    const message = Message.decodeServerMessage(value.success)
    if (Result.isSuccess(message)) return message.success
    const { code, message: said, retryAfterSeconds, status, type } = value.success
    if (type !== "response") return "pass"
    // Whom a server turns away before a word was said, it tells so in the version that everybody reads.
    if (typeof code === "string" && ofConnection.test(code)) {
      return new ConnectionLost(String(said), { foreign: true, code })
    }
    return typeof code === "string" && passingCodes.has(code)
      ? new ConnectionLost(`${code}: ${String(said)}`, {
          retryAfterSeconds: typeof retryAfterSeconds === "number" ? retryAfterSeconds : undefined
        })
      : new ConnectionLost(`the server speaks protocol 1 here: ${String(status)}, ${String(said)}`, { foreign: true })
  }
  const take = (chunk: Uint8Array) => {
    for (const frame of decoder.push(chunk)) {
      if (frame._tag === "TooLarge") {
        return end(new ConnectionLost("what answers there does not speak this protocol", { foreign: true }))
      }
      const message = read(frame.bytes)
      if (message instanceof ConnectionLost) return end(message)
      if (message !== "pass") Queue.offerUnsafe(messages, message)
    }
    if (Queue.sizeUnsafe(messages) >= heldMax) socket.pause()
  }
  const failed = (error: Error) => end(new ConnectionLost(reasonOf(error)))
  const closed = () => end(new ConnectionLost("the server closed the connection"))
  socket.on("data", take).on("error", failed).on("end", closed).on("close", closed)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => socket.off("data", take).off("error", failed).off("end", closed).off("close", closed))
  )
  return {
    server,
    channel:
      tls !== undefined && socket instanceof tls.TLSSocket
        ? new Uint8Array(socket.exportKeyingMaterial(Proof.exporterBytes, Proof.exporterLabel, Buffer.alloc(0)))
        : undefined,
    send: (message) => {
      if (socket.writable) socket.write(Wire.encode(Message.encodeText(message)))
    },
    receive: Effect.tap(Queue.take(messages), () =>
      Effect.sync(() => {
        if (socket.isPaused() && Queue.sizeUnsafe(messages) < heldMax / 2) socket.resume()
      })
    ),
    reset: () => {
      // With TLS there is no way to reset it, nor once its side was ended.
      if (tls === undefined && !socket.destroyed && !socket.writableEnded) socket.resetAndDestroy()
      else socket.destroy()
    }
  }
})
