import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result } from "effect"
import * as ZoneFile from "@prism-dns/core/dns/ZoneFile"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { oneOf } from "../arbitraries.ts"

const options = { origin: DomainName.make("hosts.test"), defaultTtlSeconds: 60 }

const read = (text: string) => {
  const { others, rrsets } = Result.getOrThrow(ZoneFile.parse(text, options))
  return [
    ...rrsets.flatMap(({ contents, name, ttlSeconds, type }) =>
      contents.map((content) => `${name} ${ttlSeconds} ${type} ${content}`)
    ),
    ...others.map(({ name, type }) => `${name} ${type}`)
  ]
}

const wrong = (text: string) =>
  Result.match(ZoneFile.parse(text, options), { onFailure: ({ message }) => message, onSuccess: () => "taken" })

describe("a zone file", () => {
  it("is read as RFC 1035 says, with what others write in it", () => {
    assert.deepStrictEqual(
      read(
        [
          "; a comment, and an empty line",
          "",
          "$TTL 1h30m",
          "@ 3600 IN SOA ns1 hostmaster.example. ( 2024010101 ; serial",
          "    7200 3600 1209600",
          "    300 )",
          "\tIN NS ns1",
          "www IN 300 A 192.0.2.1",
          "    300 IN A 192.0.2.2 ; the same name",
          "WWW 60 A 192.0.2.3",
          "$ORIGIN lab",
          "a AAAA 2001:DB8::1",
          "@ MX 10 @",
          "full.example. CNAME x.example.",
          "$ORIGIN .",
          "root.test CNAME other.test",
          "$ORIGIN hosts.test.",
          'txt TXT ( "a; (b)" "c\\"d"',
          '  "\\101" )',
          "*.w in cname www",
          "odd TYPE65534 \\# 4 01020304"
        ].join("\r\n")
      ),
      [
        "a.lab.hosts.test. 5400 AAAA 2001:db8::1",
        "full.example. 5400 CNAME x.example.",
        "hosts.test. 5400 NS ns1.hosts.test.",
        "lab.hosts.test. 5400 MX 10 lab.hosts.test.",
        "root.test. 5400 CNAME other.test.",
        'txt.hosts.test. 5400 TXT "a; (b)" "c\\"d" "e"',
        "www.hosts.test. 60 A 192.0.2.1",
        "www.hosts.test. 60 A 192.0.2.2",
        "www.hosts.test. 60 A 192.0.2.3",
        "*.w.hosts.test. 5400 CNAME www.hosts.test.",
        "hosts.test. SOA",
        "odd.hosts.test. TYPE65534"
      ].sort((x, y) => Number(/SOA|TYPE/.test(x)) - Number(/SOA|TYPE/.test(y)) || (x < y ? -1 : 1))
    )
  })

  it("without a TTL has that of the record before, or the zone's", () => {
    assert.deepStrictEqual(read("a A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1"), [
      "a.hosts.test. 60 A 192.0.2.1",
      "b.hosts.test. 5 A 192.0.2.1",
      "c.hosts.test. 5 A 192.0.2.1"
    ])
  })

  it.each([
    ["$GENERATE 1-3 h$ A 192.0.2.$", /line 1: \$GENERATE is not taken/],
    ["$INCLUDE /etc/passwd", /line 1: \$INCLUDE is not taken/],
    ["$FOO x", /no directive/],
    ["\n\nwww A 192.0.2.300", /line 3: A '192.0.2.300'/],
    [" A 192.0.2.1", /line 1: the first record has no name/],
    ["www CH A 192.0.2.1", /class CH/],
    ["www A ( 192.0.2.1", /line 1: a parenthesis is not closed/],
    ["www A 192.0.2.1 )", /not opened/],
    ["www A ( ( 192.0.2.1 ) )", /within another/],
    ['www TXT "a\nb"', /not closed on its line/],
    ['www TXT "a', /not closed/],
    ["www TXT a\\", /backslash ends/],
    ["www 99999999999 A 192.0.2.1", /TTL is at most/],
    ["$TTL x", /\$TTL has one time/],
    ["www", /a record has a type/],
    ["www A", /has no content/],
    ["www a/b 192.0.2.1", /not a record type/],
    ["a b.c A 192.0.2.1", /not a record type/],
    ['"www" A 192.0.2.1', /in quotes/],
    [`${"a".repeat(64)} A 192.0.2.1`, /longer than 63/],
    ["www CNAME a.\nwww CNAME b.", /one CNAME record, and 2/],
    [`www TXT ${"x ".repeat(600)}`, /more than 512 words/],
    [`www TXT "${"x".repeat(20_000)}"`, /longer than 16384/]
  ])("that is wrong says where and why: %s", (text, why) => {
    assert.match(wrong(text), why)
  })

  it.effect.prop(
    "of any kind is read or refused, and what was read and written is read as the same",
    {
      pieces: Arbitrary.array(
        oneOf([
          "www ",
          "@ ",
          "a.b ",
          "\n",
          " ",
          "\t",
          "IN ",
          "A ",
          "TXT ",
          "MX ",
          "CNAME ",
          "SRV ",
          "192.0.2.1 ",
          "10 ",
          "x.",
          '"',
          "\\",
          "\\065",
          "(",
          ")",
          ";",
          "$TTL ",
          "$ORIGIN ",
          "1h",
          "ä",
          "\u0000",
          "*",
          "=",
          "\r\n",
          "LUA ",
          'A "x"',
          "."
        ]),
        { maxLength: 60 }
      )
    },
    ({ pieces }) =>
      Effect.sync(() => {
        const parsed = ZoneFile.parse(pieces.join(""), options)
        if (Result.isFailure(parsed)) return assert.match(parsed.failure.message, /^line \d+: ./)
        const text = parsed.success.rrsets.map(ZoneFile.toLines).join("")
        assert.deepStrictEqual(Result.getOrThrow(ZoneFile.parse(text, options)).rrsets, parsed.success.rrsets)
      }),
    { arbitrary: { runs: 3000 } }
  )
})
