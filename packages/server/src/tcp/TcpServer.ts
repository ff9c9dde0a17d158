/**
 * The agents' port: accepts connections and gives each an `AgentSession`.
 *
 * Promises: at most `connectionsMax` connections, the next one is told so and
 * closed; when its scope closes it accepts no more, answers what was read for
 * at most `shutdownTimeout`, and leaves nothing behind.
 */
import { encode } from "@prism-dns/core/protocol/Wire"
import { Context, Deferred, Duration, Effect, Layer } from "effect"
import type * as Net from "node:net"
import { AgentSession, type Refusal } from "./AgentSession.ts"
import type { Hooks } from "./Connection.ts"
import * as Listener from "./Listener.ts"
import * as PeerAddress from "./PeerAddress.ts"
import * as ProtocolV1 from "./ProtocolV1.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface TcpServerOptions extends ProtocolV1.ProtocolOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  readonly connectionsMax: number
  readonly frameTimeout: Duration.Duration
  readonly frameBytesMax: number
  readonly pipelineMax: number
  readonly shutdownTimeout: Duration.Duration
}

/** Connections beyond the limit that are being told so; further ones are closed without a word. */
const turningAwayMax = 1000

export class TcpServer extends Context.Service<
  TcpServer,
  {
    /** Where it listens. */
    readonly address: { readonly host: string; readonly port: number }
    readonly connections: () => number
  }
>()("@prism-dns/server/tcp/TcpServer") {
  static readonly layer = (options: TcpServerOptions) => Layer.effect(TcpServer, make(options))
}

const make = Effect.fnUntraced(function* (options: TcpServerOptions) {
  const protocol = yield* ProtocolV1.make(options)
  const peerOf = yield* PeerAddress.make
  const context = yield* Effect.context()
  const run = Effect.runForkWith(context)
  const sessions = new Set<AgentSession>()
  let underWay = 0
  const idle = yield* Deferred.make<void>()
  let stopping = false

  const noteIdle = () => {
    if (stopping && sessions.size === 0 && underWay === 0) Deferred.doneUnsafe(idle, Effect.void)
  }

  const answer = (
    payload: Uint8Array,
    peer: Parameters<typeof protocol.answer>[1],
    respond: (text: string) => void
  ) => {
    const response = protocol.answer(payload, peer)
    if (typeof response === "string") return response
    underWay += 1
    run(response).addObserver((exit) => {
      underWay -= 1
      respond(exit._tag === "Success" ? exit.value : protocol.error("internal", "the server failed to answer"))
      noteIdle()
    })
    return undefined
  }

  const refusals: Readonly<Record<Refusal, string>> = {
    "too-large": `the frame is longer than ${options.frameBytesMax} bytes`,
    http: "this port speaks the Prism protocol, not HTTP; the API is on the HTTP port",
    tls: "this port speaks the Prism protocol without TLS",
    timeout: `no complete frame within ${Duration.toSeconds(options.frameTimeout)} s`
  }
  const codes: Readonly<Record<Refusal, string>> = {
    "too-large": "too-large",
    http: "not-prism",
    tls: "not-prism",
    timeout: "timeout"
  }

  let connections = 0
  const setConnections = (change: number) => {
    connections += change
    TcpMetrics.connections.updateUnsafe(connections, context)
  }
  const noteClosed = () => setConnections(-1)

  const hooks: Hooks = {
    opened: (socket) => {
      if (connections >= options.connectionsMax) {
        turnAway(socket)
        return false
      }
      setConnections(1)
      socket.on("close", noteClosed)
      return true
    },
    // Nothing refuses a connection to the plain port before its first frame.
    refused: (socket) => socket.destroy(),
    ready: ({ peer, socket }) => {
      const session = new AgentSession(socket, peer, {
        frameTimeoutMillis: Duration.toMillis(options.frameTimeout),
        payloadBytesMax: options.frameBytesMax,
        pipelineMax: options.pipelineMax,
        answer,
        refuse: (reason) => protocol.error(codes[reason], refusals[reason]),
        onClose: (closed) => {
          sessions.delete(closed)
          noteIdle()
        }
      })
      sessions.add(session)
    }
  }

  let turningAway = 0
  const turnAway = (socket: Net.Socket) => {
    socket.on("error", () => socket.destroy())
    if (turningAway >= turningAwayMax) return socket.destroy()
    turningAway += 1
    socket.once("close", () => (turningAway -= 1))
    socket.resume()
    socket.end(
      encode(protocol.error("capacity", `the server has its ${options.connectionsMax} connections, try again later`, 5))
    )
    setTimeout(() => socket.destroy(), 1000).unref()
  }

  // Added before the ports open: when the scope closes they have stopped accepting by then.
  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      stopping = true
      for (const session of sessions) session.finish()
      noteIdle()
      yield* Effect.timeoutOption(Deferred.await(idle), options.shutdownTimeout)
      for (const session of sessions) session.destroy()
    })
  )

  const address = yield* Listener.listenPlain({ host: options.host, port: options.port, peerOf }, hooks)
  return TcpServer.of({ address, connections: () => connections })
})
