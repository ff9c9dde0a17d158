/** `prism-dns roles`: what people and programs may do. */
import type * as Contract from "@prism-dns/core/api/Roles"
import { resources, verbs } from "@prism-dns/core/auth/Permissions"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Kind from "../config/Kind.ts"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"
import * as Pages from "./Pages.ts"

/** `write:hosts@lab.example.net.=web-*`: as `--allow` reads it. */
const toText = ({ names, resource, verb, zones }: Contract.Permission): string =>
  `${verb}:${resource}${zones === undefined ? "" : `@${zones.join(",")}`}${names === undefined ? "" : `=${names.join(",")}`}`

const columns: ReadonlyArray<Output.Column<Contract.RolePage["items"][number]>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "KIND", cell: ({ builtIn }) => (builtIn ? "built-in" : "own") },
  { head: "ALLOWS", cell: ({ permissions }) => permissions.map(toText).join(" ") },
  { head: "WHAT FOR", cell: ({ description }) => description }
]

const reference = Argument.String("role").pipe(
  Argument.withDescription("The role's name."),
  Argument.withMetavar("NAME")
)

const list = Command.make(
  "list",
  { ...Connection.flags, limit: Pages.limit("Roles") },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ roles }) =>
      Effect.gen(function* () {
        const found = yield* Pages.collect((query) => roles.list({ query }), input.limit)
        yield* Pages.print(found, input, { columns: columns, none: "There are no roles." })
      })
    )
  })
).pipe(Command.withDescription("Roles, by name, with what they allow."))

const fieldsOf = (role: Contract.Role) =>
  Output.fields([
    ["name", role.name],
    ["kind", role.builtIn ? "built-in" : "own"],
    ["what for", role.description],
    ...role.permissions.map((permission) => ["allows", toText(permission)] as const),
    ["changed", role.updatedAt],
    ["changed by", role.updatedBy]
  ])

const show = Command.make(
  "show",
  { ...Connection.flags, reference },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ roles }) =>
      Effect.flatMap(roles.get({ params: { role: input.reference } }), ({ body }) =>
        input.json ? Output.json(body) : fieldsOf(body)
      )
    )
  })
).pipe(Command.withDescription("One role, with each of its permissions."))

const wrong = (text: string, why: string) =>
  Effect.fail(
    new Failure.UsageWrong({
      detail: `'${text}' ${why}; a permission is such as read:hosts, write:records@lab.example.net or '*:hosts@lab.example.net=web-*'`
    })
  )

const isOneOf = <A extends string>(all: ReadonlyArray<A>, text: string): text is A =>
  (all as ReadonlyArray<string>).includes(text)

const permissionPattern = /^(?<verb>[a-z*]+):(?<resource>[a-z*]+)(?:@(?<zones>[^=]+))?(?:=(?<names>.+))?$/

/** Reads what `toText` writes. */
const parsePermission = Effect.fnUntraced(function* (text: string) {
  const found = permissionPattern.exec(text)?.groups
  if (found === undefined) return yield* wrong(text, "is no permission")
  const { names, resource = "", verb = "", zones } = found
  if (!isOneOf([...verbs, "*"], verb)) return yield* wrong(text, `has the verb ${verb}, none of ${verbs.join(", ")}, *`)
  if (!isOneOf([...resources, "*"], resource)) {
    return yield* wrong(text, `has the resource ${resource}, none of ${resources.join(", ")}, *`)
  }
  const patterns = names?.split(",")
  const bad = patterns?.find((pattern) => Kind.namePattern.parse(pattern)._tag === "Failure")
  if (bad !== undefined) return yield* wrong(text, `has ${bad}, which is no pattern of names`)
  return {
    verb,
    resource,
    ...(zones !== undefined && { zones: yield* Effect.forEach(zones.split(","), Input.parseName) }),
    ...(patterns !== undefined && { names: patterns })
  }
})

const permissionFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(
      `${description} VERB:RESOURCE, then @ZONE and =PATTERN where it is bound. May be given again.`
    ),
    Flag.withMetavar("PERMISSION"),
    Flag.atLeast(0)
  )

const descriptionFlag = Flag.String("description").pipe(
  Flag.withDescription("What it is for, in a sentence."),
  Flag.withMetavar("TEXT"),
  Flag.optional
)

const told = (role: Contract.Role, what: string) =>
  Console.log(`${Output.harmless(role.name)} ${role.dryRun === true ? "would be" : "is"} ${what}.`)

const create = Command.make(
  "create",
  {
    ...Connection.flags,
    dryRun: Input.dryRun,
    name: Argument.String("name").pipe(
      Argument.withDescription("What the role is called: lower-case letters, digits and hyphens."),
      Argument.withMetavar("NAME")
    ),
    reason: Input.reasonArgument,
    description: descriptionFlag,
    allow: permissionFlag("allow", "What it allows.")
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const permissions = yield* Effect.forEach(input.allow, parsePermission)
    const description = Option.getOrElse(input.description, () => reason)
    yield* Connection.withClient(input, ({ roles }) =>
      Effect.flatMap(
        roles.create({ query: Input.dry(input), payload: { name: input.name, description, permissions, reason } }),
        ({ body }) => (input.json ? Output.json(body) : told(body, "made"))
      )
    )
  })
).pipe(
  Command.withDescription("Make a role; it allows nothing but what is said."),
  Command.withExamples([
    {
      command: `prism-dns roles create lab-dns "the lab looks after its zone" --allow read:zones@lab.example.net --allow '*:records@lab.example.net'`,
      description: "May change the records of one zone"
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
    description: descriptionFlag,
    allow: permissionFlag("allow", "What it allows from now on, besides."),
    deny: permissionFlag("deny", "What it allows no more, as roles show writes it.")
  },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const allow = yield* Effect.forEach(input.allow, parsePermission)
    const deny = new Set((yield* Effect.forEach(input.deny, parsePermission)).map(toText))
    yield* Connection.withClient(input, ({ roles }) =>
      Effect.gen(function* () {
        const params = { role: input.reference }
        const { body: before, headers } = yield* roles.get({ params })
        const has = new Set(before.permissions.map(toText))
        const missing = [...deny].find((each) => !has.has(each))
        if (missing !== undefined) return yield* wrong(missing, `is not what ${before.name} allows`)
        const permissions = [
          ...before.permissions.filter((each) => !deny.has(toText(each))),
          ...allow.filter((each) => !has.has(toText(each)))
        ]
        const { body } = yield* roles.change({
          params,
          query: Input.dry(input),
          headers: { "if-match": headers.etag },
          payload: {
            permissions,
            ...(Option.isSome(input.description) && { description: input.description.value }),
            reason
          }
        })
        yield* input.json ? Output.json(body) : fieldsOf(body)
        if (body.dryRun === true) yield* Output.note("nothing was changed: this is what it would be")
      })
    )
  })
).pipe(Command.withDescription("Change what a role allows; it goes for everybody who has it, at once."))

const remove = Command.make(
  "delete",
  { ...Connection.flags, dryRun: Input.dryRun, reference, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    yield* Connection.withClient(input, ({ roles }) =>
      Effect.gen(function* () {
        const params = { role: input.reference }
        const { headers } = yield* roles.get({ params })
        const removed = yield* roles.remove({
          params,
          query: { ...Input.dry(input), reason },
          headers: { "if-match": headers.etag }
        })
        yield* input.json ? Output.json(removed) : told(removed, "deleted")
      })
    )
  })
).pipe(Command.withDescription("Delete a role that nobody has."))

export const roles = Command.make("roles").pipe(
  Command.withDescription("Roles: what people and programs may do by the API."),
  Command.withSubcommands([list, show, create, edit, remove])
)
