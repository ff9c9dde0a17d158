/**
 * Why somebody was refused, as programs know it: the same codes in both
 * protocols, in the audit and in the metric `prism_auth_failures_total`.
 *
 * A code that was released keeps its meaning; docs/reference/protocol.md
 * explains each.
 */

/** What was wrong with a token. `token-not-allowed`: it is good, but not for this use. */
export const tokenCodes = [
  "token-missing",
  "token-invalid",
  "token-expired",
  "token-revoked",
  "token-used-up",
  "token-not-allowed"
] as const

/** What was wrong with a token of an identity provider, at the API. */
export const oidcCodes = ["oidc-invalid", "oidc-expired", "oidc-no-role", "oidc-unavailable"] as const

/** What was wrong with a key or a client certificate. */
export const identityCodes = [
  "identity-unknown",
  "identity-revoked",
  "proof-invalid",
  "certificate-missing",
  "certificate-invalid",
  "certificate-revoked"
] as const

/** What was wrong with the session or its connection. */
export const sessionCodes = ["protocol-not-allowed", "proxy-not-allowed", "proxy-missing", "proxy-invalid"] as const

/** Why a claim to a name and addresses was not granted. */
export const claimCodes = [
  "zone-not-allowed",
  "name-not-allowed",
  "name-reserved",
  "address-not-allowed",
  "quota-exceeded",
  "rate-limited",
  "hostname-taken",
  "hostname-flapping"
] as const

export type TokenCode = (typeof tokenCodes)[number]
export type OidcCode = (typeof oidcCodes)[number]
export type ClaimCode = (typeof claimCodes)[number]

export const refusalCodes = [...tokenCodes, ...oidcCodes, ...identityCodes, ...sessionCodes, ...claimCodes] as const
export type RefusalCode = (typeof refusalCodes)[number]

const known: ReadonlySet<string> = new Set(refusalCodes)

/** True for a code of refused access, which is audited and counted; others say that a message or the server is at fault. */
export const isRefusalCode = (code: string): code is RefusalCode => known.has(code)
