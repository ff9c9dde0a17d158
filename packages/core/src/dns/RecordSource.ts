/**
 * What should be: the record sets that the registry wants at a name, now.
 *
 * A forward name has the A and AAAA records of its host. A reverse name has
 * one PTR record, to the host that claimed the address last among those that
 * are online, or else among those whose records are kept: an address that
 * moved to another machine names that machine at once.
 */
import { Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { asList } from "../storage/Rows.ts"
import type { RecordsByName } from "./Plan.ts"

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
  }
>()("@prism-dns/core/dns/RecordSource") {
  static readonly layer = Layer.effect(
    RecordSource,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient

      const forward = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
        const rows = yield* sql<{ readonly fqdn: DomainName; readonly addresses: string }>`
          SELECT fqdn, addresses FROM host
          WHERE fqdn IN ${asList(sql, names)} AND zone = ${zone.name} AND withdrawn_since IS NULL AND state <> 'retired'`
        return new Map(rows.map((row) => [row.fqdn, hostRecords(zone, row.fqdn, JSON.parse(row.addresses))]))
      })

      const reverse = Effect.fnUntraced(function* (
        zone: Zone.Zone & { readonly network: object },
        names: ReadonlyArray<DomainName>
      ) {
        const nameOf = new Map<string, DomainName>()
        for (const name of names) {
          const address = Zone.addressOfPointer(name, zone)
          if (address !== undefined) nameOf.set(address, name)
        }
        const rows = yield* sql<{ readonly address: string; readonly fqdn: DomainName }>`
          SELECT address, fqdn FROM (
            SELECT a.address, h.fqdn, ROW_NUMBER() OVER (
              PARTITION BY a.address
              ORDER BY CASE h.state WHEN 'online' THEN 0 ELSE 1 END, a.since DESC, h.generation DESC, h.fqdn
            ) AS place
            FROM host_address a JOIN host h ON h.id = a.host_id
            WHERE a.address IN ${asList(sql, [...nameOf.keys()])} AND h.withdrawn_since IS NULL AND h.state <> 'retired'
          ) ranked WHERE place = 1`
        return new Map(
          rows.map((row) => {
            const name = nameOf.get(row.address)!
            return [name, [RRset.make(name, "PTR", zone.policy.ttlSeconds, [row.fqdn])]]
          })
        )
      })

      return RecordSource.of({
        desired: Effect.fn("RecordSource.desired")((zone, names) =>
          Zone.isReverse(zone) ? reverse(zone, names) : forward(zone, names)
        )
      })
    })
  )
}

/** The address records of one host. */
export const hostRecords = (
  zone: Zone.Zone,
  name: DomainName,
  addresses: ReadonlyArray<IpAddress.IpAddress>
): ReadonlyArray<RRset.RRset> =>
  (["A", "AAAA"] as const).flatMap((type) => {
    const contents = addresses.filter((address) => IpAddress.recordType(address) === type)
    return contents.length === 0 ? [] : [RRset.make(name, type, zone.policy.ttlSeconds, contents)]
  })
