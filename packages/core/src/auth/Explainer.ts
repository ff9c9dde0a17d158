/**
 * Answers "may they, and if not, why": a principal by its name, a claim as
 * somebody would make it, and what every rule, every rate and the registry say.
 *
 * Carries nothing out and takes from no rate. Leaves to others: the rules
 * (`auth/Policy`), the rates (`auth/Admission`), whose a name is
 * (`registry/Foresight`).
 */
import { Effect, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { Zones } from "../dns/Zones.ts"
import * as DomainName from "../domain/DomainName.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import * as Foresight from "../registry/Foresight.ts"
import { Admission } from "./Admission.ts"
import * as Certificates from "./Certificates.ts"
import { Identities, principalOf } from "./Identities.ts"
import type { Claim, Explanation } from "./Policy.ts"
import { anonymous, type Principal } from "./Principal.ts"
import { Tokens } from "./Tokens.ts"

/** Nobody of this name may claim anything. */
export class PrincipalUnknown extends Schema.TaggedError<PrincipalUnknown>()("PrincipalUnknown", {
  name: Schema.String,
  message: Schema.String
}) {}

const certificatePrefix = Certificates.principalName("")

/** What somebody would claim. */
export interface Question {
  /** An identity's id, a token's name, `cert:` and a certificate's name, or `anonymous`. */
  readonly principal: string
  /** The full name, or what stands before its zone. */
  readonly name: DomainName.DomainName
  /** Undefined: the one that a host gets which says none. */
  readonly zone: DomainName.DomainName | undefined
  readonly addresses: ReadonlyArray<IpAddress>
  /** Undefined: the first of `addresses`. */
  readonly peer: IpAddress | undefined
  readonly protocol: Claim["protocol"]
  readonly ttlSeconds: number | undefined
}

export interface Answer {
  readonly principal: Principal
  /** Names it may hold at once; undefined: any number. */
  readonly namesMax: number | undefined
  readonly claim: Claim
  /** In the order in which they decide. */
  readonly rules: ReadonlyArray<Explanation>
  /** The first rule that failed; undefined: the claim is allowed. */
  readonly decidedBy: Explanation | undefined
}

/** `certificates`: what certificates may claim. */
export const make = Effect.fnUntraced(function* (certificates: Certificates.CertificateGrant) {
  const admission = yield* Admission
  const zones = yield* Zones
  const tokens = yield* Tokens
  const identities = yield* Identities
  const foresee = Foresight.make(yield* SqlClient.SqlClient)

  const find = Effect.fnUntraced(function* (
    name: string
  ): Effect.fn.Return<Principal, PrincipalUnknown | SqlError.SqlError> {
    const unknown = (message: string) => new PrincipalUnknown({ name, message })
    if (name === anonymous.name) return anonymous
    if (name.startsWith(certificatePrefix)) {
      return Certificates.principalOf(name.slice(certificatePrefix.length), certificates, zones.forward)
    }
    const token = yield* tokens.find(name)
    if (token !== undefined) {
      if (token.role !== "agent") return yield* unknown(`the token ${token.name} is for the API and claims nothing`)
      if (token.revokedAtMillis !== undefined) return yield* unknown(`the token ${token.name} is revoked`)
      return { name: token.name, kind: "token", anonymous: false, actsFor: [], grant: token.grant }
    }
    const identity = yield* identities
      .get(name)
      .pipe(
        Effect.catchTag("IdentityUnknown", () =>
          unknown(`there is neither an identity nor a token '${name}'; 'anonymous' is who proves nothing`)
        )
      )
    return identity.revokedAtMillis === undefined
      ? principalOf(identity)
      : yield* unknown(`the identity ${identity.id} is revoked`)
  })

  /** Where a host that says so would be: as `Zones.placeHost`, also for names that no host can have. */
  const place = (principal: Principal, name: DomainName.DomainName, wanted: DomainName.DomainName | undefined) => {
    const usual = principal.anonymous ? admission.anonymousZone : principal.grant.zones?.[0]
    const target = wanted ?? usual ?? zones.forward[0]!
    const isFull = wanted === undefined ? zones.zoneOf(name) !== undefined : DomainName.isWithin(name, wanted)
    const fqdn = isFull ? name : (`${name}${target}` as DomainName.DomainName)
    return { fqdn, zone: zones.zoneOf(fqdn)?.name ?? target }
  }

  return {
    explain: Effect.fn("Explainer.explain")(function* (
      question: Question
    ): Effect.fn.Return<Answer, PrincipalUnknown | SqlError.SqlError> {
      const { addresses, name, peer = addresses[0], protocol, ttlSeconds } = question
      const principal = yield* find(question.principal)
      const { fqdn, zone } = place(principal, name, question.zone)
      const claim: Claim = { fqdn, zone, addresses, peer, protocol, ttlSeconds }
      const namesMax = principal.anonymous ? undefined : admission.hostsMax(principal)
      const known = zones.find(zone)
      const registration = {
        fqdn,
        hostname: fqdn.slice(0, -zone.length - 1) as DomainName.HostName,
        zone,
        addresses: [...addresses].sort(),
        registrant: principal,
        peer: peer ?? "",
        hostsMax: namesMax
      }
      const rules = [
        ...admission.explain(principal, claim),
        ...(known === undefined ? [] : yield* foresee(registration, known))
      ]
      return { principal, namesMax, claim, rules, decidedBy: rules.find(({ outcome }) => outcome === "failed") }
    })
  }
})
