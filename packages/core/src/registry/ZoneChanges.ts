/**
 * What a changed configuration means for hosts that have not changed.
 *
 * Records are computed from a host and from its zone: when a zone's TTL changes,
 * or a reverse zone comes, no host changes, and so nothing would be marked. At
 * start each zone is compared with what it was when its names were last marked
 * for it, and where it differs all its names are marked, page by page. A crash
 * in between begins anew. Leaves to others: what the offline policy says is
 * asked at each sweep (`registry/Expiry`).
 */
import { Clock, Effect, Layer, Schedule } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Outbox } from "../dns/Outbox.ts"
import { type RecordPlace, Zones } from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import * as Zone from "../domain/Zone.ts"
import * as Generation from "../storage/Generation.ts"
import { detailOf } from "../storage/SqlFailure.ts"

/** Names marked in one transaction. */
export const pageSize = 2000

/** What the records of a zone are computed from, besides its hosts. */
const fingerprint = ({ policy: { ttlSeconds, ttlSecondsMax, ttlSecondsMin } }: Zone.Zone): string =>
  JSON.stringify({ ttlSeconds, ttlSecondsMin, ttlSecondsMax })

/** As it was before hosts could wish for a TTL: then the bounds made no difference to anyone. */
const fingerprintBefore = ({ policy: { ttlSeconds } }: Zone.Zone): string => JSON.stringify({ ttlSeconds })

/** A page of names, and where the next one begins; undefined after the last. */
interface Page {
  readonly places: ReadonlyArray<RecordPlace>
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

  const markAll = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    page: (zone: Zone.Zone, after: string) => Effect.Effect<Page, SqlError.SqlError>
  ) {
    let names = 0
    for (let after: string | undefined = ""; after !== undefined;) {
      const { next, places }: Page = yield* page(zone, after)
      if (places.length > 0) {
        const generation = yield* Generation.next(sql)
        yield* outbox.mark(places, generation, yield* Clock.currentTimeMillis, "settings")
        yield* outbox.wake([zone.name])
      }
      names += places.length
      after = next
      yield* Effect.yieldNow
    }
    return names
  })

  const catchUp = Effect.fn("ZoneChanges.catchUp")(function* (zone: Zone.Zone) {
    const wanted = fingerprint(zone)
    const [known] = yield* sql<{ readonly fingerprint: string }>`
      SELECT fingerprint FROM zone_fingerprint WHERE zone = ${zone.name}`
    if (known?.fingerprint === wanted) return
    const isSame = known?.fingerprint === fingerprintBefore(zone)
    const names = isSame
      ? 0
      : (yield* markAll(zone, Zone.isReverse(zone) ? pointerNames : hostNames)) +
        (yield* markAll(zone, placeholderNames))
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

  yield* Effect.forEach(zones.all, catchUp, { discard: true }).pipe(
    Effect.tapError((error) =>
      Effect.logWarning("changed zones could not be looked at, will try again").pipe(
        Effect.annotateLogs({ reason: detailOf(error) })
      )
    ),
    Effect.retry(Schedule.spaced("5 seconds"))
  )
})

/** Works in the background, once for each start. */
export const layer = Layer.effectDiscard(Effect.forkScoped(run))
