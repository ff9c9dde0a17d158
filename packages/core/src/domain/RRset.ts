/**
 * Resource record sets: all records of one name and type (RFC 2181, 5).
 *
 * Contents are kept sorted and in canonical text, so that two sets are equal
 * exactly when their fields are.
 */
import type { DomainName } from "./DomainName.ts"

/** The record types Prism writes for hosts. The list is closed on purpose: a host never gets NS, CNAME or LUA. */
export const hostRecordTypes = ["A", "AAAA", "PTR"] as const

export type HostRecordType = (typeof hostRecordTypes)[number]

export interface RRset {
  readonly name: DomainName
  readonly type: string
  /** Seconds, 0 to 2147483647 (RFC 2181, 8). */
  readonly ttlSeconds: number
  /** Contents in presentation format, sorted, each once; never empty. */
  readonly contents: ReadonlyArray<string>
}

export const make = (name: DomainName, type: string, ttlSeconds: number, contents: Iterable<string>): RRset => ({
  name,
  type,
  ttlSeconds,
  contents: [...new Set(contents)].sort()
})

/** True when both hold the same records with the same TTL. */
export const equals = (a: RRset, b: RRset): boolean =>
  a.name === b.name &&
  a.type === b.type &&
  a.ttlSeconds === b.ttlSeconds &&
  a.contents.length === b.contents.length &&
  a.contents.every((content, i) => content === b.contents[i])

/** What to do to one RRset in place. There is no "add" or "remove one record": a set is replaced whole or deleted whole. */
export type RRsetChange =
  | {
      readonly _tag: "Replace"
      readonly rrset: RRset
      /** Keeps the records in PowerDNS, but answers none of them, until the set is replaced again. Default false. */
      readonly disabled?: boolean
    }
  | { readonly _tag: "Delete"; readonly name: DomainName; readonly type: string }

export const changedName = (change: RRsetChange): DomainName =>
  change._tag === "Replace" ? change.rrset.name : change.name
