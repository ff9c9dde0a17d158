/**
 * What somebody may do by the API now, of whom only the name is known: by whose
 * word something goes on, such as a webhook, long after it was said.
 *
 * A token's roles and grant are looked up, and its end. What an identity
 * provider says of a person is told with that person's own token only: of such
 * a one the roles are known, as they were then, and what those allow now.
 */
import { Clock, Effect } from "effect"
import type { Authority } from "./Permissions.ts"
import type { Roles } from "./Roles.ts"
import { stateOf, type TokenHolder, type Tokens } from "./Tokens.ts"

/** Who gave its word. */
export interface Person {
  readonly name: string
  /** Of one who came by an identity provider; undefined: by a token. */
  readonly roles: ReadonlyArray<string> | undefined
}

/** It may do this by now, or nothing any more, and why. */
export type Standing =
  | { readonly _tag: "May"; readonly authority: Authority }
  | { readonly _tag: "MayNothing"; readonly why: string }

/** What the holder of a token may do. */
export const authorityOf = (
  roles: Roles["Service"],
  { grant, roles: names }: Pick<TokenHolder, "grant" | "roles">
): Authority => ({ permissions: roles.permissionsOf(names), zones: grant.zones, names: grant.names })

const nothing = (why: string): Standing => ({ _tag: "MayNothing", why })

const judged = (name: string, authority: Authority): Standing =>
  authority.permissions.length === 0
    ? nothing(`${name} has no role any more that allows anything`)
    : { _tag: "May", authority }

const ended = { revoked: "was revoked", expired: "has run out", "used-up": "is used up" } as const

/** `oidc`: people come by an identity provider at all. */
export const find = Effect.fnUntraced(function* (
  { roles, tokens }: { readonly roles: Roles["Service"]; readonly tokens: Tokens["Service"] },
  { name, roles: given }: Person,
  oidc: boolean
) {
  if (given !== undefined) {
    return oidc
      ? judged(name, { permissions: roles.permissionsOf(given), zones: undefined, names: undefined })
      : nothing(`${name} came by an identity provider, by which nobody comes any more`)
  }
  const token = yield* tokens.find(name)
  if (token === undefined) return nothing(`there is no token ${name} any more`)
  const state = stateOf(token, yield* Clock.currentTimeMillis)
  return state === "active" ? judged(name, authorityOf(roles, token)) : nothing(`the token ${name} ${ended[state]}`)
})
