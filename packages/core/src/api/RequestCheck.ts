/** A request that does not fit the contract is refused, with all that is wrong about it. */
import { HttpApiMiddleware } from "effect/http-api"
import { RequestInvalidProblem } from "./Problems.ts"

export class RequestCheck extends HttpApiMiddleware.Service<RequestCheck>()("@prism-dns/core/api/RequestCheck", {
  error: RequestInvalidProblem
}) {}
