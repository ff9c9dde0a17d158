/** Guards in the HTTP API: what holds expiry back until a person says a word. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import { GuardNotTrippedProblem, StorageUnavailableProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

export const guardKinds = ["mass-expiry"] as const

export const GuardKind = Schema.Literals(guardKinds)
export type GuardKind = typeof GuardKind.Type

const guardFields = {
  kind: Schema.String.annotate({ description: "`mass-expiry`: too many hosts went silent at once to believe it." }),
  trippedAt: Values.Timestamp,
  detail: Schema.String.annotate({ description: "What was seen, and what can be done." }),
  waiting: Schema.Boolean.annotate({
    description: "It holds something back; false once that was allowed and nothing came since."
  }),
  allowedBefore: Schema.optionalKey(
    Values.Timestamp.annotate({ description: "A person's word: hosts last seen before that may expire." })
  )
}

export const Guard = Schema.Struct(guardFields).annotate({ identifier: "Guard" })
export type Guard = typeof Guard.Type

/** What became of a guard, or would. */
export const GuardAllowed = Schema.Struct({ ...guardFields, ...Values.dryRunMark }).annotate({
  identifier: "GuardAllowed"
})
export type GuardAllowed = typeof GuardAllowed.Type

export const GuardList = Schema.Struct({ items: Schema.Array(Guard) }).annotate({ identifier: "GuardList" })
export type GuardList = typeof GuardList.Type

export class Guards extends HttpApiGroup.make("guards")
  .add(
    HttpApiEndpoint.get("list", "/guards", { success: GuardList, error: StorageUnavailableProblem })
      .annotate(Requires, { verb: "read", resource: "guards" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Guards that have tripped",
          description: "While a guard stands, what it guards against waits; everything else goes on."
        })
      ),
    HttpApiEndpoint.post("allow", "/guards/:guard/allow", {
      params: { guard: GuardKind },
      query: { dryRun: Schema.optionalKey(Values.DryRun) },
      payload: Schema.Struct({ reason: Values.Reason }),
      success: GuardAllowed,
      error: [GuardNotTrippedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "apply", resource: "guards" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Lets through what a guard holds back",
          description: "Only what was seen so far: what comes later is guarded again."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Guards", description: "What waits for a person's word." })) {}
