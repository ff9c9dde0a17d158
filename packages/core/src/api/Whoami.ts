/** Who asks, in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import { StorageUnavailableProblem } from "./Problems.ts"
import { tokenOrigins, tokenRoles } from "./Tokens.ts"
import * as Values from "./Values.ts"

export const Whoami = Schema.Struct({
  name: Schema.String.annotate({ description: "As it stands in the audit." }),
  kind: Schema.Literals(["token"]).annotate({ description: "How that was proven." }),
  role: Schema.Literals(tokenRoles),
  origin: Schema.Literals(tokenOrigins),
  expiresAt: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent: never." })),
  peer: Schema.optionalKey(Schema.String.annotate({ description: "The address that the request came from." }))
}).annotate({ identifier: "Whoami" })
export type Whoami = typeof Whoami.Type

export class WhoamiGroup extends HttpApiGroup.make("whoami")
  .add(
    HttpApiEndpoint.get("get", "/whoami", { success: Whoami, error: StorageUnavailableProblem })
      .annotate(Requires, "anyone")
      .annotateMerge(OpenApi.annotations({ summary: "Who asks" }))
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Who asks", description: "What the token of the request is." })) {}
