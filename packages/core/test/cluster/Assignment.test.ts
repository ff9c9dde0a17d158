import { assert, describe, it } from "@effect/vitest"
import { assign, type Candidate, type Claimed } from "@prism-dns/core/cluster/Assignment"
import type { LeaseName } from "@prism-dns/core/cluster/Cluster"
import { Arbitrary } from "effect"
import { integer, oneOf } from "../arbitraries.ts"

const candidate = (id: string, state: Candidate["state"] = "live", lacks: ReadonlyArray<string> = []): Candidate => ({
  id,
  state,
  startedMillis: Number(id.slice(1)),
  lacks: new Set(lacks)
})
const lease = (name: LeaseName, holder?: string): Claimed => ({ name, holder })
const named = (targets: ReadonlyMap<LeaseName, string>) => Object.fromEntries(targets)

const kinds = ["zone", "job"] as const
const unique = <A>(values: ReadonlyArray<A>, key: (value: A) => string): ReadonlyArray<A> => [
  ...new Map(values.map((value) => [key(value), value])).values()
]

const candidates = Arbitrary.map(
  Arbitrary.array(Arbitrary.all([integer(0, 9), oneOf(["live", "live", "draining"])] as const), {
    minLength: 1,
    maxLength: 6
  }),
  (found) =>
    unique(
      found.map(([n, state]) => candidate(`i${n}`, state)),
      ({ id }) => id
    )
)
/** Of `zone/0` to `zone/40` and jobs alike some, held by anybody or nobody. */
const leases = Arbitrary.map(
  Arbitrary.array(Arbitrary.all([oneOf(kinds), integer(0, 40), integer(-2, 9)] as const), { maxLength: 40 }),
  (found) =>
    unique(
      found.map(([kind, n, holder]) => lease(`${kind}/${n}`, holder < 0 ? undefined : `i${holder}`)),
      ({ name }) => name
    )
)

const liveOf = (candidates: ReadonlyArray<Candidate>) => candidates.filter(({ state }) => state === "live")

/** How many each live instance has of each kind. */
const counts = (candidates: ReadonlyArray<Candidate>, targets: ReadonlyMap<LeaseName, string>, kind: string) =>
  liveOf(candidates).map(({ id }) => [...targets].filter(([name, to]) => to === id && name.startsWith(kind)).length)

describe("who is to hold which lease", () => {
  it.prop(
    "each lease has exactly one live instance, and none has more than one more than another of a kind",
    { candidates, leases },
    ({ candidates, leases }) => {
      const live = liveOf(candidates)
      if (live.length === 0) return
      const targets = assign(candidates, leases)
      assert.strictEqual(targets.size, leases.length)
      for (const id of targets.values())
        assert.include(
          live.map((each) => each.id),
          id
        )
      for (const kind of kinds) {
        const each = counts(candidates, targets, kind)
        assert.isAtMost(Math.max(...each) - Math.min(...each), 1)
      }
    }
  )

  it.prop(
    "only as many leases move as have to, and none once all are where they are to be",
    { candidates, leases },
    ({ candidates, leases }) => {
      const live = liveOf(candidates)
      if (live.length === 0) return
      const targets = assign(candidates, leases)
      for (const kind of kinds) {
        const ofKind = leases.filter(({ name }) => name.startsWith(kind))
        const share = Math.floor(ofKind.length / live.length)
        let more = ofKind.length - share * live.length
        let kept = 0
        for (const { id } of live) {
          const has = ofKind.filter(({ holder }) => holder === id).length
          kept += Math.min(has, share)
          if (has > share && more > 0) {
            kept += 1
            more -= 1
          }
        }
        assert.strictEqual(ofKind.filter(({ holder, name }) => targets.get(name) === holder).length, kept)
      }
      const settled = leases.map(({ name }) => lease(name, targets.get(name)))
      assert.deepStrictEqual(named(assign(candidates, settled)), named(targets))
    }
  )

  it.prop("the order of rows makes no difference", { candidates, leases }, ({ candidates, leases }) => {
    assert.deepStrictEqual(
      named(assign(candidates.toReversed(), leases.toReversed())),
      named(assign(candidates, leases))
    )
  })

  it("one that drains gets nothing while another is live, and keeps what it has while none is", () => {
    const leases = [lease("zone/a.", "i1"), lease("zone/b.", "i1"), lease("zone/c.")]
    assert.deepStrictEqual(named(assign([candidate("i1", "draining"), candidate("i2")], leases)), {
      "zone/a.": "i2",
      "zone/b.": "i2",
      "zone/c.": "i2"
    })
    assert.deepStrictEqual(named(assign([candidate("i1", "draining")], leases)), { "zone/a.": "i1", "zone/b.": "i1" })
  })

  it("a lease goes to one that stands for it, and the others level that out", () => {
    const candidates = [candidate("i1"), candidate("i2", "live", ["job/export"])]
    const leases = [lease("job/export", "i2"), lease("job/a", "i1"), lease("job/b", "i2"), lease("zone/a.")]
    assert.deepStrictEqual(named(assign(candidates, leases)), {
      "job/export": "i1",
      "job/a": "i1",
      "job/b": "i2",
      "zone/a.": "i1"
    })
  })

  it("a lease that nobody stands for is nobody's", () => {
    assert.deepStrictEqual(named(assign([candidate("i1", "live", ["zone/a."])], [lease("zone/a.", "i1")])), {})
  })

  it("one zone and one job go to two instances", () => {
    const targets = assign([candidate("i1"), candidate("i2")], [lease("zone/a."), lease("job/a")])
    assert.notStrictEqual(targets.get("zone/a."), targets.get("job/a"))
  })
})
