/** Plans in the HTTP API: changes thought out, to be looked at and then applied or not. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { planActions, planKinds, planStates } from "../domain/Plan.ts"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import {
  DeleteBudgetExceededProblem,
  PlanAlteredProblem,
  PlanDecidedProblem,
  PlanNotFoundProblem,
  PowerDnsFailedProblem,
  StorageUnavailableProblem,
  ZoneNotFoundProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"
import { Reconciliation } from "./Zones.ts"

/** Changes of a plan that are shown with it. */
export const changesShown = 100

export const PlanKind = Schema.Literals(planKinds)

/** Kinds that a person may ask for. */
export const askedKinds = ["reconcile", "adopt", "release", "ignore"] as const

export const PlanState = Schema.Literals(planStates)

export const PlanCounts = Schema.Struct({
  changes: Schema.Int,
  names: Schema.Int,
  deletedNames: Schema.Int.annotate({ description: "Names that would lose all their records." }),
  create: Schema.Int,
  update: Schema.Int,
  delete: Schema.Int,
  repair: Schema.Int,
  adopt: Schema.Int,
  release: Schema.Int,
  ignore: Schema.Int,
  unignore: Schema.Int,
  keep: Schema.Int.annotate({ description: "Left alone, each with why." })
}).annotate({ identifier: "PlanCounts" })

const planFields = {
  id: Schema.String,
  zone: Values.Name,
  kind: PlanKind,
  state: PlanState.annotate({ description: "`superseded`: a newer plan has taken its place." }),
  madeAt: Values.Timestamp,
  madeBy: Schema.String,
  generation: Schema.Int.annotate({ description: "What is newer than this, the plan does not know." }),
  hash: Schema.String.annotate({ description: "Of its changes." }),
  reason: Schema.String,
  counts: PlanCounts,
  decision: Schema.optionalKey(
    Schema.Struct({ at: Values.Timestamp, by: Schema.String, reason: Schema.optionalKey(Schema.String) }).annotate({
      description: "The last one; an open plan has one when a part of it was applied."
    })
  )
}

export const Plan = Schema.Struct(planFields).annotate({ identifier: "Plan" })
export type Plan = typeof Plan.Type

/** What became of a plan that was decided against, or would. */
export const PlanRejected = Schema.Struct({ ...planFields, ...Values.dryRunMark }).annotate({
  identifier: "PlanRejected"
})
export type PlanRejected = typeof PlanRejected.Type

export const PlanRecords = Schema.Struct({
  ttlSeconds: Schema.Int,
  contents: Schema.Array(Schema.String)
}).annotate({ identifier: "PlanRecords" })

export const PlanChange = Schema.Struct({
  ordinal: Schema.Int.annotate({ description: "Its place in the plan, from 1." }),
  name: Schema.String.annotate({ description: "For `ignore` and `unignore` a pattern within the zone." }),
  type: Schema.String,
  action: Schema.Literals(planActions),
  before: Schema.optionalKey(PlanRecords),
  after: Schema.optionalKey(PlanRecords),
  reason: Schema.String,
  cause: Schema.String,
  outcome: Schema.optionalKey(
    Schema.String.annotate({ description: "`applied`, or why it was not; absent while that is open." })
  )
}).annotate({ identifier: "PlanChange" })
export type PlanChange = typeof PlanChange.Type

export const PlanWithChanges = Schema.Struct({
  ...planFields,
  changes: Schema.Array(PlanChange).annotate({ description: `The first ${changesShown}; all are at \`/changes\`.` })
}).annotate({ identifier: "PlanWithChanges" })
export type PlanWithChanges = typeof PlanWithChanges.Type

/** A plan just made, and what was seen of the zone. */
export const PlanMade = Schema.Struct({
  ...planFields,
  /** What a plan to reconcile was made from. */
  reconciliation: Schema.optionalKey(Reconciliation),
  ...Values.dryRunMark
}).annotate({ identifier: "PlanMade" })
export type PlanMade = typeof PlanMade.Type

export const PlanPage = Schema.Struct({
  items: Schema.Array(Plan),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "PlanPage" })
export type PlanPage = typeof PlanPage.Type

export const PlanChangePage = Schema.Struct({
  items: Schema.Array(PlanChange),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "PlanChangePage" })
export type PlanChangePage = typeof PlanChangePage.Type

export const PlanRequest = Schema.Struct({
  kind: Schema.optionalKey(Schema.Literals(askedKinds).annotate({ description: "Default: `reconcile`." })),
  pattern: Schema.optionalKey(
    Schema.String.check(Schema.isBetweenLength(1, 254)).annotate({
      description: "For the other kinds: a name or pattern within the zone, such as `web-*` or `*.lab`."
    })
  ),
  undo: Schema.optionalKey(Schema.Boolean.annotate({ description: "With `ignore`: no longer to be ignored." })),
  reason: Schema.optionalKey(Values.Reason)
}).annotate({ identifier: "PlanRequest" })
export type PlanRequest = typeof PlanRequest.Type

export const ApplyRequest = Schema.Struct({
  overrideBudget: Schema.optionalKey(
    Values.Reason.annotate({ description: "Why the zone's delete budget does not count this time." })
  ),
  withoutDeletions: Schema.optionalKey(Schema.Boolean.annotate({ description: "Leaves its deletions open." }))
}).annotate({ identifier: "ApplyRequest" })
export type ApplyRequest = typeof ApplyRequest.Type

export const Refusal = Schema.Struct({ name: Schema.String, type: Schema.String, reason: Schema.String })

export const PlanApplied = Schema.Struct({
  plan: Plan,
  applied: Schema.Int.annotate({ description: "Changes applied now. They are published as any change is." }),
  refused: Schema.Int.annotate({ description: "Changes refused now." }),
  kept: Schema.Int.annotate({ description: "Changes left alone now: the plan said so (`keep`)." }),
  refusals: Schema.Array(Refusal).annotate({
    description: "Some of the plan's changes that were refused or left alone, with why."
  }),
  ...Values.dryRunMark
}).annotate({ identifier: "PlanApplied" })
export type PlanApplied = typeof PlanApplied.Type

const link = { link: Schema.optionalKey(Schema.String) }
const plan = { plan: Schema.String }
const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }

/** The plan in words. Both are text to the schema; which of them it is, is said by the answer's media type. */
const asText = (contentType: string) => Schema.String.pipe(HttpApiSchema.asText({ contentType }))

export class Plans extends HttpApiGroup.make("plans")
  .add(
    HttpApiEndpoint.post("make", "/zones/:zone/plans", {
      params: { zone: Values.NameInput },
      query: dryRun,
      payload: [PlanRequest, Schema.Undefined],
      success: HttpApiSchema.WithHeaders(PlanMade.pipe(HttpApiSchema.status(201)), {
        location: Schema.optionalKey(Schema.String)
      }),
      error: [ZoneNotFoundProblem, PowerDnsFailedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "plans" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a plan",
          description:
            "Changes nothing yet. A plan without changes is not kept: its state is `applied` and there is no `Location`. With `dryRun` none is kept."
        })
      ),
    HttpApiEndpoint.get("list", "/zones/:zone/plans", {
      params: { zone: Values.NameInput },
      query: {
        state: Schema.optionalKey(PlanState),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.PlaceCursor)
      },
      success: HttpApiSchema.WithHeaders(PlanPage, link),
      error: [ZoneNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "plans" })
      .annotateMerge(OpenApi.annotations({ summary: "A zone's plans, the newest first" })),
    HttpApiEndpoint.get("listAll", "/plans", {
      query: {
        state: Schema.optionalKey(PlanState),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.PlaceCursor)
      },
      success: HttpApiSchema.WithHeaders(PlanPage, link),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "plans" })
      .annotateMerge(OpenApi.annotations({ summary: "The plans of all zones, the newest first" })),
    HttpApiEndpoint.get("get", "/plans/:plan", {
      params: plan,
      query: { format: Schema.optionalKey(Schema.Literals(["json", "text", "markdown"])) },
      success: [PlanWithChanges, asText("text/plain"), asText("text/markdown")],
      error: [PlanNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "plans" })
      .annotateMerge(OpenApi.annotations({ summary: "One plan", description: "As JSON, or in words by `format`." })),
    HttpApiEndpoint.get("changes", "/plans/:plan/changes", {
      params: plan,
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.NumberCursor) },
      success: HttpApiSchema.WithHeaders(PlanChangePage, link),
      error: [PlanNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "plans" })
      .annotateMerge(OpenApi.annotations({ summary: "A plan's changes, in their order" })),
    HttpApiEndpoint.post("apply", "/plans/:plan/apply", {
      params: plan,
      query: dryRun,
      payload: [ApplyRequest, Schema.Undefined],
      success: PlanApplied,
      error: [
        PlanNotFoundProblem,
        PlanDecidedProblem,
        PlanAlteredProblem,
        DeleteBudgetExceededProblem,
        PowerDnsFailedProblem,
        StorageUnavailableProblem
      ]
    })
      .annotate(Requires, { verb: "apply", resource: "plans" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Applies a plan",
          description:
            "What changed since the plan was made is refused, name by name; the others go on. A plan that deletes more than the " +
            "zone's budget allows is refused as a whole, unless `overrideBudget` says why that is right. With `dryRun` that is answered too; of a plan of more than 2,000 " +
            "changes each 2,000 are tried by themselves."
        })
      ),
    HttpApiEndpoint.post("reject", "/plans/:plan/reject", {
      params: plan,
      query: dryRun,
      payload: Schema.Struct({ reason: Values.Reason }),
      success: PlanRejected,
      error: [PlanNotFoundProblem, PlanDecidedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "apply", resource: "plans" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Rejects a plan",
          description: "Nothing of it is done. Names it held back stay as they are until something changes about them."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Plans", description: "Changes to be looked at first." })) {}
