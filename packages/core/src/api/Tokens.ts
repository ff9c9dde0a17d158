/** Tokens in the HTTP API: those of the configuration, and those made here. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { AnswersSecret, Authorization, Requires } from "./Authentication.ts"
import { Grant, GrantRequest } from "./Grant.ts"
import * as Page from "./Page.ts"
import {
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  StorageUnavailableProblem,
  TokenConfiguredProblem,
  TokenNameTakenProblem,
  TokenNotFoundProblem,
  TokenRevokedProblem,
  TooManyTokensProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

/** Where a token is shown. `api`: at the API alone, as `admin` is, and without the role of that name. */
export const tokenRoles = ["agent", "admin", "api"] as const
export const tokenUses = ["bearer", "enrol", "both"] as const
export const tokenStates = ["active", "expired", "revoked", "used-up"] as const
export const tokenOrigins = ["configuration", "registry"] as const

const Role = Schema.Literals(tokenRoles)
const RoleNames = Schema.Array(Schema.String.check(Schema.isBetweenLength(1, 63))).check(
  Schema.isBetweenLength(1, 20),
  Schema.isUnique()
)
const Allows = Schema.Literals(tokenUses)

/** A person's word that ended something. */
export const Revoked = Schema.Struct({ at: Values.Timestamp, reason: Schema.String })

const tokenFields = {
  id: Schema.optionalKey(Schema.String.annotate({ description: "Absent for a token of the configuration." })),
  name: Schema.String.annotate({ description: "Stands in the audit, and as owner of its holder's hosts." }),
  role: Role.annotate({
    description:
      "`agent`: for hosts, and for the API; `admin` and `api`: for the API alone, with and without the role `admin`."
  }),
  roles: Schema.Array(Schema.String).annotate({
    description: "Roles that say what its holder may do by the API, within the zones and names of `grant`."
  }),
  allows: Allows.annotate({
    description: "`bearer`: to speak as its holder; `enrol`: to enrol a key; or `both`."
  }),
  grant: Grant,
  host: Schema.optionalKey(Values.Name.annotate({ description: "The one name that it enrols for, taking it over." })),
  origin: Schema.Literals(tokenOrigins).annotate({ description: "`registry`: made at run time." }),
  state: Schema.Literals(tokenStates),
  uses: Schema.Int.annotate({
    description: "Enrolments so far; by a token of the configuration since the start of the server."
  }),
  usesMax: Schema.optionalKey(Schema.Int.annotate({ description: "Enrolments at the most; absent: any number." })),
  createdAt: Schema.optionalKey(Values.Timestamp),
  createdBy: Schema.optionalKey(Schema.String),
  expiresAt: Schema.optionalKey(Values.Timestamp),
  lastUsed: Schema.optionalKey(
    Values.Timestamp.annotate({
      description: "Exact to within seconds; of a token of the configuration since the start of the server."
    })
  ),
  revoked: Schema.optionalKey(Revoked)
}

export const Token = Schema.Struct({ ...tokenFields, ...Values.dryRunMark }).annotate({ identifier: "Token" })
export type Token = typeof Token.Type

export const TokenIssued = Schema.Struct({
  token: Schema.optionalKey(
    Schema.String.annotate({
      description: "Its text, shown this once: what is kept is a hash of it. Absent where it was only tried."
    })
  ),
  ...tokenFields,
  ...Values.dryRunMark
}).annotate({ identifier: "TokenIssued" })
export type TokenIssued = typeof TokenIssued.Type

export const TokenPage = Schema.Struct({
  items: Schema.Array(Schema.Struct(tokenFields)),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "TokenPage" })
export type TokenPage = typeof TokenPage.Type

export const TokenRequest = Schema.Struct({
  name: Schema.String.check(Schema.isBetweenLength(1, 128)).annotate({
    description: "Letters, digits and `. _ @ -` between them. A name is never given anew."
  }),
  role: Schema.optionalKey(
    Schema.Literals(["agent", "admin"]).annotate({
      description: "In short for `roles` with this one. Default: `agent`."
    })
  ),
  roles: Schema.optionalKey(
    RoleNames.annotate({
      description:
        "Names of built-in or own roles, in place of `role`. With `agent` among them it is for hosts, without for the API alone."
    })
  ),
  allows: Allows.annotate({ description: "A token for the API alone allows `bearer`." }),
  grant: Schema.optionalKey(
    GrantRequest.annotate({ description: "Default: any name in every zone, at the address that the host speaks from." })
  ),
  host: Schema.optionalKey(
    Values.NameInput.annotate({
      description:
        "Marks a token for enrolment for this name alone: it is taken over from whoever holds it. Its grant is then that name, in the `networks` given."
    })
  ),
  usesMax: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })).annotate({
      description: "Enrolments at the most. Default: any number; with `host` one."
    })
  ),
  expiresAt: Schema.optionalKey(Values.TimestampInput.annotate({ description: "Default: never." })),
  reason: Values.Reason
}).annotate({ identifier: "TokenRequest" })
export type TokenRequest = typeof TokenRequest.Type

export const TokenChange = Schema.Struct({
  roles: Schema.optionalKey(
    RoleNames.annotate({ description: "They take the place of those it has. `agent` is neither added nor taken away." })
  ),
  grant: Schema.optionalKey(GrantRequest.annotate({ description: "It takes the place of the one it has." })),
  expiresAt: Schema.optionalKey(Schema.NullOr(Values.TimestampInput).annotate({ description: "`null`: never." })),
  reason: Values.Reason
}).annotate({ identifier: "TokenChange" })
export type TokenChange = typeof TokenChange.Type

const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }

export class Tokens extends HttpApiGroup.make("tokens")
  .add(
    HttpApiEndpoint.get("list", "/tokens", {
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.PlaceCursor) },
      success: HttpApiSchema.WithHeaders(TokenPage, { link: Schema.optionalKey(Schema.String) }),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "tokens" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Tokens, by name",
          description: "Those of the configuration and those made at run time, revoked and expired ones too."
        })
      ),
    HttpApiEndpoint.post("issue", "/tokens", {
      query: dryRun,
      payload: TokenRequest,
      success: HttpApiSchema.WithHeaders(TokenIssued.pipe(HttpApiSchema.status(201)), { location: Schema.String }),
      error: [TokenNameTakenProblem, TooManyTokensProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "tokens" })
      .annotate(AnswersSecret, true)
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a token",
          description:
            "Its text is in this answer and nowhere else; one that was lost is revoked, and another one made."
        })
      ),
    HttpApiEndpoint.get("get", "/tokens/:token", {
      params: { token: Schema.String },
      success: HttpApiSchema.WithHeaders(Token, { etag: Schema.optionalKey(Schema.String) }),
      error: [TokenNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "tokens" })
      .annotateMerge(OpenApi.annotations({ summary: "One token" })),
    HttpApiEndpoint.patch("change", "/tokens/:token", {
      params: { token: Schema.String },
      query: dryRun,
      headers: Values.ifMatch,
      payload: TokenChange,
      success: HttpApiSchema.WithHeaders(Token, Values.etag),
      error: [
        TokenNotFoundProblem,
        TokenRevokedProblem,
        TokenConfiguredProblem,
        PreconditionFailedProblem,
        PreconditionRequiredProblem,
        StorageUnavailableProblem
      ]
    })
      .annotate(Requires, { verb: "write", resource: "tokens" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes a token's roles, its grant or its end",
          description:
            "At once, and its text stays. Sessions that speak by it end when its grant changes, and come back; identities that were enrolled with it keep theirs."
        })
      ),
    HttpApiEndpoint.post("revoke", "/tokens/:token/revoke", {
      params: { token: Schema.String },
      query: dryRun,
      payload: Schema.Struct({ reason: Values.Reason }),
      success: Token,
      error: [TokenNotFoundProblem, TokenRevokedProblem, TokenConfiguredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "tokens" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Revokes a token",
          description:
            "It is refused from now on, and sessions that speak by it end. Identities that were enrolled with it stay."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Tokens", description: "With which hosts and people are let in." })) {}
