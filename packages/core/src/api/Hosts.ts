/** Hosts in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ackLevels, hostStates } from "../domain/Host.ts"
import { AdminToken } from "./Authentication.ts"
import * as Page from "./Page.ts"
import { HostNotFoundProblem, StorageUnavailableProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

export const HostState = Schema.Literals(hostStates)

export const Publication = Schema.Struct({
  level: Schema.Literals(ackLevels).annotate({ description: "The furthest level this generation has reached." }),
  generation: Schema.Int,
  at: Values.Timestamp,
  error: Schema.optionalKey(Schema.String.annotate({ description: "Why it goes no further." }))
})

export const Host = Schema.Struct({
  id: Schema.String,
  fqdn: Values.Name,
  hostname: Schema.String,
  zone: Values.Name,
  addresses: Schema.Array(Values.Address),
  labels: Schema.Record(Schema.String, Schema.String),
  state: HostState,
  generation: Schema.Int.annotate({ description: "Rises with each change; a renewed lease is no change." }),
  owner: Schema.String,
  firstSeen: Values.Timestamp,
  lastSeen: Values.Timestamp,
  publication: Publication
}).annotate({ identifier: "Host" })
export type Host = typeof Host.Type

export const HostPage = Schema.Struct({
  items: Schema.Array(Host),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "HostPage" })
export type HostPage = typeof HostPage.Type

export const HostQuery = {
  zone: Schema.optionalKey(Values.NameInput),
  state: Schema.optionalKey(HostState),
  address: Schema.optionalKey(Values.AddressInput),
  /** The beginning of a full name; in time, more than that. */
  q: Schema.optionalKey(Schema.String.check(Schema.isBetweenLength(1, 254))),
  limit: Schema.optionalKey(Page.Limit),
  cursor: Schema.optionalKey(Page.Cursor)
}

export class Hosts extends HttpApiGroup.make("hosts")
  .add(
    HttpApiEndpoint.get("list", "/hosts", {
      query: HostQuery,
      success: HttpApiSchema.WithHeaders(HostPage, { link: Schema.optionalKey(Schema.String) }),
      error: StorageUnavailableProblem
    }).annotateMerge(
      OpenApi.annotations({
        summary: "Hosts, by name",
        description:
          "Filters narrow each other down. `Link: rel=next` leads to the next page; keep the filters with the cursor."
      })
    ),
    HttpApiEndpoint.get("get", "/hosts/:host", {
      params: { host: Schema.String },
      success: Host,
      error: [HostNotFoundProblem, StorageUnavailableProblem]
    }).annotateMerge(OpenApi.annotations({ summary: "One host" }))
  )
  .middleware(AdminToken)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Hosts", description: "The registry of hosts." })) {}
