/** Who asks, in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Authorization, Requires } from "./Authentication.ts"
import { StorageUnavailableProblem } from "./Problems.ts"
import { Permission } from "./Roles.ts"
import { tokenOrigins, tokenRoles } from "./Tokens.ts"
import * as Values from "./Values.ts"

export const Whoami = Schema.Struct({
  name: Schema.String.annotate({ description: "As it stands in the audit." }),
  kind: Schema.Literals(["token", "oidc"]).annotate({
    description: "How that was proven: by a token of Prism's, or by one of an identity provider."
  }),
  roles: Schema.Array(Schema.String),
  permissions: Schema.Array(Permission).annotate({
    description: "What its roles allow now, each within `zones` and `names` below. What none of them allows is denied."
  }),
  zones: Schema.optionalKey(
    Schema.Array(Values.Name).annotate({ description: "Beyond these zones it may nothing. Absent: no such bound." })
  ),
  names: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({
      description: "Patterns of names below their zone; beyond these it may nothing. Absent: no such bound."
    })
  ),
  role: Schema.optionalKey(Schema.Literals(tokenRoles).annotate({ description: "Of a token of Prism's: its kind." })),
  origin: Schema.optionalKey(Schema.Literals(tokenOrigins).annotate({ description: "Of a token of Prism's." })),
  expiresAt: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent: never." })),
  peer: Schema.optionalKey(Schema.String.annotate({ description: "The address that the request came from." }))
}).annotate({ identifier: "Whoami" })
export type Whoami = typeof Whoami.Type

export class WhoamiGroup extends HttpApiGroup.make("whoami")
  .add(
    HttpApiEndpoint.get("get", "/whoami", { success: Whoami, error: StorageUnavailableProblem })
      .annotate(Requires, "anyone")
      .annotateMerge(OpenApi.annotations({ summary: "Who asks, and what it may do" }))
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Who asks", description: "What the token of the request is." })) {}
