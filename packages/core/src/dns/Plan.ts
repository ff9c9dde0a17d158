/**
 * The changes that make what is into what should be. Pure.
 *
 * Promises: applying a plan gives the desired records; planning again gives
 * nothing; a name that keeps a record keeps it throughout, because a set is
 * replaced in place and never deleted first.
 */
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"

/** Record sets by owner name; a name without an entry has none. */
export type RecordsByName = ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>>

/** What PowerDNS holds at a name, as far as it is ours: its record sets, or that we cannot say. */
export type Actual = ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset> | "unknown">

export type Reason = "create" | "update" | "delete"

export interface PlannedChange {
  readonly reason: Reason
  readonly change: RRset.RRsetChange
}

/**
 * Compares the records at `names`. Only `types` are looked at: whatever else
 * stands at a name is not ours to judge. Where the actual is unknown, every
 * type is written or deleted, which is harmless to repeat.
 */
export const make = (
  names: Iterable<DomainName>,
  types: ReadonlyArray<string>,
  desired: RecordsByName,
  actual: Actual
): ReadonlyArray<PlannedChange> => {
  const changes: Array<PlannedChange> = []
  for (const name of names) {
    const wanted = desired.get(name) ?? []
    const found = actual.get(name) ?? []
    for (const type of types) {
      const want = wanted.find((rrset) => rrset.type === type)
      const have = found === "unknown" ? undefined : found.find((rrset) => rrset.type === type)
      if (want !== undefined) {
        if (have !== undefined && RRset.equals(want, have)) continue
        changes.push({
          reason: have === undefined ? "create" : "update",
          change: { _tag: "Replace", rrset: want }
        })
      } else if (have !== undefined || found === "unknown") {
        changes.push({ reason: "delete", change: { _tag: "Delete", name, type } })
      }
    }
  }
  return changes
}

/** The record sets at `names` after `changes`; what a server does that takes them all. */
export const apply = (
  actual: RecordsByName,
  changes: ReadonlyArray<PlannedChange>
): Map<DomainName, ReadonlyArray<RRset.RRset>> => {
  const result = new Map(actual)
  for (const { change } of changes) {
    const name = RRset.changedName(change)
    const type = change._tag === "Replace" ? change.rrset.type : change.type
    const others = (result.get(name) ?? []).filter((rrset) => rrset.type !== type)
    const next = change._tag === "Replace" ? [...others, change.rrset] : others
    if (next.length === 0) result.delete(name)
    else result.set(name, next)
  }
  return result
}
