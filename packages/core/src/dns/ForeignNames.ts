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
import { isOnlyPlaceholder } from "./Publication.ts"

/** Up to this many names are read one by one: 1 to 1.5 ms each. */
export const namesReadSingly = 8

/** How long what was read is believed, in milliseconds, while the serial shows no other writer. */
export const snapshotMillisMax = 60_000

/** Foreign names remembered of a zone; a zone with more is always asked name by name. */
export const foreignNamesMax = 100_000

interface Snapshot {
  readonly takenMillis: number
  /** The serial that the zone has if nobody else wrote to it. */
  expectedSerial: number
  /** Undefined when there are more than `foreignNamesMax`. */
  readonly foreign: ReadonlyMap<DomainName, ReadonlyArray<RRset.RRset>> | undefined
}

export interface ForeignNames {
  /** The record sets of `types` at those of `names`, all of which are not ours. */
  readonly at: (
    zone: DomainName,
    types: ReadonlyArray<string>,
    names: ReadonlyArray<DomainName>
  ) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError | SqlError.SqlError>
  /** A PATCH of ours was taken. */
  readonly wrote: (zone: DomainName) => void
}

export const make = (powerdns: PowerDnsClient["Service"], outbox: Outbox["Service"]): ForeignNames => {
  const snapshots = new Map<DomainName, Snapshot>()

  const serialOf = (zone: DomainName) =>
    Effect.map(powerdns.findZone(zone), (found) => (Option.isSome(found) ? found.value.serial : undefined))

  const take = Effect.fnUntraced(function* (zone: DomainName, types: ReadonlyArray<string>, serial: number) {
    const takenMillis = yield* Clock.currentTimeMillis
    const foreign = new Map<DomainName, Map<string, RawRecord>>()
    yield* powerdns.records(zone).pipe(
      Stream.takeUntil(() => foreign.size > foreignNamesMax),
      Stream.runForEach(
        Effect.fnUntraced(function* (chunk) {
          const records = chunk.filter(({ type }) => types.includes(type))
          const ours = yield* outbox.published(zone, [...new Set(records.map(({ name }) => name))])
          for (const record of records) {
            const known = ours.get(record.name)
            // Beside a placeholder of ours stands what is somebody else's.
            if (known !== undefined && !isOnlyPlaceholder(known)) continue
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
      expectedSerial: serial,
      foreign: foreign.size > foreignNamesMax ? undefined : new Map(Array.from(foreign, toRRsets))
    }
    snapshots.set(zone, snapshot)
    return snapshot
  })

  const current = Effect.fnUntraced(function* (zone: DomainName, types: ReadonlyArray<string>) {
    const serial = yield* serialOf(zone)
    if (serial === undefined) return undefined
    const known = snapshots.get(zone)
    const nowMillis = yield* Clock.currentTimeMillis
    return known !== undefined && known.expectedSerial === serial && nowMillis - known.takenMillis < snapshotMillisMax
      ? known
      : yield* take(zone, types, serial)
  })

  return {
    at: Effect.fn("ForeignNames.at")(function* (zone, types, names) {
      const snapshot = names.length > namesReadSingly ? yield* current(zone, types) : undefined
      if (snapshot?.foreign !== undefined) return names.flatMap((name) => snapshot.foreign!.get(name) ?? [])
      return (yield* powerdns.rrsets(zone, names)).filter((rrset) => types.includes(rrset.type))
    }),
    wrote: (zone) => {
      const snapshot = snapshots.get(zone)
      if (snapshot !== undefined) snapshot.expectedSerial += 1
    }
  }
}

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
