/**
 * The ways in for agents: accepts connections and hands each on as a
 * `Connection`, once it is known who is at the other end.
 *
 * Behind a load balancer that is what a PROXY header says, by TLS what the
 * handshake shows. Promises: every connection passes `hooks.opened` right after
 * the accept, so that limits hold from then on; header and handshake together
 * take `openingTimeout` at the most; a header is required from the addresses
 * that may send one and believed from no other; nothing of it is used before
 * all of it is there. When the scope closes no more connections are accepted,
 * and those that were not handed on yet are closed. What a connection is used
 * for is left to the hooks.
 */
import { isWithinAny } from "@prism-dns/core/auth/Principal"
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import { Duration, Effect, Metric, Result, type Scope } from "effect"
import type { IpNetwork } from "effect/net"
import * as Net from "node:net"
import type * as NodeTls from "node:tls"
import { type CertificateUnusable, ListenFailed } from "../ServerError.ts"
import type { Hooks, Plain, RefusalCode } from "./Connection.ts"
import type { PeerAddress } from "./PeerAddress.ts"
import * as ProxyHeader from "./ProxyHeader.ts"
import * as TcpMetrics from "./TcpMetrics.ts"
import * as Tls from "./Tls.ts"

export interface ListenOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  readonly peerOf: PeerAddress
  /** The load balancers: each of their connections begins with a PROXY header. */
  readonly proxyFrom: ReadonlyArray<IpNetwork.IpNetwork>
  /** From the accept until header and handshake are done. */
  readonly openingTimeout: Duration.Duration
}

export interface TlsListenOptions extends ListenOptions {
  readonly tls: Omit<Tls.TlsOptions, "handshakeTimeout">
}

export interface ListenAddress {
  readonly host: string
  readonly port: number
}

/** Connections that the kernel holds for us between two rounds of accepting. */
const acceptBacklog = 4096

/** Sockets that listen at one port: connections that are taken in one turn of the event loop at the most. */
const listeningSockets = 32

const plain: Plain = { _tag: "Plain" }

/** The port without TLS. */
export const listenPlain = Effect.fnUntraced(function* (
  options: ListenOptions,
  hooks: Hooks
): Effect.fn.Return<ListenAddress, ListenFailed, Scope.Scope> {
  const way = yield* makeWay({
    hooks,
    openingTimeout: options.openingTimeout,
    usesTls: false,
    count: () => undefined,
    proceed: (opening, rest) => {
      opening.end()
      giveBack(opening.socket, rest)
      hooks.ready({ socket: opening.socket, peer: opening.source, transport: plain })
      opening.socket.resume()
    }
  })
  return yield* listen("tcp", options, (socket) => {
    if (!hooks.opened(socket)) return
    const peer = options.peerOf(socket)
    if (isBalancer(options, peer)) way.open.set(socket, new Opening(way, socket, peer, true))
    // A header from elsewhere is no frame: the session says so at its first bytes.
    else hooks.ready({ socket, peer, transport: plain })
  })
})

/** The port with TLS. */
export const listenTls = Effect.fnUntraced(function* (
  options: TlsListenOptions,
  hooks: Hooks
): Effect.fn.Return<ListenAddress, CertificateUnusable | ListenFailed, Scope.Scope> {
  const context = yield* Effect.context()
  const port = yield* Tls.make({ ...options.tls, handshakeTimeout: options.openingTimeout })
  const way = yield* makeWay({
    hooks,
    openingTimeout: options.openingTimeout,
    usesTls: true,
    count: (result) => Metric.withAttributes(TcpMetrics.tlsHandshakes, { result }).updateUnsafe(1, context),
    proceed: (opening, rest) => {
      opening.awaitHandshake()
      giveBack(opening.socket, rest)
      port.server.emit("connection", opening.socket)
    }
  })

  port.server.on("secureConnection", (socket) => {
    const opening = way.find(socket)
    if (opening === undefined) return socket.destroy()
    opening.end()
    socket.allowHalfOpen = true
    const admitted = port.admit(socket)
    if (Result.isFailure(admitted)) {
      way.count("refused")
      hooks.refused(socket, admitted.failure.code, admitted.failure.message, opening.peer, true)
      return
    }
    way.count("completed")
    hooks.ready({ socket, peer: opening.source, transport: admitted.success })
  })

  port.server.on("tlsClientError", (error, socket) => {
    const opening = way.find(socket)
    const refusal = port.refusalOf(error, socket)
    if (opening !== undefined) {
      opening.end()
      way.count(refusal === undefined ? "failed" : "refused")
      if (refusal !== undefined) hooks.refused(socket, refusal.code, refusal.message, opening.peer, false)
    }
    socket.destroy()
  })

  return yield* listen("tls", options, (socket) => {
    if (!hooks.opened(socket)) return
    const peer = options.peerOf(socket)
    way.open.set(socket, new Opening(way, socket, peer, isBalancer(options, peer)))
  })
})

const isBalancer = ({ proxyFrom }: ListenOptions, peer: IpAddress | undefined): boolean =>
  proxyFrom.length > 0 && peer !== undefined && isWithinAny(peer, proxyFrom)

/** Has `bytes` read again by whoever reads next. */
const giveBack = (socket: Net.Socket, bytes: Uint8Array) => {
  socket.pause()
  if (bytes.length > 0) socket.unshift(bytes)
}

// --- Until a connection is handed on ----------------------------------------------------------------------------

/** What the openings of one port have in common. */
interface Way {
  readonly hooks: Hooks
  readonly timeoutMillis: number
  readonly usesTls: boolean
  readonly open: Map<Net.Socket, Opening>
  /** What became of a handshake. */
  readonly count: (result: "completed" | "refused" | "failed" | "timeout") => void
  /** It is known for whom the connection is; `rest` came behind that. */
  readonly proceed: (opening: Opening, rest: Uint8Array) => void
  /** By the socket that TLS has put around the one that was accepted. */
  readonly find: (socket: NodeTls.TLSSocket) => Opening | undefined
}

const makeWay = (
  options: Pick<Way, "count" | "hooks" | "proceed" | "usesTls"> & Pick<ListenOptions, "openingTimeout">
): Effect.Effect<Way, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): Way => {
      const open = new Map<Net.Socket, Opening>()
      const find = (socket: NodeTls.TLSSocket) => {
        // Node has no other way to tell; should this one go, no connection gets in.
        const { _parent: accepted } = socket as { readonly _parent?: Net.Socket }
        return accepted === undefined ? undefined : open.get(accepted)
      }
      return { ...options, timeoutMillis: Duration.toMillis(options.openingTimeout), open, find }
    }),
    ({ open }) =>
      Effect.sync(() => {
        for (const opening of open.values()) opening.abandon()
      })
  )

const destroySocket = function (this: Net.Socket) {
  this.destroy()
}

/** The first byte of a TLS hello, and of every frame. */
const firstBytes = { tls: 0x16, frame: 0x00 } as const

/** A connection from its accept until it is handed on. One timer runs over all of it, and it leaves no listener behind. */
class Opening {
  readonly socket: Net.Socket
  /** Who is really connected. */
  readonly peer: IpAddress | undefined
  /** For whom the connection is, as far as that is known. */
  source: IpAddress | undefined
  readonly #way: Way
  /** Whether the connection has to begin with a header; else it must not. */
  readonly #byBalancer: boolean
  readonly #timer: NodeJS.Timeout
  #reader: ProxyHeader.ProxyHeaderReader | undefined
  #inHandshake = false

  constructor(way: Way, socket: Net.Socket, peer: IpAddress | undefined, byBalancer: boolean) {
    this.#way = way
    this.socket = socket
    this.peer = peer
    this.source = peer
    this.#byBalancer = byBalancer
    this.#timer = setTimeout(() => this.#expire(), way.timeoutMillis)
    socket.on("error", destroySocket)
    socket.on("close", this.#onClose)
    socket.on("data", this.#onData)
    socket.on("end", this.#onEnd)
  }

  /** Takes itself out of the way. */
  end(): void {
    clearTimeout(this.#timer)
    this.#way.open.delete(this.socket)
    this.socket.off("close", this.#onClose)
    this.socket.off("error", destroySocket)
    this.#readNoMore()
  }

  abandon(): void {
    this.end()
    this.socket.on("error", destroySocket)
    this.socket.destroy()
  }

  /** TLS reads from now on, and tells of the end (`tlsClientError`). */
  awaitHandshake(): void {
    this.#inHandshake = true
    // No handshake comes to its end when the client has ended its side: then TLS ends the other one, and tells.
    this.socket.allowHalfOpen = false
    this.socket.off("close", this.#onClose)
    this.#readNoMore()
  }

  #readNoMore(): void {
    this.socket.off("data", this.#onData)
    this.socket.off("end", this.#onEnd)
  }

  readonly #onClose = (): void => this.end()

  readonly #onData = (chunk: Uint8Array): void => {
    if (this.#byBalancer) return this.#readHeader(chunk)
    if (this.#reader === undefined && chunk[0] === firstBytes.tls) return this.#way.proceed(this, chunk)
    this.#readForgery(chunk)
  }

  #readHeader(chunk: Uint8Array): void {
    this.#reader ??= new ProxyHeader.ProxyHeaderReader()
    const reading = this.#reader.push(chunk)
    switch (reading._tag) {
      case "Incomplete":
        return
      case "Complete":
        this.source = sourceOf(reading.header, this.peer)
        return this.#way.proceed(this, reading.rest)
      case "Missing":
        return this.#refuse("proxy-missing", "there is no PROXY header, which tcp.proxyFrom asks for from this address")
      case "Invalid":
        return this.#refuse("proxy-invalid", `the PROXY header is wrong: ${reading.reason}`)
    }
  }

  /** What comes to the TLS port and is no hello: a header from an address that may send none, or something else. */
  #readForgery(chunk: Uint8Array): void {
    const isFrame = this.#reader === undefined && chunk[0] === firstBytes.frame
    this.#reader ??= new ProxyHeader.ProxyHeaderReader()
    const reading = this.#reader.push(chunk)
    if (reading._tag === "Incomplete") return
    if (reading._tag !== "Missing") return this.#refuse("proxy-not-allowed", proxyNotAllowed)
    this.#way.count("failed")
    if (isFrame) this.#refuse("not-tls", "this port speaks TLS")
    else this.abandon()
  }

  /** It has ended its side before it said what had to be said. Health checks say nothing at all. */
  readonly #onEnd = (): void => {
    if (this.#byBalancer && this.#reader !== undefined) {
      this.#refuse("proxy-invalid", "the connection ended within its PROXY header")
    } else this.abandon()
  }

  #expire(): void {
    if (this.#byBalancer && !this.#inHandshake) {
      this.#refuse("timeout", `no PROXY header within ${this.#way.timeoutMillis / 1000} s`)
      return
    }
    if (this.#way.usesTls) this.#way.count("timeout")
    this.abandon()
  }

  #refuse(code: RefusalCode, message: string): void {
    this.end()
    // Who speaks frames can read one.
    this.#way.hooks.refused(this.socket, code, message, this.peer, !this.#way.usesTls || code === "not-tls")
  }
}

export const proxyNotAllowed =
  "a PROXY header is taken only from the addresses in tcp.proxyFrom, once, as the first bytes"

const sourceOf = (header: ProxyHeader.ProxyHeader, balancer: IpAddress | undefined): IpAddress | undefined => {
  switch (header._tag) {
    case "Proxied":
      return header.source
    case "Local":
      return balancer
    case "Unknown":
      return undefined
  }
}

/** A port as the system has it: `reusePort`: with others of ours beside it. */
const open = Effect.fnUntraced(function* (
  service: "tcp" | "tls",
  { host, port }: Pick<ListenOptions, "host" | "port">,
  reusePort: boolean,
  accept: (socket: Net.Socket) => void
) {
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => Net.createServer({ allowHalfOpen: true, noDelay: true }, accept)),
    (server) => Effect.sync(() => server.close())
  )
  yield* Effect.callback<void, ListenFailed>((resume) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(new ListenFailed({ service, host, port, code: error.code ?? error.message })))
    )
    server.listen({ host, port, backlog: acceptBacklog, reusePort }, () => resume(Effect.void))
  })
  server.removeAllListeners("error")
  return server
})

/**
 * One port. The event loop takes one connection in each turn from each socket that listens, and a turn is long while there is
 * much to do: a crowd that comes back waited behind one socket until it gave up. So several listen at the port, among which
 * Linux shares out who connects (SO_REUSEPORT, socket(7)). Nobody else had the port: it is first taken alone.
 */
const listen = Effect.fnUntraced(function* (
  service: "tcp" | "tls",
  { host, port }: ListenOptions,
  accept: (socket: Net.Socket) => void
) {
  const run = Effect.runForkWith(yield* Effect.context())
  const sockets = process.platform === "linux" ? listeningSockets : 1
  const alone = Effect.map(
    open(service, { host, port }, false, sockets === 1 ? accept : (socket) => socket.destroy()),
    (server) => ({ server, address: { host, port: (server.address() as Net.AddressInfo).port } })
  )
  const { address, servers } =
    sockets === 1
      ? yield* Effect.map(alone, ({ address, server }) => ({ address, servers: [server] }))
      : yield* Effect.gen(function* () {
          const { address } = yield* Effect.scoped(alone)
          const servers = yield* Effect.forEach(Array.from({ length: sockets }), () =>
            open(service, address, true, accept)
          )
          return { address, servers }
        })
  for (const server of servers) {
    server.on("error", (error) => {
      // Too many open files, for example: the connection is lost, the port stays open.
      run(Effect.logWarning("a connection could not be accepted").pipe(Effect.annotateLogs({ reason: error.message })))
    })
  }
  return address
})
