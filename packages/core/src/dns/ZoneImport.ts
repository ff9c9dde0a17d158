/**
 * Makes plans that bring the records of a zone file, or of another server, in.
 *
 * Nothing is changed before such a plan is applied, and then only what people
 * manage: what hosts have, what others have in PowerDNS, the zone's own SOA and
 * name servers, and what signs it is left out, each with why. Leaves to others:
 * reading (`dns/ZoneFile`, `dns/ZoneTransfer`) and applying (`dns/Plans`), which
 * looks again.
 */
import { Clock, Context, Effect, Layer, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { isRecordType, type RecordType } from "../domain/RecordContent.ts"
import * as RRset from "../domain/RRset.ts"
import type * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import * as Generation from "../storage/Generation.ts"
import { Outbox } from "./Outbox.ts"
import { Ownership } from "./Ownership.ts"
import { type NewChange, type Plan, Plans, type Said } from "./Plans.ts"
import { knownTypes } from "./Publication.ts"
import { ZoneUnknown } from "./Reconciler.ts"
import * as RecordChanges from "./RecordChanges.ts"
import * as RecordRules from "./RecordRules.ts"
import { RecordSource } from "./RecordSource.ts"
import { byNameAndType, type ZoneContents } from "./ZoneFile.ts"
import { Zones } from "./Zones.ts"

/** A set that no change is made of, and why. */
export interface LeftOut {
  readonly name: DomainName
  readonly type: string
  readonly reason: string
}

export interface Import {
  /** Without changes when all is here already; then, and in a dry run, it is not kept. */
  readonly plan: Plan
  /** Sets that were read. */
  readonly read: number
  /** Of those, sets that are here already. */
  readonly same: number
  readonly leftOut: ReadonlyArray<LeftOut>
}

export class ZoneImport extends Context.Service<
  ZoneImport,
  {
    readonly plan: (
      zone: DomainName,
      contents: ZoneContents,
      options: Said & {
        readonly reason: string
        /** Also deletes managed sets that are not among the contents. Adopted ones stay. */
        readonly prune?: boolean | undefined
        /** Whether who asks may have LUA records. */
        readonly mayLua: boolean
        readonly dryRun?: boolean | undefined
      }
    ) => Effect.Effect<Import, ZoneUnknown | PowerDnsError | SqlError.SqlError>
  }
>()("@prism-dns/core/dns/ZoneImport") {
  static readonly layer = Layer.effect(
    ZoneImport,
    Effect.suspend(() => make)
  )
}

/** Changes judged in one transaction, and the rows read at once. */
const chunkSize = 2000

/** What signs a zone, and what it begins with. */
const ofTheZone: ReadonlySet<string> = new Set([
  "SOA",
  "DNSKEY",
  "RRSIG",
  "NSEC",
  "NSEC3",
  "NSEC3PARAM",
  "CDS",
  "CDNSKEY",
  "ZONEMD"
])

const keyOf = ({ name, type }: { readonly name: string; readonly type: string }): string => `${name} ${type}`

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const outbox = yield* Outbox
  const ownership = yield* Ownership
  const plans = yield* Plans
  const powerdns = yield* PowerDnsClient
  const source = yield* RecordSource
  const records = RecordChanges.make(sql, zones, outbox)

  /** All sets that people manage in the zone, by `keyOf`. */
  const managed = Effect.fnUntraced(function* (zone: DomainName) {
    const found = new Map<string, RecordChanges.ManagedRecord>()
    let after = { name: "", type: "" }
    for (;;) {
      const rows = yield* sql<RecordChanges.RecordRow>`
        SELECT ${records.columns} FROM record WHERE zone = ${zone} AND (name, type) > (${after.name}, ${after.type})
        ORDER BY name, type LIMIT ${chunkSize}`
      for (const row of rows) found.set(keyOf(row), RecordChanges.toRecord(row))
      if (rows.length < chunkSize) return found
      after = rows.at(-1)!
      yield* Effect.yieldNow
    }
  })

  /** Those of `wanted` that somebody else has in PowerDNS. */
  const foreignAmong = Effect.fnUntraced(function* (zone: DomainName, wanted: ReadonlySet<string>) {
    const standing = new Map<DomainName, Set<string>>()
    yield* Stream.runForEach(powerdns.records(zone), (some) =>
      Effect.sync(() => {
        for (const record of some) {
          if (!wanted.has(keyOf(record))) continue
          const types = standing.get(record.name)
          if (types === undefined) standing.set(record.name, new Set([record.type]))
          else types.add(record.type)
        }
      })
    )
    const foreign = new Set<string>()
    for (const names of chunksOf([...standing.keys()])) {
      const published = yield* outbox.published(zone, names)
      for (const name of names) {
        const ours = knownTypes(published.get(name))
        for (const type of standing.get(name)!) if (!ours.has(type)) foreign.add(keyOf({ name, type }))
      }
    }
    return foreign
  })

  /** What hosts have at those names. */
  const hostsAt = Effect.fnUntraced(function* (zone: Zone.Zone, names: ReadonlyArray<DomainName>) {
    const taken = new Set<string>()
    for (const some of chunksOf(names)) {
      for (const [name, rrsets] of yield* source.desired(zone, some)) {
        for (const { type } of rrsets) if (RecordRules.excludesHosts(type, zone)) taken.add(keyOf({ name, type }))
      }
    }
    return taken
  })

  const plan: ZoneImport["Service"]["plan"] = Effect.fn("ZoneImport.plan")(function* (zoneName, contents, options) {
    const zone = zones.find(zoneName)
    if (zone === undefined) return yield* new ZoneUnknown({ zone: zoneName })
    const generation = yield* Generation.current(sql)
    const present = yield* managed(zone.name)
    const wanted = new Set(contents.rrsets.map(keyOf))
    const foreign = yield* foreignAmong(zone.name, wanted)
    const hosts = yield* hostsAt(zone, [...new Set(contents.rrsets.map(({ name }) => name))])
    const leftOut: Array<LeftOut> = contents.others.map(({ name, type }) => ({
      name,
      type,
      reason: ofTheZone.has(type)
        ? `${type} records are PowerDNS's to make`
        : `${type} is not a type that Prism manages`
    }))
    let same = 0

    const reasonAgainst = ({ name, type }: RRset.RRset): string | undefined => {
      const fault = RecordRules.nameFault(zone, zones.all, name, type)
      if (fault !== undefined) return fault
      if (name === zone.name && type === "NS") return "the zone's own name servers are set up, and stay as they are"
      if (type === "LUA" && !options.mayLua) return "PowerDNS runs what LUA records say: they need the permission lua"
      if (ownership.isIgnored(zone.name, name)) return "the name is ignored, by a person's word"
      if (!present.has(keyOf({ name, type })) && hosts.has(keyOf({ name, type }))) return "a host has it"
      return foreign.has(keyOf({ name, type }))
        ? "somebody else has it in PowerDNS; adopt it first, by a plan"
        : undefined
    }

    const changes: Array<NewChange> = []
    for (const rrset of contents.rrsets) {
      const before = present.get(keyOf(rrset))
      if (before !== undefined && before.origin === "managed" && RRset.equals(before, rrset)) {
        same += 1
        continue
      }
      const reason = reasonAgainst(rrset)
      if (reason !== undefined) leftOut.push({ name: rrset.name, type: rrset.type, reason })
      else {
        changes.push({
          name: rrset.name,
          type: rrset.type,
          action: before === undefined ? "create" : "update",
          before: before === undefined ? undefined : plain(before),
          after: rrset,
          reason: before === undefined ? "it is not here yet" : "it is here with other records",
          cause: "record"
        })
      }
    }
    if (options.prune === true) {
      for (const [key, record] of present) {
        const { name, origin, type } = record
        if (wanted.has(key) || origin !== "managed" || RecordRules.deletionConflict(zone, name, type) !== undefined) {
          continue
        }
        changes.push({
          name,
          type,
          action: "delete",
          before: plain(record),
          after: undefined,
          reason: "it is not among the records to import",
          cause: "record"
        })
      }
    }
    // At one name what goes makes way for what comes.
    const rank = ({ action }: NewChange) => (action === "delete" ? 0 : 1)
    changes.sort((a, b) => (a.name === b.name ? rank(a) - rank(b) || byNameAndType(a, b) : byNameAndType(a, b)))

    /** Those that could be made now; of the others it is said why not. */
    const possible = Effect.fnUntraced(function* (some: ReadonlyArray<NewChange>) {
      const asked = some.flatMap((change) =>
        isRecordType(change.type) ? [{ ...change, type: change.type satisfies RecordType }] : []
      )
      const nowMillis = yield* Clock.currentTimeMillis
      const outcomes = yield* sql.withTransaction(
        records.apply({ zone, by: options.by, generation, nowMillis }, asked, true)
      )
      return asked.filter((change, i) => {
        const outcome = outcomes[i]!
        if (outcome._tag === "Refused") {
          leftOut.push({ name: change.name, type: change.type, reason: outcome.error.message })
        }
        return outcome._tag !== "Refused"
      })
    })

    const made = yield* plans.make(zone.name, {
      ...options,
      kind: "import",
      generation,
      changes: Stream.fromIterable(chunksOf(changes)).pipe(Stream.mapEffect(possible))
    })
    return {
      plan: made,
      read: contents.rrsets.length + contents.others.length,
      same,
      leftOut: leftOut.sort(byNameAndType)
    }
  })

  return ZoneImport.of({ plan })
})

const plain = ({ contents, name, ttlSeconds, type }: RRset.RRset): RRset.RRset => ({ name, type, ttlSeconds, contents })

/** Chunks that keep what is of one name together are not needed here: each set is a change by itself. */
const chunksOf = <A>(values: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(values.length / chunkSize) }, (_, i) =>
    values.slice(i * chunkSize, (i + 1) * chunkSize)
  )
