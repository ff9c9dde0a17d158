/**
 * What an agent asks for by protocol 2.0, done: `register`, `update` and
 * `release` become claims, and claims that are allowed become changes of the
 * registry.
 *
 * What can be said without the database is said at once. Leaves to others: the
 * order of messages and how far a change has come since (`SessionV2`).
 */
import { Admission } from "@prism-dns/core/auth/Admission"
import type { Claim } from "@prism-dns/core/auth/Policy"
import type { Principal } from "@prism-dns/core/auth/Principal"
import type { Elsewhere } from "@prism-dns/core/cluster/Groups"
import * as Groups from "@prism-dns/core/cluster/Groups"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { type RecordPlace, Zones } from "@prism-dns/core/dns/Zones"
import type { Ticket } from "@prism-dns/core/dns/Acknowledgements"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import type { Host } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import type { Ack, Register, Release, Update } from "@prism-dns/core/protocol/MessageV2"
import { isOwner, mayActFor, type Wishes } from "@prism-dns/core/registry/Decision"
import { Leases } from "@prism-dns/core/registry/Leases"
import { HostMoved, type RegisterError, Registry, type RegistryUnavailable } from "@prism-dns/core/registry/Registry"
import { detailOf } from "@prism-dns/core/storage/SqlFailure"
import { Clock, Effect, Option, Result } from "effect"
import type { SqlError } from "effect/sql"

/** Who asks, and from where. */
export interface Asker {
  readonly principal: Principal
  readonly peer: IpAddress.IpAddress
  /** False once nobody would hear the answer. */
  readonly isThere: () => boolean
  /** What its session had done last of that host, by its generation; undefined: nothing that stands. */
  readonly generationOf: (fqdn: string) => number | undefined
}

/** It was done, and is on its way to the DNS. */
export interface Done {
  readonly _tag: "Done"
  readonly host: Host
  readonly outcome: NonNullable<Ack["outcome"]>
  /** Told of each level that it reaches, or has reached; undefined when that cannot be said. */
  readonly ticket: Ticket | undefined
  /** It is a change that this request made. */
  readonly isChange: boolean
}

/** It was not, and nothing was changed. */
export interface Refused {
  readonly _tag: "Refused"
  readonly code: string
  /** For people. */
  readonly message: string
  /** The same may succeed later. */
  readonly retryable: boolean
  readonly retryAfterSeconds: number | undefined
  /** What it was about, for the audit. */
  readonly subject?: string
}

export type Outcome = Done | Refused

export const refused = (code: string, message: string, retryAfterSeconds?: number, retryable = false): Refused => ({
  _tag: "Refused",
  code,
  message,
  retryable: retryable || retryAfterSeconds !== undefined,
  retryAfterSeconds: retryAfterSeconds === undefined ? undefined : Math.max(1, Math.ceil(retryAfterSeconds))
})

export const unavailable = refused("unavailable", "the registry is not available", 5)
/** The registry answers, and what was asked has been overtaken: it may be asked again soon. */
const overtaken = refused("unavailable", "the host was changed elsewhere while this waited; ask again", 1)
/** What a look of so long ago says is no ground for a change (`lookMillisMax`). */
const lookedTooLong = refused("unavailable", "the registry took too long to look the host up; ask again", 5)
const internal = refused("internal", "the server failed to answer", undefined, true)

export interface Requests {
  /** The zones that this principal may have hosts in; the first is meant where none is said. */
  readonly zonesOf: (principal: Principal) => ReadonlyArray<DomainName.DomainName>
  /** Who serves what an agent would register so, where it is not this server. */
  readonly elsewhere: (hostname: string, zone: string | undefined) => Elsewhere | undefined
  readonly register: (asker: Asker, message: Register) => Refused | Effect.Effect<Outcome>
  /** `held`: the hosts of the session. */
  readonly update: (asker: Asker, message: Update, held: ReadonlyArray<Host>) => Refused | Effect.Effect<Outcome>
  readonly release: (asker: Asker, message: Release, held: ReadonlyArray<Host>) => Refused | Effect.Effect<Outcome>
}

/** A look at a host that took longer is no ground for a change of it, in milliseconds: agents give up about then. */
const lookMillisMax = 2000

/** How often a change is decided anew at the most, since the session's own requests before it are done meanwhile. */
const looksMax = 64

export const make = Effect.gen(function* () {
  const registry = yield* Registry
  const admission = yield* Admission
  const leases = yield* Leases
  const cluster = yield* Cluster
  const zones = yield* Zones
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  /** By a clock that only goes on. */
  const elapsedMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const zonesOf = ({ anonymous, grant }: Principal) =>
    anonymous
      ? admission.anonymousZone === undefined
        ? zones.forward
        : [admission.anonymousZone]
      : grant.zones === undefined
        ? zones.forward
        : zones.forward.filter((zone) => grant.zones!.includes(zone))

  const elsewhere: Requests["elsewhere"] = (hostname, wanted) => {
    const zone = wanted === undefined ? undefined : DomainName.parse(wanted)
    if (zone !== undefined && Result.isFailure(zone)) return undefined
    return zones.elsewhere(hostname.toLowerCase() as HostName, zone?.success)
  }

  /** The full name that is meant, and its zone. */
  const place = (
    hostname: HostName,
    wanted: string | undefined,
    principal: Principal
  ): Result.Result<RecordPlace, Refused> => {
    const other = elsewhere(hostname, wanted ?? zonesOf(principal)[0])
    if (other !== undefined) return Result.fail(refused("misdirected", Groups.sentence(hostname, other)))
    if (wanted === undefined) {
      return Result.mapError(zones.placeHost(hostname, zonesOf(principal)[0]), ({ reason }) =>
        refused("invalid", reason)
      )
    }
    const zone = DomainName.parse(wanted)
    // One above, that other servers serve, may be said of a name below it that is ours.
    if (Result.isFailure(zone) || !(zones.forward.includes(zone.success) || zones.groups.has(zone.success))) {
      return Result.fail(refused("invalid", `zone: no zone for hosts is called ${wanted}`))
    }
    const placed = zones.placeHost(hostname, zone.success)
    if (Result.isFailure(placed)) return Result.fail(refused("invalid", placed.failure.reason))
    return DomainName.isWithin(placed.success.zone, zone.success)
      ? Result.succeed(placed.success)
      : Result.fail(refused("invalid", `${placed.success.name} is in the zone ${placed.success.zone}`))
  }

  /** How far a host has come that was as it should be. */
  const follow = (host: Host, outcome: Done["outcome"]): Effect.Effect<Outcome> =>
    registry.follow(host).pipe(
      Effect.map(({ ticket }): Ticket | undefined => ticket),
      // It is registered all the same.
      Effect.catch((error) =>
        Effect.logWarning("how far a host has come cannot be said").pipe(
          Effect.annotateLogs({ host: host.fqdn, reason: detailOf(error) }),
          Effect.as(undefined)
        )
      ),
      Effect.map((ticket): Outcome => ({ _tag: "Done", host, outcome, ticket, isChange: false }))
    )

  /** Lets the claim in and carries it out. */
  const submit = (
    { isThere, peer, principal }: Asker,
    { fqdn, hostname, zone }: Pick<Host, "fqdn" | "hostname" | "zone">,
    addresses: ReadonlyArray<IpAddress.IpAddress>,
    wishes: Wishes,
    isExpected?: (generation: number) => boolean
  ): Refused | Effect.Effect<Outcome, HostMoved> => {
    const claim: Claim = { fqdn, zone, addresses, peer, protocol: "2.0", ttlSeconds: wishes.ttlSeconds ?? undefined }
    const verdict = admission.admit(principal, claim, now())
    if (verdict._tag === "Refused") {
      return { ...refused(verdict.code, verdict.message, verdict.retryAfterSeconds), subject: fqdn }
    }
    // Within the bounds of the zone.
    const wanted = { ttlSeconds: verdict.ttlSeconds ?? wishes.ttlSeconds, labels: wishes.labels }
    // What is as it should be is answered from memory, as a beat is.
    const renewed = leases.renew(fqdn, addresses, principal, now(), wanted)
    if (renewed !== undefined) {
      admission.giveBack(principal, claim)
      return follow(renewed, "renewed")
    }
    return registry
      .register(
        {
          fqdn,
          hostname,
          zone,
          addresses,
          registrant: principal,
          peer,
          ...wanted,
          isExpected,
          // Anonymous hosts have no owner in common that could be given so many: their zone's bound is theirs.
          hostsMax: principal.anonymous ? undefined : admission.hostsMax(principal),
          mayHave: (name) => admission.isGranted(principal, { ...claim, fqdn: name })
        },
        isThere
      )
      .pipe(
        Effect.flatMap(({ host, outcome, ticket }) => {
          if (outcome !== "renewed")
            return Effect.succeed<Outcome>({ _tag: "Done", host, outcome, ticket, isChange: true })
          admission.giveBack(principal, claim)
          return follow(host, outcome)
        }),
        Effect.catch((failure) => {
          if (failure._tag === "RegistryUnavailable" || failure._tag === "HostMoved")
            admission.giveBack(principal, claim)
          return failure._tag === "HostMoved"
            ? Effect.fail(failure)
            : Effect.succeed({ ...explain(failure, now(), zones.find(zone)?.policy), subject: fqdn })
        })
      )
  }

  const register: Requests["register"] = (asker, message) => {
    const hostname = message.hostname.toLowerCase() as HostName
    const placed = place(hostname, message.zone, asker.principal)
    if (Result.isFailure(placed)) return placed.failure
    const addresses = parseAddresses(message.addresses, asker.peer)
    if (Result.isFailure(addresses)) return addresses.failure
    const { name: fqdn, zone } = placed.success
    const outcome = submit(asker, { fqdn, hostname, zone }, addresses.success, {
      // What is left out is not wished for, whatever the host had before.
      ttlSeconds: message.ttlSeconds ?? null,
      labels: message.labels ?? {}
    })
    // Nothing is expected of the host.
    return Effect.isEffect(outcome) ? Effect.catchTag(outcome, "HostMoved", Effect.die) : outcome
  }

  /** The host of a name that the asker may act for, as the database has it. */
  const findOwn = (
    { principal }: Asker,
    name: string,
    held: ReadonlyArray<Host>
  ): Effect.Effect<Option.Option<Host>, SqlError.SqlError> => {
    const fqdn = DomainName.parse(name)
    if (Result.isFailure(fqdn)) return Effect.succeed(Option.none())
    const isHeld = held.some((host) => host.fqdn === fqdn.success)
    // Whoever has proved nothing has only what this very session registered.
    if (principal.anonymous && !isHeld) return Effect.succeed(Option.none())
    return Effect.map(
      registry.findByName(fqdn.success),
      Option.filter((host) => isOwner(principal, host.owner) || (isHeld && mayActFor(principal, host.owner)))
    )
  }

  const unknown = (name: string) => refused("host-unknown", `this session has no host ${name}`)

  /**
   * Looks at a host of the asker's, for what is asked of it as it is. Who asked may have gone to another server, and want
   * something newer there, once this one was taken for dead while it looked, or had to look for so long.
   */
  const lookAt = Effect.fnUntraced(function* (asker: Asker, name: string, held: ReadonlyArray<Host>) {
    const life = cluster.life()
    const since = elapsedMillis()
    const found = yield* findOwn(asker, name, held)
    return cluster.life() === life && elapsedMillis() - since < lookMillisMax ? found : undefined
  })

  const isAsSeen =
    (seen: Host) =>
    (generation: number): boolean =>
      generation === seen.generation

  /**
   * What was decided by a look at a host that was changed since: once more where the same session did that, whose requests
   * are carried out side by side. Else not at all, for what is newer than the look must not be undone.
   */
  const byLook = <E>({ generationOf }: Asker, attempt: Effect.Effect<Outcome, E | HostMoved>) =>
    attempt.pipe(
      Effect.retry({
        while: (error) => isMoved(error) && generationOf(error.fqdn) === error.generation,
        times: looksMax
      }),
      Effect.catchIf(isMoved, () => Effect.succeed<Outcome>(overtaken))
    )

  const update: Requests["update"] = (asker, message, held) =>
    Effect.gen(function* () {
      const found = yield* lookAt(asker, message.host, held)
      if (found === undefined) return lookedTooLong
      if (Option.isNone(found)) return unknown(message.host)
      const host = found.value
      const addresses =
        message.addresses === undefined
          ? Result.succeed(host.addresses)
          : parseAddresses(message.addresses === "observed" ? undefined : message.addresses, asker.peer)
      if (Result.isFailure(addresses)) return addresses.failure
      const outcome = submit(asker, host, addresses.success, message, isAsSeen(host))
      return Effect.isEffect(outcome) ? yield* outcome : outcome
    }).pipe((attempt) => recover(byLook(asker, attempt)))

  const release: Requests["release"] = (asker, message, held) =>
    Effect.gen(function* () {
      const found = yield* lookAt(asker, message.host, held)
      if (found === undefined) return lookedTooLong
      if (Option.isNone(found)) return unknown(message.host)
      const { fqdn } = found.value
      const actor = { name: asker.principal.name, peer: asker.peer }
      const isExpected = isAsSeen(found.value)
      // Not `retire`, which counts whatever became of the host: a late one would undo what was registered elsewhere since.
      const given = registry.change(
        { event: "retired", fqdn, actor, reason: "released by its agent", isExpected },
        asker.isThere
      )
      return yield* given.pipe(
        Effect.map(({ host, ticket }): Outcome => ({
          _tag: "Done",
          host,
          outcome: "released",
          ticket,
          isChange: true
        })),
        Effect.catchTag("HostRetired", () => follow(found.value, "released")),
        Effect.catchTag("HostUnknown", () => Effect.succeed<Outcome>(unknown(message.host)))
      )
    }).pipe((attempt) => recover(byLook(asker, attempt)))

  const requests: Requests = { zonesOf, elsewhere, register, update, release }
  return requests
})

const isMoved = (error: unknown): error is HostMoved => error instanceof HostMoved

const recover = (effect: Effect.Effect<Outcome, SqlError.SqlError | RegistryUnavailable>): Effect.Effect<Outcome> =>
  effect.pipe(
    // The registry has logged why.
    Effect.catch(() => Effect.succeed<Outcome>(unavailable)),
    Effect.catchCause((cause) => Effect.logError("a request failed", cause).pipe(Effect.as<Outcome>(internal)))
  )

/** Sorted, each once; the observed one where none are said. */
const parseAddresses = (
  texts: ReadonlyArray<string> | undefined,
  peer: IpAddress.IpAddress
): Result.Result<ReadonlyArray<IpAddress.IpAddress>, Refused> => {
  if (texts === undefined) return Result.succeed([peer])
  const addresses = new Set<IpAddress.IpAddress>()
  for (const text of texts) {
    const address = IpAddress.parseClaimed(text)
    if (Result.isFailure(address)) {
      const { _tag, message } = address.failure
      return Result.fail(
        _tag === "AddressMapped" ? refused("address-not-allowed", message) : refused("invalid", `addresses: ${message}`)
      )
    }
    addresses.add(address.success)
  }
  return Result.succeed([...addresses].sort())
}

/** How often who wants the name of an online host asks again, where it may pass on by itself. */
const takenRetrySeconds = 60

/** True when a zone gives a name to somebody else once its host is away: a machine that was rebuilt waits for that. */
const passesOn = (policy: Zone.ZonePolicy | undefined): boolean =>
  policy?.conflict === "take-over-if-expired" || policy?.conflict === "suffix"

const explain = (
  failure: Exclude<RegisterError, HostMoved>,
  nowMillis: number,
  policy: Zone.ZonePolicy | undefined
): Refused => {
  switch (failure._tag) {
    case "HostnameTaken":
      return refused(
        "hostname-taken",
        failure.message,
        failure.freeAtMillis !== undefined
          ? (failure.freeAtMillis - nowMillis) / 1000
          : passesOn(policy)
            ? takenRetrySeconds
            : undefined
      )
    case "HostnameFlapping":
      return refused("hostname-flapping", failure.message, (failure.untilMillis - nowMillis) / 1000)
    case "QuotaExceeded":
      return refused("quota-exceeded", failure.message)
    case "ZoneGone":
      return refused("invalid", failure.message)
    case "RegistryUnavailable":
      return unavailable
  }
}
