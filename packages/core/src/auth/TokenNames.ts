/**
 * What tokens may be called: a token's name stands in the audit and as owner
 * of hosts, so it must not be that of anyone else.
 */

/** Names of those that no token may pass for, and whose they are. */
const reserved: ReadonlyArray<readonly [RegExp, string]> = [
  [/^anonymous$/, "who has none"],
  [/^prism$/, "Prism itself in the audit"],
  [/^unknown$/, "whoever is not known in the audit"],
  [/^i-[a-z2-7]{16}$/, "an identity's"],
  [/^cert:/, "that of a client certificate"],
  [/^oidc:/, "that of somebody whom an identity provider knows"]
]

/** Whose name `name` is, when no token may be called so. */
export const reservedFor = (name: string): string | undefined => reserved.find(([pattern]) => pattern.test(name))?.[1]

const namePattern = /^[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,126}[A-Za-z0-9])?$/

/** True when a token that is made may be called so; the configuration is free to use others. */
export const isName = (name: string): boolean => namePattern.test(name)
