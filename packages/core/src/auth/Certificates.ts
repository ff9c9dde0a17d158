/**
 * The principal that a client certificate makes: a pure function of the name
 * of its holder and of what the configuration lets certificates claim.
 *
 * The default is that a machine claims its own name and no other. Leaves to
 * others: whether the certificate holds, and what of it is the name.
 */
import { Result } from "effect"
import type { IpNetwork } from "effect/net"
import * as DomainName from "../domain/DomainName.ts"
import type { Principal } from "./Principal.ts"

/** Stands for the holder's own name in a pattern of names. */
export const ownName = "{name}"

/** What certificates may claim; a `Grant` once it is known whose it is. */
export interface CertificateGrant {
  /** Zones they may have names in; undefined: every zone. */
  readonly zones: ReadonlyArray<DomainName.DomainName> | undefined
  /** Patterns of names below their zone, in which `{name}` stands for the holder's own. */
  readonly names: ReadonlyArray<string>
  readonly networks: ReadonlyArray<IpNetwork.IpNetwork>
  /** Undefined: as many as any identity. */
  readonly namesMax: number | undefined
}

/** A machine may claim its own name, at the address it speaks from. */
export const ownNameOnly: CertificateGrant = { zones: undefined, names: [ownName], networks: [], namesMax: undefined }

/** Names the principal: no token and no key is called so. */
export const principalName = (name: string): string => `cert:${name}`

/**
 * Whoever holds a certificate of `name`. A name below one of `zones`, those for hosts, speaks for that zone only, and its
 * own name is what stands below it: `web-1.hosts.example.net` may claim `web-1` there, `web-1` in each zone. A name that no
 * host can have, such as a URI, claims only by patterns without `{name}`.
 */
export const principalOf = (
  name: string,
  grant: CertificateGrant,
  zones: ReadonlyArray<DomainName.DomainName>
): Principal => {
  const place = placeOf(name, zones)
  return {
    name: principalName(name),
    kind: "certificate",
    anonymous: false,
    actsFor: [],
    grant: {
      zones: place.zone === undefined ? grant.zones : onlyIfGranted(place.zone, grant.zones),
      names: grant.names.flatMap((pattern) =>
        !pattern.includes(ownName) ? [pattern] : place.own === undefined ? [] : [pattern.replaceAll(ownName, place.own)]
      ),
      networks: grant.networks,
      namesMax: grant.namesMax
    }
  }
}

interface Place {
  /** The zone that the name lies in; undefined when it says none. */
  readonly zone: DomainName.DomainName | undefined
  /** The name below its zone; undefined when no host can be called so. */
  readonly own: string | undefined
}

const placeOf = (name: string, zones: ReadonlyArray<DomainName.DomainName>): Place => {
  const hostname = Result.getOrUndefined(DomainName.parseHostName(name))
  if (hostname === undefined) return { zone: undefined, own: undefined }
  const full = `${hostname}.` as DomainName.DomainName
  const zone = DomainName.longestZone(
    full,
    zones.map((each) => ({ name: each }))
  )?.name
  if (zone === undefined) return { zone, own: hostname }
  return { zone, own: full === zone ? undefined : full.slice(0, -zone.length - 1) }
}

const onlyIfGranted = (
  zone: DomainName.DomainName,
  granted: ReadonlyArray<DomainName.DomainName> | undefined
): ReadonlyArray<DomainName.DomainName> => (granted === undefined || granted.includes(zone) ? [zone] : [])
