/**
 * The parts of core joined for tests, and small words for what tests say often.
 *
 * Every layer here is built anew for each test that provides it.
 */
import { PgClient } from "@effect/sql-pg"
import { Clock, Context, type Duration, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { Migrator, type SqlClient } from "effect/sql"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { DnsManager, type DnsManagerOptions } from "@prism-dns/core/dns/DnsManager"
import { Debts } from "@prism-dns/core/dns/Debts"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { anonymous, type Registration } from "@prism-dns/core/registry/Decision"
import * as Damping from "@prism-dns/core/registry/Damping"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry, type RegistryOptions } from "@prism-dns/core/registry/Registry"
import { migrations } from "@prism-dns/core/storage/Migrations"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { Postgres } from "./harness/Postgres.ts"

/** Brings the database below up to date. */
const migrate = Layer.effectDiscard(Migrator.make({})({ loader: Migrator.fromRecord(migrations) }))

/** A registry's database in a file, or in memory. */
export const sqlite = (filename = ":memory:"): Layer.Layer<SqlClient.SqlClient> =>
  migrate.pipe(Layer.provideMerge(Sqlite.layer({ filename })), Layer.orDie)

/** A registry's database on PostgreSQL at `url`. */
export const postgresAt = (url: string): Layer.Layer<SqlClient.SqlClient> =>
  migrate.pipe(
    Layer.provideMerge(PgClient.layer({ url: Redacted.make(url), maxConnections: 8, multiplex: false })),
    Layer.orDie
  )

/** A new, empty registry's database on the PostgreSQL around. */
export const postgres: Layer.Layer<SqlClient.SqlClient, never, Postgres> = Layer.unwrap(
  Effect.gen(function* () {
    const server = yield* Postgres
    return postgresAt((yield* server.createDatabase()).url)
  })
)

/** The forward zone of most tests. */
export const forward = Zone.make(DomainName.make("hosts.test"))
/** 192.0.2.0/24. */
export const reverse4 = Zone.make(DomainName.make("2.0.192.in-addr.arpa"))
/** 2001:db8::/32. */
export const reverse6 = Zone.make(DomainName.make("8.b.d.0.1.0.0.2.ip6.arpa"))
export const zones: ReadonlyArray<Zone.Zone> = [forward, reverse4, reverse6]

/** What the registry and the publisher share, on the database around. */
export const shared = (list: ReadonlyArray<Zone.Zone> = zones, cluster: Layer.Layer<Cluster> = Cluster.layerAlone) =>
  Layer.mergeAll(Acknowledgements.layer, Leases.layer, RecordSource.layer).pipe(
    Layer.provideMerge(Outbox.layer),
    Layer.provideMerge(cluster),
    Layer.provideMerge(Ownership.layer.pipe(Layer.orDie)),
    Layer.provideMerge(Zones.layer(list))
  )

/** Names are damped after four returns, so that tests need few. */
export const soonDamped: Damping.DampingOptions = {
  ...Damping.defaultOptions,
  suppressAt: 3000,
  reuseAt: 750,
  halfLifeMillis: 300_000
}

/** The registry with what it stands on, on the database around. */
export const registry = (
  options: Partial<RegistryOptions> = {},
  list: ReadonlyArray<Zone.Zone> = zones,
  cluster: Layer.Layer<Cluster> = Cluster.layerAlone
) => Registry.layer(options).pipe(Layer.provideMerge(shared(list, cluster)), Layer.provide(SecureRandom.layerWebCrypto))

/** The publisher with all it stands on, on the PowerDNS and the database around. */
export const publisher = (
  options: Partial<DnsManagerOptions> = {},
  list: ReadonlyArray<Zone.Zone> = zones,
  registryOptions: Partial<RegistryOptions> = {},
  cluster: Layer.Layer<Cluster> = Cluster.layerAlone
) =>
  DnsManager.layer(options).pipe(
    Layer.provideMerge(Serving.layerNone),
    Layer.provideMerge(Plans.layer),
    Layer.provideMerge(Provisioner.layer()),
    Layer.provideMerge(Debts.layer.pipe(Layer.orDie)),
    Layer.provideMerge(PowerDnsDatabases.layerOne),
    Layer.provideMerge(PowerDnsNodes.layerSingle({ host: "127.0.0.1", port: 53 })),
    Layer.provideMerge(registry(registryOptions, list, cluster)),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

export const address = IpAddress.make

/** The n-th address of the reverse zone for IPv4. */
export const addressOf = (n: number) => address(`192.0.2.${n}`)

export const nameOf = (hostname: string) => DomainName.make(`${hostname}.${forward.name}`)

export const pointerOf = (text: string) => IpAddress.reverseName(address(text))

/** A registration of `hostname` in the forward zone; without `owner` an anonymous one. */
export const registration = (
  hostname: string,
  addresses: string | ReadonlyArray<string>,
  owner?: string
): Registration => ({
  fqdn: nameOf(hostname),
  hostname: hostname as HostName,
  zone: forward.name,
  addresses: [addresses].flat().map(address).sort(),
  registrant: owner === undefined ? anonymous : { name: owner, anonymous: false },
  peer: "198.51.100.1"
})

/** The time of day, said by the test; sleeping is the business of the clock that stands behind. */
export class Time extends Context.Service<
  Time,
  {
    /** Sets the time of day, in milliseconds since 1970, without waking anyone. */
    readonly set: (millis: number) => Effect.Effect<void>
    /** Moves it, also back, without waking anyone: a jump of the clock, or a pause of the process. */
    readonly jump: (millis: number) => Effect.Effect<void>
  }
>()("@prism-dns/core/test/Time") {}

/**
 * Runs `effect`, and all it starts, by a clock the test can set: one that stands `still`, or one that goes `on` with the
 * clock around.
 */
export const withTime = <A, E, R>(
  how: "still" | "on",
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Time>> =>
  Effect.flatMap(Clock.clockWith(Effect.succeed), (clock) => {
    const running = () => (how === "on" ? clock.currentTimeMillisUnsafe() : 0)
    let offset = 0
    const now = () => running() + offset
    const nowNanos = () => BigInt(Math.round(now())) * 1_000_000n
    // A test clock keeps what moves it.
    const said: Clock.Clock = Object.assign({}, clock, {
      currentTimeMillisUnsafe: now,
      currentTimeMillis: Effect.sync(now),
      currentTimeNanosUnsafe: nowNanos,
      currentTimeNanos: Effect.sync(nowNanos),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration: Duration.Duration) => clock.sleep(duration)
    })
    const time = Time.of({
      set: (millis) => Effect.sync(() => void (offset = millis - running())),
      jump: (millis) => Effect.sync(() => void (offset += millis))
    })
    return effect.pipe(Effect.provideService(Time, time), Effect.provideService(Clock.Clock, said))
  })
