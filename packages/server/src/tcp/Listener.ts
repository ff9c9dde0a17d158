/**
 * The ways in for agents: accepts connections and hands each on as a
 * `Connection`, once it is known who is at the other end.
 *
 * Promises: every connection passes `hooks.opened` right after the accept, so
 * that limits hold from then on; when the scope closes no more are accepted,
 * and those that were not handed on yet are closed. What a connection is used
 * for is left to the hooks.
 */
import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import { ListenFailed } from "../ServerError.ts"
import type { Hooks, Plain } from "./Connection.ts"
import type { PeerAddress } from "./PeerAddress.ts"

export interface ListenOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  readonly peerOf: PeerAddress
}

export interface ListenAddress {
  readonly host: string
  readonly port: number
}

/** Connections that the kernel holds for us between two rounds of accepting. */
const acceptBacklog = 4096

const plain: Plain = { _tag: "Plain" }

/** The port without TLS. */
export const listenPlain = (
  options: ListenOptions,
  hooks: Hooks
): Effect.Effect<ListenAddress, ListenFailed, Scope.Scope> =>
  listen("tcp", options, (socket) => {
    if (!hooks.opened(socket)) return
    hooks.ready({ socket, peer: options.peerOf(socket), transport: plain })
  })

const listen = Effect.fnUntraced(function* (
  service: "tcp",
  { host, port }: ListenOptions,
  accept: (socket: Net.Socket) => void
) {
  const run = Effect.runForkWith(yield* Effect.context())
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => Net.createServer({ allowHalfOpen: true, noDelay: true }, accept)),
    (server) => Effect.sync(() => server.close())
  )
  yield* Effect.callback<void, ListenFailed>((resume) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(new ListenFailed({ service, host, port, code: error.code ?? error.message })))
    )
    server.listen({ host, port, backlog: acceptBacklog }, () => resume(Effect.void))
  })
  server.removeAllListeners("error")
  server.on("error", (error) => {
    // Too many open files, for example: the connection is lost, the port stays open.
    run(Effect.logWarning("a connection could not be accepted").pipe(Effect.annotateLogs({ reason: error.message })))
  })
  return { host, port: (server.address() as Net.AddressInfo).port }
})
