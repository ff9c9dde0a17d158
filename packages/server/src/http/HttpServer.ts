/**
 * The HTTP side of the server, as the list of its routes.
 *
 * Promises: every answer that is an error is problem+json; what is under way
 * when the server ends is finished within `shutdownTimeout`, and no client can
 * hold the end up for longer. Leaves to others: what a host or a publication
 * is, and saying beforehand that the server is about to go (`Drain`).
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Api } from "@prism-dns/core/api/Api"
import type { CertificateGrant } from "@prism-dns/core/auth/Certificates"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { type Duration, Effect, Layer } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { HttpApiBuilder, HttpApiSwagger } from "effect/http-api"
import { type IpNetwork, NetAddress } from "effect/net"
import { ListenFailed } from "../ServerError.ts"
import { bounded, type KnownPath, observed, refuseUnparsed, requestCheck, routerConfig } from "./Answers.ts"
import * as Access from "./Access.ts"
import * as Authentication from "./Authentication.ts"
import * as EarlyAnswers from "./EarlyAnswers.ts"
import * as Gate from "./Gate.ts"
import { type ConnectionLimits, defaultLimits, makeServer } from "./Connections.ts"
import { Idempotency, type IdempotencyOptions } from "./Idempotency.ts"
import * as Events from "./Events.ts"
import * as Guards from "./Guards.ts"
import * as Health from "./Health.ts"
import * as History from "./History.ts"
import * as HostChanges from "./HostChanges.ts"
import * as Hosts from "./Hosts.ts"
import { HttpAddress } from "./HttpAddress.ts"
import * as Identities from "./Identities.ts"
import * as Metrics from "./Metrics.ts"
import * as Plans from "./Plans.ts"
import * as Audit from "./Audit.ts"
import * as Publications from "./Publications.ts"
import { type RateLimitOptions, RateLimits } from "./RateLimits.ts"
import * as Records from "./Records.ts"
import * as Roles from "./Roles.ts"
import * as Status from "./Status.ts"
import * as Tokens from "./Tokens.ts"
import * as Webhooks from "./Webhooks.ts"
import * as Whoami from "./Whoami.ts"
import * as Zones from "./Zones.ts"

export interface HttpServerOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  /** What this process is called in what it shows. Default: `prism`. */
  readonly instance?: string
  /** What client certificates may claim, for those who ask. Default: their own name. */
  readonly certificates?: CertificateGrant
  /** Where zones may be transferred from for an import, besides the nodes. Default: nowhere. */
  readonly importFrom?: ReadonlyArray<IpNetwork.IpNetwork>
  /** How long requests under way may take to end. */
  readonly shutdownTimeout?: Duration.Input
  readonly events?: Partial<Events.EventsOptions>
  readonly health?: Partial<Health.HealthOptions>
  readonly metrics?: Partial<Metrics.MetricsOptions>
  /** How often one caller may ask. */
  readonly rateLimit?: Partial<RateLimitOptions>
  /** Answers about single hosts that are kept in memory. */
  readonly hostAnswers?: Partial<EarlyAnswers.HostAnswersOptions>
  /** How long the answer to a request with an `Idempotency-Key` is kept. */
  readonly idempotency?: Partial<IdempotencyOptions>
  readonly limits?: Partial<ConnectionLimits>
}

const defaultInstance = "prism"

export const defaultShutdownTimeout: Duration.Input = "10 seconds"

/** The API's handlers and the contract that describes them. */
const api = (
  { certificates, events, hostAnswers, importFrom = [], instance = defaultInstance, rateLimit }: HttpServerOptions,
  early: EarlyAnswers.EarlyAnswers
) =>
  HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([
      Hosts.layer,
      History.layer,
      HostChanges.layer,
      Zones.layer,
      Records.layer({ importFrom }),
      Plans.layer,
      Publications.layer,
      Audit.layer,
      Guards.layer,
      Events.layer(events),
      Webhooks.layer,
      Tokens.layer,
      Identities.layer,
      Roles.layer,
      Access.layer({ certificates }),
      Whoami.layer,
      Status.layer({ instance })
    ]),
    Layer.provide([Authentication.layer, requestCheck]),
    Layer.provide(Gate.layer),
    Layer.merge(EarlyAnswers.layer(early, hostAnswers)),
    Layer.provide(RateLimits.layer(rateLimit))
  )

/** The page carries all it needs; the header makes the browser hold it to that. */
const docs = HttpApiSwagger.layer(Api, { path: "/docs" }).pipe(
  Layer.provide(
    HttpRouter.middleware(
      Effect.map(
        HttpServerResponse.setHeader(
          "content-security-policy",
          "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; connect-src 'self'; frame-ancestors 'none'"
        )
      )
    ).layer
  )
)

const knownPaths: ReadonlyArray<KnownPath> = [
  ...Object.values(Api.groups).flatMap((group) =>
    Object.values(group.endpoints).map(({ method, path }): KnownPath => ({ method, path: path as `/${string}` }))
  ),
  ...(["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"] as const).map((path) => ({ method: "GET", path }))
]

export const layer = (options: HttpServerOptions) => {
  const early = new EarlyAnswers.EarlyAnswers()
  const routes = Layer.mergeAll(api(options, early), docs, Health.layer(options.health), Metrics.route).pipe(
    Layer.provide(bounded.layer),
    Layer.provide(Idempotency.layer({ instance: options.instance ?? defaultInstance, ...options.idempotency })),
    Layer.merge(observed(knownPaths)),
    Layer.provide(Metrics.Metrics.layer(options.metrics))
  )
  return HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true, routerConfig }).pipe(
    Layer.provideMerge(address(options.host)),
    Layer.provide(listen(options, early))
  )
}

/** Opens the port; the routes come and go while it is open. */
const listen = (options: HttpServerOptions, early: EarlyAnswers.EarlyAnswers) => {
  const { host, limits, port, shutdownTimeout = defaultShutdownTimeout } = options
  return Layer.unwrap(
    Effect.map(makeServer({ ...defaultLimits, ...limits }), (server) => {
      server.on("clientError", refuseUnparsed)
      early.intercept(server)
      return Layer.effectDiscard(
        Effect.gen(function* () {
          // Ends after the routes have had their time: whoever has not sent a whole request by then never will.
          yield* Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
          // Whoever is connected has given up since, as likely as not: what may still come in on the old connection is old.
          yield* (yield* Cluster).onNewLife(() => server.closeAllConnections())
        })
      ).pipe(
        Layer.provideMerge(NodeHttpServer.layer(() => server, { host, port, gracefulShutdownTimeout: shutdownTimeout }))
      )
    })
  ).pipe(
    Layer.catchTag("ServeError", ({ cause }) =>
      Layer.effectContext(
        Effect.fail(
          new ListenFailed({
            service: "http",
            host,
            port,
            code: cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
          })
        )
      )
    )
  )
}

/** The address for a client on this machine: one that stands for all of them cannot be connected to everywhere. */
const reachable = (host: string): string => {
  const address = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host
  return address.includes(":") ? `[${address}]` : address
}

const address = (host: string) =>
  Layer.effect(
    HttpAddress,
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      const port = NetAddress.isInetAddress(address) ? address.port : 0
      return { host, port, url: `http://${reachable(host)}:${port}` }
    })
  )
