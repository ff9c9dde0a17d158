/** Hosts in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ackLevels, hostStates } from "../domain/Host.ts"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import { HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem } from "./Problems.ts"
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
  ttlSeconds: Schema.optionalKey(
    Schema.Int.annotate({
      description:
        "The TTL that its agent wishes for; its records have it within the bounds of their zone. Absent: the zone's."
    })
  ),
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

/** What a host was when it was forgotten. */
export const HostReleased = Schema.Struct({
  id: Schema.String,
  fqdn: Values.Name,
  generation: Schema.Int.annotate({ description: "Of its release." })
}).annotate({ identifier: "HostReleased" })
export type HostReleased = typeof HostReleased.Type

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
    })
      .annotate(Requires, { verb: "read", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Hosts, by name",
          description:
            "Filters narrow each other down. `Link: rel=next` leads to the next page; keep the filters with the cursor."
        })
      ),
    HttpApiEndpoint.get("get", "/hosts/:host", {
      params: { host: Schema.String },
      success: Host,
      error: [HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "hosts" })
      .annotateMerge(OpenApi.annotations({ summary: "One host" })),
    HttpApiEndpoint.post("retire", "/hosts/:host/retire", {
      params: { host: Schema.String },
      payload: Schema.Struct({ reason: Values.Reason }),
      success: Host,
      error: [HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Retires a host",
          description:
            "Its records are withdrawn; its name is held for as long as the zone says. A host that beats on comes back with its next beat."
        })
      ),
    HttpApiEndpoint.post("release", "/hosts/:host/release", {
      params: { host: Schema.String },
      payload: Schema.Struct({ reason: Values.Reason }),
      success: HostReleased,
      error: [HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Forgets a host",
          description: "Whatever its state: its records go, its name is free, its history stays."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Hosts", description: "The registry of hosts." })) {}
