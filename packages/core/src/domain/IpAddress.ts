/**
 * IP addresses in one canonical text (RFC 5952 for IPv6), so that equal
 * addresses are equal strings. An IPv4 address mapped into IPv6 is the IPv4
 * address; a scope (`%eth0`) means nothing to anyone else and is refused.
 */
import { type Brand, Result, Schema } from "effect"
import { Dns, IpNetwork, NetAddress } from "effect/net"
import type { DomainName } from "./DomainName.ts"

/** Canonical text of an IPv4 or IPv6 address. */
export type IpAddress = string & Brand.Brand<"IpAddress">

/** The text is not an address. */
export class AddressInvalid extends Schema.TaggedError<AddressInvalid>()("AddressInvalid", {
  input: Schema.String
}) {
  override get message(): string {
    return `'${this.input}' is not an IP address`
  }
}

/** The record type that holds an address. */
export type AddressRecordType = "A" | "AAAA"

/** IPv4 addresses as they are usually written, which is the canonical text. */
const plainIpv4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/

/** Parses an address in any form it may be written in. */
export const parse = (input: string): Result.Result<IpAddress, AddressInvalid> => {
  if (plainIpv4.test(input)) return Result.succeed(input as IpAddress)
  return Result.match(NetAddress.ipFromString(input), {
    onFailure: () => Result.fail(new AddressInvalid({ input: input.slice(0, 64) })),
    onSuccess: (address) => Result.succeed(NetAddress.formatIp(NetAddress.toCanonical(address)) as IpAddress)
  })
}

/** The text is an IPv4 address in the form of an IPv6 one, which means another thing to each who reads it. */
export class AddressMapped extends Schema.TaggedError<AddressMapped>()("AddressMapped", {
  input: Schema.String,
  ipv4: Schema.String
}) {
  override get message(): string {
    return `'${this.input}' is an IPv4 address mapped into IPv6; claim it as ${this.ipv4}`
  }
}

/**
 * Like `parse`, for an address that somebody claims in a message: mapped IPv4 addresses are refused there, since what a
 * filter looks at and what is published must be the same text. Peers of a dual-stack port are read by `fromPeer`.
 */
export const parseClaimed = (input: string): Result.Result<IpAddress, AddressInvalid | AddressMapped> =>
  Result.flatMap(parse(input), (address) =>
    input.includes(":") && !address.includes(":")
      ? Result.fail(new AddressMapped({ input: input.slice(0, 64), ipv4: address }))
      : Result.succeed(address)
  )

/** Like `parse`, for addresses that the program itself wrote down. Throws `AddressInvalid`. */
export const make = (input: string): IpAddress => Result.getOrThrow(parse(input))

/**
 * The address of a TCP peer as Node reports it (`::ffff:192.0.2.1`,
 * `fe80::1%eth0`). A scope is dropped: it names our interface, not the peer's.
 */
export const fromPeer = (remoteAddress: string): Result.Result<IpAddress, AddressInvalid> => {
  const scope = remoteAddress.indexOf("%")
  return parse(scope === -1 ? remoteAddress : remoteAddress.slice(0, scope))
}

/** `addresses` as a host has them: sorted, each once. */
export const sorted = (addresses: Iterable<IpAddress>): ReadonlyArray<IpAddress> => [...new Set(addresses)].sort()

/** `A` for IPv4, `AAAA` for IPv6. */
export const recordType = (address: IpAddress): AddressRecordType => (address.includes(":") ? "AAAA" : "A")

/** The name whose PTR record names the address, below in-addr.arpa or ip6.arpa (RFC 1035 3.5, RFC 3596 2.5). */
export const reverseName = (address: IpAddress): DomainName => {
  if (!address.includes(":")) return `${address.split(".").toReversed().join(".")}.in-addr.arpa.` as DomainName
  return `${Dns.reverseName(NetAddress.ipFromStringUnsafe(address))}.` as DomainName
}

/** One address is compared with many networks, one after another: it is read once. */
const read = (() => {
  let former: { readonly text: string; readonly ip: NetAddress.IpAddress } | undefined
  return (text: IpAddress): NetAddress.IpAddress => {
    if (former?.text !== text) former = { text, ip: NetAddress.ipFromStringUnsafe(text) }
    return former.ip
  }
})()

/** True when `address` lies in `network`. */
export const isWithin = (address: IpAddress, network: IpNetwork.IpNetwork): boolean => {
  const ip = read(address)
  return NetAddress.isIpv4Address(ip)
    ? IpNetwork.isIpv4Network(network) && IpNetwork.contains(network, ip)
    : IpNetwork.isIpv6Network(network) && IpNetwork.contains(network, ip)
}
