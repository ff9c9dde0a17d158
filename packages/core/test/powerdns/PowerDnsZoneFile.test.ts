import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { readsWholeZone } from "@prism-dns/core/powerdns/PowerDnsClient"
import * as PowerDnsZoneFile from "@prism-dns/core/powerdns/PowerDnsZoneFile"

const text = [
  "ex.test.\t3600\tIN\tSOA\tns1.ex.test. hostmaster.ex.test. 7 10800 3600 604800 60",
  "A.ex.test.\t60\tIN\tA\t192.0.2.2",
  'b.ex.test.\t60\tIN\tTXT\t"one; two" "three"',
  'b.ex.test.\t60\tIN\tTXT\t"a\ttab"',
  'c.ex.test.\t60\tIN\tTXT\t"line',
  "",
  'end"',
  "a.ex.test.\t60\tIN\tA\t192.0.2.1",
  "5.0/26.2.0.192.in-addr.arpa.\t60\tIN\tPTR\ta.ex.test.",
  "x.ex.test.\t60\tIN\tTYPE65534\t\\# 2 abcd",
  ""
].join("\n")

const read = (pieces: ReadonlyArray<string>, names?: ReadonlySet<DomainName.DomainName>) => {
  const reader = PowerDnsZoneFile.makeReader(names)
  for (const piece of pieces) reader.push(piece)
  return reader.end()
}

describe("an export of a zone", () => {
  it("is read into sets by name and type, in lower case and sorted", () => {
    const { recordCount, rrsets } = read([text])
    assert.strictEqual(recordCount, 8)
    assert.deepStrictEqual(
      rrsets.map(({ contents, name, ttlSeconds, type }) => [name, type, ttlSeconds, contents]),
      [
        ["ex.test.", "SOA", 3600, ["ns1.ex.test. hostmaster.ex.test. 7 10800 3600 604800 60"]],
        ["a.ex.test.", "A", 60, ["192.0.2.1", "192.0.2.2"]],
        ["b.ex.test.", "TXT", 60, ['"a\ttab"', '"one; two" "three"']],
        ["c.ex.test.", "TXT", 60, ['"line\n\nend"']],
        ["5.0/26.2.0.192.in-addr.arpa.", "PTR", 60, ["a.ex.test."]],
        ["x.ex.test.", "TYPE65534", 60, ["\\# 2 abcd"]]
      ]
    )
  })

  it("gives only the names asked for, and counts all records", () => {
    const { recordCount, rrsets } = read([text], new Set([DomainName.make("c.ex.test"), DomainName.make("no.ex.test")]))
    assert.strictEqual(recordCount, 8)
    assert.deepStrictEqual(
      rrsets.map(({ contents, name }) => ({ name: String(name), contents })),
      [{ name: "c.ex.test.", contents: ['"line\n\nend"'] }]
    )
  })

  it("of nothing is nothing", () => {
    assert.deepStrictEqual(read([""]), { rrsets: [], recordCount: 0 })
  })

  it("is refused when it is something else", () => {
    assert.throws(() => read(["<html>\n"]), PowerDnsZoneFile.ZoneFileInvalid)
  })

  it.effect.prop(
    "is the same wherever it is cut",
    { cuts: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: text.length }))) },
    ({ cuts }) =>
      Effect.sync(() => {
        const edges = [0, ...cuts.toSorted((a, b) => a - b), text.length]
        const pieces = edges.slice(1).map((end, i) => text.slice(edges[i], end))
        assert.deepStrictEqual(read(pieces), read([text]))
      })
  )
})

describe("names are asked for", () => {
  it("one by one while they are few, or few of a large zone", () => {
    assert.isFalse(readsWholeZone(4, 0))
    assert.isFalse(readsWholeZone(4, undefined))
    assert.isFalse(readsWholeZone(100, 50_001))
  })

  it("by one export where there are many, or the zone's size is not known yet", () => {
    assert.isTrue(readsWholeZone(5, undefined))
    assert.isTrue(readsWholeZone(100, 50_000))
    assert.isTrue(readsWholeZone(500, 10_000))
  })
})
