/**
 * The leases this server renews, in memory.
 *
 * A beat that changes nothing is answered from here and writes nothing: it
 * only moves the time the host was last seen, which is flushed in batches. What
 * is not found here goes the long way through the registry and is then held.
 * The database decides what has expired; a lease that is dropped here costs the
 * host's next beat one look-up.
 *
 * Of several servers each answers from memory only while what it has seen
 * reaches the others (`trustUntil`): hosts whose beats they do not see written
 * they take for silent, and no host is told that all is well meanwhile. A host that was given another name than it asks
 * for (conflict policy `suffix`) is found by the name it asks for too.
 */
import { Context, Layer } from "effect"
import type { DomainName } from "../domain/DomainName.ts"
import type { Host } from "../domain/Host.ts"
import type { IpAddress } from "../domain/IpAddress.ts"
import { hasWishes, isSameVersion, type Registrant, type Wishes } from "./Decision.ts"

interface Lease {
  readonly host: Host
  /** The name it asks for, when it was given another. */
  readonly asked: DomainName | undefined
  /** How often all were doubted when it was held. */
  readonly doubts: Doubts
  seenMillis: number
  flushedMillis: number
  /** It may be another by now: only what was seen of it is still to be written. */
  isOutdated: boolean
}

interface Doubts {
  readonly claims: number
  readonly all: number
}

/** When a host was last seen. */
export interface Seen {
  readonly fqdn: DomainName
  readonly id: string
  /** The host's generation as we know it. */
  readonly generation: number
  readonly atMillis: number
}

export class Leases extends Context.Service<
  Leases,
  {
    /**
     * Renews the lease of an online host at its known addresses. Undefined when there is more to it: an unknown name,
     * another address, another owner, another wish. `fqdn` is the name that the host asks for; the one it has is its host's.
     */
    readonly renew: (
      fqdn: DomainName,
      addresses: ReadonlyArray<IpAddress>,
      registrant: Registrant,
      nowMillis: number,
      wishes?: Wishes
    ) => Host | undefined
    /**
     * Renews the lease of a host by itself, for whoever has registered it and was not told of a change since. False when
     * it is not held any more as it was at that generation.
     */
    readonly beat: (host: Host, nowMillis: number) => boolean
    /** Holds the lease of a host that was just written or found, and that asked for the name `asked` if for another. */
    readonly hold: (host: Host, seenMillis: number, asked?: DomainName) => void
    /** Drops a lease unless the host was seen after `beforeMillis`. True when it is not held any more. */
    readonly drop: (fqdn: DomainName, beforeMillis: number) => boolean
    /** The leases renewed since they were last flushed. */
    readonly unflushed: () => ReadonlyArray<Seen>
    /** `seen` is in the database now. */
    readonly flushed: (seen: ReadonlyArray<Seen>) => void
    /** The database has another truth about these hosts, which another server wrote: their next beats ask it. */
    readonly forget: (seen: ReadonlyArray<Seen>) => void
    /**
     * Other servers have written these hosts, perhaps before what is held here: their next beats ask the database what they
     * are now. When they were seen is written all the same.
     */
    readonly outdated: (names: Iterable<string>) => void
    /**
     * Any host may be another in the database, nobody knows which. `claims`: one that says what it is asks the database, and
     * beats that only go on are found out with the next flush. `all`: beats too.
     */
    readonly doubt: (what: "claims" | "all") => void
    /** Nothing is renewed from here after that time, for it would reach nobody. Default: always. */
    readonly trustUntil: (millis: number) => void
    /** Until when leases are renewed from here, as was said last. */
    readonly trustedUntil: () => number
    readonly size: () => number
  }
>()("@prism-dns/core/registry/Leases") {
  static readonly layer: Layer.Layer<Leases> = Layer.sync(Leases, () => Leases.of(make()))
}

export const make = (): Leases["Service"] => {
  const leases = new Map<DomainName, Lease>()
  /** The names that were given to hosts that asked for another, by the one they asked for. */
  const given = new Map<DomainName, Set<DomainName>>()
  let doubts: Doubts = { claims: 0, all: 0 }
  let trustedUntilMillis = Number.POSITIVE_INFINITY

  const remove = (fqdn: DomainName) => {
    const asked = leases.get(fqdn)?.asked
    leases.delete(fqdn)
    if (asked === undefined) return
    const names = given.get(asked)
    names?.delete(fqdn)
    if (names?.size === 0) given.delete(asked)
  }

  const renewOne = (
    lease: Lease | undefined,
    addresses: ReadonlyArray<IpAddress>,
    registrant: Registrant,
    nowMillis: number,
    wishes: Wishes = {}
  ): Host | undefined => {
    if (lease === undefined || lease.isOutdated || nowMillis > trustedUntilMillis) return undefined
    const { host } = lease
    if (lease.doubts.claims !== doubts.claims) return undefined
    // Someone who may act for the host but is not its owner would change the owner: the long way.
    if (host.owner !== registrant.name) return undefined
    if (host.addresses.length !== addresses.length) return undefined
    for (let i = 0; i < addresses.length; i++) if (host.addresses[i] !== addresses[i]) return undefined
    if (!hasWishes(host, wishes)) return undefined
    lease.seenMillis = nowMillis
    return host
  }

  return {
    renew: (fqdn, addresses, registrant, nowMillis, wishes) => {
      const host = renewOne(leases.get(fqdn), addresses, registrant, nowMillis, wishes)
      if (host !== undefined || given.size === 0) return host
      for (const name of given.get(fqdn) ?? []) {
        const other = renewOne(leases.get(name), addresses, registrant, nowMillis, wishes)
        if (other !== undefined) return other
      }
      return undefined
    },
    beat: (host, nowMillis) => {
      const lease = leases.get(host.fqdn)
      if (lease === undefined || lease.isOutdated || nowMillis > trustedUntilMillis || !isSameVersion(lease.host, host))
        return false
      if (lease.doubts.all !== doubts.all) return false
      lease.seenMillis = nowMillis
      return true
    },
    hold: (host, seenMillis, name) => {
      const asked = name === host.fqdn ? undefined : name
      if (leases.get(host.fqdn)?.asked !== asked) remove(host.fqdn)
      const flushedMillis = host.lastSeenMillis
      leases.set(host.fqdn, { host, asked, doubts, seenMillis, flushedMillis, isOutdated: false })
      if (asked === undefined) return
      const names = given.get(asked)
      if (names === undefined) given.set(asked, new Set([host.fqdn]))
      else names.add(host.fqdn)
    },
    drop: (fqdn, beforeMillis) => {
      const lease = leases.get(fqdn)
      if (lease !== undefined && lease.seenMillis >= beforeMillis) return false
      remove(fqdn)
      return true
    },
    unflushed: () => {
      const seen: Array<Seen> = []
      for (const { flushedMillis, host, seenMillis } of leases.values()) {
        if (seenMillis > flushedMillis) {
          seen.push({ fqdn: host.fqdn, id: host.id, generation: host.generation, atMillis: seenMillis })
        }
      }
      return seen
    },
    flushed: (seen) => {
      for (const { atMillis, fqdn } of seen) {
        const lease = leases.get(fqdn)
        if (lease === undefined) continue
        if (lease.flushedMillis < atMillis) lease.flushedMillis = atMillis
        if (lease.isOutdated) remove(fqdn)
      }
    },
    forget: (seen) => {
      for (const { fqdn, generation } of seen) {
        // One that was held meanwhile is newer than what was looked at.
        if (leases.get(fqdn)?.host.generation === generation) remove(fqdn)
      }
    },
    outdated: (names) => {
      for (const name of names as Iterable<DomainName>) {
        const lease = leases.get(name)
        if (lease === undefined) continue
        if (lease.seenMillis > lease.flushedMillis) lease.isOutdated = true
        else remove(name)
      }
    },
    doubt: (what) => {
      doubts = { claims: doubts.claims + 1, all: doubts.all + (what === "all" ? 1 : 0) }
    },
    trustUntil: (millis) => {
      trustedUntilMillis = millis
    },
    trustedUntil: () => trustedUntilMillis,
    size: () => leases.size
  }
}
