/**
 * Answers a message of protocol 1.0.
 *
 * The straight line of a registration begins here: payload → message → who is
 * it → which name → lease or registry → acknowledgement → response. What needs
 * no database is answered at once.
 */
import { identify, NotAllowed, type PolicyOptions, TokenBucket } from "@prism-dns/core/auth/Policy"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { type RecordPlace, Zones } from "@prism-dns/core/dns/Zones"
import * as MessageV1 from "@prism-dns/core/protocol/MessageV1"
import type { Registrant, Registration } from "@prism-dns/core/registry/Decision"
import { Leases } from "@prism-dns/core/registry/Leases"
import { type Registered, Registry } from "@prism-dns/core/registry/Registry"
import { Clock, Duration, Effect, Metric, Result } from "effect"
import { authFailures } from "../AuthMetrics.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface ProtocolOptions {
  readonly policy: PolicyOptions
  /** How long an answer waits for PowerDNS before it says `accepted`. */
  readonly ackTimeout: Duration.Duration
}

/** The text of a response: there already, or on its way. */
export type Response = string | Effect.Effect<string>

export const make = Effect.fnUntraced(function* (options: ProtocolOptions) {
  const registry = yield* Registry
  const leases = yield* Leases
  const zones = yield* Zones
  const tokens = yield* Tokens
  const acknowledgements = yield* Acknowledgements
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const ackTimeoutMillis = Duration.toMillis(options.ackTimeout)
  const now = () => clock.currentTimeMillisUnsafe()

  const anonymousZone = options.policy.anonymous.zone ?? zones.all.find((zone) => zone.network === undefined)?.name
  const anonymousRate = new TokenBucket(options.policy.anonymous.ratePerSecond, options.policy.anonymous.burst, now())

  const count = (result: string) => counters(result).updateUnsafe(1, context)
  const counters = memoize((result: string) => Metric.withAttributes(TcpMetrics.registrations, { result }))
  const observe = (level: string, sinceMillis: number) =>
    durations(level).updateUnsafe((now() - sinceMillis) / 1000, context)
  const durations = memoize((level: string) => Metric.withAttributes(TcpMetrics.registrationDuration, { level }))

  const error = (code: string, message: string, retryAfterSeconds?: number): string =>
    MessageV1.encodeResponse(
      {
        status: "error",
        message,
        more: { code, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds: Math.ceil(retryAfterSeconds) }) }
      },
      now()
    )

  const notAllowed = (refusal: NotAllowed): string => {
    Metric.withAttributes(authFailures, { reason: refusal.code }).updateUnsafe(1, context)
    count("refused")
    return error(refusal.code, refusal.message, refusal.retryAfterSeconds)
  }

  const refused = (code: string, message: string): string => {
    count("refused")
    return error(code, message)
  }

  /** Answers the payload of one frame that came from `peer`. */
  const answer = (payload: Uint8Array, peer: IpAddress | undefined): Response => {
    const readMillis = now()
    const message = MessageV1.decode(payload)
    if (Result.isFailure(message)) return refused(message.failure.code, message.failure.message)
    const { authToken, hostname } = message.success

    const registrant = identify(options.policy.mode, tokens, authToken)
    if (registrant instanceof NotAllowed) return notAllowed(registrant)

    const place = zones.placeHost(hostname, registrant.anonymous ? anonymousZone : undefined)
    if (Result.isFailure(place)) return refused("invalid", place.failure.reason)
    const { name: fqdn, zone } = place.success

    if (peer === undefined) return refused("peer-unknown", "the connection was reset before its address could be read")

    const host = leases.renew(fqdn, [peer], registrant, readMillis)
    if (host !== undefined) {
      TcpMetrics.heartbeats.updateUnsafe(1, context)
      count("renewed")
      return MessageV1.encodeResponse(
        { status: "success", message: "lease renewed", more: { host: host.fqdn, address: peer } },
        readMillis
      )
    }

    const refusal = mayChange(registrant, place.success, readMillis)
    if (refusal !== undefined) return notAllowed(refusal)
    return register({ fqdn, hostname, zone, addresses: [peer], registrant, peer }, readMillis)
  }

  const isRated = (registrant: Registrant) => registrant.anonymous && options.policy.mode !== "off"

  /** Whoever has no token may change little, and only where it was said. */
  const mayChange = (registrant: Registrant, place: RecordPlace, nowMillis: number): NotAllowed | undefined => {
    if (!isRated(registrant)) return undefined
    if (place.zone !== anonymousZone) {
      return new NotAllowed({ code: "zone-not-allowed", message: `registering in ${place.zone} needs an auth_token` })
    }
    const waitSeconds = anonymousRate.take(nowMillis)
    return waitSeconds === 0
      ? undefined
      : new NotAllowed({
          code: "rate-limited",
          message: "too many registrations without an auth_token, try again later",
          retryAfterSeconds: waitSeconds
        })
  }

  const register = (registration: Registration, readMillis: number): Effect.Effect<string> =>
    registry.register(registration).pipe(
      // After a restart the first beats come here, and change nothing.
      Effect.tap(({ outcome }) =>
        Effect.sync(() => {
          if (outcome === "renewed" && isRated(registration.registrant)) anonymousRate.giveBack()
        })
      ),
      Effect.flatMap((registered) => acknowledge(registered, readMillis)),
      Effect.catch((failure) => {
        switch (failure._tag) {
          case "HostnameTaken":
            return Effect.succeed(refused("hostname-taken", failure.message))
          case "HostnameFlapping": {
            count("refused")
            const waitSeconds = Math.max(1, (failure.untilMillis - now()) / 1000)
            return Effect.succeed(error("hostname-flapping", failure.message, waitSeconds))
          }
          case "RegistryUnavailable":
            count("failed")
            return Effect.succeed(error("unavailable", "the registry is not available", 5))
        }
      })
    )

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

  return { answer, error }
})

const sentences: Readonly<Record<Registered["outcome"], string>> = {
  created: "host registered",
  changed: "host changed",
  returned: "host is back",
  renewed: "lease renewed"
}

const memoize = <A>(f: (key: string) => A): ((key: string) => A) => {
  const known = new Map<string, A>()
  return (key) => {
    const value = known.get(key) ?? f(key)
    known.set(key, value)
    return value
  }
}
