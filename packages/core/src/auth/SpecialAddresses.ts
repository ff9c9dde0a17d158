/**
 * Addresses that are no machine's own, by the registries of IANA for special
 * purposes (RFC 6890), for multicast and for the IPv6 address space.
 *
 * A host does not get a record with one of them unless its zone names the
 * network: whoever asked for its name would reach their own machine, a
 * neighbour, a router of theirs, or nothing. Addresses that are private but a
 * machine's own (RFC 1918, 100.64.0.0/10, fc00::/7) are none of them: names
 * for those are what a registry is for. docs/guides/access.md has the table.
 */
import { IpNetwork, NetAddress } from "effect/net"
import type { IpAddress } from "../domain/IpAddress.ts"

export interface SpecialNetwork {
  readonly network: IpNetwork.IpNetwork
  /** What addresses in it are: `loopback`, `link-local`. */
  readonly what: string
}

/** The nearest description comes first where networks lie within each other. */
export const specialNetworks: ReadonlyArray<SpecialNetwork> = (
  [
    ["0.0.0.0/8", "unspecified"],
    ["127.0.0.0/8", "loopback"],
    ["169.254.0.0/16", "link-local"],
    ["192.0.0.0/24", "set aside for protocols"],
    ["192.0.2.0/24", "for documentation"],
    ["192.88.99.0/24", "a former 6to4 relay"],
    ["198.18.0.0/15", "for benchmarks"],
    ["198.51.100.0/24", "for documentation"],
    ["203.0.113.0/24", "for documentation"],
    ["224.0.0.0/4", "multicast"],
    ["255.255.255.255/32", "broadcast"],
    ["240.0.0.0/4", "reserved"],
    ["::/128", "unspecified"],
    ["::1/128", "loopback"],
    ["::ffff:0:0/96", "an IPv4 address mapped into IPv6"],
    ["::ffff:0:0:0/96", "an IPv4 address translated into IPv6"],
    ["64:ff9b::/96", "an IPv4 address translated into IPv6"],
    ["64:ff9b:1::/48", "an IPv4 address translated into IPv6"],
    ["::/8", "reserved"],
    ["100::/64", "for discarding"],
    ["2001:2::/48", "for benchmarks"],
    ["2001::/23", "set aside for protocols"],
    ["2001:db8::/32", "for documentation"],
    ["2002::/16", "an IPv4 address as 6to4"],
    ["3fff::/20", "for documentation"],
    ["5f00::/16", "a segment identifier"],
    ["fe80::/10", "link-local"],
    ["fec0::/10", "site-local, which is given up"],
    ["ff00::/8", "multicast"],
    // What is left outside 2000::/3, where machines' addresses are given out, and fc00::/7, where they are private.
    ["100::/8", "reserved"],
    ["200::/7", "reserved"],
    ["400::/6", "reserved"],
    ["800::/5", "reserved"],
    ["1000::/4", "reserved"],
    ["4000::/2", "reserved"],
    ["8000::/2", "reserved"],
    ["c000::/3", "reserved"],
    ["e000::/4", "reserved"],
    ["f000::/5", "reserved"],
    ["f800::/6", "reserved"],
    ["fe00::/9", "reserved"]
  ] as const
).map(([network, what]) => ({ network: IpNetwork.fromStringUnsafe(network), what }))

/** The special network that `address` lies in, or undefined. */
export const specialNetworkOf = (address: IpAddress): SpecialNetwork | undefined => {
  const ip = NetAddress.ipFromStringUnsafe(address)
  return NetAddress.isIpv4Address(ip)
    ? ofIpv4.find(({ network }) => IpNetwork.contains(network, ip))
    : ofIpv6.find(({ network }) => IpNetwork.contains(network, ip))
}

const ofIpv4 = specialNetworks.flatMap(({ network, what }) =>
  IpNetwork.isIpv4Network(network) ? [{ network, what }] : []
)
const ofIpv6 = specialNetworks.flatMap(({ network, what }) =>
  IpNetwork.isIpv6Network(network) ? [{ network, what }] : []
)
