/** What people give to administrative commands: names and reasons, read once. */
import * as Values from "@prism-dns/core/api/Values"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Clock, Duration, Effect, Option, Result, Schema } from "effect"
import { Argument, Flag } from "effect/cli"
import * as Kind from "../config/Kind.ts"
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

/** `--dry-run`, of what changes something. */
export const dryRun = Flag.Boolean("dry-run").pipe(
  Flag.withDescription("Say what would become of it, and change nothing."),
  Flag.withDefault(false)
)

/** The same, for a query. */
export const dry = ({ dryRun }: { readonly dryRun: boolean }): { readonly dryRun?: true } =>
  dryRun ? { dryRun: true } : {}

/** A name in any case, with or without the trailing dot. */
export const parseName = (input: string): Effect.Effect<DomainName.DomainName, Failure.UsageWrong> =>
  Result.match(DomainName.parse(input), {
    onFailure: ({ message }) => Effect.fail(new Failure.UsageWrong({ detail: `'${input}': ${message}` })),
    onSuccess: Effect.succeed
  })

/** `www` and `www.example.net.` within `example.net.` are the same name here. */
export const parseNameIn = Effect.fnUntraced(function* (zone: DomainName.DomainName, text: string) {
  if (text === "@") return zone
  const lower = text.toLowerCase()
  const isFull = lower.endsWith(".") || lower === zone.slice(0, -1) || lower.endsWith(`.${zone.slice(0, -1)}`)
  return yield* parseName(isFull ? text : `${text}.${zone}`)
})

/** As the API takes a reason. */
export const reason = (input: string): Effect.Effect<string, Failure.UsageWrong> => {
  const trimmed = input.trim()
  return trimmed.length >= 1 && trimmed.length <= 500
    ? Effect.succeed(trimmed)
    : Effect.fail(new Failure.UsageWrong({ detail: "a reason has 1 to 500 characters" }))
}

const isTime: (input: string) => boolean = Schema.is(Values.TimestampInput)

/** `--at`: a time to look back to. */
export const at = Flag.String("at").pipe(
  Flag.withDescription("As it was at this time, such as 2026-11-23T10:48:00Z, or so long ago: 15m."),
  Flag.withMetavar("TIME"),
  Flag.optional
)

/** The time of `--at`, for a query. */
export const atQuery = (input: Option.Option<string>): Effect.Effect<{ readonly at?: string }, Failure.UsageWrong> =>
  Option.isNone(input) ? Effect.succeed({}) : Effect.map(time(input.value), (at) => ({ at }))

/** A time as the API takes it, or how long ago. */
export const time = Effect.fnUntraced(function* (input: string) {
  if (isTime(input)) return input
  const ago = Kind.duration("0s", "36500d").parse(input)
  if (Result.isFailure(ago)) {
    return yield* new Failure.UsageWrong({
      detail: `'${input}' is to be a time such as 2026-11-23T10:48:00Z, or how long ago, such as 15m`
    })
  }
  return new Date((yield* Clock.currentTimeMillis) - Duration.toMillis(ago.success)).toISOString()
})
