/** `prism-dns publications`: what is on its way to PowerDNS. */
import type * as Contract from "@prism-dns/core/api/Publications"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const columns: ReadonlyArray<Output.Column<Contract.PendingName>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "STATE", cell: ({ state }) => state },
  { head: "SINCE", cell: ({ markedAt }) => markedAt },
  { head: "WHY", cell: ({ reason }) => reason }
]

const zone = Flag.String("zone").pipe(
  Flag.withDescription("Only names of this zone."),
  Flag.withMetavar("ZONE"),
  Flag.optional
)

const list = Command.make(
  "list",
  { ...Connection.flags, zone },
  Effect.fn(function* (input) {
    const query = { limit: 1000, ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }) }
    yield* Connection.withClient(input, ({ publications }) =>
      Effect.flatMap(publications.list({ query }), (answer) =>
        input.json ? Output.json(answer) : Output.rows(columns, answer.items, "Nothing waits, nothing is parked.")
      )
    )
  })
).pipe(Command.withDescription("Names that wait to be published, and those that are parked, with why."))

const triedAgain = ({ dryRun, names }: Contract.Retried): string =>
  dryRun === true ? "would be tried again" : `${names === 1 ? "is" : "are"} tried again`

const retry = Command.make(
  "retry",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    zone,
    name: Flag.String("name").pipe(Flag.withDescription("Only this name."), Flag.withMetavar("NAME"), Flag.optional)
  },
  Effect.fn(function* (input) {
    const payload = {
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
      ...(Option.isSome(input.name) && { name: yield* Input.parseName(input.name.value) })
    }
    yield* Connection.withClient(input, ({ publications }) =>
      Effect.flatMap(publications.retry({ query: Input.dry(input), payload }), (answer) =>
        input.json
          ? Output.json(answer)
          : Console.log(`${answer.names === 1 ? "1 name" : `${answer.names} names`} ${triedAgain(answer)}.`)
      )
    )
  })
).pipe(Command.withDescription("Try parked names again; those that a plan holds back wait for its decision."))

export const publications = Command.make("publications").pipe(
  Command.withDescription("What is on its way to PowerDNS."),
  Command.withSubcommands([list, retry])
)
