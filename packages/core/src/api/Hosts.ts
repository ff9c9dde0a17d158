/** Hosts in the HTTP API. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ackLevels, hostStates } from "../domain/Host.ts"
import { hostEvents } from "../registry/Decision.ts"
import { labelFiltersMax } from "../registry/HostLists.ts"
import { Authorization, Requires } from "./Authentication.ts"
import * as Page from "./Page.ts"
import { HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

export const HostState = Schema.Literals(hostStates)

export const leases = ["renewed", "none"] as const
export const Lease = Schema.Literals(leases).annotate({
  description:
    "`renewed`: online for as long as somebody registers it again in time. `none`: online until somebody says otherwise."
})

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
  lease: Lease,
  state: HostState,
  generation: Schema.Int.annotate({ description: "Rises with each change; a renewed lease is no change." }),
  owner: Schema.String,
  firstSeen: Values.Timestamp,
  lastSeen: Values.Timestamp,
  publication: Publication
}).annotate({ identifier: "Host" })
export type Host = typeof Host.Type

/** A version of a host: what it was from one change of it to the next. */
const versionFields = {
  event: Schema.Literals(hostEvents).annotate({ description: "What made it so." }),
  validFrom: Values.Timestamp,
  validTo: Schema.optionalKey(Values.Timestamp.annotate({ description: "Absent: it is so." }))
}

const commonFields = {
  id: Schema.String,
  fqdn: Values.Name,
  zone: Values.Name,
  addresses: Schema.Array(Values.Address),
  labels: Schema.Record(Schema.String, Schema.String),
  ttlSeconds: Schema.optionalKey(Schema.Int),
  lease: Lease,
  state: HostState,
  generation: Schema.Int,
  owner: Schema.String
}

export const HostVersion = Schema.Struct({ ...commonFields, ...versionFields }).annotate({ identifier: "HostVersion" })
export type HostVersion = typeof HostVersion.Type

const absentWithAt = <S extends Schema.Top>(schema: S) =>
  Schema.optionalKey(schema.pipe(Schema.annotate({ description: "Absent with `at`: it is not kept." })))

/** A host as it is, or as it was at a time. */
export const HostView = Schema.Struct({
  ...commonFields,
  hostname: absentWithAt(Schema.String),
  firstSeen: absentWithAt(Values.Timestamp),
  lastSeen: absentWithAt(Values.Timestamp),
  publication: Schema.optionalKey(Publication),
  session: Schema.optionalKey(
    Schema.Struct({
      instance: Schema.String.annotate({ description: "The name of the server that has it." }),
      since: Values.Timestamp
    }).annotate({ description: "Where its agent is connected; only where `session` is asked for and it is known." })
  ),
  event: Schema.optionalKey(versionFields.event),
  validFrom: Schema.optionalKey(Values.Timestamp),
  validTo: versionFields.validTo
}).annotate({
  identifier: "HostView",
  description:
    "A host. With `at` as it was then, with what made it so and from when to when; when it was last seen then is not kept, since beats are no changes."
})
export type HostView = typeof HostView.Type

export const HostPage = Schema.Struct({
  items: Schema.Array(HostView),
  nextCursor: Schema.optionalKey(
    Schema.String.annotate({ description: "Absent on the last page. A page may be short, or empty, and have one." })
  )
}).annotate({ identifier: "HostPage" })
export type HostPage = typeof HostPage.Type

/** What a host was when it was forgotten. */
export const HostReleased = Schema.Struct({
  id: Schema.String,
  fqdn: Values.Name,
  generation: Schema.Int.annotate({ description: "Of its release." })
}).annotate({ identifier: "HostReleased" })
export type HostReleased = typeof HostReleased.Type

/** `key=value`, once or several times. */
export const Labels = Schema.ArrayEnsure(
  Schema.String.check(
    Schema.isMaxLength(320),
    Schema.makeFilter((text: string) => (/^[^=]+=/.test(text) ? undefined : "is to be a label such as role=web"))
  )
).check(Schema.isMaxLength(labelFiltersMax))

export const HostQuery = {
  zone: Schema.optionalKey(Values.NameInput),
  state: Schema.optionalKey(HostState),
  address: Schema.optionalKey(Values.AddressInput),
  /** All of them must be there. */
  label: Schema.optionalKey(Labels),
  at: Schema.optionalKey(Values.TimestampInput),
  /** The beginning of a full name. */
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
            "Filters narrow each other down, in any combination. `Link: rel=next` leads to the next page; keep the filters with " +
            "the cursor. A request looks at a thousand names at the most: where few of them fit, a page is short or empty, " +
            "and its cursor goes on. With `at`, hosts are as they were then."
        })
      ),
    HttpApiEndpoint.get("get", "/hosts/:host", {
      params: { host: Schema.String },
      query: {
        at: Schema.optionalKey(Values.TimestampInput),
        /** Not with `at`. */
        session: Schema.optionalKey(Schema.Boolean)
      },
      success: HttpApiSchema.WithHeaders(HostView, { etag: Schema.optionalKey(Schema.String) }),
      error: [HostNotFoundProblem, HostRetiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "hosts" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "One host",
          description:
            "As it is, or with `at` as it was then. With `session=true`, also which server its agent is connected to, where servers share that by Redis; it is some seconds old, and absent where it is not known."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Hosts", description: "The registry of hosts." })) {}
