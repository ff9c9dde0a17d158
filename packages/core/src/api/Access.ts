/** Access in the HTTP API: which rule decides a claim, and by which role somebody may do something by the API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { resources, verbs } from "../auth/Permissions.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { Grant } from "./Grant.ts"
import { PrincipalNotFoundProblem, StorageUnavailableProblem } from "./Problems.ts"
import { Permission } from "./Roles.ts"
import * as Values from "./Values.ts"

export const outcomes = ["passed", "failed", "not-applicable"] as const
export const claimProtocols = ["1.0", "2.0", "api"] as const

const Principal = Schema.String.check(Schema.isBetweenLength(1, 1024)).annotate({
  description:
    "Who claims: the id of an identity, the name of a token, `cert:` and the name of a client certificate, or `anonymous`."
})

const Protocol = Schema.Literals(claimProtocols)

const Ttl = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 }))

/** With `verb` and `resource` it is about the API, else about a claim, which needs `principal`, `hostname` and `addresses`. */
export const ExplainRequest = Schema.Struct({
  principal: Schema.optionalKey(
    Principal.annotate({
      description:
        "Who claims: the id of an identity, the name of a token, `cert:` and the name of a client certificate, or `anonymous`. With `verb` the name of a token, or `role:` and the name of a role; default: who asks."
    })
  ),
  verb: Schema.optionalKey(Schema.Literals(verbs).annotate({ description: "What is to be done by the API." })),
  resource: Schema.optionalKey(Schema.Literals(resources).annotate({ description: "What it is to be done with." })),
  name: Schema.optionalKey(Values.NameInput.annotate({ description: "With `verb`: a full name within the zone." })),
  hostname: Schema.optionalKey(
    Values.NameInput.annotate({
      description: "The name that is claimed: the full one, or what stands before its zone."
    })
  ),
  zone: Schema.optionalKey(
    Values.NameInput.annotate({
      description: "Default: as for a host that says none; with `verb` that of `name`, or else no zone in particular."
    })
  ),
  addresses: Schema.optionalKey(
    Schema.Array(Values.ClaimedAddressInput)
      .check(Schema.isBetweenLength(1, Values.addressesMax))
      .annotate({ description: "The addresses that are claimed." })
  ),
  peer: Schema.optionalKey(
    Values.AddressInput.annotate({ description: "The address it is said from. Default: the first of `addresses`." })
  ),
  protocol: Schema.optionalKey(Protocol.annotate({ description: "Default: `2.0`." })),
  ttlSeconds: Schema.optionalKey(Ttl.annotate({ description: "The TTL that is wished for. Default: none." }))
}).annotate({ identifier: "ExplainRequest" })
export type ExplainRequest = typeof ExplainRequest.Type

const Rule = Schema.Struct({
  rule: Schema.String.annotate({ description: "As the guide to access calls it." }),
  outcome: Schema.Literals(outcomes),
  detail: Schema.String,
  code: Schema.optionalKey(Schema.String.annotate({ description: "With what it would be refused." }))
})

export const Explained = Schema.Struct({
  principal: Schema.Struct({
    name: Schema.String,
    kind: Schema.Literals(["key", "certificate", "token", "anonymous"]),
    grant: Grant,
    namesMax: Schema.optionalKey(
      Schema.Int.annotate({
        description: "Names it may hold at once, by its grant or the server's limits. Absent: any number."
      })
    )
  }),
  host: Values.Name,
  zone: Values.Name,
  addresses: Schema.Array(Values.Address),
  peer: Schema.optionalKey(Values.Address),
  protocol: Protocol,
  allowed: Schema.Boolean,
  decidedBy: Schema.optionalKey(
    Schema.String.annotate({ description: "The first rule that failed. Absent where the claim is allowed." })
  ),
  code: Schema.optionalKey(Schema.String.annotate({ description: "With what the claim is refused." })),
  detail: Schema.String.annotate({ description: "What that rule says, and what to do; or that the claim is allowed." }),
  ttlSeconds: Schema.optionalKey(Schema.Int.annotate({ description: "What becomes of the wish for a TTL." })),
  rules: Schema.Array(Rule).annotate({ description: "Every rule, in the order in which they decide." })
}).annotate({ identifier: "Explained" })
export type Explained = typeof Explained.Type

export const ExplainedRight = Schema.Struct({
  principal: Schema.Struct({
    name: Schema.String,
    kind: Schema.Literals(["token", "oidc", "role"]),
    roles: Schema.Array(Schema.String),
    zones: Schema.optionalKey(Schema.Array(Values.Name)),
    names: Schema.optionalKey(Schema.Array(Schema.String))
  }),
  verb: Schema.Literals(verbs),
  resource: Schema.Literals(resources),
  zone: Schema.optionalKey(Values.Name),
  name: Schema.optionalKey(Values.Name),
  allowed: Schema.Boolean,
  by: Schema.optionalKey(
    Schema.Struct({ role: Schema.String, permission: Permission }).annotate({
      description: "The first role that allows it, by which of its permissions. Absent where none does."
    })
  ),
  detail: Schema.String.annotate({ description: "Why, in a sentence." }),
  rules: Schema.Array(Rule).annotate({
    description:
      "`bounds` are the zones and names that the principal is bound to; then each role, as `role:` and its name."
  })
}).annotate({ identifier: "ExplainedRight" })
export type ExplainedRight = typeof ExplainedRight.Type

const description =
  "With `verb` and `resource`: what a token or a role may do by the API, and by which role; without `principal`, or with its own " +
  "name, everyone may ask that about itself, all else takes the permission to read `access`. Else a claim: nothing is claimed, " +
  "and no rate is taken from; whether several machines claim the name in turn is not looked at."

export class Access extends HttpApiGroup.make("access")
  .add(
    HttpApiEndpoint.get("explain", "/access::explain", {
      query: {
        principal: Schema.optionalKey(Principal),
        verb: Schema.optionalKey(Schema.Literals(verbs)),
        resource: Schema.optionalKey(Schema.Literals(resources)),
        name: Schema.optionalKey(Values.NameInput),
        hostname: Schema.optionalKey(Values.NameInput),
        zone: Schema.optionalKey(Values.NameInput),
        addresses: Schema.optionalKey(Values.ClaimedAddresses),
        peer: Schema.optionalKey(Values.AddressInput),
        protocol: Schema.optionalKey(Protocol),
        ttlSeconds: Schema.optionalKey(Schema.FiniteFromString.pipe(Schema.decodeTo(Ttl)))
      },
      success: [Explained, ExplainedRight],
      error: [PrincipalNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, "anyone")
      .annotateMerge(
        OpenApi.annotations({ summary: "Which rule decides a claim, or which role a request", description })
      ),
    HttpApiEndpoint.post("explainRequest", "/access::explain", {
      payload: ExplainRequest,
      success: [Explained, ExplainedRight],
      error: [PrincipalNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, "anyone")
      .annotateMerge(OpenApi.annotations({ summary: "The same, asked in a body", description }))
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Access", description: "Who may claim what, and why not." })) {}
