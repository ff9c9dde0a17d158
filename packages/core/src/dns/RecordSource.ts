/**
 * What should be: the record sets that the registry wants at a name, now.
 *
 * A forward name has the A and AAAA records of its host, with the TTL that the
 * host wishes for within the zone's bounds of now. A reverse name has one PTR
 * record, with the TTL of the host that it names, to the host that claimed the address last among those that
 * are online, or else among those whose records are kept: an address that
 * moved to another machine names that machine at once. A name without a host has
 * the records people manage there, and else, when others stand below it, a
 * placeholder (`dns/NonTerminals`).
 */
import { Context, Effect, Layer, Option, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { asList } from "../storage/Rows.ts"
import * as NonTerminals from "./NonTerminals.ts"
import type { RecordsByName } from "./Plan.ts"
import { excludesHosts } from "./RecordRules.ts"
import { Zones } from "./Zones.ts"

/** The types that hosts have in a zone. */
export const managedTypes = (zone: Zone.Zone): ReadonlyArray<RRset.HostRecordType> =>
  Zone.isReverse(zone) ? ["PTR"] : ["A", "AAAA"]

export class RecordSource extends Context.Service<
  RecordSource,
  {
    /** Desired record sets at `names` of `zone`; names that should have none are absent. */
    readonly desired: (
      zone: Zone.Zone,
      names: ReadonlyArray<DomainName>
    ) => Effect.Effect<RecordsByName, SqlError.SqlError>
    /**
     * All desired record sets of `zone`, each name once, in pages of a thousand names and in no particular order. Each
     * page is true of the moment it is read; memory is that of a page.
     */
    readonly all: (zone: Zone.Zone) => Stream.Stream<RecordsByName, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/RecordSource") {
  static readonly layer = Layer.effect(
    RecordSource,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const zones = yield* Zones

      const forward = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
        // The zone is not asked for: PostgreSQL may take it for rare, and read all of its hosts.
        const rows = yield* sql<HostRow & { readonly zone: DomainName }>`
          SELECT fqdn, zone, addresses, ttl FROM host
          WHERE fqdn IN ${asList(sql, names)} AND withdrawn_since IS NULL AND state <> 'retired'`
        return hostsRecords(
          zone,
          rows.filter((row) => row.zone === zone.name)
        )
      })

      const reverse = Effect.fnUntraced(function* (
        zone: Zone.Zone & { readonly network: object },
        names: ReadonlyArray<DomainName>
      ) {
        const nameOf = new Map<string, DomainName>()
        for (const name of names) {
          const address = Zone.addressOfPointer(name, zone)
          // What lies in a smaller zone too is said there.
          if (address !== undefined && zones.placePointer(address)?.zone === zone.name) nameOf.set(address, name)
        }
        const rows = yield* sql<{
          readonly address: string
          readonly fqdn: DomainName
          readonly ttl: HostRow["ttl"]
        }>`
          SELECT address, fqdn, ttl FROM (
            SELECT a.address, h.fqdn, h.ttl, ROW_NUMBER() OVER (
              PARTITION BY a.address
              ORDER BY CASE h.state WHEN 'online' THEN 0 ELSE 1 END, a.since DESC, h.generation DESC, h.fqdn
            ) AS place
            FROM host_address a JOIN host h ON h.id = a.host_id
            WHERE a.address IN ${asList(sql, [...nameOf.keys()])} AND h.withdrawn_since IS NULL AND h.state <> 'retired'
          ) ranked WHERE place = 1`
        return new Map(
          rows.map((row) => {
            const name = nameOf.get(row.address)!
            return [name, [RRset.make(name, "PTR", ttlOf(zone, row), [row.fqdn])]]
          })
        )
      })

      /** Records that people manage at `names`. */
      const managed = (zone: Zone.Zone, names: ReadonlyArray<DomainName>) =>
        Effect.map(
          sql<ManagedRow>`
            SELECT name, type, ttl, contents FROM record
            WHERE zone = ${zone.name} AND name IN ${asList(sql, names)} ORDER BY name, type`,
          byName
        )

      /** The records of hosts, with those that people manage beside them. */
      const beside = Effect.fnUntraced(function* (zone: Zone.Zone, hosts: RecordsByName) {
        const records = new Map(hosts)
        for (const [name, rrsets] of yield* managed(zone, [...hosts.keys()])) {
          const others = rrsets.filter(({ type }) => !excludesHosts(type, zone))
          if (others.length > 0) records.set(name, [...records.get(name)!, ...others])
        }
        return records
      })

      const hasManaged = (zone: Zone.Zone) =>
        Effect.map(sql`SELECT 1 AS one FROM record WHERE zone = ${zone.name} LIMIT 1`, (rows) => rows.length > 0)

      const placeholders = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
        const rows = yield* sql<{ readonly name: DomainName }>`
          SELECT name FROM non_terminal WHERE zone = ${zone.name} AND below > 0 AND name IN ${asList(sql, names)}`
        return new Map(rows.map(({ name }) => [name, [NonTerminals.placeholder(name, zone)]]))
      })

      const ofHosts = (zone: Zone.Zone, names: ReadonlyArray<DomainName>) =>
        Zone.isReverse(zone) ? reverse(zone, names) : forward(zone, names)

      const desired = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
        const records = new Map<DomainName, ReadonlyArray<RRset.RRset>>(yield* ofHosts(zone, names))
        for (const [name, rrsets] of yield* managed(zone, names)) {
          const hosts = records.get(name)
          if (hosts === undefined) records.set(name, rrsets)
          else records.set(name, [...hosts, ...rrsets.filter(({ type }) => !excludesHosts(type, zone))])
        }
        const without = names.filter((name) => !records.has(name))
        if (without.length === 0) return records
        for (const [name, rrsets] of yield* placeholders(zone, without)) records.set(name, rrsets)
        return records
      })

      /** Pages of rows in the order of a text column, each with the records of its names. */
      const pages = <Row>(
        read: (after: string) => Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError>,
        keyOf: (row: Row) => string,
        toRecords: (rows: ReadonlyArray<Row>) => Effect.Effect<RecordsByName, SqlError.SqlError>
      ) =>
        Stream.paginate("", (after: string) =>
          Effect.gen(function* () {
            const rows = yield* read(after)
            const last = rows.length < pageSize ? undefined : rows.at(-1)
            return [
              rows.length === 0 ? [] : [yield* toRecords(rows)],
              last === undefined ? Option.none<string>() : Option.some(keyOf(last))
            ] as const
          })
        )

      const allForward = (zone: Zone.Zone) =>
        pages(
          (after) => sql<HostRow>`
            SELECT fqdn, addresses, ttl FROM host
            WHERE zone = ${zone.name} AND fqdn > ${after} AND withdrawn_since IS NULL AND state <> 'retired'
            ORDER BY fqdn LIMIT ${pageSize}`,
          ({ fqdn }) => fqdn,
          (rows) => Effect.succeed(hostsRecords(zone, rows))
        )

      const allReverse = (zone: Zone.Zone & { readonly network: object }) =>
        pages(
          (after) => sql<{ readonly address: IpAddress.IpAddress }>`
            SELECT DISTINCT address FROM host_address WHERE address > ${after} ORDER BY address LIMIT ${pageSize}`,
          ({ address }) => address,
          (rows) => {
            const names: Array<DomainName> = []
            for (const { address } of rows) {
              const place = zones.placePointer(address)
              if (place?.zone === zone.name) names.push(place.name)
            }
            return reverse(zone, names)
          }
        )

      /** Names of `table` that no host has records at. */
      const allOthers = (zone: Zone.Zone, table: "record" | "non_terminal") =>
        pages(
          (after) => sql<{ readonly name: DomainName }>`
            SELECT DISTINCT name FROM ${sql(table)} WHERE zone = ${zone.name} AND name > ${after}
            ORDER BY name LIMIT ${pageSize}`,
          ({ name }) => name,
          Effect.fnUntraced(function* (rows) {
            const names = rows.map(({ name }) => name)
            const taken = yield* ofHosts(zone, names)
            const free = names.filter((name) => !taken.has(name))
            if (table === "record") return yield* managed(zone, free)
            const managedToo = yield* managed(zone, free)
            return yield* placeholders(
              zone,
              free.filter((name) => !managedToo.has(name))
            )
          })
        )

      /** Names with hosts, as `desired` has them. A zone in which people manage nothing is not asked for that page by page. */
      const allHosts = (zone: Zone.Zone) => {
        const hosts = Zone.isReverse(zone) ? allReverse(zone) : allForward(zone)
        return Stream.unwrap(
          Effect.map(hasManaged(zone), (some) => (some ? Stream.mapEffect(hosts, (page) => beside(zone, page)) : hosts))
        )
      }

      return RecordSource.of({
        desired: Effect.fn("RecordSource.desired")(desired),
        all: (zone) =>
          allHosts(zone).pipe(Stream.concat(allOthers(zone, "record")), Stream.concat(allOthers(zone, "non_terminal")))
      })
    })
  )
}

/** Names read at once when a whole zone is. Five times as many cost 150 MB of memory more: they outlive the young garbage. */
const pageSize = 1000

interface HostRow {
  readonly fqdn: DomainName
  readonly addresses: string
  readonly ttl: number | bigint | null
}

interface ManagedRow {
  readonly name: DomainName
  readonly type: string
  readonly ttl: number | bigint
  readonly contents: string
}

const byName = (rows: ReadonlyArray<ManagedRow>): ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>> => {
  const records = new Map<DomainName, Array<RRset.RRset>>()
  for (const { contents, name, ttl, type } of rows) {
    const rrset = RRset.make(name, type, Number(ttl), JSON.parse(contents) as ReadonlyArray<string>)
    const others = records.get(name)
    if (others === undefined) records.set(name, [rrset])
    else others.push(rrset)
  }
  return records
}

const ttlOf = (zone: Zone.Zone, { ttl }: Pick<HostRow, "ttl">): number =>
  Zone.ttlFor(zone.policy, ttl === null ? undefined : Number(ttl))

const hostsRecords = (zone: Zone.Zone, rows: ReadonlyArray<HostRow>): Map<DomainName, ReadonlyArray<RRset.RRset>> =>
  new Map(
    rows.map((row) => [
      row.fqdn,
      addressRecords(row.fqdn, ttlOf(zone, row), JSON.parse(row.addresses) as ReadonlyArray<IpAddress.IpAddress>)
    ])
  )

/** The address records of one host. */
const addressRecords = (
  name: DomainName,
  ttlSeconds: number,
  addresses: ReadonlyArray<IpAddress.IpAddress>
): ReadonlyArray<RRset.RRset> =>
  (["A", "AAAA"] as const).flatMap((type) => {
    const contents = addresses.filter((address) => IpAddress.recordType(address) === type)
    return contents.length === 0 ? [] : [RRset.make(name, type, ttlSeconds, contents)]
  })
