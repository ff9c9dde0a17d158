/** What the configuration says of an identity provider. Apart from `http/Oidc`, so that it can be read without what verifies. */
import type { Bounds } from "@prism-dns/core/auth/Permissions"
import type { Duration } from "effect"

/** Who of the provider's has which role here, and how far. */
export interface RoleMapping extends Bounds {
  /** One of the values of the claim that says roles. */
  readonly value: string
  readonly role: string
}

export interface OidcConfig {
  /** As it stands in the tokens, to the letter. */
  readonly issuer: string
  /** What its tokens for us are made out to. */
  readonly audience: string
  /** The claim that names somebody in the audit. */
  readonly nameClaim: string
  /** The claim that lists roles or groups; with dots, of an object within. */
  readonly rolesClaim: string
  readonly roles: ReadonlyArray<RoleMapping>
  /** Where its keys are; undefined: as its discovery document says. */
  readonly jwksUri: string | undefined
  /** By how much its clock may differ from ours. */
  readonly clockTolerance: Duration.Duration
}

/** Whether what is sent there stays on this machine. */
const isLoopback = ({ hostname, protocol }: URL): boolean =>
  protocol === "http:" && (hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname))

/** Whether keys that come from there are the provider's: over TLS, or from this machine. */
export const isSafeUrl = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && url.username === "" && url.password === "" && (url.protocol === "https:" || isLoopback(url))
}
