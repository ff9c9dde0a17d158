/** Everything that is read of hosts, of now and of the past, by every filter: for tests of how databases do it. */
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { PastRecords } from "@prism-dns/core/dns/PastRecords"
import { Provenance } from "@prism-dns/core/dns/Provenance"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Serving } from "@prism-dns/core/dns/Serving"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Differences } from "@prism-dns/core/registry/Differences"
import { HostHistory } from "@prism-dns/core/registry/HostHistory"
import * as HostLists from "@prism-dns/core/registry/HostLists"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"

/** As `bench/history` fills a registry: host 20,007 is a canary. */
const zone = DomainName.make("z7.prism.test")
const host = DomainName.make("host-0020007.z7.prism.test")
const address = IpAddress.make("10.0.78.39")
const reverse = Zone.make(DomainName.make("10.in-addr.arpa"))

const filters: ReadonlyArray<Omit<HostLists.HostFilter, "limit">> = [
  {},
  { zone },
  { state: "retired" },
  { state: "online" },
  { zone, state: "offline" },
  { prefix: "host-0012" },
  { prefix: "host-0012", zone },
  { labels: [["role", "web"]] },
  { labels: [["canary", "yes"]] },
  {
    labels: [
      ["role", "web"],
      ["rack", "r1"]
    ]
  },
  { labels: [["role", "web"]], zone },
  { labels: [["role", "web"]], state: "retired" },
  { labels: [["site", "s3"]], prefix: "host-001", zone, state: "online" },
  { address },
  { address, state: "online", zone, labels: [["role", "web"]] },
  { zones: [zone, DomainName.make("z8.prism.test")] },
  { zones: [zone, DomainName.make("z8.prism.test")], labels: [["role", "web"]] },
  { zones: Array.from({ length: 100 }, (_, i) => DomainName.make(`z${i}.prism.test`)) },
  { has: ({ name }) => name.startsWith("host-0000001") },
  { zone, has: ({ name }) => name.startsWith("host-0000001") }
]

const places = [undefined, DomainName.make("host-0015000.z0.prism.test"), DomainName.make("host-0029900.z0.prism.test")]

export interface Read {
  readonly name: string
  readonly read: Effect.Effect<unknown, unknown, SqlClient.SqlClient>
}

export const reads = (nowMillis: number): ReadonlyArray<Read> => {
  const provenance = Provenance.layer.pipe(
    Layer.provideMerge(HostHistory.layer),
    Layer.provide(RecordSource.layer),
    Layer.provide(Layer.mock(DnsManager)({ status: Effect.succeed([]) })),
    Layer.provide(Layer.mock(Serving)({ published: () => undefined, status: Effect.succeed([]) })),
    Layer.provide(Layer.mock(Ownership)({ isIgnored: () => false })),
    Layer.provide(Layer.mock(Outbox)({ published: () => Effect.succeed(new Map()) })),
    Layer.provide(Layer.mock(PowerDnsClient)({ node: "none", rrsets: () => Effect.succeed([]) })),
    Layer.provide(Zones.layer([Zone.make(zone), reverse]))
  )
  const lists = filters.flatMap((filter) =>
    places.flatMap((after): ReadonlyArray<Read> => {
      const name = JSON.stringify({ ...filter, after, names: filter.has !== undefined })
      return [
        {
          name: `now ${name}`,
          read: Effect.flatMap(SqlClient.SqlClient, (sql) =>
            HostLists.make(sql).present({ ...filter, after, limit: 100 })
          )
        },
        {
          name: `then ${name}`,
          read: Effect.flatMap(SqlClient.SqlClient, (sql) =>
            HostLists.make(sql).past({ ...filter, after, limit: 100 }, nowMillis - 86_400_000)
          )
        }
      ]
    })
  )
  const reference = { _tag: "Name", fqdn: host } as const
  const byId = { _tag: "Id", id: "01900000-0000-7000-8000-000000004e27" } as const
  const history = <A, E>(use: (history: HostHistory["Service"]) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(HostHistory, use), HostHistory.layer)
  const explained = <A, E>(use: (provenance: Provenance["Service"]) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(Provenance, use), provenance)
  return [
    ...lists,
    { name: "one host then, by name", read: history(({ find }) => find(reference, nowMillis - 86_400_000)) },
    { name: "one host then, by id", read: history(({ find }) => find(byId, nowMillis - 86_400_000)) },
    ...[undefined, zone].flatMap((zone) =>
      [undefined, DomainName.make("host-0015000.z7.prism.test")].map((after) => ({
        name: `what differs ${zone} ${after}`,
        read: Effect.provide(
          Effect.flatMap(Differences, (differences) =>
            Effect.gen(function* () {
              const filter = {
                fromMillis: nowMillis - 3 * 86_400_000,
                toMillis: nowMillis,
                zone,
                prefix: "host-0",
                limit: 50
              }
              yield* differences.hosts(filter, after)
              // All of what is looked at for one page is passed over.
              yield* differences.hosts({ ...filter, has: () => false }, after)
              yield* differences.records(
                filter,
                after && { zone: DomainName.make("z7.prism.test"), name: after, type: "A" }
              )
            })
          ),
          Differences.layer
        )
      }))
    ),
    ...[Zone.make(zone), reverse].map((each) => ({
      name: `the records of ${each.name} then`,
      read: Effect.provide(
        Effect.flatMap(PastRecords, ({ list }) => list(each, nowMillis - 86_400_000, { has: () => true, limit: 100 })),
        PastRecords.layer.pipe(
          Layer.provide([Differences.layer, HostHistory.layer, Zones.layer([Zone.make(zone), reverse])])
        )
      )
    })),
    {
      name: "history, with who made each version",
      read: history(({ changes, versions }) =>
        Effect.gen(function* () {
          const first = yield* versions(reference, { limit: 3 })
          yield* versions(reference, { limit: 3, before: first.at(-1)?.place })
          yield* versions(byId, { limit: 3, before: first.at(-1)?.place })
          yield* changes(first)
        })
      )
    },
    { name: "a host explained", read: explained((provenance) => provenance.host(reference)) },
    { name: "a record explained", read: explained((provenance) => provenance.record(Zone.make(zone), host, "A")) },
    {
      name: "a pointer explained",
      read: explained((provenance) => provenance.record(reverse, IpAddress.reverseName(address), "PTR"))
    },
    {
      name: "nothing explained",
      read: explained((provenance) => provenance.record(Zone.make(zone), DomainName.make(`no.${zone}`), "TXT"))
    }
  ]
}
