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
import { Clock, Context, Effect, Layer, Option, Redacted, Result, Schema, Stream } from "effect"
import type { HttpClient, HttpClientResponse } from "effect/http"
import { CircuitBreaker } from "effect/persistence"
import * as DomainName from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"
import { Conflict, Malformed, PowerDnsError, type Reason, Refused } from "./PowerDnsError.ts"
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
  /** `IP:port` of the servers it is fetched from, if it is a secondary. */
  readonly masters: ReadonlyArray<string>
  /** The catalog zone it is a member of. */
  readonly catalog: DomainName.DomainName | undefined
  /** TSIG keys by which others may fetch it from here. */
  readonly primaryKeys: ReadonlyArray<DomainName.DomainName>
  /** TSIG keys with which it is fetched. */
  readonly secondaryKeys: ReadonlyArray<DomainName.DomainName>
}

/**
 * - `Native`: its servers share a database.
 * - `Master`: others fetch it from here; `Slave`: fetched from its masters.
 * - `Producer`, `Consumer`: the same for a catalog zone (RFC 9432), which says what zones there are.
 */
export type ZoneKind = "Native" | "Master" | "Slave" | "Producer" | "Consumer"

/**
 * How a signed zone proves that a name does not exist. The key, ECDSA P-256, is PowerDNS's default.
 * - `narrow`: made up as asked (NSEC3 narrow). A change costs no more than unsigned, but PowerDNS refuses AXFR of such
 *   a zone: only for servers that share a database.
 * - `chain`: a chain of NSEC3 that can be transferred. PowerDNS rebuilds it at each change, 3 to 4 µs per record in the
 *   zone (API-RECTIFY on). SOA-EDIT is INCREMENT-WEEKS, so that secondaries see each change and each new signature.
 */
export type Denial = "narrow" | "chain"

/** What a zone should be like; what is left out stays as it is. */
export interface ZoneSettings {
  readonly kind?: ZoneKind
  /** `IP:port` or `[IPv6]:port` of the servers it is fetched from. */
  readonly masters?: ReadonlyArray<string>
  /** The catalog zone it belongs to; it need not exist. */
  readonly catalog?: DomainName.DomainName
  /** TSIG keys by which others may fetch it; they come beside those it has. The server must know them. */
  readonly primaryKeys?: ReadonlyArray<DomainName.DomainName>
  /** TSIG keys with which it is fetched, instead of those it has. The server must know them. */
  readonly secondaryKeys?: ReadonlyArray<DomainName.DomainName>
  /** Signs it. A zone that is signed already keeps its key, and changes from `narrow` to `chain` only. */
  readonly dnssec?: Denial
}

export interface ZoneCreation extends ZoneSettings {
  readonly name: DomainName.DomainName
  readonly kind: ZoneKind
  /** The first is the primary of its SOA too. */
  readonly nameservers: ReadonlyArray<DomainName.DomainName>
}

/** A key that signs transfers (RFC 8945). */
export interface TsigKey {
  readonly name: DomainName.DomainName
  /** For example `hmac-sha256`. */
  readonly algorithm: string
  /** Base64. */
  readonly secret: Redacted.Redacted
}

/** A key that signs a zone. */
export interface ZoneKey {
  readonly id: number
  /** `csk`, `ksk` or `zsk`. */
  readonly type: string
  readonly active: boolean
  /** Contents of its DNSKEY record: flags, protocol, algorithm, public key. */
  readonly dnskey: string
  /** Contents of the DS records that the parent zone may have for it, one for each digest; none for a `zsk`. */
  readonly ds: ReadonlyArray<string>
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
     * Gives an existing zone the settings that `createZone` gives a new one, and those `wanted`, where they differ.
     * SOA-EDIT-API `DEFAULT` stays, since it too raises the serial each time; so does API-RECTIFY on a signed zone that
     * needs it.
     */
    readonly configureZone: (zone: DomainName.DomainName, wanted?: ZoneSettings) => Effect.Effect<void, PowerDnsError>
    /**
     * The RRsets that the server holds at `names`, of every type; a name without records is simply absent. Disabled
     * records are absent too: they are not served. Asks name by name, `connectionsMax` at once, or reads the zone once where
     * that is cheaper (`readsWholeZone`): by its size when it was last read whole, or `recordsAtLeast`, if that is more.
     */
    readonly rrsets: (
      zone: DomainName.DomainName,
      names: ReadonlyArray<DomainName.DomainName>,
      recordsAtLeast?: number
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
    /** Fetches a zone (or catalog) from its masters, soon, whatever its serial; PowerDNS does it in the background. */
    readonly axfrRetrieve: (zone: DomainName.DomainName) => Effect.Effect<void, PowerDnsError>
    /** The keys that sign a zone; empty for an unsigned one. */
    readonly zoneKeys: (zone: DomainName.DomainName) => Effect.Effect<ReadonlyArray<ZoneKey>, PowerDnsError>
    /**
     * Creates a TSIG key. Fails with `Conflict` when the server has one of that name with another secret or algorithm:
     * somebody else may be using that.
     */
    readonly ensureTsigKey: (key: TsigKey) => Effect.Effect<void, PowerDnsError>
    /** The settings the server runs with, by name; it leaves passwords out by itself. */
    readonly serverConfiguration: Effect.Effect<ReadonlyMap<string, string>, PowerDnsError>
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
  api_rectify: Schema.Boolean,
  masters: Schema.optionalKey(Schema.Array(Schema.String)),
  catalog: Schema.optionalKey(Schema.String),
  master_tsig_key_ids: Schema.optionalKey(Schema.Array(Schema.String)),
  slave_tsig_key_ids: Schema.optionalKey(Schema.Array(Schema.String))
})

const ZoneKeys = Schema.Array(
  Schema.Struct({
    id: Schema.Finite,
    keytype: Schema.String,
    active: Schema.Boolean,
    dnskey: Schema.String,
    ds: Schema.optionalKey(Schema.Array(Schema.String))
  })
)

const StoredTsigKey = Schema.Struct({ algorithm: Schema.String, key: Schema.String })

const Configuration = Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String }))

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
const readZoneKeys = json(ZoneKeys)
const readTsigKey = json(StoredTsigKey)
const readConfiguration = json(Configuration)

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
const idOf = (name: DomainName.DomainName): string =>
  name.replace(/[^a-z0-9._-]/g, (c) => `=${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`)

const zonePath = (zone: DomainName.DomainName): string => `/zones/${idOf(zone)}`

const asName = (text: string): DomainName.DomainName => {
  const lower = text.toLowerCase()
  return (lower.endsWith(".") ? lower : `${lower}.`) as DomainName.DomainName
}

const isSecondary = (kind: string): boolean => kind === "Slave" || kind === "Consumer"

/**
 * Contents of the SOA of a new zone: of the placeholder kind that PowerDNS itself would write nothing is right but the
 * times. The serial is the time, so that a zone that is made again is newer than what secondaries had of it.
 */
export const soaContent = (
  zone: DomainName.DomainName,
  nameservers: ReadonlyArray<DomainName.DomainName>,
  serial: number
): string => {
  // Above a label that no host may have, like `0/26`.
  const labels = zone.split(".")
  const host = labels.slice(labels.findLastIndex((label) => /[^a-z0-9-]/.test(label)) + 1).join(".")
  // The last figure is how long "no such name" is cached.
  return `${nameservers[0] ?? `ns1.${host}`} hostmaster.${host} ${serial} 10800 3600 604800 60`
}

/** PowerDNS tells an address with port 53 without it. */
const withoutDefaultPort = (text: string): string =>
  /^\[(.*)\](?::53)?$/.exec(text)?.[1] ?? text.replace(/^([\d.]+):53$/, "$1")

/** What of `wanted` a zone lacks, by PowerDNS's names; empty when nothing. */
export const missingSettings = (found: ZoneInfo, wanted: ZoneSettings): Readonly<Record<string, unknown>> => {
  const kind = wanted.kind ?? found.kind
  const isChainWanted = wanted.dnssec === "chain" && (!found.dnssec || found.nsec3Narrow)
  const isNarrowWanted = wanted.dnssec === "narrow" && !found.dnssec
  const needsRectify = isChainWanted || (found.dnssec && !found.nsec3Narrow)
  const keys = new Set([...found.primaryKeys, ...(wanted.primaryKeys ?? [])])
  const differs = (a: ReadonlyArray<string>, b: ReadonlyArray<string> | undefined) =>
    b !== undefined && a.map(withoutDefaultPort).sort().join() !== b.map(withoutDefaultPort).sort().join()
  return {
    ...(kind === found.kind ? {} : { kind }),
    ...(differs(found.masters, wanted.masters) ? { masters: wanted.masters } : {}),
    ...(wanted.catalog === undefined || wanted.catalog === found.catalog ? {} : { catalog: wanted.catalog }),
    ...(keys.size === found.primaryKeys.length ? {} : { master_tsig_key_ids: [...keys] }),
    ...(differs(found.secondaryKeys, wanted.secondaryKeys) ? { slave_tsig_key_ids: wanted.secondaryKeys } : {}),
    // A secondary has its serial and its signatures from its primary.
    ...(isSecondary(kind) || found.soaEditApi === "INCREASE" || found.soaEditApi === "DEFAULT"
      ? {}
      : { soa_edit_api: "INCREASE" }),
    ...(isChainWanted || isNarrowWanted ? { dnssec: true, nsec3param: "1 0 0 -", nsec3narrow: isNarrowWanted } : {}),
    ...(isChainWanted ? { soa_edit: "INCREMENT-WEEKS", api_rectify: true } : {}),
    ...(found.apiRectify && !needsRectify && !isSecondary(kind) ? { api_rectify: false } : {})
  }
}

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
 * Records of a zone that are read whole in the time of one name asked by itself. Between the backends, measured on 4.7.3 with
 * zones of 1,000 to 100,000 records: a name, four at once, costs 0.8 to 1 ms on sqlite and lmdb whatever the size of the zone,
 * and 4 ms on PostgreSQL; an export 1 to 2 µs per record with the reading of it.
 */
export const recordsPerName = 500

/** So few names are always asked by themselves. */
const namesSinglyMax = 4

/** Whether to read the whole zone rather than ask name by name. A zone of unknown size counts as small, and is measured by reading it. */
export const readsWholeZone = (nameCount: number, zoneRecordCount: number | undefined): boolean =>
  nameCount > namesSinglyMax && nameCount * recordsPerName >= (zoneRecordCount ?? 0)

/** What an export without an SOA is: no zone, or only a part of one. */
export const noSoa = new Malformed({ status: 200, detail: "the export of the zone has no SOA record" })

/** Without telling either. Base64 may have been broken into pieces. */
export const isSameTsigKey = (
  wanted: Pick<TsigKey, "algorithm" | "secret">,
  found: Pick<TsigKey, "algorithm" | "secret">
): boolean => {
  const bytes = (key: Pick<TsigKey, "secret">) => Redacted.value(key.secret).replace(/[\s=]/g, "")
  const algorithm = (key: Pick<TsigKey, "algorithm">) => key.algorithm.toLowerCase().replace(/\.$/, "")
  return algorithm(wanted) === algorithm(found) && bytes(wanted) === bytes(found)
}

export const otherTsigKey = (name: DomainName.DomainName) =>
  new Conflict({ detail: `the server has a TSIG key ${name} with another secret or algorithm` })

export const soaTtlSeconds = 3600

/** Seconds since 1970, never 0. */
export const newSerial = Effect.map(Clock.currentTimeMillis, (millis) => Math.max(1, Math.floor(millis / 1000)))

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
        apiRectify: found.api_rectify,
        masters: found.masters ?? [],
        catalog: found.catalog === undefined || found.catalog === "" ? undefined : asName(found.catalog),
        primaryKeys: (found.master_tsig_key_ids ?? []).map(asName),
        secondaryKeys: (found.slave_tsig_key_ids ?? []).map(asName)
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
        ...(zone.masters === undefined ? {} : { masters: zone.masters }),
        ...(zone.catalog === undefined ? {} : { catalog: zone.catalog }),
        ...(zone.primaryKeys === undefined ? {} : { master_tsig_key_ids: zone.primaryKeys }),
        ...(zone.secondaryKeys === undefined ? {} : { slave_tsig_key_ids: zone.secondaryKeys }),
        ...(isSecondary(zone.kind)
          ? {}
          : {
              rrsets: [
                {
                  name: zone.name,
                  type: "SOA",
                  ttl: soaTtlSeconds,
                  records: [{ content: soaContent(zone.name, zone.nameservers, yield* newSerial) }]
                }
              ],
              soa_edit_api: "INCREASE",
              api_rectify: zone.dnssec === "chain"
            }),
        ...(zone.dnssec === undefined
          ? {}
          : { dnssec: true, nsec3param: "1 0 0 -", nsec3narrow: zone.dnssec === "narrow" }),
        ...(zone.dnssec === "chain" ? { soa_edit: "INCREMENT-WEEKS" } : {})
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

  const configureZone = Effect.fn("PowerDnsClient.configureZone")(function* (
    zone: DomainName.DomainName,
    wanted: ZoneSettings = {}
  ) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    const missing = missingSettings(yield* getZone("configureZone", zone), wanted)
    if (Object.keys(missing).length === 0) return
    yield* send({
      operation: "configureZone",
      method: "PUT",
      path: zonePath(zone),
      body: JSON.stringify(missing),
      repeat: "write",
      read: readNothing
    })
    // The chain is there before anyone asks for it.
    if (missing["dnssec"] === true && missing["nsec3narrow"] === false) yield* rectify(zone)
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
    names: ReadonlyArray<DomainName.DomainName>,
    recordsAtLeast?: number
  ) {
    const wanted = new Set(names)
    yield* Effect.annotateCurrentSpan({ node, zone, names: wanted.size })
    return readsWholeZone(wanted.size, Math.max(recordsAtLeast ?? 0, recordCounts.get(zone) ?? 0))
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

  const rectify = zoneCommand("rectify")

  const axfrRetrieve = Effect.fn("PowerDnsClient.axfrRetrieve")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    yield* send({
      operation: "axfrRetrieve",
      method: "PUT",
      path: `${zonePath(zone)}/axfr-retrieve`,
      repeat: "read",
      read: readNothing
    })
  })

  const zoneKeys = Effect.fn("PowerDnsClient.zoneKeys")(function* (zone: DomainName.DomainName) {
    yield* Effect.annotateCurrentSpan({ node, zone })
    const keys = yield* send({
      operation: "zoneKeys",
      method: "GET",
      path: `${zonePath(zone)}/cryptokeys`,
      repeat: "read",
      read: readZoneKeys
    })
    return keys.map(({ active, dnskey, ds, id, keytype }): ZoneKey => ({
      id,
      type: keytype,
      active,
      dnskey,
      ds: ds ?? []
    }))
  })

  const ensureTsigKey = Effect.fn("PowerDnsClient.ensureTsigKey")(function* (key: TsigKey) {
    yield* Effect.annotateCurrentSpan({ node, key: key.name })
    const { algorithm, name, secret } = key
    const operation = "ensureTsigKey"
    const find = send({ operation, method: "GET", path: `/tsigkeys/${idOf(name)}`, repeat: "read", read: readTsigKey })
    const create = send({
      operation,
      method: "POST",
      path: "/tsigkeys",
      body: JSON.stringify({ name, algorithm, key: Redacted.value(secret) }),
      repeat: "once",
      read: readNothing
    }).pipe(
      Effect.mapError((error) =>
        // PowerDNS quotes a key that is no base64.
        error.reason._tag === "Refused"
          ? new PowerDnsError({ node, operation, reason: new Refused({ detail: `the TSIG key ${name} is not valid` }) })
          : error
      )
    )
    const isReason = (tag: Reason["_tag"]) => (error: PowerDnsError) => error.reason._tag === tag
    // Made by another in between, it is compared after all.
    const made = create.pipe(
      Effect.as(undefined),
      Effect.catchIf(isReason("Conflict"), () => find)
    )
    const found = yield* Effect.catchIf(find, isReason("NotFound"), () => made)
    if (found === undefined || isSameTsigKey(key, { algorithm: found.algorithm, secret: Redacted.make(found.key) }))
      return
    yield* new PowerDnsError({ node, operation, reason: otherTsigKey(name) })
  })

  const serverConfiguration = send({
    operation: "serverConfiguration",
    method: "GET",
    path: "/config",
    repeat: "read",
    read: readConfiguration
  }).pipe(
    Effect.map((settings): ReadonlyMap<string, string> => new Map(settings.map(({ name, value }) => [name, value]))),
    Effect.withSpan("PowerDnsClient.serverConfiguration", { attributes: { node } })
  )

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
    rectify,
    axfrRetrieve,
    zoneKeys,
    ensureTsigKey,
    serverConfiguration,
    getMetadata,
    setMetadata
  })
})
