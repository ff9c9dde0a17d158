import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as DeleteBudget from "@prism-dns/core/dns/DeleteBudget"

const budget = { share: 0.1, min: 10, window: Duration.hours(1) }

describe("a delete budget", () => {
  it.each([
    [0, 0, 10],
    [99, 0, 10],
    [101, 0, 10],
    [1000, 0, 100],
    [1000, 40, 60],
    [1000, 140, 0],
    [5, 10, 0]
  ])("of 10 % and at least 10, with %i published and %i deleted, leaves %i", (published, deleted, left) => {
    assert.strictEqual(DeleteBudget.remaining(budget, published, deleted), left)
  })

  it("takes a share as the decimal number it was written as", () => {
    assert.strictEqual(DeleteBudget.allowed({ ...budget, share: 0.29, min: 0 }, 100), 29)
  })

  it("says its figures in a sentence", () => {
    assert.strictEqual(
      DeleteBudget.sentence(budget, { published: 1000, deleted: 40, wanted: 61 }),
      "61 of 1000 published names would lose their records, the budget allows 100 in 1h, of which 40 were used"
    )
  })
})
