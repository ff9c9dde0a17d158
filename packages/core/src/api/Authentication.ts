/** How callers of the API prove who they are: a bearer token of an administrator. */
import { HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import { TokenInvalidProblem } from "./Problems.ts"

export class AdminToken extends HttpApiMiddleware.Service<AdminToken>()("@prism-dns/core/api/AdminToken", {
  security: { bearer: HttpApiSecurity.bearer },
  error: TokenInvalidProblem,
  requiredForClient: true
}) {}
