/**
 * What should have been in a zone at a time: the records of its hosts and of
 * people, computed from their histories.
 *
 * Names come in order; those of a reverse zone in the order of their addresses,
 * as text, and there the pointers of hosts alone. TTLs are by the zone's settings of then, as far as they are known.
 * Not known, and so left out: what PowerDNS held, placeholders, and what was
 * someone else's. Leaves to others: what should be now (`dns/RecordSource`).
 */
import { Context, Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import { Differences, keyOf, type SetPlace } from "../registry/Differences.ts"
import { HostHistory, type HostVersion } from "../registry/HostHistory.ts"
import { asTable } from "../storage/Rows.ts"
import { Zones } from "./Zones.ts"

/** Names looked at for one page at the most. */
export const namesMax = 2000

const chunkSize = 500

/** Versions of one host that are read back to tell since when it had an address. */
const versionsMax = 200

export interface PastName {
  readonly name: DomainName
  /** `adopted` or `managed` where people have a record of it, `managed` where hosts do. */
  readonly owner: "managed" | "adopted"
  readonly rrsets: ReadonlyArray<RRset.RRset>
}

export interface PastFound {
  readonly names: ReadonlyArray<PastName>
  /** The list goes on behind this name; undefined: that was all. */
  readonly next: DomainName | undefined
}

export class PastRecords extends Context.Service<
  PastRecords,
  {
    readonly list: (
      zone: Zone.Zone,
      atMillis: number,
      options: {
        readonly after?: DomainName | undefined
        readonly has: (name: DomainName) => boolean
        readonly limit: number
      }
    ) => Effect.Effect<PastFound, SqlError.SqlError>
  }
>()("@prism-dns/core/dns/PastRecords") {
  static readonly layer = Layer.effect(
    PastRecords,
    Effect.suspend(() => make)
  )
}

type TtlBounds = Pick<Zone.ZonePolicy, "ttlSeconds" | "ttlSecondsMin" | "ttlSecondsMax">

const ttlFor = (bounds: TtlBounds, wish: number | undefined): number =>
  wish === undefined ? bounds.ttlSeconds : Math.min(Math.max(wish, bounds.ttlSecondsMin), bounds.ttlSecondsMax)

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const differences = yield* Differences
  const history = yield* HostHistory

  /** The zone's TTLs of then; of before they were kept, those of now. */
  const boundsAt = Effect.fnUntraced(function* (zone: Zone.Zone, atMillis: number) {
    const [row] = yield* sql<{ readonly settings: string }>`
      SELECT settings FROM zone_history WHERE name = ${zone.name} AND valid_from <= ${atMillis}
      ORDER BY valid_from DESC, sequence DESC LIMIT 1`
    if (row === undefined) return zone.policy
    const { policy } = JSON.parse(row.settings) as { readonly policy?: Partial<TtlBounds> }
    return {
      ttlSeconds: policy?.ttlSeconds ?? zone.policy.ttlSeconds,
      ttlSecondsMin: policy?.ttlSecondsMin ?? zone.policy.ttlSecondsMin,
      ttlSecondsMax: policy?.ttlSecondsMax ?? zone.policy.ttlSecondsMax
    }
  })

  /** Of hosts that were transferred while they were away: whether their records had been withdrawn before. */
  const isWithdrawn = Effect.fnUntraced(function* (version: HostVersion) {
    if (version.state === "retired" || version.event === "withdrawn") return true
    if (version.event !== "transferred" || version.state === "online") return false
    const earlier = yield* history.versions({ _tag: "Id", id: version.id }, { limit: versionsMax })
    const before = earlier.find(
      ({ event, fromMillis, generation }) =>
        generation < version.generation && fromMillis <= version.fromMillis && event !== "transferred"
    )
    return before?.event === "withdrawn"
  })

  const live = Effect.fnUntraced(function* (names: ReadonlyArray<DomainName>, atMillis: number) {
    const hosts = new Map<DomainName, HostVersion>()
    for (const [name, version] of yield* differences.hostsAt(names, atMillis)) {
      if (!(yield* isWithdrawn(version))) hosts.set(name, version)
    }
    return hosts
  })

  const peoplesAt = Effect.fnUntraced(function* (zone: DomainName, names: ReadonlyArray<DomainName>, atMillis: number) {
    const sets = yield* sql<SetPlace>`
      SELECT n.zone, n.name, n.type FROM ${asTable(
        sql,
        "r",
        { name: "text" },
        names.map((name) => ({ name }))
      )} JOIN record_name n ON n.zone = ${zone} AND n.name = r.name ORDER BY n.name, n.type`
    const then = yield* differences.recordsAt(sets, atMillis)
    return Map.groupBy(
      sets.flatMap((set) => then.get(keyOf(set)) ?? []),
      ({ name }) => name
    )
  })

  const addressSets = (
    name: DomainName,
    host: HostVersion | undefined,
    bounds: TtlBounds
  ): ReadonlyArray<RRset.RRset> =>
    host === undefined
      ? []
      : (["A", "AAAA"] as const).flatMap((type) => {
          const contents = host.addresses.filter((address) => IpAddress.recordType(address) === type)
          return contents.length === 0 ? [] : [RRset.make(name, type, ttlFor(bounds, host.ttlSeconds), contents)]
        })

  /** What hosts and people had at these names, each that had something. */
  const joined = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    names: ReadonlyArray<DomainName>,
    atMillis: number,
    ofHosts: (name: DomainName) => ReadonlyArray<RRset.RRset>
  ) {
    const peoples = yield* peoplesAt(zone.name, names, atMillis)
    return names.flatMap((name): ReadonlyArray<PastName> => {
      const hosts = ofHosts(name)
      const others = (peoples.get(name) ?? []).filter(({ type }) => !hosts.some((rrset) => rrset.type === type))
      const rrsets = [
        ...hosts,
        ...others.map(({ contents, ttlSeconds, type }) => RRset.make(name, type, ttlSeconds, contents))
      ]
      if (rrsets.length === 0) return []
      const isAdopted = hosts.length === 0 && others.every(({ origin }) => origin === "adopted")
      return [{ name, owner: isAdopted ? "adopted" : "managed", rrsets }]
    })
  })

  /** Names of hosts and of people's records, in one order. */
  const forwardNames = Effect.fnUntraced(function* (zone: DomainName, after: DomainName | undefined) {
    const hosts = yield* differences.hostNames(zone, after, chunkSize)
    const rows = yield* sql<{ readonly name: DomainName }>`
      SELECT DISTINCT name FROM record_name WHERE zone = ${zone} AND name > ${after ?? ""}
      ORDER BY name LIMIT ${chunkSize}`
    const records = rows.map(({ name }) => name)
    // Behind the end of the shorter of two full parts there may be names of it that were not read.
    const ends = [hosts, records].flatMap((part) => (part.length === chunkSize ? [part.at(-1)!] : []))
    const end = ends.length === 0 ? undefined : ends.reduce((a, b) => (a < b ? a : b))
    const all = [...new Set([...hosts, ...records])].sort()
    return { names: end === undefined ? all : all.filter((name) => name <= end), isLast: end === undefined }
  })

  const forward = Effect.fnUntraced(function* (zone: Zone.Zone, atMillis: number, after: DomainName | undefined) {
    const { isLast, names } = yield* forwardNames(zone.name, after)
    const bounds = yield* boundsAt(zone, atMillis)
    const hosts = yield* live(names, atMillis)
    const found = yield* joined(zone, names, atMillis, (name) => {
      const host = hosts.get(name)
      return host?.zone === zone.name ? addressSets(name, host, bounds) : []
    })
    return { found, looked: names, isLast }
  })

  /** Since when the host had the address without a break: who claimed it last had its name. */
  const claimedMillis = Effect.fnUntraced(function* (host: HostVersion, address: IpAddress.IpAddress) {
    let since = host.fromMillis
    const versions = yield* history.versions({ _tag: "Id", id: host.id }, { limit: versionsMax })
    for (const version of versions) {
      if (version.generation > host.generation) continue
      if (!version.addresses.includes(address)) break
      since = version.fromMillis
      if (version.event === "returned" || version.event === "created") break
    }
    return since
  })

  const reverse = Effect.fnUntraced(function* (
    zone: Zone.Zone & { readonly network: object },
    atMillis: number,
    after: DomainName | undefined
  ) {
    const behind = after === undefined ? "" : (Zone.addressOfPointer(after, zone) ?? "")
    const rows = yield* sql<{ readonly address: IpAddress.IpAddress; readonly fqdn: DomainName }>`
      SELECT address, fqdn FROM host_name_address WHERE address IN (
        SELECT DISTINCT address FROM host_name_address WHERE address > ${behind} ORDER BY address LIMIT ${chunkSize}
      ) ORDER BY address, fqdn`
    const bounds = yield* boundsAt(zone, atMillis)
    const hosts = yield* live([...new Set(rows.map(({ fqdn }) => fqdn))], atMillis)
    const pointers = new Map<DomainName, HostVersion>()
    const addresses = Map.groupBy(rows, ({ address }) => address)
    for (const [address, some] of addresses) {
      const place = zones.placePointer(address)
      if (place?.zone !== zone.name) continue
      const claims = yield* Effect.forEach(
        some.flatMap(({ fqdn }) => hosts.get(fqdn) ?? []).filter((host) => host.addresses.includes(address)),
        (host) =>
          Effect.map(some.length === 1 ? Effect.succeed(0) : claimedMillis(host, address), (since) => ({ host, since }))
      )
      const rank = (host: HostVersion) => (host.state === "online" ? 0 : 1)
      claims.sort(
        (a, b) =>
          rank(a.host) - rank(b.host) ||
          b.since - a.since ||
          b.host.generation - a.host.generation ||
          (a.host.fqdn < b.host.fqdn ? -1 : 1)
      )
      if (claims[0] !== undefined) pointers.set(place.name, claims[0].host)
    }
    const looked = [...addresses.keys()].map(
      (address) => zones.placePointer(address)?.name ?? IpAddress.reverseName(address)
    )
    const found = [...pointers].map(([name, host]): PastName => ({
      name,
      owner: "managed",
      rrsets: [RRset.make(name, "PTR", ttlFor(bounds, host.ttlSeconds), [host.fqdn])]
    }))
    return { found, looked, isLast: addresses.size < chunkSize }
  })

  const list: PastRecords["Service"]["list"] = Effect.fn("PastRecords.list")(function* (
    zone,
    atMillis,
    { after: begin, has, limit }
  ) {
    const names: Array<PastName> = []
    let after = begin
    for (let looked = 0; looked < namesMax; looked += chunkSize) {
      const part: Effect.Success<ReturnType<typeof forward>> = yield* Zone.isReverse(zone)
        ? reverse(zone, atMillis, after)
        : forward(zone, atMillis, after)
      for (const each of part.found) {
        if (!has(each.name)) continue
        if (names.length === limit) return { names, next: names.at(-1)!.name }
        names.push(each)
      }
      if (part.isLast) return { names, next: undefined }
      after = part.looked.at(-1)
    }
    return { names, next: after }
  })

  return PastRecords.of({ list })
})
