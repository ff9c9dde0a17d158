// oxlint-disable-next-line import/no-unassigned-import -- what it does by being imported is wanted, before any schema
import "effect/schema/SchemaJITCompiler/enable"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Layer, Predicate } from "effect"
import { CliConfig, Command, GlobalFlag } from "effect/cli"
import { version } from "../Version.ts"
import * as Failure from "./Failure.ts"
import { prismDns } from "./prismDns.ts"

/** The parser's own failures are shown by it, with the command's help. */
const isShown = (cause: Cause.Cause<unknown>) => Predicate.isTagged(Cause.squash(cause), "ShowHelp")

// Whoever reads a pipe may have seen enough, as `head` has: that is no failure to be told of.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  process.exit(0)
})

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
