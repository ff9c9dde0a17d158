import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import * as Drift from "@prism-dns/core/dns/Drift"
import * as NonTerminals from "@prism-dns/core/dns/NonTerminals"
import * as RRset from "@prism-dns/core/domain/RRset"
import type { RawRecord } from "@prism-dns/core/powerdns/PowerDnsZoneFile"
import * as A from "../arbitraries.ts"
import * as T from "../layers.ts"

const name = T.nameOf("web")
const types = new Set(["A", "AAAA"])
const rrset = (type: string, ...contents: ReadonlyArray<string>) => RRset.make(name, type, 60, contents)
const raw = (type: string, content: string, ttlSeconds = 60): RawRecord => ({ name, type, ttlSeconds, content })
const placeholder = NonTerminals.placeholder(name, T.forward)

const judge = (
  desired: ReadonlyArray<RRset.RRset>,
  actual: ReadonlyArray<RawRecord>,
  published: ReadonlyArray<RRset.RRset> | undefined
) => Drift.judge(name, { types, desired, actual, published })

const short = ({ changes, kind }: Drift.Judgement) => [kind, ...changes.map(({ action, type }) => `${action} ${type}`)]

describe("a name", () => {
  const wanted = [rrset("A", "1", "2")]
  it.each([
    ["as it should be", wanted, [raw("A", "2"), raw("A", "1")], wanted, [undefined]],
    ["without its records", wanted, [], wanted, ["missing", "create A"]],
    ["with another content", wanted, [raw("A", "1"), raw("A", "3")], wanted, ["different", "update A"]],
    ["with another TTL", wanted, [raw("A", "1", 5), raw("A", "2", 5)], wanted, ["different", "update A"]],
    ["with a doubled record", wanted, [raw("A", "1"), raw("A", "1"), raw("A", "2")], wanted, ["duplicate", "repair A"]],
    ["with two TTLs", wanted, [raw("A", "1", 5), raw("A", "2")], wanted, ["duplicate", "repair A"]],
    [
      "with a type too many",
      wanted,
      [raw("A", "1"), raw("A", "2"), raw("AAAA", "x")],
      wanted,
      ["different", "repair AAAA"]
    ],
    ["with somebody's note", wanted, [raw("A", "1"), raw("A", "2"), raw("TXT", '"note"')], wanted, [undefined]],
    ["that nothing wants", [], [raw("A", "1")], wanted, ["unexpected", "delete A"]],
    ["that nothing wants and is gone", [], [], wanted, [undefined]],
    ["that is not ours", [], [raw("A", "1")], undefined, ["foreign"]],
    ["that is not ours and a host wants", wanted, [raw("A", "9")], undefined, ["foreign"]],
    ["that is wanted and nobody has", wanted, [], undefined, ["missing", "create A"]],
    ["without its placeholder", [placeholder], [], [placeholder], ["missing", "create TXT"]],
    [
      "without its placeholder, where another text stands",
      [placeholder],
      [raw("TXT", '"x"')],
      [placeholder],
      [undefined]
    ],
    [
      "with a placeholder and somebody's address",
      [placeholder],
      [raw("TXT", placeholder.contents[0]!), raw("A", "1")],
      [placeholder],
      [undefined]
    ]
  ] as const)("%s", (_, desired, actual, published, expected) => {
    assert.deepStrictEqual(short(judge(desired, actual, published)), [...expected])
  })

  const record: Arbitrary.Arbitrary<RawRecord> = Arbitrary.map(
    Arbitrary.all([A.oneOf(["A", "AAAA", "TXT", "MX"]), A.oneOf([60, 300]), A.oneOf(["1", "2"])] as const),
    ([type, ttlSeconds, content]) => raw(type, content, ttlSeconds)
  )
  const records = Arbitrary.array(record, { maxLength: 5 })
  const wantedTypes = Arbitrary.array(A.oneOf(["A", "AAAA"]), { maxLength: 2 })

  it.effect.prop(
    "that is ours is right after its changes, judged again needs none, and other types are as they were",
    { actual: records, wantedTypes },
    ({ actual, wantedTypes: list }) =>
      Effect.sync(() => {
        const desired = [...new Set(list)].sort().map((type) => rrset(type, "1"))
        const { changes } = judge(desired, actual, [])
        const touched = new Set(changes.map(({ type }) => type))
        const after = [
          ...actual.filter(({ type }) => !touched.has(type)),
          ...changes.flatMap(({ after: set }) =>
            set === undefined ? [] : set.contents.map((content) => raw(set.type, content, set.ttlSeconds))
          )
        ]
        assert.deepStrictEqual(judge(desired, after, []), { kind: undefined, changes: [] })
        const ours = (list: ReadonlyArray<RawRecord>) =>
          list
            .filter(({ type }) => types.has(type))
            .map(({ content, ttlSeconds, type }) => `${type} ${ttlSeconds} ${content}`)
            .sort()
        assert.deepStrictEqual(
          ours(after),
          desired.map(({ type }) => `${type} 60 1`)
        )
        assert.isFalse(touched.has("TXT") || touched.has("MX"))
      })
  )

  it.effect.prop(
    "that is not ours never loses or changes a record",
    { actual: records, wantedTypes },
    ({ actual, wantedTypes: list }) =>
      Effect.sync(() => {
        const desired = [...new Set(list)].map((type) => rrset(type, "1"))
        for (const { action } of judge(desired, actual, undefined).changes) assert.strictEqual(action, "create")
      })
  )
})
