import { assert, describe, it } from "@effect/vitest"
import * as Partitions from "@prism-dns/core/storage/Partitions"

const day = Partitions.dayMillis

describe("Partitions", () => {
  it("are for a quarter of what is kept or less, and for a day at the least", () => {
    assert.deepStrictEqual(
      [0, 3600_000, 4 * day, 27 * day, 28 * day, 111 * day, 112 * day, 400 * day].map(Partitions.spanFor),
      [28, 1, 1, 1, 7, 7, 28, 28].map((days) => days * day)
    )
  })

  it("are named in the words of PostgreSQL, all but the rest", () => {
    assert.deepStrictEqual(Partitions.rangeOf("FOR VALUES FROM ('-5') TO ('1000000')"), { from: -5, to: 1_000_000 })
    assert.deepStrictEqual(Partitions.rangeOf("FOR VALUES FROM (MINVALUE) TO ('7')"), { from: -Infinity, to: 7 })
    assert.isUndefined(Partitions.rangeOf("DEFAULT"))
  })

  it("that a time lies in begin no earlier than the reach of it, whatever they are for", () => {
    for (const at of [0, 1, day, 27 * day, 28 * day, 20_000 * day - 1]) {
      for (const keep of [0, day, 30 * day, 400 * day]) {
        assert.isAtMost(Partitions.reachOf(at), Partitions.floorTo(Partitions.spanFor(keep), at))
      }
    }
  })
})
