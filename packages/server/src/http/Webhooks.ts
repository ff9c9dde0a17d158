/** Handlers of `/v1/webhooks`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import * as Page from "@prism-dns/core/api/Page"
import { RequestInvalid, TooManyWebhooks, WebhookNameTaken, WebhookNotFound } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import type * as Contract from "@prism-dns/core/api/Webhooks"
import { allowsWithin } from "@prism-dns/core/auth/Permissions"
import type { Filter } from "@prism-dns/core/events/Event"
import { WebhookDelivery } from "@prism-dns/core/events/WebhookDelivery"
import { WebhookSender } from "@prism-dns/core/events/WebhookSender"
import { type Webhook, plainOf, type Replay, Webhooks } from "@prism-dns/core/events/Webhooks"
import { Clock, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import { page } from "./Pages.ts"
import { sentence } from "./Sentence.ts"

const toPlain = (webhook: Webhook) => {
  const { state, url, ...filter } = plainOf(webhook)
  return {
    id: webhook.id,
    name: webhook.name,
    url,
    ...filter,
    state,
    position: webhook.position,
    attempts: webhook.attempts,
    ...(webhook.nextAttemptMillis !== undefined &&
      webhook.attempts > 0 && { nextAttemptAt: timestamp(webhook.nextAttemptMillis) }),
    ...(webhook.lastError !== undefined && { lastError: webhook.lastError }),
    ...(webhook.lastSuccessMillis !== undefined && { lastSuccessAt: timestamp(webhook.lastSuccessMillis) }),
    createdAt: timestamp(webhook.createdAtMillis),
    createdBy: webhook.createdBy,
    updatedAt: timestamp(webhook.updatedAtMillis),
    updatedBy: webhook.updatedBy
  }
}

const tried = (dryRun: boolean) => (dryRun ? { dryRun: true as const } : {})

const withSecret = (webhook: Webhook, secret: string | undefined, dryRun: boolean): Contract.WebhookWithSecret => ({
  ...(secret !== undefined && { secret }),
  ...toPlain(webhook),
  ...tried(dryRun)
})

const tagOf = ({ attempts, generation, position, state }: Webhook): string =>
  EntityTag.make(generation, `${position}.${attempts}.${state}`)

const webhookNotFound = (reference: string) =>
  new WebhookNotFound({ detail: `There is no webhook '${reference}'; one is asked for by its name or its id.` })

/** The filter after a change; `null` takes a bound away. */
const changedFilter = (before: Filter, change: Pick<Contract.WebhookChange, "kinds" | "zones" | "hosts">): Filter => ({
  kinds: change.kinds === undefined ? before.kinds : (change.kinds ?? undefined),
  zones: change.zones === undefined ? before.zones : (change.zones ?? undefined),
  hosts: change.hosts === undefined ? before.hosts : (change.hosts ?? undefined)
})

const replayOf = ({ since }: Contract.WebhookReplay): Replay => {
  if (since === undefined) return { _tag: "DeadLetters" }
  return /^\d+$/.test(since)
    ? { _tag: "After", position: Number(since) }
    : { _tag: "Since", atMillis: Date.parse(since) }
}

export const layer = HttpApiBuilder.group(
  Api,
  "webhooks",
  Effect.fnUntraced(function* (handlers) {
    const webhooks = yield* Webhooks
    const delivery = yield* WebhookDelivery
    const sender = yield* WebhookSender

    /** The webhook, unless the caller may not see it: then it is as if it were not there. */
    const getWebhook = Effect.fnUntraced(function* (reference: string) {
      const webhook = yield* webhooks.find(reference)
      if (webhook === undefined) return yield* webhookNotFound(reference)
      const mayRead = yield* Authorization.mayReadWithin("webhooks", { zones: webhook.filter.zones })
      return mayRead ? webhook : yield* webhookNotFound(reference)
    })

    const optionsOf = (reason: string, dryRun: boolean) =>
      Effect.map(Caller, (caller) => ({
        actor: caller,
        authority: caller.authority,
        roles: caller.kind === "oidc" ? caller.roles : undefined,
        reason,
        dryRun
      }))

    /** Refuses an address that is written out, and that nothing may be sent to. What a name resolves to is looked at each time. */
    const checkUrl = (url: string | undefined) => {
      const refusal = url === undefined ? undefined : sender.refusalOf(url)
      return refusal === undefined
        ? Effect.void
        : Effect.fail(
            new RequestInvalid({
              detail: `body url: ${refusal}`,
              errors: [{ in: "body", pointer: "/url", detail: refusal }]
            })
          )
    }

    const matching = (headers: Parameters<typeof requireMatch>[0]["headers"], current: Webhook) =>
      requireMatch(
        { headers },
        {
          version: current.generation,
          required: true,
          changesSince: (version) =>
            Effect.gen(function* () {
              const before = /^\d{1,15}$/.test(version) ? yield* webhooks.at(current.name, Number(version)) : undefined
              return {
                changes: before === undefined ? [] : changedFields(before, plainOf(current)),
                changedBy: current.updatedBy,
                changedAt: timestamp(current.updatedAtMillis)
              }
            })
        }
      )

    return handlers.handleAll({
      list: Effect.fn("http.Webhooks.list")(function* ({ query, request }) {
        const limit = query.limit ?? Page.limitDefault
        const after = query.cursor === undefined ? "" : Page.placeBefore(query.cursor)!
        const { authority } = yield* Caller
        // There are few: all that are behind the cursor are looked at.
        const found = (yield* webhooks.list(after, Page.limitMax)).filter(({ filter }) =>
          allowsWithin(authority, "read", "webhooks", { zones: filter.zones })
        )
        return page(request, found.slice(0, limit + 1), limit, {
          item: toPlain,
          cursor: ({ name }) => Page.cursorBehind(name)
        })
      }, orUnavailable),

      create: Effect.fn("http.Webhooks.create")(
        function* ({ payload, query: { dryRun = false } }) {
          const { hosts, kinds, name, reason, url, zones } = payload
          yield* Authorization.requireWithin("write", "webhooks", { zones })
          yield* checkUrl(url)
          const { secret, webhook } = yield* webhooks.create(
            { name, url, filter: { kinds, zones, hosts } },
            yield* optionsOf(reason, dryRun)
          )
          return withTag(withSecret(webhook, secret, dryRun), tagOf(webhook), { location: `/v1/webhooks/${name}` })
        },
        Effect.catchTags({
          WebhookNameTaken: ({ message }) => Effect.fail(new WebhookNameTaken({ detail: sentence(message) })),
          TooManyWebhooks: ({ message }) => Effect.fail(new TooManyWebhooks({ detail: sentence(message) }))
        }),
        orUnavailable
      ),

      get: Effect.fn("http.Webhooks.get")(function* ({ params }) {
        const webhook = yield* getWebhook(params.webhook)
        return withTag(toPlain(webhook), tagOf(webhook))
      }, orUnavailable),

      change: Effect.fn("http.Webhooks.change")(
        function* ({ headers, params, payload, query: { dryRun = false } }) {
          const { filter, id } = yield* getWebhook(params.webhook)
          const { reason, rotateSecret, state, url } = payload
          const after = changedFilter(filter, payload)
          yield* Authorization.requireWithin("write", "webhooks", { zones: after.zones })
          yield* checkUrl(url)
          const { secret, webhook } = yield* webhooks.change(
            id,
            { url, filter: after, state, rotateSecret },
            yield* optionsOf(reason, dryRun),
            (before) =>
              Effect.gen(function* () {
                yield* Authorization.requireWithin("write", "webhooks", { zones: before.filter.zones })
                yield* matching(headers, before)
              })
          )
          return withTag(withSecret(webhook, secret, dryRun), tagOf(webhook))
        },
        Effect.catchTag("WebhookUnknown", ({ reference }) => Effect.fail(webhookNotFound(reference))),
        orUnavailable
      ),

      remove: Effect.fn("http.Webhooks.remove")(
        function* ({ headers, params, query: { dryRun = false, reason } }) {
          const { id } = yield* getWebhook(params.webhook)
          const removed = yield* webhooks.remove(id, yield* optionsOf(reason, dryRun), (before) =>
            Effect.gen(function* () {
              yield* Authorization.requireWithin("delete", "webhooks", { zones: before.filter.zones })
              yield* matching(headers, before)
            })
          )
          return { ...toPlain(removed), ...tried(dryRun) }
        },
        Effect.catchTag("WebhookUnknown", ({ reference }) => Effect.fail(webhookNotFound(reference))),
        orUnavailable
      ),

      test: Effect.fn("http.Webhooks.test")(function* ({ params, query: { dryRun = false } }) {
        const webhook = yield* orUnavailable(getWebhook(params.webhook))
        yield* Authorization.requireWithin("write", "webhooks", { zones: webhook.filter.zones })
        if (dryRun) {
          const detail = "Nothing was sent: it was only tried."
          return { delivered: false, detail, durationSeconds: 0, dryRun: true as const }
        }
        const startMillis = yield* Clock.currentTimeMillis
        // It takes as long as a delivery may; what is read of the database is read at once.
        const outcome = yield* Effect.catchTag(delivery.test(webhook), "SqlError", (error) =>
          orUnavailable(Effect.fail(error))
        )
        return {
          delivered: outcome._tag === "Delivered",
          ...(outcome.status !== undefined && { status: outcome.status }),
          detail: outcome._tag === "Delivered" ? "It was taken." : sentence(outcome.detail),
          durationSeconds: ((yield* Clock.currentTimeMillis) - startMillis) / 1000
        }
      }),

      replay: Effect.fn("http.Webhooks.replay")(
        function* ({ params, payload, query: { dryRun = false } }) {
          const { filter, id } = yield* getWebhook(params.webhook)
          yield* Authorization.requireWithin("write", "webhooks", { zones: filter.zones })
          const { deadLetters, webhook } = yield* webhooks.replay(
            id,
            replayOf(payload),
            yield* optionsOf(payload.reason, dryRun)
          )
          return { deadLetters, ...toPlain(webhook), ...tried(dryRun) }
        },
        Effect.catchTag("WebhookUnknown", ({ reference }) => Effect.fail(webhookNotFound(reference))),
        orUnavailable
      ),

      deadLetters: Effect.fn("http.Webhooks.deadLetters")(function* ({ params, query, request }) {
        const { id } = yield* getWebhook(params.webhook)
        const limit = query.limit ?? Page.limitDefault
        const after = query.cursor === undefined ? 0 : Page.numberBefore(query.cursor)!
        const found = yield* webhooks.deadLetters(id, after, limit + 1)
        return page(request, found, limit, {
          item: ({ atMillis, attempts, error, position }) => ({ position, at: timestamp(atMillis), attempts, error }),
          cursor: ({ position }) => Page.cursorBehind(position)
        })
      }, orUnavailable)
    })
  })
)
