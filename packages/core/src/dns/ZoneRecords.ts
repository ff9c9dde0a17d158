/**
 * What stands in a zone, by whose it is, page by page in the order of names.
 *
 * Promises: memory is that of some pages, whatever the zone's size. Names of
 * ours come from the registry's database; for those of others the whole zone is
 * read from PowerDNS, for each page anew: a name may be among both, with the
 * record sets that are whose. Leaves to others: what should stand there
 * (`dns/RecordSource`).
 */
import { Context, Effect, Layer, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import { asList } from "../storage/Rows.ts"
import { Outbox } from "./Outbox.ts"
import { type Owner, Ownership } from "./Ownership.ts"
import { knownTypes, type Published } from "./Publication.ts"

export interface NameRecords {
  readonly name: DomainName
  readonly owner: Owner
  readonly rrsets: ReadonlyArray<RRset.RRset>
  /** Kept in PowerDNS and not answered: about to be removed. */
  readonly disabled: boolean
}

export interface ListOptions {
  /** `managed` has adopted names among them. */
  readonly ownership: "managed" | "foreign" | "ignored"
  /** Only names behind this one. */
  readonly after?: DomainName | undefined
  /** Names at the most. */
  readonly limit: number
}

export class ZoneRecords extends Context.Service<
  ZoneRecords,
  {
    readonly list: (
      zone: DomainName,
      options: ListOptions
    ) => Effect.Effect<ReadonlyArray<NameRecords>, PowerDnsError | SqlError.SqlError>
  }
>()("@prism-dns/core/dns/ZoneRecords") {
  static readonly layer = Layer.effect(
    ZoneRecords,
    Effect.suspend(() => make)
  )
}

const ofHosts: ReadonlyArray<string> = RRset.hostRecordTypes

/** With one type of hosts all of those are ours; other types stand beside them, whoever made them. */
const isOurs = (published: Published, type: string): boolean => {
  const known = knownTypes(published)
  return known.has(type) || (ofHosts.includes(type) && ofHosts.some((each) => known.has(each)))
}

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const powerdns = yield* PowerDnsClient

  /** Those of `names` at which a record stands that was taken over. */
  const adoptedAmong = (zone: DomainName, names: ReadonlyArray<DomainName>) =>
    Effect.map(
      sql<{ readonly name: DomainName }>`
        SELECT DISTINCT name FROM record
        WHERE zone = ${zone} AND origin = 'adopted' AND name IN ${asList(sql, names)}`,
      (rows) => new Set(rows.map(({ name }) => name))
    )

  const managed = Effect.fnUntraced(function* (zone: DomainName, { after = "" as DomainName, limit }: ListOptions) {
    const rows = yield* sql<{ readonly name: DomainName }>`
      SELECT name FROM published WHERE zone = ${zone} AND name > ${after} ORDER BY name LIMIT ${limit}`
    const names = rows.map(({ name }) => name)
    const published = yield* outbox.published(zone, names)
    const adopted = yield* adoptedAmong(zone, names)
    return names.flatMap((name): ReadonlyArray<NameRecords> => {
      const found = published.get(name)
      return found === undefined
        ? []
        : [
            {
              name,
              owner: adopted.has(name) ? "adopted" : "managed",
              rrsets: found.rrsets,
              disabled: found.quarantinedUntilMillis !== undefined
            }
          ]
    })
  })

  const others = Effect.fnUntraced(function* (
    zone: DomainName,
    owner: "foreign" | "ignored",
    { after = "" as DomainName, limit }: ListOptions
  ) {
    let kept = new Map<DomainName, Array<RawRecord>>()
    /** The last name of a full page so far: what is behind it is on a later one. */
    let last: DomainName | undefined

    /** Drops names of ours, and all but the first `limit`. */
    const settle = Effect.gen(function* () {
      const ours =
        owner === "ignored" ? new Map<DomainName, Published>() : yield* outbox.published(zone, [...kept.keys()])
      for (const [name, published] of ours) {
        const theirs = kept.get(name)!.filter(({ type }) => !isOurs(published, type))
        if (theirs.length === 0) kept.delete(name)
        else kept.set(name, theirs)
      }
      const names = [...kept.keys()].sort()
      if (names.length >= limit) last = names[limit - 1]
      kept = new Map(names.slice(0, limit).map((name) => [name, kept.get(name)!]))
    })

    yield* Stream.runForEach(
      powerdns.records(zone),
      Effect.fnUntraced(function* (records: ReadonlyArray<RawRecord>) {
        for (const record of records) {
          const { name } = record
          if (name <= after || (last !== undefined && name > last)) continue
          if (ownership.isIgnored(zone, name) !== (owner === "ignored")) continue
          const same = kept.get(name)
          if (same === undefined) kept.set(name, [record])
          else same.push(record)
        }
        if (kept.size > 2 * limit) yield* settle
      })
    )
    yield* settle
    return Array.from(kept, ([name, records]): NameRecords => ({
      name,
      owner,
      rrsets: Array.from(
        Map.groupBy(records, ({ type }) => type),
        ([type, some]) =>
          RRset.make(
            name,
            type,
            some[0]!.ttlSeconds,
            some.map(({ content }) => content)
          )
      ),
      disabled: false
    }))
  })

  return ZoneRecords.of({
    list: Effect.fn("ZoneRecords.list")(function* (zone, options) {
      return yield* options.ownership === "managed" ? managed(zone, options) : others(zone, options.ownership, options)
    })
  })
})
