/**
 * The zones Prism manages, and which of them a name or an address belongs to.
 *
 * Zones come, change and go while the server runs (`registry/ManagedZones`). Every
 * lookup is of what is in force at that moment: whoever keeps a zone over time
 * asks for it again by its name, and finds it gone when it is. Whether PowerDNS
 * has the zones is the concern of `dns/DnsManager`.
 */
import { Context, Effect, Layer, Result, Schema, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as DomainName from "../domain/DomainName.ts"
import type { DomainName as Name, HostName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as Zone from "../domain/Zone.ts"
import * as Groups from "../cluster/Groups.ts"
import * as Versions from "../cluster/Versions.ts"
import * as ZoneRepo from "./ZoneRepo.ts"

/** Where a record lives: its owner name and the zone that holds it. */
export interface RecordPlace {
  readonly zone: Name
  readonly name: Name
}

/** A zone that has come, changed or gone; its name is the same on both sides. */
export interface ZoneChange {
  readonly before?: Zone.Zone
  readonly after?: Zone.Zone
}

/** What was decided by the zones of before does not hold: the transaction is to be begun anew. */
export class ZonesMoved extends Schema.TaggedError<ZonesMoved>()("ZonesMoved", {}) {
  override get message(): string {
    return "the zones were changed at the same time; try again"
  }
}

export class Zones extends Context.Service<
  Zones,
  {
    /** Those of the configuration in its order, then those that the API has made, by name. */
    readonly all: ReadonlyArray<Zone.Zone>
    /** The names of those that hold hosts, in the same order: the first is meant where a host says none. */
    readonly forward: ReadonlyArray<Name>
    readonly find: (name: Name) => Zone.Zone | undefined
    /** The zone for hosts that a full name lies in: the longest. */
    readonly zoneOf: (name: Name) => Zone.Zone | undefined
    /**
     * The full name and zone of a host that calls itself `hostname`. A name that already ends in a managed forward
     * zone is taken as it is, any other goes into `zone`, or into the first forward zone when none is said; the zone it
     * then belongs to is the longest that holds it. Fails when the name is too long, is a zone itself, or belongs to a zone
     * of other servers.
     */
    readonly placeHost: (hostname: HostName, zone?: Name) => Result.Result<RecordPlace, DomainName.NameInvalid>
    /**
     * The zone of other servers that such a host belongs to; undefined: it belongs here, or nowhere. A name that is not full
     * is meant in `zone`; without one it is nowhere but here.
     */
    readonly elsewhere: (hostname: HostName, zone?: Name) => Groups.Elsewhere | undefined
    /** Zones that other servers serve. */
    readonly groups: Groups.Groups
    /** Where the PTR record of `address` lives: in the smallest managed network that contains it, or nowhere. */
    readonly placePointer: (address: IpAddress.IpAddress) => RecordPlace | undefined
    /** Tells `listen` of each change once it is in force, until the scope ends. It must not wait: it wakes who does the work. */
    readonly changed: (listen: (change: ZoneChange) => void) => Effect.Effect<void, never, Scope.Scope>
    /** Of what the lookups know: rises with each change. */
    readonly version: number
    /**
     * For a transaction that puts something into zones, as its last read, once it shares the zones' turns
     * (`audit/Turns.share`): fails when zones have changed since the version that it decided by. After a `reload` it
     * is to be begun anew. Whoever changes or removes a zone has its turn alone (`audit/Turns.close`), and so finds what was
     * put into it, or is found.
     */
    readonly verify: (version: number) => Effect.Effect<void, ZonesMoved | SqlError.SqlError>
    /** Puts in force what the database says, and tells those who listen. */
    readonly reload: Effect.Effect<void, SqlError.SqlError>
    /** As the configuration has them, whatever the API has set. */
    readonly configured: ReadonlyArray<Zone.Zone>
  }
>()("@prism-dns/core/dns/Zones") {
  /** These, and they stay. */
  static readonly layer = (zones: ReadonlyArray<Zone.Zone>, groups?: Groups.Groups): Layer.Layer<Zones> =>
    Layer.sync(Zones, () => Zones.of(make(zones, groups)))

  /**
   * Those of the configuration and those of the database, with what the API has set for either. `groups`: zones that other
   * servers serve.
   */
  static readonly layerManaged = (
    configured: ReadonlyArray<Zone.Zone>,
    groups?: Groups.Groups
  ): Layer.Layer<Zones, SqlError.SqlError, SqlClient.SqlClient> => Layer.effect(Zones, makeManaged(configured, groups))
}

/** The zones of one moment, made ready for lookups. */
interface Index {
  readonly all: ReadonlyArray<Zone.Zone>
  readonly byName: ReadonlyMap<Name, Zone.Zone>
  readonly forwardNames: ReadonlyArray<Name>
  readonly hasReverse: boolean
  /** Classless zones lie within a /24: none of their names is a suffix of the usual one. The longest prefix comes first. */
  readonly classless: ReadonlyArray<ReverseZone>
}

type ReverseZone = Zone.Zone & { readonly network: NonNullable<Zone.Zone["network"]> }

const indexOf = (all: ReadonlyArray<Zone.Zone>): Index => {
  const reverse = all.filter(Zone.isReverse)
  return {
    all,
    byName: new Map(all.map((zone) => [zone.name, zone])),
    forwardNames: all.filter((zone) => !Zone.isReverse(zone)).map(({ name }) => name),
    hasReverse: reverse.length > 0,
    classless: reverse
      .filter((zone) => zone.name.includes("/"))
      .sort((a, b) => b.network.prefixLength - a.network.prefixLength)
  }
}

/** The zones whose names are suffixes of `name`, itself among them, the longest first. */
const suffixZones = function* ({ byName }: Index, name: Name): Generator<Zone.Zone> {
  for (let dot = -1; dot < name.length - 1;) {
    const zone = byName.get(name.slice(dot + 1) as Name)
    if (zone !== undefined) yield zone
    dot = name.indexOf(".", dot + 1)
    if (dot < 0) return
  }
}

const zoneOf = (index: Index, name: Name): Zone.Zone | undefined => {
  for (const zone of suffixZones(index, name)) if (!Zone.isReverse(zone)) return zone
  return undefined
}

/** A name below a zone belongs to the longest such zone: in one above it nobody would see it. */
const placeName = (
  index: Index,
  hostname: HostName,
  name: Name
): Result.Result<RecordPlace, DomainName.NameInvalid> | undefined => {
  const zone = zoneOf(index, name)
  if (zone === undefined) return undefined
  return name === zone.name
    ? Result.fail(new DomainName.NameInvalid({ input: hostname, reason: "hostname is the name of the zone itself" }))
    : Result.succeed({ zone: zone.name, name })
}

const elsewhere = (
  index: Index,
  groups: Groups.Groups,
  hostname: HostName,
  zone?: Name
): Groups.Elsewhere | undefined => {
  if (groups.size === 0) return undefined
  const isKnown = (name: Name) => zoneOf(index, name) !== undefined || Groups.find(groups, name) !== undefined
  const name = Groups.nameOf(hostname, zone, isKnown)
  return name === undefined ? undefined : Groups.find(groups, name, zoneOf(index, name)?.name)
}

const placeHost = (
  index: Index,
  groups: Groups.Groups,
  hostname: HostName,
  zone?: Name
): Result.Result<RecordPlace, DomainName.NameInvalid> => {
  const other = elsewhere(index, groups, hostname, zone ?? index.forwardNames[0])
  if (other !== undefined) {
    return Result.fail(new DomainName.NameInvalid({ input: hostname, reason: Groups.sentence(hostname, other) }))
  }
  const own = placeName(index, hostname, `${hostname}.` as Name)
  if (own !== undefined) return own
  const target = zone ?? index.forwardNames[0]
  if (target === undefined) {
    return Result.fail(new DomainName.NameInvalid({ input: hostname, reason: "no forward zone is configured" }))
  }
  return Result.flatMap(
    DomainName.prepend(hostname, target),
    (name) => placeName(index, hostname, name) ?? Result.succeed({ zone: target, name })
  )
}

const placePointer = (index: Index, address: IpAddress.IpAddress): RecordPlace | undefined => {
  const { classless, hasReverse } = index
  if (!hasReverse) return undefined
  const within = classless.find((zone) => IpAddress.isWithin(address, zone.network))
  if (within !== undefined) return { zone: within.name, name: Zone.pointerName(address, within) }
  // On label boundaries the smallest network is the longest suffix of the name.
  const name = IpAddress.reverseName(address)
  for (const zone of suffixZones(index, name)) {
    if (Zone.isReverse(zone) && zone.name !== name) return { zone: zone.name, name }
  }
  return undefined
}

type Upkeep = Pick<Zones["Service"], "changed" | "verify" | "reload" | "configured">

/** The service over whatever `index` gives. */
const over = (index: () => Index, version: () => number, groups: Groups.Groups, upkeep: Upkeep): Zones["Service"] => ({
  get version() {
    return version()
  },
  get all() {
    return index().all
  },
  get forward() {
    return index().forwardNames
  },
  find: (name) => index().byName.get(name),
  zoneOf: (name) => zoneOf(index(), name),
  placeHost: (hostname, zone) => placeHost(index(), groups, hostname, zone),
  elsewhere: (hostname, zone) => elsewhere(index(), groups, hostname, zone),
  groups,
  placePointer: (address) => placePointer(index(), address),
  ...upkeep
})

/** Zones that stay as they are. */
export const make = (zones: ReadonlyArray<Zone.Zone>, groups: Groups.Groups = Groups.none): Zones["Service"] => {
  const index = indexOf(zones)
  const upkeep: Upkeep = {
    changed: () => Effect.void,
    verify: () => Effect.void,
    reload: Effect.void,
    configured: zones
  }
  return over(
    () => index,
    () => 0,
    groups,
    upkeep
  )
}

/** What differs between two moments. */
export const changesBetween = (
  before: ReadonlyArray<Zone.Zone>,
  after: ReadonlyArray<Zone.Zone>
): ReadonlyArray<ZoneChange> => {
  const known = new Map(before.map((zone) => [zone.name, zone]))
  const now = new Set(after.map(({ name }) => name))
  return [
    ...before.filter(({ name }) => !now.has(name)).map((zone): ZoneChange => ({ before: zone })),
    ...after.flatMap((zone): ReadonlyArray<ZoneChange> => {
      const was = known.get(zone.name)
      if (was === undefined) return [{ after: zone }]
      return was.generation === zone.generation ? [] : [{ before: was, after: zone }]
    })
  ]
}

const makeManaged = Effect.fnUntraced(function* (
  configured: ReadonlyArray<Zone.Zone>,
  groups: Groups.Groups = Groups.none
) {
  const sql = yield* SqlClient.SqlClient
  const repo = ZoneRepo.make(sql, configured)
  yield* repo.noteConfigured
  let loaded = yield* repo.load
  let index = indexOf(loaded.zones)
  const listeners = new Set<(change: ZoneChange) => void>()
  for (const { name, overridden, policy } of loaded.zones) {
    if (overridden.length === 0 || policy.ttlSecondsMin <= policy.ttlSecondsMax) continue
    yield* Effect.logWarning(
      "what the API has set for a zone and what the configuration says now do not go together: ttlSecondsMin is above ttlSecondsMax, which holds"
    ).pipe(Effect.annotateLogs({ zone: name, overridden: overridden.join(", ") }))
  }

  const take = (next: typeof loaded) => {
    const changes = changesBetween(loaded.zones, next.zones)
    loaded = next
    if (changes.length > 0) index = indexOf(next.zones)
    for (const change of changes) for (const listen of listeners) listen(change)
  }
  const reload = Effect.map(repo.load, (next) => {
    // One that was read earlier, and comes later, is of before.
    if (next.version >= loaded.version) take(next)
  })

  yield* Versions.follow(sql, { topic: "zones", version: repo.version, reload, anew: Effect.map(repo.load, take) })

  const upkeep: Upkeep = {
    changed: (listen) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => listeners.add(listen)),
          () => Effect.sync(() => listeners.delete(listen))
        )
      ),
    verify: (version) => Effect.flatMap(repo.version, (now) => (now === version ? Effect.void : new ZonesMoved())),
    reload,
    configured
  }
  return Zones.of(
    over(
      () => index,
      () => loaded.version,
      groups,
      upkeep
    )
  )
})
