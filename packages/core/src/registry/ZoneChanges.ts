/**
 * What changed settings mean for hosts that have not changed.
 *
 * Records are computed from a host and from its zone: when a zone's TTL changes,
 * or a reverse zone comes or goes, no host changes, and so nothing would be
 * marked. At start, and whenever zones change, each zone is compared with what
 * it was when its names were last marked for it, and where it differs all its
 * names are marked, page by page. A crash in between begins anew. Leaves to
 * others: what the offline policy says is asked at each sweep
 * (`registry/Expiry`).
 */
import { Clock, Effect, Latch, Layer, Schedule } from "effect"
import { IpNetwork } from "effect/net"
import { SqlClient, type SqlError } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import { Outbox } from "../dns/Outbox.ts"
import { type RecordPlace, Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { type IpAddress, isWithin } from "../domain/IpAddress.ts"
import * as Zone from "../domain/Zone.ts"
import * as Generation from "../storage/Generation.ts"
import { detailOf } from "../storage/SqlFailure.ts"

/** Names marked in one transaction. */
export const pageSize = 2000

/** What the records of a zone are computed from, besides its hosts: of a reverse zone also which smaller ones lie in it. */
const fingerprint = (zone: Zone.Zone, all: ReadonlyArray<Zone.Zone>): string => {
  const { ttlSeconds, ttlSecondsMax, ttlSecondsMin } = zone.policy
  const within = innerOf(zone, all)
  return JSON.stringify({ ttlSeconds, ttlSecondsMin, ttlSecondsMax, ...(within.length > 0 && { within }) })
}

/** The reverse zones that take addresses of this one. */
const innerOf = (zone: Zone.Zone, all: ReadonlyArray<Zone.Zone>): ReadonlyArray<DomainName> =>
  Zone.isReverse(zone)
    ? all
        .filter((other) => other.name !== zone.name && Zone.isReverse(other) && isIn(other.network, zone.network))
        .map(({ name }) => name)
        .sort()
    : []

const isIn = (inner: IpNetwork.IpNetwork, outer: IpNetwork.IpNetwork): boolean =>
  IpNetwork.containsNetwork(outer, inner)

/** About how many names are looked at again when the settings of `zone` change, or when it comes. */
export const countAffected = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  zone: Zone.Zone
): Effect.fn.Return<number, SqlError.SqlError> {
  if (!Zone.isReverse(zone)) {
    const [row] = yield* sql<{ readonly hosts: number | bigint }>`
      SELECT COUNT(*) AS hosts FROM host WHERE zone = ${zone.name}`
    return Number(row!.hosts)
  }
  let names = 0
  for (let after: string | undefined = ""; after !== undefined;) {
    const rows: ReadonlyArray<{ readonly address: IpAddress }> = yield* sql<{ readonly address: IpAddress }>`
      SELECT DISTINCT address FROM host_address WHERE address > ${after} ORDER BY address LIMIT ${pageSize}`
    names += rows.filter(({ address }) => isWithin(address, zone.network)).length
    after = rows.length < pageSize ? undefined : rows.at(-1)!.address
  }
  return names
})

/** Whether names are marked when `before` becomes `after`. */
export const isForRecords = (before: Zone.Zone, after: Zone.Zone): boolean =>
  fingerprint(before, []) !== fingerprint(after, [])

/** As it was before hosts could wish for a TTL: then the bounds made no difference to anyone. */
const fingerprintBefore = ({ policy: { ttlSeconds } }: Zone.Zone): string => JSON.stringify({ ttlSeconds })

/** A page of names, and where the next one begins; undefined after the last. */
interface Page {
  readonly places: ReadonlyArray<RecordPlace>
  /** Default: the zone's settings. */
  readonly moved?: ReadonlyArray<RecordPlace>
  readonly next: string | undefined
}

const run = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const outbox = yield* Outbox

  const hostNames = (zone: Zone.Zone, after: string) =>
    Effect.map(
      sql<{ readonly fqdn: DomainName }>`
        SELECT fqdn FROM host WHERE zone = ${zone.name} AND fqdn > ${after} ORDER BY fqdn LIMIT ${pageSize}`,
      (rows): Page => ({
        places: rows.map(({ fqdn }) => ({ zone: zone.name, name: fqdn })),
        next: rows.length < pageSize ? undefined : rows.at(-1)!.fqdn
      })
    )

  const pointerNames = (zone: Zone.Zone, after: string) =>
    Effect.map(
      sql<{ readonly address: IpAddress }>`
        SELECT DISTINCT address FROM host_address WHERE address > ${after} ORDER BY address LIMIT ${pageSize}`,
      (rows): Page => ({
        places: rows
          .map(({ address }) => zones.placePointer(address))
          .filter((place) => place !== undefined && place.zone === zone.name) as ReadonlyArray<RecordPlace>,
        next: rows.length < pageSize ? undefined : rows.at(-1)!.address
      })
    )

  /** Names with a placeholder, or that would have one without their host: its TTL is the zone's. */
  const placeholderNames = (zone: Zone.Zone, after: string) =>
    Effect.map(
      sql<{ readonly name: DomainName }>`
        SELECT name FROM non_terminal WHERE zone = ${zone.name} AND name > ${after} ORDER BY name LIMIT ${pageSize}`,
      (rows): Page => ({
        places: rows.map(({ name }) => ({ zone: zone.name, name })),
        next: rows.length < pageSize ? undefined : rows.at(-1)!.name
      })
    )

  /** Names that are ours there; those whose address another zone has now are in `moved`. */
  const publishedNames = (zone: Zone.Zone, after: string) =>
    Effect.map(
      outbox.publishedNames(zone.name, after === "" ? undefined : (after as DomainName), pageSize),
      (names): Page => {
        const isElsewhere = (name: DomainName) => {
          const address = Zone.addressOfPointer(name, zone)
          return address !== undefined && zones.placePointer(address)?.zone !== zone.name
        }
        const places = names.map((name) => ({ zone: zone.name, name }))
        return {
          places: places.filter(({ name }) => !isElsewhere(name)),
          moved: places.filter(({ name }) => isElsewhere(name)),
          next: names.length < pageSize ? undefined : names.at(-1)!
        }
      }
    )

  const markAll = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    page: (zone: Zone.Zone, after: string) => Effect.Effect<Page, SqlError.SqlError>
  ) {
    let names = 0
    for (let after: string | undefined = ""; after !== undefined;) {
      const { moved = [], next, places }: Page = yield* page(zone, after)
      for (const [cause, marked] of [
        ["settings", places],
        ["moved", moved]
      ] as const) {
        if (marked.length === 0) continue
        yield* outbox.mark(marked, yield* Generation.next(sql), yield* Clock.currentTimeMillis, cause)
        yield* outbox.wake([zone.name])
      }
      names += places.length + moved.length
      after = next
      yield* Effect.yieldNow
    }
    return names
  })

  const catchUp = Effect.fn("ZoneChanges.catchUp")(function* (zone: Zone.Zone) {
    const wanted = fingerprint(zone, zones.all)
    const [known] = yield* sql<{ readonly fingerprint: string }>`
      SELECT fingerprint FROM zone_fingerprint WHERE zone = ${zone.name}`
    if (known?.fingerprint === wanted) return
    const isSame = known?.fingerprint === fingerprintBefore(zone)
    const names = isSame
      ? 0
      : (yield* markAll(zone, Zone.isReverse(zone) ? pointerNames : hostNames)) +
        (yield* markAll(zone, placeholderNames)) +
        // Of a zone that was managed before, and of one whose addresses others have now: what is wanted there no more.
        (known === undefined || Zone.isReverse(zone) ? yield* markAll(zone, publishedNames) : 0)
    // It went meanwhile, and when it comes again it begins anew.
    if (zones.find(zone.name) === undefined) return
    // Last, so that whoever was stopped before begins anew.
    yield* sql`
      INSERT INTO zone_fingerprint (zone, fingerprint) VALUES (${zone.name}, ${wanted})
      ON CONFLICT (zone) DO UPDATE SET fingerprint = excluded.fingerprint`
    if (names > 0) {
      yield* Effect.logInfo("the zone's settings have changed, its names are looked at again").pipe(
        Effect.annotateLogs({ zone: zone.name, names })
      )
    }
  })

  const hasChanged = yield* Latch.make(true)
  yield* zones.changed(() => void hasChanged.openUnsafe())

  yield* Effect.gen(function* () {
    yield* hasChanged.await
    hasChanged.closeUnsafe()
    yield* Effect.suspend(() => Effect.forEach(zones.all, catchUp, { discard: true })).pipe(
      Effect.tapError((error) =>
        Effect.logWarning("changed zones could not be looked at, will try again").pipe(
          Effect.annotateLogs({ reason: detailOf(error) })
        )
      ),
      Effect.retry(Schedule.spaced("5 seconds"))
    )
  }).pipe(Effect.forever)
})

/** Works in the background, on one server of the cluster: after the start, and whenever a zone has changed. */
export const layer = Layer.effectDiscard(Jobs.once("zone-changes", run))
