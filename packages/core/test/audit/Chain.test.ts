import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { canonicalJson, canonicalText } from "@prism-dns/core/audit/Chain"

describe("canonical JSON", () => {
  it("has keys in the order of their code units, wherever they stand, and no spaces", () => {
    const cases: ReadonlyArray<readonly [value: unknown, text: string]> = [
      [{ b: 1, a: [{ d: "é", c: null }] }, '{"a":[{"c":null,"d":"é"}],"b":1}'],
      [{ a: 1, b: { z: 1, y: 2 } }, '{"a":1,"b":{"y":2,"z":1}}'],
      // whole numbers come first among the keys of an object, in the order of numbers
      [{ 9: "nine", 10: "ten", "": "none" }, '{"":"none","10":"ten","9":"nine"}'],
      [{ "\u{1f600}": 1, "\ufb33": 2 }, '{"\u{1f600}":1,"\ufb33":2}'],
      [{ a: undefined, b: [undefined, -0, 1e21] }, '{"b":[null,0,1e+21]}'],
      [[{ b: undefined, a: true }, "\ud800"], '[{"a":true},"\\ud800"]'],
      [{ at: new Date(0) }, '{"at":{}}']
    ]
    for (const [value, text] of cases) assert.strictEqual(canonicalJson(value), text)
  })

  it.prop(
    "is the same whatever the order in which keys were set",
    { value: Schema.Record(Schema.String, Schema.Json) },
    ({ value }) => {
      const turned = Object.fromEntries(Object.entries(value).toReversed())
      assert.strictEqual(canonicalJson(turned), canonicalJson(value))
      assert.strictEqual(canonicalText(JSON.stringify(turned)), canonicalJson(value))
    }
  )
})
