import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { integer, ipv4, ipv6 } from "../arbitraries.ts"

const zone = (name: string) => Zone.make(DomainName.make(name))

describe("the network of a reverse zone", () => {
  it.each([
    ["10.in-addr.arpa", "10.0.0.0/8"],
    ["168.192.in-addr.arpa", "192.168.0.0/16"],
    ["2.0.192.in-addr.arpa", "192.0.2.0/24"],
    ["0/25.2.0.192.in-addr.arpa", "192.0.2.0/25"],
    ["64/26.2.0.192.in-addr.arpa", "192.0.2.64/26"],
    ["255/32.2.0.192.in-addr.arpa", "192.0.2.255/32"],
    ["2.ip6.arpa", "2000::/4"],
    ["8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::/32"],
    ["1.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8:0:1::/64"]
  ])("%s is %s", (name, network) => {
    assert.strictEqual(String(zone(name).network), network)
  })

  it.each([
    "hosts.ex.test",
    "in-addr.arpa",
    "256.in-addr.arpa",
    "01.in-addr.arpa",
    "65/26.2.0.192.in-addr.arpa", // no network begins there
    "0/23.2.0.192.in-addr.arpa", // larger than the zone above it
    "0/33.2.0.192.in-addr.arpa",
    "064/26.2.0.192.in-addr.arpa",
    "64/26.0.192.in-addr.arpa",
    "a.in-addr.arpa",
    "10.ip6.arpa",
    "g.ip6.arpa",
    "my-in-addr.arpa"
  ])("%s has none", (name) => {
    assert.isUndefined(zone(name).network)
  })
})

/** Reverse zones that hold the address, on every boundary a zone may be cut at. */
const zonesOfV4 = (address: string): ReadonlyArray<Zone.Zone> => {
  const [a, b, c, d] = address.split(".").map(Number) as [number, number, number, number]
  const parents = [`${a}`, `${b}.${a}`, `${c}.${b}.${a}`].map((labels) => zone(`${labels}.in-addr.arpa`))
  const classless = [24, 25, 26, 27, 28, 29, 30, 31, 32].map((prefix) => {
    const size = 2 ** (32 - prefix)
    return zone(`${Math.floor(d / size) * size}/${prefix}.${c}.${b}.${a}.in-addr.arpa`)
  })
  return [...parents, ...classless]
}

const zoneOfV6 = (address: IpAddress.IpAddress, nibbles: number): Zone.Zone =>
  zone(
    IpAddress.reverseName(address)
      .split(".")
      .slice(32 - nibbles)
      .join(".")
  )

describe("the PTR name of an address", () => {
  it.each([
    ["192.0.2.70", "2.0.192.in-addr.arpa", "70.2.0.192.in-addr.arpa."],
    ["192.0.2.70", "192.in-addr.arpa", "70.2.0.192.in-addr.arpa."],
    ["192.0.2.70", "64/26.2.0.192.in-addr.arpa", "70.64/26.2.0.192.in-addr.arpa."]
  ])("%s in %s is %s", (address, zoneName, name) => {
    assert.strictEqual(Zone.pointerName(IpAddress.make(address), zone(zoneName)), name)
  })

  it.prop("lies in the zone and leads back to an IPv4 address, on every octet and range", { address: ipv4 }, (o) => {
    for (const each of zonesOfV4(o.address)) {
      const name = Zone.pointerName(o.address, each)
      assert.isTrue(DomainName.isWithin(name, each.name), `${name} in ${each.name}`)
      assert.isTrue(IpAddress.isWithin(o.address, each.network!))
      assert.strictEqual(Zone.addressOfPointer(name, each), o.address)
      assert.strictEqual(DomainName.make(name), name)
    }
  })

  it.prop(
    "lies in the zone and leads back to an IPv6 address, on every nibble",
    { address: ipv6, nibbles: integer(1, 31) },
    ({ address, nibbles }) => {
      const each = zoneOfV6(address, nibbles)
      const name = Zone.pointerName(address, each)
      assert.isTrue(DomainName.isWithin(name, each.name))
      assert.strictEqual(Zone.addressOfPointer(name, each), address)
    }
  )

  it.prop("in another network's zone leads nowhere", { a: ipv4, b: ipv4 }, ({ a, b }) => {
    for (const each of zonesOfV4(a)) {
      if (IpAddress.isWithin(b, each.network!)) continue
      for (const of of zonesOfV4(b)) assert.isUndefined(Zone.addressOfPointer(Zone.pointerName(b, of), each))
    }
  })

  it.each([
    ["2.0.192.in-addr.arpa", "2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "256.2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "07.2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "www.2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "1.7.2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "64/26.2.0.192.in-addr.arpa"],
    ["2.0.192.in-addr.arpa", "7.2.0.192.ex.test"],
    ["0.192.in-addr.arpa", "7.0.192.in-addr.arpa"],
    ["64/26.2.0.192.in-addr.arpa", "63.64/26.2.0.192.in-addr.arpa"],
    ["64/26.2.0.192.in-addr.arpa", "128.64/26.2.0.192.in-addr.arpa"],
    ["64/26.2.0.192.in-addr.arpa", "1.70.64/26.2.0.192.in-addr.arpa"],
    ["64/26.2.0.192.in-addr.arpa", "70.2.0.192.in-addr.arpa"],
    ["8.b.d.0.1.0.0.2.ip6.arpa", "0.8.b.d.0.1.0.0.2.ip6.arpa"],
    ["8.b.d.0.1.0.0.2.ip6.arpa", `1.${"0.".repeat(23)}a8.b.d.0.1.0.0.2.ip6.arpa`],
    ["8.b.d.0.1.0.0.2.ip6.arpa", `11.${"0.".repeat(22)}8.b.d.0.1.0.0.2.ip6.arpa`],
    // an IPv4 address in IPv6 has its PTR record in in-addr.arpa
    ["0.0.0.0.ip6.arpa", `7.0.2.0.0.0.0.c.f.f.f.f.${"0.".repeat(20)}ip6.arpa`],
    ["ex.test", "7.ex.test"]
  ])("in %s is never %s", (zoneName, name) => {
    assert.isUndefined(Zone.addressOfPointer(DomainName.make(name), zone(zoneName)))
  })

  it.prop("names that lead to an address are the names of that address", { v4: ipv4, n: integer(0, 300) }, (o) => {
    for (const each of zonesOfV4(o.v4)) {
      const name = DomainName.make(`${o.n}.${each.name}`)
      const address = Zone.addressOfPointer(name, each)
      if (address !== undefined) assert.strictEqual(Zone.pointerName(address, each), name)
    }
  })
})

describe("a zone", () => {
  it.each([
    ["hosts.ex.test", "ns1.hosts.ex.test."],
    ["2.0.192.in-addr.arpa", "ns1.2.0.192.in-addr.arpa."],
    ["128/25.2.0.192.in-addr.arpa", "ns1.2.0.192.in-addr.arpa."],
    ["a._tcp.ex.test", "ns1.ex.test."]
  ])("%s has by default the name server %s, which PowerDNS takes for a host", (name, nameserver) => {
    assert.deepStrictEqual(zone(name).nameservers, [DomainName.make(nameserver)])
  })

  it("is made with the defaults of its policy, and knows itself for a forward zone", () => {
    const made = zone("hosts.ex.test")
    assert.isFalse(Zone.isReverse(made))
    assert.deepStrictEqual(made.nameservers, [DomainName.make("ns1.hosts.ex.test")])
    assert.isTrue(made.createIfMissing)
    assert.isTrue(Zone.isReverse(zone("2.0.192.in-addr.arpa")))
  })
})
