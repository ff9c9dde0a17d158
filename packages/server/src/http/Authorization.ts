/**
 * Whether the caller may do what a handler is about to do, at the place it is
 * about. Called by handlers, once they know the zone and the name.
 *
 * What somebody may not see is answered as if it were not there: a handler
 * that reads asks `mayRead`, and says 404 where it is told no.
 */
import { Caller } from "@prism-dns/core/api/Authentication"
import { Forbidden } from "@prism-dns/core/api/Problems"
import { allows, type Place, type Resource, scopeOf, type Verb } from "@prism-dns/core/auth/Permissions"
import { Effect } from "effect"

const where = ({ name, zone }: Place): string => ((name ?? zone) === undefined ? "here" : `at ${name ?? zone}`)

/** Fails with 403 unless the caller may do this at `place`. */
export const require = (verb: Verb, resource: Resource, place: Place = {}) =>
  Effect.flatMap(Caller, ({ authority, name, roles }) =>
    allows(authority, verb, resource, place)
      ? Effect.void
      : Effect.fail(
          new Forbidden({
            detail:
              `${name} (${roles.length === 0 ? "no role" : roles.join(", ")}) may not ${verb} ${resource} ${where(place)}. ` +
              "GET /v1/whoami says what it may; a role or a token with a wider scope is given by an administrator."
          })
        )
  )

/** Whether the caller may see `resource` at `place`. */
export const mayRead = (resource: Resource, place: Place) =>
  Effect.map(Caller, ({ authority }) => allows(authority, "read", resource, place))

/** Where the caller may do this, for lists. */
export const scope = (verb: Verb, resource: Resource) =>
  Effect.map(Caller, ({ authority }) => scopeOf(authority, verb, resource))
