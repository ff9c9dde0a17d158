/** How callers of the API prove who they are: a bearer token of an administrator. */
import { Context } from "effect"
import { HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import { TokenInvalidProblem } from "./Problems.ts"

/** Who asks, for the audit. */
export class Caller extends Context.Service<
  Caller,
  {
    /** The name of the token's holder. */
    readonly name: string
    /** The address the request came from; undefined where the connection has none. */
    readonly peer: string | undefined
  }
>()("@prism-dns/core/api/Caller") {}

export class AdminToken extends HttpApiMiddleware.Service<AdminToken, { provides: Caller }>()(
  "@prism-dns/core/api/AdminToken",
  {
    security: { bearer: HttpApiSecurity.bearer },
    error: TokenInvalidProblem,
    requiredForClient: true
  }
) {}
