/**
 * Makes plans that change whose a name is: `adopt` records that stand in
 * PowerDNS, `release` them again, `ignore` names.
 *
 * Nothing changes before such a plan is applied, and then nothing in PowerDNS:
 * an adopted record is taken as it stands, a released one stays. A host that
 * wants the name of an adopted record gets it, and its records then take the
 * place. Leaves to others: applying (`dns/Plans`), which looks again.
 */
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import type { DomainName } from "../domain/DomainName.ts"
import { isRecordType } from "../domain/RecordContent.ts"
import * as RRset from "../domain/RRset.ts"
import type * as Zone from "../domain/Zone.ts"
import { PowerDnsClient } from "../powerdns/PowerDnsClient.ts"
import type { PowerDnsError } from "../powerdns/PowerDnsError.ts"
import type { RawRecord } from "../powerdns/PowerDnsZoneFile.ts"
import * as Generation from "../storage/Generation.ts"
import { asList } from "../storage/Rows.ts"
import { Outbox } from "./Outbox.ts"
import { Ownership, parsePattern, type Pattern, PatternInvalid, patternsMax } from "./Ownership.ts"
import { type NewChange, type Plan, Plans, type Said } from "./Plans.ts"
import { knownTypes } from "./Publication.ts"
import { ZoneUnknown } from "./Reconciler.ts"
import { excludesHosts } from "./RecordRules.ts"
import { managedTypes, RecordSource } from "./RecordSource.ts"
import { Zones } from "./Zones.ts"

/** Names that one plan may adopt or release. */
export const namesMax = 100_000

/** More names than one such plan may have. */
export class TooManyNames extends Schema.TaggedError<TooManyNames>()("TooManyNames", {
  zone: Schema.String,
  namesMax: Schema.Int
}) {
  override get message(): string {
    return `the patterns match more than ${this.namesMax} names of ${this.zone}; use narrower ones`
  }
}

interface Request extends Said {
  readonly zone: DomainName
  /** Names or patterns within the zone, as people write them: `web-*`, `*.lab`, `printer.hosts.example.` */
  readonly patterns: ReadonlyArray<string>
  readonly reason: string
  /** Says what the plan would be, and keeps nothing. */
  readonly dryRun?: boolean | undefined
}

export class Adoption extends Context.Service<
  Adoption,
  {
    /** Foreign record sets that match, of types that people manage; `@` is the zone's own name, without its NS. */
    readonly adopt: (
      request: Request
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | TooManyNames | PowerDnsError | SqlError.SqlError>
    /** Adopted records that match; they stay in PowerDNS, and no longer are ours. */
    readonly release: (
      request: Request
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | TooManyNames | SqlError.SqlError>
    /** Patterns to be ignored, or, with `undo`, no longer to be. */
    readonly ignore: (
      request: Request & { readonly undo?: boolean | undefined }
    ) => Effect.Effect<Plan, ZoneUnknown | PatternInvalid | SqlError.SqlError>
  }
>()("@prism-dns/core/dns/Adoption") {
  static readonly layer = Layer.effect(
    Adoption,
    Effect.suspend(() => make)
  )
}

/** Names looked up in one statement. */
const chunkSize = 2000

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const source = yield* RecordSource
  const ownership = yield* Ownership
  const plans = yield* Plans
  const powerdns = yield* PowerDnsClient
  const outbox = yield* Outbox

  const prepare = Effect.fnUntraced(function* (request: Request, apex: boolean) {
    const zone = zones.find(request.zone)
    if (zone === undefined) return yield* new ZoneUnknown({ zone: request.zone })
    const patterns = yield* Effect.forEach(request.patterns, (pattern) => parsePattern(zone.name, pattern, { apex }))
    return { zone, patterns, generation: yield* Generation.current(sql) }
  })

  const matchesAny = (patterns: ReadonlyArray<Pattern>, name: DomainName) =>
    patterns.some(({ matches }) => matches(name))

  /** The records in PowerDNS that could be adopted, by name. */
  const findRecords = Effect.fnUntraced(function* (zone: Zone.Zone, patterns: ReadonlyArray<Pattern>) {
    const found = new Map<DomainName, Array<RawRecord>>()
    yield* Stream.runForEach(powerdns.records(zone.name), (records) =>
      Effect.gen(function* () {
        for (const record of records) {
          const { name, type } = record
          if (!isRecordType(type) || !matchesAny(patterns, name) || ownership.isIgnored(zone.name, name)) continue
          // A zone's own name servers are those that it is set up with.
          if (name === zone.name && type === "NS") continue
          const others = found.get(name)
          if (others !== undefined) others.push(record)
          else if (found.size === namesMax) return yield* new TooManyNames({ zone: zone.name, namesMax })
          else found.set(name, [record])
        }
      })
    )
    return found
  })

  const adoptionOf = Effect.fnUntraced(function* (
    zone: Zone.Zone,
    names: ReadonlyArray<DomainName>,
    records: ReadonlyMap<DomainName, ReadonlyArray<RawRecord>>
  ) {
    const published = yield* outbox.published(zone.name, names)
    const wanted = yield* source.desired(zone, names)
    const hostTypes: ReadonlyArray<string> = managedTypes(zone)
    return names.flatMap((name) => {
      const ours = knownTypes(published.get(name))
      // With one type of hosts all of those are ours.
      const hasHosts = hostTypes.some((type) => ours.has(type))
      const isOurs = (type: string) => ours.has(type) || (hasHosts && hostTypes.includes(type))
      return Array.from(
        Map.groupBy(
          records.get(name)!.filter(({ type }) => !isOurs(type)),
          ({ type }) => type
        ),
        ([type, some]): NewChange => {
          const rrset = RRset.make(
            name,
            type,
            some[0]!.ttlSeconds,
            some.map(({ content }) => content)
          )
          return {
            name,
            type,
            action: "adopt",
            before: rrset,
            after: rrset,
            reason:
              wanted.get(name)?.some((rrset) => hostTypes.includes(rrset.type)) === true && excludesHosts(type, zone)
                ? "it stands in PowerDNS and Prism did not make it; a host wants the name, and its records will take the place"
                : "it stands in PowerDNS and Prism did not make it",
            cause: "registered"
          }
        }
      )
    })
  })

  const adopt: Adoption["Service"]["adopt"] = Effect.fn("Adoption.adopt")(function* (request) {
    const { generation, patterns, zone } = yield* prepare(request, true)
    const records = yield* findRecords(zone, patterns)
    const names = [...records.keys()].sort()
    return yield* plans.make(zone.name, {
      kind: "adopt",
      reason: request.reason,
      by: request.by,
      peer: request.peer,
      request: request.request,
      dryRun: request.dryRun,
      generation,
      changes: Stream.fromIterable(chunksOf(names)).pipe(Stream.mapEffect((chunk) => adoptionOf(zone, chunk, records)))
    })
  })

  const release: Adoption["Service"]["release"] = Effect.fn("Adoption.release")(function* (request) {
    const { generation, patterns, zone } = yield* prepare(request, true)
    const names: Array<DomainName> = []
    for (let after: string | undefined = ""; after !== undefined;) {
      const rows: ReadonlyArray<{ readonly name: DomainName }> = yield* sql<{ readonly name: DomainName }>`
        SELECT DISTINCT name FROM record WHERE zone = ${zone.name} AND origin = 'adopted' AND name > ${after}
        ORDER BY name LIMIT ${chunkSize}`
      names.push(...rows.map(({ name }) => name).filter((name) => matchesAny(patterns, name)))
      if (names.length > namesMax) return yield* new TooManyNames({ zone: zone.name, namesMax })
      after = rows.length < chunkSize ? undefined : rows.at(-1)!.name
    }
    const releaseOf = (chunk: ReadonlyArray<DomainName>) =>
      Effect.map(
        sql<RecordRow>`
          SELECT name, type, ttl, contents FROM record
          WHERE zone = ${zone.name} AND origin = 'adopted' AND name IN ${asList(sql, chunk)} ORDER BY name, type`,
        (rows) =>
          rows.map(({ contents, name, ttl, type }): NewChange => ({
            name,
            type,
            action: "release",
            before: RRset.make(name, type, Number(ttl), JSON.parse(contents) as ReadonlyArray<string>),
            after: undefined,
            reason: "it stays in PowerDNS, and Prism no longer looks after it",
            cause: "released"
          }))
      )
    return yield* plans.make(zone.name, {
      kind: "release",
      reason: request.reason,
      by: request.by,
      peer: request.peer,
      request: request.request,
      dryRun: request.dryRun,
      generation,
      changes: Stream.fromIterable(chunksOf(names)).pipe(Stream.mapEffect(releaseOf))
    })
  })

  const ignore: Adoption["Service"]["ignore"] = Effect.fn("Adoption.ignore")(function* (request) {
    const { generation, patterns, zone } = yield* prepare(request, false)
    const present = new Set((yield* ownership.list(zone.name)).map(({ pattern }) => pattern))
    const texts = [...new Set(patterns.map(({ text }) => text))].sort()
    const undo = request.undo === true
    const going = texts.filter((text) => present.has(text) === undo)
    if (!undo && going.length > 0 && present.size + going.length > patternsMax) {
      return yield* new PatternInvalid({
        pattern: going[0]!,
        reason: `a zone may ignore ${patternsMax} patterns, and ${zone.name} has ${present.size}`
      })
    }
    const changes = going.map((text): NewChange => ({
      // A pattern stands where other changes have a name.
      name: text as DomainName,
      type: "*",
      action: undo ? "unignore" : "ignore",
      before: undefined,
      after: undefined,
      reason: undo ? "Prism looks after such names again" : "Prism leaves such names alone, whatever stands there",
      cause: "settings"
    }))
    return yield* plans.make(zone.name, {
      kind: "ignore",
      reason: request.reason,
      by: request.by,
      peer: request.peer,
      request: request.request,
      dryRun: request.dryRun,
      generation,
      changes: Stream.make(changes)
    })
  })

  return Adoption.of({ adopt, release, ignore })
})

interface RecordRow {
  readonly name: DomainName
  readonly type: string
  readonly ttl: number | bigint
  readonly contents: string
}

const chunksOf = (names: ReadonlyArray<DomainName>): ReadonlyArray<ReadonlyArray<DomainName>> =>
  Array.from({ length: Math.ceil(names.length / chunkSize) }, (_, i) => names.slice(i * chunkSize, (i + 1) * chunkSize))
