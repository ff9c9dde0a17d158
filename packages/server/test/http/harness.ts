/** What the HTTP side stands on, for its tests: the registry in memory, and a PowerDNS that can be steered. */
import { AuditLog } from "@prism-dns/core/audit/AuditLog"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { Identities } from "@prism-dns/core/auth/Identities"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Admission } from "@prism-dns/core/auth/Admission"
import { Roles } from "@prism-dns/core/auth/Roles"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Signals } from "@prism-dns/core/cluster/Signals"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Adoption } from "@prism-dns/core/dns/Adoption"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { ManagedRecords } from "@prism-dns/core/dns/ManagedRecords"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Parked } from "@prism-dns/core/dns/Parked"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import { PastRecords } from "@prism-dns/core/dns/PastRecords"
import { Provenance } from "@prism-dns/core/dns/Provenance"
import { Restoration } from "@prism-dns/core/dns/Restoration"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import { ZoneExport } from "@prism-dns/core/dns/ZoneExport"
import { ZoneImport } from "@prism-dns/core/dns/ZoneImport"
import { ZoneRecords } from "@prism-dns/core/dns/ZoneRecords"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Feed } from "@prism-dns/core/events/Feed"
import { WebhookDelivery } from "@prism-dns/core/events/WebhookDelivery"
import { WebhookSender } from "@prism-dns/core/events/WebhookSender"
import { Webhooks } from "@prism-dns/core/events/Webhooks"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { Guards } from "@prism-dns/core/registry/Guards"
import { ManagedZones } from "@prism-dns/core/registry/ManagedZones"
import type { Registrant, Wishes } from "@prism-dns/core/registry/Decision"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Differences } from "@prism-dns/core/registry/Differences"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import { Effect, Layer, Redacted, Result } from "effect"
import { SecureRandom } from "effect/crypto"
import { IpNetwork } from "effect/net"
import type { PrismConfig } from "../../src/Config.ts"
import * as Database from "../../src/Database.ts"
import { Drain } from "../../src/Drain.ts"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import * as HttpServer from "../../src/http/HttpServer.ts"

export const zone = DomainName.make("hosts.prism.test")
export const otherZone = DomainName.make("lab.prism.test")
export const reverseZone = DomainName.make("2.0.192.in-addr.arpa")

export const adminToken = Redacted.make("admin-token")
export const agentToken = Redacted.make("agent-token")

/** From marks to records. */
const publisher = DnsManager.layer({ pollMillis: 50, retryMillisMax: 50 }).pipe(
  Layer.provideMerge(Plans.layer),
  Layer.provideMerge(Serving.layerNone),
  Layer.provideMerge(Provisioner.layer()),
  Layer.provideMerge(Debts.layer),
  Layer.provideMerge(PowerDnsDatabases.layerOne),
  Layer.provideMerge(PowerDnsWriter.layer()),
  Layer.provideMerge(PowerDnsNodes.layerSingle({ host: "127.0.0.1", port: 53 })),
  Layer.provideMerge(PowerDnsMemory.layer()),
  Layer.provideMerge(RecordSource.layer),
  Layer.provideMerge(Ownership.layer),
  Layer.provideMerge(Outbox.layer)
)

/** Who follows what changes. */
const followers = WebhookDelivery.layer({
  timeoutMillis: 300,
  attemptsMax: 3,
  retryMillisMin: 10,
  retryMillisMax: 50,
  deadLettersInRow: 3,
  pollMillis: 50
}).pipe(
  Layer.provideMerge(WebhookSender.layer({ networks: ["127.0.0.1/32", "::1/128"].map(IpNetwork.fromStringUnsafe) })),
  Layer.provideMerge(Webhooks.layer),
  Layer.provideMerge(Feed.layer())
)

/** What the others stand on. */
const ground = (storage: PrismConfig["storage"], signals: Layer.Layer<never>) =>
  Sealer.layer({ gatherMillis: 1 }).pipe(
    Layer.provideMerge(AuditLog.layer),
    Layer.provideMerge(Cluster.layerAlone),
    Layer.provideMerge(signals),
    Layer.provideMerge(Database.layer(storage)),
    Layer.provideMerge(Drain.layer)
  )

const sqlite = (filename: string): PrismConfig["storage"] => ({ url: { _tag: "Sqlite", filename }, connectionsMax: 1 })

/** `storage`: a SQLite file, or where the registry is kept else. */
export const servicesWith = (
  zones: ReadonlyArray<Zone.Zone>,
  storage: string | PrismConfig["storage"] = ":memory:",
  signals = Signals.layerNone
) =>
  Identities.layer().pipe(
    Layer.provideMerge(Registry.layer()),
    Layer.provideMerge(Layer.mergeAll(Provenance.layer, Restoration.layer, PastRecords.layer)),
    Layer.provideMerge(Layer.merge(HostHistory.layer, Differences.layer)),
    Layer.provideMerge(Layer.mergeAll(Guards.layer, ManagedZones.layer(), ZoneChanges.layer)),
    Layer.provideMerge(Parked.layer),
    Layer.provideMerge(Adoption.layer),
    Layer.provideMerge(Layer.mergeAll(ZoneRecords.layer, ZoneImport.layer, ZoneExport.layer, ManagedRecords.layer)),
    Layer.provideMerge(Reconciler.layer()),
    Layer.provideMerge(publisher),
    Layer.provideMerge(Acknowledgements.layer),
    Layer.provideMerge(Leases.layer),
    Layer.provideMerge(followers),
    Layer.provideMerge(
      Tokens.layer([
        { name: "ops", token: adminToken, role: "admin" },
        { name: "rack-7", token: agentToken, role: "agent" }
      ])
    ),
    Layer.provideMerge(Roles.layer()),
    Layer.provideMerge(Layer.mergeAll(Revocations.layer, Refusals.layerNone, Admission.layer({ anonymous: "open" }))),
    Layer.provideMerge(Zones.layerManaged(zones)),
    Layer.provideMerge(ground(typeof storage === "string" ? sqlite(storage) : storage, signals)),
    Layer.provide(SecureRandom.layerWebCrypto),
    Layer.orDie
  )

export const services = servicesWith([Zone.make(zone), Zone.make(otherZone), Zone.make(reverseZone)])

/** A real server on a free port. */
export const server = (options: Partial<HttpServer.HttpServerOptions> = {}, on = services) =>
  HttpServer.layer({
    host: "127.0.0.1",
    port: 0,
    health: { powerdnsInterval: "20 millis" },
    metrics: { countsAge: 0 },
    ...options
  }).pipe(Layer.provideMerge(on))

export const register = Effect.fn(function* (
  hostname: string,
  address: string,
  inZone = zone,
  more: Wishes & { readonly registrant?: Registrant } = {}
) {
  const registry = yield* Registry
  const name = Result.getOrThrow(DomainName.parseHostName(hostname))
  const { host } = yield* registry.register({
    fqdn: Result.getOrThrow(DomainName.prepend(name, inZone)),
    hostname: name,
    zone: inZone,
    addresses: [IpAddress.make(address)],
    registrant: { name: "rack-7", anonymous: false },
    peer: "192.0.2.250",
    ...more
  })
  return host
})

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body as JSON. */
  readonly json: any
}

/** Asks the server as any program would. */
export const ask = Effect.fn(function* (
  path: string,
  init: RequestInit & { readonly token?: string | undefined } = {}
) {
  const { url } = yield* HttpAddress
  const { token = Redacted.value(adminToken), ...rest } = init
  return yield* Effect.promise(async (signal): Promise<Answer> => {
    const headers = new Headers(rest.headers)
    if (token !== "" && !headers.has("authorization")) headers.set("authorization", `Bearer ${token}`)
    const response = await fetch(`${url}${path}`, { signal, ...rest, headers })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      text,
      get json() {
        return JSON.parse(text)
      }
    }
  })
})
