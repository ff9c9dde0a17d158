/**
 * Damps names that move to and fro, in the manner of RFC 2439.
 *
 * A change that gives a name addresses which it had not long ago is a flap: two
 * machines claim it in turn. Each flap counts a penalty, which decays by half in
 * every half-life. At `suppressAt` the name keeps the addresses it has until the
 * penalty has fallen to `reuseAt`; claims meanwhile count as flaps, so it lasts
 * as long as they go on. A host that moves on to ever new addresses has no flap.
 *
 * What is remembered is bounded and in memory only: after a restart it begins
 * anew, which costs the few changes it takes to see the flapping.
 */
import type { DomainName } from "../domain/DomainName.ts"
import type { IpAddress } from "../domain/IpAddress.ts"

export interface DampingOptions {
  /** How long ago a name may have had addresses for their return to be a flap, in milliseconds. */
  readonly windowMillis: number
  /** What a flap counts. */
  readonly penalty: number
  /** From this penalty on the name keeps its addresses. */
  readonly suppressAt: number
  /** At this penalty it may change again. */
  readonly reuseAt: number
  /** Within this time a penalty decays to its half, in milliseconds. */
  readonly halfLifeMillis: number
  /** How long a name keeps its addresses after the last flap at the most, in milliseconds. */
  readonly suppressMillisMax: number
  /** Names that are remembered; beyond it the one that changed the longest ago is forgotten. */
  readonly namesMax: number
  /** Different addresses that are remembered of a name. */
  readonly addressesMax: number
}

/**
 * Two machines that beat each minute flap twice a minute and are stopped after some sixteen minutes. One machine that
 * speaks from its IPv4 and its IPv6 address in turn flaps once a minute and never is, nor is one that is carried to and
 * fro some twenty times.
 */
export const defaultOptions: DampingOptions = {
  windowMillis: 900_000,
  penalty: 1000,
  suppressAt: 20_000,
  reuseAt: 10_000,
  halfLifeMillis: 600_000,
  suppressMillisMax: 900_000,
  namesMax: 10_000,
  addressesMax: 8
}

/** What is known of the changes of one name. */
export interface Flapping {
  readonly zone: DomainName
  /** Addresses it had, and when it had them last; the latest at the end. */
  readonly had: ReadonlyArray<{ readonly addresses: string; readonly atMillis: number }>
  /** As it was at `atMillis`. */
  readonly penalty: number
  readonly atMillis: number
  readonly suppressed: boolean
}

const penaltyAt = (flapping: Flapping, nowMillis: number, options: DampingOptions): number =>
  flapping.penalty * 2 ** (-Math.max(0, nowMillis - flapping.atMillis) / options.halfLifeMillis)

/** When a suppressed name may change again, if nobody claims it in turn until then. */
export const untilMillis = ({ atMillis, penalty }: Flapping, options: DampingOptions): number =>
  Math.ceil(atMillis + options.halfLifeMillis * Math.log2(Math.max(1, penalty / options.reuseAt)))

/** What a claim of a name that has the addresses `from` for the addresses `to` makes of it: when it is suppressed then, the claim is refused. */
export const claim = (
  known: Flapping | undefined,
  zone: DomainName,
  from: ReadonlyArray<IpAddress>,
  to: ReadonlyArray<IpAddress>,
  nowMillis: number,
  options: DampingOptions
): Flapping => {
  const [held, claimed] = [from.join(" "), to.join(" ")]
  const had = known?.had ?? []
  const returns = had.some(
    ({ addresses, atMillis }) => addresses === claimed && nowMillis - atMillis <= options.windowMillis
  )
  const decayed = known === undefined ? 0 : penaltyAt(known, nowMillis, options)
  const ceiling = options.reuseAt * 2 ** (options.suppressMillisMax / options.halfLifeMillis)
  const penalty = returns ? Math.min(decayed + options.penalty, Math.max(ceiling, options.suppressAt)) : decayed
  const suppressed = known?.suppressed === true ? penalty > options.reuseAt : penalty >= options.suppressAt
  // What is refused was not had: it is only remembered on when it was already.
  const remembered = suppressed && !returns ? [held] : [held, claimed]
  return {
    zone,
    had: [
      ...had.filter(({ addresses }) => !remembered.includes(addresses)),
      ...remembered.map((addresses) => ({ addresses, atMillis: nowMillis }))
    ].slice(-options.addressesMax),
    penalty,
    atMillis: nowMillis,
    suppressed
  }
}

/** Names whose suppression began or ended. */
export interface Turned {
  readonly name: DomainName
  readonly flapping: Flapping
}

export interface Transitions {
  readonly started: ReadonlyArray<Turned>
  readonly ended: ReadonlyArray<Turned>
}

/** The names that changed lately, within their bound. */
export interface Names {
  readonly find: (name: DomainName) => Flapping | undefined
  /** Takes over what claims have made of names, once they are committed. */
  readonly set: (flappings: ReadonlyMap<DomainName, Flapping>) => Transitions
  /** Forgets what is over. */
  readonly sweep: (nowMillis: number) => Transitions
  readonly forget: (name: DomainName) => void
  readonly size: () => number
  /** Suppressed names by zone; a zone that had one is named with zero. */
  readonly suppressed: () => ReadonlyMap<DomainName, number>
}

export const make = (options: DampingOptions): Names => {
  /** In the order of their last claims. */
  const names = new Map<DomainName, Flapping>()
  const suppressed = new Map<DomainName, number>()

  const count = (zone: DomainName, by: 1 | -1) => void suppressed.set(zone, (suppressed.get(zone) ?? 0) + by)

  const remove = (name: DomainName): Turned | undefined => {
    const flapping = names.get(name)
    names.delete(name)
    if (flapping?.suppressed !== true) return undefined
    count(flapping.zone, -1)
    return { name, flapping }
  }

  return {
    find: (name) => names.get(name),
    set: (flappings) => {
      const started: Array<Turned> = []
      const ended: Array<Turned> = []
      for (const [name, flapping] of flappings) {
        const before = remove(name)
        names.set(name, flapping)
        if (flapping.suppressed) count(flapping.zone, 1)
        if (flapping.suppressed && before === undefined) started.push({ name, flapping })
        if (!flapping.suppressed && before !== undefined) ended.push({ name, flapping })
      }
      for (const name of names.keys()) {
        if (names.size <= options.namesMax) break
        const turned = remove(name)
        if (turned !== undefined) ended.push(turned)
      }
      return { started, ended }
    },
    sweep: (nowMillis) => {
      const ended: Array<Turned> = []
      for (const [name, flapping] of names) {
        const penalty = penaltyAt(flapping, nowMillis, options)
        if (flapping.suppressed && penalty <= options.reuseAt) {
          count(flapping.zone, -1)
          names.set(name, { ...flapping, suppressed: false })
          ended.push({ name, flapping })
        } else if (!flapping.suppressed && nowMillis - flapping.atMillis > options.windowMillis) {
          names.delete(name)
        }
      }
      return { started: [], ended }
    },
    forget: (name) => void remove(name),
    size: () => names.size,
    suppressed: () => suppressed
  }
}
