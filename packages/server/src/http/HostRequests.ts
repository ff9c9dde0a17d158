/**
 * What callers of the API ask for about hosts, read: requests of the registry,
 * or why not.
 *
 * A caller who may write hosts at a place by the role `agent` alone speaks for
 * its own hosts there, as over TCP: within its grant (`auth/Admission`), for
 * addresses it may claim, and no more often than the rates say. Everybody else
 * who may write hosts at a place registers for machines that do not speak: bound by the zone's rules, and a
 * reserved name is given by whoever says why. Leaves to others: the decision
 * over the host as it is (`registry/Registry`).
 */
import type { Caller } from "@prism-dns/core/api/Authentication"
import type * as Contract from "@prism-dns/core/api/HostChanges"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import {
  ClaimRefused,
  Forbidden,
  HostnameTaken,
  type HostNotFound,
  HostRetired,
  type PreconditionFailed,
  QuotaExceeded,
  RequestInvalid,
  type RequestPart,
  StorageUnavailable
} from "@prism-dns/core/api/Problems"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { Admission } from "@prism-dns/core/auth/Admission"
import { allows, type Place } from "@prism-dns/core/auth/Permissions"
import type { Claim, Refused } from "@prism-dns/core/auth/Policy"
import { type Principal, unlimited } from "@prism-dns/core/auth/Principal"
import { isRefusalCode } from "@prism-dns/core/auth/RefusalCode"
import { Roles } from "@prism-dns/core/auth/Roles"
import { type RecordPlace, Zones } from "@prism-dns/core/dns/Zones"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { Host } from "@prism-dns/core/domain/Host"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import type { RegisterError, Request, WordError } from "@prism-dns/core/registry/Registry"
import type { Edit, WordEvent } from "@prism-dns/core/registry/Words"
import { labelsProblem } from "@prism-dns/core/protocol/MessageV2"
import { Clock, Effect, Result } from "effect"
import * as Authorization from "./Authorization.ts"
import { sentence } from "./Sentence.ts"

type Asker = Caller["Service"]
type RegisterSpec = Omit<Contract.RegisterRequest, "waitFor" | "waitSeconds">
type PatchSpec = Omit<Contract.PatchRequest, "waitFor" | "waitSeconds">

/** Why something is not done, as the API says it. */
export type Refusal =
  | RequestInvalid
  | Forbidden
  | HostNotFound
  | HostRetired
  | HostnameTaken
  | QuotaExceeded
  | ClaimRefused
  | PreconditionFailed
  | StorageUnavailable

/** What is asked of the registry, and what becomes of the rates it counts for where nothing comes of it. */
export interface Asked {
  readonly request: Request
  readonly giveBack: () => void
  /** What `If-Match` said. */
  readonly ifMatch?: string | undefined
}

export const invalid = (part: RequestPart, pointer: string, detail: string) =>
  new RequestInvalid({
    detail: `${part} ${pointer.slice(1)}: ${detail}`,
    errors: [{ in: part, pointer, detail }]
  })

const nothing = () => undefined

const agentRole = "agent"

const placeOf = ({ fqdn, zone }: Host): Place => ({ zone, name: fqdn })

export const make = Effect.gen(function* () {
  const admission = yield* Admission
  const refusals = yield* Refusals
  const zones = yield* Zones
  const clock = yield* Clock.Clock
  const roles = yield* Roles

  /** Whether it speaks for its own hosts only: no role of its but `agent` lets it do this there. */
  const isAgent = ({ authority, roles: names }: Asker, at: Place, verb: "write" | "delete" = "write"): boolean => {
    if (!names.includes(agentRole)) return false
    const permissions = roles.permissionsOf(names.filter((name) => name !== agentRole))
    return !allows({ ...authority, permissions }, verb, "hosts", at)
  }

  const principalOf = (caller: Asker, own: boolean): Principal => ({
    name: caller.name,
    kind: "token",
    anonymous: false,
    actsFor: [],
    grant: own ? caller.grant : unlimited
  })

  const refused = (caller: Asker, fqdn: string, { code, message, retryAfterSeconds, rule }: Refused): ClaimRefused => {
    if (isRefusalCode(code)) refusals.record({ code, message, actor: caller.name, peer: caller.peer, subject: fqdn })
    return new ClaimRefused({
      detail: sentence(message),
      code,
      rule,
      retryAfterSeconds: retryAfterSeconds === undefined ? undefined : Math.max(1, Math.ceil(retryAfterSeconds))
    })
  }

  /** Lets a claim in: by its grant and the rates of an agent, by the rules of the zone for everybody else. */
  const letIn = (
    caller: Asker,
    claim: Claim
  ): Result.Result<{ ttlSeconds: number | undefined; giveBack: () => void }, Refusal> => {
    const principal = principalOf(caller, claim.onBehalf === undefined)
    const verdict =
      claim.onBehalf === undefined
        ? admission.admit(principal, claim, clock.currentTimeMillisUnsafe())
        : admission.judge(principal, claim)
    if (verdict._tag === "Refused") return Result.fail(refused(caller, claim.fqdn, verdict))
    return Result.succeed({
      ttlSeconds: verdict.ttlSeconds,
      giveBack: claim.onBehalf === undefined ? () => admission.giveBack(principal, claim) : nothing
    })
  }

  /** The zone meant by a caller who says none: the first for hosts that it may write in. */
  const usualZone = ({ authority }: Asker): DomainName.DomainName | undefined =>
    zones.all.find(
      (zone) =>
        !Zone.isReverse(zone) &&
        (authority.zones === undefined || authority.zones.includes(zone.name)) &&
        authority.permissions.some(
          ({ resource, verb, zones }) =>
            (resource === "hosts" || resource === "*") &&
            (verb === "write" || verb === "*") &&
            (zones === undefined || zones.includes(zone.name))
        )
    )?.name

  const place = (caller: Asker, text: string, wanted: DomainName.DomainName | undefined) => {
    const hostname = text.replace(/\.$/, "").toLowerCase() as HostName
    if (wanted !== undefined) {
      const zone = zones.find(wanted)
      if (zone === undefined || Zone.isReverse(zone)) {
        return Result.fail(invalid("body", "/zone", `no zone for hosts is called ${wanted}`))
      }
    }
    return Result.flatMap(
      Result.mapError(zones.placeHost(hostname, wanted ?? usualZone(caller)), ({ reason }) =>
        invalid("body", "/hostname", reason)
      ),
      (placed): Result.Result<RecordPlace & { readonly hostname: HostName }, RequestInvalid> =>
        wanted === undefined || DomainName.isWithin(placed.zone, wanted)
          ? Result.succeed({ ...placed, hostname })
          : Result.fail(invalid("body", "/hostname", `${placed.name} is in the zone ${placed.zone}`))
    )
  }

  const peerOf = ({ peer }: Asker): IpAddress.IpAddress | undefined =>
    peer === undefined ? undefined : Result.getOrUndefined(IpAddress.fromPeer(peer))

  /** What only those may say who are no agent. */
  const forPeople = (
    caller: Asker,
    at: Place,
    owner: string | undefined,
    lease: string | undefined
  ): Forbidden | undefined => {
    if (!isAgent(caller, at)) return undefined
    const detail =
      owner !== undefined && owner !== caller.name
        ? `${caller.name} is an agent, whose hosts are its own; an operator gives a host to another owner.`
        : lease === "none"
          ? `${caller.name} is an agent, whose hosts have a lease; an operator registers hosts without one.`
          : undefined
    return detail === undefined ? undefined : new Forbidden({ detail })
  }

  const register = (caller: Asker, spec: RegisterSpec, reason = spec.reason): Result.Result<Asked, Refusal> => {
    const placed = place(caller, spec.hostname, spec.zone)
    if (Result.isFailure(placed)) return Result.fail(placed.failure)
    const { hostname, name: fqdn, zone } = placed.success
    const at = { zone, name: fqdn }
    const denied = Authorization.refusal(caller, "write", "hosts", at) ?? forPeople(caller, at, spec.owner, spec.lease)
    if (denied !== undefined) return Result.fail(denied)
    const own = isAgent(caller, at)
    const peer = peerOf(caller)
    const addresses =
      spec.addresses === undefined ? (own && peer !== undefined ? [peer] : []) : IpAddress.sorted(spec.addresses)
    if (addresses.length === 0) return Result.fail(invalid("body", "/addresses", "say at least one address"))
    const claim: Claim = {
      fqdn,
      zone,
      addresses,
      peer,
      protocol: "api",
      ttlSeconds: spec.ttlSeconds,
      ...(!own && { onBehalf: { reason, hasName: false } })
    }
    return Result.map(letIn(caller, claim), ({ giveBack, ttlSeconds }): Asked => {
      const principal = principalOf(caller, own)
      const isStatic = spec.lease === undefined ? !own : spec.lease === "none"
      return {
        giveBack,
        request: {
          _tag: "Register",
          registration: {
            fqdn,
            hostname,
            zone,
            addresses,
            registrant: own ? principal : { name: spec.owner ?? caller.name, anonymous: false },
            peer: peer ?? "",
            actor: caller,
            reason,
            ttlSeconds: ttlSeconds ?? null,
            labels: spec.labels ?? {},
            isStatic,
            hostsMax: own ? admission.hostsMax(principal) : undefined,
            mayHave: (name) =>
              own
                ? admission.isGranted(principal, { ...claim, fqdn: name })
                : allows(caller.authority, "write", "hosts", { zone, name })
          }
        }
      }
    })
  }

  /** An agent has a say in what is its own. */
  const mayTouch = (caller: Asker, host: Host, verb: "write" | "delete"): Forbidden | undefined =>
    Authorization.refusal(caller, verb, "hosts", placeOf(host)) ??
    (isAgent(caller, placeOf(host), verb) && host.owner !== caller.name
      ? new Forbidden({ detail: `${host.fqdn} is not ${caller.name}'s; an agent has a say in its own hosts only.` })
      : undefined)

  const expectation = (ifMatch: string | undefined) =>
    ifMatch === undefined ? undefined : (generation: number) => EntityTag.matches(ifMatch, generation)

  const change = (
    caller: Asker,
    host: Host,
    patch: PatchSpec,
    ifMatch?: string,
    reason = patch.reason
  ): Result.Result<Asked, Refusal> => {
    const denied = mayTouch(caller, host, "write") ?? forPeople(caller, placeOf(host), patch.owner, patch.lease)
    if (denied !== undefined) return Result.fail(denied)
    const own = isAgent(caller, placeOf(host))
    const claim: Claim = {
      fqdn: host.fqdn,
      zone: host.zone,
      // Only what is claimed anew is asked about.
      addresses: IpAddress.sorted(patch.addresses ?? []),
      peer: peerOf(caller),
      protocol: "api",
      ttlSeconds: patch.ttlSeconds ?? undefined,
      ...(!own && { onBehalf: { reason, hasName: true } })
    }
    const labels = labelsOf(patch.labels)
    const tooMany = labelsProblem(labels(host.labels))
    if (tooMany !== undefined) return Result.fail(invalid("body", "/labels", tooMany))
    return Result.map(letIn(caller, claim), ({ giveBack, ttlSeconds }): Asked => {
      const edit = (current: Host): Edit => ({
        addresses: patch.addresses === undefined ? undefined : claim.addresses,
        ttlSeconds: patch.ttlSeconds === undefined ? undefined : (ttlSeconds ?? null),
        labels: labels(current.labels),
        owner: patch.owner,
        isStatic: patch.lease === undefined ? undefined : patch.lease === "none"
      })
      const isOnlyOwner =
        patch.owner !== undefined &&
        patch.addresses === undefined &&
        patch.ttlSeconds === undefined &&
        patch.labels === undefined &&
        patch.lease === undefined
      return {
        giveBack,
        ifMatch,
        request: {
          _tag: "Word",
          word: {
            event: isOnlyOwner ? "transferred" : "changed",
            fqdn: host.fqdn,
            actor: caller,
            reason,
            edit,
            isExpected: expectation(ifMatch),
            hasSay: (now) => mayTouch(caller, now, "write") === undefined
          }
        }
      }
    })
  }

  const giveUp = (
    caller: Asker,
    host: Host,
    event: Extract<WordEvent, "retired" | "released">,
    reason: string | undefined,
    ifMatch?: string
  ): Result.Result<Asked, Refusal> => {
    const denied = mayTouch(caller, host, "delete")
    if (denied !== undefined) return Result.fail(denied)
    const word = {
      event,
      fqdn: host.fqdn,
      actor: caller,
      reason,
      isExpected: expectation(ifMatch),
      hasSay: (now: Host) => mayTouch(caller, now, "delete") === undefined
    }
    return Result.succeed({ giveBack: nothing, ifMatch, request: { _tag: "Word", word } })
  }

  /** Why the registry did not do it, in words of the API. What was changed meanwhile is for who knows what it was. */
  const explain = (
    caller: Asker,
    fqdn: string,
    error: Exclude<RegisterError | WordError, { _tag: "HostUnknown" | "HostMoved" }>
  ): Refusal => {
    const nowMillis = clock.currentTimeMillisUnsafe()
    const detail = sentence(error.message)
    const seconds = (untilMillis: number | undefined) =>
      untilMillis === undefined ? undefined : Math.max(1, Math.ceil((untilMillis - nowMillis) / 1000))
    const record = (code: "hostname-taken" | "hostname-flapping" | "quota-exceeded") =>
      refusals.record({ code, message: error.message, actor: caller.name, peer: caller.peer, subject: fqdn })
    switch (error._tag) {
      case "HostnameTaken":
        record("hostname-taken")
        return new HostnameTaken({
          detail: isAgent(caller, Authorization.placeOf(zones.all, fqdn as DomainName.DomainName))
            ? detail
            : `${detail} PATCH changes a host, and transfer gives it to another owner.`,
          retryAfterSeconds: seconds(error.freeAtMillis)
        })
      case "HostnameFlapping":
        record("hostname-flapping")
        return new HostnameTaken({ detail, retryAfterSeconds: seconds(error.untilMillis) })
      case "QuotaExceeded":
        record("quota-exceeded")
        return new QuotaExceeded({ detail })
      case "ZoneGone":
        return invalid("body", "/zone", error.message)
      case "HostRetired":
        return new HostRetired({ detail })
      case "RegistryUnavailable":
        return new StorageUnavailable({ detail })
    }
  }

  /** Why the host, as it is by now, is not the caller's to do this with. */
  const whyNoSay = (caller: Asker, host: Host, event: WordEvent): Forbidden | undefined =>
    mayTouch(caller, host, event === "retired" || event === "released" ? "delete" : "write")

  return { register, change, giveUp, explain, whyNoSay }
})

/** Labels with those of a patch in their place; undefined where it has none. */
const labelsOf =
  (patch: Readonly<Record<string, string | null>> | undefined) =>
  (labels: Host["labels"]): Host["labels"] | undefined =>
    patch === undefined
      ? undefined
      : Object.fromEntries(
          Object.entries({ ...labels, ...patch }).filter((entry): entry is [string, string] => entry[1] !== null)
        )
