/**
 * What people and programs may do by the API: roles, each a list of
 * permissions, and the decision over them. Pure.
 *
 * A permission is a verb on a resource, within zones and patterns of names
 * where it says so. Whoever speaks has an authority: the permissions of its
 * roles, within the zones and names of its own grant. What no permission allows
 * is denied. Leaves to others: who speaks (`server/http/Authentication`), and
 * what hosts may claim (`auth/Policy`).
 */
import type { DomainName } from "../domain/DomainName.ts"
import { isWithin } from "../domain/DomainName.ts"
import { isPatternWithin, matchesPattern } from "./Principal.ts"

/**
 * - `read`: to look at it. `write`: to make and change it. `delete`: to remove it.
 * - `apply`: to carry out what was proposed, or to let a guard's alarm pass.
 */
export const verbs = ["read", "write", "delete", "apply"] as const
export type Verb = (typeof verbs)[number]

/** `lua` are LUA records: PowerDNS runs what is written there, so no other permission has them in it. */
export const resources = [
  "hosts",
  "zones",
  "records",
  "lua",
  "plans",
  "publications",
  "guards",
  "tokens",
  "identities",
  "roles",
  "access",
  "audit",
  "events",
  "webhooks",
  "status"
] as const
export type Resource = (typeof resources)[number]

export interface Permission {
  readonly verb: Verb | "*"
  /** `*`: everything but `lua`. */
  readonly resource: Resource | "*"
  /** Undefined: everywhere, also what belongs to no zone. */
  readonly zones?: ReadonlyArray<DomainName> | undefined
  /** Patterns (`matchesPattern`) of names below their zone; undefined: any. */
  readonly names?: ReadonlyArray<string> | undefined
}

export interface Role {
  readonly name: string
  readonly description: string
  readonly permissions: ReadonlyArray<Permission>
}

const reading = (...of: ReadonlyArray<Resource>): ReadonlyArray<Permission> =>
  of.map((resource) => ({ verb: "read", resource }))
const all = (...of: ReadonlyArray<Resource>): ReadonlyArray<Permission> =>
  of.map((resource) => ({ verb: "*", resource }))

const looking = reading("hosts", "zones", "records", "plans", "publications", "guards", "events", "status")

/** Roles that are always there. */
export const builtInRoles: ReadonlyArray<Role> = [
  { name: "viewer", description: "Looks at hosts, zones, records and what becomes of them.", permissions: looking },
  {
    name: "operator",
    description: "Runs hosts, records and plans, within zones as they are set up.",
    permissions: [...looking, ...all("hosts", "records", "plans", "publications", "guards")]
  },
  {
    name: "admin",
    description: "Everything, except LUA records, which a role of one's own has to name.",
    permissions: [{ verb: "*", resource: "*" }]
  },
  {
    name: "auditor",
    description: "Looks at everything, the audit and the rules of access among it, and changes nothing.",
    permissions: [...looking, ...reading("tokens", "identities", "roles", "access", "audit", "webhooks")]
  },
  {
    name: "agent",
    description: "Registers hosts and looks at them, within the grant of its token.",
    permissions: [
      { verb: "read", resource: "hosts" },
      { verb: "write", resource: "hosts" }
    ]
  }
]

/** What somebody may do. */
export interface Authority {
  readonly permissions: ReadonlyArray<Permission>
  /** Beyond these zones and names it may nothing, whatever its roles; undefined: no such bound. */
  readonly zones: ReadonlyArray<DomainName> | undefined
  readonly names: ReadonlyArray<string> | undefined
}

/** What something concerns. Without a zone: all zones, or none. */
export interface Place {
  readonly zone?: DomainName | undefined
  /** A full name within `zone`; undefined: the zone as a whole. */
  readonly name?: DomainName | undefined
}

/** Zones and patterns of names that something is bound to; undefined: it is not. */
export interface Bounds {
  readonly zones?: ReadonlyArray<DomainName> | undefined
  readonly names?: ReadonlyArray<string> | undefined
}

/** Where something is bound to zones or names, what concerns more than those lies outside. */
const covers = ({ names, zones }: Bounds, { name, zone }: Place): boolean => {
  if (zones !== undefined && (zone === undefined || !zones.includes(zone))) return false
  if (names === undefined) return true
  if (zone === undefined || name === undefined || name === zone || !isWithin(name, zone)) return false
  const below = name.slice(0, -zone.length - 1)
  return names.some((pattern) => matchesPattern(pattern, below))
}

const isAbout = (permission: Permission, verb: Verb, resource: Resource): boolean =>
  (permission.verb === "*" || permission.verb === verb) &&
  (permission.resource === resource || (permission.resource === "*" && resource !== "lua"))

/** Whether `authority` may do it at `place`. */
export const allows = (authority: Authority, verb: Verb, resource: Resource, place: Place): boolean =>
  covers(authority, place) &&
  authority.permissions.some((permission) => isAbout(permission, verb, resource) && covers(permission, place))

/** Whether it may do it anywhere at all. */
export const allowsSomewhere = (authority: Authority, verb: Verb, resource: Resource): boolean =>
  authority.permissions.some((permission) => isAbout(permission, verb, resource))

/** Whether each of `inner` fits nothing but what one of `outer` fits too. Never true where that is not so. */
const areWithin = (inner: ReadonlyArray<string> | undefined, outer: ReadonlyArray<string> | undefined): boolean =>
  outer === undefined || (inner?.every((each) => outer.some((pattern) => isPatternWithin(each, pattern))) ?? false)

/** Whether it may do it everywhere within `bounds`: at what is itself bound to zones and names, as tokens are. */
export const allowsWithin = (authority: Authority, verb: Verb, resource: Resource, bounds: Bounds): boolean => {
  const { names, zones } = bounds
  const inZone = (zone: DomainName | undefined, pattern: ReadonlyArray<string> | undefined): boolean => {
    const coversAll = (outer: Bounds) =>
      (outer.zones === undefined || (zone !== undefined && outer.zones.includes(zone))) &&
      areWithin(pattern, outer.names)
    return (
      coversAll(authority) &&
      authority.permissions.some((permission) => isAbout(permission, verb, resource) && coversAll(permission))
    )
  }
  const patterns = names === undefined ? [undefined] : names.map((each) => [each])
  return (zones ?? [undefined]).every((zone) => patterns.every((pattern) => inZone(zone, pattern)))
}

const everyResource = resources.filter((resource) => resource !== "lua")

/** What a permission is about, one by one. */
const singly = ({ resource, verb }: Permission): ReadonlyArray<readonly [Verb, Resource]> => {
  const about = resource === "*" ? everyResource : [resource]
  return (verb === "*" ? verbs : [verb]).flatMap((each) => about.map((one) => [each, one] as const))
}

const common = <A>(
  some: ReadonlyArray<A> | undefined,
  others: ReadonlyArray<A> | undefined
): ReadonlyArray<A> | undefined =>
  some === undefined ? others : others === undefined ? some : some.filter((each) => others.includes(each))

/**
 * Whether whoever has `outer` may do everything that `inner` may: what somebody gives lies within what it has. Sound:
 * where that could only be seen from several permissions together, it is denied.
 */
export const contains = (outer: Authority, inner: Authority): boolean =>
  inner.permissions.every((permission) => {
    const zones = common(inner.zones, permission.zones)
    // A name has to fit both: it is enough if either of them lies within.
    const bounds = [inner.names, permission.names].filter((names) => names !== undefined)
    return singly(permission).every(([verb, resource]) =>
      (bounds.length === 0 ? [undefined] : bounds).some((names) =>
        allowsWithin(outer, verb, resource, { zones, names })
      )
    )
  })

/** Permissions as they are within `bounds` only. Of two patterns of names the narrower stays, where one lies in the other. */
export const boundTo = (permissions: ReadonlyArray<Permission>, bounds: Bounds): ReadonlyArray<Permission> =>
  permissions.map((permission) => {
    const { names, zones } = permission
    const narrower = (some: ReadonlyArray<string>, others: ReadonlyArray<string>) =>
      some.filter((each) => areWithin([each], others))
    return {
      ...permission,
      zones: common(zones, bounds.zones),
      names:
        names === undefined || bounds.names === undefined
          ? (names ?? bounds.names)
          : [...new Set([...narrower(names, bounds.names), ...narrower(bounds.names, names)])]
    }
  })

/** The permission by which it may do this at `place`; undefined: by none, or not so far. */
export const permissionFor = (
  permissions: ReadonlyArray<Permission>,
  verb: Verb,
  resource: Resource,
  place: Place
): Permission | undefined =>
  permissions.find((permission) => isAbout(permission, verb, resource) && covers(permission, place))

/** Whether zones and names, whatever the roles, reach `place`. */
export const reaches = (bounds: Bounds, place: Place): boolean => covers(bounds, place)

/** In words: `write hosts in lab.example.net. (names web-*)`. */
export const describe = ({ names, resource, verb, zones }: Permission): string => {
  const what = `${verb === "*" ? "do everything with" : verb} ${resource === "*" ? "everything but LUA records" : resource}`
  const inZones = zones === undefined ? "" : zones.length === 0 ? " in no zone" : ` in ${zones.join(", ")}`
  return `${what}${inZones}${names === undefined ? "" : ` (names ${names.join(", ")})`}`
}

/** Where it may do it, for lists. */
export interface Scope {
  /** Undefined: in every zone; names may be bound all the same. */
  readonly zones: ReadonlyArray<DomainName> | undefined
  /** True where zones say all: names are not bound, in any of them. */
  readonly everyName: boolean
  /** What belongs to no zone is seen too. */
  readonly everything: boolean
  /** Whether there may be something to see in this zone. */
  readonly touches: (zone: DomainName) => boolean
  readonly has: (place: Place) => boolean
}

export const scopeOf = (authority: Authority, verb: Verb, resource: Resource): Scope => {
  const about = authority.permissions.filter((permission) => isAbout(permission, verb, resource))
  const within = (zones: ReadonlyArray<DomainName>) =>
    authority.zones === undefined ? zones : zones.filter((zone) => authority.zones!.includes(zone))
  const zones = about.some((permission) => permission.zones === undefined)
    ? authority.zones
    : within([...new Set(about.flatMap((permission) => permission.zones ?? []))])
  return {
    zones,
    touches: (zone) => about.length > 0 && (zones === undefined || zones.includes(zone)),
    everyName: authority.names === undefined && about.every(({ names }) => names === undefined),
    everything: allows(authority, verb, resource, {}),
    has: (place) => allows(authority, verb, resource, place)
  }
}
