import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { IpNetwork } from "effect/net"
import { isIP } from "node:net"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { integer, ipv4, ipv6 } from "../arbitraries.ts"

const read = (input: string) => Result.getOrUndefined(IpAddress.parse(input))

describe("an address", () => {
  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["0.0.0.0", "0.0.0.0"],
    ["255.255.255.255", "255.255.255.255"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8::A", "2001:db8::a"],
    ["2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"],
    // the longest run of zeros is shortened, the first of equal ones, never a single zero (RFC 5952, 4.2)
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
    // an IPv4 address in IPv6 is the IPv4 address
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["::FFFF:c000:207", "192.0.2.7"],
    ["0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"],
    // while these are not: compatible (deprecated) and NAT64
    ["::192.0.2.7", "::c000:207"],
    ["64:ff9b::192.0.2.7", "64:ff9b::c000:207"]
  ])("%s is written %s", (input, canonical) => {
    assert.strictEqual(read(input), canonical)
  })

  it.each([
    "",
    "unknown",
    "web-1",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.7.8",
    "192.0.2.07",
    "0x7f.0.0.1",
    "2130706433",
    " 192.0.2.7",
    "192.0.2.7\n",
    "192.0.2.7/32",
    "192.0.2.7:80",
    "[::1]",
    "::1::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "12345::",
    "::g",
    "fe80::1%eth0",
    "fe80::1%0",
    "::ffff:192.0.2.7%eth0",
    "\u0661.1.1.1"
  ])("%j is none", (input) => {
    const result = IpAddress.parse(input)
    assert.isTrue(Result.isFailure(result))
    if (Result.isFailure(result)) assert.match(result.failure.message, /is not an IP address$/)
  })

  it.prop("reading what was read gives the same, and Node agrees that it is one", { v4: ipv4, v6: ipv6 }, (o) => {
    assert.strictEqual(read(o.v4), o.v4)
    assert.strictEqual(read(o.v6), o.v6)
    assert.strictEqual(isIP(o.v4), 4)
    assert.strictEqual(isIP(o.v6), 6)
    assert.strictEqual(IpAddress.recordType(o.v4), "A")
    assert.strictEqual(IpAddress.recordType(o.v6), "AAAA")
  })

  it.prop("a peer's IPv4 address is the same through an IPv6 socket", { v4: ipv4 }, ({ v4 }) => {
    assert.deepStrictEqual(IpAddress.fromPeer(`::ffff:${v4}`), Result.succeed(v4))
  })

  it("of a link-local peer has no scope", () => {
    assert.deepStrictEqual(IpAddress.fromPeer("fe80::1%eth0"), Result.succeed(IpAddress.make("fe80::1")))
  })
})

describe("a reverse name", () => {
  it.each([
    ["192.0.2.7", "7.2.0.192.in-addr.arpa."],
    ["2001:db8::567:89ab", "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."]
  ])("of %s is %s", (address, name) => {
    assert.strictEqual(IpAddress.reverseName(IpAddress.make(address)), name)
  })

  it.prop("of an address belongs to it alone", { a: ipv6, b: ipv6, c: ipv4, d: ipv4 }, ({ a, b, c, d }) => {
    assert.strictEqual(IpAddress.reverseName(a) === IpAddress.reverseName(b), a === b)
    assert.strictEqual(IpAddress.reverseName(c) === IpAddress.reverseName(d), c === d)
    assert.strictEqual(IpAddress.reverseName(a).split(".").length, 32 + 3)
  })
})

describe("a network", () => {
  it.prop("contains an address when its first bits are the network's", { a: ipv4, b: ipv4, n: integer(0, 32) }, (o) => {
    const bits = (address: string) => address.split(".").reduce((sum, octet) => sum * 256 + Number(octet), 0)
    const size = 2 ** (32 - o.n)
    const base = Math.floor(bits(o.b) / size) * size
    const text = [24, 16, 8, 0].map((shift) => Math.floor(base / 2 ** shift) % 256).join(".")
    const network = Result.getOrThrow(IpNetwork.fromString(`${text}/${o.n}`))
    assert.strictEqual(IpAddress.isWithin(o.a, network), Math.floor(bits(o.a) / size) === Math.floor(bits(o.b) / size))
  })

  it.prop("of the other family contains nothing", { v4: ipv4, v6: ipv6 }, ({ v4, v6 }) => {
    assert.isFalse(IpAddress.isWithin(v4, Result.getOrThrow(IpNetwork.fromString("::/0"))))
    assert.isFalse(IpAddress.isWithin(v6, Result.getOrThrow(IpNetwork.fromString("0.0.0.0/0"))))
  })
})
