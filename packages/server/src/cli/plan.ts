/** `prism-dns plan`: changes to be looked at before they are made. */
import type { Client } from "@prism-dns/core/api/Client"
import * as Page from "@prism-dns/core/api/Page"
import type * as Contract from "@prism-dns/core/api/Plans"
import { planActions } from "@prism-dns/core/domain/Plan"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag, Prompt } from "effect/cli"
import * as Connection from "./Connection.ts"
import * as Failure from "./Failure.ts"
import * as Input from "./Input.ts"
import * as Output from "./Output.ts"

const id = Argument.String("id").pipe(Argument.withDescription("The plan's id."), Argument.withMetavar("ID"))

const optionalReason = Flag.String("reason").pipe(
  Flag.withDescription("Why; it is kept with the plan."),
  Flag.withMetavar("TEXT"),
  Flag.optional
)

const patternFlag = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("PATTERN"), Flag.optional)

/** `2 create, 1 delete`. */
export const summary = ({ counts }: Contract.Plan): string => {
  const said = planActions.filter((action) => counts[action] > 0).map((action) => `${counts[action]} ${action}`)
  return said.length === 0 ? "no changes" : said.join(", ")
}

const planDryRun = Flag.Boolean("dry-run").pipe(
  Flag.withDescription("Say what the plan would be, and keep none."),
  Flag.withDefault(false)
)

const columns: ReadonlyArray<Output.Column<Contract.Plan>> = [
  { head: "ID", cell: ({ id }) => id },
  { head: "ZONE", cell: ({ zone }) => zone },
  { head: "KIND", cell: ({ kind }) => kind },
  { head: "STATE", cell: ({ state }) => state },
  { head: "MADE", cell: ({ madeAt }) => madeAt },
  { head: "BY", cell: ({ madeBy }) => madeBy },
  { head: "CHANGES", cell: summary }
]

/** What is asked for by the flags; one of them at the most. */
const requested = Effect.fnUntraced(function* (input: {
  readonly adopt: Option.Option<string>
  readonly release: Option.Option<string>
  readonly ignore: Option.Option<string>
  readonly unignore: Option.Option<string>
  readonly reason: Option.Option<string>
}) {
  const asked = (
    [
      ["adopt", input.adopt, {}],
      ["release", input.release, {}],
      ["ignore", input.ignore, {}],
      ["ignore", input.unignore, { undo: true }]
    ] as const
  ).flatMap(([kind, pattern, more]) => (Option.isSome(pattern) ? [{ kind, pattern: pattern.value, ...more }] : []))
  if (asked.length > 1) {
    return yield* new Failure.UsageWrong({
      detail: "a plan has one purpose: give one of --adopt, --release, --ignore and --unignore"
    })
  }
  const request: Contract.PlanRequest = asked[0] ?? { kind: "reconcile" }
  return Option.isSome(input.reason) ? { ...request, reason: yield* Input.reason(input.reason.value) } : request
})

/** What was seen of names that the plan leaves alone. */
const besides = ({ drift, foreignNames }: NonNullable<Contract.PlanMade["reconciliation"]>): ReadonlyArray<string> => [
  ...(drift.foreign === 0
    ? []
    : drift.foreign === 1
      ? [`1 name is not Prism's and stays as it is: ${foreignNames[0]}`]
      : [`${drift.foreign} names are not Prism's and stay as they are, such as ${foreignNames[0]}`]),
  ...(drift.ignored === 0 ? [] : [drift.ignored === 1 ? "1 name is ignored" : `${drift.ignored} names are ignored`])
]

const make = Command.make(
  "make",
  {
    ...Connection.flags,
    zone: Input.zone,
    adopt: patternFlag("adopt", "Take over records that stand in PowerDNS: a name, or web-*, *.lab."),
    release: patternFlag("release", "Give adopted records back; they stay in PowerDNS."),
    ignore: patternFlag("ignore", "Leave these names alone from now on."),
    unignore: patternFlag("unignore", "No longer leave these names alone: a pattern that was ignored."),
    reason: optionalReason,
    dryRun: planDryRun
  },
  Effect.fn(function* (input) {
    const zone = yield* Input.parseName(input.zone)
    const payload = yield* requested(input)
    yield* Connection.withClient(input, ({ plans }) =>
      Effect.gen(function* () {
        const { body: plan } = yield* plans.make({ params: { zone }, query: Input.dry(input), payload })
        if (input.json) return yield* Output.json(plan)
        if (plan.counts.changes === 0) {
          yield* Console.log(
            plan.kind === "reconcile" ? `${zone} is as it should be: nothing to do.` : "Nothing to do."
          )
        } else if (plan.dryRun === true) {
          yield* Console.log(`The plan would be: ${summary(plan)}`)
        } else {
          yield* Console.log(`${plan.id}\t${summary(plan)}`)
          if (Output.isTerminal()) {
            yield* Console.log(`Look at it: prism-dns plan show ${plan.id}\nApply it: prism-dns plan apply ${plan.id}`)
          }
        }
        const found = plan.reconciliation
        if (found === undefined) return
        yield* Effect.forEach(besides(found), Output.note, { discard: true })
        for (const guard of found.guards) yield* Output.note(guard)
      })
    )
  })
).pipe(
  Command.withDescription("Compare a zone with what PowerDNS holds, or say whose names are; nothing is changed yet."),
  Command.withExamples([
    { command: "prism-dns plan make hosts.example.net", description: "What differs from what should be" },
    { command: "prism-dns plan make hosts.example.net --adopt 'web-*'", description: "Take over records made by hand" }
  ])
)

const listed = (plans: Client["plans"], zone: Option.Option<string>, state: Contract.Plan["state"] | undefined) =>
  Effect.gen(function* () {
    const query = { limit: Page.limitDefault, ...(state !== undefined && { state }) }
    if (Option.isNone(zone)) return (yield* plans.listAll({ query })).body
    return (yield* plans.list({ params: { zone: yield* Input.parseName(zone.value) }, query })).body
  })

const list = Command.make(
  "list",
  {
    ...Connection.flags,
    zone: Input.zone.pipe(Argument.optional),
    open: Flag.Boolean("open").pipe(Flag.withDescription("Only those to be decided."), Flag.withDefault(false))
  },
  Effect.fn(function* (input) {
    yield* Connection.withClient(input, ({ plans }) =>
      Effect.gen(function* () {
        const page = yield* listed(plans, input.zone, input.open ? "open" : undefined)
        if (input.json) return yield* Output.json(page)
        yield* Output.rows(columns, page.items, "There are no plans. prism-dns plan make ZONE makes one.")
        if (page.nextCursor !== undefined) yield* Output.note(`the newest ${Page.limitDefault}; there are older ones`)
      })
    )
  })
).pipe(Command.withDescription("Plans, the newest first."))

const show = Command.make(
  "show",
  {
    ...Connection.flags,
    id,
    format: Flag.Literals("format", ["text", "json", "markdown"]).pipe(
      Flag.withDescription("How to print it; --json is short for --format json. Default: text."),
      Flag.withDefault("text")
    )
  },
  Effect.fn(function* (input) {
    const format = input.json ? "json" : input.format
    yield* Connection.withClient(input, ({ plans }) =>
      Effect.flatMap(plans.get({ params: { plan: input.id }, query: { format } }), (plan) =>
        typeof plan === "string" ? Console.log(Output.harmlessLines(plan.trimEnd())) : Output.json(plan)
      )
    )
  })
).pipe(Command.withDescription("What a plan would change, and why."))

/** Asks the person there; nobody is there to ask in a pipe. */
const agreed = Effect.fnUntraced(function* (plan: Contract.Plan, yes: boolean) {
  if (yes) return true
  if (!Output.isTerminal() || !process.stdin.isTTY) {
    return yield* new Failure.UsageWrong({ detail: "nobody is there to ask: apply with --yes" })
  }
  return yield* Prompt.Confirm({ message: `Apply to ${plan.zone} (${plan.kind}): ${summary(plan)}?` })
})

const apply = Command.make(
  "apply",
  {
    ...Connection.flags,
    id,
    overrideBudget: Flag.String("override-budget").pipe(
      Flag.withDescription("Delete more than the zone's budget allows, for this reason; it is kept in the audit."),
      Flag.withMetavar("REASON"),
      Flag.optional
    ),
    withoutDeletions: Flag.Boolean("without-deletions").pipe(
      Flag.withDescription("Leave the plan's deletions open."),
      Flag.withDefault(false)
    ),
    dryRun: Input.dryRun,
    yes: Flag.Boolean("yes").pipe(Flag.withDescription("Do not ask."), Flag.withDefault(false))
  },
  Effect.fn(function* (input) {
    const overrideBudget = Option.isSome(input.overrideBudget)
      ? yield* Input.reason(input.overrideBudget.value)
      : undefined
    const payload: Contract.ApplyRequest = {
      ...(overrideBudget !== undefined && { overrideBudget }),
      ...(input.withoutDeletions && { withoutDeletions: true })
    }
    yield* Connection.withClient(input, ({ plans }) =>
      Effect.gen(function* () {
        const params = { plan: input.id }
        const plan = yield* plans.get({ params, query: {} })
        if (typeof plan === "string") return yield* Effect.die(new Error("asked for JSON, got text"))
        if (!input.dryRun && !(yield* agreed(plan, input.yes))) return yield* Console.log("Nothing was done.")
        const done = yield* plans.apply({ params, query: Input.dry(input), payload })
        const { kept, refused } = done
        const would = done.dryRun === true ? "would be " : ""
        if (input.json) yield* Output.json(done)
        else {
          yield* Console.log(
            `${done.applied} ${would}applied, ${refused} ${would}refused` +
              (kept > 0 ? `, ${kept} left alone` : "") +
              (done.plan.state === "open" ? "; the rest is open" : "")
          )
          yield* Output.rows(
            [
              { head: refused === 0 ? "LEFT ALONE" : "REFUSED", cell: ({ name }) => name },
              { head: "TYPE", cell: ({ type }) => type },
              { head: "WHY", cell: ({ reason }) => reason }
            ],
            done.refusals,
            ""
          ).pipe(Effect.when(Effect.succeed(done.refusals.length > 0)))
        }
        if (refused > 0) {
          const again =
            done.plan.kind === "restore" || done.plan.kind === "import"
              ? ", as this one was made."
              : ` with prism-dns plan make ${done.plan.zone}`
          const are = done.dryRun === true ? "would be" : refused === 1 ? "was" : "were"
          return yield* new Failure.NotAll({
            detail: `${refused === 1 ? "1 change" : `${refused} changes`} ${are} refused: what it is about is newer than the plan. Make another one${again}`
          })
        }
      })
    )
  })
).pipe(Command.withDescription("Apply a plan. What is newer than it is refused, name by name."))

const reject = Command.make(
  "reject",
  { ...Connection.flags, dryRun: Input.dryRun, id, reason: Input.reasonArgument },
  Effect.fn(function* (input) {
    const reason = yield* Input.reason(input.reason)
    const asked = { params: { plan: input.id }, query: Input.dry(input) }
    yield* Connection.withClient(input, ({ plans }) =>
      Effect.flatMap(plans.reject({ ...asked, payload: { reason } }), (plan) =>
        input.json
          ? Output.json(plan)
          : Console.log(`${plan.id} ${plan.dryRun === true ? "would be" : "is"} rejected; nothing of it is done.`)
      )
    )
  })
).pipe(Command.withDescription("Decide against a plan."))

export const plan = Command.make("plan").pipe(
  Command.withDescription("Changes to be looked at before they are made."),
  Command.withSubcommands([make, list, show, apply, reject])
)
