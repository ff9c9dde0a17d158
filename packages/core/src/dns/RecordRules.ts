/**
 * Which records people may have at which name. Pure: a record set and what
 * else stands there, in; why it may not be, out.
 *
 * - CNAME stands alone (RFC 2181, 10.1), and never at the apex.
 * - A host's name has no other addresses than the host's, and nothing that
 *   answers in their place; other types stand beside them.
 * - At a delegation stands NS, and below it only the addresses that lead there:
 *   the zone does not answer for anything else.
 * - Records stand in the zone that answers for their name.
 *
 * Leaves to others: what contents may be (`domain/RecordContent`), and finding
 * out what stands there (`dns/RecordChanges`).
 */
import type { DomainName } from "../domain/DomainName.ts"
import { isWithin, longestZone } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import * as Zone from "../domain/Zone.ts"
import * as NonTerminals from "./NonTerminals.ts"

/** What else is known of a name. */
export interface Surroundings {
  /** Types of the other sets that people manage at the name. */
  readonly types: ReadonlyArray<string>
  /** A host has the name, or, in a reverse zone, a PTR record there; in any state that holds the name. */
  readonly host: boolean
  /** The nearest name above, below the apex, that is delegated. */
  readonly delegation: DomainName | undefined
  /** For NS: a name below that would no longer be answered, if there is one. */
  readonly hidden: DomainName | undefined
}

const isAddress = (type: string): boolean => type === "A" || type === "AAAA"

/** Types that cannot be where a host has its records. */
export const excludesHosts = (type: string, zone: Zone.Zone): boolean =>
  type === "CNAME" || type === "ALIAS" || type === "LUA" || (Zone.isReverse(zone) ? type === "PTR" : isAddress(type))

/** Why no host may come to have `name`, where people have a record of `type` at `at`; undefined: it may. */
export const hostConflict = (
  zone: Zone.Zone,
  name: DomainName,
  record: { readonly name: DomainName; readonly type: string; readonly origin: "managed" | "adopted" }
): string | undefined => {
  const { name: at, origin, type } = record
  if (type === "NS" && at !== zone.name) {
    return at === name
      ? `${name} is delegated to other name servers`
      : `${name} lies below ${at}, which is delegated to other name servers`
  }
  // An address that was taken over waits for its host.
  if (at !== name || !excludesHosts(type, zone) || (isAddress(type) && origin === "adopted")) return undefined
  return `${name} has ${/^[AL]/.test(type) ? "an" : "a"} ${type} record that people manage`
}

/** Types that need to be known of hosts before they are put. */
export const concernsHosts = (type: string, zone: Zone.Zone): boolean => excludesHosts(type, zone) || type === "NS"

/** The names above `name`, below the apex, the nearest first. */
export const namesAbove = (name: DomainName, zone: DomainName): ReadonlyArray<DomainName> => {
  if (!name.endsWith(`.${zone}`)) return []
  const labels = name.slice(0, -zone.length - 1).split(".")
  return labels.slice(1).map((_, i) => `${labels.slice(i + 1).join(".")}.${zone}` as DomainName)
}

/** What is wrong with the name of a set by itself; undefined: nothing. */
export const nameFault = (
  zone: Zone.Zone,
  zones: Iterable<Zone.Zone>,
  name: DomainName,
  type: string
): string | undefined => {
  if (!isWithin(name, zone.name)) return `${name} does not lie in ${zone.name}`
  const holder = longestZone(name, zones)
  if (holder !== undefined && holder.name !== zone.name && !(type === "NS" && holder.name === name)) {
    return `${name} belongs to ${holder.name}, which answers for it; put it there`
  }
  const below = name === zone.name ? [] : name.slice(0, -zone.name.length - 1).split(".")
  if (below.some((label, i) => label.includes("*") && (i > 0 || label !== "*"))) {
    return "a wildcard is the whole first label of a name: *.lab"
  }
  if (below[0] === "*" && type === "NS") return "a delegation has no wildcard for a name"
  if (below.length === 0 && type === "CNAME") {
    return `${name} is the zone itself, which has other records and so no CNAME; an ALIAS does what is meant`
  }
  return undefined
}

/** Why a set may not stand where it is to; undefined: it may. */
export const conflict = (
  zone: Zone.Zone,
  { contents, name, type }: Pick<RRset.RRset, "contents" | "name" | "type">,
  { delegation, hidden, host, types }: Surroundings
): string | undefined => {
  if (type === "TXT" && NonTerminals.isPlaceholder({ name, type, ttlSeconds: 0, contents })) {
    return "this text is the one by which Prism knows its own placeholders; write another"
  }
  if (delegation !== undefined && !isAddress(type)) {
    return `${name} lies below ${delegation}, which is delegated: only the addresses of its name servers stand there`
  }
  const isApex = name === zone.name
  if (type === "CNAME" && types.length > 0) {
    return `${name} has ${types.join(", ")} records, and a CNAME stands alone; delete those first`
  }
  if (types.includes("CNAME")) return `${name} has a CNAME record, which stands alone; delete that first`
  if (host && excludesHosts(type, zone)) {
    return Zone.isReverse(zone)
      ? `a host has the address of ${name}, and its PTR record follows from that`
      : `${name} is a host's; give another name to the record, or release the host first`
  }
  if (!isApex && type === "NS") {
    if (host) return `${name} is a host's, and no delegation; release the host first`
    const others = types.filter((each) => !isAddress(each))
    if (others.length > 0) return `${name} has ${others.join(", ")} records, which a delegation would hide`
    if (hidden !== undefined) return `${hidden} would no longer be answered: it lies below the delegation`
  }
  if (!isApex && types.includes("NS") && !isAddress(type)) {
    return `${name} is delegated: only the addresses of its name servers stand there`
  }
  if ((type === "ALIAS" && types.some(isAddress)) || (isAddress(type) && types.includes("ALIAS"))) {
    return `${name} has either an ALIAS or addresses`
  }
  return undefined
}

/** Why a set may not be deleted; undefined: it may. */
export const deletionConflict = (zone: Zone.Zone, name: DomainName, type: string): string | undefined =>
  name === zone.name && type === "NS"
    ? `${name} is a zone and needs its name servers; put others in their place`
    : undefined
