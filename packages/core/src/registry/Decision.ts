/**
 * What a registration does to a host. Pure: a value in, a value out.
 */
import { Duration, Schema } from "effect"
import type { Actor } from "../audit/Entries.ts"
import { type DomainName, type HostName, labelCharactersMax, nameCharactersMax } from "../domain/DomainName.ts"
import { type Host, hostStates } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import type { ZonePolicy } from "../domain/Zone.ts"

/** Who registers: a principal's name, or `anonymous`. */
export interface Registrant {
  readonly name: string
  /** An anonymous registrant has proved nothing and holds no claim to a name. */
  readonly anonymous: boolean
  /** Owners whose claims have passed to it: it acts for their hosts as for its own. */
  readonly actsFor?: ReadonlyArray<string> | undefined
}

export const anonymous: Registrant = { name: "anonymous", anonymous: true }

/** What a host may wish for beside its addresses. What is undefined stays as it is: protocol 1.0 knows no wishes. */
export interface Wishes {
  /** The TTL of its records in seconds; null: its zone's. */
  readonly ttlSeconds?: number | null | undefined
  /** All of its labels; empty: none. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** Without a lease. What is undefined here is no: whoever registers by a protocol keeps its host alive itself. */
  readonly isStatic?: boolean | undefined
}

export interface Registration extends Wishes {
  readonly fqdn: DomainName
  readonly hostname: HostName
  readonly zone: DomainName
  /** Sorted, each once (`IpAddress.sorted`), at least one. */
  readonly addresses: ReadonlyArray<IpAddress>
  readonly registrant: Registrant
  /** Hosts that the registrant may own at once; undefined: any number. */
  readonly hostsMax?: number | undefined
  /** Whether the registrant may have this name, where the zone gives another than the one asked for; undefined: any. */
  readonly mayHave?: (fqdn: DomainName) => boolean
  /** The address the message came from, for the audit. */
  readonly peer: string
  /** Who asked for it, where that is not the registrant by itself; for the audit. */
  readonly actor?: Actor | undefined
  readonly reason?: string | undefined
  /** Whether a host that would be changed is as whoever asks thinks, by its generation; undefined: whatever it is. */
  readonly isExpected?: ((generation: number) => boolean) | undefined
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
  freeAtMillis: Schema.UndefinedOr(Schema.Finite),
  /** A sentence, where it is no host that has the name, but a record that `owner` made. */
  record: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    if (this.record !== undefined) return `${this.record}; register another name, or have the record deleted`
    const holder = this.sameOwner ? "at other addresses" : "by another owner"
    const held =
      this.freeAtMillis === undefined ? "" : `; the name is held until ${isoTime(this.freeAtMillis)} at least`
    return `${this.fqdn} is registered ${holder} and its host is ${this.state}${held}`
  }
}

/** The name is a record's, which people made. */
export const takenByRecord = (fqdn: DomainName, record: { readonly reason: string; readonly owner: string }) =>
  new HostnameTaken({
    fqdn,
    owner: record.owner,
    state: "online",
    sameOwner: false,
    freeAtMillis: undefined,
    record: record.reason
  })

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

/** There are as many hosts as there may be: of this owner, or in this zone. Nothing was changed. */
export class QuotaExceeded extends Schema.TaggedError<QuotaExceeded>()("QuotaExceeded", {
  scope: Schema.Literals(["identity", "zone"]),
  /** The owner or the zone. */
  key: Schema.String,
  max: Schema.Finite
}) {
  override get message(): string {
    return `the ${this.scope} ${this.key} has as many hosts as it may have: ${this.max}`
  }
}

/** The zone has gone, or another one has come that the name belongs to. Nothing was changed. */
export class ZoneGone extends Schema.TaggedError<ZoneGone>()("ZoneGone", {
  fqdn: Schema.String,
  zone: Schema.String
}) {
  override get message(): string {
    return `${this.zone} is no zone that ${this.fqdn} can be in any more`
  }
}

const isoTime = (millis: number): string => new Date(millis).toISOString()

/** What happened to a host; also the word in its history. */
export const hostEvents = [
  "created",
  "changed",
  "returned",
  "transferred",
  "offline",
  "withdrawn",
  "retired",
  "released"
] as const
export type HostEvent = (typeof hostEvents)[number]

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

const sameLabels = (a: Host["labels"], b: Host["labels"]): boolean => {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && a[key] === b[key])
}

/** True when the host has what is wished for. */
export const hasWishes = (host: Host, { isStatic = false, labels, ttlSeconds }: Wishes): boolean =>
  host.isStatic === isStatic &&
  (ttlSeconds === undefined || (ttlSeconds ?? undefined) === host.ttlSeconds) &&
  (labels === undefined || sameLabels(host.labels, labels))

/** True when both say the same of a host at the same generation: one commit may change it several times. */
export const isSameVersion = (a: Host, b: Host): boolean =>
  a === b ||
  (a.generation === b.generation &&
    a.owner === b.owner &&
    a.isStatic === b.isStatic &&
    a.ttlSeconds === b.ttlSeconds &&
    sameAddresses(a.addresses, b.addresses) &&
    sameLabels(a.labels, b.labels))

/** True when `registrant` is `owner`, or the claims of `owner` have passed to it. */
export const isOwner = (registrant: Registrant, owner: string): boolean =>
  registrant.name === owner || registrant.actsFor?.includes(owner) === true

/**
 * True when `registrant` may act for a host of `owner` that is online: as the
 * same owner, or when the owner is anonymous and so holds no claim.
 */
export const mayActFor = (registrant: Registrant, owner: string): boolean =>
  isOwner(registrant, owner) || owner === anonymous.name

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
        labels: registration.labels ?? {},
        ttlSeconds: registration.ttlSeconds ?? undefined,
        owner: registration.registrant.name,
        isStatic: registration.isStatic ?? false,
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
        sameOwner: isOwner(registration.registrant, known.owner),
        freeAtMillis: freeAtMillis(known, context.policy)
      })
    }
  }
  const owner = registration.registrant.name
  // A name belongs to another zone once the configuration says so; its records move there.
  const moved = !sameAddresses(known.addresses, registration.addresses) || known.zone !== registration.zone
  if (known.state === "online" && !moved && known.owner === owner && hasWishes(known, registration)) {
    return { _tag: "Renew", host: known }
  }
  // What another's machine wished for is no wish of this one.
  const kept = mayActFor(registration.registrant, known.owner) ? known : undefined
  return {
    _tag: "Write",
    event: known.state === "online" ? "changed" : "returned",
    before: known,
    after: {
      ...known,
      hostname: registration.hostname,
      zone: registration.zone,
      addresses: registration.addresses,
      labels: registration.labels ?? kept?.labels ?? {},
      ttlSeconds: registration.ttlSeconds === undefined ? kept?.ttlSeconds : (registration.ttlSeconds ?? undefined),
      owner,
      isStatic: registration.isStatic ?? false,
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
  if (isOwner(registration.registrant, known.owner)) {
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
  const isOwn = (host: Host | undefined) => host !== undefined && isOwner(registration.registrant, host.owner)
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
