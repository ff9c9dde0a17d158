/** The seeds that every run of the suite tries; others are for `./prism simulate`. */
import { assert, it } from "@effect/vitest"
import { generate, type Scenario } from "./Scenario.ts"
import type { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { run } from "./Simulation.ts"

/** The rules that a scenario breaks. */
export const broken = (scenario: Scenario, database: SimulatedDatabase): ReadonlyArray<string> =>
  run(scenario, database).violations.map(({ detail, rule }) => `${rule}: ${detail}`)

export const keepsEveryRule = (
  { first, last }: { readonly first: number; readonly last: number },
  database: SimulatedDatabase
) =>
  it(`keeps every rule, whatever goes wrong: seeds ${first} to ${last}`, { timeout: 300_000 }, () => {
    for (let seed = first; seed <= last; seed++) {
      assert.deepStrictEqual(broken(generate(seed), database), [], `./prism simulate --seed ${seed} --runs 1`)
    }
  })
