/**
 * Which names of a zone hold record sets that are not ours.
 *
 * A name is asked for before it is written for the first time. Names are read by
 * themselves, side by side, while they are few for a zone of this size. For many
 * the zone is read whole, once and piece by piece, and what is foreign is remembered
 * for as long as the zone's serial counts only our own writes: a change by anyone
 * else who goes through the API raises it (SOA-EDIT-API `INCREASE`: by one for each
 * PATCH). Who writes into PowerDNS's database directly may leave the serial as it
 * is; such records are seen when a name is read by itself, and otherwise within
 * `snapshotMillisMax`.
 *
 * Figures (PowerDNS 4.7.3, decision 6): 100 names by themselves take 0.1 s on SQLite and LMDB, 0.4 s on PostgreSQL, in
 * a zone of any size; a zone whole 0.01 s with 1,000 records, 0.04 to 0.08 s with 10,000, 0.4 to 0.7 s with 100,000, and
 * 4.6 s with 1,000,000. Whoever takes over a large zone would be kept from writing it by that.
 */
import { Clock, Effect, Option, Stream } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { type PowerDnsClient, readsWholeZone, recordsPerName } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import type { Outbox } from "./Outbox.ts"
import { isOnlyPlaceholder, knownTypes } from "./Publication.ts"

/** Up to this many names are read anew each time: whether what is remembered still holds would have to be asked too. */
export const namesReadAnew = 8

/** How long what was read is believed, in milliseconds, while the serial shows no other writer. */
export const snapshotMillisMax = 60_000

/** Foreign names remembered of a zone; a zone with more is always asked name by name. */
export const foreignNamesMax = 100_000

interface Snapshot {
  readonly takenMillis: number
  /** The server that was read: another may have another database, with serials of its own. */
  readonly node: string
  /** The serial that the zone has if nobody else wrote to it. */
  expectedSerial: number
  /** How many were read. */
  readonly recordCount: number
  /** Undefined when there are more than `foreignNamesMax`. */
  readonly foreign: Map<DomainName, ReadonlyArray<RRset.RRset>> | undefined
}

/** Names of a zone that were read by themselves, since when. */
interface Asked {
  readonly sinceMillis: number
  readonly names: number
}

/** What a PATCH has replaced, or deleted. */
export interface WrittenPlace {
  readonly name: DomainName
  readonly type: string
}

export interface ForeignNames {
  /** The record sets at `names`: all that are not ours, and perhaps some that are. */
  readonly at: (
    zone: DomainName,
    names: ReadonlyArray<DomainName>
  ) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError | SqlError.SqlError>
  /** All record sets at `names`, as they are now. */
  readonly read: (
    zone: DomainName,
    names: ReadonlyArray<DomainName>
  ) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError | SqlError.SqlError>
  /** A PATCH of ours was taken: what stands at these places is ours, also where older records of ours stood, taken for foreign. */
  readonly wrote: (zone: DomainName, places: ReadonlyArray<WrittenPlace>) => void
  /** The zone is not ours to write any more: nothing of it is remembered. */
  readonly forget: (zone: DomainName) => void
}

export const make = (powerdns: PowerDnsClient["Service"], outbox: Outbox["Service"]): ForeignNames => {
  const snapshots = new Map<DomainName, Snapshot>()
  const asked = new Map<DomainName, Asked>()

  const serialOf = (zone: DomainName) =>
    Effect.map(powerdns.findZone(zone), (found) => (Option.isSome(found) ? found.value.serial : undefined))

  /** How many records the zone has, from below, and no further than matters for `nameCount`. */
  const sizeOf = (zone: DomainName, nameCount: number) =>
    Effect.map(outbox.countPublished(zone, nameCount * recordsPerName + 1), (ours) =>
      Math.max(ours, snapshots.get(zone)?.recordCount ?? 0)
    )

  const read: ForeignNames["read"] = (zone, names) =>
    readsWholeZone(names.length, 0)
      ? Effect.flatMap(sizeOf(zone, names.length), (size) => powerdns.rrsets(zone, names, size))
      : powerdns.rrsets(zone, names)

  /**
   * Whether to read the zone whole for `nameCount` more names: once those that were read by themselves in the time for which
   * a snapshot is believed cost as much. However many come, and in whatever pieces, at most twice the cheaper way is paid.
   */
  const isWorthReading = Effect.fnUntraced(function* (zone: DomainName, nameCount: number) {
    const nowMillis = yield* Clock.currentTimeMillis
    const before = asked.get(zone)
    const { names, sinceMillis } =
      before !== undefined && nowMillis - before.sinceMillis < snapshotMillisMax
        ? before
        : { names: 0, sinceMillis: nowMillis }
    const all = names + nameCount
    const isWorth = readsWholeZone(all, yield* sizeOf(zone, all))
    if (isWorth) asked.delete(zone)
    else asked.set(zone, { names: all, sinceMillis })
    return isWorth
  })

  const take = Effect.fnUntraced(function* (zone: DomainName) {
    const serial = yield* serialOf(zone)
    if (serial === undefined) return undefined
    const takenMillis = yield* Clock.currentTimeMillis
    const { node } = powerdns
    let recordCount = 0
    const foreign = new Map<DomainName, Map<string, RawRecord>>()
    yield* powerdns.records(zone).pipe(
      Stream.takeUntil(() => foreign.size > foreignNamesMax),
      Stream.runForEach(
        Effect.fnUntraced(function* (chunk) {
          recordCount += chunk.length
          const records = chunk.filter(({ type }) => !ofTheZone.has(type))
          const ours = yield* outbox.published(zone, [...new Set(records.map(({ name }) => name))])
          for (const record of records) {
            const known = ours.get(record.name)
            // Beside a record of ours, or a placeholder, stands what is somebody else's.
            if (known !== undefined && !isOnlyPlaceholder(known)) {
              const types = knownTypes(known)
              if (types.has(record.type)) continue
              if (ofHosts.has(record.type) && RRset.hostRecordTypes.some((type) => types.has(type))) continue
            }
            const atName = foreign.get(record.name)
            const key = `${record.type} ${record.content}`
            if (atName === undefined) foreign.set(record.name, new Map([[key, record]]))
            else atName.set(key, record)
          }
        })
      )
    )
    const snapshot: Snapshot = {
      takenMillis,
      node,
      expectedSerial: serial,
      recordCount,
      foreign: foreign.size > foreignNamesMax ? undefined : new Map(Array.from(foreign, toRRsets))
    }
    snapshots.set(zone, snapshot)
    return snapshot
  })

  /** What was read of the zone, while it is believed. */
  const believed = Effect.fnUntraced(function* (zone: DomainName) {
    const snapshot = snapshots.get(zone)
    const nowMillis = yield* Clock.currentTimeMillis
    return snapshot !== undefined &&
      snapshot.node === powerdns.node &&
      nowMillis - snapshot.takenMillis < snapshotMillisMax &&
      snapshot.expectedSerial === (yield* serialOf(zone))
      ? snapshot
      : undefined
  })

  const current = Effect.fnUntraced(function* (zone: DomainName, nameCount: number) {
    const snapshot = yield* believed(zone)
    if (snapshot !== undefined) return snapshot
    return (yield* isWorthReading(zone, nameCount)) ? yield* take(zone) : undefined
  })

  return {
    at: Effect.fn("ForeignNames.at")(function* (zone, names) {
      const snapshot = names.length > namesReadAnew ? yield* current(zone, names.length) : undefined
      if (snapshot?.foreign !== undefined) return names.flatMap((name) => snapshot.foreign!.get(name) ?? [])
      return yield* read(zone, names)
    }),
    read,
    wrote: (zone, places) => {
      const snapshot = snapshots.get(zone)
      if (snapshot === undefined) return
      snapshot.expectedSerial += 1
      for (const { name, type } of places) {
        const atName = snapshot.foreign?.get(name)
        if (atName === undefined) continue
        const left = atName.filter((rrset) => rrset.type !== type)
        if (left.length > 0) snapshot.foreign?.set(name, left)
        else snapshot.foreign?.delete(name)
      }
    },
    forget: (zone) => {
      snapshots.delete(zone)
      asked.delete(zone)
    }
  }
}

/** What signs a zone and what it begins with are nobody's to write, and in a signed zone they are at every name. */
const ofTheZone: ReadonlySet<string> = new Set(["SOA", "DNSKEY", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM"])

const ofHosts: ReadonlySet<string> = new Set(RRset.hostRecordTypes)

/** The records of one name as sets. */
const toRRsets = ([name, records]: readonly [DomainName, ReadonlyMap<string, RawRecord>]) =>
  [
    name,
    Array.from(
      Map.groupBy(records.values(), ({ type }) => type),
      ([type, ofType]) =>
        RRset.make(
          name,
          type,
          ofType[0]!.ttlSeconds,
          ofType.map(({ content }) => content)
        )
    )
  ] as const
