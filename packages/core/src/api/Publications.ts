/** What is on its way to the DNS, in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import { StorageUnavailableProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

export const ZonePublication = Schema.Struct({
  zone: Values.Name,
  pending: Schema.Int.annotate({ description: "Names that wait to be published." }),
  parked: Schema.Int.annotate({ description: "Names that cannot be published until they change." }),
  oldest: Schema.optionalKey(
    Values.Timestamp.annotate({ description: "Since when the longest waiting name waits; absent when none does." })
  ),
  lastPublished: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent before the first time." })),
  ready: Schema.Boolean.annotate({
    description:
      "PowerDNS was seen to have the zone, as known to the server that answers; true of a zone that another server writes."
  }),
  error: Schema.optionalKey(
    Schema.String.annotate({
      description:
        "Why the zone's writer failed last; it tries again. As known to the server that answers: only the one that writes the zone does."
    })
  )
}).annotate({ identifier: "ZonePublication" })
export type ZonePublication = typeof ZonePublication.Type

export const PendingName = Schema.Struct({
  zone: Values.Name,
  name: Values.Name,
  generation: Schema.Int,
  markedAt: Values.Timestamp,
  state: Schema.Literals(["pending", "parked"]),
  reason: Schema.optionalKey(Schema.String.annotate({ description: "Why it is parked." }))
}).annotate({ identifier: "PendingName" })
export type PendingName = typeof PendingName.Type

export const PublicationList = Schema.Struct({
  zones: Schema.Array(ZonePublication),
  items: Schema.Array(PendingName)
}).annotate({ identifier: "PublicationList" })
export type PublicationList = typeof PublicationList.Type

export const PublicationQuery = {
  zone: Schema.optionalKey(Values.NameInput),
  limit: Schema.optionalKey(Page.Limit)
}

export const RetryRequest = Schema.Struct({
  zone: Schema.optionalKey(Values.NameInput.annotate({ description: "Only names of this zone." })),
  name: Schema.optionalKey(Values.NameInput.annotate({ description: "Only this name." }))
}).annotate({ identifier: "RetryRequest" })
export type RetryRequest = typeof RetryRequest.Type

export const Retried = Schema.Struct({
  names: Schema.Int.annotate({ description: "Names that are tried again." }),
  ...Values.dryRunMark
}).annotate({ identifier: "Retried" })
export type Retried = typeof Retried.Type

export class Publications extends HttpApiGroup.make("publications")
  .add(
    HttpApiEndpoint.get("list", "/publications", {
      query: PublicationQuery,
      success: PublicationList,
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "publications" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Names that may differ from what PowerDNS holds",
          description: "Each zone's backlog, and the marked names themselves, the longest waiting first."
        })
      ),
    HttpApiEndpoint.post("retry", "/publications/retry", {
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: [RetryRequest, Schema.Undefined],
      success: Retried,
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "write", resource: "publications" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Tries parked names again",
          description: "Except those that a plan holds back: that plan is to be applied or rejected."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(
    OpenApi.annotations({ title: "Publications", description: "The way from the registry to PowerDNS." })
  ) {}
