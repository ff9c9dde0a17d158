/**
 * Connections to other HTTP servers, such as PowerDNS's API.
 *
 * Promises: a request that is given up is taken back as far as it can be. What
 * the network has not delivered of it by then it delivers no more: a connection
 * that is only closed has its rest sent again and again, so that a change that
 * was given up while the network was cut could arrive many seconds later, over
 * what another server has written since. It is reset instead (RFC 9293, 3.5.2),
 * which drops what waits. What has arrived is carried out all the same, and a
 * connection by TLS is only closed.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import * as Http from "node:http"
import type * as Net from "node:net"
import type { Duplex } from "node:stream"

/** As `node:http` has it, of which connections are reset when they are destroyed in the middle of a request. */
export class ResettingAgent extends Http.Agent {
  /** Connections that wait for their next request. */
  readonly #idle = new WeakSet<Duplex>()

  override createConnection(
    options: Net.NetConnectOpts,
    callback?: (error: Error | null, stream: Duplex) => void
  ): Duplex | null | undefined {
    const socket = super.createConnection(options, callback) as Net.Socket
    const destroy = socket.destroy.bind(socket)
    let isReset = false
    socket.destroy = (error) => {
      // Of a request that is not sent as a whole, nothing is carried out. One whose side was ended is over, and cannot be reset.
      const isWhole = !socket.connecting && socket.writableLength === 0 && !socket.writableEnded
      if (isReset || socket.destroyed || !isWhole || this.#idle.has(socket)) return destroy(error)
      isReset = true
      return socket.resetAndDestroy()
    }
    return socket
  }

  override keepSocketAlive(socket: Duplex): void {
    this.#idle.add(socket)
    return super.keepSocketAlive(socket)
  }

  override reuseSocket(socket: Duplex, request: Http.ClientRequest): void {
    this.#idle.delete(socket)
    super.reuseSocket(socket, request)
  }
}

/** A client by `node:http` that keeps connections open between requests. */
export const layer = NodeHttpClient.layerNodeHttpNoAgent.pipe(
  Layer.provide(
    Layer.effect(
      NodeHttpClient.HttpAgent,
      Effect.gen(function* () {
        const http = yield* Effect.acquireRelease(
          Effect.sync(() => new ResettingAgent({ keepAlive: true })),
          (agent) => Effect.sync(() => agent.destroy())
        )
        const { https } = yield* NodeHttpClient.makeAgent({ keepAlive: true })
        return { http, https }
      })
    )
  )
)
