/**
 * The Node server below the routes: how many connections there may be, and how
 * long one may take to say what it wants.
 *
 * Promises: a client that sends its request in trickles, or half of it and then
 * nothing, is answered with 408 and closed within the timeouts, and meanwhile
 * costs a socket and some bytes. Leaves to others: what is answered (`Answers`).
 */
import { type Context, Duration, Effect } from "effect"
import * as Http from "node:http"
import * as HttpMetrics from "./HttpMetrics.ts"

export interface ConnectionLimits {
  /** Open at once; one more is closed before anything is read. */
  readonly connectionsMax: number
  /** Until the head of a request is read. */
  readonly headersTimeout: Duration.Duration
  /** Until the whole request is read. */
  readonly requestTimeout: Duration.Duration
}

export const defaultLimits: ConnectionLimits = {
  connectionsMax: 5000,
  headersTimeout: Duration.seconds(10),
  requestTimeout: Duration.minutes(1)
}

/** All headers of a request together. */
export const headersBytesMax = 16_384

/** How often connections are looked at whose time has passed, as a part of the shorter timeout. */
const checksPerTimeout = 4
const checkMillisMax = 5000

/** How long a connection may be idle between two requests: longer than load balancers keep theirs, so that they close first. */
const keepAliveMillis = 65_000

export const makeServer = Effect.fnUntraced(function* (limits: ConnectionLimits) {
  const context: Context.Context<never> = yield* Effect.context()
  const headersMillis = Duration.toMillis(limits.headersTimeout)
  const server = Http.createServer({
    maxHeaderSize: headersBytesMax,
    headersTimeout: headersMillis,
    requestTimeout: Math.max(headersMillis, Duration.toMillis(limits.requestTimeout)),
    connectionsCheckingInterval: Math.min(checkMillisMax, Math.ceil(headersMillis / checksPerTimeout)),
    keepAliveTimeout: keepAliveMillis
  })
  server.maxConnections = limits.connectionsMax
  let open = 0
  const count = (change: number): void => {
    open += change
    HttpMetrics.connections.updateUnsafe(open, context)
  }
  server.on("drop", () => HttpMetrics.connectionsRefused.updateUnsafe(1, context))
  server.on("connection", (socket) => {
    count(1)
    socket.once("close", () => count(-1))
  })
  return server
})
