/** `prism-dns tokens`: with which hosts and people are let in. */
import type * as Contract from "@prism-dns/core/api/Tokens"
import { Clock, Console, Duration, Effect, Option, Result } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Kind from "../config/Kind.ts"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const uses = ({ uses, usesMax }: Pick<Contract.Token, "uses" | "usesMax">): string =>
  usesMax === undefined ? `${uses}` : `${uses}/${usesMax}`

const columns: ReadonlyArray<Output.Column<Contract.TokenPage["items"][number]>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "ROLE", cell: ({ role }) => role },
  { head: "ALLOWS", cell: ({ allows }) => allows },
  { head: "STATE", cell: ({ state }) => state },
  { head: "USES", cell: uses },
  { head: "EXPIRES", cell: ({ expiresAt }) => expiresAt },
  { head: "LAST USED", cell: ({ lastUsed }) => lastUsed },
  { head: "FOR", cell: ({ host }) => host },
  { head: "ORIGIN", cell: ({ origin }) => origin },
  { head: "ROLES", cell: ({ roles }) => roles.join(",") }
]

const reference = Argument.String("token").pipe(
  Argument.withDescription("The token's name, or its id."),
  Argument.withMetavar("NAME")
)

const list = Command.make(
  "list",
  { ...Connection.flags, limit: Pages.limit("Tokens") },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ tokens }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((query) => tokens.list({ query }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no tokens." })
      })
    )
  })
).pipe(Command.withDescription("Tokens, by name; their text is shown to nobody."))

const flag = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const optional = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const several = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(`${description} May be given again.`),
    Flag.withMetavar(metavar),
    Flag.atLeast(0)
  )

const wrong = (flagName: string, message: string) =>
  Effect.fail(new Failure.UsageWrong({ detail: `--${flagName}: ${message}` }))

/** Reads `text` as a setting of this kind is read. */
const parse = <A>(kind: Kind.Kind<A>, flagName: string, text: string) =>
  Result.match(kind.parse(text), {
    onFailure: (message) => wrong(flagName, message),
    onSuccess: Effect.succeed
  })

/** Enrolment tokens are good for one machine and one day unless told otherwise: least right by default. */
const enrolDefaults = { uses: "1", expires: "1d" }

const never = "never"
const any = "any"

/** When a token runs out, by this machine's clock; undefined: never. */
const expiry = Effect.fnUntraced(function* (text: string) {
  if (text === never) return undefined
  const duration = yield* parse(Kind.duration("1s", "36500d"), "expires", text)
  return new Date((yield* Clock.currentTimeMillis) + Duration.toMillis(duration)).toISOString()
})

/** What was made, in a sentence beside the token itself. */
const sentence = ({ allows, expiresAt, host, name, usesMax }: Contract.TokenIssued): string => {
  const until = expiresAt === undefined ? "until it is revoked" : `until ${expiresAt}`
  const machines = usesMax === undefined ? "machines" : usesMax === 1 ? "one machine" : `${usesMax} machines`
  const what =
    allows === "bearer"
      ? "is good"
      : `enrols ${host === undefined ? machines : `${machines} for ${host}`}${allows === "both" ? ", and is good as it is," : ""}`
  return `The token ${name} ${what} ${until}. Its text is shown this once.`
}

const create = Command.make(
  "create",
  {
    ...Connection.flags,
    name: Argument.String("name").pipe(
      Argument.withDescription("What the token is called: it stands in the audit, and is never given anew."),
      Argument.withMetavar("NAME")
    ),
    reason: Input.reasonArgument,
    enrol: flag("enrol", "For enrolment: a machine turns it into a key of its own."),
    bearer: flag("bearer", "To be sent as it is; the default, and beside --enrol for both."),
    admin: flag("admin", "For this API and command line, not for hosts: in short for --role admin."),
    role: several("role", "ROLE", "What its holder may do by the API, within its zones and names, such as viewer."),
    dryRun: Input.dryRun,
    for: optional("for", "HOST", "With --enrol: for this full name alone, which is taken over from whoever holds it."),
    zone: several("zone", "ZONE", "Only names in this zone."),
    namePattern: several("name-pattern", "PATTERN", "Only names such as web-* or *.rack-7, below their zone."),
    network: several("network", "CIDR", "Addresses that may be claimed beside the one the host speaks from."),
    namesMax: Flag.Int("names-max").pipe(
      Flag.withDescription("Names its holder may have at once."),
      Flag.withMetavar("N"),
      Flag.optional
    ),
    uses: optional("uses", "N", `Enrolments at the most, or ${any}. Default: ${enrolDefaults.uses}.`),
    expires: optional(
      "expires",
      "DURATION",
      `How long it is good, such as 1h or 30d, or ${never}. Default: ${enrolDefaults.expires} with --enrol, else ${never}.`
    )
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const allows = input.enrol ? (input.bearer ? "both" : "enrol") : "bearer"
    const zones = yield* Effect.forEach(input.zone, Input.parseName)
    const networks = yield* Effect.forEach(input.network, (text) =>
      Effect.as(
        parse(Kind.network, "network", text),
        text.includes("/") ? text : `${text}/${text.includes(":") ? 128 : 32}`
      )
    )
    const names = yield* Effect.forEach(input.namePattern, (text) => parse(Kind.namePattern, "name-pattern", text))
    if (!input.enrol && Option.isSome(input.uses))
      return yield* wrong("uses", "only enrolments are counted, see --enrol")
    const usesText = Option.getOrElse(input.uses, () => (allows === "enrol" ? enrolDefaults.uses : any))
    const usesMax = usesText === any ? undefined : yield* parse(Kind.integer(1, 1_000_000), "uses", usesText)
    const expiresAt = yield* expiry(
      Option.getOrElse(input.expires, () => (allows === "enrol" ? enrolDefaults.expires : never))
    )
    if (input.admin && input.role.length > 0)
      return yield* wrong("admin", "is in short for --role admin; say one of them")
    const payload: Contract.TokenRequest = {
      name: input.name,
      ...(input.role.length > 0 ? { roles: input.role } : { role: input.admin ? "admin" : "agent" }),
      allows,
      grant: {
        ...(zones.length > 0 && { zones }),
        ...(names.length > 0 && { names }),
        ...(networks.length > 0 && { networks }),
        ...(Option.isSome(input.namesMax) && { namesMax: input.namesMax.value })
      },
      ...(Option.isSome(input.for) && { host: yield* Input.parseName(input.for.value) }),
      ...(usesMax !== undefined && { usesMax }),
      ...(expiresAt !== undefined && { expiresAt }),
      reason
    }
    yield* Connection.withClient(input, ({ tokens }) =>
      Effect.gen(function* () {
        const { body: issued } = yield* tokens.issue({ query: Input.dry(input), payload })
        if (input.json) return yield* Output.json(issued)
        if (issued.token === undefined) return yield* Console.log(`${Output.harmless(issued.name)} would be made.`)
        // Alone on its line, so that a pipe holds the token and nothing else.
        yield* Console.log(issued.token)
        yield* Output.note(sentence(issued))
      })
    )
  })
).pipe(
  Command.withDescription("Make a token; its text is printed this once, and kept nowhere."),
  Command.withExamples([
    {
      command: `prism-dns tokens create rack-7 "rack 7 is built" --enrol --zone hosts.example.net --name-pattern 'web-*' --uses 20`,
      description: "Enrols twenty machines within a day"
    },
    {
      command: `prism-dns tokens create web-1-again "its disk died" --enrol --for web-1.hosts.example.net --expires 1h`,
      description: "Gives a machine that was rebuilt its name back"
    }
  ])
)

const edit = Command.make(
  "edit",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    reference,
    reason: Input.reasonArgument,
    role: several("role", "ROLE", "Its roles from now on, in place of those it has."),
    zone: several("zone", "ZONE", `Only names in this zone from now on; ${any} for every zone.`),
    namePattern: several("name-pattern", "PATTERN", `Only such names from now on; ${any} for every name.`),
    expires: optional("expires", "DURATION", `How long it is good from now on, such as 30d, or ${never}.`)
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const isAny = (given: ReadonlyArray<string>) => given.length === 1 && given[0] === any
    const zones = isAny(input.zone) ? [] : yield* Effect.forEach(input.zone, Input.parseName)
    const names = isAny(input.namePattern)
      ? []
      : yield* Effect.forEach(input.namePattern, (text) => parse(Kind.namePattern, "name-pattern", text))
    const expiresAt = Option.isNone(input.expires) ? undefined : ((yield* expiry(input.expires.value)) ?? null)
    yield* Connection.withClient(input, ({ tokens }) =>
      Effect.gen(function* () {
        const params = { token: input.reference }
        const { body: before, headers } = yield* tokens.get({ params })
        const { names: namesNow, networks, zones: zonesNow, ...rest } = before.grant
        const zonesThen = input.zone.length === 0 ? zonesNow : zones.length === 0 ? undefined : zones
        const namesThen = input.namePattern.length === 0 ? namesNow : names.length === 0 ? undefined : names
        const grant = {
          ...rest,
          ...(networks.length > 0 && { networks }),
          ...(zonesThen !== undefined && { zones: zonesThen }),
          ...(namesThen !== undefined && { names: namesThen })
        }
        const { body } = yield* tokens.change({
          params,
          query: Input.dry(input),
          headers: headers.etag === undefined ? {} : { "if-match": headers.etag },
          payload: {
            ...(input.role.length > 0 && { roles: input.role }),
            ...(input.zone.length + input.namePattern.length > 0 && { grant }),
            ...(expiresAt !== undefined && { expiresAt }),
            reason
          }
        })
        if (input.json) return yield* Output.json(body)
        yield* Output.rows(columns, [body], "")
        if (body.dryRun === true) yield* Output.note("nothing was changed: this is what it would be")
      })
    )
  })
).pipe(Command.withDescription("Change a token's roles, its zones and names, or its end; its text stays."))

const revoke = Command.make(
  "revoke",
  { ...Connection.flags, dryRun: Input.dryRun, reference, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const request = { params: { token: input.reference }, query: Input.dry(input), payload: { reason } }
    yield* Connection.withClient(input, ({ tokens }) =>
      Effect.flatMap(tokens.revoke(request), (revoked) =>
        input.json
          ? Output.json(revoked)
          : revoked.dryRun === true
            ? Console.log(`${Output.harmless(revoked.name)} would be revoked.`)
            : Console.log(
                `${Output.harmless(revoked.name)} is revoked; identities that were enrolled with it stay ` +
                  `(prism-dns identities list --enrolled-by ${Output.harmless(revoked.name)}).`
              )
      )
    )
  })
).pipe(Command.withDescription("Revoke a token: it is refused from now on, and sessions that speak by it end."))

export const tokens = Command.make("tokens").pipe(
  Command.withDescription("Tokens, with which hosts and people are let in."),
  Command.withSubcommands([list, create, edit, revoke])
)
