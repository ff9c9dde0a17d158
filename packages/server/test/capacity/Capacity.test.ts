import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { readFileSync } from "node:fs"
import { integer } from "../../../core/test/arbitraries.ts"
import * as Capacity from "../../src/capacity/Capacity.ts"
import { type UnitCost, unitCosts, values } from "../../src/capacity/UnitCosts.ts"

const demand = (of: Partial<Capacity.Demand> = {}): Capacity.Demand => ({
  hosts: 10_000,
  beatSeconds: 60,
  changesPerDay: 2,
  queriesPerSecond: 0,
  keptDays: 400,
  tls: false,
  sessionsPerServer: values.sessionsPerInstance,
  edges: 0,
  ...of
})

const reckon = (of?: Partial<Capacity.Demand>) => Capacity.reckon(demand(of), values)

describe("what so many hosts need", () => {
  it("is two servers for few: one does the work, one may be away", () => {
    const { groups, servers } = reckon({ hosts: 100 })
    assert.deepStrictEqual([groups, servers.total, servers.because], [1, 2, "availability"])
  })

  it("is so many servers as hold the sessions, and one more", () => {
    const { servers } = reckon({ hosts: 100_000 })
    assert.deepStrictEqual([servers.perGroup, servers.because], [11, "sessions"])
    assert.isAtMost(servers.sessions, values.sessionsPerInstance)
  })

  it("is so many servers as have the time, where changes are what there is most of", () => {
    const { servers } = reckon({ hosts: 10_000, changesPerDay: 1000 * 24 })
    assert.strictEqual(servers.because, "processor")
    assert.isAtMost(servers.coreShare, 0.5)
  })

  it("beyond what one registry was measured with is several of them, and says that it is computed", () => {
    const { groups, hostsPerGroup, notes } = reckon({ hosts: 100_000_000 })
    assert.deepStrictEqual([groups, hostsPerGroup], [100, 1_000_000])
    assert.match(notes.join(), /it is computed: 100 groups/)
  })

  it.live("grows with the hosts, keeps every bound, and is finite", () =>
    Effect.gen(function* () {
      const numbers = Arbitrary.all([
        integer(1, 50_000_000),
        integer(1, 3600),
        integer(0, 500),
        integer(0, 10_000_000),
        integer(1, 3650),
        integer(100, 100_000),
        integer(0, 1000)
      ] as const)
      const cases = Arbitrary.map(
        numbers,
        ([hosts, beatSeconds, changesPerDay, queriesPerSecond, keptDays, sessionsPerServer, edges]) =>
          demand({ hosts, beatSeconds, changesPerDay, queriesPerSecond, keptDays, sessionsPerServer, edges })
      )
      const result = yield* Arbitrary.checkEffect(
        cases,
        (of) =>
          Effect.sync(() => {
            const one = reckon(of)
            const two = reckon({ ...of, hosts: of.hosts * 2 })
            for (const [a, b] of [
              [one.groups, two.groups],
              [one.servers.total, two.servers.total],
              [one.changesPerSecond, two.changesPerSecond],
              [one.postgres.bytes * one.groups, two.postgres.bytes * two.groups * 1.000001]
            ] as const) {
              assert.isTrue(Number.isFinite(a) && Number.isFinite(b))
              assert.isAtMost(a, b)
            }
            assert.isAtMost(one.servers.coreShare, 0.5)
            assert.isAtMost(one.servers.sessions, of.sessionsPerServer)
            assert.isAtLeast(one.groups * one.hostsPerGroup, of.hosts)
            return true
          }),
        { runs: 300 }
      )
      assert.isUndefined(Arbitrary.formatCheckFailure(result))
    })
  )

  it("rests on costs that are what docs/performance has of them, or say that they were not measured", () => {
    const folder = new URL("../../../../docs/performance/", import.meta.url)
    for (const [name, { source, value }] of Object.entries<UnitCost>(unitCosts)) {
      if (source._tag === "Planned") {
        assert.isAbove(source.why.length, 10, name)
        continue
      }
      const { figures } = JSON.parse(readFileSync(new URL(`${source.bench}.json`, folder), "utf8"))
      const measured = figures[source.figure].value * source.times
      assert.isBelow(Math.abs(value / measured - 1), 0.1, `${name} is ${value}, measured were ${measured}`)
    }
  })
})
