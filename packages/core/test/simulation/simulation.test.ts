import { assert, describe, it } from "@effect/vitest"
import { regressions } from "./regressions.ts"
import { generate } from "./Scenario.ts"
import { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { broken, keepsEveryRule } from "./seeds.ts"
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

  it("does something else for another seed", () => {
    assert.notStrictEqual(run(generate(1), database).trace.join("\n"), run(generate(2), database).trace.join("\n"))
  })

  keepsEveryRule({ first: 1, last: 1000 }, database)
})
