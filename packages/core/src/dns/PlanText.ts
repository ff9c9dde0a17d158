/**
 * A plan in words: as plain text, as Markdown, and as values for JSON. Pure.
 *
 * Counts come first, then the changes by action: a line with `-` for what
 * stands in PowerDNS and goes, with `+` for what comes, with `=` for what stays
 * and changes its owner. Whoever calls says how many changes to show; the text
 * says how many more there are.
 */
import type * as RRset from "../domain/RRset.ts"
import { type PlanAction, planActions } from "../domain/Plan.ts"
import { changesRecords, type Plan, type PlanChange } from "./Plans.ts"
import { forZoneFile } from "../domain/PlainText.ts"

const titles: Readonly<Record<PlanAction, string>> = {
  create: "to create",
  update: "to update",
  delete: "to delete",
  repair: "to repair",
  adopt: "to adopt",
  release: "to release",
  ignore: "to ignore",
  unignore: "no longer to ignore",
  keep: "left alone"
}

const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`

/** For example `3 changes of 2 names: 1 to create, 2 to delete; 1 name loses all its records`. */
export const summary = ({ counts, kind }: Pick<Plan, "counts" | "kind">): string => {
  if (counts.changes === 0) return "no changes"
  const parts = planActions
    .filter((action) => counts[action] > 0)
    .map((action) => `${counts[action]} ${titles[action]}`)
  const what = kind === "ignore" ? count(counts.names, "pattern") : count(counts.names, "name")
  const lost =
    counts.deletedNames === 0 || changesRecords(kind)
      ? ""
      : `; ${count(counts.deletedNames, "name loses all its records", "names lose all their records")}`
  return `${count(counts.changes, "change")} of ${what}: ${parts.join(", ")}${lost}`
}

const recordLines = (sign: string, rrset: RRset.RRset | undefined): ReadonlyArray<string> =>
  rrset === undefined
    ? []
    : rrset.contents.map((content) => `${sign} ${rrset.name} ${rrset.ttlSeconds} ${rrset.type} ${forZoneFile(content)}`)

/** The lines of one change, without its reason. */
export const changeLines = (change: PlanChange): ReadonlyArray<string> => {
  const { action, after, before, name } = change
  switch (action) {
    case "adopt":
    case "release":
      return recordLines("=", before)
    case "ignore":
      return [`+ ${name}`]
    case "unignore":
      return [`- ${name}`]
    case "keep":
      return recordLines("=", before)
    default: {
      const gone = recordLines("-", before)
      const come = recordLines("+", after)
      return gone.length + come.length === 0 ? [`- ${name} ${change.type}`] : [...gone, ...come]
    }
  }
}

const outcomeOf = ({ outcome }: PlanChange): string =>
  outcome === undefined ? "" : outcome === "applied" ? " (applied)" : ` (not applied: ${outcome})`

const time = (millis: number): string => new Date(millis).toISOString().replace(".000Z", "Z")

const decision = (plan: Plan): string | undefined => {
  if (plan.decidedAtMillis === undefined) return undefined
  const what = plan.state === "open" ? "applied in part" : plan.state
  const reason = plan.decidedReason === undefined ? "" : `: ${plan.decidedReason}`
  return `${what} ${time(plan.decidedAtMillis)} by ${plan.decidedBy ?? "prism"}${reason}`
}

const grouped = (
  changes: ReadonlyArray<PlanChange>
): ReadonlyArray<readonly [PlanAction, ReadonlyArray<PlanChange>]> => {
  const groups = Map.groupBy(changes, ({ action }) => action)
  return planActions.flatMap((action) => {
    const some = groups.get(action)
    return some === undefined ? [] : [[action, some] as const]
  })
}

const remainder = (plan: Plan, changes: ReadonlyArray<PlanChange>): string | undefined => {
  const more = plan.counts.changes - changes.length
  return more <= 0 ? undefined : `… and ${count(more, "more change")}`
}

/** For terminals: no line depends on its width. */
export const toText = (plan: Plan, changes: ReadonlyArray<PlanChange>): string => {
  const more = remainder(plan, changes)
  const decided = decision(plan)
  return [
    `plan ${plan.id}  ${plan.kind} ${plan.zone}  ${plan.state}`,
    `made ${time(plan.madeAtMillis)} by ${plan.madeBy}, at generation ${plan.generation}`,
    ...(decided === undefined ? [] : [decided]),
    plan.reason,
    summary(plan),
    plan.hash,
    ...grouped(changes).flatMap(([action, some]) => [
      "",
      `${titles[action]}:`,
      ...some.flatMap((change) => [
        ...changeLines(change).map((line) => `  ${line}`),
        `    ${change.reason}${outcomeOf(change)}`
      ])
    ]),
    ...(more === undefined ? [] : ["", more]),
    ""
  ].join("\n")
}

/** What stands in text and must not be read as Markdown. */
const escaped = (text: string): string => text.replace(/[\\`*_[\]<>|#]/g, "\\$&")

/** A fence that nothing inside can close. */
const fenceFor = (lines: ReadonlyArray<string>): string => {
  const longest = Math.max(2, ...lines.flatMap((line) => (line.match(/`+/g) ?? []).map((run) => run.length)))
  return "`".repeat(longest + 1)
}

/** For reviews and chats: the changes stand in blocks of `diff`. */
export const toMarkdown = (plan: Plan, changes: ReadonlyArray<PlanChange>): string => {
  const more = remainder(plan, changes)
  const decided = decision(plan)
  return [
    `# Plan to ${plan.kind === "held-deletions" ? "delete what was held back" : plan.kind}: ${escaped(plan.zone)}`,
    "",
    `**${summary(plan)}** (${plan.state})`,
    "",
    escaped(plan.reason),
    "",
    `- id \`${plan.id}\``,
    `- made ${time(plan.madeAtMillis)} by ${escaped(plan.madeBy)}, at generation ${plan.generation}`,
    ...(decided === undefined ? [] : [`- ${escaped(decided)}`]),
    `- \`${plan.hash}\``,
    ...grouped(changes).flatMap(([action, some]) => {
      const lines = some.flatMap((change) => [`# ${change.reason}${outcomeOf(change)}`, ...changeLines(change)])
      const fence = fenceFor(lines)
      return [
        "",
        `## ${titles[action][0]!.toUpperCase()}${titles[action].slice(1)}`,
        "",
        `${fence}diff`,
        ...lines,
        fence
      ]
    }),
    ...(more === undefined ? [] : ["", more]),
    ""
  ].join("\n")
}

const recordsValue = (rrset: RRset.RRset | undefined) =>
  rrset === undefined ? undefined : { ttlSeconds: rrset.ttlSeconds, contents: rrset.contents }

/** A plan as plain values: absent fields are left out of its JSON. */
export const toValue = (plan: Plan, changes: ReadonlyArray<PlanChange>) => ({
  id: plan.id,
  zone: plan.zone,
  kind: plan.kind,
  state: plan.state,
  madeAt: new Date(plan.madeAtMillis).toISOString(),
  madeBy: plan.madeBy,
  generation: plan.generation,
  hash: plan.hash,
  reason: plan.reason,
  counts: plan.counts,
  decision:
    plan.decidedAtMillis === undefined
      ? undefined
      : {
          at: new Date(plan.decidedAtMillis).toISOString(),
          by: plan.decidedBy,
          reason: plan.decidedReason
        },
  changes: changes.map(({ action, after, before, cause, name, ordinal, outcome, reason, type }) => ({
    ordinal,
    name,
    type,
    action,
    before: recordsValue(before),
    after: recordsValue(after),
    reason,
    cause,
    outcome
  }))
})
