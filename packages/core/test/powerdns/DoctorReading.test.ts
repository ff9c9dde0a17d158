/** What doctor reads by itself: the text of a zone. */
import { assert, describe, it } from "@effect/vitest"
import * as DoctorZoneContent from "@prism-dns/core/powerdns/DoctorZoneContent"

describe("the text of a zone", () => {
  const read = (text: string, pieceLength = text.length) => {
    const reader = DoctorZoneContent.makeReader()
    for (let at = 0; at < text.length; at += pieceLength) reader.push(text.slice(at, at + pieceLength))
    return reader.end()
  }
  const soa = "ex.test.\t60\tIN\tSOA\ta.misconfigured.dns.server.invalid. h.ex.test. 1 1 1 1 1\n"
  const text =
    `a.ex.test.\t60\tIN\tA\t192.0.2.1\na.ex.test.\t60\tIN\tA\t192.0.2.1\na.ex.test.\t60\tIN\tCNAME\tb.ex.test.\n` +
    `b.ex.test.\t60\tIN\tA\t192.0.2.1\nb.ex.test.\t60\tIN\tTXT\t"two\nlines"\nc.ex.test.\t60\tIN\tCNAME\ta.ex.test.\n${soa}${soa}`

  it("names what stands twice and CNAMEs beside other data, and counts SOA records, however it is cut", () => {
    for (const length of [1, 7, text.length]) {
      assert.deepStrictEqual(read(text, length), {
        records: 8,
        soaRecords: 2,
        hasPlaceholderSoa: true,
        duplicates: { count: 1, first: ["a.ex.test. A 192.0.2.1"] },
        conflictingNames: { count: 1, first: ["a.ex.test. CNAME and A"] }
      })
    }
  })

  it("names the first few, and counts all", () => {
    const many = Array.from({ length: 9 }, (_, i) => `n${i}.ex.test.\t60\tIN\tA\t192.0.2.1\n`.repeat(2)).join("")
    const { duplicates } = read(many)
    assert.strictEqual(duplicates.count, 9)
    assert.lengthOf(duplicates.first, DoctorZoneContent.sampleMax)
  })
})
