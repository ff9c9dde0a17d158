import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { rrset } from "../arbitraries.ts"

const name = DomainName.make("web.ex.test")

describe("a record set", () => {
  it("is the same whatever order and however often its contents are given", () => {
    const one = RRset.make(name, "A", 60, ["192.0.2.2", "192.0.2.10", "192.0.2.2"])
    assert.deepStrictEqual(one.contents, ["192.0.2.10", "192.0.2.2"])
    assert.isTrue(RRset.equals(one, RRset.make(name, "A", 60, ["192.0.2.10", "192.0.2.2"])))
  })

  it.each([
    ["name", RRset.make(DomainName.make("other.ex.test"), "A", 60, ["192.0.2.2"])],
    ["type", RRset.make(name, "AAAA", 60, ["192.0.2.2"])],
    ["TTL", RRset.make(name, "A", 61, ["192.0.2.2"])],
    ["content", RRset.make(name, "A", 60, ["192.0.2.3"])],
    ["number of records", RRset.make(name, "A", 60, ["192.0.2.2", "192.0.2.3"])]
  ])("of another %s is another", (_, other) => {
    const one = RRset.make(name, "A", 60, ["192.0.2.2"])
    assert.isFalse(RRset.equals(one, other))
    assert.isFalse(RRset.equals(other, one))
  })

  it.prop("equals another exactly when all their fields do", { a: rrset, b: rrset }, ({ a, b }) => {
    assert.strictEqual(RRset.equals(a, b), JSON.stringify(a) === JSON.stringify(b))
    assert.isTrue(RRset.equals(a, RRset.make(a.name, a.type, a.ttlSeconds, a.contents.toReversed())))
  })
})
