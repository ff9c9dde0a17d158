/**
 * Errors of the HTTP API, as `application/problem+json` (RFC 9457).
 *
 * Each has a stable `type`, under which programs know it, and a `detail` in a
 * sentence for people. The table names them all; the classes are those an
 * endpoint declares. Leaves to others: turning failures of services into them.
 */
import { Schema, SchemaTransformation } from "effect"
import { ProblemDetails } from "effect/http"
import { HttpApiSchema } from "effect/http-api"

export interface Problem {
  readonly type: string
  readonly status: number
  readonly title: string
}

const problem = (name: string, status: number, title: string): Problem => ({
  type: `urn:prism-dns:problem:${name}`,
  status,
  title
})

/** Every problem the server answers with. A `type` that was released keeps its meaning. */
export const problems = {
  requestInvalid: problem("request-invalid", 400, "Request invalid"),
  requestMalformed: problem("request-malformed", 400, "Not an HTTP request"),
  requestTimeout: problem("request-timeout", 408, "Request timeout"),
  headersTooLarge: problem("headers-too-large", 431, "Headers too large"),
  tokenInvalid: problem("token-invalid", 401, "Token missing or invalid"),
  forbidden: problem("forbidden", 403, "Not allowed"),
  preconditionFailed: problem("precondition-failed", 412, "Changed meanwhile"),
  preconditionRequired: problem("precondition-required", 428, "If-Match required"),
  hostNotFound: problem("host-not-found", 404, "Host not found"),
  zoneNotFound: problem("zone-not-found", 404, "Zone not found"),
  zoneExists: problem("zone-exists", 409, "Zone exists already"),
  zoneOverlaps: problem("zone-overlaps", 409, "Zone would take over names"),
  zoneConfigured: problem("zone-configured", 409, "Zone of the configuration"),
  zoneInUse: problem("zone-in-use", 409, "Zone in use"),
  tooManyZones: problem("too-many-zones", 409, "Too many zones"),
  planNotFound: problem("plan-not-found", 404, "Plan not found"),
  recordNotFound: problem("record-not-found", 404, "Record set not found"),
  entryNotFound: problem("entry-not-found", 404, "Entry of the audit not found"),
  tokenNotFound: problem("token-not-found", 404, "Token not found"),
  identityNotFound: problem("identity-not-found", 404, "Identity not found"),
  roleNotFound: problem("role-not-found", 404, "Role not found"),
  principalNotFound: problem("principal-not-found", 404, "Principal not found"),
  tokenNameTaken: problem("token-name-taken", 409, "Token name taken"),
  tokenRevoked: problem("token-revoked", 409, "Token revoked already"),
  tokenConfigured: problem("token-configured", 409, "Token of the configuration"),
  roleNameTaken: problem("role-name-taken", 409, "Role name taken"),
  roleBuiltIn: problem("role-built-in", 409, "Built-in role"),
  roleInUse: problem("role-in-use", 409, "Role in use"),
  tooManyRoles: problem("too-many-roles", 409, "Too many roles"),
  tooManyTokens: problem("too-many-tokens", 409, "Too many tokens"),
  identityRevoked: problem("identity-revoked", 409, "Identity revoked already"),
  hostRetired: problem("host-retired", 409, "Host retired already"),
  hostnameTaken: problem("hostname-taken", 409, "Name taken"),
  quotaExceeded: problem("quota-exceeded", 409, "Too many hosts"),
  claimRefused: problem("claim-refused", 403, "Claim refused"),
  guardNotTripped: problem("guard-not-tripped", 409, "Guard not tripped"),
  recordConflict: problem("record-conflict", 409, "Something stands in its way"),
  planDecided: problem("plan-decided", 409, "Plan already decided"),
  planAltered: problem("plan-altered", 409, "Plan altered"),
  deleteBudgetExceeded: problem("delete-budget-exceeded", 409, "Delete budget exceeded"),
  tooManySubscribers: problem("too-many-subscribers", 503, "Too many subscribers"),
  webhookNotFound: problem("webhook-not-found", 404, "Webhook not found"),
  webhookNameTaken: problem("webhook-name-taken", 409, "Webhook name taken"),
  tooManyWebhooks: problem("too-many-webhooks", 409, "Too many webhooks"),
  pathNotFound: problem("path-not-found", 404, "Path not found"),
  methodNotAllowed: problem("method-not-allowed", 405, "Method not allowed"),
  bodyTooLarge: problem("body-too-large", 413, "Body too large"),
  idempotencyKeyReused: problem("idempotency-key-reused", 422, "Idempotency-Key of another request"),
  idempotencyInProgress: problem("idempotency-in-progress", 409, "Still being answered"),
  idempotencyAnswerGone: problem("idempotency-answer-gone", 409, "Answered before"),
  rateLimited: problem("rate-limited", 429, "Too many requests"),
  mediaTypeUnsupported: problem("media-type-unsupported", 415, "Media type not supported"),
  internalError: problem("internal-error", 500, "Internal error"),
  powerDnsFailed: problem("powerdns-failed", 502, "PowerDNS failed"),
  storageUnavailable: problem("storage-unavailable", 503, "Storage unavailable")
} as const

/** Where in the request a value is wrong. */
export const RequestPart = Schema.Literals(["path", "query", "header", "body"])
export type RequestPart = typeof RequestPart.Type

export const InvalidValue = Schema.Struct({
  in: RequestPart,
  pointer: Schema.String.annotate({ description: "JSON Pointer to the value within that part." }),
  detail: Schema.String
})
export type InvalidValue = typeof InvalidValue.Type

/** Something in the request is not as the contract says. Sending it again does not help. */
export class RequestInvalid extends Schema.TaggedError<RequestInvalid>()("RequestInvalid", {
  detail: Schema.String,
  errors: Schema.Array(InvalidValue)
}) {
  override get message(): string {
    return this.detail
  }
}

/** No bearer token, or none that is good here. */
export class TokenInvalid extends Schema.TaggedError<TokenInvalid>()("TokenInvalid", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The caller is known, and may not do this. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The caller asks more often than it may; the same request may succeed later. */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  detail: Schema.String,
  retryAfterSeconds: Schema.Int
}) {
  override get message(): string {
    return this.detail
  }
}

/** What differs between the version that was asked for and what is there now. */
export const ChangedField = Schema.Struct({
  pointer: Schema.String.annotate({ description: "JSON Pointer to the value within the resource." }),
  before: Schema.optionalKey(
    Schema.Unknown.annotate({ description: "At the version of `If-Match`, where it is known." })
  ),
  now: Schema.optionalKey(Schema.Unknown.annotate({ description: "Absent: it is gone." }))
})
export type ChangedField = typeof ChangedField.Type

const PreconditionFigures = {
  etag: Schema.optionalKey(Schema.String.annotate({ description: "Of what is there now; absent: nothing is." })),
  changedBy: Schema.optionalKey(Schema.String.annotate({ description: "Who changed it last." })),
  changedAt: Schema.optionalKey(Schema.String),
  changes: Schema.Array(ChangedField)
}

/** What `If-Match` names is not what is there: somebody changed it meanwhile. Nothing was changed. */
export class PreconditionFailed extends Schema.TaggedError<PreconditionFailed>()("PreconditionFailed", {
  detail: Schema.String,
  ...PreconditionFigures
}) {
  override get message(): string {
    return this.detail
  }
}

/** The change could undo another's: say by `If-Match` what it starts from. */
export class PreconditionRequired extends Schema.TaggedError<PreconditionRequired>()("PreconditionRequired", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export class HostNotFound extends Schema.TaggedError<HostNotFound>()("HostNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** There is no zone of this name, or none that the caller may see. */
export class ZoneNotFound extends Schema.TaggedError<ZoneNotFound>()("ZoneNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** There is a zone of this name already; nothing was changed. */
export class ZoneExists extends Schema.TaggedError<ZoneExists>()("ZoneExists", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

const OverlapFigures = {
  zone: Schema.String.annotate({ description: "The zone that has the names now." }),
  hosts: Schema.Int,
  records: Schema.Int.annotate({ description: "Managed record sets." }),
  examples: Schema.Array(Schema.String)
}

/** The zone would take over names that are in another one; nothing was changed. */
export class ZoneOverlaps extends Schema.TaggedError<ZoneOverlaps>()("ZoneOverlaps", {
  detail: Schema.String,
  ...OverlapFigures
}) {
  override get message(): string {
    return this.detail
  }
}

/** The zone goes by the configuration alone. */
export class ZoneConfigured extends Schema.TaggedError<ZoneConfigured>()("ZoneConfigured", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

const UseFigures = {
  hosts: Schema.Int,
  records: Schema.Int.annotate({ description: "Managed record sets." }),
  publishedNames: Schema.Int.annotate({ description: "Names that are still being removed from PowerDNS." }),
  tokens: Schema.Int.annotate({ description: "Tokens that name the zone." }),
  identities: Schema.Int.annotate({ description: "Identities that name the zone." }),
  roles: Schema.Int.annotate({ description: "Roles that name the zone." })
}

/** The zone has something in it, or is named by who may use it; nothing was changed. */
export class ZoneInUse extends Schema.TaggedError<ZoneInUse>()("ZoneInUse", {
  detail: Schema.String,
  ...UseFigures
}) {
  override get message(): string {
    return this.detail
  }
}

/** There are as many zones as there may be. */
export class TooManyZones extends Schema.TaggedError<TooManyZones>()("TooManyZones", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

export class PlanNotFound extends Schema.TaggedError<PlanNotFound>()("PlanNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** There is no such entry in the audit, or none that the caller may see. */
export class EntryNotFound extends Schema.TaggedError<EntryNotFound>()("EntryNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** People manage no record set of this name and type. */
export class RecordNotFound extends Schema.TaggedError<RecordNotFound>()("RecordNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The record set may not stand there, by what else does. */
export class RecordConflict extends Schema.TaggedError<RecordConflict>()("RecordConflict", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The plan was applied or rejected before; it stays as it is. */
export class PlanDecided extends Schema.TaggedError<PlanDecided>()("PlanDecided", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The plan's changes are not those that were shown; make another one. */
export class PlanAltered extends Schema.TaggedError<PlanAltered>()("PlanAltered", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The host is retired already; nothing was changed. */
export class HostRetired extends Schema.TaggedError<HostRetired>()("HostRetired", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The name is another's, or moves to and fro between several machines; nothing was changed. */
export class HostnameTaken extends Schema.TaggedError<HostnameTaken>()("HostnameTaken", {
  detail: Schema.String,
  /** When the same may succeed, in seconds; undefined: when something else has changed. */
  retryAfterSeconds: Schema.UndefinedOr(Schema.Int)
}) {
  override get message(): string {
    return this.detail
  }
}

/** There are as many hosts as there may be, of this owner or in this zone; nothing was changed. */
export class QuotaExceeded extends Schema.TaggedError<QuotaExceeded>()("QuotaExceeded", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** A rule of access keeps the caller from this name or these addresses; nothing was changed. */
export class ClaimRefused extends Schema.TaggedError<ClaimRefused>()("ClaimRefused", {
  detail: Schema.String,
  /** As agents are told it. */
  code: Schema.String,
  /** As `/v1/access:explain` calls it. */
  rule: Schema.String,
  retryAfterSeconds: Schema.UndefinedOr(Schema.Int)
}) {
  override get message(): string {
    return this.detail
  }
}

export class TokenNotFound extends Schema.TaggedError<TokenNotFound>()("TokenNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** Nobody of this name may claim anything. */
export class PrincipalNotFound extends Schema.TaggedError<PrincipalNotFound>()("PrincipalNotFound", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export class RoleNotFound extends Schema.TaggedError<RoleNotFound>()("RoleNotFound", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** There is a role of this name. */
export class RoleNameTaken extends Schema.TaggedError<RoleNameTaken>()("RoleNameTaken", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** A built-in role stays as it is. */
export class RoleBuiltIn extends Schema.TaggedError<RoleBuiltIn>()("RoleBuiltIn", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** Somebody has the role, as the detail says. */
export class RoleInUse extends Schema.TaggedError<RoleInUse>()("RoleInUse", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** There are as many roles as there may be. */
export class TooManyRoles extends Schema.TaggedError<TooManyRoles>()("TooManyRoles", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

export class IdentityNotFound extends Schema.TaggedError<IdentityNotFound>()("IdentityNotFound", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** Another token has the name, or had it. */
export class TokenNameTaken extends Schema.TaggedError<TokenNameTaken>()("TokenNameTaken", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The token is revoked already; nothing was changed. */
export class TokenRevoked extends Schema.TaggedError<TokenRevoked>()("TokenRevoked", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** Only the configuration can take the token away. */
export class TokenConfigured extends Schema.TaggedError<TokenConfigured>()("TokenConfigured", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** There are as many tokens as there may be. */
export class TooManyTokens extends Schema.TaggedError<TooManyTokens>()("TooManyTokens", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The identity is revoked already; nothing was changed. */
export class IdentityRevoked extends Schema.TaggedError<IdentityRevoked>()("IdentityRevoked", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** There is nothing to allow: the guard lets everything through. */
export class GuardNotTripped extends Schema.TaggedError<GuardNotTripped>()("GuardNotTripped", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** As many clients follow events as may; a later try, or one at another server, may succeed. */
export class TooManySubscribers extends Schema.TaggedError<TooManySubscribers>()("TooManySubscribers", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export class WebhookNotFound extends Schema.TaggedError<WebhookNotFound>()("WebhookNotFound", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** Another webhook has the name. */
export class WebhookNameTaken extends Schema.TaggedError<WebhookNameTaken>()("WebhookNameTaken", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** There are as many webhooks as there may be. */
export class TooManyWebhooks extends Schema.TaggedError<TooManyWebhooks>()("TooManyWebhooks", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** How much a zone may lose, and how much this would be. */
export const BudgetFigures = {
  plan: Schema.String.annotate({ description: "The plan's id." }),
  zone: Schema.String,
  wanted: Schema.Int.annotate({ description: "Names that the plan would take all records from." }),
  remaining: Schema.Int.annotate({ description: "Names that may still be deleted within the window." }),
  published: Schema.Int.annotate({ description: "Names that Prism has in the zone." }),
  deleted: Schema.Int.annotate({ description: "Names deleted within the window, or on their way to it." }),
  windowSeconds: Schema.Finite
}

/** The plan deletes more than the zone's budget allows; a person may override that, with a reason. */
export class DeleteBudgetExceeded extends Schema.TaggedError<DeleteBudgetExceeded>()("DeleteBudgetExceeded", {
  detail: Schema.String,
  ...BudgetFigures
}) {
  override get message(): string {
    return this.detail
  }
}

/** PowerDNS does not answer, or not so that it helps. */
export class PowerDnsFailed extends Schema.TaggedError<PowerDnsFailed>()("PowerDnsFailed", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** The database does not answer at the moment; a later try may succeed. */
export class StorageUnavailable extends Schema.TaggedError<StorageUnavailable>()("StorageUnavailable", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

const Body = <Fields extends Schema.Struct.Fields>({ status, title, type }: Problem, fields: Fields) =>
  Schema.Struct({
    type: Schema.tag(type),
    title: Schema.tag(title),
    status: Schema.tag(status),
    detail: Schema.String,
    instance: Schema.optionalKey(Schema.String.annotate({ description: "The request it is about, as a URN." })),
    ...fields
  })

const asProblem =
  (status: number) =>
  <S extends Schema.Top>(self: S) =>
    self.pipe(HttpApiSchema.asJson({ contentType: ProblemDetails.contentType }), HttpApiSchema.status(status))

const onlyDetail = <E extends { readonly detail: string }>(
  kind: Problem,
  error: Schema.Codec<E, unknown> & (new (fields: { readonly detail: string }) => E)
) =>
  Body(kind, {}).pipe(
    Schema.decodeTo(
      Schema.toType(error),
      SchemaTransformation.transform({
        decode: ({ detail }) => new error({ detail }),
        encode: ({ detail }) => ({ ...kind, detail })
      })
    ),
    asProblem(kind.status)
  )

export const ForbiddenProblem = onlyDetail(problems.forbidden, Forbidden)
export const PreconditionRequiredProblem = onlyDetail(problems.preconditionRequired, PreconditionRequired)
export const PreconditionFailedProblem = Body(problems.preconditionFailed, PreconditionFigures).pipe(
  Schema.decodeTo(
    Schema.toType(PreconditionFailed),
    SchemaTransformation.transform({
      decode: (body) => new PreconditionFailed(body),
      encode: ({ changedAt, changedBy, changes, detail, etag }) => ({
        ...problems.preconditionFailed,
        detail,
        ...(etag !== undefined && { etag }),
        ...(changedBy !== undefined && { changedBy }),
        ...(changedAt !== undefined && { changedAt }),
        changes
      })
    })
  ),
  asProblem(problems.preconditionFailed.status)
)
export const HostNotFoundProblem = onlyDetail(problems.hostNotFound, HostNotFound)
export const ZoneNotFoundProblem = onlyDetail(problems.zoneNotFound, ZoneNotFound)
export const ZoneExistsProblem = onlyDetail(problems.zoneExists, ZoneExists)
export const ZoneConfiguredProblem = onlyDetail(problems.zoneConfigured, ZoneConfigured)
export const TooManyZonesProblem = onlyDetail(problems.tooManyZones, TooManyZones)
export const ZoneOverlapsProblem = Body(problems.zoneOverlaps, OverlapFigures).pipe(
  Schema.decodeTo(
    Schema.toType(ZoneOverlaps),
    SchemaTransformation.transform({
      decode: (body) => new ZoneOverlaps(body),
      encode: ({ detail, examples, hosts, records, zone }) => ({
        ...problems.zoneOverlaps,
        detail,
        zone,
        hosts,
        records,
        examples
      })
    })
  ),
  asProblem(problems.zoneOverlaps.status)
)
export const ZoneInUseProblem = Body(problems.zoneInUse, UseFigures).pipe(
  Schema.decodeTo(
    Schema.toType(ZoneInUse),
    SchemaTransformation.transform({
      decode: (body) => new ZoneInUse(body),
      encode: ({ detail, hosts, identities, publishedNames, records, roles, tokens }) => ({
        ...problems.zoneInUse,
        detail,
        hosts,
        records,
        publishedNames,
        tokens,
        identities,
        roles
      })
    })
  ),
  asProblem(problems.zoneInUse.status)
)
export const PlanNotFoundProblem = onlyDetail(problems.planNotFound, PlanNotFound)
export const EntryNotFoundProblem = onlyDetail(problems.entryNotFound, EntryNotFound)
export const RecordNotFoundProblem = onlyDetail(problems.recordNotFound, RecordNotFound)
export const RecordConflictProblem = onlyDetail(problems.recordConflict, RecordConflict)
export const PlanDecidedProblem = onlyDetail(problems.planDecided, PlanDecided)
export const PlanAlteredProblem = onlyDetail(problems.planAltered, PlanAltered)
export const TokenNotFoundProblem = onlyDetail(problems.tokenNotFound, TokenNotFound)
export const IdentityNotFoundProblem = onlyDetail(problems.identityNotFound, IdentityNotFound)
export const RoleNotFoundProblem = onlyDetail(problems.roleNotFound, RoleNotFound)
export const RoleNameTakenProblem = onlyDetail(problems.roleNameTaken, RoleNameTaken)
export const RoleBuiltInProblem = onlyDetail(problems.roleBuiltIn, RoleBuiltIn)
export const RoleInUseProblem = onlyDetail(problems.roleInUse, RoleInUse)
export const TooManyRolesProblem = onlyDetail(problems.tooManyRoles, TooManyRoles)
export const PrincipalNotFoundProblem = onlyDetail(problems.principalNotFound, PrincipalNotFound)
export const TokenNameTakenProblem = onlyDetail(problems.tokenNameTaken, TokenNameTaken)
export const TokenRevokedProblem = onlyDetail(problems.tokenRevoked, TokenRevoked)
export const TokenConfiguredProblem = onlyDetail(problems.tokenConfigured, TokenConfigured)
export const TooManyTokensProblem = onlyDetail(problems.tooManyTokens, TooManyTokens)
export const IdentityRevokedProblem = onlyDetail(problems.identityRevoked, IdentityRevoked)
export const HostRetiredProblem = onlyDetail(problems.hostRetired, HostRetired)
export const QuotaExceededProblem = onlyDetail(problems.quotaExceeded, QuotaExceeded)
export const GuardNotTrippedProblem = onlyDetail(problems.guardNotTripped, GuardNotTripped)
export const TooManySubscribersProblem = onlyDetail(problems.tooManySubscribers, TooManySubscribers)
export const WebhookNotFoundProblem = onlyDetail(problems.webhookNotFound, WebhookNotFound)
export const WebhookNameTakenProblem = onlyDetail(problems.webhookNameTaken, WebhookNameTaken)
export const TooManyWebhooksProblem = onlyDetail(problems.tooManyWebhooks, TooManyWebhooks)
export const PowerDnsFailedProblem = onlyDetail(problems.powerDnsFailed, PowerDnsFailed)
export const StorageUnavailableProblem = onlyDetail(problems.storageUnavailable, StorageUnavailable)

export const DeleteBudgetExceededProblem = Body(problems.deleteBudgetExceeded, BudgetFigures).pipe(
  Schema.decodeTo(
    Schema.toType(DeleteBudgetExceeded),
    SchemaTransformation.transform({
      decode: (body) => new DeleteBudgetExceeded(body),
      encode: ({ deleted, detail, plan, published, remaining, wanted, windowSeconds, zone }) => ({
        ...problems.deleteBudgetExceeded,
        detail,
        plan,
        zone,
        wanted,
        remaining,
        published,
        deleted,
        windowSeconds
      })
    })
  ),
  asProblem(problems.deleteBudgetExceeded.status)
)

const retryAfter = {
  retryAfterSeconds: Schema.optionalKey(Schema.Int.annotate({ description: "When the same may succeed, in seconds." }))
}

export const HostnameTakenProblem = Body(problems.hostnameTaken, retryAfter).pipe(
  Schema.decodeTo(
    Schema.toType(HostnameTaken),
    SchemaTransformation.transform({
      decode: ({ detail, retryAfterSeconds }) => new HostnameTaken({ detail, retryAfterSeconds }),
      encode: ({ detail, retryAfterSeconds }) => ({
        ...problems.hostnameTaken,
        detail,
        ...(retryAfterSeconds !== undefined && { retryAfterSeconds })
      })
    })
  ),
  asProblem(problems.hostnameTaken.status)
)

export const ClaimRefusedProblem = Body(problems.claimRefused, {
  code: Schema.String.annotate({ description: "As agents are told it, such as `address-not-allowed`." }),
  rule: Schema.String.annotate({ description: "The rule that decided, as `/v1/access:explain` calls it." }),
  ...retryAfter
}).pipe(
  Schema.decodeTo(
    Schema.toType(ClaimRefused),
    SchemaTransformation.transform({
      decode: ({ code, detail, retryAfterSeconds, rule }) =>
        new ClaimRefused({ code, detail, retryAfterSeconds, rule }),
      encode: ({ code, detail, retryAfterSeconds, rule }) => ({
        ...problems.claimRefused,
        detail,
        code,
        rule,
        ...(retryAfterSeconds !== undefined && { retryAfterSeconds })
      })
    })
  ),
  asProblem(problems.claimRefused.status)
)

export const RequestInvalidProblem = Body(problems.requestInvalid, { errors: Schema.Array(InvalidValue) }).pipe(
  Schema.decodeTo(
    Schema.toType(RequestInvalid),
    SchemaTransformation.transform({
      decode: ({ detail, errors }) => new RequestInvalid({ detail, errors }),
      encode: ({ detail, errors }) => ({ ...problems.requestInvalid, detail, errors })
    })
  ),
  asProblem(problems.requestInvalid.status)
)

/** Says in `Retry-After` when to come back (RFC 9110 10.2.3). */
export const RateLimitedProblem = RateLimited.pipe(
  HttpApiSchema.encodeToWithHeaders(
    {
      body: Body(problems.rateLimited, {
        retryAfterSeconds: Schema.Int.annotate({ description: "When the next request may succeed, in seconds." })
      }).pipe(asProblem(problems.rateLimited.status)),
      headers: { "retry-after": Schema.String }
    },
    {
      decode: ({ body: { detail, retryAfterSeconds } }) => new RateLimited({ detail, retryAfterSeconds }),
      encode: ({ detail, retryAfterSeconds }) => ({
        body: { ...problems.rateLimited, detail, retryAfterSeconds },
        headers: { "retry-after": String(retryAfterSeconds) }
      })
    }
  )
)

/** Says in `WWW-Authenticate` what is wanted (RFC 9110 11.6.1). */
export const TokenInvalidProblem = TokenInvalid.pipe(
  HttpApiSchema.encodeToWithHeaders(
    {
      body: Body(problems.tokenInvalid, {}).pipe(asProblem(problems.tokenInvalid.status)),
      headers: { "www-authenticate": Schema.String }
    },
    {
      decode: ({ body }) => new TokenInvalid({ detail: body.detail }),
      encode: ({ detail }) => ({
        body: { ...problems.tokenInvalid, detail },
        headers: { "www-authenticate": 'Bearer realm="prism-dns"' }
      })
    }
  )
)
