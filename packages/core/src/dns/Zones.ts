/**
 * The zones Prism manages, and which of them a name or an address belongs to.
 *
 * Pure lookups over a fixed list; whether PowerDNS has the zones is the
 * concern of `dns/DnsManager`.
 */
import { Context, Layer, Result } from "effect"
import * as DomainName from "../domain/DomainName.ts"
import type { DomainName as Name, HostName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as Zone from "../domain/Zone.ts"

/** Where a record lives: its owner name and the zone that holds it. */
export interface RecordPlace {
  readonly zone: Name
  readonly name: Name
}

export class Zones extends Context.Service<
  Zones,
  {
    readonly all: ReadonlyArray<Zone.Zone>
    readonly find: (name: Name) => Zone.Zone | undefined
    /**
     * The full name and zone of a host that calls itself `hostname`. A name that already ends in a managed forward
     * zone is taken as it is, any other goes into `zone`, or into the first forward zone when none is said; the zone it
     * then belongs to is the longest that holds it. Fails when the name is too long, or is a zone itself.
     */
    readonly placeHost: (hostname: HostName, zone?: Name) => Result.Result<RecordPlace, DomainName.NameInvalid>
    /** Where the PTR record of `address` lives: in the smallest configured network that contains it, or nowhere. */
    readonly placePointer: (address: IpAddress.IpAddress) => RecordPlace | undefined
  }
>()("@prism-dns/core/dns/Zones") {
  static readonly layer = (zones: ReadonlyArray<Zone.Zone>): Layer.Layer<Zones> =>
    Layer.sync(Zones, () => Zones.of(make(zones)))
}

export const make = (zones: ReadonlyArray<Zone.Zone>): Zones["Service"] => {
  const byName = new Map(zones.map((zone) => [zone.name, zone]))
  const forward = zones.filter((zone) => !Zone.isReverse(zone))
  const reverse = zones.filter(Zone.isReverse)
  // Classless zones lie within a /24: none of their names is a suffix of the usual one. The longest prefix comes first.
  const classless = reverse
    .filter((zone) => zone.name.includes("/"))
    .sort((a, b) => b.network.prefixLength - a.network.prefixLength)

  /** A name below a zone belongs to the longest such zone: in one above it nobody would see it. */
  const placeName = (
    hostname: HostName,
    name: Name
  ): Result.Result<RecordPlace, DomainName.NameInvalid> | undefined => {
    const zone = DomainName.longestZone(name, forward)
    if (zone === undefined) return undefined
    return name === zone.name
      ? Result.fail(new DomainName.NameInvalid({ input: hostname, reason: "hostname is the name of the zone itself" }))
      : Result.succeed({ zone: zone.name, name })
  }

  const placeHost: Zones["Service"]["placeHost"] = (hostname, zone) => {
    const own = placeName(hostname, `${hostname}.` as Name)
    if (own !== undefined) return own
    const target = zone ?? forward[0]?.name
    if (target === undefined) {
      return Result.fail(new DomainName.NameInvalid({ input: hostname, reason: "no forward zone is configured" }))
    }
    return Result.flatMap(
      DomainName.prepend(hostname, target),
      (name) => placeName(hostname, name) ?? Result.succeed({ zone: target, name })
    )
  }

  const placePointer: Zones["Service"]["placePointer"] = (address) => {
    if (reverse.length === 0) return undefined
    const within = classless.find((zone) => IpAddress.isWithin(address, zone.network))
    if (within !== undefined) return { zone: within.name, name: Zone.pointerName(address, within) }
    // On label boundaries the smallest network is the longest suffix of the name.
    const name = IpAddress.reverseName(address)
    for (let dot = name.indexOf("."); dot < name.length - 1; dot = name.indexOf(".", dot + 1)) {
      const zone = byName.get(name.slice(dot + 1) as Name)
      if (zone !== undefined && Zone.isReverse(zone)) return { zone: zone.name, name }
    }
    return undefined
  }

  return { all: zones, find: (name) => byName.get(name), placeHost, placePointer }
}
