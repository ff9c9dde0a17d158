/**
 * Answers a message of protocol 1.0.
 *
 * The straight line of a registration begins here: payload → message → who is
 * it → which name → lease, or may it → registry → acknowledgement → response.
 * What needs no database is answered at once.
 */
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Admission } from "@prism-dns/core/auth/Admission"
import type { Claim } from "@prism-dns/core/auth/Policy"
import type { RefusalCode } from "@prism-dns/core/auth/RefusalCode"
import { identify, NotAllowed, type TokenMode } from "@prism-dns/core/auth/TokenMode"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import { type Fields, parseObject } from "@prism-dns/core/protocol/Payload"
import type { Registration } from "@prism-dns/core/registry/Decision"
import { Leases } from "@prism-dns/core/registry/Leases"
import { type Registered, Registry } from "@prism-dns/core/registry/Registry"
import { Clock, Duration, Effect, Result } from "effect"
import * as RegistrationCounts from "./RegistrationCounts.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface ProtocolOptions {
  /** What is done about tokens. */
  readonly mode: TokenMode
  /** How long an answer waits for PowerDNS before it says `accepted`. */
  readonly ackTimeout: Duration.Duration
}

/** True for what is meant as a message of this version, whether it is a good one or not. */
export const isMeant = ({ type, version }: Fields): boolean => version === "1.0" || type === "registration"

/** The text of a response: there already, or on its way. */
export type Response = string | Effect.Effect<string>

export const make = Effect.fnUntraced(function* (options: ProtocolOptions) {
  const registry = yield* Registry
  const leases = yield* Leases
  const zones = yield* Zones
  const tokens = yield* Tokens
  const admission = yield* Admission
  const refusals = yield* Refusals
  const acknowledgements = yield* Acknowledgements
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const ackTimeoutMillis = Duration.toMillis(options.ackTimeout)
  const now = () => clock.currentTimeMillisUnsafe()

  const { count, reached } = yield* RegistrationCounts.make
  const observe = (level: string, sinceMillis: number) => reached(level, now() - sinceMillis)

  const error = (code: string, message: string, retryAfterSeconds?: number): string =>
    MessageV1.encodeResponse(
      {
        status: "error",
        message,
        more: { code, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds: Math.ceil(retryAfterSeconds) }) }
      },
      now()
    )

  const refused = (code: string, message: string, retryAfterSeconds?: number): string => {
    count("refused")
    return error(code, message, retryAfterSeconds)
  }

  /** Refused for what was proved or claimed: that is audited. */
  const notAllowed = (
    refusal: { readonly code: RefusalCode; readonly message: string; readonly retryAfterSeconds?: number },
    actor: string,
    peer: string | undefined,
    subject: string
  ): string => {
    refusals.record({ code: refusal.code, message: refusal.message, actor, peer, subject })
    return refused(refusal.code, refusal.message, refusal.retryAfterSeconds)
  }

  /** Answers the payload of one frame that came from `peer`. */
  const answer = (payload: Uint8Array, peer: IpAddress | undefined): Response => {
    const object = parseObject(payload)
    return Result.isSuccess(object)
      ? answerObject(object.success, peer)
      : refused(object.failure.code, object.failure.message)
  }

  /** The same for a payload that was parsed already. */
  const answerObject = (object: Fields, peer: IpAddress | undefined): Response => {
    const readMillis = now()
    const message = MessageV1.decodeObject(object)
    if (Result.isFailure(message)) return refused(message.failure.code, message.failure.message)
    const { authToken, hostname } = message.success

    const principal = identify(options.mode, tokens, authToken)
    if (principal instanceof NotAllowed) return notAllowed(principal, "unknown", peer, hostname)

    const place = zones.placeHost(hostname, principal.anonymous ? admission.anonymousZone : undefined)
    if (Result.isFailure(place)) return refused("invalid", place.failure.reason)
    const { name: fqdn, zone } = place.success

    if (peer === undefined) return refused("peer-unknown", "the connection was reset before its address could be read")

    const host = leases.renew(fqdn, [peer], principal, readMillis)
    if (host !== undefined) {
      TcpMetrics.heartbeats.updateUnsafe(1, context)
      count("renewed")
      return MessageV1.encodeResponse(
        { status: "success", message: "lease renewed", more: { host: host.fqdn, address: peer } },
        readMillis
      )
    }

    const claim: Claim = { fqdn, zone, addresses: [peer], peer, protocol: "1.0" }
    const verdict = admission.admit(principal, claim, readMillis)
    if (verdict._tag === "Refused") return notAllowed(verdict, principal.name, peer, fqdn)
    // Anonymous hosts have no owner in common that could be given so many: their zone's bound is theirs.
    const hostsMax = principal.anonymous ? undefined : admission.hostsMax(principal)
    const mayHave = (name: DomainName) => admission.isGranted(principal, { ...claim, fqdn: name })
    return register(
      { fqdn, hostname, zone, addresses: [peer], registrant: principal, peer, hostsMax, mayHave },
      () => admission.giveBack(principal, claim),
      readMillis
    )
  }

  const register = (registration: Registration, giveBack: () => void, readMillis: number): Effect.Effect<string> => {
    const notTaken = (failure: Parameters<typeof notAllowed>[0]) =>
      notAllowed(failure, registration.registrant.name, registration.peer, registration.fqdn)
    return registry.register(registration).pipe(
      // After a restart the first beats come here, and change nothing.
      Effect.tap(({ outcome }) => Effect.sync(() => outcome === "renewed" && giveBack())),
      Effect.flatMap((registered) => acknowledge(registered, readMillis)),
      Effect.catch((failure) => {
        switch (failure._tag) {
          case "HostnameTaken":
            return Effect.succeed(notTaken({ code: "hostname-taken", message: failure.message }))
          case "ZoneGone":
            giveBack()
            return Effect.succeed(refused("invalid", failure.message))
          case "QuotaExceeded":
            return Effect.succeed(notTaken({ code: "quota-exceeded", message: failure.message }))
          case "HostnameFlapping": {
            const retryAfterSeconds = Math.max(1, (failure.untilMillis - now()) / 1000)
            return Effect.succeed(notTaken({ code: "hostname-flapping", message: failure.message, retryAfterSeconds }))
          }
          // Nothing is expected of the host: what is there is what was asked last.
          case "HostMoved":
          case "RegistryUnavailable":
            giveBack()
            count("failed")
            return Effect.succeed(error("unavailable", "the registry is not available", 5))
        }
      })
    )
  }

  /** Waits, within `ackTimeout`, for the records of a change; the answer says how far they came. */
  const acknowledge = Effect.fnUntraced(function* (registered: Registered, readMillis: number) {
    const { host, outcome, previousAddresses, ticket } = registered
    count(outcome)
    observe("accepted", readMillis)
    // Also when the answer does not wait so long: what takes longest must not be missing.
    ticket?.onApplied(({ _tag }) => _tag === "Applied" && observe("applied", readMillis))
    ticket?.onServed(({ _tag }) => _tag === "Served" && observe("served", readMillis))
    const settled = ticket === undefined ? undefined : yield* acknowledgements.waitAtMost(ticket, ackTimeoutMillis)
    const applied = settled?._tag === "Applied"
    const address = host.addresses[0] ?? ""
    const previous = previousAddresses[0]
    return MessageV1.encodeResponse(
      {
        status: "success",
        message: sentences[outcome],
        more: {
          host: host.fqdn,
          address,
          ...(previous === undefined || previous === address ? {} : { previousAddress: previous }),
          ...(ticket === undefined ? {} : { level: applied ? "applied" : "accepted" })
        }
      },
      now()
    )
  })

  return { answer, answerObject, error, refused, notAllowed }
})

const sentences: Readonly<Record<Registered["outcome"], string>> = {
  created: "host registered",
  changed: "host changed",
  returned: "host is back",
  renewed: "lease renewed"
}
