/**
 * Groups of servers that share one name tree: each group has a registry of its
 * own, and serves zones that no other does.
 *
 * A server knows the zones of the other groups from its configuration. An agent
 * that comes to the wrong group is told where to go (`redirect`, protocol 2.0);
 * whoever cannot follow is told in words. One name tree spans the groups by
 * delegation: the zone above holds NS records for the zone below.
 *
 * A name belongs to the longest zone that holds it, in whichever group that is.
 * A zone that this server manages itself counts as its own, so that all groups
 * may have the same list.
 */
import * as DomainName from "../domain/DomainName.ts"
import type { DomainName as Name } from "../domain/DomainName.ts"

export interface Group {
  readonly name: string
  readonly zones: ReadonlyArray<Name>
  /** Where its agents connect, as an agent would be given them: `HOST:PORT` or `tls://HOST:PORT`. */
  readonly servers: ReadonlyArray<string>
}

/** A zone of another group. */
export interface Elsewhere {
  readonly zone: Name
  readonly group: Group
}

export type Groups = ReadonlyMap<Name, Group>

export const none: Groups = new Map()

export const make = (groups: ReadonlyArray<Group>): Groups =>
  new Map(groups.flatMap((group) => group.zones.map((zone) => [zone, group] as const)))

/** The longest zone of another group that `name` lies in, longer than `own` where that is given. */
export const find = (groups: Groups, name: Name, own?: Name): Elsewhere | undefined => {
  if (groups.size === 0) return undefined
  for (let dot = -1; dot < name.length - 1;) {
    const zone = name.slice(dot + 1) as Name
    if (zone === own) return undefined
    const group = groups.get(zone)
    if (group !== undefined) return { zone, group }
    dot = name.indexOf(".", dot + 1)
    if (dot < 0) return undefined
  }
  return undefined
}

/** For who came to the wrong servers. */
export const sentence = (what: string, { group, zone }: Elsewhere): string =>
  `${what} belongs to the zone ${zone}, which other servers serve (${group.name}): connect to ${group.servers.join(" or ")}`

/** The full name that is meant by `hostname`, where it lies in one of the zones or one is said; else undefined. */
export const nameOf = (
  hostname: DomainName.HostName,
  zone: Name | undefined,
  isWithinAny: (name: Name) => boolean
): Name | undefined => {
  const name = `${hostname}.` as Name
  if (isWithinAny(name)) return name
  if (zone === undefined) return undefined
  const placed = DomainName.prepend(hostname, zone)
  return placed._tag === "Success" ? placed.success : undefined
}
