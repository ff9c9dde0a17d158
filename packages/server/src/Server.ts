/**
 * The server, as the list of its parts in the order they start.
 *
 * A registration runs through it from top to bottom: agents' port → registry →
 * outbox → DNS manager → PowerDNS. On stop the parts end in reverse, so what was
 * read from an agent is still answered and what was accepted is already stored.
 */
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import * as Retention from "@prism-dns/core/audit/Retention"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { Admission } from "@prism-dns/core/auth/Admission"
import { Identities } from "@prism-dns/core/auth/Identities"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Roles } from "@prism-dns/core/auth/Roles"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import * as Groups from "@prism-dns/core/cluster/Groups"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { DatabaseClock } from "@prism-dns/core/cluster/DatabaseClock"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Adoption } from "@prism-dns/core/dns/Adoption"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import * as FollowTickets from "@prism-dns/core/dns/FollowTickets"
import * as Copies from "@prism-dns/core/dns/Copies"
import { Debts } from "@prism-dns/core/dns/Debts"
import * as LateWrites from "@prism-dns/core/dns/LateWrites"
import { ManagedRecords } from "@prism-dns/core/dns/ManagedRecords"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Parked } from "@prism-dns/core/dns/Parked"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import * as Reconciler from "@prism-dns/core/dns/Reconciler"
import { PastRecords } from "@prism-dns/core/dns/PastRecords"
import { Provenance } from "@prism-dns/core/dns/Provenance"
import { Restoration } from "@prism-dns/core/dns/Restoration"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import { ZoneExport } from "@prism-dns/core/dns/ZoneExport"
import { ZoneImport } from "@prism-dns/core/dns/ZoneImport"
import { ZoneRecords } from "@prism-dns/core/dns/ZoneRecords"
import { Zones } from "@prism-dns/core/dns/Zones"
import { Feed } from "@prism-dns/core/events/Feed"
import { WebhookDelivery } from "@prism-dns/core/events/WebhookDelivery"
import { WebhookSender } from "@prism-dns/core/events/WebhookSender"
import { Webhooks } from "@prism-dns/core/events/Webhooks"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Guards } from "@prism-dns/core/registry/Guards"
import { ManagedZones } from "@prism-dns/core/registry/ManagedZones"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Differences } from "@prism-dns/core/registry/Differences"
import * as HistoryRetention from "@prism-dns/core/registry/HistoryRetention"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import * as PartitionsAhead from "@prism-dns/core/storage/PartitionsAhead"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import * as Statistics from "@prism-dns/core/storage/Statistics"
import { Context, Duration, Effect, Layer, References } from "effect"
import { SecureRandom } from "effect/crypto"
import * as Crypto from "node:crypto"
import * as Exporter from "./audit/Exporter.ts"
import type { PrismConfig } from "./Config.ts"
import * as Bootstrap from "./Bootstrap.ts"
import * as Crowding from "./Crowding.ts"
import * as Database from "./Database.ts"
import { Drain } from "./Drain.ts"
import * as Redis from "./redis/Redis.ts"
import { HttpAddress } from "./http/HttpAddress.ts"
import * as HttpServer from "./http/HttpServer.ts"
import * as Oidc from "./http/Oidc.ts"
import * as ResettingAgent from "./http/ResettingAgent.ts"
import { type ServerError, StorageUnavailable } from "./ServerError.ts"
import * as SignalLine from "./SignalLine.ts"
import { TcpServer } from "./tcp/TcpServer.ts"
import * as Sessions from "./tcp/Sessions.ts"
import { version } from "./Version.ts"

/** Where a running server listens. */
export class Running extends Context.Service<
  Running,
  {
    /** Where hosts register without TLS, and with it. */
    readonly tcp: { readonly host: string; readonly port: number } | undefined
    readonly tls: { readonly host: string; readonly port: number } | undefined
    readonly http: { readonly url: string }
  }
>()("@prism-dns/server/Server/Running") {}

/** Everything between the configuration and a server that answers. */
export const layer = (config: PrismConfig): Layer.Layer<Running, ServerError> => {
  const { audit, auth, cluster, events, history, http, leases, powerdns, redis, server, storage, tcp, tls } = config

  const nodes = PowerDnsNodes.layer({
    nodes: powerdns.nodes,
    requestTimeout: powerdns.requestTimeout,
    connectionsMax: powerdns.connectionsMax
  })
  const tokens = Tokens.layer([
    ...auth.agentTokens.map((entry) => ({ ...entry, role: "agent" as const })),
    ...auth.adminTokens.map((entry) => ({ ...entry, role: "admin" as const }))
  ])

  const roles = Roles.layer([
    ...auth.adminTokens.flatMap(({ name, roles }) =>
      roles.map((role) => ({ role, user: `the token ${name} of the configuration` }))
    ),
    ...(auth.oidc?.roles ?? []).map(({ role, value }) => ({ role, user: `${value} of the identity provider` }))
  ])

  const agents = TcpServer.layer({
    ...tcp,
    tls,
    mode: auth.mode,
    certificates: auth.certificates,
    instance: server.instance,
    lease: { duration: leases.duration, beatInterval: leases.beatInterval },
    ackTimeout: leases.ackTimeout,
    drainDelay: server.drainDelay,
    makeNonce: Proof.makeNonce,
    shutdownTimeout: server.shutdownTimeout
  })

  /** Who may claim what, who else is known, and what becomes of refusals. */
  const access = Layer.mergeAll(
    Oidc.layer(auth.oidc),
    Admission.layer({
      reservedNames: auth.reservedNames,
      anonymous: auth.mode === "off" ? "open" : auth.anonymous,
      limits: auth.limits
    }),
    Refusals.layer()
  )

  const expiry = Expiry.layer({
    leaseMillis: Duration.toMillis(leases.duration),
    sweepMillis: Duration.toMillis(leases.sweepInterval),
    flushMillis: Duration.toMillis(leases.flushInterval),
    massExpiryShare: leases.massExpiryPercent / 100,
    massExpiryMin: leases.massExpiryMin
  })

  /** From marks to records. */
  const publisher = DnsManager.layer({
    batchNamesMax: powerdns.batchMax,
    batchesPerSecond: powerdns.batchesPerSecond
  }).pipe(
    Layer.provideMerge(Copies.layer()),
    Layer.provideMerge(Plans.layer),
    Layer.provideMerge(Serving.layer({ isCrowded: Crowding.make() })),
    Layer.provideMerge(NameServers.layer),
    Layer.provideMerge(Provisioner.layer({ transfer: powerdns.transfer })),
    Layer.provideMerge(LateWrites.layer),
    Layer.provideMerge(Debts.layer),
    Layer.provideMerge(PowerDnsDatabases.layer({ lateMillis: Duration.toMillis(powerdns.requestTimeout) + 5000 })),
    Layer.provideMerge(nodes),
    Layer.provideMerge(RecordSource.layer),
    Layer.provideMerge(Ownership.layer),
    Layer.provideMerge(Outbox.layer)
  )

  /** Who follows what changes. */
  const followers = WebhookDelivery.layer({
    timeoutMillis: Duration.toMillis(events.webhooks.timeout),
    attemptsMax: events.webhooks.attemptsMax,
    retryMillisMin: Duration.toMillis(events.webhooks.retryMin),
    retryMillisMax: Duration.toMillis(events.webhooks.retryMax),
    deadLettersInRow: events.webhooks.deadLettersInRow,
    oidc: auth.oidc !== undefined
  }).pipe(
    Layer.provideMerge(WebhookSender.layer({ networks: events.webhooks.networks })),
    Layer.provideMerge(Webhooks.layer),
    Layer.provideMerge(Feed.layer({ recentMax: events.recentMax }))
  )

  /** SQLite is for one server, which has nobody to tell. */
  const signals =
    storage.url._tag === "Postgres"
      ? Signals.layerPostgres().pipe(Layer.provide(SignalLine.layerPresent))
      : Signals.layerNone

  /** Its connections, in PostgreSQL's own list of them. */
  const applicationName = `prism-dns ${Crypto.randomBytes(6).toString("hex")}`

  const ownConnections = Database.layerOwn(applicationName)

  /** Who does what only one may. */
  const instances =
    storage.url._tag === "Postgres"
      ? Layer.unwrap(
          Effect.map(DatabaseClock, ({ machineMillis, observe }) =>
            Cluster.layerPostgres({
              name: server.instance,
              version,
              leaseMillis: Duration.toMillis(cluster.lease),
              renewMillis: Duration.toMillis(cluster.renewInterval),
              applicationName,
              sessions: Sessions.count,
              machineMillis,
              observe
            })
          )
        ).pipe(Layer.provide(ownConnections))
      : Cluster.layerAlone

  /** What time it is. */
  const time =
    storage.url._tag === "Postgres"
      ? DatabaseClock.layer.pipe(Layer.provide(ownConnections))
      : DatabaseClock.layerMachine

  /** What the others stand on. */
  const ground = FollowTickets.layer().pipe(
    Layer.provideMerge(Acknowledgements.layer),
    Layer.provideMerge(Leases.layer),
    Layer.provideMerge(followers),
    Layer.provideMerge(Bootstrap.layer({ oidc: auth.oidc, tokenFile: auth.bootstrapTokenFile })),
    Layer.provideMerge(tokens),
    Layer.provideMerge(roles),
    Layer.provideMerge(Revocations.layer),
    Layer.provideMerge(Zones.layerManaged(config.zones, Groups.make(config.cluster.groups))),
    Layer.provideMerge(Exporter.layer(audit.export, { host: server.instance })),
    Layer.provideMerge(Statistics.layer),
    Layer.provideMerge(Retention.layer({ keepMillis: Duration.toMillis(audit.retention) })),
    Layer.provideMerge(HistoryRetention.layer({ keepMillis: Duration.toMillis(history.retention) })),
    Layer.provideMerge(
      PartitionsAhead.layer({
        auditKeepMillis: Duration.toMillis(audit.retention),
        historyKeepMillis: Duration.toMillis(history.retention)
      })
    ),
    Layer.provideMerge(Sealer.layer()),
    Layer.provideMerge(AuditLog.layer),
    Layer.provideMerge(redis === undefined ? Layer.empty : Redis.layer(redis, server.instance)),
    Layer.provideMerge(instances),
    Layer.provideMerge(signals),
    Layer.provideMerge(Drain.layer)
  )

  const managedZones = ManagedZones.layer({ catalog: powerdns.transfer.catalog })

  return running(config).pipe(
    Layer.provideMerge(agents),
    Layer.provideMerge(
      HttpServer.layer({
        ...http,
        limits: http,
        events,
        instance: server.instance,
        certificates: auth.certificates,
        importFrom: powerdns.importFrom,
        shutdownTimeout: server.shutdownTimeout
      })
    ),
    Layer.provideMerge(access),
    Layer.provideMerge(expiry),
    Layer.provideMerge(Layer.mergeAll(Guards.layer, managedZones, ZoneChanges.layer)),
    Layer.provideMerge(Identities.layer()),
    Layer.provideMerge(Registry.layer()),
    Layer.provideMerge(Layer.mergeAll(Provenance.layer, Restoration.layer, PastRecords.layer)),
    Layer.provideMerge(Layer.merge(HostHistory.layer, Differences.layer)),
    Layer.provideMerge(Parked.layer),
    Layer.provideMerge(Adoption.layer),
    Layer.provideMerge(Layer.mergeAll(ZoneRecords.layer, ZoneImport.layer, ZoneExport.layer, ManagedRecords.layer)),
    Layer.provideMerge(Reconciler.scheduled),
    Layer.provideMerge(Reconciler.Reconciler.layer()),
    Layer.provideMerge(publisher),
    Layer.provideMerge(ground),
    Layer.provideMerge(time.pipe(Layer.provideMerge(Database.layer(storage, applicationName)))),
    Layer.provide([ResettingAgent.layer, SecureRandom.layerWebCrypto]),
    Layer.catchTag("SqlError", (error) =>
      Layer.effectContext(Effect.fail(new StorageUnavailable({ storage: "the registry", detail: detailOf(error) })))
    ),
    // Spans that nobody reads cost a query a third of its time.
    Layer.provide(Layer.succeed(References.TracerEnabled, false))
  )
}

/** The last part to start and the first to stop: says where we listen, and on stop lets load balancers look elsewhere first. */
const running = (config: PrismConfig) =>
  Layer.effect(
    Running,
    Effect.gen(function* () {
      const tcp = yield* TcpServer
      const http = yield* HttpAddress
      const drain = yield* Drain
      const cluster = yield* Cluster
      yield* Effect.addFinalizer(() =>
        Effect.logInfo("draining").pipe(
          Effect.andThen(drain.start),
          // What it does for the cluster is others' at once, not when it ends.
          Effect.andThen(
            Effect.all([cluster.drain, Effect.sleep(config.server.drainDelay)], { concurrency: 2, discard: true })
          )
        )
      )
      return { tcp: tcp.plain, tls: tcp.tls, http: { url: http.url } }
    })
  )
