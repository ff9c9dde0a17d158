/**
 * How callers of the API prove who they are (a bearer token), and what each
 * endpoint asks of them.
 *
 * Every endpoint carries what it requires (`Requires`); one that does not is
 * closed to everyone. The middleware asks whether the caller may do such a
 * thing anywhere at all; the handler, which knows what the request is about,
 * asks for the place (`server/http/Authorization`).
 */
import { Context } from "effect"
import { HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import type { Authority, Resource, Verb } from "../auth/Permissions.ts"
import type { Grant } from "../auth/Principal.ts"
import { ForbiddenProblem, RateLimitedProblem, TokenInvalidProblem } from "./Problems.ts"

/** Who asks: taken as it is, an `Actor` for the audit. */
export class Caller extends Context.Service<
  Caller,
  {
    /** Names it in the audit: the token's name, or `oidc:` and a subject. */
    readonly name: string
    readonly kind: "token" | "oidc"
    /** The address the request came from; undefined where the connection has none. */
    readonly peer: string | undefined
    /** The request's id. */
    readonly request: string
    readonly roles: ReadonlyArray<string>
    readonly authority: Authority
    /** What it may claim for hosts that it registers. */
    readonly grant: Grant
    /** When the proof runs out, in milliseconds; undefined: never. */
    readonly expiresAtMillis: number | undefined
  }
>()("@prism-dns/core/api/Caller") {}

/** What an endpoint asks of its caller; `anyone`: only that it is known. */
export type Requirement = { readonly verb: Verb; readonly resource: Resource } | "anyone"

export class Requires extends Context.Service<Requires, Requirement>()("@prism-dns/core/api/Requires") {}

/**
 * Marks an endpoint whose answer holds a secret, which is shown once: it is not kept for whoever asks again with the same
 * `Idempotency-Key`.
 */
export const AnswersSecret = Context.Reference<boolean>("@prism-dns/core/api/AnswersSecret", {
  defaultValue: () => false
})

export class Authorization extends HttpApiMiddleware.Service<Authorization, { provides: Caller }>()(
  "@prism-dns/core/api/Authorization",
  {
    security: { bearer: HttpApiSecurity.bearer },
    error: [TokenInvalidProblem, ForbiddenProblem, RateLimitedProblem],
    requiredForClient: true
  }
) {}
