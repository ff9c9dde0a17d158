/**
 * Whether the caller may do what a handler is about to do, at the place it is
 * about. Called by handlers, once they know the zone and the name.
 *
 * What somebody may not see is answered as if it were not there: a handler
 * that reads asks `mayRead`, and says 404 where it is told no.
 */
import { Caller } from "@prism-dns/core/api/Authentication"
import { Forbidden } from "@prism-dns/core/api/Problems"
import {
  allows,
  allowsWithin,
  type Authority,
  type Bounds,
  contains,
  type Place,
  type Resource,
  scopeOf,
  type Verb
} from "@prism-dns/core/auth/Permissions"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { Zone } from "@prism-dns/core/domain/Zone"
import { Effect } from "effect"

const where = ({ name, zone }: Place): string => ((name ?? zone) === undefined ? "here" : `at ${name ?? zone}`)

/** A full name at the end has a dot of its own. */
const ended = (text: string): string => (text.endsWith(".") ? text : `${text}.`)

const forbidden = (caller: Caller["Service"], what: string) =>
  new Forbidden({
    detail:
      `${caller.name} (${caller.roles.length === 0 ? "no role" : caller.roles.join(", ")}) may not ${ended(what)} ` +
      "GET /v1/whoami says what it may; a role or a token with a wider scope is given by an administrator."
  })

/** Why this caller may not do this at `place`; undefined: it may. */
export const refusal = (
  caller: Caller["Service"],
  verb: Verb,
  resource: Resource,
  place: Place = {}
): Forbidden | undefined =>
  allows(caller.authority, verb, resource, place) ? undefined : forbidden(caller, `${verb} ${resource} ${where(place)}`)

/** Fails with 403 unless the caller may do this at `place`. */
export const require = (verb: Verb, resource: Resource, place: Place = {}) =>
  Effect.flatMap(Caller, (caller) => {
    const refused = refusal(caller, verb, resource, place)
    return refused === undefined ? Effect.void : Effect.fail(refused)
  })

/** Fails with 403 unless the caller may do this everywhere within `bounds`: what is bound to zones and names itself. */
export const requireWithin = (verb: Verb, resource: Resource, bounds: Bounds) =>
  Effect.flatMap(Caller, (caller) =>
    allowsWithin(caller.authority, verb, resource, bounds)
      ? Effect.void
      : Effect.fail(forbidden(caller, `${verb} ${resource} in ${bounds.zones?.join(", ") ?? "every zone"}`))
  )

/** Whether the caller may see `resource` everywhere within `bounds`. */
export const mayReadWithin = (resource: Resource, bounds: Bounds) =>
  Effect.map(Caller, ({ authority }) => allowsWithin(authority, "read", resource, bounds))

/** The place of a full name; of one in none of the zones, what belongs to no zone. */
export const placeOf = (zones: ReadonlyArray<Zone>, name: DomainName.DomainName): Place => {
  const zone = DomainName.longestZone(name, zones)
  return zone === undefined ? {} : { zone: zone.name, name }
}

const lying = (held: Verb, what: string, given: Authority) =>
  Effect.flatMap(Caller, (caller) =>
    allows(caller.authority, held, "roles", {}) || contains(caller.authority, given)
      ? Effect.void
      : forbidden(caller, `give or take ${what}, which allows more than it may itself`)
  )

/**
 * Fails with 403 unless what is given lies within the caller's own authority: nobody gives more than it has. Who may write
 * every role could come to have it all the same.
 */
export const requireToGive = (what: string, given: Authority) => lying("write", what, given)

/** The same of a role that is taken away: who may delete every one of them may delete this. */
export const requireToTake = (what: string, taken: Authority) => lying("delete", what, taken)

/** Whether the caller may see `resource` at `place`. */
export const mayRead = (resource: Resource, place: Place) =>
  Effect.map(Caller, ({ authority }) => allows(authority, "read", resource, place))

/** Where the caller may do this, for lists. */
export const scope = (verb: Verb, resource: Resource) =>
  Effect.map(Caller, ({ authority }) => scopeOf(authority, verb, resource))
