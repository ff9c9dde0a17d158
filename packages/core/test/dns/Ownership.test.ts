import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import * as Ownership from "@prism-dns/core/dns/Ownership"
import * as A from "../arbitraries.ts"
import * as T from "../layers.ts"

const zone = T.forward.name

/** Short texts over few characters, so that many match. */
const glob = Arbitrary.map(Arbitrary.array(A.oneOf(["a", "b", "*", "a.b"]), { minLength: 1, maxLength: 6 }), (parts) =>
  parts.join("")
)
const matches = (pattern: string, name: string) =>
  Effect.map(Ownership.parsePattern(zone, pattern), (parsed) => parsed.matches(T.nameOf(name)))

describe("a pattern", () => {
  it.effect.each([
    ["web-*", "web-1", true],
    ["web*", "web", true],
    ["web-*", "web", false],
    ["web-*", "web-1.lab", true],
    ["*.lab", "a.b.lab", true],
    ["*.lab", "lab", false],
    ["a*b*c", "abc", true],
    ["a*b*c", "a-bb-c", true],
    ["a*b*c", "acb", false],
    ["a*a", "a", false],
    ["*", "anything.at.all", true],
    ["WEB.hosts.test.", "web", true],
    ["web.hosts.test", "web", true],
    ["web", "web.lab", false]
  ] as const)("%s and the name %s: %s", ([pattern, name, expected]) =>
    Effect.map(matches(pattern, name), (found) => assert.strictEqual(found, expected))
  )

  it.effect.each(["", "hosts.test.", "web.example.", "a b", "a..b", "-a", "[ab]", "x".repeat(300)])(
    "%s is refused with a sentence",
    (pattern) =>
      Effect.map(Effect.flip(Ownership.parsePattern(zone, pattern)), (error) => {
        assert.strictEqual(error._tag, "PatternInvalid")
        assert.isAbove(error.message.length, 10)
      })
  )

  it.effect.prop(
    "matches exactly what the same glob as a regular expression does",
    {
      pattern: glob,
      name: glob
    },
    ({ name, pattern }) =>
      Effect.sync(() => {
        const made = Ownership.makePattern(zone, pattern)
        const text = name.replaceAll("*", "x")
        const expected = new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*")}$`).test(text)
        assert.strictEqual(made.matches(T.nameOf(text)), expected)
      })
  )
})

describe("whose a name is", () => {
  const facts = { ignored: false, published: false, desiredByHost: false, record: false }
  it.each([
    [facts, "foreign"],
    [{ ...facts, published: true }, "managed"],
    [{ ...facts, published: true, record: true }, "adopted"],
    [{ ...facts, published: true, record: true, desiredByHost: true }, "managed"],
    [{ ...facts, published: true, ignored: true }, "ignored"]
  ] as const)("%o: %s", (given, expected) => {
    assert.strictEqual(Ownership.classify(given), expected)
  })
})
