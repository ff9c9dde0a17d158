/**
 * PowerDNS in memory, for tests and simulations: the contract of
 * `PowerDnsClient` with the behaviour of a real server, and faults by name.
 *
 * Promises: what a real server refuses is refused here, in its words, and a
 * refused PATCH changes nothing; it passes the suite of the real one. Leaves
 * to others: answering DNS, and the retries, limits and circuit of the real
 * client: a fault set here is what the caller of the client sees.
 */
import { Context, Duration, Effect, Layer, Option, Result, Stream } from "effect"
import * as DomainName from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as RRset from "../domain/RRset.ts"
import * as Serial from "../domain/Serial.ts"
import {
  isSameTsigKey,
  missingSettings,
  newSerial,
  noSoa,
  otherTsigKey,
  PowerDnsClient,
  refusal,
  soaContent,
  soaTtlSeconds,
  type TsigKey,
  type ZoneInfo,
  type ZoneKey,
  type ZoneSettings
} from "./PowerDnsClient.ts"
import { Conflict, NotFound, PowerDnsError, type Reason, Refused, Uncertain, Unreachable } from "./PowerDnsError.ts"
import type { RawRecord } from "./PowerDnsZoneFile.ts"

/** The name of a method of `PowerDnsClient`. */
export type Operation = Exclude<keyof PowerDnsClient["Service"], "node">

/** One call as it arrived, before any fault. */
export interface Call {
  readonly operation: Operation
  /** The zone, or for `flush` the name. */
  readonly zone?: DomainName.DomainName
  /** Of `patch`. */
  readonly changes?: ReadonlyArray<RRset.RRsetChange>
  /** Of `rrsets`. */
  readonly names?: ReadonlyArray<DomainName.DomainName>
  /** Of `rrsets`. */
  readonly recordsAtLeast?: number | undefined
}

/** How many of the latest calls are kept. */
export const callsMax = 100_000

/** Steers and shows the server behind the `PowerDnsClient` of the same layer. */
export class PowerDnsMemory extends Context.Service<
  PowerDnsMemory,
  {
    /** The next call (of `operation`, if given) fails so and does nothing. May be queued several times. */
    readonly failNext: (reason: Reason, operation?: Operation) => Effect.Effect<void>
    /** The next call (of `operation`, if given) begins this much later. */
    readonly delayNext: (duration: Duration.Input, operation?: Operation) => Effect.Effect<void>
    /** The next call (of `operation`, if given) begins once this is done: what happens while somebody waits for its answer. */
    readonly beforeNext: (work: Effect.Effect<void>, operation?: Operation) => Effect.Effect<void>
    /** The next PATCH is applied, and yet answered by `Uncertain`. */
    readonly applyThenTimeOut: Effect.Effect<void>
    /** From now on every call fails with `Unreachable`. */
    readonly down: Effect.Effect<void>
    readonly up: Effect.Effect<void>
    /** A PATCH that replaces an RRset at `name` is refused with this sentence, until `acceptName`. */
    readonly refuseName: (name: DomainName.DomainName, sentence: string) => Effect.Effect<void>
    readonly acceptName: (name: DomainName.DomainName) => Effect.Effect<void>
    /** Puts an RRset in place as some other writer of the database would: unchecked, the serial stays. */
    readonly put: (zone: DomainName.DomainName, rrset: RRset.RRset) => Effect.Effect<void>
    /** Takes an RRset away as some other writer would. */
    readonly remove: (zone: DomainName.DomainName, name: DomainName.DomainName, type: string) => Effect.Effect<void>
    /** Changes settings of a zone, as someone else has left them. */
    readonly setZone: (
      zone: DomainName.DomainName,
      settings: Partial<Omit<ZoneInfo, "name" | "serial">>
    ) => Effect.Effect<void>
    /** The value of a setting, as `serverConfiguration` gives it. */
    readonly setConfiguration: (name: string, value: string) => Effect.Effect<void>
    /** The latest calls, oldest first, failed ones too. */
    readonly calls: Effect.Effect<ReadonlyArray<Call>>
    readonly forgetCalls: Effect.Effect<void>
  }
>()("@prism-dns/core/powerdns/PowerDnsMemory") {
  /** An empty server: its client, and the handle that steers it. Each use of `layer()` makes another server. */
  static readonly layer = (options?: {
    /** Default `memory`. */
    readonly node?: string
    readonly version?: string
  }): Layer.Layer<PowerDnsClient | PowerDnsMemory> =>
    Layer.effectContext(
      Effect.sync(() => {
        const { client, handle } = make(options?.node ?? "memory", options?.version ?? "4.7.3")
        return Context.make(PowerDnsClient, client).pipe(Context.add(PowerDnsMemory, handle))
      })
    )
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules of PowerDNS
// ---------------------------------------------------------------------------------------------------------------------

interface Held {
  readonly rrset: RRset.RRset
  /** Kept, and neither answered nor shown. */
  readonly disabled: boolean
}

/** RRsets by name and type. */
type Sets = Map<DomainName.DomainName, Map<string, Held>>

const shown = (atName: ReadonlyMap<string, Held> | undefined): ReadonlyArray<RRset.RRset> =>
  [...(atName?.values() ?? [])].flatMap(({ disabled, rrset }) => (disabled ? [] : [rrset]))

const knownTypes = new Set(
  "A AAAA AFSDB ALIAS CAA CDNSKEY CDS CERT CNAME DHCID DNAME DNSKEY DS HINFO HTTPS KEY LOC LUA MX NAPTR NS NSEC3PARAM OPENPGPKEY PTR RP SMIMEA SOA SPF SRV SSHFP SVCB TLSA TXT URI".split(
    " "
  )
)

/** `undefined` when PowerDNS takes the name. */
const nameRefusal = (name: string): string | undefined => {
  if (!name.endsWith(".")) return `DNS Name '${name}' is not canonical`
  const labels = name.slice(0, -1).split(".")
  if (name.length > 254 || labels.some((label) => label === "" || label.length > 63)) {
    return `Unable to parse DNS Name '${name}'`
  }
  return /^[a-z0-9_*/.-]+$/i.test(name) ? undefined : `Name '${name}' contains unsupported characters`
}

const isCanonicalA = (content: string): boolean =>
  Result.match(IpAddress.parse(content), {
    onFailure: () => false,
    onSuccess: (ip) => ip === content && /^[\d.]+$/.test(ip)
  })

/** The content as PowerDNS keeps it, or why it refuses it. */
const parseContent = (name: string, type: string, content: string): Result.Result<string, string> => {
  const invalid = (why: string) => Result.fail(`Record ${name}/${type} '${content}': ${why}`)
  switch (type) {
    case "A":
      if (isCanonicalA(content)) return Result.succeed(content)
      return invalid(
        `Parsing record content (try 'pdnsutil check-zone'): while parsing IP address, expected digits at position 0 in '${content}'`
      )
    case "AAAA": {
      const parsed = IpAddress.parse(content)
      if (!content.includes(":") || Result.isFailure(parsed)) return invalid("Invalid IPv6 address")
      // an IPv4 address in IPv6 is still an AAAA here
      return Result.succeed(parsed.success.includes(":") ? parsed.success : content.toLowerCase())
    }
    case "CNAME":
    case "DNAME":
    case "NS":
    case "PTR":
      if (!content.endsWith(".")) return invalid(`Not in expected format (parsed as '${content}.')`)
      return nameRefusal(content) === undefined
        ? Result.succeed(content)
        : invalid("Parsing record content (try 'pdnsutil check-zone'): the name is invalid")
    case "TXT":
      return /^"(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*")*$/s.test(content)
        ? Result.succeed(content)
        : invalid(`Not in expected format (parsed as '"${content}"')`)
    default:
      return Result.succeed(content)
  }
}

/** One replaced RRset against the zone as it is at that moment; the RRset as kept, or PowerDNS's sentence. */
const checkReplace = (sets: Sets, rrset: RRset.RRset): Result.Result<RRset.RRset, string> => {
  const { contents, name, ttlSeconds, type } = rrset
  if (!knownTypes.has(type) && !/^TYPE\d+$/.test(type)) {
    return Result.fail(`RRset ${name} IN ${type}: unknown type given`)
  }
  const kept: Array<string> = []
  for (const content of contents) {
    const parsed = parseContent(name, type, content)
    if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
    if (kept.includes(parsed.success)) {
      return Result.fail(`Duplicate record in RRset ${name} IN ${type} with content "${content}"`)
    }
    kept.push(parsed.success)
  }
  if ((type === "CNAME" || type === "SOA") && kept.length > 1) {
    return Result.fail(`RRset ${name} IN ${type} has more than one record`)
  }
  const others = shown(sets.get(name)).flatMap((other) => (other.type === type ? [] : [other.type]))
  const conflicts = type === "CNAME" ? others.length > 0 : others.includes("CNAME")
  return conflicts && kept.length > 0
    ? Result.fail(`RRset ${name} IN ${type}: Conflicts with pre-existing RRset`)
    : Result.succeed(RRset.make(name, type, ttlSeconds, kept))
}

const remove = (sets: Sets, name: DomainName.DomainName, type: string) => {
  const atName = sets.get(name)
  atName?.delete(type)
  if (atName?.size === 0) sets.delete(name)
}

const put = (sets: Sets, rrset: RRset.RRset, disabled = false) => {
  const atName = sets.get(rrset.name)
  if (atName === undefined) sets.set(rrset.name, new Map([[rrset.type, { rrset, disabled }]]))
  else atName.set(rrset.type, { rrset, disabled })
}

/** Only the names of a PATCH are copied, so that a refusal leaves no trace and a change costs the same in any zone. */
const apply = (
  zone: DomainName.DomainName,
  sets: Sets,
  changes: ReadonlyArray<RRset.RRsetChange>,
  refusedNames: ReadonlyMap<DomainName.DomainName, string>
): string | undefined => {
  const touched: Sets = new Map()
  for (const change of changes) {
    const name = RRset.changedName(change)
    const atName = sets.get(name)
    if (atName !== undefined) touched.set(name, new Map(atName))
  }
  const seen = new Set<string>()
  const deletionsFirst = [
    ...changes.filter(({ _tag }) => _tag === "Delete"),
    ...changes.filter(({ _tag }) => _tag === "Replace")
  ]
  for (const change of changes) {
    const refused = refusal(zone, change)
    if (refused !== undefined) return refused
  }
  for (const change of deletionsFirst) {
    const name = RRset.changedName(change)
    const type = change._tag === "Replace" ? change.rrset.type : change.type
    const badName = nameRefusal(name)
    if (badName !== undefined) return badName
    const key = `${name} IN ${type}`
    if (seen.has(key)) return `Duplicate RRset ${key} with changetype: ${change._tag.toUpperCase()}`
    seen.add(key)
    if (change._tag === "Delete") {
      remove(touched, name, type)
      continue
    }
    const sentence = refusedNames.get(name)
    if (sentence !== undefined) return sentence
    const checked = checkReplace(touched, change.rrset)
    if (Result.isFailure(checked)) return checked.failure
    if (checked.success.contents.length === 0) remove(touched, name, type)
    else put(touched, checked.success, change.disabled === true)
  }
  for (const change of changes) {
    const name = RRset.changedName(change)
    const atName = touched.get(name)
    if (atName === undefined) sets.delete(name)
    else sets.set(name, atName)
  }
  return undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// The server
// ---------------------------------------------------------------------------------------------------------------------

/** Records in pieces of a size that no set keeps to. */
const pieces = function* (sets: ReadonlyArray<RRset.RRset>): Generator<ReadonlyArray<RawRecord>> {
  let piece: Array<RawRecord> = []
  for (const { contents, name, ttlSeconds, type } of sets) {
    for (const content of contents) {
      piece.push({ name, type, ttlSeconds, content })
      if (piece.length === pieceRecords) {
        yield piece
        piece = []
      }
    }
  }
  if (piece.length > 0) yield piece
}

const pieceRecords = 1000

interface MemoryZone {
  info: ZoneInfo
  readonly sets: Sets
  readonly metadata: Map<string, ReadonlyArray<string>>
}

type Fault =
  | { readonly _tag: "Fail"; readonly reason: Reason; readonly operation: Operation | undefined }
  | { readonly _tag: "Before"; readonly work: Effect.Effect<void>; readonly operation: Operation | undefined }
  | { readonly _tag: "ApplyThenTimeOut"; readonly operation: "patch" }

const make = (node: string, version: string) => {
  const zones = new Map<DomainName.DomainName, MemoryZone>()
  const refusedNames = new Map<DomainName.DomainName, string>()
  const calls: Array<Call> = []
  let faults: Array<Fault> = []
  let isDown = false

  const takeFault = <Tag extends Fault["_tag"]>(tag: Tag, operation: Operation) => {
    const found = faults.find(
      (fault): fault is Extract<Fault, { _tag: Tag }> =>
        fault._tag === tag && (fault.operation === undefined || fault.operation === operation)
    )
    if (found !== undefined) faults = faults.filter((fault) => fault !== found)
    return found
  }

  /** A call: its faults first, then its work, in one step. */
  const answer = <A>(call: Call, work: () => Result.Result<A, Reason>): Effect.Effect<A, PowerDnsError> =>
    Effect.suspend(() => {
      calls.push(call)
      if (calls.length > callsMax) calls.shift()
      const { operation } = call
      const fail = (reason: Reason) => Effect.fail(new PowerDnsError({ node, operation, reason }))
      const before = takeFault("Before", operation)
      const rest = Effect.suspend(() => {
        if (isDown) return fail(new Unreachable({ detail: "cannot connect (ECONNREFUSED: the server is down)" }))
        const failure = takeFault("Fail", operation)
        if (failure !== undefined) return fail(failure.reason)
        const result = work()
        if (Result.isFailure(result)) return fail(result.failure)
        return takeFault("ApplyThenTimeOut", operation) === undefined
          ? Effect.succeed(result.success)
          : fail(new Uncertain({ detail: "no answer within 10s" }))
      })
      return before === undefined ? rest : Effect.andThen(before.work, rest)
    })

  const inZone =
    <A>(name: DomainName.DomainName, f: (zone: MemoryZone) => Result.Result<A, Reason>) =>
    (): Result.Result<A, Reason> => {
      const zone = zones.get(name)
      return zone === undefined ? Result.fail(new NotFound({ detail: "Not Found" })) : f(zone)
    }

  const configuration = new Map([
    ["version-string", version],
    ["default-api-rectify", "no"]
  ])
  const tsigKeys = new Map<DomainName.DomainName, TsigKey>()

  /** Every zone's key is another, and the same each time. */
  const zoneKeyOf = (name: DomainName.DomainName): ZoneKey => {
    const dnskey = `257 3 13 ${btoa(name.padEnd(64, "=").slice(0, 64))}`
    const tag = name.split("").reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) % 65_536, 0)
    return { id: 1, type: "csk", active: true, dnskey, ds: [`${tag} 13 2 ${tag.toString(16).padStart(64, "0")}`] }
  }

  /** A key that the server does not have cannot be given to a zone. */
  const unknownKey = ({ primaryKeys = [], secondaryKeys = [] }: ZoneSettings): Refused | undefined => {
    const unknown = [...primaryKeys, ...secondaryKeys].find((key) => !tsigKeys.has(key))
    return unknown === undefined
      ? undefined
      : new Refused({ detail: `A TSIG key with the name '${unknown.slice(0, -1)}' does not exist` })
  }

  /** The SOA with the zone's serial in it. */
  const raiseSerial = (zone: MemoryZone) => {
    const { name, serial } = zone.info
    const held = zone.sets.get(name)?.get("SOA")
    if (held === undefined) return
    const { contents, ttlSeconds } = held.rrset
    put(zone.sets, RRset.make(name, "SOA", ttlSeconds, [Serial.inSoa(contents[0]!, serial)]))
  }

  const client = PowerDnsClient.of({
    node,
    server: answer({ operation: "server" }, () => Result.succeed({ version })),
    listZones: answer({ operation: "listZones" }, () =>
      Result.succeed(Array.from(zones.values(), ({ info: { kind, name, serial } }) => ({ name, kind, serial })))
    ),
    findZone: (zone) =>
      answer({ operation: "findZone", zone }, () =>
        Result.succeed(Option.map(Option.fromNullishOr(zones.get(zone)), ({ info }) => info))
      ),
    createZone: (wanted) => {
      const { kind, name, nameservers } = wanted
      return Effect.flatMap(newSerial, (serial) =>
        answer({ operation: "createZone", zone: name }, () => {
          if (zones.has(name)) return Result.fail(new Conflict({ detail: "Conflict" }))
          const unknown = unknownKey(wanted)
          if (unknown !== undefined) return Result.fail(unknown)
          const isSecondary = kind === "Slave" || kind === "Consumer"
          const info: ZoneInfo = {
            name,
            kind,
            serial: isSecondary ? 0 : serial,
            dnssec: wanted.dnssec !== undefined,
            nsec3Narrow: wanted.dnssec === "narrow",
            soaEditApi: isSecondary ? "" : "INCREASE",
            apiRectify: wanted.dnssec === "chain",
            masters: wanted.masters ?? [],
            catalog: wanted.catalog,
            primaryKeys: wanted.primaryKeys ?? [],
            secondaryKeys: wanted.secondaryKeys ?? []
          }
          const sets: Sets = new Map()
          if (!isSecondary) put(sets, RRset.make(name, "SOA", soaTtlSeconds, [soaContent(name, nameservers, serial)]))
          if (nameservers.length > 0) put(sets, RRset.make(name, "NS", soaTtlSeconds, nameservers))
          zones.set(name, { info, sets, metadata: new Map() })
          return Result.void
        })
      )
    },
    deleteZone: (name) =>
      answer(
        { operation: "deleteZone", zone: name },
        inZone(name, () => {
          zones.delete(name)
          return Result.void
        })
      ),
    configureZone: (name, wanted = {}) =>
      answer(
        { operation: "configureZone", zone: name },
        inZone(name, (zone) => {
          const unknown = unknownKey(wanted)
          if (unknown !== undefined) return Result.fail(unknown)
          const missing = missingSettings(zone.info, wanted)
          zone.info = {
            ...zone.info,
            kind: wanted.kind ?? zone.info.kind,
            masters: wanted.masters ?? zone.info.masters,
            catalog: wanted.catalog ?? zone.info.catalog,
            primaryKeys: [...new Set([...zone.info.primaryKeys, ...(wanted.primaryKeys ?? [])])],
            secondaryKeys: wanted.secondaryKeys ?? zone.info.secondaryKeys,
            ...("soa_edit_api" in missing ? { soaEditApi: "INCREASE" } : {}),
            ...("dnssec" in missing ? { dnssec: true, nsec3Narrow: missing["nsec3narrow"] === true } : {}),
            ...("api_rectify" in missing ? { apiRectify: missing["api_rectify"] === true } : {})
          }
          return Result.void
        })
      ),
    rrsets: (name, names, recordsAtLeast) =>
      answer(
        { operation: "rrsets", zone: name, names, recordsAtLeast },
        inZone(name, ({ sets }) => Result.succeed([...new Set(names)].flatMap((each) => shown(sets.get(each)))))
      ),
    exportZone: (name) =>
      answer(
        { operation: "exportZone", zone: name },
        inZone(name, ({ sets }) => Result.succeed(Array.from(sets.values(), shown).flat()))
      ),
    records: (zone) =>
      Stream.unwrap(
        Effect.map(
          answer(
            { operation: "records", zone },
            inZone(zone, ({ sets }) => {
              const held = Array.from(sets.values(), shown).flat()
              return held.some(({ type }) => type === "SOA") ? Result.succeed(held) : Result.fail(noSoa)
            })
          ),
          (held) => Stream.rechunk(Stream.fromIterable(pieces(held)), 1)
        )
      ),
    patch: (name, changes) => {
      if (changes.length === 0) return Effect.void
      return answer(
        { operation: "patch", zone: name, changes },
        inZone(name, (zone) => {
          const detail = apply(name, zone.sets, changes, refusedNames)
          if (detail !== undefined) return Result.fail(new Refused({ detail }))
          // Of an SOA that is sent along it is the serial in it that is raised.
          const [sent] = changes.flatMap((change) =>
            change._tag === "Replace" && change.rrset.type === "SOA" ? change.rrset.contents : []
          )
          const serial = Serial.ofSoa(sent) ?? zone.info.serial
          zone.info = { ...zone.info, serial: zone.info.soaEditApi === "" ? serial : Serial.next(serial) }
          raiseSerial(zone)
          return Result.void
        })
      )
    },
    flush: (name) => answer({ operation: "flush", zone: name }, () => Result.void),
    notify: (name) =>
      answer(
        { operation: "notify", zone: name },
        inZone(name, () => Result.void)
      ),
    rectify: (name) =>
      answer(
        { operation: "rectify", zone: name },
        inZone(name, () => Result.void)
      ),
    axfrRetrieve: (name) =>
      answer(
        { operation: "axfrRetrieve", zone: name },
        inZone(name, ({ info: { kind } }) =>
          kind === "Slave" || kind === "Consumer"
            ? Result.void
            : Result.fail(
                new Refused({ detail: `Domain '${name}' is not a secondary domain (or has no primary defined)` })
              )
        )
      ),
    zoneKeys: (name) =>
      answer(
        { operation: "zoneKeys", zone: name },
        inZone(name, ({ info }) => Result.succeed(info.dnssec ? [zoneKeyOf(name)] : []))
      ),
    ensureTsigKey: (key) =>
      answer({ operation: "ensureTsigKey" }, () => {
        const found = tsigKeys.get(key.name)
        if (found === undefined) tsigKeys.set(key.name, key)
        return found === undefined || isSameTsigKey(key, found) ? Result.void : Result.fail(otherTsigKey(key.name))
      }),
    serverConfiguration: answer({ operation: "serverConfiguration" }, () => Result.succeed(new Map(configuration))),
    getMetadata: (name, kind) =>
      answer(
        { operation: "getMetadata", zone: name },
        inZone(name, ({ metadata }) => Result.succeed(metadata.get(kind) ?? []))
      ),
    setMetadata: (name, kind, values) =>
      answer(
        { operation: "setMetadata", zone: name },
        inZone(name, ({ metadata }) => {
          if (!kind.startsWith("X-") && kind !== "ALSO-NOTIFY") {
            return Result.fail(new Refused({ detail: `Unsupported metadata kind '${kind}'` }))
          }
          metadata.set(kind, values)
          return Result.void
        })
      )
  })

  /** A test that steers a zone which is not there is wrong itself. */
  const existing = (name: DomainName.DomainName): MemoryZone => {
    const zone = zones.get(name)
    if (zone === undefined) throw new Error(`PowerDnsMemory has no zone ${name}`)
    return zone
  }

  const beforeNext = (work: Effect.Effect<void>, operation?: Operation) =>
    Effect.sync(() => void faults.push({ _tag: "Before", work, operation }))

  const handle = PowerDnsMemory.of({
    failNext: (reason, operation) => Effect.sync(() => void faults.push({ _tag: "Fail", reason, operation })),
    delayNext: (duration, operation) => beforeNext(Effect.sleep(duration), operation),
    beforeNext,
    applyThenTimeOut: Effect.sync(() => void faults.push({ _tag: "ApplyThenTimeOut", operation: "patch" })),
    down: Effect.sync(() => void (isDown = true)),
    up: Effect.sync(() => void (isDown = false)),
    refuseName: (name, sentence) => Effect.sync(() => void refusedNames.set(name, sentence)),
    acceptName: (name) => Effect.sync(() => void refusedNames.delete(name)),
    put: (zone, rrset) => Effect.sync(() => put(existing(zone).sets, rrset)),
    remove: (zone, name, type) => Effect.sync(() => remove(existing(zone).sets, name, type)),
    setZone: (name, settings) =>
      Effect.sync(() => {
        const zone = existing(name)
        zone.info = { ...zone.info, ...settings }
      }),
    setConfiguration: (name, value) => Effect.sync(() => void configuration.set(name, value)),
    calls: Effect.sync(() => [...calls]),
    forgetCalls: Effect.sync(() => void calls.splice(0))
  })

  return { client, handle }
}
