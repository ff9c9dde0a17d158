/**
 * What is wrong with one name: what should be there, what PowerDNS was seen to
 * hold, and what is ours of it, in; the changes that mend it, out. Pure.
 *
 * Promises: nothing is proposed for records that are not ours; after the
 * changes the name has what it should have, and judging it again gives nothing.
 */
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import type { Cause } from "./Cause.ts"
import * as NonTerminals from "./NonTerminals.ts"
import type { NewChange } from "./Plans.ts"
import { typesAt } from "./Publication.ts"

/**
 * - `missing`: records that should be there are not.
 * - `different`: others are there.
 * - `unexpected`: ours, and should not be there.
 * - `duplicate`: doubled records, or several TTLs in one set.
 * - `foreign`: not ours.
 */
export const kinds = ["missing", "different", "unexpected", "duplicate", "foreign"] as const
export type Kind = (typeof kinds)[number]

export interface Judgement {
  /** The gravest of what was found; undefined: the name is as it should be. */
  readonly kind: Kind | undefined
  readonly changes: ReadonlyArray<NewChange>
}

const cause: Cause = "drift"

const inSync: Judgement = { kind: undefined, changes: [] }

/** The records as they were seen; a doubled one stands twice. */
const seen = (name: DomainName, type: string, records: ReadonlyArray<RawRecord>): RRset.RRset => ({
  name,
  type,
  ttlSeconds: records[0]!.ttlSeconds,
  contents: records.map(({ content }) => content).sort()
})

const isPlaceholder = (record: RawRecord): boolean =>
  record.type === "TXT" && NonTerminals.isPlaceholder({ ...record, contents: [record.content] })

/** True for records that are ours at names of hosts, or at those with a placeholder. */
export const isOfHosts = (types: ReadonlySet<string>, record: RawRecord): boolean =>
  types.has(record.type) || isPlaceholder(record)

/** Another writer's set, that a placeholder of ours shares or would have to replace. */
const hasOtherText = (actual: ReadonlyArray<RawRecord>): boolean =>
  actual.some((record) => record.type === "TXT" && !isPlaceholder(record))

export const judge = (
  name: DomainName,
  facts: {
    /** Types that hosts have in the zone. */
    readonly types: ReadonlySet<string>
    readonly desired: ReadonlyArray<RRset.RRset>
    /** All records seen at the name whose type may be ours there, and those of type TXT. */
    readonly actual: ReadonlyArray<RawRecord>
    /** What PowerDNS took last; undefined when the name is not ours. */
    readonly published: ReadonlyArray<RRset.RRset> | undefined
  }
): Judgement => {
  const { actual, desired, published } = facts
  const own = new Set(
    typesAt(
      [...facts.types],
      desired,
      published === undefined ? undefined : { rrsets: published, sent: undefined, quarantinedUntilMillis: undefined }
    )
  )
  // A text that people manage is compared as any record; beside a placeholder it is somebody else's.
  const isText = (rrset: RRset.RRset) => rrset.type === "TXT" && !NonTerminals.isPlaceholder(rrset)
  const otherText = ![...desired, ...(published ?? [])].some(isText) && hasOtherText(actual)
  const judged = actual.filter((record) =>
    record.type === "TXT" && otherText ? isPlaceholder(record) : own.has(record.type) || isPlaceholder(record)
  )
  const byType = Map.groupBy(judged, ({ type }) => type)

  if (published === undefined) {
    if (judged.some((record) => own.has(record.type) && !isPlaceholder(record))) return { kind: "foreign", changes: [] }
    const isNeeded = !desired.every(NonTerminals.isPlaceholder) || (judged.length === 0 && !otherText)
    return desired.length > 0 && isNeeded && judged.length === 0
      ? { kind: "missing", changes: desired.map((rrset) => create(rrset)) }
      : inSync
  }

  if (desired.length === 0) {
    const changes = Array.from(byType).flatMap(([type, records]): ReadonlyArray<NewChange> =>
      own.has(type) && !(type === "TXT" && otherText)
        ? [
            {
              name,
              type,
              action: "delete",
              before: seen(name, type, records),
              after: undefined,
              reason: "nothing gives this name records any more, and PowerDNS still has them",
              cause
            }
          ]
        : []
    )
    return changes.length === 0 ? inSync : { kind: "unexpected", changes }
  }

  const found = new Set<Kind>()
  const changes: Array<NewChange> = []
  for (const rrset of desired) {
    const records = byType.get(rrset.type)
    if (NonTerminals.isPlaceholder(rrset) && otherText) continue
    if (records === undefined) {
      found.add("missing")
      changes.push(create(rrset))
      continue
    }
    const contents = [...new Set(records.map(({ content }) => content))].sort()
    const ttls = [...new Set(records.map(({ ttlSeconds }) => ttlSeconds))].sort((a, b) => a - b)
    const isDoubled = records.length > contents.length
    const isSame =
      ttls.length === 1 &&
      ttls[0] === rrset.ttlSeconds &&
      contents.length === rrset.contents.length &&
      contents.every((content, i) => content === rrset.contents[i])
    if (isSame && !isDoubled) continue
    const faults = [
      ...(isDoubled ? ["holds a record more than once"] : []),
      ...(ttls.length > 1 ? [`has records with the TTLs ${ttls.join(", ")}`] : []),
      ...(isSame || isDoubled || ttls.length > 1 ? [] : ["holds other records than it should"])
    ]
    found.add(isDoubled || ttls.length > 1 ? "duplicate" : "different")
    changes.push({
      name,
      type: rrset.type,
      action: isDoubled || ttls.length > 1 ? "repair" : "update",
      before: seen(name, rrset.type, records),
      after: rrset,
      reason: `PowerDNS ${faults.join(" and ")}`,
      cause
    })
  }

  // Beside a placeholder stands only what somebody else put there.
  if (!desired.every(NonTerminals.isPlaceholder)) {
    const wanted = new Set(desired.map(({ type }) => type))
    for (const [type, records] of byType) {
      if (wanted.has(type) || !own.has(type) || (type === "TXT" && otherText)) continue
      found.add("different")
      changes.push({
        name,
        type,
        action: "repair",
        before: seen(name, type, records),
        after: undefined,
        reason: `the name should have no ${type} record`,
        cause
      })
    }
  }
  return { kind: kinds.find((kind) => found.has(kind)), changes }
}

const create = (rrset: RRset.RRset): NewChange => ({
  name: rrset.name,
  type: rrset.type,
  action: "create",
  before: undefined,
  after: rrset,
  reason: "PowerDNS does not have it",
  cause
})
