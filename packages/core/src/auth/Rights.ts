/**
 * Explains what somebody may do by the API: the same decision as `Permissions`,
 * with each step said. Pure.
 *
 * The bounds of the principal decide first, then its roles in their order; the
 * first role that allows it is the one by which it may.
 */
import {
  allowsSomewhere,
  type Authority,
  describe,
  permissionFor,
  type Permission,
  type Place,
  reaches,
  type Resource,
  type Role,
  type Verb
} from "./Permissions.ts"

export interface RightRule {
  /** `bounds`, or `role:` and a name. */
  readonly rule: string
  readonly outcome: "passed" | "failed" | "not-applicable"
  readonly detail: string
}

export interface Right {
  readonly allowed: boolean
  readonly by: { readonly role: string; readonly permission: Permission } | undefined
  readonly detail: string
  readonly rules: ReadonlyArray<RightRule>
}

export interface RightQuestion {
  readonly verb: Verb
  readonly resource: Resource
  readonly place: Place
  /** In the order in which they are asked; undefined under a name that no role has. */
  readonly roles: ReadonlyArray<{ readonly name: string; readonly role: Pick<Role, "permissions"> | undefined }>
  readonly bounds: Pick<Authority, "zones" | "names">
}

const where = ({ name, zone }: Place): string =>
  (name ?? zone) === undefined ? "where it is about all zones, or none" : `at ${name ?? zone}`

export const explain = ({ bounds, place, resource, roles, verb }: RightQuestion): Right => {
  const what = `${verb} ${resource} ${where(place)}`
  const isWithin = reaches(bounds, place)
  const boundsRule: RightRule = {
    rule: "bounds",
    outcome: isWithin ? "passed" : "failed",
    detail:
      bounds.zones === undefined && bounds.names === undefined
        ? "it is bound to no zones and no names"
        : [
            `it is bound to ${[
              ...(bounds.zones === undefined ? [] : [`the zones ${bounds.zones.join(", ")}`]),
              ...(bounds.names === undefined ? [] : [`the names ${bounds.names.join(", ")}`])
            ].join(" and ")}`,
            ...(isWithin
              ? []
              : [
                  `which do not reach ${(place.name ?? place.zone) === undefined ? "that far" : (place.name ?? place.zone)}`
                ])
          ].join(", ")
  }
  let by: Right["by"]
  const ofRoles = roles.map(({ name, role }): RightRule => {
    const rule = `role:${name}`
    if (role === undefined)
      return { rule, outcome: "failed", detail: `there is no role ${name}, so that it allows nothing` }
    const permission = permissionFor(role.permissions, verb, resource, place)
    if (permission !== undefined) {
      if (by === undefined && isWithin) by = { role: name, permission }
      return { rule, outcome: "passed", detail: `allows to ${describe(permission)}` }
    }
    const elsewhere = allowsSomewhere(
      { permissions: role.permissions, zones: undefined, names: undefined },
      verb,
      resource
    )
    return {
      rule,
      outcome: "failed",
      detail: elsewhere ? `allows to ${verb} ${resource} elsewhere only` : `has no permission to ${verb} ${resource}`
    }
  })
  const detail =
    by !== undefined
      ? `it may ${what}, by the role ${by.role}`
      : !isWithin
        ? `it may not ${what}: ${boundsRule.detail}`
        : roles.length === 0
          ? `it may not ${what}: it has no role`
          : `it may not ${what}: no role of its allows it`
  return { allowed: by !== undefined, by, detail, rules: [boundsRule, ...ofRoles] }
}
