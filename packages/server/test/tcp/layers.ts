/**
 * The agents' port as tests need it: a real `TcpServer` with the parts below it
 * in memory.
 */
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Admission, type AdmissionOptions } from "@prism-dns/core/auth/Admission"
import { Identities } from "@prism-dns/core/auth/Identities"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { type ConfiguredToken, Tokens } from "@prism-dns/core/auth/Tokens"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as Groups from "@prism-dns/core/cluster/Groups"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Duration, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { IpNetwork } from "effect/net"
import * as Database from "../../src/Database.ts"
import { Drain } from "../../src/Drain.ts"
import { TcpServer, type TcpServerOptions } from "../../src/tcp/TcpServer.ts"
import * as Agent from "../harness/AgentClient.ts"

export const zone = DomainName.make("hosts.prism.test")
export const reverse = DomainName.make("127.in-addr.arpa")

const publisher = DnsManager.layer().pipe(
  Layer.provideMerge(Plans.layer),
  Layer.provideMerge(Provisioner.layer()),
  Layer.provideMerge(Debts.layer.pipe(Layer.orDie)),
  Layer.provideMerge(PowerDnsDatabases.layerOne),
  Layer.provideMerge(Serving.layerNone),
  Layer.provideMerge(PowerDnsNodes.layerSingle({ host: "127.0.0.1", port: 53 })),
  Layer.provideMerge(Registry.layer()),
  Layer.provideMerge(PowerDnsMemory.layer()),
  Layer.provideMerge(RecordSource.layer),
  Layer.provideMerge(Ownership.layer),
  Layer.provideMerge(Outbox.layer),
  Layer.provideMerge(Cluster.layerAlone)
)

/** The tests speak from loopback. */
const networks = ["127.0.0.0/8", "::1/128"].map((text) => IpNetwork.fromStringUnsafe(text))

/** What stands around the port, where a test needs another. */
export interface Around {
  /** Forward zones; their hosts may have loopback addresses and those of `networks`. */
  readonly zones?: ReadonlyArray<DomainName.DomainName>
  /** Zones of other servers. */
  readonly groups?: ReadonlyArray<Groups.Group>
  readonly networks?: ReadonlyArray<IpNetwork.IpNetwork>
  readonly tokens?: ReadonlyArray<ConfiguredToken>
  readonly random?: Layer.Layer<SecureRandom.SecureRandom>
  readonly ticketsMax?: number
  /** Of the registry; else one in memory. */
  readonly database?: Parameters<typeof Database.layer>[0]
  /** Whether there are other servers, to which agents may go. Default false. */
  readonly hasOthers?: boolean
}

const defaultTokens: ReadonlyArray<ConfiguredToken> = [
  { name: "rack-7", token: Redacted.make("good"), role: "agent" },
  { name: "ops", token: Redacted.make("admin"), role: "admin" }
]

/** The cluster around, as if there were others in it. */
const notAlone = Layer.effect(
  Cluster,
  Effect.map(Cluster, (cluster) => Cluster.of({ ...cluster, isAlone: () => false }))
)

export const server = (
  options: Partial<TcpServerOptions> = {},
  anonymous: AdmissionOptions["anonymous"] = "open",
  refusals: typeof Refusals.layerNone | ReturnType<typeof Refusals.layer> = Refusals.layerNone,
  around: Around = {}
) =>
  TcpServer.layer({
    host: "127.0.0.1",
    port: 0,
    connectionsMax: 2000,
    frameTimeout: Duration.seconds(30),
    frameBytesMax: 65_536,
    pipelineMax: 64,
    mode: "off",
    ackTimeout: Duration.seconds(2),
    shutdownTimeout: Duration.seconds(10),
    instance: "test",
    lease: { duration: Duration.seconds(150), beatInterval: Duration.seconds(60) },
    sessionHostsMax: 100,
    drainDelay: Duration.seconds(3),
    makeNonce: Proof.makeNonce,
    ...options
  }).pipe(
    Layer.provide(around.hasOthers === true ? notAlone : Layer.empty),
    Layer.provideMerge(Identities.layer()),
    Layer.provideMerge(Layer.mergeAll(Drain.layer, Revocations.layer)),
    Layer.provideMerge(publisher),
    Layer.provideMerge(
      Acknowledgements.layerWith(around.ticketsMax === undefined ? {} : { ticketsMax: around.ticketsMax })
    ),
    Layer.provideMerge(Leases.layer),
    Layer.provideMerge(Tokens.layerStatic(around.tokens ?? defaultTokens)),
    Layer.provideMerge(Layer.merge(Admission.layer({ anonymous }), refusals)),
    Layer.provideMerge(
      Zones.layer(
        [
          ...(around.zones ?? [zone]).map((name) =>
            Zone.make(name, { policy: { networks: [...networks, ...(around.networks ?? [])] } })
          ),
          Zone.make(reverse)
        ],
        Groups.make(around.groups ?? [])
      )
    ),
    Layer.provideMerge(
      Database.layer(around.database ?? { url: { _tag: "Sqlite", filename: ":memory:" }, connectionsMax: 1 })
    ),
    Layer.provide(around.random ?? SecureRandom.layerWebCrypto),
    Layer.orDie
  )

export const address = Effect.map(TcpServer, (tcp) => tcp.address)
export const connect = (options?: Agent.ConnectOptions) => Effect.flatMap(address, (to) => Agent.connect(to, options))
export const register = (hostname: string, options?: Parameters<typeof Agent.register>[2]) =>
  Effect.flatMap(address, (to) => Agent.register(to, hostname, options))
