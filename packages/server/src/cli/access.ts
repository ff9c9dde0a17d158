/** `prism-dns access`: who may claim what, and why not. */
import * as Contract from "@prism-dns/core/api/Access"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Console, Effect, Option, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const columns: ReadonlyArray<Output.Column<Contract.Explained["rules"][number]>> = [
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

/** Exactly one of the two says who claims. */
const whose = ({ principal, tokenName }: Readonly<Record<"principal" | "tokenName", Option.Option<string>>>) =>
  Option.isSome(principal) === Option.isSome(tokenName)
    ? Effect.fail(
        new Failure.UsageWrong({
          detail: "say who claims: --principal ID (an identity, a token, or anonymous) or --token-name NAME"
        })
      )
    : Effect.succeed(Option.getOrElse(principal, () => Option.getOrThrow(tokenName)))

const explain = Command.make(
  "explain",
  {
    ...Connection.flags,
    principal: optional("principal", "ID", "Who claims: an identity's id, a token's name, or anonymous."),
    tokenName: optional("token-name", "NAME", "Who claims: the holder of the token of this name."),
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
      Argument.withMetavar("HOSTNAME")
    ),
    addresses: Argument.String("address").pipe(
      Argument.withDescription("The addresses that are claimed."),
      Argument.withMetavar("ADDRESS"),
      Argument.atLeast(1)
    )
  },
  Effect.fn(function* (input) {
    const payload: Contract.ExplainRequest = {
      principal: yield* whose(input),
      hostname: yield* Input.parseName(input.hostname),
      addresses: yield* Effect.forEach(input.addresses, parseAddress(IpAddress.parseClaimed)),
      protocol: input.protocol,
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
      ...(Option.isSome(input.peer) && { peer: yield* parseAddress(IpAddress.parse)(input.peer.value) }),
      ...(Option.isSome(input.ttl) && { ttlSeconds: input.ttl.value })
    }
    yield* Connection.withClient(input, ({ access }) =>
      Effect.flatMap(access.explainRequest({ payload }), (explained) =>
        input.json ? Output.json(explained) : show(explained)
      )
    )
  })
).pipe(Command.withDescription("Say which rule decides a claim, and what every other one says. Nothing is claimed."))

const show = ({ addresses, decidedBy, detail, host, principal, rules }: Contract.Explained) => {
  const what = `${principal.name} (${principal.kind}) for ${host} with ${addresses.join(", ")}`
  const verdict = decidedBy === undefined ? `allowed: ${what}` : `refused: ${what}\nby ${decidedBy}: ${detail}`
  return Effect.andThen(
    Output.rows(columns, rules, "There are no rules."),
    Output.isTerminal() ? Console.log(`\n${Output.harmlessLines(verdict)}`) : Effect.void
  )
}

export const access = Command.make("access").pipe(
  Command.withDescription("Who may claim what, and why not."),
  Command.withSubcommands([explain])
)
