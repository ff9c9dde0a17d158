/** Rows of hosts and of their history, and what they say. */
import type { SqlClient, Statement } from "effect/sql"
import type { DomainName, HostName } from "../domain/DomainName.ts"
import type { Host, HostState } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import * as Partitions from "../storage/Partitions.ts"
import type { HostEvent } from "./Decision.ts"

export interface HostRow {
  readonly id: string
  readonly fqdn: DomainName
  readonly hostname: HostName
  readonly zone: DomainName
  readonly addresses: string
  readonly labels: string
  readonly ttl: number | bigint | null
  readonly owner: string
  readonly is_static: number | bigint
  readonly state: HostState
  readonly generation: number | bigint
  readonly first_seen: number | bigint
  readonly last_seen: number | bigint
  readonly offline_since: number | bigint | null
  readonly withdrawn_since: number | bigint | null
  readonly retired_since: number | bigint | null
}

const optionalNumber = (value: number | bigint | null): number | undefined =>
  value === null ? undefined : Number(value)

export const toHost = (row: HostRow): Host => ({
  id: row.id,
  fqdn: row.fqdn,
  hostname: row.hostname,
  zone: row.zone,
  addresses: JSON.parse(row.addresses),
  labels: JSON.parse(row.labels),
  ttlSeconds: optionalNumber(row.ttl),
  owner: row.owner,
  isStatic: Number(row.is_static) === 1,
  state: row.state,
  generation: Number(row.generation),
  firstSeenMillis: Number(row.first_seen),
  lastSeenMillis: Number(row.last_seen),
  offlineSinceMillis: optionalNumber(row.offline_since),
  withdrawnSinceMillis: optionalNumber(row.withdrawn_since),
  retiredSinceMillis: optionalNumber(row.retired_since)
})

export const hostColumns = {
  id: "text",
  fqdn: "text",
  hostname: "text",
  zone: "text",
  addresses: "text",
  labels: "text",
  ttl: "bigint",
  owner: "text",
  is_static: "bigint",
  state: "text",
  generation: "bigint",
  first_seen: "bigint",
  last_seen: "bigint",
  offline_since: "bigint",
  withdrawn_since: "bigint",
  retired_since: "bigint"
} as const

/** For a SELECT list. */
export const columns = Object.keys(hostColumns).join(", ")

export const fromHost = (host: Host) => ({
  id: host.id,
  fqdn: host.fqdn,
  hostname: host.hostname,
  zone: host.zone,
  addresses: JSON.stringify(host.addresses),
  labels: JSON.stringify(host.labels),
  ttl: host.ttlSeconds ?? null,
  owner: host.owner,
  is_static: host.isStatic ? 1 : 0,
  state: host.state,
  generation: host.generation,
  first_seen: host.firstSeenMillis,
  last_seen: host.lastSeenMillis,
  offline_since: host.offlineSinceMillis ?? null,
  withdrawn_since: host.withdrawnSinceMillis ?? null,
  retired_since: host.retiredSinceMillis ?? null
})

/** A label as it stands in `host_name_label`; keys have no `=`. */
export const labelText = ([key, value]: readonly [key: string, value: string]): string => `${key}=${value}`

/** What a host was, from one change of it to the next. Beats are no changes: when it was last seen is not kept. */
export interface HostVersion {
  /** Of the host; a name that was given up and taken again is another host's. */
  readonly id: string
  readonly fqdn: DomainName
  readonly zone: DomainName
  readonly addresses: ReadonlyArray<IpAddress>
  readonly labels: Readonly<Record<string, string>>
  readonly ttlSeconds: number | undefined
  readonly owner: string
  readonly isStatic: boolean
  readonly state: HostState
  readonly generation: number
  /** What made it so. */
  readonly event: HostEvent
  readonly fromMillis: number
  /** Undefined: it is so. A release is a moment, and ends when it begins. */
  readonly toMillis: number | undefined
}

export interface VersionRow {
  readonly sequence: number | bigint
  readonly host_id: string
  readonly fqdn: DomainName
  readonly zone: DomainName
  readonly event: HostEvent
  readonly addresses: string
  readonly labels: string
  readonly ttl: number | bigint | null
  readonly owner: string
  readonly is_static: number | bigint
  readonly state: HostState
  readonly generation: number | bigint
  readonly valid_from: number | bigint
  readonly valid_to: number | bigint | null
}

/**
 * Among versions that began by then, leaves away those that had ended long before it, and with them the partitions where they
 * stand. Who looks for the newest version of before finds the same one, but for a release of long before: that is left away
 * too, and says no more than that there is none. A bound of partitions is compared with, and not the time itself: then no row
 * of the partitions that are left has to be passed over. SQLite has no partitions.
 */
export const reaching = (sql: SqlClient.SqlClient, atMillis: number): Statement.Fragment =>
  sql.onDialectOrElse({
    pg: () => sql`AND ${sql.literal(Partitions.ended)} >= ${Partitions.reachOf(atMillis)}`,
    orElse: () => sql.literal("")
  })

/** For a SELECT list. */
export const versionColumns =
  "sequence, host_id, fqdn, zone, event, addresses, labels, ttl, owner, is_static, state, generation, valid_from, valid_to"

export const toVersion = (row: VersionRow): HostVersion => ({
  id: row.host_id,
  fqdn: row.fqdn,
  zone: row.zone,
  addresses: JSON.parse(row.addresses),
  labels: JSON.parse(row.labels),
  ttlSeconds: optionalNumber(row.ttl),
  owner: row.owner,
  isStatic: Number(row.is_static) === 1,
  state: row.state,
  generation: Number(row.generation),
  event: row.event,
  fromMillis: Number(row.valid_from),
  toMillis: optionalNumber(row.valid_to)
})
