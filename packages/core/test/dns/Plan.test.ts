import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Plan from "@prism-dns/core/dns/Plan"
import { oneOf, rrset } from "../arbitraries.ts"

/** By name, one set for each type, in the order of names and types. */
const byName = (rrsets: Iterable<RRset.RRset>): Map<DomainName.DomainName, ReadonlyArray<RRset.RRset>> => {
  const result = new Map<DomainName.DomainName, ReadonlyArray<RRset.RRset>>()
  for (const each of rrsets) {
    const others = (result.get(each.name) ?? []).filter(({ type }) => type !== each.type)
    result.set(each.name, [...others, each])
  }
  return result
}

/** What two zones are compared by: each set as a line. */
const lines = (records: Plan.RecordsByName, keep: (rrset: RRset.RRset) => boolean): ReadonlyArray<string> =>
  [...records.values()]
    .flat()
    .filter(keep)
    .map((each) => JSON.stringify([each.name, each.type, each.ttlSeconds, each.contents]))
    .sort()

const records = Arbitrary.map(Arbitrary.array(rrset, { maxLength: 12 }), byName)
const names = Arbitrary.map(
  Arbitrary.array(oneOf(["a.ex.test.", "b.ex.test.", "c.ex.test."]), { maxLength: 3 }),
  (list) => new Set(list.map((name) => DomainName.make(name)))
)
const types = ["A", "AAAA"]

describe("a plan", () => {
  it.prop(
    "gives what is desired at the names and types asked for, and touches nothing else",
    { desired: records, actual: records, names },
    ({ actual, desired, names }) => {
      const after = Plan.apply(actual, Plan.make(names, types, desired, actual))
      const isAsked = (each: RRset.RRset) => names.has(each.name) && types.includes(each.type)
      assert.deepStrictEqual(lines(after, isAsked), lines(desired, isAsked))
      assert.deepStrictEqual(
        lines(after, (each) => !isAsked(each)),
        lines(actual, (each) => !isAsked(each))
      )
    }
  )

  it.prop("made again gives nothing", { desired: records, actual: records, names }, ({ actual, desired, names }) => {
    const after = Plan.apply(actual, Plan.make(names, types, desired, actual))
    assert.deepStrictEqual(Plan.make(names, types, desired, after), [])
  })

  it.prop(
    "replaces in place: no set that is to stay is deleted, and each is changed at most once",
    { desired: records, actual: records, names },
    ({ actual, desired, names }) => {
      const seen = new Set<string>()
      for (const { change, reason } of Plan.make(names, types, desired, actual)) {
        const [name, type] =
          change._tag === "Replace" ? [change.rrset.name, change.rrset.type] : [change.name, change.type]
        assert.isFalse(seen.has(`${name} ${type}`))
        seen.add(`${name} ${type}`)
        const wanted = desired.get(name)?.find((each) => each.type === type)
        const found = actual.get(name)?.find((each) => each.type === type)
        assert.strictEqual(change._tag, wanted === undefined ? "Delete" : "Replace")
        assert.strictEqual(reason, wanted === undefined ? "delete" : found === undefined ? "create" : "update")
      }
    }
  )

  it.prop(
    "for names whose state is unknown writes every type asked for, and so gives what is desired from any state",
    { desired: records, actual: records, names },
    ({ actual, desired, names }) => {
      const unknown = new Map([...names].map((name) => [name, "unknown" as const]))
      const plan = Plan.make(names, types, desired, unknown)
      assert.strictEqual(plan.length, names.size * types.length)
      const isAsked = (each: RRset.RRset) => names.has(each.name) && types.includes(each.type)
      assert.deepStrictEqual(lines(Plan.apply(actual, plan), isAsked), lines(desired, isAsked))
    }
  )
})
