/**
 * `prism-agent`: keeps the names of a machine; `prism-agent once` registers,
 * waits for a level and ends.
 *
 * Results go to stdout, all else to stderr.
 */
import * as Logging from "@prism-dns/core/logging/Logging"
import { Console, Effect, type LogLevel, Result, type Scope } from "effect"
import { Command, Flag } from "effect/cli"
import * as Os from "node:os"
import * as Explanation from "../addresses/Explanation.ts"
import * as Following from "../addresses/Following.ts"
import { version } from "../Version.ts"
import * as Credentials from "./Credentials.ts"
import { ConfigurationWrong, UsageWrong } from "./Failure.ts"
import * as Names from "./Names.ts"
import * as Once from "./Once.ts"
import * as Settings from "./Settings.ts"

/** What flags and environment say. */
const load = (given: Settings.Given): Effect.Effect<Settings.Settings, UsageWrong | ConfigurationWrong> => {
  const read = Settings.read(given, process.env, { home: Os.homedir(), isRoot: process.getuid?.() === 0 })
  if (Result.isSuccess(read)) return Effect.succeed(read.success)
  const { environment, flags } = read.failure
  return flags.length > 0
    ? Effect.fail(new UsageWrong({ problems: [...flags, ...environment] }))
    : Effect.fail(new ConfigurationWrong({ problems: environment }))
}

const explain = ({ addresses }: Settings.Settings) =>
  Effect.flatMap(Following.look(addresses._tag === "Interfaces" ? addresses.options : {}), (selection) =>
    Console.log(Explanation.toTable(selection))
  )

/** Runs a command with the settings, its lines as they say. */
const withSettings = <E>(
  given: Settings.Given,
  defaultLevel: LogLevel.LogLevel,
  run: (settings: Settings.Settings) => Effect.Effect<void, E, Scope.Scope>
) =>
  Effect.flatMap(load(given), (settings) =>
    (settings.explain ? explain(settings) : Effect.scoped(run(settings))).pipe(
      Effect.annotateLogs(Logging.loggerAnnotation, "prism-agent"),
      Effect.provide(Logging.layer({ ...settings, logLevel: settings.logLevel ?? defaultLevel }))
    )
  )

/** Keeps the names until it is told to end, or none of them is left. */
const keep = Effect.fnUntraced(function* (settings: Settings.Settings) {
  yield* Effect.logInfo("starting", { version, servers: settings.servers })
  const names = yield* Names.open(settings, yield* Credentials.load(settings))
  let kept = names.length
  const ends = yield* Effect.forEach(
    names,
    ({ agent, hostname }) =>
      Effect.matchEffect(Effect.mapError(agent.ended, Names.sort(hostname)), {
        onSuccess: () => Effect.succeed(undefined),
        onFailure: (error) => {
          kept -= 1
          return names.length === 1
            ? Effect.succeed(error)
            : Effect.as(
                Effect.logError(kept === 0 ? "the last name is lost" : "a name is lost; the others are kept", {
                  name: hostname
                }),
                error
              )
        }
      }),
    { concurrency: "unbounded" }
  )
  const first = ends.find((error) => error !== undefined)
  if (first !== undefined) return yield* first
})

const root = Command.make("prism-agent").pipe(Command.withSharedFlags(Settings.flags))

const once = Command.make(
  "once",
  {
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON object."), Flag.withDefault(false)),
    timeout: Flag.Int("timeout").pipe(
      Flag.withDescription("How long everything may take, in seconds. Default: 60."),
      Flag.withMetavar("SECONDS"),
      Flag.filter(
        (seconds) => seconds >= 1 && seconds <= 86_400,
        (seconds) => `--timeout is 1 to 86400 seconds, not ${seconds}`
      ),
      Flag.withDefault(60)
    )
  },
  Effect.fn(function* ({ json, timeout }) {
    const given = yield* root
    yield* withSettings(given, "Warn", (settings) => Once.run(settings, { json, timeoutSeconds: timeout }))
  })
).pipe(Command.withDescription("Register, wait for --ack, print how long it took, and end. The lease is not kept."))

export const prismAgent = root.pipe(
  Command.withHandler((given) => withSettings(given, "Info", keep)),
  Command.withDescription("Gives this machine a name in Prism DNS, and keeps it."),
  Command.withSubcommands([once])
)
