/**
 * Which names of a zone hold record sets that are not ours.
 *
 * A name is asked for before it is written for the first time. A few names are
 * read one by one. For many the zone is read whole, once and piece by piece, and
 * what is foreign is remembered for as long as the zone's serial counts only our
 * own writes: a change by anyone else who goes through the API raises it (SOA-EDIT-API
 * `INCREASE`: by one for each PATCH). Who writes into PowerDNS's database
 * directly may leave the serial as it is; such records are seen when a name is
 * read by itself, and otherwise within `snapshotMillisMax`.
 */
import { Clock, Effect, Option, Stream } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import type { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import type { Outbox } from "./Outbox.ts"
import { isOnlyPlaceholder, knownTypes } from "./Publication.ts"

/** Up to this many names are read one by one: 1 to 1.5 ms each. */
export const namesReadSingly = 8

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
  /** Undefined when there are more than `foreignNamesMax`. */
  readonly foreign: ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>> | undefined
}

export interface ForeignNames {
  /** The record sets at `names`: all that are not ours, and perhaps some that are. */
  readonly at: (
    zone: DomainName,
    names: ReadonlyArray<DomainName>
  ) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError | SqlError.SqlError>
  /** A PATCH of ours was taken. */
  readonly wrote: (zone: DomainName) => void
}

export const make = (powerdns: PowerDnsClient["Service"], outbox: Outbox["Service"]): ForeignNames => {
  const snapshots = new Map<DomainName, Snapshot>()

  const serialOf = (zone: DomainName) =>
    Effect.map(powerdns.findZone(zone), (found) => (Option.isSome(found) ? found.value.serial : undefined))

  const take = Effect.fnUntraced(function* (zone: DomainName, serial: number) {
    const takenMillis = yield* Clock.currentTimeMillis
    const { node } = powerdns
    const foreign = new Map<DomainName, Map<string, RawRecord>>()
    yield* powerdns.records(zone).pipe(
      Stream.takeUntil(() => foreign.size > foreignNamesMax),
      Stream.runForEach(
        Effect.fnUntraced(function* (chunk) {
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
      foreign: foreign.size > foreignNamesMax ? undefined : new Map(Array.from(foreign, toRRsets))
    }
    snapshots.set(zone, snapshot)
    return snapshot
  })

  const current = Effect.fnUntraced(function* (zone: DomainName) {
    const serial = yield* serialOf(zone)
    if (serial === undefined) return undefined
    const known = snapshots.get(zone)
    const nowMillis = yield* Clock.currentTimeMillis
    return known !== undefined &&
      known.node === powerdns.node &&
      known.expectedSerial === serial &&
      nowMillis - known.takenMillis < snapshotMillisMax
      ? known
      : yield* take(zone, serial)
  })

  return {
    at: Effect.fn("ForeignNames.at")(function* (zone, names) {
      const snapshot = names.length > namesReadSingly ? yield* current(zone) : undefined
      if (snapshot?.foreign !== undefined) return names.flatMap((name) => snapshot.foreign!.get(name) ?? [])
      return yield* powerdns.rrsets(zone, names)
    }),
    wrote: (zone) => {
      const snapshot = snapshots.get(zone)
      if (snapshot !== undefined) snapshot.expectedSerial += 1
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
