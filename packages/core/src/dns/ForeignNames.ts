/**
 * Which names of a zone hold record sets that are not ours.
 *
 * A name is asked for before it is written for the first time. A few names are
 * read one by one. For many the zone is read whole, once, and what is foreign is
 * remembered for as long as the zone's serial counts only our own writes: a
 * change by anyone else who goes through the API raises it (SOA-EDIT-API
 * `INCREASE`: by one for each PATCH). Who writes into PowerDNS's database
 * directly may leave the serial as it is; such records are seen when a name is
 * read by itself, and otherwise within `snapshotMillisMax`.
 */
import { Clock, Effect, Option } from "effect"
import type { SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import type * as RRset from "../domain/RRset.ts"
import type { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { Outbox } from "./Outbox.ts"
import { isOnlyPlaceholder } from "./Publication.ts"

/** Up to this many names are read one by one: 1 to 1.5 ms each. */
export const namesReadSingly = 8

/** How long what was read is believed, in milliseconds, while the serial shows no other writer. */
export const snapshotMillisMax = 60_000

/** Foreign names remembered of a zone; a zone with more is always asked name by name. */
export const foreignNamesMax = 100_000

/** Names looked up as ours in one statement. */
const chunkSize = 5000

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
    const records = new Map<DomainName, Array<RRset.RRset>>()
    for (const rrset of yield* powerdns.exportZone(zone)) {
      if (!types.includes(rrset.type)) continue
      const others = records.get(rrset.name)
      if (others === undefined) records.set(rrset.name, [rrset])
      else others.push(rrset)
    }
    const names = [...records.keys()]
    for (let i = 0; i < names.length; i += chunkSize) {
      const ours = yield* outbox.published(zone, names.slice(i, i + chunkSize))
      // Beside a placeholder of ours stands what is somebody else's.
      for (const [name, known] of ours) if (!isOnlyPlaceholder(known)) records.delete(name)
    }
    const snapshot: Snapshot = {
      takenMillis,
      expectedSerial: serial,
      foreign: records.size > foreignNamesMax ? undefined : records
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
