import { assert, describe, it } from "@effect/vitest"
import { regressions } from "./regressions.ts"
import * as Dice from "./Dice.ts"
import { type Event, generate, type Settings } from "./Scenario.ts"
import { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { broken, happenings, tryAllApart } from "./seeds.ts"
import { run } from "./Simulation.ts"

const database = new SimulatedDatabase()

describe("core, in a simulated world", () => {
  for (const { name, scenario } of regressions) {
    it(name, () => {
      assert.deepStrictEqual(broken(scenario, database), [])
    })
  }

  it("does the same for the same seed, byte for byte", () => {
    for (const seed of [3, 14, 159, 265]) {
      const first = run(generate(seed), database).trace.join("\n")
      run(generate(seed + 1), database)
      assert.strictEqual(run(generate(seed), database).trace.join("\n"), first, `seed ${seed}`)
      assert.strictEqual(
        run(generate(seed), new SimulatedDatabase()).trace.join("\n"),
        first,
        `seed ${seed}, elsewhere`
      )
    }
  })

  it("keeps what people say beside hosts, through all that happens in some of its runs", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const scenario = generate(seed)
      const dice = Dice.make(`people of ${seed}`)
      const hostnames = [...new Set(scenario.agents.map(({ hostname }) => hostname)), "shop", "x.shop"]
      const said = Array.from({ length: 25 }, (): Event => ({
        atMillis: dice.int(scenario.endMillis),
        do: dice.pick(["note", "note", "note gone", "alias", "alias gone"]),
        hostname: dice.pick(hostnames)
      }))
      const events = [...scenario.events, ...said].sort((a, b) => a.atMillis - b.atMillis)
      assert.deepStrictEqual(broken({ ...scenario, events }, database), [], `seed ${seed}`)
    }
  }, 300_000)

  it("does something else for another seed", () => {
    assert.notStrictEqual(run(generate(1), database).trace.join("\n"), run(generate(2), database).trace.join("\n"))
  })

  describe("what is wrong is noticed:", () => {
    const noticed = (name: string, rule: string, change: (settings: Settings) => Settings, from: string) =>
      it(name, () => {
        const { scenario } = regressions.find((each) => each.name === from)!
        assert.deepStrictEqual(broken(scenario, database), [])
        const { violations } = run({ ...scenario, settings: change(scenario.settings) }, database)
        assert.include(
          violations.map((violation) => violation.rule),
          rule
        )
      })

    noticed(
      "a doubt that is never settled",
      "a live host has its records",
      (settings) => ({ ...settings, doubtMillis: 10_000_000 }),
      "a write without an answer is doubted on after a restart"
    )
    noticed(
      "a write that was told to be done, and was not",
      "applied is in PowerDNS",
      (settings) => ({ ...settings, powerdns: { ...settings.powerdns, lieShare: 1 } }),
      "deletions held back stand in a plan that a person can approve, also without quarantine"
    )
    noticed(
      "a mass of hosts that expires",
      "a mass of hosts does not expire without a word",
      (settings) => ({ ...settings, massExpiryMin: 2, massExpiryGuard: 100 }),
      "deletions held back stand in a plan that a person can approve, also without quarantine"
    )
    noticed(
      "an accepted host that a power cut takes away",
      "accepted is durable",
      (settings) => ({ ...settings, syncs: false }),
      "what was accepted survives a power cut"
    )
  })

  it(
    "keeps every rule through a thousand seeds, and meets in them whatever can go wrong",
    { timeout: 300_000 },
    async () => {
      // In two threads: nothing else of a test run wants the second processor for so long.
      const found = await Promise.all([tryAllApart({ first: 1, last: 500 }), tryAllApart({ first: 501, last: 1000 })])
      assert.deepStrictEqual(
        found.flatMap((each) => each.broken),
        []
      )
      const happened = new Set(found.flatMap((each) => each.happened))
      assert.deepStrictEqual(
        happenings.filter((happening) => !happened.has(happening)),
        [],
        "this never happened"
      )
    }
  )
})
