/** Settings of an agent as flags would give them. */
import { Result } from "effect"
import * as Settings from "../../src/cli/Settings.ts"

/** No flag at all. */
export const nothingGiven = Object.fromEntries(
  Object.keys(Settings.settings).map((name) => [name, []])
) as unknown as Settings.Given

/** Reads these flags, in an empty environment. */
export const settingsOf = (given: Partial<Settings.Given>): Settings.Settings =>
  Result.getOrThrow(Settings.read({ ...nothingGiven, ...given }, {}, { home: "/nonexistent", isRoot: false }))
