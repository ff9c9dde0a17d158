/**
 * A managed zone and its policy.
 *
 * Forward zones hold A and AAAA records of hosts; reverse zones hold PTR
 * records of the addresses of their network. A classless reverse zone
 * (RFC 2317) carries its range in its first label: `0/26.2.0.192.in-addr.arpa.`
 */
import { Duration, Result } from "effect"
import { IpNetwork } from "effect/net"
import type { DomainName } from "./DomainName.ts"
import * as IpAddress from "./IpAddress.ts"

/** What becomes of a host's records when its lease has passed. */
export type OfflineAction =
  /** They stay until the host comes back or is released. */
  | { readonly _tag: "Keep" }
  /** They are withdrawn once the host has been offline for this long; zero means at once. */
  | { readonly _tag: "Withdraw"; readonly after: Duration.Duration }

/**
 * Who gets a name that another owner's host holds. The same owner may always move its host to another address.
 * - `reject`: nobody else, until the name is released; and while the host is online, its owner's other machines neither
 *   (another machine: no address in common with what the name has).
 * - `take-over-if-same-owner`: nobody else, until the name is released.
 * - `take-over-if-expired`: anyone, once the host is not online.
 * - `suffix`: as `take-over-if-expired`, and who would be refused gets the name with `-2`, `-3` ... behind it.
 */
export const conflictPolicies = ["reject", "take-over-if-expired", "take-over-if-same-owner", "suffix"] as const
export type ConflictPolicy = (typeof conflictPolicies)[number]

/** How many names may lose their records by inference, not by their host's or a person's word, in any `window`. */
export interface DeleteBudget {
  /** Of the names published in the zone, 0 to 1. */
  readonly share: number
  /** At least this many, however small the zone. */
  readonly min: number
  readonly window: Duration.Duration
}

export interface ZonePolicy {
  /** TTL of the records in seconds, of hosts that wish for none. */
  readonly ttlSeconds: number
  /** A host's wish is clamped to these, in seconds. */
  readonly ttlSecondsMin: number
  readonly ttlSecondsMax: number
  /** Networks that hosts' addresses must lie in, special ones included; undefined: any address that is not special. */
  readonly networks: ReadonlyArray<IpNetwork.IpNetwork> | undefined
  /** Labels of a host's name below the zone at the most; undefined: one, and as many as it likes by protocol 1.0. */
  readonly labelsMax: number | undefined
  /** Hosts at the most, whatever their state. */
  readonly hostsMax: number
  readonly whenOffline: OfflineAction
  readonly conflict: ConflictPolicy
  /** How long a host is offline until it is retired: its records are withdrawn for good, its name is held. */
  readonly retireAfter: Duration.Duration
  /** How long the name of a retired host is held until anyone may have it. */
  readonly holdFor: Duration.Duration
  readonly deleteBudget: DeleteBudget
  /** How long records that are deleted by inference stay in PowerDNS disabled, not answered, before they are removed. */
  readonly quarantine: Duration.Duration
}

/** How a zone is compared as a whole with what PowerDNS holds. */
export interface Reconciliation {
  /** From one scheduled run to the next. */
  readonly interval: Duration.Duration
  /** Whether drift is repaired, or only reported. */
  readonly repair: boolean
}

/** Where it is said that Prism manages a zone. */
export type Origin = "configuration" | "api"

export interface Zone {
  readonly name: DomainName
  /** Of its settings: rises with each change of them. */
  readonly generation: number
  readonly origin: Origin
  /** JSON Pointers of the settings that the API has set in place of the configuration's; empty for zones of the API. */
  readonly overridden: ReadonlyArray<string>
  readonly policy: ZonePolicy
  /** Name servers that a zone we create gets. */
  readonly nameservers: ReadonlyArray<DomainName>
  /** Whether to create the zone in PowerDNS when it is missing there. */
  readonly createIfMissing: boolean
  /** Whether PowerDNS signs the zone. */
  readonly dnssec: boolean
  readonly reconciliation: Reconciliation
  /** The addresses whose PTR records live here; undefined for a forward zone. */
  readonly network: IpNetwork.IpNetwork | undefined
}

export const defaultPolicy: ZonePolicy = {
  ttlSeconds: 60,
  ttlSecondsMin: 30,
  ttlSecondsMax: 3600,
  networks: undefined,
  labelsMax: undefined,
  hostsMax: 1_000_000,
  whenOffline: { _tag: "Withdraw", after: Duration.hours(1) },
  conflict: "take-over-if-expired",
  retireAfter: Duration.days(30),
  holdFor: Duration.days(7),
  deleteBudget: { share: 0.1, min: 10, window: Duration.hours(1) },
  quarantine: Duration.hours(1)
}

export const defaultReconciliation: Reconciliation = { interval: Duration.minutes(15), repair: true }

export const make = (
  name: DomainName,
  options: {
    readonly policy?: Partial<ZonePolicy>
    readonly nameservers?: ReadonlyArray<DomainName>
    readonly createIfMissing?: boolean
    readonly dnssec?: boolean
    readonly reconciliation?: Partial<Reconciliation>
    readonly generation?: number
    readonly origin?: Origin
    readonly overridden?: ReadonlyArray<string>
  } = {}
): Zone => ({
  name,
  generation: options.generation ?? 0,
  origin: options.origin ?? "configuration",
  overridden: options.overridden ?? [],
  policy: { ...defaultPolicy, ...options.policy },
  dnssec: options.dnssec ?? false,
  reconciliation: { ...defaultReconciliation, ...options.reconciliation },
  nameservers: options.nameservers ?? [defaultNameserver(name)],
  createIfMissing: options.createIfMissing ?? true,
  network: reverseNetwork(name)
})

/** PowerDNS wants a name server to have a host's name: it stands above any label that no host may have, like `0/26`. */
const defaultNameserver = (zone: DomainName): DomainName => {
  const labels = zone.split(".")
  const last = labels.findLastIndex((label) => /[^a-z0-9-]/.test(label))
  return `ns1.${labels.slice(last + 1).join(".")}` as DomainName
}

/** The TTL of a host's records in a zone, in seconds: what the host wishes for within the zone's bounds, or the zone's own. */
export const ttlFor = (policy: ZonePolicy, wish: number | undefined): number =>
  wish === undefined ? policy.ttlSeconds : Math.min(Math.max(wish, policy.ttlSecondsMin), policy.ttlSecondsMax)

export const isReverse = (zone: Zone): zone is Zone & { readonly network: IpNetwork.IpNetwork } =>
  zone.network !== undefined

/**
 * The network a reverse zone's name stands for, or undefined for any other
 * name. Reads in-addr.arpa on octet boundaries, RFC 2317 ranges below it, and
 * ip6.arpa on nibble boundaries.
 */
export const reverseNetwork = (name: DomainName): IpNetwork.IpNetwork | undefined => {
  if (name.endsWith(".in-addr.arpa.")) return inAddrNetwork(name.slice(0, -".in-addr.arpa.".length).split("."))
  if (name.endsWith(".ip6.arpa.")) return ip6Network(name.slice(0, -".ip6.arpa.".length).split("."))
  return undefined
}

const parseNetwork = (text: string): IpNetwork.IpNetwork | undefined =>
  Result.getOrUndefined(IpNetwork.fromString(text))

const inAddrNetwork = (labels: ReadonlyArray<string>): IpNetwork.IpNetwork | undefined => {
  const octets = labels.toReversed()
  const range = octets.length === 4 ? octets.pop()! : undefined
  if (octets.length > 3 || octets.some((octet) => !/^(?:0|[1-9]\d{0,2})$/.test(octet))) return undefined
  const prefix = [...octets, "0", "0", "0"].slice(0, 4)
  if (range === undefined) return parseNetwork(`${prefix.join(".")}/${octets.length * 8}`)
  const match = /^(\d{1,3})\/(2[4-9]|3[0-2])$/.exec(range)
  return match === null ? undefined : parseNetwork(`${octets.join(".")}.${match[1]}/${match[2]}`)
}

const ip6Network = (labels: ReadonlyArray<string>): IpNetwork.IpNetwork | undefined => {
  if (labels.length > 31 || labels.some((label) => !/^[0-9a-f]$/.test(label))) return undefined
  const nibbles = labels.toReversed().join("").padEnd(32, "0")
  return parseNetwork(`${nibbles.match(/.{4}/g)!.join(":")}/${labels.length * 4}`)
}

/** The PTR name of `address` in `zone`: for a classless zone its last octet below the zone, else the usual name. */
export const pointerName = (address: IpAddress.IpAddress, zone: Zone): DomainName => {
  const name = IpAddress.reverseName(address)
  return name.endsWith(zone.name) ? name : (`${name.slice(0, name.indexOf("."))}.${zone.name}` as DomainName)
}

/** The address whose PTR record `name` holds in a reverse `zone`, or undefined when the name stands for none. */
export const addressOfPointer = (name: DomainName, zone: Zone): IpAddress.IpAddress | undefined => {
  if (zone.network === undefined || !name.endsWith(`.${zone.name}`)) return undefined
  const below = name.slice(0, -zone.name.length - 1)
  const classless = zone.name.includes("/")
  const labels = classless
    ? [below, ...zone.name.split(".").slice(1, 4)]
    : name.replace(/\.(?:in-addr|ip6)\.arpa\.$/, "").split(".")
  const reversed = labels.toReversed()
  const text = name.endsWith(".ip6.arpa.")
    ? reversed
        .join("")
        .match(/.{1,4}/g)!
        .join(":")
    : reversed.join(".")
  const address = Result.getOrUndefined(IpAddress.parse(text))
  return address !== undefined && pointerName(address, zone) === name && IpAddress.isWithin(address, zone.network)
    ? address
    : undefined
}
