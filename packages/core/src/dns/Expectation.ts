/**
 * What the name servers are to answer for one name, and whether they do.
 *
 * The object stays the same while newer publications of the name replace what
 * is expected: `version` tells them apart.
 */
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import { computedTypes, isComputed } from "../domain/RecordContent.ts"
import type { Answer } from "./NameServers.ts"
import * as RecordText from "./RecordText.ts"

/** The records of one type. */
export interface Wanted {
  readonly type: string
  readonly ttlSeconds: number
  /** Canonical, sorted, each once. */
  readonly contents: ReadonlyArray<string>
  /** Types whose answers PowerDNS computes from these records: nobody can say what they should be. */
  readonly computes?: ReadonlyArray<string>
}

/**
 * Where a name stands with a node.
 * - `awaiting`: until the node's caches are dropped; `flushing`: they are being dropped.
 * - `ready`: it may be asked; `asking`: it is.
 * - `retry`: it answered something else, and is asked again later.
 * - `answered`: as published.
 */
export type Place = "awaiting" | "flushing" | "ready" | "asking" | "retry" | "answered"

/** What one node has said of it. */
export interface Progress {
  place: Place
  /** Answers that were not as published. */
  attempts: number
  answeredMillis: number
  /** The last answer that was not as published, in words. */
  seen: string | undefined
}

export interface Expectation {
  readonly zone: DomainName
  readonly name: DomainName
  /** By node, in their order. */
  readonly nodes: ReadonlyArray<Progress>
  generation: number
  version: number
  wanted: ReadonlyArray<Wanted>
  /** Types to ask for. */
  types: ReadonlyArray<string>
  publishedMillis: number
  /** Nodes that were not seen to answer so. */
  remaining: number
  /** What is answered may be another thing in a moment. */
  inDoubt: boolean
  /** Nobody asks any more: its zone is managed no longer. */
  gone: boolean
}

/** `rrsets` in the form in which answers are compared; those of types that neither can be nor are computed are left out. */
export const wanted = (rrsets: ReadonlyArray<RRset.RRset>): ReadonlyArray<Wanted> =>
  rrsets
    .filter(({ type }) => RecordText.isSupported(type) || isComputed(type))
    .map(({ contents, ttlSeconds, type }) => {
      if (isComputed(type)) {
        return { type, ttlSeconds, contents: [], computes: contents.flatMap((content) => computedTypes(type, content)) }
      }
      const texts = contents.map((content) => RecordText.canonical(type, content))
      return { type, ttlSeconds, contents: texts.length < 2 ? texts : [...new Set(texts)].sort() }
    })

/**
 * The types to ask for: those wanted, those that may be gone, and where that is none, those of `managed`. Of a name whose
 * answers are all computed only that it is there can be asked: by a type that it does not have.
 */
export const typesToAsk = (
  wanted: ReadonlyArray<Wanted>,
  others: ReadonlyArray<string>,
  managed: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const types = new Set(wanted.map(({ type }) => type))
  for (const type of others) types.add(type)
  const computed = new Set(wanted.flatMap(({ computes = [] }) => computes))
  const askable = [...types].filter((type) => RecordText.isSupported(type) && !computed.has(type))
  if (askable.length > 0) return askable
  return computed.size === 0 ? managed : [absentTypes.find((type) => !computed.has(type))!]
}

const absentTypes = ["TXT", "MX", "SRV", "CAA", "CNAME", "PTR", "A", "AAAA", "SOA"]

/** True when a referral says what is wanted: the name servers of a delegation, or the addresses that lead to one. */
const isReferredAsWanted = (wanted: Wanted | undefined, type: string, { referral }: Answer): boolean => {
  if (referral === undefined) return false
  const found = type === "NS" ? (referral.here ? referral.servers : undefined) : referral.addresses
  if (wanted === undefined) return found === undefined || found.contents.length === 0
  return found !== undefined && sameSet(wanted, found)
}

const sameSet = (
  wanted: Wanted,
  found: { readonly ttlSeconds: number | undefined; readonly contents: ReadonlyArray<string> }
): boolean =>
  found.ttlSeconds === wanted.ttlSeconds &&
  found.contents.length === wanted.contents.length &&
  found.contents.every((content, i) => content === wanted.contents[i])

/** True when `answer` to the question for `type` is what is wanted. */
export const isAsWanted = (wanted: ReadonlyArray<Wanted>, type: string, answer: Answer): boolean => {
  const set = wanted.find((each) => each.type === type)
  if (!answer.authoritative) return isReferredAsWanted(set, type, answer)
  if (set === undefined) {
    // Who is told NXDOMAIN asks for no other type of the name.
    const isRight = answer.rcode === "NOERROR" || (answer.rcode === "NXDOMAIN" && wanted.length === 0)
    return isRight && answer.contents.length === 0
  }
  return answer.rcode === "NOERROR" && sameSet(set, answer)
}

/** True when there are records of a type that should have none. */
export const isUnwanted = (wanted: ReadonlyArray<Wanted>, type: string, answer: Answer): boolean =>
  answer.authoritative && answer.contents.length > 0 && !wanted.some((each) => each.type === type)

/** True when both answers have the same records. */
export const isSame = (a: Answer, b: Answer): boolean =>
  a.ttlSeconds === b.ttlSeconds &&
  a.contents.length === b.contents.length &&
  a.contents.every((content, i) => content === b.contents[i])

/** The name above; undefined for the root. */
export const parent = (name: DomainName): DomainName | undefined => {
  const above = name.slice(name.indexOf(".") + 1)
  return above === "" ? undefined : (above as DomainName)
}

/** An answer for people. */
export const describe = (type: string, answer: Answer): string => {
  const lame = answer.authoritative ? "" : ", not authoritative"
  if (answer.rcode !== "NOERROR") return `${answer.rcode}${lame}`
  if (answer.contents.length === 0) return `no ${type} record${lame}`
  const some = answer.contents.slice(0, shownMax).join(", ")
  return `${type} ${some}${answer.contents.length > shownMax ? ", …" : ""} (TTL ${answer.ttlSeconds ?? 0} s)${lame}`
}

const shownMax = 4
