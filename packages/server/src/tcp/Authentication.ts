/**
 * Who speaks on a session of protocol 2.0: what was shown becomes a principal,
 * or a refusal with its code.
 *
 * What is shown is checked whatever `auth.mode` says; the mode decides only
 * whether one may show nothing at all. Leaves to others: the proof of a key,
 * which came before (`core/protocol/Handshake`), and what the principal may
 * claim (`core/auth/Admission`).
 */
import * as Certificates from "@prism-dns/core/auth/Certificates"
import { Identities, type IdentityRefused } from "@prism-dns/core/auth/Identities"
import * as Principal from "@prism-dns/core/auth/Principal"
import type { TokenMode } from "@prism-dns/core/auth/TokenMode"
import { TokenRefused } from "@prism-dns/core/auth/TokenRefused"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { Evidence } from "@prism-dns/core/protocol/Handshake"
import * as Proof from "@prism-dns/core/protocol/Proof"
import type { RegistryUnavailable } from "@prism-dns/core/registry/Registry"
import { Effect } from "effect"
import type { Connection } from "./Connection.ts"

export interface AuthenticationOptions {
  /** Whether who proves nothing may speak. */
  readonly mode: TokenMode
  /** What client certificates may claim. Default: their own name. */
  readonly certificates?: Certificates.CertificateGrant
}

/** Who speaks, and until when. */
export interface Recognised {
  readonly principal: Principal.Principal
  /** When what was shown runs out. */
  readonly expiresAtMillis: number
}

/** It does not hold. `code` is stable, `message` for people. */
export interface Unrecognised {
  readonly code: string
  readonly message: string
  /** What it was about, for the audit: a token's name, the fingerprint of a key. */
  readonly subject?: string
}

export type Outcome = Recognised | Unrecognised

export type Authenticate = (
  evidence: Evidence,
  connection: Pick<Connection, "peer" | "transport">
) => Outcome | Effect.Effect<Outcome>

const forever = (principal: Principal.Principal): Recognised => ({
  principal,
  expiresAtMillis: Number.POSITIVE_INFINITY
})
const anonymous = forever(Principal.anonymous)

export const make = Effect.fnUntraced(function* (options: AuthenticationOptions) {
  const tokens = yield* Tokens
  const identities = yield* Identities
  const zones = yield* Zones
  const { certificates = Certificates.ownNameOnly } = options

  const authenticate: Authenticate = (evidence, { peer, transport }) => {
    switch (evidence.method) {
      case "anonymous":
        return options.mode === "required"
          ? {
              code: "protocol-not-allowed",
              message: "whoever speaks here has to prove who it is (auth.mode is required)"
            }
          : anonymous
      case "token": {
        const holder = tokens.verify(evidence.token, "agent", "bearer")
        return holder instanceof TokenRefused
          ? unrecognised(holder, "")
          : forever({ name: holder.name, kind: "token", anonymous: false, actsFor: [], grant: holder.grant })
      }
      case "certificate":
        return transport._tag === "Plain" || transport.certificate === undefined
          ? { code: "certificate-missing", message: "the connection has no client certificate" }
          : {
              principal: Certificates.principalOf(transport.certificate.name, certificates, zones.forward),
              expiresAtMillis: transport.certificate.expiresAtMillis
            }
      case "key": {
        const { publicKey } = evidence
        return outcome(identities.authenticate(publicKey), publicKey)
      }
      case "enrol": {
        const { publicKey } = evidence
        const token = tokens.verify(evidence.token, "agent", "enrol")
        return token instanceof TokenRefused
          ? unrecognised(token, Proof.fingerprint(publicKey))
          : outcome(identities.enrol({ publicKey, token, peer }), publicKey)
      }
    }
  }
  return authenticate
})

const unrecognised = ({ code, message }: Unrecognised, subject: string): Unrecognised => ({ code, message, subject })

/** Of what asks the database about a key. */
const outcome = (
  effect: Effect.Effect<Principal.Principal, TokenRefused | IdentityRefused | RegistryUnavailable>,
  publicKey: string
): Effect.Effect<Outcome> =>
  effect.pipe(
    Effect.map(forever),
    Effect.catch((failure) =>
      Effect.succeed<Outcome>(
        failure._tag === "RegistryUnavailable"
          ? { code: "unavailable", message: "the registry is not available" }
          : unrecognised(failure, Proof.fingerprint(publicKey))
      )
    )
  )
