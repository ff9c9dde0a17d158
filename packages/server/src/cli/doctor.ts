/** `prism-dns doctor`: what is set up wrongly, and how to mend it (`Examination`, which is loaded only here). */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "./flags.ts"

export const doctor = Command.make(
  "doctor",
  {
    config: Flags.configFile,
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print JSON in place of a table."), Flag.withDefault(false)),
    flags: Flags.settingFlags()
  },
  Effect.fn(function* ({ json, ...input }) {
    const { config } = yield* Flags.load(input)
    const Examination = yield* Effect.promise(() => import("./Examination.ts"))
    yield* Examination.run(config, json)
  })
).pipe(Command.withDescription("Find what is set up wrongly, at PowerDNS and in the registry; change nothing."))
