/**
 * The HTTP API of one PowerDNS Authoritative Server (4.7 and later).
 *
 * Promises: every call ends, within its timeout; a failure says whether trying
 * again may help; at most `connectionsMax` requests are under way at once; a
 * request is repeated only where repeating is harmless. Leaves to others: who
 * may write a zone (one writer at a time, see `dns/DnsManager`), and what to
 * write.
 *
 * @see https://doc.powerdns.com/authoritative/http-api/
 */
import { Context, Effect, Layer, Option, Result, Schema, Stream } from "effect"
import type { HttpClient, HttpClientResponse } from "effect/http"
import { CircuitBreaker } from "effect/persistence"
import * as DomainName from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { Malformed, PowerDnsError, type Reason, Refused } from "./PowerDnsError.ts"
import * as PowerDnsHttp from "./PowerDnsHttp.ts"
import * as PowerDnsZoneFile from "./PowerDnsZoneFile.ts"

export interface ServerInfo {
  /** As the server states it, for example `4.7.3`. */
  readonly version: string
}

/** What a list of zones says of each. */
export interface ZoneSummary {
  readonly name: DomainName.DomainName
  readonly kind: string
  readonly serial: number
}

export interface ZoneInfo extends ZoneSummary {
  readonly dnssec: boolean
  /** NSEC3 with answers made at the time of asking: the one signed mode that needs no rectify. */
  readonly nsec3Narrow: boolean
  readonly soaEditApi: string
  readonly apiRectify: boolean
}

export interface ZoneCreation {
  readonly name: DomainName.DomainName
  readonly kind: "Native" | "Master"
  readonly nameservers: ReadonlyArray<DomainName.DomainName>
}

/** How many changes to put into one PATCH: 100 to 1000 are about equally fast each; 500 are 65 kB. */
export const changesMax = 500

export class PowerDnsClient extends Context.Service<
  PowerDnsClient,
  {
    /** The name of this node in logs, metrics and errors. */
    readonly node: string
    /** Version of the server; also the cheapest way to learn that it answers and the key is right. */
    readonly server: Effect.Effect<ServerInfo, PowerDnsError>
    /** All zones the server has, without their records. */
    readonly listZones: Effect.Effect<ReadonlyArray<ZoneSummary>, PowerDnsError>
    readonly findZone: (zone: DomainName.DomainName) => Effect.Effect<Option.Option<ZoneInfo>, PowerDnsError>
    /**
     * Creates a zone that suits the publisher: SOA-EDIT-API `INCREASE` (each change raises the serial, EPOCH does not)
     * and API-RECTIFY off (a rectify per PATCH costs the whole zone). Fails with `Conflict` if it exists.
     */
    readonly createZone: (zone: ZoneCreation) => Effect.Effect<void, PowerDnsError>
    readonly deleteZone: (zone: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    /**
     * Gives an existing zone the settings that `createZone` gives a new one, where they differ. SOA-EDIT-API `DEFAULT`
     * stays, since it too raises the serial each time; so does API-RECTIFY on a signed zone that needs it.
     */
    readonly configureZone: (zone: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    /**
     * The RRsets that the server holds at `names`, of every type; a name without records is simply absent. Disabled
     * records are absent too: they are not served. Asks name by name, or reads the zone once where that is cheaper.
     */
    readonly rrsets: (
      zone: DomainName.DomainName,
      names: ReadonlyArray<DomainName.DomainName>
    ) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError>
    /** All RRsets of a zone. Cost grows with the zone: 0.1 s and 4 MB per 100,000 records. */
    readonly exportZone: (zone: DomainName.DomainName) => Effect.Effect<ReadonlyArray<RRset.RRset>, PowerDnsError>
    /**
     * All records of a zone, piece by piece as they come, none of them disabled; for zones too large to hold. The records
     * of a set need not come together. Fails at its end when there was no SOA among them (`Malformed`), and where the
     * answer breaks off (`Uncertain`): only a stream that ends well was the whole zone. Take each piece within 5 s, or
     * PowerDNS closes the connection.
     */
    readonly records: (
      zone: DomainName.DomainName
    ) => Stream.Stream<ReadonlyArray<PowerDnsZoneFile.RawRecord>, PowerDnsError>
    /**
     * Applies all changes or, when PowerDNS refuses one of them (`Refused`), none. Deletions go first, so that a CNAME
     * may take the place of addresses. No changes, no request. Splits nothing: keep to `changesMax`. A replaced set
     * loses its disabled records; a set replaced as `disabled` stands in PowerDNS unanswered and unseen by `rrsets` and
     * `exportZone`, until it is replaced otherwise or deleted.
     */
    readonly patch: (
      zone: DomainName.DomainName,
      changes: ReadonlyArray<RRset.RRsetChange>
    ) => Effect.Effect<void, PowerDnsError>
    /** Drops cached answers at and below `name` on this node. */
    readonly flush: (name: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    /** Sends NOTIFY to the zone's secondaries now, rather than within the next minute. */
    readonly notify: (zone: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    /** Recomputes ordering and empty non-terminals of the zone. Cost grows with the zone. */
    readonly rectify: (zone: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    readonly getMetadata: (
      zone: DomainName.DomainName,
      kind: string
    ) => Effect.Effect<ReadonlyArray<string>, PowerDnsError>
    readonly setMetadata: (
      zone: DomainName.DomainName,
      kind: string,
      values: ReadonlyArray<string>
    ) => Effect.Effect<void, PowerDnsError>
  }
>()("@prism-dns/core/powerdns/PowerDnsClient") {
  /** The API at `options.url`, by the `HttpClient` around: `node:http` in our server (half the CPU of undici here), undici and fetch are tested too. */
  static readonly layer = (options: PowerDnsHttp.Options): Layer.Layer<PowerDnsClient, never, HttpClient.HttpClient> =>
    Layer.effect(PowerDnsClient, make(options)).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))
}

// ---------------------------------------------------------------------------------------------------------------------
// Answers, only what we need of them
// ---------------------------------------------------------------------------------------------------------------------

const Server = Schema.Struct({ version: Schema.String })

const ListedZone = Schema.Struct({ name: Schema.String, kind: Schema.String, serial: Schema.Finite })

const Zone = Schema.Struct({
  ...ListedZone.fields,
  dnssec: Schema.Boolean,
  nsec3narrow: Schema.Boolean,
  soa_edit_api: Schema.String,
  api_rectify: Schema.Boolean
})

const ZoneRecords = Schema.Struct({
  rrsets: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      type: Schema.String,
      ttl: Schema.Finite,
      records: Schema.Array(Schema.Struct({ content: Schema.String, disabled: Schema.optionalKey(Schema.Boolean) }))
    })
  )
})

const Metadata = Schema.Struct({ metadata: Schema.Array(Schema.String) })

/** Reads a JSON answer; another shape means that no PowerDNS we know has sent it. */
const json = <A>(schema: Schema.Decoder<A>) => {
  const decode = Schema.decodeUnknownResult(Schema.fromJsonString(schema))
  return (response: HttpClientResponse.HttpClientResponse): Effect.Effect<A, unknown> =>
    Effect.flatMap(response.text, (text) =>
      Result.match(decode(text), {
        onFailure: () => Effect.fail(new PowerDnsHttp.Unreadable("the answer is not the JSON that PowerDNS sends")),
        onSuccess: Effect.succeed
      })
    )
}

const readServer = json(Server)
const readZoneList = json(Schema.Array(ListedZone))
const readZone = json(Zone)
const readZoneRecords = json(ZoneRecords)
const readMetadata = json(Metadata)

/** The answer says nothing, but the connection is only free once it has ended. */
const readNothing = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<void, unknown> =>
  Effect.asVoid(response.text)

const readingExport = <A>(f: () => A) =>
  Effect.try({ try: f, catch: () => new PowerDnsHttp.Unreadable("the answer is not an export of a zone") })

/** Piece by piece: an export of a million records is 37 MB, and other work goes on meanwhile. */
const readExport =
  (names: ReadonlySet<DomainName.DomainName> | undefined) => (response: HttpClientResponse.HttpClientResponse) =>
    Effect.suspend(() => {
      const reader = PowerDnsZoneFile.makeReader(names)
      return response.stream.pipe(
        Stream.decodeText,
        Stream.runForEach((text) => readingExport(() => reader.push(text))),
        Effect.andThen(readingExport(reader.end))
      )
    })

// ---------------------------------------------------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------------------------------------------------

/** PowerDNS's form of a name in a path: `=2F` stands for the `/` of a classless reverse zone. */
const zonePath = (zone: DomainName.DomainName): string =>
  `/zones/${zone.replace(/[^a-z0-9._-]/g, (c) => `=${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`)}`

/** PowerDNS 4.7 takes a negative TTL and serves it as 136 years; PostgreSQL then answers 500. */
const ttlSecondsMax = 2_147_483_647

/** What no PowerDNS should be asked, in its own words; versions and backends differ in how they take it. */
export const refusal = (zone: DomainName.DomainName, change: RRset.RRsetChange): string | undefined => {
  const name = RRset.changedName(change)
  const type = change._tag === "Replace" ? change.rrset.type : change.type
  if (!DomainName.isWithin(name, zone)) return `RRset ${name} IN ${type}: Name is out of zone`
  if (change._tag === "Delete") return undefined
  const { ttlSeconds } = change.rrset
  return Number.isInteger(ttlSeconds) && ttlSeconds >= 0 && ttlSeconds <= ttlSecondsMax
    ? undefined
    : `RRset ${name} IN ${type}: TTL ${ttlSeconds} is not between 0 and ${ttlSecondsMax}`
}

const patchBody = (changes: ReadonlyArray<RRset.RRsetChange>): string => {
  const deletions: Array<unknown> = []
  const replacements: Array<unknown> = []
  for (const change of changes) {
    if (change._tag === "Delete") {
      deletions.push({ name: change.name, type: change.type, changetype: "DELETE" })
    } else {
      const { contents, name, ttlSeconds, type } = change.rrset
      const disabled = change.disabled === true
      const records = contents.map((content) => ({ content, disabled }))
      replacements.push({ name, type, ttl: ttlSeconds, changetype: "REPLACE", records })
    }
  }
  return JSON.stringify({ rrsets: [...deletions, ...replacements] })
}

/**
 * Whether to read the whole zone rather than ask name by name. Measured on 4.7.3, sqlite and lmdb, zones of 10,000 and
 * 100,000 records: a name costs 1 to 1.5 ms, an export 1 to 2 µs per record with the reading of it. A zone not yet read
 * counts as small, and is measured by reading it.
 */
export const readsWholeZone = (nameCount: number, zoneRecordCount: number | undefined): boolean =>
  nameCount > 4 && nameCount * 1000 >= (zoneRecordCount ?? 0)

/** What an export without an SOA is: no zone, or only a part of one. */
export const noSoa = new Malformed({ status: 200, detail: "the export of the zone has no SOA record" })

const make = Effect.fnUntraced(function* (options: PowerDnsHttp.Options) {
  const { connectionsMax, send, stream } = yield* PowerDnsHttp.make(options)
  const { node } = options
  /** Records of each zone when it was last read whole. */
  const recordCounts = new Map<DomainName.DomainName, number>()

  const server = send({ operation: "server", method: "GET", path: "", repeat: "read", read: readServer }).pipe(
    Effect.map(({ version }): ServerInfo => ({ version })),
    Effect.withSpan("PowerDnsClient.server", { attributes: { node } })
  )

  const listZones = send({
    operation: "listZones",
    method: "GET",
    path: "/zones?dnssec=false", // saves a look-up per zone
    repeat: "read",
    read: readZoneList
  }).pipe(
    Effect.map((zones) =>
      zones.map(({ kind, name, serial }): ZoneSummary => ({
        name: name.toLowerCase() as DomainName.DomainName,
        kind,
        serial
      }))
    ),
    Effect.withSpan("PowerDnsClient.listZones", { attributes: { node } })
  )

  const getZone = (operation: string, zone: DomainName.DomainName) =>
    send({ operation, method: "GET", path: `${zonePath(zone)}?rrsets=false`, repeat: "read", read: readZone }).pipe(
      Effect.map((found): ZoneInfo => ({
        name: zone,
        kind: found.kind,
        serial: found.serial,
        dnssec: found.dnssec,
        nsec3Narrow: found.nsec3narrow,
        soaEditApi: found.soa_edit_api,
        apiRectify: found.api_rectify
      }))
    )

  const findZone = Effect.fn("PowerDnsClient.findZone")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    return yield* getZone("findZone", zone).pipe(
      Effect.map(Option.some),
      Effect.catchIf(
        ({ reason }) => reason._tag === "NotFound",
        () => Effect.succeedNone
      )
    )
  })

  const createZone = Effect.fn("PowerDnsClient.createZone")(function* (zone: ZoneCreation) {
    yield* Effect.annotateCurrentSpan({ node, zone: zone.name })
    yield* send({
      operation: "createZone",
      method: "POST",
      path: "/zones?rrsets=false",
      body: JSON.stringify({
        name: zone.name,
        kind: zone.kind,
        nameservers: zone.nameservers,
        soa_edit_api: "INCREASE",
        api_rectify: false
      }),
      repeat: "once",
      read: readNothing
    })
  })

  const deleteZone = Effect.fn("PowerDnsClient.deleteZone")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    recordCounts.delete(zone)
    yield* send({
      operation: "deleteZone",
      method: "DELETE",
      path: zonePath(zone),
      repeat: "once",
      read: readNothing
    })
  })

  const configureZone = Effect.fn("PowerDnsClient.configureZone")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    const found = yield* getZone("configureZone", zone)
    const wanted = {
      ...(found.soaEditApi === "INCREASE" || found.soaEditApi === "DEFAULT" ? {} : { soa_edit_api: "INCREASE" }),
      ...(found.apiRectify && (!found.dnssec || found.nsec3Narrow) ? { api_rectify: false } : {})
    }
    if (Object.keys(wanted).length === 0) return
    yield* send({
      operation: "configureZone",
      method: "PUT",
      path: zonePath(zone),
      body: JSON.stringify(wanted),
      repeat: "write",
      read: readNothing
    })
  })

  const readWhole = (
    operation: string,
    zone: DomainName.DomainName,
    names: ReadonlySet<DomainName.DomainName> | undefined
  ) =>
    send({
      operation,
      method: "GET",
      path: `${zonePath(zone)}/export`,
      repeat: "read",
      read: readExport(names)
    }).pipe(
      Effect.map(({ recordCount, rrsets }) => {
        recordCounts.set(zone, recordCount)
        return rrsets
      })
    )

  const readName = (zone: DomainName.DomainName, name: DomainName.DomainName) =>
    send({
      operation: "rrsets",
      method: "GET",
      path: `${zonePath(zone)}?rrset_name=${encodeURIComponent(name)}`,
      repeat: "read",
      read: readZoneRecords
    }).pipe(
      Effect.map(({ rrsets }) =>
        rrsets.flatMap(({ records, ttl, type, ...rrset }) => {
          const contents = records.filter(({ disabled }) => disabled !== true).map(({ content }) => content)
          // a server that ignored the filter would otherwise answer with the whole zone
          return contents.length === 0 || rrset.name.toLowerCase() !== name
            ? []
            : [RRset.make(name, type, ttl, contents)]
        })
      )
    )

  const rrsets = Effect.fn("PowerDnsClient.rrsets")(function* (
    zone: DomainName.DomainName,
    names: ReadonlyArray<DomainName.DomainName>
  ) {
    const wanted = new Set(names)
    yield* Effect.annotateCurrentSpan({ node, zone, names: wanted.size })
    return readsWholeZone(wanted.size, recordCounts.get(zone))
      ? yield* readWhole("rrsets", zone, wanted)
      : (yield* Effect.forEach(wanted, (name) => readName(zone, name), { concurrency: connectionsMax })).flat()
  })

  const exportZone = Effect.fn("PowerDnsClient.exportZone")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    return yield* readWhole("exportZone", zone, undefined)
  })

  const records = (zone: DomainName.DomainName) =>
    Stream.suspend(() => {
      const reader = PowerDnsZoneFile.makeRecordReader()
      const failed = (reason: Reason) => new PowerDnsError({ node, operation: "records", reason })
      const reading = <A>(f: () => A) =>
        Effect.mapError(readingExport(f), ({ detail }) => failed(new Malformed({ status: 200, detail })))
      const end = Effect.flatMap(reading(reader.end), ({ hasSoa, recordCount, records }) => {
        if (!hasSoa) return Effect.fail(failed(noSoa))
        recordCounts.set(zone, recordCount)
        return Effect.succeed(records)
      })
      return stream({ operation: "records", path: `${zonePath(zone)}/export` }).pipe(
        Stream.decodeText,
        Stream.mapEffect((text) => reading(() => reader.push(text))),
        Stream.concat(Stream.fromEffect(end)),
        Stream.filter((records) => records.length > 0)
      )
    })

  const patch = Effect.fn("PowerDnsClient.patch")(function* (
    zone: DomainName.DomainName,
    changes: ReadonlyArray<RRset.RRsetChange>
  ) {
    yield* Effect.annotateCurrentSpan({ node, zone, changes: changes.length })
    if (changes.length === 0) return
    for (const change of changes) {
      const detail = refusal(zone, change)
      if (detail !== undefined) {
        yield* new PowerDnsError({ node, operation: "patch", reason: new Refused({ detail }) })
      }
    }
    yield* send({
      operation: "patch",
      method: "PATCH",
      path: zonePath(zone),
      body: patchBody(changes),
      repeat: "write",
      read: readNothing
    })
  })

  const flush = Effect.fn("PowerDnsClient.flush")(function* (name: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, name })
    yield* send({
      operation: "flush",
      method: "PUT",
      path: `/cache/flush?domain=${encodeURIComponent(name)}`,
      repeat: "read",
      read: readNothing
    })
  })

  const zoneCommand = (operation: "notify" | "rectify") =>
    Effect.fn(`PowerDnsClient.${operation}`)(function* (zone: DomainName.DomainName) {
      yield* Effect.annotateCurrentSpan({ node, zone })
      yield* send({
        operation,
        method: "PUT",
        path: `${zonePath(zone)}/${operation}`,
        repeat: operation === "notify" ? "read" : "write",
        read: readNothing
      })
    })

  const getMetadata = Effect.fn("PowerDnsClient.getMetadata")(function* (zone: DomainName.DomainName, kind: string) {
    yield* Effect.annotateCurrentSpan({ node, zone, kind })
    const { metadata } = yield* send({
      operation: "getMetadata",
      method: "GET",
      path: `${zonePath(zone)}/metadata/${encodeURIComponent(kind)}`,
      repeat: "read",
      read: readMetadata
    })
    return metadata
  })

  const setMetadata = Effect.fn("PowerDnsClient.setMetadata")(function* (
    zone: DomainName.DomainName,
    kind: string,
    values: ReadonlyArray<string>
  ) {
    yield* Effect.annotateCurrentSpan({ node, zone, kind })
    yield* send({
      operation: "setMetadata",
      method: "PUT",
      path: `${zonePath(zone)}/metadata/${encodeURIComponent(kind)}`,
      body: JSON.stringify({ metadata: values }),
      repeat: "write",
      read: readNothing
    })
  })

  return PowerDnsClient.of({
    node,
    server,
    listZones,
    findZone,
    createZone,
    deleteZone,
    configureZone,
    rrsets,
    exportZone,
    records,
    patch,
    flush,
    notify: zoneCommand("notify"),
    rectify: zoneCommand("rectify"),
    getMetadata,
    setMetadata
  })
})
