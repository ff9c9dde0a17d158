import { assert, describe, it } from "@effect/vitest"
import { regressions } from "./regressions.ts"
import { generate, type Scenario } from "./Scenario.ts"
import { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { run } from "./Simulation.ts"

const database = new SimulatedDatabase()

/** Seeds that every run of the suite tries; others are for `./prism simulate`. */
const seeds = { first: 1, count: 1000 }

const broken = (scenario: Scenario) =>
  run(scenario, database).violations.map(({ detail, rule }) => `${rule}: ${detail}`)

describe("core, in a simulated world", () => {
  for (const { name, scenario } of regressions) {
    it(name, () => {
      assert.deepStrictEqual(broken(scenario), [])
    })
  }

  it("keeps every rule, whatever goes wrong, a thousand times", { timeout: 180_000 }, () => {
    for (let seed = seeds.first; seed < seeds.first + seeds.count; seed++) {
      assert.deepStrictEqual(broken(generate(seed)), [], `./prism simulate --seed ${seed} --runs 1`)
    }
  })

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

  it("does something else for another seed", () => {
    assert.notStrictEqual(run(generate(1), database).trace.join("\n"), run(generate(2), database).trace.join("\n"))
  })
})
