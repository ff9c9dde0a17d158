/**
 * The agents' ports, with TLS and without: gives each connection that the
 * listeners hand on an `AgentSession`.
 *
 * Promises: at most `connectionsMax` connections, the next one is told so and
 * closed; when its scope closes it accepts no more, answers what was read for
 * at most `shutdownTimeout`, and leaves nothing behind.
 */
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Leases } from "@prism-dns/core/registry/Leases"
import { type Fields, parseObject } from "@prism-dns/core/protocol/Payload"
import { encode } from "@prism-dns/core/protocol/Wire"
import { Context, Deferred, Duration, Effect, Layer, Result } from "effect"
import type { IpNetwork } from "effect/net"
import type * as Net from "node:net"
import { AgentSession, type Protocol, type Refusal, type SessionOptions } from "./AgentSession.ts"
import type { Hooks, RefusalCode } from "./Connection.ts"
import * as Listener from "./Listener.ts"
import * as PeerAddress from "./PeerAddress.ts"
import * as FramesV2 from "./FramesV2.ts"
import * as ProtocolV1 from "./ProtocolV1.ts"
import * as SessionV2 from "./SessionV2.ts"
import * as SharedV2 from "./SharedV2.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface TcpServerOptions extends ProtocolV1.ProtocolOptions, SharedV2.SessionOptions {
  readonly host: string
  /** 0: any free port; undefined: no port without TLS. */
  readonly port: number | undefined
  /** The load balancers, on both ports. Default: none. */
  readonly proxyFrom?: ReadonlyArray<IpNetwork.IpNetwork>
  /** Whether hosts may register by protocol 1.0. Default: yes. */
  readonly protocol1?: boolean
  /** The port with TLS. Default: none. */
  readonly tls?: TlsPortOptions | undefined
  readonly connectionsMax: number
  readonly frameTimeout: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
}

export interface TlsPortOptions extends Omit<Listener.TlsListenOptions["tls"], "announce"> {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
}

/** Connections that are being told why they are not served; further ones are closed without a word. */
const sayingGoodbyeMax = 1000

/** The others say that something else speaks there, or too slowly. */
const isRefusalOfAccess = (code: RefusalCode): code is Exclude<RefusalCode, "timeout" | "not-tls"> =>
  code !== "timeout" && code !== "not-tls"

export class TcpServer extends Context.Service<
  TcpServer,
  {
    /** Where it listens without TLS; where it does not, with TLS. */
    readonly address: Listener.ListenAddress
    readonly plain: Listener.ListenAddress | undefined
    readonly tls: Listener.ListenAddress | undefined
    readonly connections: () => number
  }
>()("@prism-dns/server/tcp/TcpServer") {
  static readonly layer = (options: TcpServerOptions) => Layer.effect(TcpServer, make(options))
}

/** How often it is looked whether this server is cut off from the registry. */
const cutOffMillis = 1000

const make = Effect.fnUntraced(function* (options: TcpServerOptions) {
  const v1 = yield* ProtocolV1.make(options)
  const peerOf = yield* PeerAddress.make
  const revocations = yield* Revocations
  const cluster = yield* Cluster
  const refused = yield* Refusals
  const context = yield* Effect.context()
  const run = Effect.runForkWith(context)
  const sessions = new Set<AgentSession>()
  let underWay = 0
  const idle = yield* Deferred.make<void>()
  let stopping = false

  const noteIdle = () => {
    if (stopping && sessions.size === 0 && underWay === 0) Deferred.doneUnsafe(idle, Effect.void)
  }

  const start: SharedV2.Run = (effect, done) => {
    underWay += 1
    run(effect).addObserver((exit) => {
      underWay -= 1
      done(exit._tag === "Success" ? exit.value : undefined)
      noteIdle()
    })
  }
  const shared = yield* SharedV2.make(options, start)

  const refusals: Readonly<Record<Refusal, string>> = {
    "too-large": `the frame is longer than ${options.frameBytesMax} bytes`,
    http: "this port speaks the Prism protocol, not HTTP; the API is on the HTTP port",
    tls: "this port speaks the Prism protocol without TLS",
    proxy: Listener.proxyNotAllowed,
    timeout: `no complete frame within ${Duration.toSeconds(options.frameTimeout)} s`
  }
  const codes: Readonly<Record<Refusal, string>> = {
    "too-large": "too-large",
    http: "not-prism",
    tls: "not-prism",
    proxy: "proxy-not-allowed",
    timeout: "timeout"
  }

  const { protocol1 = true } = options

  /** The text of an error for whoever has not said yet which protocol it speaks, behind which the connection is closed. */
  const errorToAll = (code: string, message: string, retryAfterSeconds?: number): string =>
    protocol1
      ? v1.error(code, message, retryAfterSeconds)
      : FramesV2.closing(undefined, { code, message }, retryAfterSeconds)

  const answerV1 = (response: ProtocolV1.Response, session: AgentSession): string | undefined => {
    if (typeof response === "string") return response
    const slot = session.reserve()
    start(response, (text) => session.respond(slot, text ?? v1.error("internal", "the server failed to answer")))
    return undefined
  }

  const protocolV1: Protocol = {
    answer: (payload, session) => answerV1(v1.answer(payload, session.peer), session),
    refuse: (reason, { peer }) => {
      if (reason === "proxy") {
        refused.record({ code: "proxy-not-allowed", message: refusals.proxy, actor: "unknown", peer, subject: "" })
      }
      return errorToAll(codes[reason], refusals[reason])
    },
    outlivesConnection: true,
    closed: () => undefined
  }

  const beginV2 = (session: AgentSession): SessionV2.SessionV2 => {
    const protocol = new SessionV2.SessionV2(shared, session)
    session.protocol = protocol
    return protocol
  }

  /** Whoever speaks version 1 is told so in its words. */
  const refuseV1 = (session: AgentSession, { hostname }: Fields): string => {
    session.conclude()
    const message = "version 1 of the protocol is not spoken here"
    const subject = typeof hostname === "string" ? hostname : ""
    return v1.notAllowed({ code: "protocol-not-allowed", message }, "unknown", session.peer, subject)
  }

  /** Until a frame decides what is spoken. */
  const undecided: Protocol = {
    ...protocolV1,
    answer: (payload, session) => {
      const fields = parseObject(payload)
      if (Result.isFailure(fields) && protocol1) return v1.refused(fields.failure.code, fields.failure.message)
      if (Result.isFailure(fields) || SessionV2.isMeant(fields.success)) return beginV2(session).take(fields)
      if (!protocol1) {
        return ProtocolV1.isMeant(fields.success) ? refuseV1(session, fields.success) : beginV2(session).take(fields)
      }
      session.protocol = protocolV1
      return answerV1(v1.answerObject(fields.success, session.peer), session)
    }
  }

  const sessionOptions: SessionOptions = {
    frameTimeoutMillis: Duration.toMillis(options.frameTimeout),
    payloadBytesMax: options.frameBytesMax,
    pipelineMax: options.pipelineMax,
    protocol: undecided,
    onClose: (closed) => {
      sessions.delete(closed)
      noteIdle()
    }
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
    refused: (socket, code, message, peer, answer) => {
      if (isRefusalOfAccess(code)) refused.record({ code, message, actor: "unknown", peer, subject: "" })
      if (answer) sayGoodbye(socket, errorToAll(code, message))
      else destroy(socket)
    },
    ready: (connection) => {
      sessions.add(new AgentSession(connection, sessionOptions))
    }
  }

  let sayingGoodbye = 0
  /** Sends `text`, waits a moment for it to be read, and closes. */
  const sayGoodbye = (socket: Net.Socket, text: string) => {
    if (sayingGoodbye >= sayingGoodbyeMax) return destroy(socket)
    socket.on("error", () => socket.destroy())
    sayingGoodbye += 1
    socket.once("close", () => (sayingGoodbye -= 1))
    socket.resume()
    socket.end(encode(text))
    setTimeout(() => socket.destroy(), 1000).unref()
  }
  const destroy = (socket: Net.Socket) => {
    socket.on("error", () => undefined)
    socket.destroy()
  }
  const turnAway = (socket: Net.Socket) =>
    sayGoodbye(
      socket,
      errorToAll("capacity", `the server has its ${options.connectionsMax} connections, try again later`, 5)
    )

  // Added before the ports open: when the scope closes they have stopped accepting by then.
  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      stopping = true
      // Who was sent to another server, and is not there yet, is answered until then: its next request is on its way.
      const leaving = new Set(cluster.isAlone() ? [] : [...sessions].filter(({ isLeaving }) => isLeaving))
      for (const session of sessions) if (!leaving.has(session)) session.finish()
      noteIdle()
      const timeoutMillis = Duration.toMillis(options.shutdownTimeout)
      const leaveMillis = leaving.size === 0 ? 0 : Math.min(Duration.toMillis(options.drainDelay), timeoutMillis / 2)
      if (leaveMillis > 0) yield* Effect.timeoutOption(Deferred.await(idle), leaveMillis)
      for (const session of leaving) session.finish()
      yield* Effect.timeoutOption(Deferred.await(idle), timeoutMillis - leaveMillis)
      for (const session of sessions) session.destroy()
    })
  )

  // Who is connected has been elsewhere since, as likely as not: what may still come in on the old connection is old.
  yield* cluster.onNewLife(() => {
    for (const session of sessions) session.destroy()
  })

  /**
   * What hosts say here has reached nobody for half a lease: they go where the registry is, before others take them for
   * silent. `/readyz` says no by then, and once the lease has passed nothing is answered from memory.
   */
  const leases = yield* Leases
  let isCutOff = false
  yield* Effect.sleep(cutOffMillis).pipe(
    Effect.andThen(
      Effect.suspend(() => {
        const leftMillis = leases.trustedUntil() - shared.now()
        const was = isCutOff
        isCutOff = leftMillis < shared.leaseMillis / 2
        if (was || !isCutOff) return Effect.void
        shared.sessions.drain()
        return Effect.logError(
          "what hosts say cannot be written for half a lease, they are sent to other servers; without a mend their beats are refused"
        ).pipe(Effect.annotateLogs({ refusedAfterMillis: Math.max(0, leftMillis) }))
      })
    ),
    Effect.forever,
    Effect.forkScoped
  )

  const ways = { peerOf, proxyFrom: options.proxyFrom ?? [], openingTimeout: options.frameTimeout }
  const plain =
    options.port === undefined
      ? undefined
      : yield* Listener.listenPlain({ ...ways, host: options.host, port: options.port }, hooks)
  const tls =
    options.tls === undefined
      ? undefined
      : yield* Listener.listenTls(
          {
            ...ways,
            host: options.tls.host,
            port: options.tls.port,
            tls: { ...options.tls, announce: revocations.announce }
          },
          hooks
        )
  const address = plain ?? tls
  if (address === undefined) return yield* Effect.die(new Error("the agents have no port, with TLS or without"))
  return TcpServer.of({ address, plain, tls, connections: () => connections })
})
