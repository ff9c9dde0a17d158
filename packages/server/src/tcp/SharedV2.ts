/**
 * What all sessions of protocol 2.0 on one server share: how they are
 * authenticated, what they may ask of the registry, and who counts.
 *
 * A session itself keeps only what is its own, for there may be ten thousand.
 */
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Identities } from "@prism-dns/core/auth/Identities"
import { isRefusalCode } from "@prism-dns/core/auth/RefusalCode"
import { Acknowledgements, type Ticket } from "@prism-dns/core/dns/Acknowledgements"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { AckLevel, Host } from "@prism-dns/core/domain/Host"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Clock, Duration, Effect, Metric } from "effect"
import { Presence, type PresenceService } from "../Presence.ts"
import * as Authentication from "./Authentication.ts"
import * as RegistrationCounts from "./RegistrationCounts.ts"
import * as RequestsV2 from "./RequestsV2.ts"
import * as Sessions from "./Sessions.ts"
import * as TcpMetrics from "./TcpMetrics.ts"

export interface SessionOptions extends Authentication.AuthenticationOptions {
  /** Names this server in the welcome. */
  readonly instance: string
  readonly lease: { readonly duration: Duration.Duration; readonly beatInterval: Duration.Duration }
  readonly frameBytesMax: number
  readonly pipelineMax: number
  /** Hosts that one session may hold. */
  readonly sessionHostsMax: number
  /** From the start of draining until no connection is taken any more. */
  readonly drainDelay: Duration.Duration
  /** Nonces of challenges. */
  readonly makeNonce: () => string
}

/** What all sessions of a server share. */
export interface Shared {
  readonly options: SessionOptions
  readonly leaseMillis: number
  readonly now: () => number
  readonly authenticate: Authentication.Authenticate
  readonly requests: RequestsV2.Requests
  readonly rotate: (
    asker: RequestsV2.Asker,
    publicKey: string,
    signedBy: string
  ) => Effect.Effect<{ readonly _tag: "Rotated" } | RequestsV2.Refused>
  readonly sessions: Sessions.Sessions
  /** Told which hosts its sessions have. */
  readonly presence: PresenceService
  readonly beat: (host: Host, nowMillis: number) => boolean
  readonly ttlSeconds: (host: Host) => number
  /** Runs what needs the database; the server waits for it when it stops. */
  readonly run: <A>(effect: Effect.Effect<A>, done: (value: A | undefined) => void) => void
  /** Nobody waits for a ticket any more. */
  readonly forget: (ticket: Ticket) => void
  readonly countRegistration: (result: string) => void
  readonly countBeat: () => void
  readonly countRedirect: (group: string) => void
  /** What is refused for what was proved or claimed is audited and counted. */
  readonly recordRefusal: (
    code: string,
    message: string,
    actor: string,
    peer: string | undefined,
    subject: string
  ) => void
  readonly observe: (level: AckLevel, millis: number) => void
  readonly nextName: () => string
}

export type Run = Shared["run"]

/** How long a beat may wait to be counted. */
const countMillis = 50

export const make = Effect.fnUntraced(function* (options: SessionOptions, run: Run) {
  const clock = yield* Clock.Clock
  const zones = yield* Zones
  const leases = yield* Leases
  const acknowledgements = yield* Acknowledgements
  const refusals = yield* Refusals
  const identities = yield* Identities
  const context = yield* Effect.context()
  const metrics = yield* RegistrationCounts.make
  const now = () => clock.currentTimeMillisUnsafe()
  const startedAt = now().toString(36)
  let sessionsSoFar = 0

  /** Beats that the metric does not know of yet. */
  let uncounted = 0
  const countBeats = () => {
    TcpMetrics.heartbeats.updateUnsafe(uncounted, context)
    uncounted = 0
  }

  const shared: Shared = {
    options,
    leaseMillis: Duration.toMillis(options.lease.duration),
    now,
    authenticate: yield* Authentication.make(options),
    requests: yield* RequestsV2.make,
    rotate: ({ peer, principal }, publicKey, signedBy) =>
      identities.rotate(principal.name, publicKey, { name: principal.name, peer }, signedBy).pipe(
        Effect.as({ _tag: "Rotated" as const }),
        Effect.catch((failure) =>
          Effect.succeed(
            failure._tag === "RegistryUnavailable"
              ? RequestsV2.unavailable
              : RequestsV2.refused(failure.code, failure.message)
          )
        )
      ),
    sessions: yield* Sessions.make,
    presence: yield* Presence,
    beat: leases.beat,
    ttlSeconds: (host) => host.ttlSeconds ?? zones.find(host.zone)?.policy.ttlSeconds ?? 0,
    run,
    forget: acknowledgements.close,
    countRegistration: metrics.count,
    countBeat: () => {
      if (uncounted === 0) setTimeout(countBeats, countMillis).unref()
      uncounted += 1
    },
    recordRefusal: (code, message, actor, peer, subject) => {
      if (isRefusalCode(code)) refusals.record({ code, message, actor, peer, subject })
    },
    countRedirect: (group) => Metric.withAttributes(TcpMetrics.redirects, { group }).updateUnsafe(1, context),
    observe: metrics.reached,
    nextName: () => `${startedAt}-${(sessionsSoFar++).toString(36)}`
  }
  return shared
})
