/** What hosts and records were, where they come from, and plans that make them what they were: parts of several commands. */
import type * as Contract from "@prism-dns/core/api/History"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"
import { summary } from "./plan.ts"

const labelsText = (labels: Contract.ChangedVersion["labels"]): string | undefined =>
  Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(" ") || undefined

const versionColumns: ReadonlyArray<Output.Column<Contract.ChangedVersion>> = [
  { head: "FROM", cell: ({ validFrom }) => validFrom },
  { head: "TO", cell: ({ validTo }) => validTo },
  { head: "EVENT", cell: ({ event }) => event },
  { head: "STATE", cell: ({ state }) => state },
  { head: "ADDRESSES", cell: ({ addresses }) => addresses.join(" ") },
  { head: "OWNER", cell: ({ owner }) => owner },
  { head: "BY", cell: ({ change }) => change?.actor },
  { head: "ENTRY", cell: ({ change }) => change?.position },
  { head: "REASON", cell: ({ change }) => change?.reason },
  { head: "LABELS", cell: ({ labels }) => labelsText(labels) }
]

/** `hosts history`. */
export const hostHistory = Command.make(
  "history",
  { ...Connection.flags, host: Input.host, limit: Pages.limit("Versions") },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ history }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect(
          (query) => history.hostHistory({ params: { host: input.host }, query }),
          input.limit
        )
        yield* Pages.print(found, input, {
          columns: versionColumns,
          none: "There was nothing of it.",
          newestFirst: true
        })
      })
    )
  })
).pipe(Command.withDescription("What a host was, the newest first, and who made it so; also of a name nobody has now."))

/** `hosts explain`. */
export const explainHost = Command.make(
  "explain",
  { ...Connection.flags, host: Input.host },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ history }) =>
      Effect.flatMap(
        history.explainHost({ params: { host: input.host }, query: { format: input.json ? "json" : "text" } }),
        (found) => (typeof found === "string" ? Console.log(Output.harmlessLines(found.trimEnd())) : Output.json(found))
      )
    )
  })
).pipe(
  Command.withDescription("Why a host is as it is: from who said what to what each name server answers."),
  Command.withExamples([
    { command: "prism-dns hosts explain web-1.hosts.example.net", description: "The chain, and what stands in the way" }
  ])
)

/** `records explain`. */
export const explainRecord = Command.make(
  "explain",
  {
    ...Connection.flags,
    zone: Input.zone,
    name: Argument.String("name").pipe(
      Argument.withDescription("The record's name: full, or what stands before the zone; @ is the zone itself."),
      Argument.withMetavar("NAME")
    ),
    type: Argument.String("type").pipe(
      Argument.withDescription("Its type, such as A or PTR."),
      Argument.withMetavar("TYPE")
    )
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    const params = { zone, name: yield* Input.parseNameIn(zone, input.name), type: input.type }
    yield* Connection.withClient(input, ({ history }) =>
      Effect.flatMap(history.explainRecord({ params, query: { format: input.json ? "json" : "text" } }), (found) =>
        typeof found === "string" ? Console.log(Output.harmlessLines(found.trimEnd())) : Output.json(found)
      )
    )
  })
).pipe(Command.withDescription("Why a record is there, or is not: a host's, people's, or someone else's."))

const differenceColumns: ReadonlyArray<Output.Column<Contract.Difference>> = [
  { head: "WHAT", cell: (item) => (item.kind === "record" ? item.type : "host") },
  { head: "NAME", cell: ({ name }) => name },
  { head: "CHANGE", cell: ({ change }) => change },
  { head: "FIELDS", cell: ({ fields }) => fields.join(" ") },
  { head: "BEFORE", cell: (item) => shortly(item, "before") },
  { head: "AFTER", cell: (item) => shortly(item, "after") }
]

const shortly = (item: Contract.Difference, side: "before" | "after"): string | undefined => {
  if (item.kind === "host") {
    const version = item[side]
    return version === undefined ? undefined : `${version.state} ${version.addresses.join(" ")}`
  }
  const version = item[side]
  return version === undefined ? undefined : `${version.ttlSeconds} ${version.contents.join(" ")}`
}

/** `prism-dns diff`. */
export const diff = Command.make(
  "diff",
  {
    ...Connection.flags,
    from: Flag.String("from").pipe(
      Flag.withDescription("The earlier time, or how long ago: 15m."),
      Flag.withMetavar("TIME")
    ),
    to: Flag.String("to").pipe(
      Flag.withDescription("The later time. Default: now."),
      Flag.withMetavar("TIME"),
      Flag.optional
    ),
    zone: Flag.String("zone").pipe(
      Flag.withDescription("Only names of this zone."),
      Flag.withMetavar("ZONE"),
      Flag.optional
    ),
    limit: Pages.limit("Differences")
  },
  Effect.fn(function* (input) {
    const query = {
      from: yield* Input.time(input.from),
      ...(Option.isSome(input.to) && { to: yield* Input.time(input.to.value) }),
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) })
    }
    yield* Connection.withClient(input, ({ history }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((asked) => history.diff({ query: { ...query, ...asked } }), input.limit)
        yield* Pages.print(found, input, { columns: differenceColumns, none: "Nothing differs." })
      })
    )
  })
).pipe(
  Command.withDescription("What differs between two times: hosts, and the records that people manage."),
  Command.withExamples([
    { command: "prism-dns diff --from 2026-11-23T10:00:00Z --zone hosts.example.net", description: "Since then" }
  ])
)

const restoreFlags = {
  ...Connection.flags,
  at: Flag.String("at").pipe(
    Flag.withDescription("What was at this time is to be again, such as 2026-11-23T10:48:00Z, or so long ago: 15m."),
    Flag.withMetavar("TIME")
  ),
  dryRun: Flag.Boolean("dry-run").pipe(
    Flag.withDescription("Say what the plan would be, and keep none."),
    Flag.withDefault(false)
  )
}

const request = Effect.fnUntraced(function* (input: {
  readonly at: string
  readonly reason: string
  readonly dryRun: boolean
}) {
  return {
    payload: { at: yield* Input.time(input.at), reason: yield* Input.reason(input.reason) },
    query: input.dryRun ? { dryRun: true } : {}
  }
})

/** The plan in words, as it is to be decided about. */
const shown = Effect.fnUntraced(function* (
  input: Connection.Options & { readonly json: boolean },
  plan: Contract.RestorePlan
) {
  if (input.json) return yield* Output.json(plan)
  if (plan.counts.changes === 0) return yield* Console.log("Nothing to do: it is as it was.")
  if (plan.dryRun === true) return yield* Console.log(`The plan would be: ${summary(plan)}`)
  yield* Connection.withClient(input, ({ plans }) =>
    Effect.flatMap(plans.get({ params: { plan: plan.id }, query: { format: "text" } }), (text) =>
      typeof text === "string"
        ? Console.log(Output.harmlessLines(text.trimEnd()))
        : Effect.fail(new Failure.RequestFailed({ detail: "the plan came in another form than text" }))
    )
  )
  // One that leaves everything alone is done with.
  if (plan.state !== "open") return
  if (Output.isTerminal()) yield* Console.log(`Apply it: prism-dns plan apply ${plan.id}`)
})

/** `hosts restore`. */
export const restoreHost = Command.make(
  "restore",
  { ...restoreFlags, host: Input.host, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const { payload, query } = yield* request(input)
    const { body } = yield* Connection.withClient(input, ({ history }) =>
      history.restoreHost({ params: { host: input.host }, query, payload })
    )
    yield* shown(input, body)
  })
).pipe(Command.withDescription("Make a plan that makes a name what it was; nothing is changed before it is applied."))

/** `zones restore`. */
export const restoreZone = Command.make(
  "restore",
  { ...restoreFlags, zone: Input.zone, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const { payload, query } = yield* request(input)
    const zone = yield* Input.parseName(input.zone)
    const { body } = yield* Connection.withClient(input, ({ history }) =>
      history.restoreZone({ params: { zone }, query, payload })
    )
    yield* shown(input, body)
  })
).pipe(Command.withDescription("Make a plan that makes a zone what it was; nothing is changed before it is applied."))
