/**
 * Scenarios that once broke a rule, cut down to what matters and kept as
 * values: a seed would mean something else as soon as the generator changes.
 * The story of each stands in docs/internals/track-record.md.
 */
import type { Scenario } from "./Scenario.ts"

export interface Regression {
  /** What is right now, as a sentence. */
  readonly name: string
  readonly scenario: Scenario
}

export const regressions: ReadonlyArray<Regression> = []
