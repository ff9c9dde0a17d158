/**
 * Hosts as they are registered and changed by the API: what requests say, one
 * by one or many at once, and what became of it.
 */
import { Result, Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { parseHostName } from "../domain/DomainName.ts"
import { ackLevels } from "../domain/Host.ts"
import { Labels, labelKeyCharactersMax, labelsMax, labelValueCharactersMax, TtlSeconds } from "../protocol/MessageV2.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { Host, HostReleased, Lease } from "./Hosts.ts"
import {
  ClaimRefusedProblem,
  HostnameTakenProblem,
  HostNotFoundProblem,
  HostRetiredProblem,
  PreconditionFailedProblem,
  QuotaExceededProblem,
  RequestInvalidProblem,
  StorageUnavailableProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

/** Items of one batch at the most. */
export const batchMax = 10_000

/** How long an answer may wait for a level, in seconds. */
export const waitSecondsMax = 60
export const waitSecondsDefault = 10

const Hostname = Schema.String.check(
  Schema.isBetweenLength(1, 254),
  Schema.makeFilter((text: string) => {
    const parsed = parseHostName(text.replace(/\.$/, "").toLowerCase())
    return Result.isSuccess(parsed) ? undefined : parsed.failure.reason
  })
).annotate({ description: "What stands before the zone, or the full name." })

const Addresses = Schema.Array(Values.ClaimedAddressInput).check(Schema.isBetweenLength(1, Values.addressesMax))

const Owner = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9](?:[A-Za-z0-9._@:-]{0,126}[A-Za-z0-9])?$/, {
    message: "is to be the name of a token, an identity or a caller: up to 128 letters, digits and . _ @ : -"
  })
)

const LabelEdits = Schema.Record(
  Schema.String,
  Schema.NullOr(Schema.String.check(Schema.isMaxLength(labelValueCharactersMax)))
).check(
  Schema.makeFilter((labels: Readonly<Record<string, string | null>>) =>
    Object.keys(labels).length > 2 * labelsMax || Object.keys(labels).some((key) => key.length > labelKeyCharactersMax)
      ? `at most ${2 * labelsMax} labels, their keys of at most ${labelKeyCharactersMax} characters`
      : undefined
  )
)

const why = { reason: Schema.optionalKey(Values.Reason) }

/** A host to be registered. */
export const HostSpec = {
  hostname: Hostname,
  zone: Schema.optionalKey(Values.NameInput.annotate({ description: "Default: the first that the caller may write." })),
  addresses: Schema.optionalKey(
    Addresses.annotate({ description: "Only an agent may leave them out: then it is the one it speaks from." })
  ),
  labels: Schema.optionalKey(Labels.annotate({ description: "All of its labels. Default: none." })),
  ttlSeconds: Schema.optionalKey(TtlSeconds),
  owner: Schema.optionalKey(
    Owner.annotate({ description: "Whose host it is to be; only for callers who are no agent. Default: the caller's." })
  ),
  lease: Schema.optionalKey(Lease),
  ...why
}

/** What is to change of a host (RFC 7396): what is left out stays. */
export const HostPatch = {
  addresses: Schema.optionalKey(Addresses),
  labels: Schema.optionalKey(LabelEdits.annotate({ description: "Labels to be set; `null` takes one away." })),
  ttlSeconds: Schema.optionalKey(
    Schema.NullOr(TtlSeconds).annotate({ description: "`null`: its zone's is used again." })
  ),
  owner: Schema.optionalKey(Owner.annotate({ description: "A transfer; only for callers who are no agent." })),
  lease: Schema.optionalKey(Lease),
  ...why
}

/** How long the answer waits. */
const waiting = {
  waitFor: Schema.optionalKey(
    Schema.Literals(ackLevels).annotate({
      description: "The answer waits for this level, for `waitSeconds` at the most. Default: `accepted`."
    })
  ),
  waitSeconds: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: waitSecondsMax })).annotate({
      description: `Default: ${waitSecondsDefault}.`
    })
  )
}

export const RegisterRequest = Schema.Struct({ ...HostSpec, ...waiting }).annotate({ identifier: "RegisterRequest" })
export type RegisterRequest = typeof RegisterRequest.Type

export const PatchRequest = Schema.Struct({ ...HostPatch, ...waiting }).annotate({ identifier: "HostPatch" })
export type PatchRequest = typeof PatchRequest.Type

export const TransferRequest = Schema.Struct({ owner: Owner, reason: Values.Reason }).annotate({
  identifier: "HostTransfer"
})
export type TransferRequest = typeof TransferRequest.Type

const ofHost = { host: Schema.String.annotate({ description: "Its id, or its full name." }) }
const IfMatch = Schema.optionalKey(
  Schema.String.check(Schema.isMaxLength(1024)).annotate({ description: "The `ETag` that the change starts from." })
)

export const BatchItem = Schema.Union([
  Schema.Struct({ op: Schema.Literal("register"), ...HostSpec }),
  Schema.Struct({ op: Schema.Literal("change"), ...ofHost, ...HostPatch, ifMatch: IfMatch }),
  Schema.Struct({ op: Schema.Literal("retire"), ...ofHost, ...why, ifMatch: IfMatch }),
  Schema.Struct({ op: Schema.Literal("release"), ...ofHost, ...why, ifMatch: IfMatch })
]).annotate({ identifier: "HostBatchItem" })
export type BatchItem = typeof BatchItem.Type

export const BatchRequest = Schema.Struct({
  // Each is checked by itself: one that is wrong stops no other.
  items: Schema.Array(Schema.Unknown)
    .check(Schema.isBetweenLength(1, batchMax))
    .annotate({ description: "Each a `HostBatchItem`, checked one by one." }),
  reason: Schema.optionalKey(Values.Reason),
  ...waiting
}).annotate({ identifier: "HostBatch" })
export type BatchRequest = typeof BatchRequest.Type

export const outcomes = [
  "created",
  "changed",
  "returned",
  "renewed",
  "unchanged",
  "transferred",
  "retired",
  "released"
] as const
export const Outcome = Schema.Literals(outcomes)
export type Outcome = typeof Outcome.Type

const Records = Schema.Struct({ ttlSeconds: Schema.Int, contents: Schema.Array(Schema.String) })

/** What a change would make of one record set. */
export const RecordChange = Schema.Struct({
  zone: Values.Name,
  name: Values.Name,
  type: Schema.String,
  before: Schema.optionalKey(Records.annotate({ description: "Absent: there is none." })),
  after: Schema.optionalKey(Records.annotate({ description: "Absent: there would be none." }))
}).annotate({ identifier: "RecordChange" })
export type RecordChange = typeof RecordChange.Type

/** Of a change that was only tried. */
const tried = {
  ...Values.dryRunMark,
  records: Schema.optionalKey(
    Schema.Array(RecordChange).annotate({ description: "What would be published; of a `dryRun`." })
  )
}

/** A host, and what became of it. */
export const HostChanged = Schema.Struct({ ...Host.fields, outcome: Outcome, ...tried }).annotate({
  identifier: "HostChanged"
})
export type HostChanged = typeof HostChanged.Type

/** A host that was registered before, or would be. */
export const HostRegistered = Schema.Union([
  Schema.Struct({
    ...Host.fields,
    outcome: Schema.Literals(["created", "changed", "returned", "renewed"]),
    dryRun: Schema.Literal(true),
    records: Schema.Array(RecordChange)
  }),
  Schema.Struct({ ...Host.fields, outcome: Schema.Literals(["changed", "returned", "renewed"]) })
]).annotate({ identifier: "HostRegistered" })
export type HostRegistered = typeof HostRegistered.Type

/** The same of a host that is new. */
export const HostCreated = Schema.Struct({ ...Host.fields, outcome: Schema.Literal("created") }).annotate({
  identifier: "HostCreated"
})
export type HostCreated = typeof HostCreated.Type

export const HostForgotten = Schema.Struct({
  ...HostReleased.fields,
  outcome: Schema.Literal("released"),
  ...tried
}).annotate({
  identifier: "HostForgotten"
})
export type HostForgotten = typeof HostForgotten.Type

export const BatchResult = Schema.Struct({
  status: Schema.Int.annotate({ description: "As the request by itself would have been answered." }),
  outcome: Schema.optionalKey(Outcome),
  host: Schema.optionalKey(Host),
  etag: Schema.optionalKey(Schema.String),
  records: Schema.optionalKey(Schema.Array(RecordChange)),
  problem: Schema.optionalKey(
    Schema.Struct({ type: Schema.String, title: Schema.String, status: Schema.Int, detail: Schema.String }).annotate({
      description: "As `application/problem+json`, with whatever else that problem says."
    })
  )
}).annotate({ identifier: "HostBatchResult" })
export type BatchResult = typeof BatchResult.Type

export const BatchAnswer = Schema.Struct({
  results: Schema.Array(BatchResult).annotate({ description: "In the order of the items." }),
  succeeded: Schema.Int,
  failed: Schema.Int,
  reached: Schema.optionalKey(
    Schema.Literals(ackLevels).annotate({
      description: "The level that every item has reached that succeeded; absent when none did."
    })
  ),
  ...Values.dryRunMark
}).annotate({ identifier: "HostBatchAnswer" })
export type BatchAnswer = typeof BatchAnswer.Type

const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }
const tagged = { ...Values.etag }

const answered = <S extends Schema.Top>(body: S) => HttpApiSchema.WithHeaders(body, tagged)

/** Why one request is refused, whichever it is. */
const refusals = [
  RequestInvalidProblem,
  HostNotFoundProblem,
  HostRetiredProblem,
  HostnameTakenProblem,
  QuotaExceededProblem,
  ClaimRefusedProblem,
  PreconditionFailedProblem,
  StorageUnavailableProblem
] as const

export class HostChanges extends HttpApiGroup.make("hostChanges")
  .add(
    HttpApiEndpoint.post("register", "/hosts", {
      query: dryRun,
      payload: RegisterRequest,
      success: [
        answered(HostRegistered),
        HttpApiSchema.WithHeaders(HostCreated.pipe(HttpApiSchema.status(201)), { ...tagged, location: Schema.String })
      ],
      error: refusals
    })
      .annotate(Requires, { verb: "write", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Registers a host",
          description:
            "The same again renews it. 201 where the host is new, else 200. `publication` says how far it has come when the answer is made. " +
            "Callers who may do so by the role `agent` alone register for themselves, within their grant; others for any machine in their scope."
        })
      ),
    HttpApiEndpoint.post("batch", "/hosts::batch", {
      query: dryRun,
      payload: BatchRequest,
      success: BatchAnswer,
      error: [StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Registers, changes, retires and releases many hosts",
          description: `Up to ${batchMax} items. Each is checked and answered by itself: one that is refused stops no other. Items about one host are done in their order.`
        })
      ),
    HttpApiEndpoint.patch("change", "/hosts/:host", {
      params: { host: Schema.String },
      query: dryRun,
      headers: { "if-match": Values.ifMatch["if-match"] },
      payload: PatchRequest,
      success: answered(HostChanged),
      error: refusals
    })
      .annotate(Requires, { verb: "write", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes a host",
          description:
            "What is left out stays (JSON merge patch). An agent that keeps the host says its addresses, labels and TTL anew when it registers next."
        })
      ),
    HttpApiEndpoint.delete("remove", "/hosts/:host", {
      params: { host: Schema.String },
      query: { ...dryRun, release: Schema.optionalKey(Schema.Boolean), reason: Schema.optionalKey(Values.Reason) },
      headers: { "if-match": Values.ifMatch["if-match"] },
      success: answered(HostChanged),
      error: refusals
    })
      .annotate(Requires, { verb: "delete", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Retires a host, or forgets it",
          description:
            "Retires it; with `release=true` it is forgotten, and the answer is what it was last. As by the paths of these names."
        })
      ),
    HttpApiEndpoint.post("retire", "/hosts/:host/retire", {
      params: { host: Schema.String },
      query: dryRun,
      headers: { "if-match": Values.ifMatch["if-match"] },
      payload: Schema.Struct({ reason: Values.Reason }),
      success: answered(HostChanged),
      error: refusals
    })
      .annotate(Requires, { verb: "delete", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Retires a host",
          description:
            "Its records are withdrawn; its name is held for as long as the zone says. A host that beats on comes back with its next beat."
        })
      ),
    HttpApiEndpoint.post("release", "/hosts/:host/release", {
      params: { host: Schema.String },
      query: dryRun,
      headers: { "if-match": Values.ifMatch["if-match"] },
      payload: Schema.Struct({ reason: Values.Reason }),
      success: HostForgotten,
      error: refusals
    })
      .annotate(Requires, { verb: "delete", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Forgets a host",
          description: "Whatever its state: its records go, its name is free, its history stays."
        })
      ),
    HttpApiEndpoint.post("transfer", "/hosts/:host/transfer", {
      params: { host: Schema.String },
      query: dryRun,
      headers: { "if-match": Values.ifMatch["if-match"] },
      payload: TransferRequest,
      success: answered(HostChanged),
      error: refusals
    })
      .annotate(Requires, { verb: "write", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Gives a host to another owner",
          description: "Its records stay; whoever held it before may act for it no more. Not for agents."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(
    OpenApi.annotations({ title: "Changing hosts", description: "Hosts registered, changed and given up by the API." })
  ) {}
