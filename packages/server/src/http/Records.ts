/**
 * Handlers of the records that people manage, of imports and exports.
 *
 * A zone is transferred only from addresses that the configuration names: its
 * nodes, and `powerdns.importFrom`. Names are not resolved for it, so nobody can
 * make this server speak to one address while another was looked at.
 */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import {
  PreconditionFailed,
  type Problem,
  problems,
  RecordConflict,
  RecordNotFound,
  RequestInvalid,
  ZoneNotFound
} from "@prism-dns/core/api/Problems"
import * as Contract from "@prism-dns/core/api/Records"
import { timestamp } from "@prism-dns/core/api/Values"
import { allows } from "@prism-dns/core/auth/Permissions"
import {
  type Change,
  type ManagedRecord,
  ManagedRecords,
  type RecordOutcome,
  type RecordPublication,
  type RecordRefusal
} from "@prism-dns/core/dns/ManagedRecords"
import { type ExportedSet, isApex, ZoneExport } from "@prism-dns/core/dns/ZoneExport"
import * as ZoneFile from "@prism-dns/core/dns/ZoneFile"
import { ZoneImport } from "@prism-dns/core/dns/ZoneImport"
import * as ZoneTransfer from "@prism-dns/core/dns/ZoneTransfer"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import type { RecordType } from "@prism-dns/core/domain/RecordContent"
import type * as RRset from "@prism-dns/core/domain/RRset"
import type { Zone } from "@prism-dns/core/domain/Zone"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Effect, Option, Result, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import type { IpNetwork } from "effect/net"
import { orUnavailable, orUnavailableForZone } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import { toPlan } from "./Plans.ts"
import { sentence } from "./Sentence.ts"

export interface RecordsOptions {
  /** Where zones may be transferred from for an import, besides the nodes. */
  readonly importFrom: ReadonlyArray<IpNetwork.IpNetwork>
}

/** How long `waitFor` waits at the most, in milliseconds. */
const waitMillisMax = 10_000

type Headers = { readonly "if-match"?: string; readonly "if-none-match"?: string }

const plainSet = ({ contents, ttlSeconds }: RRset.RRset) => ({ ttlSeconds, contents })

const toRecord = (record: ManagedRecord, { error, level }: RecordPublication): Contract.RecordSet => ({
  zone: record.zone,
  name: record.name,
  type: record.type as RecordType,
  ttlSeconds: record.ttlSeconds,
  contents: record.contents,
  origin: record.origin,
  changedBy: record.owner,
  changedAt: timestamp(record.sinceMillis),
  generation: record.generation,
  publication: { level, ...(error !== undefined && { error }) }
})

const actions = { created: "create", changed: "update", deleted: "delete" } as const

const planned = (name: DomainName, type: RecordType, outcome: Change): ReadonlyArray<Contract.PlannedSet> =>
  outcome._tag === "Unchanged"
    ? []
    : [
        {
          action: actions[outcome.event],
          name,
          type,
          ...(outcome.before !== undefined && { before: plainSet(outcome.before) }),
          ...(outcome.after !== undefined && { after: plainSet(outcome.after) })
        }
      ]

const zoneNotFound = (zone: string) => new ZoneNotFound({ detail: `${zone} is not a zone that Prism manages.` })

const recordNotFound = (name: string, type: string) =>
  new RecordNotFound({ detail: `People manage no ${type} record set at ${name}.` })

const invalid = (at: "path" | "body", pointer: string, detail: string) =>
  new RequestInvalid({ detail: `${at} ${pointer.slice(1)}: ${detail}`, errors: [{ in: at, pointer, detail }] })

/** Whether a set may be changed, by what the request says it starts from. */
const isExpected =
  ({ "if-match": ifMatch, "if-none-match": ifNoneMatch }: Headers) =>
  (current: ManagedRecord | undefined): boolean => {
    if (ifNoneMatch?.trim() === "*" && current !== undefined) return false
    if (ifMatch === undefined) return current === undefined
    return current !== undefined && EntityTag.matches(ifMatch, current.generation)
  }

/** The problem of a refusal, as one stands alone. */
const problemOf = (error: RecordRefusal): { readonly problem: Problem; readonly detail: string } => {
  switch (error._tag) {
    case "RecordInvalid":
      return { problem: problems.requestInvalid, detail: sentence(error.message) }
    case "RecordConflict":
      return { problem: problems.recordConflict, detail: sentence(error.message) }
    case "RecordNotFound":
      return { problem: problems.recordNotFound, detail: sentence(error.message) }
    case "RecordMoved":
      return { problem: problems.preconditionFailed, detail: sentence(error.message) }
  }
}

/** A cell that no spreadsheet takes for a formula, in quotes where needed (RFC 4180). */
const csvCell = (text: string): string => {
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}

const csvLines = ({ contents, name, origin, ttlSeconds, type }: ExportedSet): string =>
  contents.map((content) => `${[name, type, String(ttlSeconds), content, origin].map(csvCell).join(",")}\r\n`).join("")

const toJson = ({ contents, name, origin, ttlSeconds, type }: ExportedSet): string =>
  JSON.stringify({ name, type, ttlSeconds, contents, origin })

/** The text of an export, piece by piece. */
const written = (
  format: (typeof Contract.exportFormats)[number],
  zone: Zone,
  sets: Stream.Stream<ReadonlyArray<ExportedSet>>
): Stream.Stream<string> => {
  if (format === "csv") {
    const lines = Stream.map(sets, (some) => some.map(csvLines).join(""))
    return Stream.concat(Stream.make("name,type,ttl,content,origin\r\n"), lines)
  }
  if (format === "zonefile") {
    const lines = Stream.map(sets, (some) => some.map(ZoneFile.toLines).join(""))
    return Stream.concat(Stream.make(`; ${zone.name}, as Prism DNS has it\n$ORIGIN ${zone.name}\n`), lines)
  }
  let isFirst = true
  const items = Stream.map(sets, (some) => {
    if (some.length === 0) return ""
    const text = `${isFirst ? "\n" : ",\n"}${some.map(toJson).join(",\n")}`
    isFirst = false
    return text
  })
  return Stream.make(`{"zone":${JSON.stringify(zone.name)},"recordSets":[`).pipe(
    Stream.concat(items),
    Stream.concat(Stream.make("\n]}\n"))
  )
}

const mediaTypes = { zonefile: "text/dns", csv: "text/csv", json: "application/json" } as const

/** `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. */
const parseServer = (text: string): ZoneTransfer.Server | undefined => {
  const match =
    /^(?:\[(?<v6>[0-9a-f:.]+)\](?::(?<port6>\d{1,5}))?|(?<v4>[\d.]+)(?::(?<port4>\d{1,5}))?|(?<bare>[0-9a-f:]+))$/i.exec(
      text
    )
  if (match?.groups === undefined) return undefined
  const { bare, port4, port6, v4, v6 } = match.groups
  const address = Result.getOrUndefined(IpAddress.parse((v6 ?? v4 ?? bare)!))
  const port = Number(port6 ?? port4 ?? 53)
  return address === undefined || port < 1 || port > 65_535 ? undefined : { host: address, port }
}

export const layer = ({ importFrom }: RecordsOptions) =>
  HttpApiBuilder.group(
    Api,
    "records",
    Effect.fnUntraced(function* (handlers) {
      const records = yield* ManagedRecords
      const zones = yield* Zones
      const imports = yield* ZoneImport
      const exports = yield* ZoneExport
      const { all: nodes } = yield* PowerDnsNodes

      /** The zone, unless the caller may see none of its records: then it is as if it were not there. */
      const getZone = Effect.fnUntraced(function* (name: DomainName, at?: DomainName) {
        const zone = zones.find(name)
        const seen = yield* Authorization.scope("read", "records")
        if (zone === undefined || !(at === undefined ? seen.touches(name) : seen.has({ zone: name, name: at }))) {
          return yield* zoneNotFound(name)
        }
        return zone
      })

      const shown = Effect.fnUntraced(function* (record: ManagedRecord) {
        const [publication] = yield* records.publications([record])
        return toRecord(record, publication!)
      })

      const mayChange = Effect.fnUntraced(function* (
        verb: "write" | "delete",
        zone: DomainName,
        name: DomainName,
        type: string
      ) {
        yield* Authorization.require(verb, "records", { zone, name })
        if (type === "LUA") yield* Authorization.require(verb, "lua", { zone, name })
      })

      /** Says to whom a set is not as it thought what has become of it. */
      const moved = Effect.fnUntraced(function* (
        headers: Headers,
        { name, type, zone }: { readonly zone: DomainName; readonly name: DomainName; readonly type: string }
      ) {
        const current = Option.getOrUndefined(yield* records.find(zone, name, type))
        const last = Option.getOrUndefined(yield* records.version(zone, name, type, "newest"))
        yield* requireMatch(
          { headers },
          {
            version: current?.generation,
            required: true,
            changesSince: (version) =>
              Effect.gen(function* () {
                const before = /^\d{1,15}$/.test(version)
                  ? Option.getOrUndefined(yield* records.version(zone, name, type, Number(version)))
                  : undefined
                return {
                  changes:
                    before === undefined || current === undefined
                      ? []
                      : changedFields(plainSet(before), plainSet(current)),
                  changedBy: last?.owner,
                  changedAt: last === undefined ? undefined : timestamp(last.sinceMillis)
                }
              })
          }
        )
        return yield* new PreconditionFailed({
          detail: "Somebody changed it at the same moment; nothing was changed. Look at it and try again.",
          ...(current !== undefined && { etag: EntityTag.make(current.generation) }),
          changes: []
        })
      })

      /** Refusals in the words of the contract. */
      const refused = (headers: Headers, place: Parameters<typeof moved>[1]) => ({
        RecordInvalid: ({ message }: RecordRefusal) => Effect.fail(invalid("body", "/contents", message)),
        RecordConflict: ({ message }: RecordRefusal) => Effect.fail(new RecordConflict({ detail: sentence(message) })),
        RecordMoved: () => moved(headers, place),
        RecordZoneUnknown: () => Effect.fail(zoneNotFound(place.zone))
      })

      const answered = Effect.fnUntraced(function* (
        name: DomainName,
        type: RecordType,
        done: Change & { readonly ticket: Parameters<ManagedRecords["Service"]["letGo"]>[0] },
        { dryRun = false, waitFor }: { readonly dryRun?: boolean; readonly waitFor?: "applied" | "served" }
      ) {
        // No time of the database's: by now it is committed.
        if (waitFor === undefined) records.letGo(done.ticket)
        else yield* records.settle(done.ticket, waitFor, waitMillisMax)
        const record = done._tag === "Unchanged" ? done.record : done.after
        return {
          outcome: done._tag === "Unchanged" ? ("unchanged" as const) : done.event,
          ...(record !== undefined && {
            record: dryRun
              ? toRecord(record, { level: "accepted", error: undefined })
              : yield* orUnavailable(shown(record))
          }),
          publishes: planned(name, type, done),
          ...(dryRun && { dryRun: true as const })
        } satisfies Contract.RecordChanged
      })

      /** Where a transfer may come from, or 400. */
      const allowedServer = (text: string) => {
        const server = parseServer(text)
        if (server === undefined) {
          return Effect.fail(invalid("body", "/axfr/server", "is to be an address, with a port where it is not 53"))
        }
        const isNode = nodes.some(({ dns }) => dns.host === server.host && dns.port === server.port)
        const isAllowed = importFrom.some((network) => IpAddress.isWithin(server.host as IpAddress.IpAddress, network))
        return isNode || isAllowed
          ? Effect.succeed(server)
          : Effect.fail(
              invalid(
                "body",
                "/axfr/server",
                "is neither one of PowerDNS's nodes nor within powerdns.importFrom; zones are transferred from no other address"
              )
            )
      }

      const contentsOf = Effect.fnUntraced(function* (
        zone: Zone,
        payload: string | (typeof Contract.AxfrRequest)["Type"]
      ) {
        if (typeof payload === "string") {
          const parsed = ZoneFile.parse(payload, { origin: zone.name, defaultTtlSeconds: zone.policy.ttlSeconds })
          return Result.isSuccess(parsed) ? parsed.success : yield* invalid("body", "/", parsed.failure.message)
        }
        yield* Authorization.require("write", "zones", { zone: zone.name })
        const server = yield* allowedServer(payload.axfr.server)
        return yield* Effect.catchTag(ZoneTransfer.fetch(zone.name, server), "TransferFailed", (error) =>
          Effect.fail(invalid("body", "/axfr/server", error.message))
        )
      })

      return handlers.handleAll({
        get: Effect.fn("http.Records.get")(function* ({ params }) {
          const zone = yield* getZone(params.zone, params.name)
          const found = Option.getOrUndefined(yield* records.find(zone.name, params.name, params.type))
          if (found === undefined) return yield* recordNotFound(params.name, params.type)
          return withTag(yield* shown(found), EntityTag.make(found.generation))
        }, orUnavailable),

        put: Effect.fn("http.Records.put")(function* ({ headers, params, payload, query }) {
          const { name, type } = params
          const done = yield* orUnavailable(
            Effect.gen(function* () {
              const zone = yield* getZone(params.zone, name)
              yield* mayChange("write", zone.name, name, type)
              return yield* records
                .put(
                  zone.name,
                  {
                    name,
                    type,
                    after: { ttlSeconds: payload.ttlSeconds, contents: payload.contents },
                    mayChange: isExpected(headers)
                  },
                  { actor: yield* Caller, reason: payload.reason, dryRun: query.dryRun }
                )
                .pipe(
                  Effect.catchTags({
                    ...refused(headers, { zone: zone.name, name, type }),
                    RecordNotFound: () => Effect.die(new Error("a set that is put needs not be there"))
                  })
                )
            })
          )
          const body = yield* answered(name, type, done, query)
          return withTag(body, EntityTag.make(body.record?.generation ?? 0))
        }),

        remove: Effect.fn("http.Records.remove")(function* ({ headers, params, query }) {
          const { name, type } = params
          const done = yield* orUnavailable(
            Effect.gen(function* () {
              const zone = yield* getZone(params.zone, name)
              yield* mayChange("delete", zone.name, name, type)
              const expected = isExpected(headers)
              return yield* records
                .remove(
                  zone.name,
                  // One that never was is not found, whatever it is said to be.
                  { name, type, mayChange: (known, newest) => newest === 0 || expected(known) },
                  { actor: yield* Caller, reason: query.reason, dryRun: query.dryRun }
                )
                .pipe(
                  Effect.catchTags({
                    ...refused(headers, { zone: zone.name, name, type }),
                    RecordNotFound: () => Effect.fail(recordNotFound(name, type))
                  })
                )
            })
          )
          return yield* answered(name, type, done, query)
        }),

        batch: Effect.fn("http.Records.batch")(function* ({ params, payload, query: { dryRun = false } }) {
          const zone = yield* getZone(params.zone)
          const actor = yield* Caller
          const forbidden = payload.items.map(({ contents, name, type }) => {
            const verb = contents === undefined ? "delete" : "write"
            const place = { zone: zone.name, name }
            const may =
              allows(actor.authority, verb, "records", place) &&
              (type !== "LUA" || allows(actor.authority, verb, "lua", place))
            return may ? undefined : `You may not ${verb} ${type === "LUA" ? "LUA records" : "records"} at ${name}.`
          })
          const going = payload.items.filter((_, i) => forbidden[i] === undefined)
          const done = yield* records
            .change(
              zone.name,
              going.map(({ contents, ifMatch, name, ttlSeconds, type }) => ({
                name,
                type,
                after: contents === undefined ? undefined : { ttlSeconds, contents },
                ...(ifMatch !== undefined && { mayChange: isExpected({ "if-match": ifMatch }) })
              })),
              { actor, reason: payload.reason, dryRun }
            )
            .pipe(Effect.catchTag("RecordZoneUnknown", (error) => Effect.fail(zoneNotFound(error.zone))))
          records.letGo(done.ticket)
          const outcomes = [...done.outcomes]
          const items = payload.items.map(({ name, type }, i): Contract.BatchResult => {
            const why = forbidden[i]
            if (why !== undefined) {
              return { name, type, outcome: "refused", problem: { ...problems.forbidden, detail: why } }
            }
            return toResult(name, type, outcomes.shift()!)
          })
          const count = (outcome: Contract.BatchResult["outcome"]) =>
            items.filter((item) => item.outcome === outcome).length
          const refusedCount = count("refused")
          const unchanged = count("unchanged")
          return {
            items,
            changed: items.length - refusedCount - unchanged,
            unchanged,
            refused: refusedCount,
            ...(dryRun && { dryRun: true as const })
          }
        }, orUnavailable),

        import: Effect.fn("http.Records.import")(
          function* ({ params, payload, query: { dryRun = false, prune } }) {
            const zone = yield* getZone(params.zone)
            yield* Authorization.require("write", "records", { zone: zone.name })
            if (prune === true) yield* Authorization.require("delete", "records", { zone: zone.name })
            const { authority, name: by, peer, request } = yield* Caller
            const contents = yield* contentsOf(zone, payload)
            const from = typeof payload === "string" ? "a zone file" : `a transfer from ${payload.axfr.server}`
            const made = yield* imports.plan(zone.name, contents, {
              by,
              peer,
              request,
              reason: `${by} imports ${from}${prune === true ? ", and deletes what is not in it" : ""}`,
              prune,
              mayLua: allows(authority, "write", "lua", { zone: zone.name }),
              dryRun
            })
            const kept = made.plan.counts.changes > 0 && !dryRun
            return HttpApiSchema.withHeaders({
              body: {
                ...toPlan(made.plan),
                read: made.read,
                same: made.same,
                leftOut: made.leftOut.slice(0, Contract.leftOutShown),
                leftOutCount: made.leftOut.length,
                ...(dryRun && { dryRun: true as const })
              },
              headers: kept ? { location: `/v1/plans/${made.plan.id}` } : {}
            })
          },
          Effect.catchTag("ZoneUnknown", (error) => Effect.fail(zoneNotFound(error.zone))),
          orUnavailableForZone
        ),

        export: Effect.fn("http.Records.export")(
          function* ({ params, query: { foreign = false, format = "zonefile" } }) {
            const zone = yield* getZone(params.zone)
            const seen = yield* Authorization.scope("read", "records")
            // A zone file begins with what makes it one; it is there once.
            const apex = format === "zonefile" ? yield* exports.apex(zone) : []
            const isInApex = isApex(zone)
            const others = (foreign ? yield* exports.foreign(zone) : []).filter(
              (set) => format !== "zonefile" || !isInApex(set)
            )
            const sets = Stream.make(apex).pipe(
              Stream.concat(exports.sets(zone, others)),
              Stream.map((some) =>
                seen.everyName ? some : some.filter(({ name }) => seen.has({ zone: zone.name, name }))
              ),
              // The answer has begun: it breaks off, so that nobody takes a part for the whole.
              Stream.orDie
            )
            return HttpServerResponse.stream(Stream.encodeText(written(format, zone, sets)), {
              contentType: mediaTypes[format],
              headers: { "content-disposition": `attachment; filename="${fileName(zone.name)}.${extensions[format]}"` }
            })
          },
          Effect.catchTag("TooMuchForeign", ({ message }) =>
            Effect.fail(
              new RequestInvalid({
                detail: `query foreign: ${message}`,
                errors: [{ in: "query", pointer: "/foreign", detail: message }]
              })
            )
          ),
          orUnavailableForZone
        )
      })
    })
  )

const extensions = { zonefile: "zone", csv: "csv", json: "json" } as const

const fileName = (zone: DomainName): string => zone.slice(0, -1).replace(/[^a-z0-9.-]/g, "_")

const toResult = (name: DomainName, type: RecordType, outcome: RecordOutcome): Contract.BatchResult => {
  switch (outcome._tag) {
    case "Unchanged":
      return { name, type, outcome: "unchanged", generation: outcome.record.generation }
    case "Changed":
      return {
        name,
        type,
        outcome: outcome.event,
        ...(outcome.after !== undefined && { generation: outcome.after.generation })
      }
    case "Refused": {
      const { detail, problem } = problemOf(outcome.error)
      return { name, type, outcome: "refused", problem: { ...problem, detail } }
    }
  }
}
