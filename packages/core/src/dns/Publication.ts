/**
 * What a marked name gets at PowerDNS. Pure: its mark, what should be there and
 * what we know of what is, in; the changes and what then stands there, out.
 *
 * Promises: a name that should have records never loses them on the way; what
 * follows from a conclusion of ours (`Cause.isInferred`) is disabled first, and
 * removed only when its quarantine is over; what may be someone else's is not
 * deleted. Leaves to others: whether the zone's budget allows it, and doing it.
 */
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import * as Duration from "effect/Duration"
import type { ZonePolicy } from "../domain/Zone.ts"
import * as Cause from "./Cause.ts"
import * as NonTerminals from "./NonTerminals.ts"
import * as Plan from "./Plan.ts"

/** What is known of a name that is ours. */
export interface Published {
  /** The record sets that PowerDNS took last. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
  /**
   * Undefined: they stand there. A list: one of these may stand there instead, or may still come, because a write of them
   * had no answer yet. `anything`: someone else has written to the name.
   */
  readonly sent: ReadonlyArray<RRset.RRset> | "anything" | undefined
  /** Where `sent` is `anything`: types of our own writes that had no answer. */
  readonly sentTypes?: ReadonlyArray<string> | undefined
  /** The record sets are there, disabled, and may be removed after this; `quarantineOver`: now. */
  readonly quarantinedUntilMillis: number | undefined
  /** What had no answer may still be taken, over what is written now. Default false. */
  readonly inDoubt?: boolean
}

/** The quarantine of a name that is marked because its time is over. */
export const quarantineOver = Number.MAX_SAFE_INTEGER

/** True when only a look at PowerDNS tells what stands at the name. */
export const isUncertain = (published: Published): boolean => published.sent !== undefined

export interface Decided {
  readonly name: DomainName
  /** Empty: PowerDNS holds what it should. */
  readonly changes: ReadonlyArray<Plan.PlannedChange>
  /** The record sets of ours that PowerDNS then holds, disabled ones too. */
  readonly rrsets: ReadonlyArray<RRset.RRset>
  readonly quarantinedUntilMillis: number | undefined
  /**
   * The name had answers and has none any more, or but a placeholder. `inferred`: by a conclusion; it counts against the
   * budget.
   */
  readonly deletion: "none" | "by-word" | "inferred" | "by-plan"
  /** The answers that are deleted, where `deletion` is one. */
  readonly lost: ReadonlyArray<RRset.RRset>
}

/** True when the name is ours for its placeholder only: whatever else stands there is someone else's. */
export const isOnlyPlaceholder = ({ rrsets, sent, sentTypes = [] }: Published): boolean => {
  const known = sent === undefined || sent === "anything" ? rrsets : [...rrsets, ...sent]
  return known.length > 0 && sentTypes.length === 0 && known.every(NonTerminals.isPlaceholder)
}

/** True when nothing of ours is known to stand at the name, and one of what was sent may. */
export const isOnlySent = ({ rrsets, sent }: Published): boolean =>
  rrsets.length === 0 && sent !== undefined && sent !== "anything"

/** Whether this is what was sent to the name, without an answer. */
export const wasSent = (published: Published | undefined, found: RRset.RRset): boolean =>
  published?.sent !== undefined &&
  published.sent !== "anything" &&
  published.sent.some((rrset) => RRset.equals(rrset, found))

/** The types that are known to be ours at a name: what stands there, and what was sent. */
export const knownTypes = (published: Published | undefined): ReadonlySet<string> => {
  const sent = published?.sent === undefined || published.sent === "anything" ? [] : published.sent
  const types = [...(published?.rrsets ?? []), ...sent].map((rrset) => rrset.type)
  return new Set([...types, ...(published?.sentTypes ?? [])])
}

/**
 * The types of a name that are ours to judge: those it should have or had, and with one type of hosts all of those. Beside
 * a record that people manage, an address may be somebody else's. Where nothing tells, the types of hosts.
 */
export const typesAt = (
  hostTypes: ReadonlyArray<string>,
  desired: ReadonlyArray<RRset.RRset>,
  published: Published | undefined
): ReadonlyArray<string> => {
  const known = new Set([...desired.map((rrset) => rrset.type), ...knownTypes(published)])
  if (known.size === 0) return hostTypes
  return hostTypes.some((type) => known.has(type)) ? [...new Set([...hostTypes, ...known])] : [...known]
}

export const decide = (
  mark: { readonly name: DomainName; readonly cause: Cause.Cause },
  context: {
    /** The types that hosts have in the zone. */
    readonly types: ReadonlyArray<string>
    /** A placeholder of ours stands there that nothing else tells of. */
    readonly stray?: boolean
    readonly desired: ReadonlyArray<RRset.RRset>
    readonly published: Published | undefined
    readonly policy: Pick<ZonePolicy, "quarantine">
    readonly nowMillis: number
  }
): Decided => {
  const { name } = mark
  const { desired, nowMillis, policy, published } = context
  const isQuarantined = published?.quarantinedUntilMillis !== undefined
  const isUnknown = published !== undefined && (isUncertain(published) || isQuarantined)
  const known = typesAt(context.types, desired, published)
  const types = context.stray === true && !known.includes("TXT") ? [...known, "TXT"] : known

  if (desired.length === 0 && published !== undefined) {
    const byPlan = mark.cause.startsWith("plan:")
    const guarded = byPlan || Cause.isInferred(mark.cause)
    const kept = new Set(published.rrsets.map((rrset) => rrset.type))
    const others = types.filter((type) => !kept.has(type))
    const disabling: ReadonlyArray<Plan.PlannedChange> = [
      ...published.rrsets.map((rrset): Plan.PlannedChange => ({
        reason: "delete",
        change: { _tag: "Replace", rrset, disabled: true }
      })),
      ...(isUnknown
        ? others.map((type): Plan.PlannedChange => ({ reason: "delete", change: { _tag: "Delete", name, type } }))
        : [])
    ]
    // Still kept: only time, or somebody's word, removes it. An older write that came late may have enabled it.
    if (isQuarantined && guarded && published.quarantinedUntilMillis !== quarantineOver) {
      return {
        name,
        changes: isUncertain(published) ? disabling : [],
        rrsets: published.rrsets,
        quarantinedUntilMillis: published.quarantinedUntilMillis,
        deletion: "none",
        lost: []
      }
    }
    const quarantineMillis = Duration.toMillis(policy.quarantine)
    if (!isQuarantined && guarded && quarantineMillis > 0 && published.rrsets.some(isAnswer)) {
      return {
        name,
        changes: disabling,
        rrsets: published.rrsets,
        quarantinedUntilMillis: nowMillis + quarantineMillis,
        deletion: byPlan ? "by-plan" : "inferred",
        lost: answersOf(published)
      }
    }
  }

  const changes = Plan.make(
    [name],
    types,
    new Map([[name, desired]]),
    new Map(published === undefined ? [] : [[name, isUnknown ? "unknown" : published.rrsets]])
  )
  // A doubt about a name that was deleted: what goes is only what may have come since, and the deletion was counted.
  const isGone = mark.cause === "doubt" && published !== undefined && !published.rrsets.some(isAnswer)
  const lost = published === undefined || isQuarantined || isGone ? [] : lostAnswers(context.types, desired, published)
  return {
    name,
    changes,
    rrsets: desired,
    quarantinedUntilMillis: undefined,
    deletion: lost.length === 0 ? "none" : deletionKind(mark.cause),
    lost
  }
}

/**
 * The answers that go when `desired` is there: all of them, or, where what people manage stays, all that were a host's.
 * Those are not disabled first: what stays is replaced together with them.
 */
const lostAnswers = (
  hostTypes: ReadonlyArray<string>,
  desired: ReadonlyArray<RRset.RRset>,
  published: Published
): ReadonlyArray<RRset.RRset> => {
  const answers = answersOf(published)
  if (!desired.some(isAnswer)) return answers
  const isHosts = ({ type }: RRset.RRset) => hostTypes.includes(type)
  return desired.some(isHosts) ? [] : answers.filter(isHosts)
}

/** A placeholder says only that the name exists. */
const isAnswer = (rrset: RRset.RRset): boolean => !NonTerminals.isPlaceholder(rrset)

/** The answers that a name may have, as far as we know; what it loses when it is deleted. */
export const answersOf = ({ rrsets, sent }: Published): ReadonlyArray<RRset.RRset> =>
  (rrsets.some(isAnswer) || sent === undefined || sent === "anything" ? rrsets : sent).filter(isAnswer)

const deletionKind = (cause: Cause.Cause): Decided["deletion"] => {
  if (cause.startsWith("plan:")) return "by-plan"
  return Cause.isInferred(cause) ? "inferred" : "by-word"
}

/** Writes of one name without an answer, by what was in them, that are told apart. */
const sentMax = 50

/**
 * What may come to stand at a name once `rrsets` are sent: also what was sent before and had no answer. Beyond `sentMax`
 * anything is taken for ours.
 */
export const sentWith = (published: Published | undefined, rrsets: ReadonlyArray<RRset.RRset>) => {
  const before = published?.sent ?? []
  if (before === "anything") return before
  const all = [...before, ...rrsets.filter((rrset) => !before.some((each) => RRset.equals(each, rrset)))]
  return all.length > sentMax ? ("anything" as const) : all
}

/** The types of what may come to stand at a name, where anything may. */
export const sentTypesWith = (
  published: Published | undefined,
  rrsets: ReadonlyArray<RRset.RRset>
): ReadonlyArray<string> => {
  const sent = published?.sent === undefined || published.sent === "anything" ? [] : published.sent
  return [...new Set([...(published?.sentTypes ?? []), ...[...sent, ...rrsets].map(({ type }) => type)])]
}

/**
 * Of what was found at a name in doubt: the sets that are neither what we know of nor what we sent, and so someone
 * else's. Asked before such a name is deleted.
 */
export const notOurs = (published: Published, found: ReadonlyArray<RRset.RRset>): ReadonlyArray<RRset.RRset> => {
  if (published.sent === "anything") return []
  const ours = [...published.rrsets, ...(published.sent ?? [])]
  return found.filter((rrset) => !ours.some((each) => RRset.equals(each, rrset)))
}
