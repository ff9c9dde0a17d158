import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { hostName, nestedName } from "../arbitraries.ts"

const accepted = <A>(result: Result.Result<A, DomainName.NameInvalid>): A | undefined => Result.getOrUndefined(result)

/** A name of exactly `characters` characters, in labels of at most 63. */
const nameOf = (characters: number): string => {
  const labels: Array<string> = []
  for (let left = characters; left > 0; left -= 64) labels.push("a".repeat(Math.min(left, left === 64 ? 62 : 63)))
  const text = labels.join(".")
  return text.length === characters ? text : `${text}.a`
}

/** What is in neither kind of name. */
const never: ReadonlyArray<readonly [what: string, input: string]> = [
  ["nothing", ""],
  ["only a dot", "."],
  ["two dots in a row", "a..b"],
  ["a leading dot", ".a"],
  ["a label of 64 characters", "a".repeat(64)],
  ["254 characters", nameOf(254)],
  ["a hyphen at the start of a label", "a.-b"],
  ["a hyphen at the end of a label", "a-.b"],
  ["a space", "a b"],
  ["a newline at the end", "web\n"],
  ["a carriage return", "web\r"],
  ["a NUL", "web\0"],
  ["an escaped dot", "a\\.b"],
  ["a quote", 'a"b'],
  ["a letter outside ASCII", "wéb"],
  ["KELVIN SIGN, whose lower case is k", "\u212Aelvin"],
  ["LATIN CAPITAL I WITH DOT ABOVE, whose lower case begins with i", "\u0130stanbul"],
  ["LONG S, whose upper case is S", "\u017Fa"],
  ["full-width letters", "\uFF57\uFF45\uFF42"],
  ["an ideographic full stop", "a\u3002b"],
  ["a zero-width space", "a\u200Bb"],
  ["half a surrogate pair", "a\uD800"]
]

describe("a host name", () => {
  it.each([
    ["web", "web"],
    ["WEB-1", "web-1"],
    ["Web-1.Rack-7", "web-1.rack-7"],
    ["0", "0"],
    ["3com.9", "3com.9"],
    ["a--b", "a--b"],
    ["xn--wb-bja", "xn--wb-bja"],
    ["192.0.2.7", "192.0.2.7"],
    ["a".repeat(63), "a".repeat(63)],
    [nameOf(253), nameOf(253)]
  ])("%s is read as %s", (input, name) => {
    assert.strictEqual(accepted(DomainName.parseHostName(input)), name)
  })

  const neverHosts: typeof never = [
    ...never,
    ["a trailing dot", "web."],
    ["an underscore", "a_b"],
    ["a wildcard", "*"],
    ["a slash", "a/b"]
  ]

  it.each(neverHosts)("with %s is refused with a sentence", (_, input) => {
    const result = DomainName.parseHostName(input)
    assert.isTrue(Result.isFailure(result))
    if (Result.isFailure(result)) assert.match(result.failure.message, /^hostname /)
  })

  it.prop("any host name is read as itself, in whatever case it is written", { name: hostName }, ({ name }) => {
    assert.strictEqual(accepted(DomainName.parseHostName(name)), name)
    assert.strictEqual(accepted(DomainName.parseHostName(name.toUpperCase())), name)
  })

  it.prop("whatever is accepted is lower-case ASCII and no longer than it may be", { input: Schema.String }, (o) => {
    const name = accepted(DomainName.parseHostName(o.input))
    if (name !== undefined) assert.match(name, /^[a-z0-9.-]{1,253}$/)
  })

  // What looks at each character more than once does not end within the time of a test.
  it("of a million hostile characters is refused", () => {
    for (const input of ["a-".repeat(500_000), `${"a".repeat(62)}-`.repeat(4), "a.".repeat(126) + "-"]) {
      assert.isTrue(Result.isFailure(DomainName.parseHostName(input)))
    }
  })
})

describe("a domain name", () => {
  it.each([
    ["ex.test", "ex.test."],
    ["EX.Test.", "ex.test."],
    ["_sip._tcp.ex.test", "_sip._tcp.ex.test."],
    ["*.ex.test", "*.ex.test."],
    ["64/26.2.0.192.in-addr.arpa", "64/26.2.0.192.in-addr.arpa."],
    [nameOf(253), `${nameOf(253)}.`],
    [`${nameOf(253)}.`, `${nameOf(253)}.`]
  ])("%s is read as %s", (input, name) => {
    assert.strictEqual(accepted(DomainName.parse(input)), name)
  })

  it.each(never)("with %s is refused", (_, input) => {
    const result = DomainName.parse(input)
    assert.isTrue(Result.isFailure(result))
    if (Result.isFailure(result)) assert.isAbove(result.failure.message.length, 10)
  })

  it.prop("reading what was read gives the same", { name: nestedName }, ({ name }) => {
    assert.strictEqual(accepted(DomainName.parse(name)), name)
    assert.strictEqual(accepted(DomainName.parse(name.slice(0, -1).toUpperCase())), name)
  })

  it("as a Schema says why a text is none", () => {
    const decode = Schema.decodeUnknownResult(DomainName.FromString)
    assert.isTrue(Result.isSuccess(decode("ex.test")))
    const refused = decode("a..b")
    assert.isTrue(Result.isFailure(refused))
    if (Result.isFailure(refused)) assert.include(String(refused.failure), "is not a label of a domain name")
  })
})

describe("a host name before a zone", () => {
  it("may have 253 characters together and no more", () => {
    const zone = DomainName.make(nameOf(100))
    const fits = Result.getOrThrow(DomainName.parseHostName(nameOf(152)))
    const whole = Result.getOrThrow(DomainName.prepend(fits, zone))
    assert.strictEqual(whole.length, 254)
    assert.deepStrictEqual(DomainName.parse(whole), Result.succeed(whole))
    const tooLong = Result.getOrThrow(DomainName.parseHostName(nameOf(153)))
    assert.isTrue(Result.isFailure(DomainName.prepend(tooLong, zone)))
  })
})

const labelsOf = (name: DomainName.DomainName): ReadonlyArray<string> => name.split(".").slice(0, -1)

describe("names within zones", () => {
  it.prop("a name lies in a zone when its last labels are the zone's", { name: nestedName, zone: nestedName }, (o) => {
    const zone = labelsOf(o.zone)
    const expected = labelsOf(o.name).slice(-zone.length).join(".") === zone.join(".")
    assert.strictEqual(DomainName.isWithin(o.name, o.zone), expected)
  })

  it("a name that merely ends in the same letters lies elsewhere", () => {
    assert.isFalse(DomainName.isWithin(DomainName.make("badex.test"), DomainName.make("ex.test")))
  })

  it.prop(
    "the longest zone is one the name lies in, and no other such is longer",
    { name: nestedName, zones: Arbitrary.array(nestedName, { maxLength: 6 }) },
    ({ name, zones }) => {
      const candidates = zones.map((zone) => ({ name: zone }))
      const best = DomainName.longestZone(name, candidates)
      const holding = zones.filter((zone) => DomainName.isWithin(name, zone))
      assert.strictEqual(
        best?.name.length,
        holding.length === 0 ? undefined : Math.max(...holding.map((z) => z.length))
      )
      if (best !== undefined) assert.include(holding, best.name)
    }
  )
})
