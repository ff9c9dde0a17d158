import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import * as Digest from "@prism-dns/core/dns/Digest"
import * as A from "../arbitraries.ts"

const seed = { a: 1, b: 2 }

interface Line {
  readonly name: string
  readonly type: string
  readonly ttlSeconds: number
  readonly content: string
}

const line: Arbitrary.Arbitrary<Line> = Arbitrary.map(
  Arbitrary.all([
    A.oneOf(["a.test.", "b.test.", "c.test.", "d.test."]),
    A.oneOf(["A", "TXT"]),
    A.oneOf([6, 60]),
    A.oneOf(["0.1", "00.1", "x"])
  ] as const),
  ([name, type, ttlSeconds, content]) => ({ name, type, ttlSeconds, content })
)

const key = ({ content, name, ttlSeconds, type }: Line) => `${name} ${type} ${ttlSeconds} ${content}`

const add = (digest: Digest.Digest, side: "desired" | "actual", lines: ReadonlyArray<Line>) => {
  for (const { content, name, ttlSeconds, type } of lines) digest.add(side, name, type, ttlSeconds, content)
}

describe("a digest", () => {
  it.effect.prop(
    "differs exactly where the records of a name differ, doubled ones too, in whatever order they come",
    { desired: Arbitrary.array(line, { maxLength: 8 }), actual: Arbitrary.array(line, { maxLength: 8 }) },
    ({ actual, desired }) =>
      Effect.sync(() => {
        const digest = Digest.make(seed, 10)
        add(digest, "desired", desired)
        add(digest, "actual", actual.toReversed())
        const of = (lines: ReadonlyArray<Line>, name: string) =>
          lines
            .filter((each) => each.name === name)
            .map(key)
            .sort()
            .join("\n")
        const names = ["a.test.", "b.test.", "c.test.", "d.test."]
        const expected = names.filter((name) => of(desired, name) !== of(actual, name)).map(digest.bucketOf)
        assert.deepStrictEqual(
          digest.differing(),
          [...new Set(expected)].sort((x, y) => x - y)
        )
      })
  )

  it("knows every name it was told, and few others", () => {
    const digest = Digest.make(seed, 10_000)
    for (let i = 0; i < 10_000; i++) digest.know(`host-${i}.test.`)
    let others = 0
    for (let i = 0; i < 10_000; i++) {
      assert.isTrue(digest.knows(`host-${i}.test.`))
      if (digest.knows(`other-${i}.test.`)) others += 1
    }
    assert.isBelow(others, 100)
  })

  it("spreads names over its buckets, and counts their records", () => {
    const digest = Digest.make(seed, 10_000)
    const buckets = new Set<number>()
    for (let i = 0; i < 10_000; i++) {
      digest.add("desired", `host-${i}.test.`, "A", 60, "x")
      buckets.add(digest.bucketOf(`host-${i}.test.`))
    }
    assert.isAbove(buckets.size, 9500)
    assert.strictEqual(
      [...buckets].reduce((sum, bucket) => sum + digest.recordsIn(bucket), 0),
      10_000
    )
  })
})
