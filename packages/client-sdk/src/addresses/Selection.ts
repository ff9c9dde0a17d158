/**
 * Which of a machine's addresses it should have in DNS, in which order, and why
 * each was taken or left out. A pure decision over a snapshot.
 *
 * Promises: an address is taken at most once, and none that cannot work for
 * anyone else: link-local, multicast, one still being checked, one on its way
 * out. Temporary addresses are for outgoing connections and change daily, so
 * names do not point to them. Interfaces between a machine and its own
 * containers, tunnels and the loopback interface are left out unless `include`
 * names them: whoever names an interface means it.
 *
 * Leaves to others: what the server allows (an address that is neither the
 * connection's nor in the agent's networks is refused there).
 */
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { addressesMax } from "@prism-dns/core/protocol/MessageV2"
import { Result } from "effect"
import { NetAddress } from "effect/net"
import * as Device from "./Device.ts"
import type { Snapshot } from "./Snapshot.ts"

export type Family = "ipv4" | "ipv6"

export interface SelectOptions {
  /** Patterns of interface names (`*` any characters, `?` one): only these, whatever kind of device they are. */
  readonly include?: ReadonlyArray<string> | undefined
  /** Patterns of interfaces to leave out; stronger than `include`. */
  readonly exclude?: ReadonlyArray<string> | undefined
  /** The families wanted, the preferred one first. Default: IPv4, then IPv6. */
  readonly families?: ReadonlyArray<Family> | undefined
  /** How many addresses at the most. Default 16, as many as one host may have. */
  readonly max?: number | undefined
}

/** Why an address, or an interface without one, was left out. */
export type LeftOut =
  | "excluded"
  | "not-included"
  | "loopback"
  | "down"
  | "no-address"
  | "container"
  | "tunnel"
  | "dummy"
  | "unusable"
  | "link-local"
  | "family"
  | "conflict"
  | "tentative"
  | "deprecated"
  | "temporary"
  | "duplicate"
  | "over-max"

/** One address that was looked at, or an interface that has none. */
export interface Considered {
  readonly interface: string
  readonly kind: Device.Kind
  /** As the system writes it where it is no address that we know. */
  readonly address: string | undefined
  /** `taken`, or why not. */
  readonly verdict: "taken" | LeftOut
  /** The same as a sentence. */
  readonly detail: string
}

export interface Selection {
  /** The best first. */
  readonly addresses: ReadonlyArray<IpAddress.IpAddress>
  /** Those taken in their order, then the others as the system lists them. */
  readonly considered: ReadonlyArray<Considered>
}

/** Bits of the kernel's flags of an IPv6 address. */
const inet6 = { temporary: 0x01, optimistic: 0x04, conflict: 0x08, deprecated: 0x20, tentative: 0x40 } as const

const patternOf = (glob: string): RegExp =>
  new RegExp(
    `^${glob
      .replace(/\*+/g, "*")
      .replace(/[\\^$.|+()[\]{}]/g, "\\$&")
      .replace(/\*/g, ".*")
      .replace(/\?/g, ".")}$`,
    "s"
  )

const matcher = (globs: ReadonlyArray<string>) => {
  const patterns = globs.map(patternOf)
  return (name: string) => patterns.some((pattern) => pattern.test(name))
}

/** Why, as a sentence. */
export const details: Readonly<Record<LeftOut, string>> = {
  excluded: "the interface is to be left out",
  "not-included": "the interface is none of those asked for",
  loopback: "it reaches nobody but this machine itself",
  down: "the interface is down",
  "no-address": "the interface has no address",
  container: "it is for this machine's own containers and virtual machines",
  tunnel: "a tunnel or a point-to-point link; name the interface to have it taken",
  dummy: "the interface leads nowhere",
  unusable: "no host can have it",
  "link-local": "it is valid on its own link only",
  family: "addresses of this family are not wanted",
  conflict: "another machine on the link has it",
  tentative: "whether somebody else has it is still being checked",
  deprecated: "it is on its way out",
  temporary: "it is for outgoing connections, and changes within days",
  duplicate: "another interface has it too",
  "over-max": "there are as many as one host may have"
}

/** The options, ready to be asked. */
interface Wanted {
  readonly families: ReadonlyArray<Family>
  readonly included: ((name: string) => boolean) | undefined
  readonly excluded: (name: string) => boolean
}

interface Candidate {
  readonly interface: string
  readonly kind: Device.Kind
  readonly address: IpAddress.IpAddress
  readonly rank: ReadonlyArray<number>
}

const kindRank: Readonly<Record<Device.Kind, number>> = {
  physical: 0,
  joined: 0,
  virtual: 1,
  unknown: 1,
  tunnel: 2,
  container: 3,
  dummy: 4,
  loopback: 5
}

const compareRanks = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): number => {
  for (const [at, mine] of a.entries()) {
    const order = mine - b[at]!
    if (order !== 0) return order
  }
  return 0
}

const familyOf = (ip: NetAddress.IpAddress): Family => (NetAddress.isIpv4Address(ip) ? "ipv4" : "ipv6")

/** As the kernel's table has the address: 32 digits. */
const hexOf = (address: NetAddress.Ipv6Address): string =>
  NetAddress.ipv6ToSegments(address)
    .map((segment) => segment.toString(16).padStart(4, "0"))
    .join("")

/** Why none of the interface's addresses is taken; undefined when each is looked at. */
const interfaceRefused = (name: string, kind: Device.Kind, snapshot: Snapshot, wanted: Wanted): LeftOut | undefined => {
  if (wanted.excluded(name)) return "excluded"
  if (wanted.included !== undefined && !wanted.included(name)) return "not-included"
  if (Device.isDown(snapshot.links?.[name])) return "down"
  if (wanted.included !== undefined) return undefined
  switch (kind) {
    case "loopback":
    case "container":
    case "tunnel":
    case "dummy":
      return kind
    default:
      return undefined
  }
}

/** Why an address of an interface that is looked at is not taken. */
const addressRefused = (ip: NetAddress.IpAddress, flags: number, wanted: Wanted): LeftOut | undefined => {
  if (NetAddress.isUnspecified(ip) || NetAddress.isMulticast(ip)) return "unusable"
  if (NetAddress.isIpv4Address(ip) && NetAddress.isBroadcast(ip)) return "unusable"
  if (NetAddress.isLoopback(ip) && wanted.included === undefined) return "loopback"
  if (NetAddress.isLinkLocal(ip)) return "link-local"
  if (!wanted.families.includes(familyOf(ip))) return "family"
  if ((flags & inet6.conflict) !== 0) return "conflict"
  if ((flags & inet6.tentative) !== 0 && (flags & inet6.optimistic) === 0) return "tentative"
  if ((flags & inet6.deprecated) !== 0) return "deprecated"
  if ((flags & inet6.temporary) !== 0) return "temporary"
  return undefined
}

/** Decides on every address of a snapshot. */
export const select = (snapshot: Snapshot, options: SelectOptions = {}): Selection => {
  const wanted: Wanted = {
    families: options.families ?? ["ipv4", "ipv6"],
    included: options.include === undefined ? undefined : matcher(options.include),
    excluded: matcher(options.exclude ?? [])
  }
  const max = Math.min(options.max ?? addressesMax, addressesMax)
  const flagsOf = new Map(snapshot.inet6.map(({ flags, hex, name }) => [`${name} ${hex}`, flags]))
  const candidates: Array<Candidate> = []
  const leftOut: Array<Considered> = []

  const names = new Set([...Object.keys(snapshot.interfaces), ...Object.keys(snapshot.links ?? {})])
  for (const [nth, name] of [...names].entries()) {
    const kind = Device.kindOf(name, snapshot)
    const refused = interfaceRefused(name, kind, snapshot, wanted)
    const leave = (address: string | undefined, verdict: LeftOut) =>
      leftOut.push({ interface: name, kind, address, verdict, detail: details[verdict] })
    const addresses = snapshot.interfaces[name] ?? []
    if (addresses.length === 0) leave(undefined, refused ?? "no-address")
    for (const { address: listed } of addresses) {
      const parsed = IpAddress.fromPeer(listed)
      if (Result.isFailure(parsed)) {
        leave(listed, "unusable")
        continue
      }
      const ip = NetAddress.ipFromStringUnsafe(parsed.success)
      const flags = NetAddress.isIpv6Address(ip) ? (flagsOf.get(`${name} ${hexOf(ip)}`) ?? 0) : 0
      const verdict = refused ?? addressRefused(ip, flags, wanted)
      if (verdict !== undefined) {
        leave(parsed.success, verdict)
        continue
      }
      candidates.push({
        interface: name,
        kind,
        address: parsed.success,
        rank: [
          snapshot.defaultRoutes.includes(name) ? 0 : 1,
          kindRank[kind],
          nth,
          wanted.families.indexOf(familyOf(ip)),
          NetAddress.isIpv6Address(ip) && NetAddress.isUniqueLocal(ip) ? 1 : 0,
          candidates.length
        ]
      })
    }
  }

  const taken: Array<Considered> = []
  const addresses: Array<IpAddress.IpAddress> = []
  for (const { address, interface: name, kind } of candidates.sort((a, b) => compareRanks(a.rank, b.rank))) {
    const verdict = addresses.includes(address) ? "duplicate" : addresses.length >= max ? "over-max" : undefined
    if (verdict === undefined) {
      addresses.push(address)
      const detail = snapshot.defaultRoutes.includes(name)
        ? "the default route leads through this interface"
        : wanted.included === undefined
          ? "an address of this machine"
          : "the interface was asked for"
      taken.push({ interface: name, kind, address, verdict: "taken", detail })
    } else {
      leftOut.push({ interface: name, kind, address, verdict, detail: details[verdict] })
    }
  }
  return { addresses, considered: [...taken, ...leftOut] }
}
