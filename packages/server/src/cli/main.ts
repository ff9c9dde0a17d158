// oxlint-disable-next-line import/no-unassigned-import -- what it does by being imported is wanted, before any schema
import "effect/schema/SchemaJITCompiler/enable"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Layer, Predicate } from "effect"
import { CliConfig, Command, GlobalFlag } from "effect/cli"
import { version } from "../Version.ts"
import { access } from "./access.ts"
import { config } from "./config.ts"
import { dev } from "./dev.ts"
import { doctor } from "./doctor.ts"
import * as Failure from "./Failure.ts"
import { guards } from "./guards.ts"
import { hosts } from "./hosts.ts"
import { identities } from "./identities.ts"
import { plan } from "./plan.ts"
import { publications } from "./publications.ts"
import { serve } from "./serve.ts"
import { status } from "./status.ts"
import { tokens } from "./tokens.ts"
import { whoami } from "./whoami.ts"
import { zones } from "./zones.ts"

/** `prism-dns`: one file here for each command. */
const prismDns = Command.make("prism-dns").pipe(
  Command.withDescription("Hosts register, and their names resolve."),
  Command.withSubcommands([
    dev,
    serve,
    config,
    doctor,
    status,
    zones,
    plan,
    hosts,
    publications,
    guards,
    tokens,
    identities,
    access,
    whoami
  ])
)

/** The parser's own failures are shown by it, with the command's help. */
const isShown = (cause: Cause.Cause<unknown>) => Predicate.isTagged(Cause.squash(cause), "ShowHelp")

Command.run(prismDns, { version }).pipe(
  Effect.tapCause((cause) =>
    Effect.sync(() => {
      if (!Cause.hasInterruptsOnly(cause) && !isShown(cause)) process.stderr.write(`${Failure.report(cause).text}\n`)
    })
  ),
  Effect.provide(
    Layer.merge(
      NodeServices.layer,
      CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
    )
  ),
  NodeRuntime.runMain({ disableErrorReporting: true, teardown: Failure.teardown })
)
