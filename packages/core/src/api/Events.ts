/**
 * Events in the HTTP API: every change once it is committed, as server-sent
 * events.
 *
 * An event is an entry of the audit log, and its id is the entry's position, so
 * that a stream goes on exactly behind the last event that was read in full.
 */
import { Schema, SchemaTransformation } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { matching } from "../audit/Actions.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { StorageUnavailableProblem, TooManySubscribersProblem } from "./Problems.ts"
import * as Values from "./Values.ts"

/** Kinds, zones and hosts of one filter at the most, each. */
export const filterEntriesMax = 100

/** `host.created`, or all of a family: `host.*`. */
export const KindPattern = Schema.String.check(
  Schema.makeFilter((text: string) =>
    matching(text) === undefined
      ? "is to be a kind of events, such as host.created, or a family of them: host.*"
      : undefined
  )
)

/** Values with commas between them, or the parameter given again, or both. */
const several = <S extends Schema.Codec<string, string>>(item: S) =>
  Schema.Array(Schema.String).pipe(
    Schema.decodeTo(
      Schema.Array(item).check(Schema.isBetweenLength(1, filterEntriesMax)),
      SchemaTransformation.transform<ReadonlyArray<S["Encoded"]>, ReadonlyArray<string>>({
        decode: (texts) => texts.flatMap((text) => text.split(",").map((each) => each.trim())),
        encode: (items) => items
      })
    )
  )

/** The position of an entry as text. */
export const Position = Schema.String.check(
  Schema.makeFilter((text: string) =>
    /^\d{1,15}$/.test(text) ? undefined : "is to be the id of an event: a whole number"
  )
)

/** Where a stream starts: behind the event of an id, or at a time. */
export const Since = Schema.String.check(
  Schema.makeFilter((text: string) =>
    /^\d{1,15}$/.test(text) || Schema.is(Values.TimestampInput)(text)
      ? undefined
      : "is to be the id of an event, 0 for the oldest one that is kept, or a time such as 2026-11-23T10:48:00Z"
  )
)

export const Event = Schema.Struct({
  id: Schema.Int.annotate({ description: "Its position in the audit log: 1, 2, 3 without gaps." }),
  kind: Schema.String.annotate({ description: "Such as `host.created`; more may come." }),
  at: Values.Timestamp,
  zone: Schema.optionalKey(Values.Name),
  subject: Schema.String.annotate({
    description: "What changed: the full name of a host, record or publication, a zone's name, a plan's id."
  }),
  generation: Schema.Int.annotate({ description: "Of the change; all that one transaction changed has the same." }),
  before: Schema.optionalKey(Schema.Unknown),
  after: Schema.optionalKey(Schema.Unknown),
  actor: Schema.String.annotate({ description: "Who did it; `prism`: what follows from time or from what was found." }),
  reason: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.String.annotate({ description: "What led to it." })),
  request: Schema.optionalKey(Schema.String.annotate({ description: "The id of the API request it came by." })),
  result: Schema.optionalKey(Schema.String.annotate({ description: "What became of it, where that is not `done`." }))
}).annotate({ identifier: "Event" })
export type Event = typeof Event.Type

export const gapReasons = ["retention", "restored"] as const

export const Gap = Schema.Struct({
  from: Schema.Int.annotate({ description: "The id of the first event that is missing." }),
  to: Schema.Int.annotate({ description: "The id of the last one." }),
  reason: Schema.Literals(gapReasons).annotate({
    description:
      "`retention`: the log keeps them no longer. `restored`: the log ends before them, as after a restored backup; it goes on behind its end."
  })
}).annotate({ identifier: "EventGap" })
export type Gap = typeof Gap.Type

/** One block of the stream. */
export const Block = Schema.Union([
  Schema.Struct({ id: Schema.String, event: Schema.Literal("gap"), data: Schema.fromJsonString(Gap) }),
  Schema.Struct({ id: Schema.String, event: Schema.String, data: Schema.fromJsonString(Event) }),
  // Carries no data, so readers of server-sent events keep its id and pass nothing on.
  Schema.Struct({ id: Schema.String, event: Schema.Literal("position"), data: Schema.Literal("") })
])
export type Block = typeof Block.Type

export const filterQuery = {
  zone: Schema.optionalKey(several(Values.NameInput)),
  kind: Schema.optionalKey(several(KindPattern)),
  host: Schema.optionalKey(several(Values.NameInput))
}

export class Events extends HttpApiGroup.make("events")
  .add(
    HttpApiEndpoint.get("stream", "/events", {
      headers: { "last-event-id": Schema.optionalKey(Position) },
      query: { since: Schema.optionalKey(Since), ...filterQuery },
      success: HttpApiSchema.StreamSse({ events: Block }),
      error: [TooManySubscribersProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "events" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "What changes, as it happens",
          description:
            "Server-sent events that the caller may see, each once, those of one subject in the order of commits. Without `Last-Event-ID` and `since` it begins with what happens from now on. " +
            "`gap` says which events are no longer there. A block named `position`, without data, comes at first and every 15 seconds: its id is how far the stream is, also where no event passes the filter. " +
            "The stream ends when the caller's token is revoked or its permissions change, when the server drains, and when the client does not read: go on with `Last-Event-ID`."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Events", description: "Every change once it is committed." })) {}
