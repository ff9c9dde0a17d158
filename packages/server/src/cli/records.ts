/** `prism-dns records`: records that people manage, beside those of hosts. */
import type { Client } from "@prism-dns/core/api/Client"
import * as Contract from "@prism-dns/core/api/Records"
import type { NameRecords } from "@prism-dns/core/api/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { isRecordType, type RecordType, recordTypes } from "@prism-dns/core/domain/RecordContent"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import { explainRecord } from "./history.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const nameArgument = Argument.String("name").pipe(
  Argument.withDescription("The record's name: full, or what stands before the zone; @ is the zone itself."),
  Argument.withMetavar("NAME")
)

const typeArgument = Argument.String("type").pipe(
  Argument.withDescription(`The record's type: ${recordTypes.join(", ")}.`),
  Argument.withMetavar("TYPE")
)

const optionalReason = Flag.String("reason").pipe(
  Flag.withDescription("Why; it is kept in the audit."),
  Flag.withMetavar("TEXT"),
  Flag.optional
)

const ifMatchFlag = Flag.String("if-match").pipe(
  Flag.withDescription("Only if it is still this version (its ETag). Default: as it is at this moment."),
  Flag.withMetavar("ETAG"),
  Flag.optional
)

const parseType = (text: string): Effect.Effect<RecordType, Failure.UsageWrong> => {
  const upper = text.toUpperCase()
  return isRecordType(upper)
    ? Effect.succeed(upper)
    : Effect.fail(new Failure.UsageWrong({ detail: `'${text}' is none of the types ${recordTypes.join(", ")}` }))
}

const reasonOf = (reason: Option.Option<string>) =>
  Option.isNone(reason) ? Effect.succeed({}) : Effect.map(Input.reason(reason.value), (text) => ({ reason: text }))

interface Line {
  readonly name: string
  readonly owner: string
  readonly type: string
  readonly ttlSeconds: number
  readonly content: string
  readonly disabled: boolean
}

const linesOf = ({ disabled, name, owner, recordSets }: NameRecords): ReadonlyArray<Line> =>
  recordSets.flatMap(({ contents, ttlSeconds, type }) =>
    contents.map((content) => ({ name, owner, type, ttlSeconds, content, disabled }))
  )

const columns: ReadonlyArray<Output.Column<Line>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "TTL", cell: ({ ttlSeconds }) => ttlSeconds },
  { head: "TYPE", cell: ({ type }) => type },
  { head: "CONTENT", cell: ({ content }) => content },
  { head: "OWNER", cell: ({ owner }) => owner },
  { head: "DISABLED", cell: ({ disabled }) => (disabled ? "yes" : undefined) }
]

const list = Command.make(
  "list",
  {
    ...Connection.flags,
    zone: Input.zone,
    ownership: Flag.Literals("ownership", ["managed", "foreign", "ignored"]).pipe(
      Flag.withDescription("Names that are Prism's (hosts' and people's), someone else's, or left alone."),
      Flag.withDefault("managed" as const)
    ),
    at: Input.at,
    limit: Pages.limit("Names")
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    const at = yield* Input.atQuery(input.at)
    if (at.at !== undefined && input.ownership !== "managed") {
      return yield* new Failure.UsageWrong({
        detail: "what others had at a time is not known: --at goes with managed records"
      })
    }
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect(
          (query) => zones.records({ params: { zone }, query: { ...query, ...at, ownership: input.ownership } }),
          input.limit
        )
        if (input.json) return yield* Output.json(found)
        yield* Output.rows(columns, found.items.flatMap(linesOf), "There are no records.")
        if ("nextCursor" in found) yield* Output.note(`the first ${input.limit} names; --limit gives more`)
      })
    )
  })
).pipe(Command.withDescription("What stands in a zone, by whose it is."))

const fieldsOf = (record: Contract.RecordSet) =>
  Output.fields([
    ["name", record.name],
    ["type", record.type],
    ["ttl", Output.seconds(record.ttlSeconds)],
    ...record.contents.map((content) => ["content", content] as const),
    ["origin", record.origin],
    ["changed by", record.changedBy],
    ["changed", record.changedAt],
    ["generation", record.generation],
    ["published", record.publication.level],
    ["error", record.publication.error]
  ])

const place = { zone: Input.zone, name: nameArgument, type: typeArgument }

const parsePlace = Effect.fnUntraced(function* (input: {
  readonly zone: string
  readonly name: string
  readonly type: string
}) {
  const zone = yield* Input.parseName(input.zone)
  return { zone, name: yield* Input.parseNameIn(zone, input.name), type: yield* parseType(input.type) }
})

const show = Command.make(
  "show",
  { ...Connection.flags, ...place },
  Effect.fn(function* (input) {
    const params = yield* parsePlace(input)
    yield* Connection.withClient(input, ({ records }) =>
      Effect.flatMap(records.get({ params }), ({ body }) => (input.json ? Output.json(body) : fieldsOf(body)))
    )
  })
).pipe(Command.withDescription("One record set that people manage."))

/** The version that the change starts from: the one named, or the one that is there. */
const versionOf = Effect.fnUntraced(function* (
  records: Client["records"],
  params: { readonly zone: DomainName; readonly name: DomainName; readonly type: RecordType },
  ifMatch: Option.Option<string>
) {
  if (Option.isSome(ifMatch)) return ifMatch.value
  return yield* records.get({ params }).pipe(
    Effect.map(({ headers }): string | undefined => headers.etag),
    Effect.catchTag("RecordNotFound", () => Effect.succeed(undefined))
  )
})

const told = Effect.fnUntraced(function* (
  { dryRun, outcome, publishes, record }: Contract.RecordChanged,
  { name, type }: { readonly name: string; readonly type: string }
) {
  const isDry = dryRun === true
  if (outcome === "unchanged") return yield* Console.log(`${name} ${type} is so already.`)
  yield* Console.log(`${name} ${type} ${isDry ? "would be" : "is"} ${outcome}.`)
  for (const { after, before, name, type } of publishes) {
    for (const content of before?.contents ?? []) {
      yield* Console.log(Output.harmless(`- ${name} ${before?.ttlSeconds ?? 0} ${type} ${content}`))
    }
    for (const content of after?.contents ?? []) {
      yield* Console.log(Output.harmless(`+ ${name} ${after?.ttlSeconds ?? 0} ${type} ${content}`))
    }
  }
  if (!isDry && record !== undefined) {
    const { error, level } = record.publication
    yield* Output.note(error === undefined ? `it is ${level}` : `it is ${level}: ${error}`)
  }
})

const waitFlag = Flag.Literals("wait", ["no", "applied", "served"]).pipe(
  Flag.withDescription("Come back once it is so far, after 10 s at the latest."),
  Flag.withDefault("applied" as const)
)

const set = Command.make(
  "set",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    ...place,
    contents: Argument.String("content").pipe(
      Argument.withDescription("The contents of the set, all of them; what is not named goes."),
      Argument.withMetavar("CONTENT"),
      Argument.variadic({ min: 1 })
    ),
    ttl: Flag.Int("ttl").pipe(
      Flag.withDescription("In seconds. Default: what it was, or the zone's."),
      Flag.withMetavar("SECONDS"),
      Flag.optional
    ),
    create: Flag.Boolean("create").pipe(
      Flag.withDescription("Only if there is no such set yet."),
      Flag.withDefault(false)
    ),
    ifMatch: ifMatchFlag,
    wait: waitFlag,
    reason: optionalReason
  },
  Effect.fn(function* (input) {
    const params = yield* parsePlace(input)
    const reason = yield* reasonOf(input.reason)
    yield* Connection.withClient(input, ({ records }) =>
      Effect.gen(function* () {
        const version = input.create ? undefined : yield* versionOf(records, params, input.ifMatch)
        const { body } = yield* records.put({
          params,
          query: { ...Input.dry(input), ...(input.wait !== "no" && { waitFor: input.wait }) },
          headers: input.create ? { "if-none-match": "*" } : version === undefined ? {} : { "if-match": version },
          payload: {
            contents: input.contents,
            ...(Option.isSome(input.ttl) && { ttlSeconds: input.ttl.value }),
            ...reason
          }
        })
        yield* input.json ? Output.json(body) : told(body, params)
      })
    )
  })
).pipe(
  Command.withDescription("Make a record set, or change it to what is said."),
  Command.withExamples([
    { command: "prism-dns records set example.net www CNAME web-1.example.net.", description: "Another name" },
    { command: "prism-dns records set example.net @ MX '10 mail.example.net.'", description: "Where mail goes" },
    { command: "prism-dns records set example.net @ TXT 'v=spf1 mx -all'", description: "A text, without quoting it" }
  ])
)

const remove = Command.make(
  "delete",
  { ...Connection.flags, dryRun: Input.dryRun, ...place, ifMatch: ifMatchFlag, wait: waitFlag, reason: optionalReason },
  Effect.fn(function* (input) {
    const params = yield* parsePlace(input)
    const reason = yield* reasonOf(input.reason)
    yield* Connection.withClient(input, ({ records }) =>
      Effect.gen(function* () {
        const version = yield* versionOf(records, params, input.ifMatch)
        const body = yield* records.remove({
          params,
          query: { ...Input.dry(input), ...(input.wait !== "no" && { waitFor: input.wait }), ...reason },
          headers: version === undefined ? {} : { "if-match": version }
        })
        yield* input.json ? Output.json(body) : told(body, params)
      })
    )
  })
).pipe(Command.withDescription("Delete a record set, from PowerDNS too."))

export const records = Command.make("records").pipe(
  Command.withDescription("Records that people manage, beside those of hosts."),
  Command.withSubcommands([list, show, set, remove, explainRecord])
)
