/** The seeds that every run of the suite tries; others are for `./prism simulate`. */
import { assert, it } from "@effect/vitest"
import { generate, type Scenario } from "./Scenario.ts"
import type { SimulatedDatabase } from "./SimulatedDatabase.ts"
import { run } from "./Simulation.ts"

/** The rules that a scenario breaks. */
export const broken = (scenario: Scenario, database: SimulatedDatabase): ReadonlyArray<string> =>
  run(scenario, database).violations.map(({ detail, rule }) => `${rule}: ${detail}`)

/** What a trace says of things that ought to come up among so many seeds: a simulation in which nothing happens proves nothing. */
const happenings = [
  "dies, before ",
  "dies, after COMMIT",
  ", by a power cut",
  "dies, after patch ",
  "takes effect, and nobody waits for it",
  "two writes met, and both stand",
  "database is locked",
  "another PowerDNS takes the writes",
  "its names are written anew",
  "a NOTIFY is lost",
  "no answer in time",
  "Bad Request",
  "name parked",
  "(disabled)",
  "something stands below this name",
  "is deleted",
  "the reconciler holds back",
  "deletions wait for a person",
  "a person applies a plan (held-deletions)",
  "a person: adopt",
  "a person: give back",
  "too many hosts vanished at once",
  "is claimed in turn",
  "PowerDNS held something else than it should",
  "the process was paused or the clock jumped",
  "the zone's settings have changed",
  "the registry could not be written"
]

export const keepsEveryRule = (
  { first, last }: { readonly first: number; readonly last: number },
  database: SimulatedDatabase
) =>
  it(`keeps every rule, whatever goes wrong: seeds ${first} to ${last}`, { timeout: 300_000 }, () => {
    const missing = new Set(happenings)
    for (let seed = first; seed <= last; seed++) {
      const { trace, violations } = run(generate(seed), database)
      assert.deepStrictEqual(violations, [], `./prism simulate --seed ${seed} --runs 1`)
      if (missing.size === 0) continue
      const text = trace.join("\n")
      for (const happening of missing) if (text.includes(happening)) missing.delete(happening)
    }
    assert.deepStrictEqual([...missing], [], "this never happened")
  })
