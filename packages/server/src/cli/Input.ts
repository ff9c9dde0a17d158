/** What people give to administrative commands: names and reasons, read once. */
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect, Result } from "effect"
import { Argument } from "effect/cli"
import * as Failure from "./Failure.ts"

export const zone = Argument.String("zone").pipe(
  Argument.withDescription("The zone's name, with or without the trailing dot."),
  Argument.withMetavar("ZONE")
)

export const host = Argument.String("host").pipe(
  Argument.withDescription("The host's id, or its full name."),
  Argument.withMetavar("HOST")
)

export const reasonArgument = Argument.String("reason").pipe(
  Argument.withDescription("Why, in a sentence; it is kept in the audit."),
  Argument.withMetavar("REASON")
)

/** A name in any case, with or without the trailing dot. */
export const parseName = (input: string): Effect.Effect<DomainName.DomainName, Failure.UsageWrong> =>
  Result.match(DomainName.parse(input), {
    onFailure: ({ message }) => Effect.fail(new Failure.UsageWrong({ detail: `'${input}': ${message}` })),
    onSuccess: Effect.succeed
  })

/** As the API takes a reason. */
export const reason = (input: string): Effect.Effect<string, Failure.UsageWrong> => {
  const trimmed = input.trim()
  return trimmed.length >= 1 && trimmed.length <= 500
    ? Effect.succeed(trimmed)
    : Effect.fail(new Failure.UsageWrong({ detail: "a reason has 1 to 500 characters" }))
}
