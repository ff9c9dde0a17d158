/**
 * A zone's records as they should be, in the order of names: what people manage
 * and what hosts have, and, when asked for, what others have in PowerDNS.
 *
 * Promises: memory is that of a page, and of the foreign sets where those are
 * asked for; the same records give the same order. Placeholders are left out:
 * they follow from the others. The PTR records of hosts are there once they
 * were published. Leaves to others: how it is written down (`dns/ZoneFile`).
 */
import { Context, Effect, Layer, Option, Schema, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import { asList } from "../storage/Rows.ts"
import * as NonTerminals from "./NonTerminals.ts"
import { Outbox } from "./Outbox.ts"
import { knownTypes } from "./Publication.ts"
import type { Origin } from "./RecordChanges.ts"
import { RecordSource } from "./RecordSource.ts"
import { byNameAndType } from "./ZoneFile.ts"

export interface ExportedSet extends RRset.RRset {
  readonly origin: "host" | Origin | "foreign"
}

/** Foreign record sets of one export at the most. */
export const foreignMax = 200_000

/** More is foreign than fits. */
export class TooMuchForeign extends Schema.TaggedError<TooMuchForeign>()("TooMuchForeign", { zone: Schema.String }) {
  override get message(): string {
    return `${this.zone} has more than ${foreignMax} record sets that are not Prism's; PowerDNS exports them itself`
  }
}

export class ZoneExport extends Context.Service<
  ZoneExport,
  {
    /** The zone's SOA and its own name servers as PowerDNS has them: without those it loads nowhere. */
    readonly apex: (zone: Zone.Zone) => Effect.Effect<ReadonlyArray<ExportedSet>, PowerDnsError>
    /** What others have in PowerDNS, SOA and name servers included, in the order of names. */
    readonly foreign: (
      zone: Zone.Zone
    ) => Effect.Effect<ReadonlyArray<ExportedSet>, TooMuchForeign | PowerDnsError | SqlError.SqlError>
    /** All sets in the order of names and types, `foreign` ones among them. */
    readonly sets: (
      zone: Zone.Zone,
      foreign: ReadonlyArray<ExportedSet>
    ) => Stream.Stream<ReadonlyArray<ExportedSet>, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/ZoneExport") {
  static readonly layer = Layer.effect(
    ZoneExport,
    Effect.suspend(() => make)
  )
}

/** Names read at once. */
const pageSize = 1000

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const outbox = yield* Outbox
  const powerdns = yield* PowerDnsClient
  const source = yield* RecordSource

  const foreign: ZoneExport["Service"]["foreign"] = Effect.fn("ZoneExport.foreign")(function* (zone) {
    const sets = new Map<string, { name: DomainName; type: string; ttlSeconds: number; contents: Array<string> }>()
    yield* Stream.runForEach(
      powerdns.records(zone.name),
      Effect.fnUntraced(function* (records) {
        const names = [...new Set(records.map(({ name }) => name))]
        const published = yield* outbox.published(zone.name, names)
        for (const { content, name, ttlSeconds, type } of records) {
          if (signs.has(type) || knownTypes(published.get(name)).has(type)) continue
          const key = `${name} ${type}`
          const known = sets.get(key)
          if (known !== undefined) known.contents.push(content)
          else if (sets.size === foreignMax) return yield* new TooMuchForeign({ zone: zone.name })
          else sets.set(key, { name, type, ttlSeconds, contents: [content] })
        }
      })
    )
    return Array.from(sets.values(), ({ contents, name, ttlSeconds, type }): ExportedSet => ({
      ...RRset.make(name, type, ttlSeconds, contents),
      origin: "foreign"
    })).sort(byNameAndType)
  })

  const apex: ZoneExport["Service"]["apex"] = Effect.fn("ZoneExport.apex")(function* (zone) {
    const found = yield* powerdns.rrsets(zone.name, [zone.name])
    return found
      .filter(isApex(zone))
      .map((rrset): ExportedSet => ({ ...rrset, origin: "foreign" }))
      .sort((a, b) => (a.type === "SOA" ? -1 : b.type === "SOA" ? 1 : 0))
  })

  /** Up to a page of names behind `after`, in order, of all that may have records. */
  const namesAfter = Effect.fnUntraced(function* (zone: Zone.Zone, after: string) {
    const hosts = Zone.isReverse(zone)
      ? sql<{ readonly name: DomainName }>`
          SELECT name FROM published WHERE zone = ${zone.name} AND name > ${after} ORDER BY name LIMIT ${pageSize}`
      : sql<{ readonly name: DomainName }>`
          SELECT fqdn AS name FROM host
          WHERE zone = ${zone.name} AND fqdn > ${after} AND withdrawn_since IS NULL AND state <> 'retired'
          ORDER BY fqdn LIMIT ${pageSize}`
    const people = sql<{ readonly name: DomainName }>`
      SELECT DISTINCT name FROM record WHERE zone = ${zone.name} AND name > ${after} ORDER BY name LIMIT ${pageSize}`
    const names = new Set([...(yield* hosts), ...(yield* people)].map(({ name }) => name))
    return [...names].sort().slice(0, pageSize)
  })

  const page = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
    const desired = yield* source.desired(zone, names)
    const rows = yield* sql<{ readonly name: string; readonly type: string; readonly origin: Origin }>`
      SELECT name, type, origin FROM record WHERE zone = ${zone.name} AND name IN ${asList(sql, names)}`
    const origins = new Map(rows.map(({ name, origin, type }) => [`${name} ${type}`, origin]))
    return names.flatMap((name) =>
      (desired.get(name) ?? [])
        .filter((rrset) => !NonTerminals.isPlaceholder(rrset))
        .map((rrset): ExportedSet => ({ ...rrset, origin: origins.get(`${name} ${rrset.type}`) ?? "host" }))
        .sort(byNameAndType)
    )
  })

  return ZoneExport.of({
    apex,
    foreign,
    sets: (zone, others) => {
      let at = 0
      /** Foreign sets up to and with `last`, or all that are left. */
      const upTo = (last: string | undefined) => {
        const behind = last === undefined ? -1 : others.findIndex(({ name }, i) => i >= at && name > last)
        const from = at
        at = behind === -1 ? others.length : behind
        return others.slice(from, at)
      }
      return Stream.paginate("", (after: string) =>
        Effect.gen(function* () {
          const names = yield* namesAfter(zone, after)
          const isLast = names.length < pageSize
          const last = isLast ? undefined : names.at(-1)
          const sets = [...(yield* page(zone, names)), ...upTo(last)].sort(byNameAndType)
          return [[sets], last === undefined ? Option.none<string>() : Option.some<string>(last)] as const
        })
      )
    }
  })
})

/** What every zone has at its own name, and no plan of ours changes. */
export const isApex =
  (zone: Zone.Zone) =>
  ({ name, type }: Pick<RRset.RRset, "name" | "type">): boolean =>
    name === zone.name && (type === "SOA" || type === "NS")

/** What signs a zone is made anew wherever it goes. */
const signs: ReadonlySet<string> = new Set(["DNSKEY", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM"])
