/** Webhooks in the HTTP API: addresses to which events are delivered. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { AnswersSecret, Authorization, Requires } from "./Authentication.ts"
import { filterEntriesMax, KindPattern, Since } from "./Events.ts"
import * as Page from "./Page.ts"
import {
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  StorageUnavailableProblem,
  TooManyWebhooksProblem,
  WebhookNameTakenProblem,
  WebhookNotFoundProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

export const webhookStates = ["active", "paused"] as const

/** Characters of a URL at the most. */
export const urlCharactersMax = 2048

export const Url = Schema.String.check(
  Schema.isMaxLength(urlCharactersMax),
  Schema.makeFilter((text: string) => {
    if (!URL.canParse(text)) return "is to be a URL such as https://cmdb.example.net/hooks/prism"
    const url = new URL(text)
    if (url.protocol !== "https:" && url.protocol !== "http:") return "is to begin with https:// or http://"
    if (url.username !== "" || url.password !== "") {
      return "is to have no user and password: messages are signed, and a receiver knows them by that"
    }
    return url.hash === "" ? undefined : "is to have no fragment"
  })
).annotate({ format: "uri" })

const few = <S extends Schema.Top>(item: S) => Schema.Array(item).check(Schema.isBetweenLength(1, filterEntriesMax))

const filterFields = {
  kinds: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({ description: "Kinds of events, or families of them. Absent: every kind." })
  ),
  zones: Schema.optionalKey(
    Schema.Array(Values.Name).annotate({ description: "Absent: every zone, and what belongs to none." })
  ),
  hosts: Schema.optionalKey(
    Schema.Array(Values.Name).annotate({ description: "Full names. Absent: whatever it is about." })
  )
}

const webhookFields = {
  id: Schema.String,
  name: Schema.String,
  url: Schema.String,
  ...filterFields,
  state: Schema.Literals(webhookStates).annotate({
    description:
      "`paused`: nothing is sent until somebody makes it active again; nothing is lost meanwhile that the audit log keeps."
  }),
  position: Schema.Int.annotate({
    description: "The id of the last event that was delivered, given up, or not for it."
  }),
  attempts: Schema.Int.annotate({ description: "To deliver the next one, so far." }),
  nextAttemptAt: Schema.optionalKey(Values.Timestamp),
  lastError: Schema.optionalKey(
    Schema.String.annotate({ description: "What became of the last attempt that failed, or why Prism has paused it." })
  ),
  lastSuccessAt: Schema.optionalKey(Values.Timestamp),
  createdAt: Values.Timestamp,
  createdBy: Schema.String,
  updatedAt: Values.Timestamp,
  updatedBy: Schema.String.annotate({
    description: "Who changed it last: it sends the events that they might see then and may see now."
  })
}

const secret = {
  secret: Schema.optionalKey(
    Schema.String.annotate({ description: "Signs its messages. Shown this once, when it is new." })
  )
}

export const Webhook = Schema.Struct({ ...webhookFields, ...Values.dryRunMark }).annotate({ identifier: "Webhook" })
export type Webhook = typeof Webhook.Type

export const WebhookWithSecret = Schema.Struct({ ...secret, ...webhookFields, ...Values.dryRunMark }).annotate({
  identifier: "WebhookWithSecret"
})
export type WebhookWithSecret = typeof WebhookWithSecret.Type

export const WebhookPage = Schema.Struct({
  items: Schema.Array(Schema.Struct(webhookFields)),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "WebhookPage" })
export type WebhookPage = typeof WebhookPage.Type

const Name = Schema.String.check(
  Schema.makeFilter((name: string) =>
    /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)
      ? undefined
      : "is to be 1 to 63 lower-case letters, digits and hyphens, a letter first"
  )
)

export const WebhookRequest = Schema.Struct({
  name: Name,
  url: Url,
  kinds: Schema.optionalKey(few(KindPattern).annotate({ description: "Default: every kind." })),
  zones: Schema.optionalKey(
    few(Values.NameInput).annotate({ description: "Default: every zone, and what belongs to none." })
  ),
  hosts: Schema.optionalKey(
    few(Values.NameInput).annotate({ description: "Full names. Default: whatever it is about." })
  ),
  reason: Values.Reason
}).annotate({ identifier: "WebhookRequest" })
export type WebhookRequest = typeof WebhookRequest.Type

const orNone = <S extends Schema.Top>(item: S) =>
  Schema.optionalKey(Schema.NullOr(few(item)).annotate({ description: "`null`: no such bound any more." }))

export const WebhookChange = Schema.Struct({
  url: Schema.optionalKey(Url),
  kinds: orNone(KindPattern),
  zones: orNone(Values.NameInput),
  hosts: orNone(Values.NameInput),
  state: Schema.optionalKey(Schema.Literals(webhookStates)),
  rotateSecret: Schema.optionalKey(
    Schema.Literal(true).annotate({
      description: "A new secret, shown in this answer. For a day messages are signed by the former one too."
    })
  ),
  reason: Values.Reason
}).annotate({ identifier: "WebhookChange" })
export type WebhookChange = typeof WebhookChange.Type

export const WebhookReplay = Schema.Struct({
  since: Schema.optionalKey(
    Since.annotate({
      description: "All that is for it, behind the event of this id, `0` for all that is kept, or from a time on."
    })
  ),
  deadLetters: Schema.optionalKey(Schema.Literal(true).annotate({ description: "What was given up, in order." })),
  reason: Values.Reason
})
  .check(
    Schema.makeFilter(({ deadLetters, since }) =>
      (since === undefined) === (deadLetters === undefined) ? "is to have either since or deadLetters" : undefined
    )
  )
  .annotate({ identifier: "WebhookReplay" })
export type WebhookReplay = typeof WebhookReplay.Type

export const WebhookReplayed = Schema.Struct({
  deadLetters: Schema.Int.annotate({ description: "Dead letters that are sent again." }),
  ...webhookFields,
  ...Values.dryRunMark
}).annotate({ identifier: "WebhookReplayed" })
export type WebhookReplayed = typeof WebhookReplayed.Type

export const WebhookTest = Schema.Struct({
  delivered: Schema.Boolean,
  status: Schema.optionalKey(Schema.Int.annotate({ description: "What the receiver answered with." })),
  detail: Schema.String.annotate({ description: "What became of it, in a sentence." }),
  durationSeconds: Schema.Finite,
  ...Values.dryRunMark
}).annotate({ identifier: "WebhookTest" })
export type WebhookTest = typeof WebhookTest.Type

export const DeadLetter = Schema.Struct({
  position: Schema.Int.annotate({ description: "The event's id." }),
  at: Values.Timestamp.annotate({ description: "When it was given up." }),
  attempts: Schema.Int.annotate({ description: "0: it is being tried again." }),
  error: Schema.String
}).annotate({ identifier: "DeadLetter" })
export type DeadLetter = typeof DeadLetter.Type

export const DeadLetterPage = Schema.Struct({
  items: Schema.Array(DeadLetter),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "DeadLetterPage" })
export type DeadLetterPage = typeof DeadLetterPage.Type

const params = { webhook: Schema.String }
const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }
const link = { link: Schema.optionalKey(Schema.String) }

export class Webhooks extends HttpApiGroup.make("webhooks")
  .add(
    HttpApiEndpoint.get("list", "/webhooks", {
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.PlaceCursor) },
      success: HttpApiSchema.WithHeaders(WebhookPage, link),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "webhooks" })
      .annotateMerge(OpenApi.annotations({ summary: "Webhooks, by name" })),
    HttpApiEndpoint.post("create", "/webhooks", {
      query: dryRun,
      payload: WebhookRequest,
      success: HttpApiSchema.WithHeaders(WebhookWithSecret.pipe(HttpApiSchema.status(201)), {
        location: Schema.String,
        ...Values.etag
      }),
      error: [WebhookNameTakenProblem, TooManyWebhooksProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "webhooks" })
      .annotate(AnswersSecret, true)
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a webhook",
          description:
            "It begins with what happens from now on, and sends the events that its maker may see, one POST each, in order, signed as the Standard Webhooks specification says."
        })
      ),
    HttpApiEndpoint.get("get", "/webhooks/:webhook", {
      params,
      success: HttpApiSchema.WithHeaders(Webhook, Values.etag),
      error: [WebhookNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "webhooks" })
      .annotateMerge(OpenApi.annotations({ summary: "One webhook, and how far it is" })),
    HttpApiEndpoint.patch("change", "/webhooks/:webhook", {
      params,
      query: dryRun,
      headers: Values.ifMatch,
      payload: WebhookChange,
      success: HttpApiSchema.WithHeaders(WebhookWithSecret, Values.etag),
      error: [WebhookNotFoundProblem, PreconditionFailedProblem, PreconditionRequiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "webhooks" })
      .annotate(AnswersSecret, true)
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes a webhook, pauses it, makes it active again, or replaces its secret",
          description: "From then on it sends the events that whoever changed it may see, for as long as they may."
        })
      ),
    HttpApiEndpoint.delete("remove", "/webhooks/:webhook", {
      params,
      query: { ...dryRun, reason: Values.Reason },
      headers: Values.ifMatch,
      success: Webhook,
      error: [WebhookNotFoundProblem, PreconditionFailedProblem, PreconditionRequiredProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "delete", resource: "webhooks" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Deletes a webhook, and its dead letters",
          description: "The answer is the webhook as it was."
        })
      ),
    HttpApiEndpoint.post("test", "/webhooks/:webhook/test", {
      params,
      query: dryRun,
      success: WebhookTest,
      error: [WebhookNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "webhooks" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Sends a message of type `test`, now and once",
          description: "Signed as all are, whether the webhook is active or paused. With `dryRun` nothing is sent."
        })
      ),
    HttpApiEndpoint.post("replay", "/webhooks/:webhook/replay", {
      params,
      query: dryRun,
      payload: WebhookReplay,
      success: WebhookReplayed,
      error: [WebhookNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "webhooks" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Sends events again",
          description:
            "From an id or a time on, or those that were given up. A message that is sent again has the same `webhook-id`."
        })
      ),
    HttpApiEndpoint.get("deadLetters", "/webhooks/:webhook/dead-letters", {
      params,
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.NumberCursor) },
      success: HttpApiSchema.WithHeaders(DeadLetterPage, link),
      error: [WebhookNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "webhooks" })
      .annotateMerge(OpenApi.annotations({ summary: "Events that were given up, in order" }))
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Webhooks", description: "Addresses to which events are delivered." })) {}
