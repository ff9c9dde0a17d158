/**
 * What a registration does to a host. Pure: a value in, a value out.
 */
import { Schema } from "effect"
import type { DomainName, HostName } from "../domain/DomainName.ts"
import type { Host } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"

/** Who registers: the name of its token, or `anonymous`. */
export interface Registrant {
  readonly name: string
  /** An anonymous registrant has proved nothing and holds no claim to a name. */
  readonly anonymous: boolean
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

/** The name belongs to someone else who is using it. Nothing was changed. */
export class HostnameTaken extends Schema.TaggedError<HostnameTaken>()("HostnameTaken", {
  fqdn: Schema.String,
  owner: Schema.String
}) {
  override get message(): string {
    return `${this.fqdn} is registered by another owner and its host is online`
  }
}

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

/**
 * Decides a registration against what is known of the name. `newId` is used
 * only for a host that is new.
 */
export const decide = (
  known: Host | undefined,
  registration: Registration,
  context: { readonly nowMillis: number; readonly generation: number; readonly newId: string }
): Decision => {
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
  if (known.state === "online" && !mayActFor(registration.registrant, known.owner)) {
    return { _tag: "Refuse", error: new HostnameTaken({ fqdn: known.fqdn, owner: known.owner }) }
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
