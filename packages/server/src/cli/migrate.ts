/** `prism-dns migrate`: brings the registry's schema up to date without starting the server, which would do it too. */
import { Effect, Layer } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "./flags.ts"
import * as Output from "./Output.ts"

export const migrate = Command.make(
  "migrate",
  {
    config: Flags.configFile,
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Say what the schema is and would become; change nothing."),
      Flag.withDefault(false)
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print what was done as JSON."), Flag.withDefault(false)),
    flags: Flags.settingFlags([])
  },
  Effect.fn(function* ({ dryRun, json, ...input }) {
    const { config } = yield* Flags.load(input)
    const Database = yield* Effect.promise(() => import("../Database.ts"))
    const before = yield* Database.schemaNow(config.storage)
    if (!dryRun) yield* Effect.scoped(Layer.build(Database.layer(config.storage)))
    if (json) return yield* Output.json({ before, after: Database.schemaKnown, dryRun })
    yield* Output.fields([
      ["schema", before],
      [dryRun ? "would become" : "is now", Database.schemaKnown]
    ])
  })
).pipe(Command.withDescription("Bring the registry's schema up to date; the server does so too when it starts."))
