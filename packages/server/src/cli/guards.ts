/** `prism-dns guards`: what waits for a person's word. */
import { Console, Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { guardKinds } from "@prism-dns/core/api/Guards"
import * as Connection from "./Connection.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const list = Command.make(
  "list",
  Connection.flags,
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ guards }) =>
      Effect.flatMap(guards.list(), (answer) =>
        input.json
          ? Output.json(answer)
          : Output.rows(
              [
                { head: "GUARD", cell: ({ kind }) => kind },
                { head: "SINCE", cell: ({ trippedAt }) => trippedAt },
                { head: "STATE", cell: ({ waiting }) => (waiting ? "waiting" : "allowed") },
                { head: "WHAT", cell: ({ detail }) => detail }
              ],
              answer.items,
              "No guard has tripped."
            )
      )
    )
  })
).pipe(Command.withDescription("Guards that have tripped."))

const allow = Command.make(
  "allow",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    guard: Argument.Literals("guard", guardKinds).pipe(Argument.withDescription("Which guard.")),
    reason: Input.reasonArgument
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    yield* Connection.withClient(input, ({ guards }) =>
      Effect.flatMap(
        guards.allow({ params: { guard: input.guard }, query: Input.dry(input), payload: { reason } }),
        (guard) =>
          input.json
            ? Output.json(guard)
            : Console.log(
                `${guard.kind}: what it held back until ${guard.allowedBefore ?? "now"} ${guard.dryRun === true ? "would go on" : "goes on"}.`
              )
      )
    )
  })
).pipe(Command.withDescription("Let through what a guard has held back until now."))

export const guards = Command.make("guards").pipe(
  Command.withDescription("What waits for a person's word."),
  Command.withSubcommands([list, allow])
)
