import { assert, describe, it } from "@effect/vitest"
import * as Serial from "@prism-dns/core/domain/Serial"

describe("serials, which go around", () => {
  it.each([
    [7, 7, true],
    [8, 7, true],
    [6, 7, false],
    [1, 4_294_967_295, true],
    [4_294_967_295, 1, false]
  ])("serial %i is up to date with %i: %s", (a, b, expected) => {
    assert.strictEqual(Serial.isUpToDate(a, b), expected)
  })

  it("after the last one comes 0", () => {
    assert.strictEqual(Serial.next(7), 8)
    assert.strictEqual(Serial.next(4_294_967_295), 0)
  })

  it("the latest of some is the one that none of them is ahead of", () => {
    assert.isUndefined(Serial.latest([]))
    assert.strictEqual(Serial.latest([7, 9, 8]), 9)
    assert.strictEqual(Serial.latest([4_294_967_295, 2, 4_294_967_290]), 2)
  })

  it("are read from an SOA, and put into one", () => {
    const soa = "ns1.ex.test. hostmaster.ex.test. 7 10800 3600 604800 60"
    assert.strictEqual(Serial.ofSoa(soa), 7)
    assert.isUndefined(Serial.ofSoa(undefined))
    assert.strictEqual(Serial.inSoa(soa, 4_294_967_295), soa.replace(" 7 ", " 4294967295 "))
  })
})
