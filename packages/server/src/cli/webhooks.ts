/** `prism-dns webhooks`: addresses to which events are delivered. */
import * as Contract from "@prism-dns/core/api/Webhooks"
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Connection from "./Connection.ts"
import { filterFlags, parseSince, toFilter } from "./events.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const joined = (values: ReadonlyArray<string> | undefined): string | undefined => values?.join(" ")

const columns: ReadonlyArray<Output.Column<Contract.Webhook>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "STATE", cell: ({ state }) => state },
  { head: "POSITION", cell: ({ position }) => position },
  { head: "ATTEMPTS", cell: ({ attempts }) => (attempts === 0 ? undefined : attempts) },
  { head: "URL", cell: ({ url }) => url },
  { head: "KINDS", cell: ({ kinds }) => joined(kinds) },
  { head: "ZONES", cell: ({ zones }) => joined(zones) },
  { head: "ERROR", cell: ({ lastError }) => lastError }
]

const fieldsOf = (webhook: Contract.Webhook) =>
  Output.fields([
    ["name", webhook.name],
    ["id", webhook.id],
    ["url", webhook.url],
    ["state", webhook.state],
    ["kinds", joined(webhook.kinds) ?? "all"],
    ["zones", joined(webhook.zones) ?? "all"],
    ["hosts", joined(webhook.hosts)],
    ["position", webhook.position],
    ["attempts", webhook.attempts],
    ["next attempt", webhook.nextAttemptAt],
    ["last success", webhook.lastSuccessAt],
    ["error", webhook.lastError],
    ["created", `${webhook.createdAt} by ${webhook.createdBy}`],
    ["changed", `${webhook.updatedAt} by ${webhook.updatedBy}`]
  ])

const reference = Argument.String("webhook").pipe(
  Argument.withDescription("The webhook's name, or its id."),
  Argument.withMetavar("NAME")
)

const list = Command.make(
  "list",
  { ...Connection.flags, limit: Pages.limit("Webhooks") },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((query) => webhooks.list({ query }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no webhooks." })
      })
    )
  })
).pipe(Command.withDescription("Webhooks, by name, and how far each is."))

const show = Command.make(
  "show",
  { ...Connection.flags, reference },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.flatMap(webhooks.get({ params: { webhook: input.reference } }), ({ body }) =>
        input.json ? Output.json(body) : fieldsOf(body)
      )
    )
  })
).pipe(Command.withDescription("One webhook."))

const parseUrl = (text: string) => {
  const isUrl: (text: string) => boolean = Schema.is(Contract.Url)
  return isUrl(text)
    ? Effect.succeed(text)
    : Effect.fail(
        new Failure.UsageWrong({ detail: `'${text}' is no URL such as https://cmdb.example.net/hooks/prism` })
      )
}

/** Prints what was made or changed; a new secret stands alone on stdout, so that a pipe holds it and nothing else. */
const told = (webhook: Contract.WebhookWithSecret, what: string) =>
  Effect.gen(function* () {
    if (webhook.secret !== undefined) {
      yield* Console.log(webhook.secret)
      return yield* Output.note(`The webhook ${webhook.name} is ${what}. Its secret is shown this once.`)
    }
    yield* Console.log(
      `${Output.harmless(webhook.name)} ${webhook.dryRun === true ? `would be ${what}` : `is ${what}`}.`
    )
  })

const create = Command.make(
  "create",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    name: Argument.String("name").pipe(
      Argument.withDescription("What it is called: lower-case letters, digits and hyphens."),
      Argument.withMetavar("NAME")
    ),
    url: Argument.String("url").pipe(Argument.withDescription("Where events are posted."), Argument.withMetavar("URL")),
    reason: Input.reasonArgument,
    ...filterFlags
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const url = yield* parseUrl(input.url)
    const filter = yield* toFilter(input)
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.flatMap(
        webhooks.create({ query: Input.dry(input), payload: { name: input.name, url, ...filter, reason } }),
        ({ body }) => (input.json ? Output.json(body) : told(body, "made"))
      )
    )
  })
).pipe(
  Command.withDescription("Make a webhook; its secret is printed this once."),
  Command.withExamples([
    {
      command: `prism-dns webhooks create cmdb https://cmdb.example.net/hooks/prism "the CMDB follows hosts" --kind 'host.*'`,
      description: "Tells another system of each host that comes, changes or goes"
    }
  ])
)

const flag = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const edit = Command.make(
  "edit",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    reference,
    reason: Input.reasonArgument,
    url: Flag.String("url").pipe(
      Flag.withDescription("Where events are posted from now on."),
      Flag.withMetavar("URL"),
      Flag.optional
    ),
    ...filterFlags,
    everything: flag("everything", "Takes all bounds away before those that are given here."),
    pause: flag("pause", "Nothing is sent until it is made active again."),
    resume: flag("resume", "Makes it active again."),
    rotateSecret: flag("rotate-secret", "A new secret; for a day the former one signs beside it.")
  },
  Effect.fn(function* (input) {
    if (input.pause && input.resume) {
      return yield* new Failure.UsageWrong({ detail: "--pause and --resume are one or the other" })
    }
    const reason = yield* Input.reason(input.reason)
    const filter = yield* toFilter(input)
    const url = Option.isSome(input.url) ? yield* parseUrl(input.url.value) : undefined
    const none = input.everything ? { kinds: null, zones: null, hosts: null } : {}
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const params = { webhook: input.reference }
        const { headers } = yield* webhooks.get({ params })
        const { body } = yield* webhooks.change({
          params,
          query: Input.dry(input),
          headers: { "if-match": headers.etag },
          payload: {
            ...none,
            ...filter,
            ...(url !== undefined && { url }),
            ...(input.pause && { state: "paused" as const }),
            ...(input.resume && { state: "active" as const }),
            ...(input.rotateSecret && { rotateSecret: true as const }),
            reason
          }
        })
        yield* input.json ? Output.json(body) : told(body, "changed")
      })
    )
  })
).pipe(Command.withDescription("Change a webhook, pause it, make it active again, or replace its secret."))

const remove = Command.make(
  "delete",
  { ...Connection.flags, dryRun: Input.dryRun, reference, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const params = { webhook: input.reference }
        const { headers } = yield* webhooks.get({ params })
        const query = { ...Input.dry(input), reason }
        const removed = yield* webhooks.remove({ params, query, headers: { "if-match": headers.etag } })
        yield* input.json ? Output.json(removed) : told(removed, "deleted")
      })
    )
  })
).pipe(Command.withDescription("Delete a webhook, and its dead letters."))

const test = Command.make(
  "test",
  { ...Connection.flags, reference },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const outcome = yield* webhooks.test({ params: { webhook: input.reference }, query: {} })
        yield* input.json
          ? Output.json(outcome)
          : Console.log(`${Output.harmless(outcome.detail)} (${outcome.durationSeconds} s)`)
        if (!outcome.delivered) return yield* new Failure.NotAll({ detail: "the message was not taken" })
      })
    )
  })
).pipe(Command.withDescription("Send a message that is about nothing, and say what became of it."))

const replay = Command.make(
  "replay",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    reference,
    reason: Input.reasonArgument,
    since: Flag.String("since").pipe(
      Flag.withDescription(
        "All behind the event of this id, from a time on, or of so long (1h); 0 is all that is kept."
      ),
      Flag.withMetavar("ID|TIME|DURATION"),
      Flag.optional
    ),
    deadLetters: flag("dead-letters", "What was given up.")
  },
  Effect.fn(function* (input) {
    if (Option.isSome(input.since) === input.deadLetters) {
      return yield* new Failure.UsageWrong({ detail: "say either --since or --dead-letters" })
    }
    const reason = yield* Input.reason(input.reason)
    const since = Option.isSome(input.since) ? yield* parseSince(input.since.value) : undefined
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const replayed = yield* webhooks.replay({
          params: { webhook: input.reference },
          query: Input.dry(input),
          payload: { ...(since === undefined ? { deadLetters: true as const } : { since }), reason }
        })
        if (input.json) return yield* Output.json(replayed)
        const does = replayed.dryRun === true ? "would send" : "sends"
        yield* Console.log(
          since === undefined
            ? `${Output.harmless(replayed.name)} ${does} ${replayed.deadLetters} dead letters again.`
            : `${Output.harmless(replayed.name)} ${does} everything behind event ${replayed.position} again.`
        )
      })
    )
  })
).pipe(Command.withDescription("Send events again: from somewhere on, or those that were given up."))

const letterColumns: ReadonlyArray<Output.Column<Contract.DeadLetter>> = [
  { head: "EVENT", cell: ({ position }) => position },
  { head: "GIVEN UP", cell: ({ at }) => at },
  { head: "ATTEMPTS", cell: ({ attempts }) => (attempts === 0 ? "again" : attempts) },
  { head: "ERROR", cell: ({ error }) => error }
]

const deadLetters = Command.make(
  "dead-letters",
  { ...Connection.flags, reference, limit: Pages.limit("Dead letters") },
  Effect.fn(function* (input) {
    const params = { webhook: input.reference }
    yield* Connection.withClient(input, ({ webhooks }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((query) => webhooks.deadLetters({ params, query }), input.limit)
        yield* Pages.print(found, input, { columns: letterColumns, none: "Nothing was given up." })
      })
    )
  })
).pipe(Command.withDescription("Events that were given up, in order."))

export const webhooks = Command.make("webhooks").pipe(
  Command.withDescription("Webhooks: addresses to which events are delivered."),
  Command.withSubcommands([list, show, create, edit, remove, test, replay, deadLetters])
)
