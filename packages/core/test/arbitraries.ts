/**
 * Random domain values for property tests. They are built from the parts that
 * decide cases (few letters, few octets), so that values collide and nest.
 */
import { Arbitrary, Schema } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as RRset from "@prism-dns/core/domain/RRset"

export const integer = (minimum: number, maximum: number): Arbitrary.Arbitrary<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

export const oneOf = <const A extends string | number | boolean>(values: ReadonlyArray<A>): Arbitrary.Arbitrary<A> =>
  Arbitrary.map(integer(0, values.length - 1), (i) => values[i]!)

/** Labels as hosts have them, from one to 63 characters. */
export const label: Arbitrary.Arbitrary<string> = Arbitrary.schema(
  Schema.String.check(Schema.isPattern(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/))
)

export const hostName: Arbitrary.Arbitrary<HostName> = Arbitrary.map(
  Arbitrary.array(label, { minLength: 1, maxLength: 3 }),
  (labels) => labels.join(".") as HostName
)

/** Names of few short labels, so that many lie in each other. */
export const nestedName: Arbitrary.Arbitrary<DomainName.DomainName> = Arbitrary.map(
  Arbitrary.array(oneOf(["a", "b", "ab", "test"]), { minLength: 1, maxLength: 5 }),
  (labels) => DomainName.make(labels.join("."))
)

const octet = integer(0, 255)

export const ipv4: Arbitrary.Arbitrary<IpAddress.IpAddress> = Arbitrary.map(
  Arbitrary.array(octet, { minLength: 4, maxLength: 4 }),
  (octets) => IpAddress.make(octets.join("."))
)

/** Eight groups, many of them zero, so that `::` has to choose; never an IPv4 address in disguise. */
export const ipv6: Arbitrary.Arbitrary<IpAddress.IpAddress> = Arbitrary.map(
  Arbitrary.array(Arbitrary.all([integer(0, 2), integer(0, 0xffff)] as const), { minLength: 7, maxLength: 7 }),
  (groups) => IpAddress.make(["2001", ...groups.map(([zero, n]) => (zero > 0 ? "0" : n.toString(16)))].join(":"))
)

/** Record sets as a host may have them, over three names, with few contents, so that many are equal. */
export const rrset: Arbitrary.Arbitrary<RRset.RRset> = Arbitrary.map(
  Arbitrary.all([
    oneOf(["a.ex.test.", "b.ex.test.", "c.ex.test."]),
    oneOf(["A", "AAAA", "TXT", "MX"]),
    oneOf([60, 300]),
    Arbitrary.array(oneOf(["1", "2", "3"]), { minLength: 1, maxLength: 3 })
  ] as const),
  ([name, type, ttlSeconds, contents]) => RRset.make(DomainName.make(name), type, ttlSeconds, contents)
)
