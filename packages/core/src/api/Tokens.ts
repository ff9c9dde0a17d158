/** Tokens in the HTTP API: those of the configuration, and those made here. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { AnswersSecret, Authorization, Requires } from "./Authentication.ts"
import { Grant, GrantRequest } from "./Grant.ts"
import * as Page from "./Page.ts"
import {
  StorageUnavailableProblem,
  TokenConfiguredProblem,
  TokenNameTakenProblem,
  TokenNotFoundProblem,
  TokenRevokedProblem,
  TooManyTokensProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

export const tokenRoles = ["agent", "admin"] as const
export const tokenUses = ["bearer", "enrol", "both"] as const
export const tokenStates = ["active", "expired", "revoked", "used-up"] as const
export const tokenOrigins = ["configuration", "registry"] as const

const Role = Schema.Literals(tokenRoles)
const Allows = Schema.Literals(tokenUses)

/** A person's word that ended something. */
export const Revoked = Schema.Struct({ at: Values.Timestamp, reason: Schema.String })

const tokenFields = {
  id: Schema.optionalKey(Schema.String.annotate({ description: "Absent for a token of the configuration." })),
  name: Schema.String.annotate({ description: "Stands in the audit, and as owner of its holder's hosts." }),
  role: Role,
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

export const Token = Schema.Struct(tokenFields).annotate({ identifier: "Token" })
export type Token = typeof Token.Type

export const TokenIssued = Schema.Struct({
  token: Schema.String.annotate({ description: "Its text, shown this once: what is kept is a hash of it." }),
  ...tokenFields
}).annotate({ identifier: "TokenIssued" })
export type TokenIssued = typeof TokenIssued.Type

export const TokenPage = Schema.Struct({
  items: Schema.Array(Token),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "TokenPage" })
export type TokenPage = typeof TokenPage.Type

export const TokenRequest = Schema.Struct({
  name: Schema.String.check(Schema.isBetweenLength(1, 128)).annotate({
    description: "Letters, digits and `. _ @ -` between them. A name is never given anew."
  }),
  role: Schema.optionalKey(Role.annotate({ description: "Default: `agent`." })),
  allows: Allows.annotate({ description: "An administrator's token allows `bearer`." }),
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
      success: Token,
      error: [TokenNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "tokens" })
      .annotateMerge(OpenApi.annotations({ summary: "One token" })),
    HttpApiEndpoint.post("revoke", "/tokens/:token/revoke", {
      params: { token: Schema.String },
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
