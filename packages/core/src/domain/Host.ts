/**
 * A host: a machine with a name, the addresses it was last known at, and how
 * far its name has come on the way to the DNS.
 */
import type { DomainName, HostName } from "./DomainName.ts"
import type { IpAddress } from "./IpAddress.ts"

/**
 * - `online`: its lease holds.
 * - `offline`: its lease has passed; the zone's policy says what becomes of its records.
 * - `retired`: given up; the name is held for a time before anyone may have it.
 */
export const hostStates = ["online", "offline", "retired"] as const
export type HostState = (typeof hostStates)[number]

/**
 * How far a change has come: `accepted` is durable in the registry, `applied`
 * was taken by PowerDNS, `served` is answered by every configured
 * authoritative server.
 */
export const ackLevels = ["accepted", "applied", "served"] as const
export type AckLevel = (typeof ackLevels)[number]

/** Times are milliseconds since 1970 in UTC. */
export interface Host {
  readonly id: string
  readonly fqdn: DomainName
  readonly hostname: HostName
  readonly zone: DomainName
  /** Sorted, each once. */
  readonly addresses: ReadonlyArray<IpAddress>
  readonly labels: Readonly<Record<string, string>>
  /** The TTL of its records that it wishes for, within its zone's bounds, in seconds; undefined: the zone's. */
  readonly ttlSeconds: number | undefined
  /** The principal that registered it. */
  readonly owner: string
  /** It has no lease: it is online until somebody says otherwise, whoever beats or does not. */
  readonly isStatic: boolean
  readonly state: HostState
  /** Rises with each change of the host; never reused. A renewed lease is no change. */
  readonly generation: number
  readonly firstSeenMillis: number
  /** Exact to within the flush interval of the registry. */
  readonly lastSeenMillis: number
  /** Since when the lease is past; undefined while online. */
  readonly offlineSinceMillis: number | undefined
  /** Since when the records are withdrawn; undefined while they should be there. */
  readonly withdrawnSinceMillis: number | undefined
  /** Since when it is given up and its name held; undefined before. */
  readonly retiredSinceMillis: number | undefined
}

/** The furthest level the host's present generation has reached. */
export interface Publication {
  readonly level: AckLevel
  readonly generation: number
  readonly atMillis: number
  /** Why it goes no further, when something stands in the way. */
  readonly error?: string
}
