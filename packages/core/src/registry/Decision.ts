/**
 * What a registration does to a host. Pure: a value in, a value out.
 */
import { Duration, Schema } from "effect"
import { type DomainName, type HostName, labelCharactersMax, nameCharactersMax } from "../domain/DomainName.ts"
import { type Host, hostStates } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import type { ZonePolicy } from "../domain/Zone.ts"

/** Who registers: a principal's name, or `anonymous`. */
export interface Registrant {
  readonly name: string
  /** An anonymous registrant has proved nothing and holds no claim to a name. */
  readonly anonymous: boolean
  /** Owners whose claims have passed to it. */
  readonly actsFor?: ReadonlyArray<string>
}

export const anonymous: Registrant = { name: "anonymous", anonymous: true }

export interface Registration {
  readonly fqdn: DomainName
  readonly hostname: HostName
  readonly zone: DomainName
  /** Sorted, each once, at least one. */
  readonly addresses: ReadonlyArray<IpAddress>
  readonly registrant: Registrant
  /** The address the message came from, for the audit. */
  readonly peer: string
}

/** The name is another's, by its zone's conflict policy. Nothing was changed. */
export class HostnameTaken extends Schema.TaggedError<HostnameTaken>()("HostnameTaken", {
  fqdn: Schema.String,
  owner: Schema.String,
  /** What the holder's host is at the moment. */
  state: Schema.Literals(hostStates),
  /** The registrant is the owner, and another machine of its holds the name. */
  sameOwner: Schema.Boolean,
  /** When the name is released if its host stays away; undefined while it is online. */
  freeAtMillis: Schema.UndefinedOr(Schema.Finite)
}) {
  override get message(): string {
    const holder = this.sameOwner ? "at other addresses" : "by another owner"
    const held =
      this.freeAtMillis === undefined ? "" : `; the name is held until ${isoTime(this.freeAtMillis)} at least`
    return `${this.fqdn} is registered ${holder} and its host is ${this.state}${held}`
  }
}

/** The name moves to and fro between the addresses of several machines, and stays where it is for now. Nothing was changed. */
export class HostnameFlapping extends Schema.TaggedError<HostnameFlapping>()("HostnameFlapping", {
  fqdn: Schema.String,
  /** The addresses that it keeps. */
  addresses: Schema.Array(Schema.String),
  /** The addresses that were refused. */
  claimed: Schema.Array(Schema.String),
  /** Until then at least, and for longer while they are claimed in turn. */
  untilMillis: Schema.Finite
}) {
  override get message(): string {
    return (
      `${this.fqdn} is claimed in turn for ${this.addresses.join(", ")} and for ${this.claimed.join(", ")}; ` +
      `it keeps ${this.addresses.join(", ")} until ${isoTime(this.untilMillis)} at least`
    )
  }
}

const isoTime = (millis: number): string => new Date(millis).toISOString()

/** What happened to a host; also the word in its history. */
export type HostEvent = "created" | "changed" | "returned" | "offline" | "withdrawn" | "retired" | "released"

export type Decision =
  /** Nothing but the lease: no row is written. */
  | { readonly _tag: "Renew"; readonly host: Host }
  | {
      readonly _tag: "Write"
      readonly event: HostEvent
      readonly before: Host | undefined
      readonly after: Host
    }
  | { readonly _tag: "Refuse"; readonly error: HostnameTaken }

const sameAddresses = (a: ReadonlyArray<IpAddress>, b: ReadonlyArray<IpAddress>): boolean =>
  a.length === b.length && a.every((address, i) => address === b[i])

/**
 * True when `registrant` may act for a host of `owner` that is online: as the
 * same owner, or when the owner is anonymous and so holds no claim.
 */
export const mayActFor = (registrant: Registrant, owner: string): boolean =>
  registrant.name === owner || owner === anonymous.name

export interface Context {
  readonly nowMillis: number
  readonly generation: number
  /** Used only for a host that is new. */
  readonly newId: string
  /** Of the zone that the name is in. */
  readonly policy: ZonePolicy
}

/** Decides a registration against what is known of the name, by the zone's conflict policy. */
export const decide = (known: Host | undefined, registration: Registration, context: Context): Decision => {
  const { generation, nowMillis } = context
  if (known === undefined) {
    return {
      _tag: "Write",
      event: "created",
      before: undefined,
      after: {
        id: context.newId,
        fqdn: registration.fqdn,
        hostname: registration.hostname,
        zone: registration.zone,
        addresses: registration.addresses,
        labels: {},
        ttlSeconds: undefined,
        owner: registration.registrant.name,
        state: "online",
        generation,
        firstSeenMillis: nowMillis,
        lastSeenMillis: nowMillis,
        offlineSinceMillis: undefined,
        withdrawnSinceMillis: undefined,
        retiredSinceMillis: undefined
      }
    }
  }
  if (!mayHave(known, registration, context.policy)) {
    return {
      _tag: "Refuse",
      error: new HostnameTaken({
        fqdn: known.fqdn,
        owner: known.owner,
        state: known.state,
        sameOwner: known.owner === registration.registrant.name,
        freeAtMillis: freeAtMillis(known, context.policy)
      })
    }
  }
  const owner = registration.registrant.name
  // A name belongs to another zone once the configuration says so; its records move there.
  const moved = !sameAddresses(known.addresses, registration.addresses) || known.zone !== registration.zone
  if (known.state === "online" && !moved && known.owner === owner) return { _tag: "Renew", host: known }
  return {
    _tag: "Write",
    event: known.state === "online" ? "changed" : "returned",
    before: known,
    after: {
      ...known,
      hostname: registration.hostname,
      zone: registration.zone,
      addresses: registration.addresses,
      owner,
      state: "online",
      generation,
      lastSeenMillis: nowMillis,
      offlineSinceMillis: undefined,
      withdrawnSinceMillis: undefined,
      retiredSinceMillis: undefined
    }
  }
}

/** Whether the policy gives the name of `known` to who registers. */
const mayHave = (known: Host, registration: Registration, policy: ZonePolicy): boolean => {
  const online = known.state === "online"
  if (registration.registrant.name === known.owner) {
    return policy.conflict !== "reject" || !online || haveCommon(known.addresses, registration.addresses)
  }
  if (mayActFor(registration.registrant, known.owner)) return true
  return !online && (policy.conflict === "take-over-if-expired" || policy.conflict === "suffix")
}

const haveCommon = (a: ReadonlyArray<IpAddress>, b: ReadonlyArray<IpAddress>): boolean =>
  a.some((address) => b.includes(address))

/** When the name of a host is released if the host stays away; undefined while it is online. */
export const freeAtMillis = (host: Host, policy: ZonePolicy): number | undefined => {
  const holdMillis = Duration.toMillis(policy.holdFor)
  if (host.retiredSinceMillis !== undefined) return host.retiredSinceMillis + holdMillis
  if (host.offlineSinceMillis === undefined) return undefined
  return host.offlineSinceMillis + Duration.toMillis(policy.retireAfter) + holdMillis
}

/** `fqdn` with `-2`, `-3` ... behind its first label, `count` names at the most: those that are too long are left out. */
export const suffixedNames = (fqdn: DomainName, count: number): ReadonlyArray<DomainName> => {
  const dot = fqdn.indexOf(".")
  const names: Array<DomainName> = []
  for (let n = 2; n < count + 2; n++) {
    const label = `${fqdn.slice(0, dot)}-${n}`
    const name = `${label}${fqdn.slice(dot)}`
    if (label.length > labelCharactersMax || name.length - 1 > nameCharactersMax) break
    names.push(name as DomainName)
  }
  return names
}

/**
 * Decides a registration where the zone's policy is `suffix`: for the name itself, or for one of `candidates`, given the
 * hosts known at all of them. A machine keeps the name it has, which its owner and its addresses tell; one that cannot
 * have the name gets back the one it had before, or else the first that no host is online at.
 */
export const decideSuffixed = (
  find: (name: DomainName) => Host | undefined,
  candidates: ReadonlyArray<DomainName>,
  registration: Registration,
  context: Context
): Decision => {
  const at = (fqdn: DomainName) => decide(find(fqdn), { ...registration, fqdn }, context)
  const isOwn = (host: Host | undefined) => host?.owner === registration.registrant.name
  const isSame = (host: Host | undefined) =>
    host !== undefined && isOwn(host) && sameAddresses(host.addresses, registration.addresses)

  const own = at(registration.fqdn)
  if (isSame(find(registration.fqdn))) return own
  const kept = candidates.find((name) => isSame(find(name)))
  if (kept !== undefined) return at(kept)
  if (own._tag !== "Refuse") return own
  const given =
    candidates.find((name) => {
      const host = find(name)
      return (
        host !== undefined &&
        isOwn(host) &&
        (host.state !== "online" || haveCommon(host.addresses, registration.addresses))
      )
    }) ?? candidates.find((name) => find(name)?.state !== "online")
  return given === undefined ? own : at(given)
}
