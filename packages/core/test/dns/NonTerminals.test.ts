import { assert, describe, it } from "@effect/vitest"
import * as NonTerminals from "@prism-dns/core/dns/NonTerminals"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"

const zone = Zone.make(DomainName.make("hosts.test"))
const v6 = DomainName.make("8.b.d.0.1.0.0.2.ip6.arpa")

describe("the names above a name", () => {
  it("are those between it and the apex, the nearest first", () => {
    assert.deepStrictEqual(NonTerminals.above(DomainName.make("a.b.c.hosts.test"), zone), [
      DomainName.make("b.c.hosts.test"),
      DomainName.make("c.hosts.test")
    ])
  })

  it("are none for a name of one label, for the apex, and for a name outside", () => {
    for (const name of ["a.hosts.test", "hosts.test", "a.b.other.test"]) {
      assert.deepStrictEqual(NonTerminals.above(DomainName.make(name), zone), [])
    }
  })

  it("are kept below ip6.arpa only in a signed zone", () => {
    const name = DomainName.make(`1.0.${v6}`)
    assert.deepStrictEqual(NonTerminals.above(name, Zone.make(v6)), [])
    assert.deepStrictEqual(NonTerminals.above(name, Zone.make(v6, { dnssec: true })), [DomainName.make(`0.${v6}`)])
  })
})

describe("a placeholder", () => {
  it("is known as one, and another text is not", () => {
    const name = DomainName.make("b.hosts.test")
    assert.isTrue(NonTerminals.isPlaceholder(NonTerminals.placeholder(name, zone)))
    assert.isFalse(NonTerminals.isPlaceholder(RRset.make(name, "TXT", 60, ['"hello"'])))
    assert.isFalse(NonTerminals.isPlaceholder(RRset.make(name, "A", 60, ["192.0.2.1"])))
  })
})
