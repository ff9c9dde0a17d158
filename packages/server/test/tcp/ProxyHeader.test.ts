import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import { integer, ipv4, ipv6, oneOf } from "../../../core/test/arbitraries.ts"
import * as ProxyHeader from "../../src/tcp/ProxyHeader.ts"
import * as Headers from "../harness/proxyHeaders.ts"

const read = (bytes: Uint8Array): ProxyHeader.Reading => new ProxyHeader.ProxyHeaderReader().push(bytes)

/** A reading in one word, for tables. */
const word = (reading: ProxyHeader.Reading): string => {
  switch (reading._tag) {
    case "Complete":
      return reading.header._tag === "Proxied" ? reading.header.source : reading.header._tag
    case "Invalid":
      return `invalid: ${reading.reason}`
    default:
      return reading._tag
  }
}

const ip6 = (text: string) => Headers.addresses(text, "2001:db8:0:0:0:0:0:1")

const cases: Readonly<Record<string, readonly [bytes: Uint8Array, expected: string]>> = {
  "version 1 with IPv4": [Headers.line("192.0.2.7"), "192.0.2.7"],
  "version 1 with IPv6, in its canonical form": [Headers.line("2001:DB8:0::7"), "2001:db8::7"],
  "version 1 of a client the balancer cannot name": [Buffer.from("PROXY UNKNOWN\r\n"), "Unknown"],
  "version 1 with words behind UNKNOWN": [Buffer.from("PROXY UNKNOWN ffff::1 x 1 2\r\n"), "Unknown"],
  "version 1 with an IPv6 address as TCP4": [
    Buffer.from("PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n"),
    "invalid: its source is no TCP4 address"
  ],
  "version 1 with an IPv4 address as TCP6": [
    Buffer.from("PROXY TCP6 192.0.2.7 2001:db8::1 1 2\r\n"),
    "invalid: its source is no TCP6 address"
  ],
  "version 1 with a scope": [
    Buffer.from("PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n"),
    "invalid: its source is no TCP6 address"
  ],
  "version 1 with a wrong destination": [
    Buffer.from("PROXY TCP4 192.0.2.7 192.0.2 1 2\r\n"),
    "invalid: its destination is no TCP4 address"
  ],
  "version 1 with leading zeros": [
    Buffer.from("PROXY TCP4 192.0.2.007 192.0.2.1 1 2\r\n"),
    "invalid: its source is no TCP4 address"
  ],
  "version 1 without ports": [
    Buffer.from("PROXY TCP4 192.0.2.7 192.0.2.1\r\n"),
    "invalid: it does not end in two ports"
  ],
  "version 1 with a port that is none": [
    Buffer.from("PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n"),
    "invalid: it does not end in two ports"
  ],
  "version 1 with two blanks": [
    Buffer.from("PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n"),
    "invalid: its source is no TCP4 address"
  ],
  "version 1 with a family of its own": [
    Buffer.from("PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n"),
    "invalid: its family is none of TCP4, TCP6 and UNKNOWN"
  ],
  "version 1 that ends in LF": [
    Buffer.from("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n"),
    "invalid: its line does not end in CRLF"
  ],
  "version 1 with a CR within": [Buffer.from("PROXY TCP4\r 192.0.2.7"), "invalid: it has a CR within its line"],
  "version 1 of the longest line": [Buffer.from(`PROXY UNKNOWN ${"x".repeat(91)}\r\n`), "Unknown"],
  "version 1 of a byte more": [
    Buffer.from(`PROXY UNKNOWN ${"x".repeat(92)}\r\n`),
    "invalid: its line is longer than 107 bytes"
  ],
  "version 2 with IPv4": [Headers.binary(), "192.0.2.7"],
  "version 2 with IPv6": [Headers.binary({ family: 0x21, addresses: ip6("2001:db8:0:0:0:0:0:7") }), "2001:db8::7"],
  "version 2 with IPv4 in IPv6": [
    Headers.binary({ family: 0x21, addresses: ip6("0:0:0:0:0:ffff:c000:207") }),
    "192.0.2.7"
  ],
  "version 2 of a health check": [
    Headers.binary({ versionAndCommand: 0x20, family: 0, addresses: new Uint8Array(0) }),
    "Local"
  ],
  "version 2 of a health check, with addresses that mean nothing": [
    Headers.binary({ versionAndCommand: 0x20, family: 0x77 }),
    "Local"
  ],
  "version 2 of a client the balancer cannot name": [
    Headers.binary({ family: 0, addresses: new Uint8Array(0) }),
    "Unknown"
  ],
  "version 2 of a Unix socket": [
    Headers.binary({ family: 0x31, addresses: new Uint8Array(216) }),
    "invalid: it is for a Unix socket, which has no address"
  ],
  "version 2 of datagrams": [Headers.binary({ family: 0x12 }), "invalid: it is for datagrams"],
  "version 2 of an unassigned family": [
    Headers.binary({ family: 0x10 }),
    "invalid: it has an unassigned family or transport (16)"
  ],
  "version 2 of version 3": [Headers.binary({ versionAndCommand: 0x31 }), "invalid: its version is 3, not 2"],
  "version 2 with a command of its own": [
    Headers.binary({ versionAndCommand: 0x22 }),
    "invalid: its command is 2, neither LOCAL nor PROXY"
  ],
  "version 2 that is too short for its addresses": [
    Headers.binary({ addresses: new Uint8Array(11) }),
    "invalid: it is too short for its addresses"
  ],
  "version 2 with extensions": [
    Headers.binary({
      extensions: [Headers.extension(2, Buffer.from("agents.example.net")), Headers.extension(4, new Uint8Array(9))]
    }),
    "192.0.2.7"
  ],
  "version 2 with a checksum": [
    Headers.binary({ extensions: [Headers.extension(1, Buffer.from("x"))], checksum: "right" }),
    "192.0.2.7"
  ],
  "version 2 with a wrong checksum": [Headers.binary({ checksum: "wrong" }), "invalid: its checksum is wrong"],
  "version 2 of a health check with a wrong checksum": [
    Headers.binary({ versionAndCommand: 0x20, checksum: "wrong" }),
    "invalid: its checksum is wrong"
  ],
  "version 2 with two checksums": [
    Headers.binary({ extensions: [Headers.extension(3, new Uint8Array(4))], checksum: "right" }),
    "invalid: its checksum is wrong"
  ],
  "version 2 with an extension that is cut off": [
    Headers.binary({ extensions: [Buffer.from([2, 0, 9, 1])] }),
    "invalid: its extensions do not fit its length"
  ],
  "version 2 with bytes that are no extension": [
    Headers.binary({ extensions: [Buffer.from([2, 0])] }),
    "invalid: its extensions do not fit its length"
  ],
  "version 2 of the greatest length": [
    Headers.binary({ extensions: [Headers.extension(4, new Uint8Array(4096 - 12 - 3))] }),
    "192.0.2.7"
  ],
  "version 2 that announces a byte more, known from its first 16 bytes": [
    Headers.binary({ announced: 4097 }).subarray(0, 16),
    "invalid: it announces 4097 bytes; 4096 is the most"
  ],
  "a frame": [Buffer.from([0, 0, 0, 0xbe]), "Missing"],
  "a TLS hello": [Buffer.from([0x16, 3, 1]), "Missing"],
  "a POST": [Buffer.from("POST / HTTP/1.1\r\n"), "Missing"],
  "almost a signature": [Buffer.from("\r\n\r\n\0\r\nQUIT\r", "latin1"), "Missing"],
  "the beginning of a line": [Buffer.from("PROXY TCP4 192.0.2"), "Incomplete"],
  "the beginning of a signature": [Headers.signature.subarray(0, 5), "Incomplete"],
  nothing: [new Uint8Array(0), "Incomplete"]
}

describe("a PROXY header", () => {
  for (const [name, [bytes, expected]] of Object.entries(cases)) {
    it(`${name} is read: ${expected}`, () => {
      assert.strictEqual(word(read(bytes)), expected)
    })
    it(`${name}, byte by byte, is read the same`, () => {
      const reader = new ProxyHeader.ProxyHeaderReader()
      let reading: ProxyHeader.Reading = { _tag: "Incomplete" }
      for (const byte of bytes) reading = reader.push(new Uint8Array([byte]))
      assert.strictEqual(word(reading), expected)
    })
  }

  it("CRC32C has the value of its standard's example", () => {
    assert.strictEqual(ProxyHeader.crc32c(Buffer.from("123456789")), 0xe306_9283)
  })

  it("nothing of it is said while a byte is missing", () => {
    for (const header of [Headers.line("192.0.2.7"), Headers.binary({ checksum: "right" })]) {
      for (let end = 0; end < header.length; end++) {
        assert.strictEqual(read(header.subarray(0, end))._tag, "Incomplete")
      }
    }
  })

  it("after its last word it takes nothing more, and holds nothing", () => {
    const reader = new ProxyHeader.ProxyHeaderReader()
    reader.push(Headers.line("192.0.2.7"))
    assert.strictEqual(word(reader.push(Headers.line("192.0.2.8"))), "192.0.2.7")
    assert.strictEqual(reader.heldBytes, 0)
  })

  it.prop(
    "split anywhere, with anything behind it, gives its source and exactly what is behind it",
    {
      source: oneOf(["4", "6"]),
      version: oneOf([1, 2]),
      four: ipv4,
      six: ipv6,
      behind: Arbitrary.array(integer(0, 255), { minLength: 0, maxLength: 40 }),
      cuts: Arbitrary.array(integer(0, 300), { minLength: 0, maxLength: 12 })
    },
    ({ behind, cuts, four, six, source, version }) => {
      const address = source === "4" ? four : six
      const written = source === "4" ? four : expand(six)
      const header =
        version === 1
          ? Headers.line(address)
          : Headers.binary({
              family: source === "4" ? 0x11 : 0x21,
              addresses: Headers.addresses(written, written),
              checksum: "right"
            })
      const stream = Buffer.concat([header, Buffer.from(behind)])
      const places = [...new Set(cuts.map((cut) => cut % (stream.length + 1)))].sort((a, b) => a - b)
      const reader = new ProxyHeader.ProxyHeaderReader()
      const after: Array<number> = []
      let found: ProxyHeader.ProxyHeader | undefined
      for (const [i, from] of [0, ...places].entries()) {
        const chunk = stream.subarray(from, places[i] ?? stream.length)
        if (found !== undefined) after.push(...chunk)
        else {
          const reading = reader.push(chunk)
          assert.isAtMost(reader.heldBytes, header.length)
          if (reading._tag === "Complete") {
            found = reading.header
            after.push(...reading.rest)
          } else assert.strictEqual(reading._tag, "Incomplete")
        }
      }
      assert.deepStrictEqual(found, { _tag: "Proxied", source: address })
      assert.deepStrictEqual(after, behind)
    }
  )
})

/** Eight groups of an IPv6 address. */
const expand = (address: string): string => {
  const [left = "", right] = address.split("::")
  const groups = (text: string) => (text === "" ? [] : text.split(":"))
  if (right === undefined) return address
  const zeros = Array.from({ length: 8 - groups(left).length - groups(right).length }, () => "0")
  return [...groups(left), ...zeros, ...groups(right)].join(":")
}
