/** Records that people manage, in the HTTP API: one by one, many at once, and whole zones in and out. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ackLevels } from "../domain/Host.ts"
import { contentsMax, recordTypes, ttlSecondsMax } from "../domain/RecordContent.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { PlanMade } from "./Plans.ts"
import {
  PowerDnsFailedProblem,
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  RecordConflictProblem,
  RecordNotFoundProblem,
  StorageUnavailableProblem,
  ZoneNotFoundProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

/** Record sets of one batch at the most. */
export const batchMax = 1000

export const RecordType = Schema.Literals(recordTypes)

const TtlSeconds = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: ttlSecondsMax }))

const Contents = Schema.Array(Schema.String.check(Schema.isMaxLength(32_768)))
  .check(Schema.isBetweenLength(1, contentsMax))
  .annotate({
    description:
      "As in a zone file, with absolute names: `10 mail.example.net.` of an MX record. A TXT may be given without quotes, whole."
  })

const setFields = {
  zone: Values.Name,
  name: Values.Name,
  type: RecordType,
  ttlSeconds: Schema.Int,
  contents: Schema.Array(Schema.String).annotate({ description: "In their one form, sorted." }),
  origin: Schema.Literals(["managed", "adopted"]).annotate({
    description: "`managed`: made by people here. `adopted`: stood in PowerDNS, and was taken over as it was."
  }),
  changedBy: Schema.String,
  changedAt: Values.Timestamp,
  generation: Schema.Int.annotate({ description: "Rises with each change. It is in the `ETag`." })
}

export const Publication = Schema.Struct({
  level: Schema.Literals(ackLevels).annotate({
    description:
      "`accepted`, `applied` by PowerDNS, `served` by every name server. ALIAS and LUA come to `applied`: what they answer is computed when asked, so nobody can compare it."
  }),
  error: Schema.optionalKey(Schema.String.annotate({ description: "Why it goes no further." }))
})

export const RecordSet = Schema.Struct({ ...setFields, publication: Publication }).annotate({
  identifier: "ManagedRecordSet"
})
export type RecordSet = typeof RecordSet.Type

export const PlannedSet = Schema.Struct({
  action: Schema.Literals(["create", "update", "delete"]),
  name: Values.Name,
  type: RecordType,
  before: Schema.optionalKey(Schema.Struct({ ttlSeconds: Schema.Int, contents: Schema.Array(Schema.String) })),
  after: Schema.optionalKey(Schema.Struct({ ttlSeconds: Schema.Int, contents: Schema.Array(Schema.String) }))
}).annotate({ identifier: "PlannedSet" })
export type PlannedSet = typeof PlannedSet.Type

const Outcome = Schema.Literals(["created", "changed", "deleted", "unchanged"])

export const RecordChanged = Schema.Struct({
  outcome: Outcome,
  record: Schema.optionalKey(RecordSet.annotate({ description: "As it is now; absent: it is gone." })),
  publishes: Schema.Array(PlannedSet).annotate({ description: "What changes in PowerDNS by it." }),
  ...Values.dryRunMark
}).annotate({ identifier: "RecordChanged" })
export type RecordChanged = typeof RecordChanged.Type

export const RecordRequest = Schema.Struct({
  ttlSeconds: Schema.optionalKey(TtlSeconds.annotate({ description: "Default: what it was, or the zone's." })),
  contents: Contents,
  reason: Schema.optionalKey(Values.Reason)
}).annotate({ identifier: "RecordRequest" })
export type RecordRequest = typeof RecordRequest.Type

export const BatchItem = Schema.Struct({
  name: Values.NameInput,
  type: RecordType,
  ttlSeconds: Schema.optionalKey(TtlSeconds),
  contents: Schema.optionalKey(Contents.annotate({ description: "Absent: the set is deleted." })),
  ifMatch: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(200)).annotate({
      description: "The `ETag` it must have; `*`: any. Absent: whatever is there."
    })
  )
}).annotate({ identifier: "RecordBatchItem" })

export const BatchRequest = Schema.Struct({
  items: Schema.Array(BatchItem).check(Schema.isBetweenLength(1, batchMax)),
  reason: Schema.optionalKey(Values.Reason)
}).annotate({ identifier: "RecordBatch" })
export type BatchRequest = typeof BatchRequest.Type

export const BatchResult = Schema.Struct({
  name: Values.Name,
  type: RecordType,
  outcome: Schema.Literals([...Outcome.literals, "refused"]),
  generation: Schema.optionalKey(Schema.Int),
  problem: Schema.optionalKey(
    Schema.Struct({ type: Schema.String, title: Schema.String, status: Schema.Int, detail: Schema.String })
  )
}).annotate({ identifier: "RecordBatchResult" })
export type BatchResult = typeof BatchResult.Type

export const BatchAnswer = Schema.Struct({
  items: Schema.Array(BatchResult).annotate({ description: "In the order of the request." }),
  changed: Schema.Int,
  unchanged: Schema.Int,
  refused: Schema.Int,
  ...Values.dryRunMark
}).annotate({ identifier: "RecordBatchAnswer" })

/** Sets of a file or a server that an answer names as left out, at the most. */
export const leftOutShown = 100

export const ImportMade = Schema.Struct({
  ...PlanMade.fields,
  read: Schema.Int.annotate({ description: "Record sets that the file or server has." }),
  same: Schema.Int.annotate({ description: "Of those, sets that are here already." }),
  leftOut: Schema.Array(
    Schema.Struct({ name: Schema.String, type: Schema.String, reason: Schema.String }).annotate({
      description: "A set that no plan changes, and why."
    })
  ).annotate({ description: `The first ${leftOutShown}.` }),
  leftOutCount: Schema.Int,
  ...Values.dryRunMark
}).annotate({ identifier: "ImportMade" })
export type ImportMade = typeof ImportMade.Type

export const AxfrRequest = Schema.Struct({
  axfr: Schema.Struct({
    server: Schema.String.check(Schema.isBetweenLength(2, 64)).annotate({
      description:
        "`ADDRESS` or `ADDRESS:PORT` (`[IPv6]:PORT`) of a server that lets this one transfer the zone: one of PowerDNS's nodes, or within `powerdns.importFrom`. Without TSIG."
    })
  })
}).annotate({ identifier: "AxfrRequest" })

export const exportFormats = ["zonefile", "json", "csv"] as const

const places = { zone: Values.NameInput, name: Values.NameInput, type: RecordType }

const change = {
  dryRun: Schema.optionalKey(Values.DryRun),
  waitFor: Schema.optionalKey(
    Schema.Literals(["applied", "served"]).annotate({
      description: "Answers once that is reached, or after 10 s as far as it has come. Default: at once."
    })
  )
}

const changeErrors = [
  ZoneNotFoundProblem,
  RecordConflictProblem,
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  StorageUnavailableProblem
] as const

const asText = (contentType: string) => Schema.String.pipe(HttpApiSchema.asText({ contentType }))

export class Records extends HttpApiGroup.make("records")
  .add(
    HttpApiEndpoint.get("get", "/zones/:zone/records/:name/:type", {
      params: places,
      success: HttpApiSchema.WithHeaders(RecordSet, Values.etag),
      error: [ZoneNotFoundProblem, RecordNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "One record set that people manage",
          description: "Those of hosts are with their host; whatever stands at a name is listed at `/records`."
        })
      ),
    HttpApiEndpoint.put("put", "/zones/:zone/records/:name/:type", {
      params: places,
      query: change,
      headers: Values.ifMatch,
      payload: RecordRequest,
      success: HttpApiSchema.WithHeaders(RecordChanged, Values.etag),
      error: changeErrors
    })
      .annotate(Requires, { verb: "write", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes or changes a record set",
          description:
            "The whole set. `If-None-Match: *` makes it only if there is none; one that is there needs `If-Match`. LUA records need the permission `lua` besides. " +
            "What somebody else has in PowerDNS is not overwritten: adopt it first, by a plan."
        })
      ),
    HttpApiEndpoint.delete("remove", "/zones/:zone/records/:name/:type", {
      params: places,
      query: { ...change, reason: Schema.optionalKey(Values.Reason) },
      headers: Values.ifMatch,
      success: RecordChanged,
      error: [RecordNotFoundProblem, ...changeErrors]
    })
      .annotate(Requires, { verb: "delete", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Deletes a record set",
          description: "From PowerDNS too, at once: no budget counts what somebody says."
        })
      ),
    HttpApiEndpoint.post("batch", "/zones/:zone/records::batch", {
      params: { zone: Values.NameInput },
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: BatchRequest,
      success: BatchAnswer,
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes many record sets in one transaction",
          description:
            "In their order, each judged against what those before it left: one that is refused says why, and the others go on."
        })
      ),
    HttpApiEndpoint.post("import", "/zones/:zone/import", {
      params: { zone: Values.NameInput },
      query: {
        prune: Schema.optionalKey(
          Schema.Boolean.annotate({ description: "Also deletes managed record sets that are not in the file." })
        ),
        dryRun: Schema.optionalKey(Values.DryRun)
      },
      payload: [asText("text/dns"), AxfrRequest],
      success: HttpApiSchema.WithHeaders(ImportMade.pipe(HttpApiSchema.status(201)), {
        location: Schema.optionalKey(Schema.String)
      }),
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a plan that brings a zone file's records in",
          description:
            "The body is a zone file (RFC 1035, `text/dns`), or as JSON a server to transfer the zone from. Nothing is changed before the plan is applied. " +
            "SOA, the name servers of the zone itself, what signs it, and what hosts have is left out, with why."
        })
      ),
    HttpApiEndpoint.get("export", "/zones/:zone/export", {
      params: { zone: Values.NameInput },
      query: {
        format: Schema.optionalKey(Schema.Literals(exportFormats)),
        foreign: Schema.optionalKey(Schema.Boolean.annotate({ description: "Also what others have in PowerDNS." }))
      },
      success: [asText("text/dns"), asText("text/csv"), asText("application/json")],
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "records" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "A zone's records, of people and of hosts",
          description:
            "In the order of names, as they should be: a zone file that can be loaded elsewhere, with the SOA and the name servers that the zone has in PowerDNS, JSON, or CSV."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(
    OpenApi.annotations({ title: "Records", description: "Records that people manage, beside those of hosts." })
  ) {}
