/** `prism-dns config check|print`: what the server would read, without starting it. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Printing from "../config/Printing.ts"
import * as Flags from "./flags.ts"

const input = { config: Flags.configFile, flags: Flags.settingFlags() }

const check = Command.make(
  "check",
  input,
  Effect.fn(function* (input) {
    const { config } = yield* Flags.load(input)
    yield* Console.log(
      `configuration is good: ${config.zones.length} zones, ${config.powerdns.nodes.length} PowerDNS nodes`
    )
  })
).pipe(Command.withDescription("Check the configuration and list everything that is wrong with it."))

const print = Command.make(
  "print",
  {
    ...input,
    origin: Flag.Boolean("origin").pipe(
      Flag.withDescription("Say where each value comes from."),
      Flag.withDefault(false)
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print JSON in place of YAML."), Flag.withDefault(false))
  },
  Effect.fn(function* ({ json, origin, ...input }) {
    const { printed } = yield* Flags.load(input)
    yield* Console.log(json ? Printing.toJson(printed, { origin }) : Printing.toYaml(printed, { origin }))
  })
).pipe(Command.withDescription("Print the configuration as the server sees it, without its secrets."))

export const config = Command.make("config").pipe(
  Command.withDescription("Look at the configuration without starting the server."),
  Command.withSubcommands([check, print])
)
