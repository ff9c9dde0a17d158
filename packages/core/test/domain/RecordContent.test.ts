import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RecordContent from "@prism-dns/core/domain/RecordContent"
import { oneOf } from "../arbitraries.ts"

const origin = DomainName.make("hosts.test")

const canonical = (type: RecordContent.RecordType, content: string, inFile = false) =>
  Result.getOrThrow(RecordContent.parse(type, content, inFile ? { origin } : {}))

const reason = (type: RecordContent.RecordType, content: string, inFile = false) => {
  const parsed = RecordContent.parse(type, content, inFile ? { origin } : {})
  return Result.isFailure(parsed) ? parsed.failure.reason : `taken as ${parsed.success}`
}

describe("a content in its one form", () => {
  it.each([
    ["A", "192.0.2.1", "192.0.2.1"],
    ["AAAA", "2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["CNAME", "Web.Example", "web.example."],
    ["PTR", "a/b.example.", "a/b.example."],
    ["NS", "NS1.example.", "ns1.example."],
    ["ALIAS", "_x.example", "_x.example."],
    ["MX", "010   Mail.Example", "10 mail.example."],
    ["MX", "0 .", "0 ."],
    ["SRV", "0\t5 5060 sip.example.", "0 5 5060 sip.example."],
    ["CAA", '0 ISSUE "ca.example"', '0 issue "ca.example"'],
    ["CAA", "0 issue ca.example", '0 issue "ca.example"'],
    ["TXT", "v=spf1 -all", '"v=spf1 -all"'],
    ["TXT", 'say "hi"', '"say \\"hi\\""'],
    ["TXT", '"a" "b"', '"a" "b"'],
    ["TXT", '"\\065\\"\\\\"', '"A\\"\\\\"'],
    ["TXT", "ä", '"\\195\\164"'],
    ["TXT", '""', '""'],
    ["TXT", "x".repeat(300), `"${"x".repeat(255)}" "${"x".repeat(45)}"`],
    ["LUA", `a "pickrandom({'192.0.2.1'})"`, `A "pickrandom({'192.0.2.1'})"`]
  ] as const)("%s %s", (type, written, wanted) => {
    assert.strictEqual(canonical(type, written), wanted)
    assert.strictEqual(canonical(type, wanted), wanted)
  })

  it("has names that are relative only in a zone file", () => {
    assert.strictEqual(canonical("CNAME", "web", true), "web.hosts.test.")
    assert.strictEqual(canonical("MX", "10 @", true), "10 hosts.test.")
    assert.strictEqual(canonical("CNAME", "web"), "web.")
    assert.strictEqual(canonical("TXT", "one two", true), '"one" "two"')
  })
})

describe("a content that is none", () => {
  it.each([
    ["A", "192.0.2.256", /is not an IP address/],
    ["A", "192.0.2.01", /is not an IP address/],
    ["A", "2001:db8::1", /AAAA/],
    ["AAAA", "192.0.2.1", /is an IPv4 address/],
    ["AAAA", "::ffff:192.0.2.1", /mapped into IPv6/],
    ["CNAME", "a b", /more than one name/],
    ["CNAME", ".", /root/],
    ["CNAME", "192.0.2.1", /is an address where a name belongs/],
    ["NS", "_x.example.", /not a host's name/],
    ["MX", "10 _x.example.", /not a host's name/],
    ["MX", "mail.example.", /a preference, and a name/],
    ["MX", "65536 mail.example.", /0 to 65535/],
    ["MX", "10 *.example.", /wildcard/],
    ["SRV", "0 5 sip.example.", /a port, and a name/],
    ["CAA", '256 issue "x"', /0 to 255/],
    ["CAA", '0 is-sue "x"', /not a tag/],
    ["CAA", '0 issue "ä"', /ASCII/],
    ["TXT", '"a', /not closed/],
    ["TXT", '"a"b', /comes a space/],
    ["TXT", '"\\256"', /more than an octet/],
    ["TXT", '"\\12"', /three digits/],
    ["TXT", "x".repeat(8193), /longer than 8192 octets/],
    ["LUA", "A x", /in quotes/],
    ["LUA", 'SOA "x"', /not a type/],
    ["A", "1".repeat(40_000), /longer than/]
  ] as const)("%s %s", (type, written, why) => {
    assert.match(reason(type, written), why)
  })

  it("is a set with too many, with several CNAMEs, or with a TTL that is none", () => {
    const set = (type: RecordContent.RecordType, ttl: number, contents: ReadonlyArray<string>) =>
      Result.match(RecordContent.parseSet(origin, type, ttl, contents), {
        onFailure: ({ reason }) => reason,
        onSuccess: ({ contents }) => contents.join()
      })
    assert.match(set("CNAME", 60, ["a.", "b."]), /one CNAME record, and 2/)
    assert.strictEqual(set("CNAME", 60, ["a", "A."]), "a.")
    assert.match(set("A", -1, ["192.0.2.1"]), /a TTL is/)
    assert.match(set("A", 2 ** 31, ["192.0.2.1"]), /a TTL is/)
    assert.match(set("A", 60, []), /at least one/)
    const many = Array.from({ length: 501 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
    assert.match(set("A", 60, many), /at most 500/)
    assert.match(
      set(
        "TXT",
        60,
        Array.from({ length: 10 }, (_, i) => `${i}${"x".repeat(5000)}`)
      ),
      /together/
    )
  })
})

describe("any text", () => {
  const pieces = Arbitrary.array(
    oneOf(["a", "1", " ", '"', "\\", ".", "\t", "(", ";", "ä", "\\065", "10 ", "=", "é\u0000", "*", "/", "_"]),
    { maxLength: 40 }
  )
  it.effect.prop(
    "is a content in one form, or is refused with a sentence; the form is its own form",
    { pieces, type: oneOf(RecordContent.recordTypes), inFile: oneOf([true, false]) },
    ({ inFile, pieces, type }) =>
      Effect.sync(() => {
        const options = inFile ? { origin } : {}
        const parsed = RecordContent.parse(type, pieces.join(""), options)
        if (Result.isFailure(parsed)) return assert.isNotEmpty(parsed.failure.reason)
        assert.deepStrictEqual(RecordContent.parse(type, parsed.success, options), parsed)
        assert.match(parsed.success, /^[\x20-\x7e]*$/)
      }),
    { arbitrary: { runs: 2000 } }
  )
})
