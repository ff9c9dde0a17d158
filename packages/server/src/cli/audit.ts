/** `prism-dns audit`: who did what, when and why, and whether the log of it is as it was sealed. */
import type * as Contract from "@prism-dns/core/api/Audit"
import * as AuditApi from "@prism-dns/core/api/Audit"
import { actions, matching } from "@prism-dns/core/audit/Actions"
import * as AuditCheck from "@prism-dns/core/audit/AuditCheck"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { canonicalJson } from "@prism-dns/core/audit/Chain"
import type { Finding, Point } from "@prism-dns/core/audit/Verification"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import * as Readline from "node:readline"
import * as Config from "../Config.ts"
import * as PostgresHosts from "../database/PostgresHosts.ts"
import * as PostgresUrl from "../database/PostgresUrl.ts"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

const columns: ReadonlyArray<Output.Column<Contract.Entry>> = [
  { head: "POSITION", cell: ({ position }) => position },
  { head: "AT", cell: ({ at }) => at },
  { head: "ACTOR", cell: ({ actor }) => actor },
  { head: "ACTION", cell: ({ action }) => action },
  { head: "SUBJECT", cell: ({ subject }) => subject },
  { head: "RESULT", cell: ({ result }) => (result === "done" ? undefined : result) },
  { head: "REASON", cell: ({ reason }) => reason }
]

const filter = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

const list = Command.make(
  "list",
  {
    ...Connection.flags,
    zone: filter("zone", "ZONE", "Only entries of this zone."),
    actor: filter("actor", "NAME", "Only what this principal did; prism is Prism itself."),
    action: filter("action", "ACTION", "Only this action, such as token.issued, or all of a kind: host.*."),
    subject: filter("subject", "SUBJECT", "Only what was done to this: a full name, a zone, a plan's id, a token."),
    request: filter("request", "ID", "Only what this API request did."),
    result: filter("result", "WORD", "Only entries of this result: done, refused."),
    since: filter("since", "TIME", "Not before this time, or as long ago: 2h."),
    until: filter("until", "TIME", "Not after this time, or as long ago."),
    limit: Pages.limit("Entries")
  },
  Effect.fn(function* (input) {
    const { action } = input
    if (Option.isSome(action) && matching(action.value) === undefined) {
      return yield* new Failure.UsageWrong({
        detail: `'${action.value}' is no action; they are ${actions.join(", ")}, and all of a kind: host.*`
      })
    }
    const text = (name: "actor" | "action" | "subject" | "request" | "result") =>
      Option.isSome(input[name]) ? { [name]: input[name].value } : {}
    const query = {
      ...(Option.isSome(input.zone) && { zone: yield* Input.parseName(input.zone.value) }),
      ...(Option.isSome(input.since) && { since: yield* Input.time(input.since.value) }),
      ...(Option.isSome(input.until) && { until: yield* Input.time(input.until.value) }),
      ...text("actor"),
      ...text("action"),
      ...text("subject"),
      ...text("request"),
      ...text("result")
    }
    yield* Connection.withClient(input, (client) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((asked) => client.audit.list({ query: { ...query, ...asked } }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no such entries.", newestFirst: true })
      })
    )
  })
).pipe(Command.withDescription("Entries of the audit, the newest first."))

const show = Command.make(
  "show",
  {
    ...Connection.flags,
    position: Argument.String("position").pipe(
      Argument.withDescription("The entry's position, as the list says it."),
      Argument.withMetavar("POSITION")
    )
  },
  Effect.fn(function* (input) {
    if (!/^[1-9][0-9]{0,15}$/.test(input.position)) {
      return yield* new Failure.UsageWrong({ detail: `'${input.position}' is no position of an entry, such as 4711` })
    }
    yield* Connection.withClient(input, (client) =>
      Effect.flatMap(client.audit.get({ params: { position: input.position } }), (entry) =>
        input.json
          ? Output.json(entry)
          : Output.fields([
              ["position", entry.position],
              ["at", entry.at],
              ["actor", entry.actor],
              ["from", entry.peer],
              ["action", entry.action],
              ["zone", entry.zone],
              ["subject", entry.subject],
              ["before", entry.before === undefined ? undefined : canonicalJson(entry.before)],
              ["after", entry.after === undefined ? undefined : canonicalJson(entry.after)],
              ["reason", entry.reason],
              ["cause", entry.cause],
              ["request", entry.request],
              ["result", entry.result],
              ["generation", entry.generation],
              ["hash", entry.hash]
            ])
      )
    )
  })
).pipe(Command.withDescription("One entry, with all it says."))

/** What a verification came to. */
interface Outcome {
  readonly entries: number
  readonly findings: ReadonlyArray<Finding>
  readonly more: boolean
  readonly last: Point | undefined
  readonly broken?: string | undefined
}

/** Says it, and fails where something is wrong. */
const tell = Effect.fnUntraced(function* (outcome: Outcome, json: boolean) {
  const { broken, entries, findings, last, more } = outcome
  const ok = findings.length === 0 && broken === undefined
  if (json) yield* Output.json({ ok, ...outcome })
  else if (ok) {
    yield* Console.log(`${entries} entries, all as they were sealed.`)
    if (last !== undefined) yield* Console.log(`Note this elsewhere, for --anchor: ${last.position}:${last.hash}`)
  } else {
    if (broken !== undefined) yield* Console.log(Output.harmless(broken))
    for (const { detail, what } of findings) yield* Console.log(`${what}: ${Output.harmless(detail)}`)
  }
  if (ok) return
  yield* new Failure.NotAll({
    detail: `the audit is not as it was sealed: ${broken === undefined ? "" : "the file is broken; "}${findings.length}${more ? " places and more" : findings.length === 1 ? " place" : " places"}`
  })
})

const isAnchor: (text: string) => boolean = Schema.is(AuditApi.Anchor)

const positionAndHash = (text: string): Effect.Effect<Point, Failure.UsageWrong> =>
  isAnchor(text)
    ? Effect.succeed({ position: Number(text.slice(0, text.indexOf(":"))), hash: text.slice(text.indexOf(":") + 1) })
    : Effect.fail(
        new Failure.UsageWrong({ detail: `the anchor '${text}' is no position and hash, as verify has printed them` })
      )

/** By the API, a part at a time. */
const byServer = (input: Connection.Options, anchor: string | undefined) =>
  Connection.withClientForLong(input, (client) =>
    Effect.gen(function* () {
      const findings: Array<Finding> = []
      let entries = 0
      let more = false
      let last: Point | undefined
      for (let from: number | undefined = 0; from !== undefined;) {
        const query = { ...(from > 0 && { from }), ...(anchor !== undefined && { anchor }) }
        const part: Contract.Verified = yield* client.audit.verify({ query })
        findings.push(...part.findings)
        entries += part.entries
        more ||= part.more
        last = part.last ?? last
        from = part.next
        if (from !== undefined && process.stderr.isTTY) yield* Output.note(`${part.to} of ${part.newest}`)
      }
      return { entries, findings, more, last }
    })
  )

const byFile = (
  path: string,
  noted: ReadonlyArray<Point>,
  grows: boolean
): Effect.Effect<Outcome, Failure.FileUnusable> =>
  Effect.tryPromise({
    try: async () => {
      const reader = AuditExport.reader(noted, { grows })
      const file = path === "-" ? process.stdin : Fs.createReadStream(path)
      for await (const line of Readline.createInterface({ input: file, crlfDelay: Infinity })) reader.line(line)
      return reader.end()
    },
    catch: (error) => new Failure.FileUnusable({ path, detail: detailOf(error) })
  })

/** On the database itself, without the server: in a part at a time, only reading. */
const onDatabase = (noted: ReadonlyArray<Point>) =>
  Effect.gen(function* () {
    const { check } = AuditCheck.make(yield* SqlClient.SqlClient)
    const findings: Array<Finding> = []
    let entries = 0
    let more = false
    let last: Point | undefined
    for (let from: number | undefined = 0; from !== undefined;) {
      const part: AuditCheck.Checked = yield* check({ ...(from > 0 && { from }), noted })
      findings.push(...part.findings)
      entries += part.entries
      more ||= part.more
      last = part.last ?? last
      from = part.next
    }
    return { entries, findings, more, last }
  })

const byConfiguration = Effect.fnUntraced(function* (file: string, noted: ReadonlyArray<Point>) {
  const { config } = yield* Config.load({ file, environment: process.env })
  const { url } = config.storage
  const unusable = (path: string) => (error: unknown) => new Failure.FileUnusable({ path, detail: detailOf(error) })
  if (url._tag === "Postgres") {
    const database = PostgresHosts.clientOf(url, { maxConnections: 1, applicationName: "prism-dns audit" })
    return yield* onDatabase(noted).pipe(Effect.provide(database), Effect.mapError(unusable(PostgresUrl.describe(url))))
  }
  if (!Fs.existsSync(url.filename)) {
    return yield* new Failure.FileUnusable({ path: url.filename, detail: "there is no such file" })
  }
  return yield* onDatabase(noted).pipe(
    Effect.provide(Sqlite.layer({ filename: url.filename, readOnly: true })),
    Effect.mapError(unusable(url.filename))
  )
})

const verify = Command.make(
  "verify",
  {
    ...Connection.flags,
    grows: Flag.Boolean("grows").pipe(
      Flag.withDescription("The file is one that audit.export appends to: it has no end yet."),
      Flag.withDefault(false)
    ),
    file: filter("file", "FILE", "An export, in place of the server; - is the standard input."),
    config: filter("config", "FILE", "The server's configuration: reads its database itself, without the server."),
    anchor: filter("anchor", "POSITION:HASH", "A head of the log that was noted earlier.")
  },
  Effect.fn(function* (input) {
    const anchor = Option.getOrUndefined(input.anchor)
    const noted = anchor === undefined ? [] : [yield* positionAndHash(anchor)]
    if (Option.isSome(input.file) && Option.isSome(input.config)) {
      return yield* new Failure.UsageWrong({ detail: "--file or --config, not both" })
    }
    const outcome: Outcome = Option.isSome(input.file)
      ? yield* byFile(input.file.value, noted, input.grows)
      : Option.isSome(input.config)
        ? yield* byConfiguration(input.config.value, noted)
        : yield* byServer(input, anchor)
    yield* tell(outcome, input.json)
  })
).pipe(
  Command.withDescription("Whether the log is as it was sealed; ends with 1 and names each place where it is not."),
  Command.withExamples([
    { command: "prism-dns audit verify", description: "Asks the server" },
    { command: "prism-dns audit verify --file audit.jsonl", description: "An export, wherever that is" },
    {
      command: "prism-dns audit verify --config prism.yaml",
      description: "The database, when the server is not trusted"
    }
  ])
)

/** A pipe takes what it takes: the rest is written when it takes more. */
const writeAll = async (fd: number, chunk: Uint8Array): Promise<void> => {
  for (let written = 0; written < chunk.length;) {
    try {
      written += Fs.writeSync(fd, chunk, written)
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

const exportAll = Command.make(
  "export",
  {
    ...Connection.flags,
    output: filter("output", "FILE", "Where to write it. Default: the standard output."),
    from: Flag.Int("from").pipe(
      Flag.withDescription("The first position. Default: the oldest entry."),
      Flag.withMetavar("POSITION"),
      Flag.optional
    ),
    to: Flag.Int("to").pipe(
      Flag.withDescription("The last position. Default: the newest entry."),
      Flag.withMetavar("POSITION"),
      Flag.optional
    )
  },
  Effect.fn(function* (input) {
    const query = new URLSearchParams({
      ...(Option.isSome(input.from) && { from: String(input.from.value) }),
      ...(Option.isSome(input.to) && { to: String(input.to.value) })
    })
    const path = Option.getOrUndefined(input.output)
    const unusable = (error: unknown) =>
      new Failure.FileUnusable({ path: path ?? "the standard output", detail: detailOf(error) })
    const file = yield* Effect.acquireRelease(
      Effect.try({ try: () => (path === undefined ? process.stdout.fd : Fs.openSync(path, "w")), catch: unusable }),
      (fd) => Effect.sync(() => (path === undefined ? undefined : Fs.closeSync(fd)))
    )
    yield* Connection.download(input, `/v1/audit/export?${query.toString()}`, (chunk) =>
      Effect.tryPromise({ try: () => writeAll(file, chunk), catch: unusable })
    )
  }, Effect.scoped)
).pipe(Command.withDescription("The log as lines of JSON, which can be verified anywhere."))

export const audit = Command.make("audit").pipe(
  Command.withDescription("Who did what, when and why, and whether the log of it is as it was sealed."),
  Command.withSubcommands([list, show, verify, exportAll])
)
