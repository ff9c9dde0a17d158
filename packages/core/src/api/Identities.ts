/** Identities in the HTTP API: keys that machines were enrolled with. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import { Grant } from "./Grant.ts"
import * as Page from "./Page.ts"
import {
  HostNotFoundProblem,
  IdentityNotFoundProblem,
  IdentityRevokedProblem,
  StorageUnavailableProblem
} from "./Problems.ts"
import { Revoked } from "./Tokens.ts"
import * as Values from "./Values.ts"

/** Names that are shown with an identity. */
export const namesShown = 100

export const identityStates = ["active", "revoked"] as const

const State = Schema.Literals(identityStates)

const identityFields = {
  id: Schema.String.annotate({ description: "Owner of its hosts, and its name in the audit." }),
  state: State,
  publicKey: Schema.String.annotate({ description: "Ed25519, 32 bytes in base64url." }),
  fingerprint: Schema.String.annotate({
    description: "For people to compare: the beginning of the SHA-256 of the key."
  }),
  grant: Grant,
  enrolledBy: Schema.String.annotate({ description: "The name of the token that it was enrolled with." }),
  enrolledAt: Values.Timestamp,
  rotatedAt: Schema.optionalKey(Values.Timestamp.annotate({ description: "When its key was replaced last." })),
  lastUsed: Schema.optionalKey(
    Values.Timestamp.annotate({ description: "When it began its last session, exact to within seconds." })
  ),
  revoked: Schema.optionalKey(Revoked),
  hosts: Schema.Int.annotate({ description: "Hosts that it holds." })
}

export const Identity = Schema.Struct(identityFields).annotate({ identifier: "Identity" })
export type Identity = typeof Identity.Type

/** What became of an identity, or would. */
export const IdentityRevocation = Schema.Struct({ ...identityFields, ...Values.dryRunMark }).annotate({
  identifier: "IdentityRevocation"
})
export type IdentityRevocation = typeof IdentityRevocation.Type

export const IdentityWithNames = Schema.Struct({
  ...identityFields,
  names: Schema.Array(Values.Name).annotate({ description: `Names of its hosts, ${namesShown} at the most.` })
}).annotate({ identifier: "IdentityWithNames" })
export type IdentityWithNames = typeof IdentityWithNames.Type

export const IdentityPage = Schema.Struct({
  items: Schema.Array(Identity),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "IdentityPage" })
export type IdentityPage = typeof IdentityPage.Type

export const ResetRequest = Schema.Struct({
  host: Values.NameInput.annotate({ description: "The full name that is to be freed." }),
  reason: Values.Reason
}).annotate({ identifier: "ResetRequest" })
export type ResetRequest = typeof ResetRequest.Type

export const NameReset = Schema.Struct({
  host: Values.Name,
  formerOwner: Schema.String.annotate({ description: "Who held the name." }),
  identity: Schema.optionalKey(
    Schema.Struct({ id: Schema.String, state: State }).annotate({
      description: "The identity that held it: revoked, unless it holds other names. Absent when the owner was none."
    })
  ),
  ...Values.dryRunMark
}).annotate({ identifier: "NameReset" })
export type NameReset = typeof NameReset.Type

const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }

export class Identities extends HttpApiGroup.make("identities")
  .add(
    HttpApiEndpoint.get("list", "/identities", {
      query: {
        state: Schema.optionalKey(State),
        enrolledBy: Schema.optionalKey(Schema.String.check(Schema.isBetweenLength(1, 1024))),
        limit: Schema.optionalKey(Page.Limit),
        cursor: Schema.optionalKey(Page.PlaceCursor)
      },
      success: HttpApiSchema.WithHeaders(IdentityPage, { link: Schema.optionalKey(Schema.String) }),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "identities" })
      .annotateMerge(OpenApi.annotations({ summary: "Identities, by id" })),
    HttpApiEndpoint.get("get", "/identities/:identity", {
      params: { identity: Schema.String },
      success: IdentityWithNames,
      error: [IdentityNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "identities" })
      .annotateMerge(OpenApi.annotations({ summary: "One identity, with the names it holds" })),
    HttpApiEndpoint.post("revoke", "/identities/:identity/revoke", {
      params: { identity: Schema.String },
      query: dryRun,
      payload: Schema.Struct({ reason: Values.Reason }),
      success: IdentityRevocation,
      error: [IdentityNotFoundProblem, IdentityRevokedProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "identities" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Revokes an identity, for good",
          description:
            "Its sessions end and its key is never taken again. Its hosts go offline when their lease has passed, as any do."
        })
      ),
    HttpApiEndpoint.post("reset", "/identities::reset", {
      query: dryRun,
      payload: ResetRequest,
      success: NameReset,
      error: [HostNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "identities" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Frees a name from its key",
          description:
            "Whoever may claim it is its next holder, and until then its records stay. The identity that held it is revoked, unless it holds other names."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Identities", description: "Keys that machines were enrolled with." })) {}
