/** `prism-dns identities`: keys that machines were enrolled with. */
import * as Contract from "@prism-dns/core/api/Identities"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const columns: ReadonlyArray<Output.Column<Contract.Identity>> = [
  { head: "ID", cell: ({ id }) => id },
  { head: "STATE", cell: ({ state }) => state },
  { head: "HOSTS", cell: ({ hosts }) => hosts },
  { head: "ENROLLED", cell: ({ enrolledAt }) => enrolledAt },
  { head: "BY", cell: ({ enrolledBy }) => enrolledBy },
  { head: "LAST USED", cell: ({ lastUsed }) => lastUsed },
  { head: "KEY", cell: ({ fingerprint }) => fingerprint }
]

const identity = Argument.String("id").pipe(Argument.withDescription("The identity's id."), Argument.withMetavar("ID"))

const list = Command.make(
  "list",
  {
    ...Connection.flags,
    state: Flag.Literals("state", Contract.identityStates).pipe(
      Flag.withDescription("Only identities in this state."),
      Flag.optional
    ),
    enrolledBy: Flag.String("enrolled-by").pipe(
      Flag.withDescription("Only those that were enrolled with the token of this name."),
      Flag.withMetavar("TOKEN"),
      Flag.optional
    ),
    limit: Pages.limit("Identities")
  },
  Effect.fn(function* (input) {
    const query = {
      ...(Option.isSome(input.state) && { state: input.state.value }),
      ...(Option.isSome(input.enrolledBy) && { enrolledBy: input.enrolledBy.value })
    }
    yield* Connection.withClient(input, ({ identities }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((asked) => identities.list({ query: { ...query, ...asked } }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no such identities." })
      })
    )
  })
).pipe(Command.withDescription("Identities, by id."))

const joined = (values: ReadonlyArray<string> | undefined): string | undefined =>
  values === undefined || values.length === 0 ? undefined : values.join(" ")

const show = Command.make(
  "show",
  { ...Connection.flags, identity },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ identities }) =>
      Effect.flatMap(identities.get({ params: { identity: input.identity } }), (found) =>
        input.json
          ? Output.json(found)
          : Output.fields([
              ["id", found.id],
              ["state", found.state],
              ["key", found.fingerprint],
              ["enrolled", `${found.enrolledAt} with ${found.enrolledBy}`],
              ["key replaced", found.rotatedAt],
              ["last used", found.lastUsed],
              ["revoked", found.revoked && `${found.revoked.at}: ${found.revoked.reason}`],
              ["zones", joined(found.grant.zones) ?? "all"],
              ["names", joined(found.grant.names) ?? "any"],
              ["networks", joined(found.grant.networks)],
              ["names at most", found.grant.namesMax],
              ["hosts", found.hosts],
              ["holds", joined(found.names)]
            ])
      )
    )
  })
).pipe(Command.withDescription("One identity: what it may claim, and the names it holds."))

const revoke = Command.make(
  "revoke",
  { ...Connection.flags, dryRun: Input.dryRun, identity, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const asked = { params: { identity: input.identity }, query: Input.dry(input) }
    yield* Connection.withClient(input, ({ identities }) =>
      Effect.flatMap(identities.revoke({ ...asked, payload: { reason } }), (revoked) =>
        input.json
          ? Output.json(revoked)
          : revoked.dryRun === true
            ? Console.log(
                `${revoked.id} would be revoked; it holds ${revoked.hosts === 1 ? "1 host" : `${revoked.hosts} hosts`}.`
              )
            : Console.log(
                `${revoked.id} is revoked, and its key is never taken again` +
                  `${revoked.hosts === 0 ? "" : `; ${revoked.hosts === 1 ? "its host goes offline when its" : `its ${revoked.hosts} hosts go offline when their`} lease has passed`}.`
              )
      )
    )
  })
).pipe(Command.withDescription("Revoke an identity for good; its sessions end."))

/** What became of the identity that held the name. */
const fateOf = ({ dryRun, identity }: Contract.NameReset): string =>
  identity === undefined
    ? ""
    : identity.state === "revoked"
      ? `, which ${dryRun === true ? "would be" : "is"} revoked`
      : ", which holds other names and stays"

const reset = Command.make(
  "reset",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    host: Argument.String("name").pipe(
      Argument.withDescription("The full name that is to be freed."),
      Argument.withMetavar("NAME")
    ),
    reason: Input.reasonArgument
  },
  Effect.fn(function* (input) {
    const host = yield* Input.parseName(input.host)
    const reason = yield* Input.reason(input.reason)
    yield* Connection.withClient(input, ({ identities }) =>
      Effect.flatMap(identities.reset({ query: Input.dry(input), payload: { host, reason } }), (done) =>
        input.json
          ? Output.json(done)
          : Console.log(
              `${done.host} ${done.dryRun === true ? "would be" : "is"} free of ${Output.harmless(done.formerOwner)}` +
                fateOf(done) +
                ". Its records stay; the next that may claim the name has it."
            )
      )
    )
  })
).pipe(
  Command.withDescription("Free a name from its key, so that a machine that was rebuilt gets it back."),
  Command.withExamples([
    {
      command: `prism-dns identities reset web-1.hosts.example.net "its disk died"`,
      description: "The machine then enrols anew and has its name"
    }
  ])
)

export const identities = Command.make("identities").pipe(
  Command.withDescription("Keys that machines were enrolled with."),
  Command.withSubcommands([list, show, revoke, reset])
)
