/** `prism-dns zones create|edit|delete|history`: zones while the server runs, and what was set for them. */
import type { PreconditionFailed } from "@prism-dns/core/api/Problems"
import type * as Contract from "@prism-dns/core/api/Zones"
import { ZonePatch, ZoneRequest } from "@prism-dns/core/api/ZoneSettings"
import { Console, Effect, Option, Result, Schema, SchemaIssue } from "effect"
import { Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const settingFlag = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(`${description} May be given again.`),
    Flag.withMetavar(metavar),
    Flag.atLeast(0)
  )

const set = settingFlag(
  "set",
  "SETTING=VALUE",
  "A setting as zones show --json has it, such as policy.ttlSeconds=30 or policy.networks=10.0.0.0/8,192.168.0.0/16."
)

const dryRun = Flag.Boolean("dry-run").pipe(
  Flag.withDescription("Say what would become of it, and change nothing."),
  Flag.withDefault(false)
)

const reason = Flag.String("reason").pipe(
  Flag.withDescription("Why, in a sentence; it is kept in the audit."),
  Flag.withMetavar("REASON"),
  Flag.optional
)

const ifMatch = Flag.String("if-match").pipe(
  Flag.withDescription("The ETag that the change starts from. Default: of what is there now."),
  Flag.withMetavar("ETAG"),
  Flag.optional
)

const reasonOf = (given: Option.Option<string>) =>
  Option.isNone(given) ? Effect.succeed({}) : Effect.map(Input.reason(given.value), (reason) => ({ reason }))

interface Tree {
  [field: string]: unknown
}

const wrong = (detail: string) => new Failure.UsageWrong({ detail })

/** Puts a value into the place that `path` names, fields with dots between them. */
const put = (tree: Tree, path: string, value: unknown): void => {
  const fields = path.split(".")
  const last = fields.pop()!
  let at = tree
  for (const field of fields) {
    const inner = (at[field] ??= {})
    at = inner as Tree
  }
  at[last] = value
}

const lists: ReadonlySet<string> = new Set(["nameservers", "policy.networks"])

/** `30` is a number, `true` is one of two, and what is to be a list has commas. */
const valueOf = (path: string, text: string): unknown => {
  if (lists.has(path)) {
    return text
      .split(",")
      .map((each) => each.trim())
      .filter((each) => each !== "")
  }
  if (/^-?\d+(?:\.\d+)?$/.test(text)) return Number(text)
  return text === "true" ? true : text === "false" ? false : text
}

const pathPattern = /^[a-zA-Z]+(?:\.[a-zA-Z]+){0,2}$/

/** The settings that `--set` and `--unset` name, as a merge patch. */
export const settingsOf = (
  set: ReadonlyArray<string>,
  unset: ReadonlyArray<string> = []
): Result.Result<Tree, Failure.UsageWrong> => {
  const tree: Tree = {}
  for (const each of set) {
    const at = each.indexOf("=")
    const path = each.slice(0, at)
    if (at < 1 || !pathPattern.test(path)) {
      return Result.fail(wrong(`--set ${each}: is to be a setting and its value, such as policy.ttlSeconds=30`))
    }
    put(tree, path, valueOf(path, each.slice(at + 1)))
  }
  for (const path of unset) {
    if (!pathPattern.test(path))
      return Result.fail(wrong(`--unset ${path}: is to be a setting, such as policy.ttlSeconds`))
    put(tree, path, null)
  }
  return Result.succeed(tree)
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** By the name that `--set` has for it. */
const issueText = ({ message, path = [] }: ReturnType<typeof issuesOf>["issues"][number]): string => {
  const setting = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".")
  const detail = message === "Expected no excess property" ? "there is no such setting" : message
  return setting === "" ? detail : `${setting}: ${detail}`
}

/** As the API takes it, or what is wrong with it. */
const decoded = <S extends Schema.Codec<unknown, unknown>>(schema: S, value: unknown) =>
  Schema.decodeUnknownEffect(schema)(value, { onExcessProperty: "error", errors: "all" }).pipe(
    Effect.mapError(({ issue }) => wrong(issuesOf(issue).issues.map(issueText).join("; ")))
  ) as Effect.Effect<S["Type"], Failure.UsageWrong>

const text = (value: unknown): string => (value === undefined ? "-" : JSON.stringify(value))

/** Somebody was faster: what they changed, for people to look at, and no more is done. */
const overtaken = (name: string) => (error: PreconditionFailed) =>
  Effect.gen(function* () {
    for (const { before, now, pointer } of error.changes) {
      yield* Output.note(`${pointer.slice(1).replaceAll("/", ".")}: ${text(before)} is now ${text(now)}`)
    }
    const who = error.changedBy === undefined ? "somebody" : error.changedBy
    const when = error.changedAt === undefined ? "" : ` at ${error.changedAt}`
    return yield* new Failure.RequestFailed({
      detail: `${name} was changed meanwhile by ${who}${when}; nothing was changed now. Look at it (prism-dns zones show ${name}) and try again.`
    })
  })

const marked = (names: number, isDry: boolean): string =>
  names === 0 ? "" : `; ${isDry ? "about " : ""}${names} ${names === 1 ? "name is" : "names are"} looked at again`

const create = Command.make(
  "create",
  { ...Connection.flags, zone: Input.zone, set, reason, dryRun },
  Effect.fn(function* (input) {
    const name = yield* Input.parseName(input.zone)
    const settings = yield* Effect.fromResult(settingsOf(input.set))
    const payload = yield* decoded(ZoneRequest, { name, ...settings, ...(yield* reasonOf(input.reason)) })
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const { body: zone } = yield* zones.create({ payload, query: input.dryRun ? { dryRun: true } : {} })
        if (input.json) return yield* Output.json(zone)
        yield* Console.log(
          `${zone.name} ${input.dryRun ? "would be" : "is"} a ${zone.kind} zone of Prism${marked(zone.namesMarked, input.dryRun)}`
        )
      })
    )
  })
).pipe(
  Command.withDescription("Make a zone; what is not set is as the defaults of the configuration say."),
  Command.withExamples([
    { command: "prism-dns zones create lab.example.net --set policy.ttlSeconds=30", description: "A zone for hosts" },
    { command: "prism-dns zones create 2.0.192.in-addr.arpa --dry-run", description: "How many pointers it would get" }
  ])
)

const edit = Command.make(
  "edit",
  {
    ...Connection.flags,
    zone: Input.zone,
    set,
    unset: settingFlag(
      "unset",
      "SETTING",
      "A setting that the API is to say no more: then the configuration does, or the default."
    ),
    ifMatch,
    reason,
    dryRun
  },
  Effect.fn(function* (input) {
    const name = yield* Input.parseName(input.zone)
    const settings = yield* Effect.fromResult(settingsOf(input.set, input.unset))
    if (Object.keys(settings).length === 0) {
      return yield* wrong("say by --set or --unset what is to be changed, such as --set policy.ttlSeconds=30")
    }
    const payload = yield* decoded(ZonePatch, { ...settings, ...(yield* reasonOf(input.reason)) })
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const before = yield* zones.get({ params: { zone: name }, query: {} })
        const tag = Option.getOrElse(input.ifMatch, () => before.headers.etag)
        const { body: zone } = yield* zones
          .change({
            params: { zone: name },
            query: input.dryRun ? { dryRun: true } : {},
            headers: { "if-match": tag },
            payload
          })
          .pipe(Effect.catchTag("PreconditionFailed", overtaken(name)))
        if (input.json) return yield* Output.json(zone)
        const isSame = zone.generation === before.body.generation && !input.dryRun
        yield* Console.log(
          isSame
            ? `${name} is so already: nothing was changed`
            : `${name} ${input.dryRun ? "would be" : "is"} changed${marked(zone.namesMarked, input.dryRun)}`
        )
      })
    )
  })
).pipe(
  Command.withDescription("Change what is set for a zone, unless somebody else does at the same time."),
  Command.withExamples([
    { command: "prism-dns zones edit lab.example.net --set policy.ttlSeconds=300", description: "Another TTL" },
    {
      command: "prism-dns zones edit lab.example.net --unset policy.ttlSeconds",
      description: "What the configuration says, again"
    }
  ])
)

const remove = Command.make(
  "delete",
  { ...Connection.flags, zone: Input.zone, ifMatch, reason, dryRun },
  Effect.fn(function* (input) {
    const name = yield* Input.parseName(input.zone)
    const why = yield* reasonOf(input.reason)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const tag = Option.isSome(input.ifMatch)
          ? input.ifMatch.value
          : (yield* zones.get({ params: { zone: name }, query: {} })).headers.etag
        const answer = yield* zones
          .remove({
            params: { zone: name },
            query: { ...(input.dryRun && { dryRun: true }), ...why },
            headers: { "if-match": tag }
          })
          .pipe(Effect.catchTag("PreconditionFailed", overtaken(name)))
        if (input.json) return yield* Output.json(answer)
        yield* Console.log(
          `${name} ${input.dryRun ? "would be" : "is"} no zone of Prism any more; in PowerDNS it stays as it is`
        )
      })
    )
  })
).pipe(Command.withDescription("Manage a zone of the API no more, once nothing is in it."))

const historyColumns: ReadonlyArray<Output.Column<Contract.ZoneVersion>> = [
  { head: "SINCE", cell: ({ validFrom }) => validFrom },
  { head: "EVENT", cell: ({ event }) => event },
  { head: "BY", cell: ({ by }) => by },
  { head: "GENERATION", cell: ({ generation }) => generation },
  {
    head: "CHANGES",
    cell: ({ changes }) =>
      changes
        .map(({ before, now, pointer }) => `${pointer.slice(1).replaceAll("/", ".")}: ${text(before)} to ${text(now)}`)
        .join("; ") || undefined
  }
]

const history = Command.make(
  "history",
  { ...Connection.flags, zone: Input.zone, limit: Pages.limit("Versions") },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    yield* Connection.withClient(input, ({ zones }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((query) => zones.history({ params: { zone }, query }), input.limit)
        yield* Pages.print(found, input, {
          columns: historyColumns,
          none: "Nothing is known of it.",
          newestFirst: true
        })
      })
    )
  })
).pipe(Command.withDescription("What was set for a zone, by whom, the newest first."))

export const commands = [create, edit, remove, history] as const
