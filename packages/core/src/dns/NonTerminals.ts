/**
 * Names that exist only because something stands below them (RFC 8020: empty
 * non-terminals). Pure.
 *
 * PowerDNS without rectify answers NXDOMAIN for them, which denies what is below
 * (RFC 8020, 2), and a rectify costs the whole zone. So each gets a record set of
 * ours while it has nothing else: the name then exists, whatever the backend and
 * whether the zone is signed or not, at the price of one set per name. Leaves to
 * others: how many names are below one (`dns/Outbox` counts what was published).
 */
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import type { Zone } from "../domain/Zone.ts"

const placeholderContent = '"something stands below this name"'

/**
 * False for unsigned zones below ip6.arpa: their names have up to 31 labels of one digit, a record set for each would be
 * ten times the zone, and resolvers ask on below an unsigned NXDOMAIN.
 */
export const isKept = (zone: Zone): boolean => zone.dnssec || !zone.name.endsWith(".ip6.arpa.")

/** The names between `name` and the apex of its zone, the nearest first. */
export const above = (name: DomainName, zone: Zone): ReadonlyArray<DomainName> => {
  if (!isKept(zone) || !name.endsWith(`.${zone.name}`)) return []
  const labels = name.slice(0, -zone.name.length - 1).split(".")
  return labels.slice(1).map((_, i) => `${labels.slice(i + 1).join(".")}.${zone.name}` as DomainName)
}

/** What stands at an empty non-terminal. */
export const placeholder = (name: DomainName, zone: Zone): RRset.RRset =>
  RRset.make(name, "TXT", zone.policy.ttlSeconds, [placeholderContent])

export const isPlaceholder = (rrset: RRset.RRset): boolean =>
  rrset.type === "TXT" && rrset.contents.length === 1 && rrset.contents[0] === placeholderContent
