/** `prism-dns access`: who may claim what, who may do what by the API, and why not. */
import * as Contract from "@prism-dns/core/api/Access"
import { describe, type Resource, resources, type Verb, verbs } from "@prism-dns/core/auth/Permissions"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Console, Effect, Option, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

type Rule = Contract.Explained["rules"][number]

const columns: ReadonlyArray<Output.Column<Rule>> = [
  { head: "RULE", cell: ({ rule }) => rule },
  { head: "OUTCOME", cell: ({ outcome }) => outcome },
  { head: "CODE", cell: ({ code }) => code },
  { head: "WHAT", cell: ({ detail }) => detail }
]

const parseAddress =
  (parse: (input: string) => Result.Result<IpAddress.IpAddress, { readonly message: string }>) => (input: string) =>
    Result.match(parse(input), {
      onFailure: ({ message }) => Effect.fail(new Failure.UsageWrong({ detail: message })),
      onSuccess: Effect.succeed
    })

const optional = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const usage = (detail: string) => Effect.fail(new Failure.UsageWrong({ detail }))

/** Exactly one of the two says who claims. */
const whose = ({ principal, tokenName }: Readonly<Record<"principal" | "tokenName", Option.Option<string>>>) =>
  Option.isSome(principal) === Option.isSome(tokenName)
    ? Effect.fail(
        new Failure.UsageWrong({
          detail: "say who claims: --principal ID (an identity, a token, or anonymous) or --token-name NAME"
        })
      )
    : Effect.succeed(Option.getOrElse(principal, () => Option.getOrThrow(tokenName)))

interface Asked {
  readonly principal: Option.Option<string>
  readonly tokenName: Option.Option<string>
  readonly zone: Option.Option<string>
}

/** What `access:explain` is asked about a claim. */
const askedClaim = Effect.fnUntraced(function* (
  input: Asked & {
    readonly hostname: Option.Option<string>
    readonly addresses: ReadonlyArray<string>
    readonly protocol: (typeof Contract.claimProtocols)[number]
    readonly peer: Option.Option<string>
    readonly ttl: Option.Option<number>
    readonly name: Option.Option<string>
  }
) {
  const principal = yield* whose(input)
  if (Option.isNone(input.hostname) || input.addresses.length === 0) {
    return yield* usage(
      "say what is claimed: HOSTNAME ADDRESS; or --verb and --resource, for what the API lets somebody do"
    )
  }
  if (Option.isSome(input.name)) return yield* usage("--name goes with --verb; a claim has HOSTNAME")
  const payload: Contract.ExplainRequest = {
    principal,
    hostname: yield* Input.parseName(input.hostname.value),
    addresses: yield* Effect.forEach(input.addresses, parseAddress(IpAddress.parseClaimed)),
    protocol: input.protocol,
    ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
    ...(Option.isSome(input.peer) && { peer: yield* parseAddress(IpAddress.parse)(input.peer.value) }),
    ...(Option.isSome(input.ttl) && { ttlSeconds: input.ttl.value })
  }
  return payload
})

/** What it is asked about a right. */
const askedRight = Effect.fnUntraced(function* (
  input: Asked & {
    readonly verb: Option.Option<Verb>
    readonly resource: Option.Option<Resource>
    readonly name: Option.Option<string>
    readonly hostname: Option.Option<string>
  }
) {
  if (Option.isNone(input.verb) || Option.isNone(input.resource)) {
    return yield* usage("--verb and --resource go together")
  }
  if (Option.isSome(input.hostname)) return yield* usage("with --verb there is no claim; the name is said by --name")
  if (Option.isSome(input.principal) && Option.isSome(input.tokenName)) {
    return yield* usage("say --principal ID or --token-name NAME, not both")
  }
  const principal = Option.orElse(input.principal, () => input.tokenName)
  const payload: Contract.ExplainRequest = {
    verb: input.verb.value,
    resource: input.resource.value,
    ...(Option.isSome(principal) && { principal: principal.value }),
    ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
    ...(Option.isSome(input.name) && { name: yield* Input.parseName(input.name.value) })
  }
  return payload
})

const explain = Command.make(
  "explain",
  {
    ...Connection.flags,
    verb: Flag.Literals("verb", verbs).pipe(
      Flag.withDescription("Of what somebody may do by the API: what is to be done, instead of a claim."),
      Flag.optional
    ),
    resource: Flag.Literals("resource", resources).pipe(
      Flag.withDescription("With --verb: what it is to be done with."),
      Flag.optional
    ),
    name: optional("name", "NAME", "With --verb: the full name it is about. Default: the zone as a whole."),
    principal: optional(
      "principal",
      "ID",
      "Who claims: an identity's id, a token's name, or anonymous. With --verb a token's name, or role:NAME; default: who asks."
    ),
    tokenName: optional("token-name", "NAME", "The holder of the token of this name."),
    zone: optional("zone", "ZONE", "The zone of the name. Default: as for a host that says none."),
    peer: optional("peer", "ADDRESS", "The address it is said from. Default: the first of those claimed."),
    protocol: Flag.Literals("protocol", Contract.claimProtocols).pipe(
      Flag.withDescription("How it is said. Default: 2.0."),
      Flag.withDefault("2.0" as const)
    ),
    ttl: Flag.Int("ttl").pipe(
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 }))),
      Flag.withDescription("The TTL that is wished for, in seconds."),
      Flag.withMetavar("SECONDS"),
      Flag.optional
    ),
    hostname: Argument.String("hostname").pipe(
      Argument.withDescription("The name that is claimed: the full one, or what stands before its zone."),
      Argument.withMetavar("HOSTNAME"),
      Argument.optional
    ),
    addresses: Argument.String("address").pipe(
      Argument.withDescription("The addresses that are claimed."),
      Argument.withMetavar("ADDRESS"),
      Argument.atLeast(0)
    )
  },
  Effect.fn(function* (input) {
    const payload = yield* Option.isSome(input.verb) || Option.isSome(input.resource)
      ? askedRight(input)
      : askedClaim(input)
    yield* Connection.withClient(input, ({ access }) =>
      Effect.flatMap(access.explainRequest({ payload }), (explained) =>
        input.json ? Output.json(explained) : "verb" in explained ? showRight(explained) : showClaim(explained)
      )
    )
  })
).pipe(
  Command.withDescription(
    "Say which rule decides a claim, and what every other one says; or by --verb which role lets somebody do something. Nothing is done."
  ),
  Command.withExamples([
    {
      command: "prism-dns access explain --token-name rack-7 web-1.hosts.example.net 192.0.2.7",
      description: "May hosts with this token have this name"
    },
    {
      command: "prism-dns access explain --token-name lab --verb write --resource records --zone lab.example.net",
      description: "May the holder of this token change records of the zone"
    }
  ])
)
const showClaim = ({ addresses, decidedBy, detail, host, principal, rules }: Contract.Explained) => {
  const what = `${principal.name} (${principal.kind}) for ${host} with ${addresses.join(", ")}`
  const verdict = decidedBy === undefined ? `allowed: ${what}` : `refused: ${what}\nby ${decidedBy}: ${detail}`
  return shown(rules, verdict)
}

const shown = (rules: ReadonlyArray<Rule>, verdict: string) =>
  Effect.andThen(
    Output.rows(columns, rules, "There are no rules."),
    Output.isTerminal() ? Console.log(`\n${Output.harmlessLines(verdict)}`) : Effect.void
  )

const showRight = ({ allowed, by, detail, name, principal, resource, rules, verb, zone }: Contract.ExplainedRight) => {
  const place = name ?? zone
  const what = `${principal.name} (${principal.kind}): ${verb} ${resource}${place === undefined ? "" : ` at ${place}`}`
  return shown(
    rules,
    by === undefined || !allowed
      ? `refused: ${what}\n${detail}`
      : `allowed: ${what}\nby the role ${by.role}: ${describe(by.permission)}`
  )
}

export const access = Command.make("access").pipe(
  Command.withDescription("Who may claim what, who may do what by the API, and why not."),
  Command.withSubcommands([explain])
)
