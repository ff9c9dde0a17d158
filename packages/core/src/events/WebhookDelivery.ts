/**
 * Delivers events to webhooks: one POST for each event, in order, by a fiber
 * for each webhook, so that a slow one holds up nobody else.
 *
 * Promises: every event that is for a webhook arrives at least once, or becomes
 * a dead letter after so many attempts; the next one is sent only after that. A
 * crash repeats at most the one that was under way: how far it is stands in the
 * database after each. Of several servers one delivers at a time; and since an
 * attempt is claimed in the database first, that one's death repeats no more. A webhook is paused, and says why, when its
 * receiver answers that it is gone (410), when so many events in a row were given
 * up, or when whoever changed it last may see no events any more. What that one
 * may not see by now is not sent.
 */
import { Cause, Clock, Context, Effect, FiberMap, Layer, Metric, Random } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { AuditLog } from "../audit/AuditLog.ts"
import * as Jobs from "../cluster/Jobs.ts"
import { timestamp } from "../api/Values.ts"
import { allowsSomewhere, type Authority } from "../auth/Permissions.ts"
import { Roles } from "../auth/Roles.ts"
import * as Standing from "../auth/Standing.ts"
import { Tokens } from "../auth/Tokens.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { isVisible, type Item, matches, toItem } from "./Event.ts"
import * as EventMetrics from "./EventMetrics.ts"
import { Feed } from "./Feed.ts"
import { columns, deadLettersMax, toWebhook, type Webhook, type WebhookRow, Webhooks } from "./Webhooks.ts"
import { type Outcome, WebhookSender } from "./WebhookSender.ts"
import * as Signing from "./WebhookSigning.ts"

export interface DeliveryOptions {
  readonly timeoutMillis: number
  readonly attemptsMax: number
  readonly retryMillisMin: number
  readonly retryMillisMax: number
  /** Events given up in a row until a webhook is paused. */
  readonly deadLettersInRow: number
  /** How often it is looked for webhooks that others have changed, in milliseconds. */
  readonly pollMillis: number
  /** How far a webhook may come without an event that is for it until that is written, in milliseconds. */
  readonly noteMillis: number
  /** Whether people come by an identity provider. */
  readonly oidc: boolean
}

export const defaultOptions: DeliveryOptions = {
  timeoutMillis: 15_000,
  attemptsMax: 15,
  retryMillisMin: 1000,
  retryMillisMax: 600_000,
  deadLettersInRow: 10,
  pollMillis: 2000,
  noteMillis: 10_000,
  oidc: false
}

/** A claim holds for as long as an attempt may take, and for this long beyond. */
const claimSlackMillis = 5000

const gone = 410

export class WebhookDelivery extends Context.Service<
  WebhookDelivery,
  {
    /** Sends a message that is about nothing, now and once, whatever the webhook's state. */
    readonly test: (webhook: Webhook) => Effect.Effect<Outcome, SqlError.SqlError>
  }
>()("@prism-dns/core/events/WebhookDelivery") {
  static readonly layer = (options: Partial<DeliveryOptions> = {}) =>
    Layer.effect(WebhookDelivery, run({ ...defaultOptions, ...options }))
}

/** What is posted. */
interface Message {
  /** How far the webhook is with it. */
  readonly position: number
  readonly id: string
  readonly body: string
  /** The event, where it is about one. */
  readonly item?: Item
  /** The log ends before where the webhook was: it goes back to there. */
  readonly rewinds?: boolean
}

/** The body as the Standard Webhooks specification advises: what it is, when it was, and the event itself. */
const bodyOf = (type: string, atMillis: number, json: string): string =>
  `{"type":${JSON.stringify(type)},"timestamp":${JSON.stringify(timestamp(atMillis))},"data":${json}}`

const messageOf = (item: Item): Message => ({
  position: item.id,
  id: `event_${item.id}`,
  item,
  body: bodyOf(item.kind, item.atMillis, item.json)
})

/** A webhook that this server delivers to for the time being; `untilMillis` is how the database knows the claim. */
interface Claim {
  readonly webhook: Webhook
  readonly untilMillis: number
}

/** What became of a claim: it goes on, or it is given up, or somebody has changed the webhook meanwhile. */
type Turn = { readonly _tag: "Next"; readonly claim: Claim } | { readonly _tag: "Stop" }
const stop: Turn = { _tag: "Stop" }

const run = Effect.fnUntraced(function* (options: DeliveryOptions) {
  const sql = yield* SqlClient.SqlClient
  const log = yield* AuditLog
  const feed = yield* Feed
  const webhooks = yield* Webhooks
  const sender = yield* WebhookSender
  const tokens = yield* Tokens
  const roles = yield* Roles
  const all = sql.literal(columns)
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
  const fibers = yield* FiberMap.make<string>()
  const claimMillis = options.timeoutMillis + claimSlackMillis

  /** Whoever stops in the middle of a query has the database look for what to cancel: these are short, and let be. */
  const whole = Effect.uninterruptible

  const find = (id: string) =>
    whole(
      Effect.map(sql<WebhookRow>`SELECT ${all} FROM webhook WHERE id = ${id}`, ([row]) =>
        row === undefined ? undefined : toWebhook(row)
      )
    )

  /** Claims a webhook that is active and not waiting. */
  const claim = Effect.fnUntraced(function* (id: string) {
    const nowMillis = yield* Clock.currentTimeMillis
    const untilMillis = nowMillis + claimMillis
    const [row] = yield* whole(sql<WebhookRow>`
      UPDATE webhook SET next_attempt = ${untilMillis}
      WHERE id = ${id} AND state = 'active' AND (next_attempt IS NULL OR next_attempt <= ${nowMillis})
      RETURNING ${all}`)
    return row === undefined ? undefined : ({ webhook: toWebhook(row), untilMillis } satisfies Claim)
  })

  interface Progress {
    readonly position?: number
    readonly attempts: number
    readonly error: string | undefined
    readonly nextAttemptMillis: number | undefined
    readonly successMillis?: number
    readonly state?: Webhook["state"]
  }

  /** Writes how far it is. The claim holds. */
  const settle = Effect.fnUntraced(function* ({ webhook }: Claim, progress: Progress) {
    const after: Webhook = {
      ...webhook,
      position: progress.position ?? webhook.position,
      attempts: progress.attempts,
      lastError: progress.error,
      state: progress.state ?? webhook.state,
      nextAttemptMillis: progress.nextAttemptMillis,
      lastSuccessMillis: progress.successMillis ?? webhook.lastSuccessMillis
    }
    yield* sql`
      UPDATE webhook SET position = ${after.position}, attempts = ${after.attempts},
        next_attempt = ${after.nextAttemptMillis ?? null}, last_error = ${after.lastError ?? null},
        last_success = ${after.lastSuccessMillis ?? null}, state = ${after.state}
      WHERE id = ${webhook.id}`
    return after
  })

  /** Whether the claim is still ours, and stays so until the transaction ends. */
  const holds = ({ untilMillis, webhook }: Claim) =>
    Effect.map(
      sql<{ readonly id: string }>`
        SELECT id FROM webhook WHERE id = ${webhook.id} AND next_attempt = ${untilMillis} ${forUpdate}`,
      (rows) => rows.length > 0
    )

  const release = ({ untilMillis, webhook }: Claim) =>
    whole(
      Effect.ignore(
        sql`UPDATE webhook SET next_attempt = NULL WHERE id = ${webhook.id} AND next_attempt = ${untilMillis}`
      )
    )

  const post = Effect.fnUntraced(function* (
    { id, url }: Pick<Webhook, "id" | "url">,
    message: Pick<Message, "id" | "body">
  ) {
    const secrets = yield* whole(webhooks.secretsOf(id))
    const atSeconds = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    const headers = Signing.headersOf(secrets, { id: message.id, atSeconds, body: message.body })
    const outcome = yield* sender.post({ url, headers, body: message.body, timeoutMillis: options.timeoutMillis })
    const result = outcome._tag === "Delivered" ? "delivered" : "failed"
    yield* Metric.update(Metric.withAttributes(EventMetrics.deliveries, { result }), 1)
    return outcome
  })

  /** From the failed attempt to the next one: doubled each time, give or take a quarter, and as the receiver asks. */
  const pauseMillis = (attempts: number, retryAfterMillis = 0) =>
    Effect.map(Random.nextBetween(0.75, 1.25), (share) =>
      Math.min(
        options.retryMillisMax,
        Math.max(retryAfterMillis, share * options.retryMillisMin * 2 ** Math.min(attempts - 1, 30))
      )
    )

  const countInRow = (webhook: Webhook) =>
    Effect.map(
      sql<{ readonly letters: number | bigint }>`
        SELECT COUNT(*) AS letters FROM webhook_dead_letter
        WHERE webhook = ${webhook.id} AND at >= ${Math.max(webhook.lastSuccessMillis ?? 0, webhook.updatedAtMillis)}`,
      ([row]) => Number(row!.letters)
    )

  /** Keeps what was given up, and forgets the oldest beyond the bound. */
  const bury = Effect.fnUntraced(function* (webhook: Webhook, position: number, attempts: number, error: string) {
    const nowMillis = yield* Clock.currentTimeMillis
    yield* sql`
      INSERT INTO webhook_dead_letter (webhook, position, at, attempts, error)
      VALUES (${webhook.id}, ${position}, ${nowMillis}, ${attempts}, ${error})
      ON CONFLICT (webhook, position) DO UPDATE SET at = ${nowMillis}, attempts = ${attempts}, error = ${error}`
    yield* sql`
      DELETE FROM webhook_dead_letter WHERE webhook = ${webhook.id} AND position <= (
        SELECT MIN(position) FROM (
          SELECT position FROM webhook_dead_letter WHERE webhook = ${webhook.id}
          ORDER BY position DESC LIMIT 1 OFFSET ${deadLettersMax}) AS surplus)`
    yield* Metric.update(EventMetrics.deadLetters, 1)
  })

  /** Sends one message. `letter`: it was given up before, and is not what the webhook's position is about. */
  const deliver = Effect.fnUntraced(function* (held: Claim, message: Message, letter: boolean) {
    const { webhook } = held
    const outcome = yield* post(webhook, message)
    const nowMillis = yield* Clock.currentTimeMillis
    const next = (after: Webhook, untilMillis: number): Turn => ({
      _tag: "Next",
      claim: { webhook: after, untilMillis }
    })
    return yield* Effect.gen(function* () {
      if (!(yield* holds(held))) return stop
      const untilMillis = nowMillis + claimMillis
      const moved = letter ? {} : { position: message.position }
      if (outcome._tag === "Delivered") {
        if (letter) {
          yield* sql`DELETE FROM webhook_dead_letter WHERE webhook = ${webhook.id} AND position = ${message.position}`
        }
        return next(
          yield* settle(held, {
            ...moved,
            attempts: 0,
            error: undefined,
            nextAttemptMillis: untilMillis,
            successMillis: nowMillis
          }),
          untilMillis
        )
      }
      const { detail: error } = outcome
      if (outcome.status === gone) {
        yield* settle(held, {
          attempts: 0,
          error: `paused: ${error}, so it is gone; make it active again when it is not`,
          nextAttemptMillis: undefined,
          state: "paused"
        })
        yield* Metric.update(Metric.withAttributes(EventMetrics.paused, { reason: "gone" }), 1)
        return stop
      }
      const attempts = webhook.attempts + 1
      if (attempts < options.attemptsMax) {
        const nextAttemptMillis = Math.ceil(nowMillis + (yield* pauseMillis(attempts, outcome.retryAfterMillis)))
        yield* settle(held, { attempts, error, nextAttemptMillis })
        return stop
      }
      yield* bury(webhook, message.position, attempts, error)
      const inRow = yield* countInRow(webhook)
      if (inRow >= options.deadLettersInRow) {
        yield* settle(held, {
          ...moved,
          attempts: 0,
          error: `paused: ${inRow} events in a row were given up; the last time ${error}`,
          nextAttemptMillis: undefined,
          state: "paused"
        })
        yield* Metric.update(Metric.withAttributes(EventMetrics.paused, { reason: "dead-letters" }), 1)
        return stop
      }
      return next(yield* settle(held, { ...moved, attempts: 0, error, nextAttemptMillis: untilMillis }), untilMillis)
    }).pipe(sql.withTransaction, whole)
  })

  /** What whoever changed the webhook last may do by now. */
  const standingOf = Effect.fnUntraced(function* ({ roles: given, updatedBy }: Webhook) {
    const standing = yield* whole(Standing.find({ roles, tokens }, { name: updatedBy, roles: given }, options.oidc))
    return standing._tag === "MayNothing" || allowsSomewhere(standing.authority, "read", "events")
      ? standing
      : ({ _tag: "MayNothing", why: `${updatedBy} may see no events any more` } satisfies Standing.Standing)
  })

  /** Whether it is to be sent: whoever changed the webhook last might see it then, and may see it now. */
  const isSent = (webhook: Webhook, now: Authority, item: Item): boolean =>
    isVisible(webhook.authority, item) && isVisible(now, item)

  /** Nobody is there by whose word it would send. */
  const pauseBy = Effect.fnUntraced(function* ({ generation, id }: Webhook, why: string) {
    const error = `paused: ${why}, by whose word it sends; whoever changes it next gives it theirs`
    const paused = yield* whole(sql`
      UPDATE webhook SET state = 'paused', attempts = 0, next_attempt = NULL, last_error = ${error}
      WHERE id = ${id} AND generation = ${generation} AND state = 'active' RETURNING id`)
    if (paused.length > 0) yield* Metric.update(Metric.withAttributes(EventMetrics.paused, { reason: "rights" }), 1)
  })

  /**
   * The dead letter that is to be tried again first; one whose event is gone stays what it is, and so does one that whoever
   * changed the webhook last may not see: another could see it, by whose word it was given up.
   */
  const nextLetter = Effect.fnUntraced(function* (webhook: Webhook, now: Authority) {
    for (;;) {
      const [row] = yield* whole(sql<{ readonly position: number | bigint }>`
        SELECT position FROM webhook_dead_letter WHERE webhook = ${webhook.id} AND attempts = 0
        ORDER BY position LIMIT 1`)
      if (row === undefined) return undefined
      const position = Number(row.position)
      const entry = yield* whole(log.get(position))
      const item = entry && toItem(entry)
      if (item !== undefined && isSent(webhook, now, item)) return messageOf(item)
      const error =
        item === undefined
          ? "the audit log does not keep the event any more"
          : `${webhook.updatedBy}, who changed the webhook last, may not see the event`
      yield* whole(sql`
        UPDATE webhook_dead_letter SET attempts = 1, error = ${error}
        WHERE webhook = ${webhook.id} AND position = ${position}`)
    }
  })

  /** The messages of the next page that are for the webhook, and what the page reaches to. */
  const nextPage = Effect.fnUntraced(function* (webhook: Webhook, now: Authority, position: number) {
    const page = yield* feed.after(position)
    const messages: Array<Message> = []
    if (page.gap !== undefined) {
      yield* Metric.update(EventMetrics.gaps, 1)
      const end = page.gap.reason === "retention" ? page.gap.to : page.position
      messages.push({
        position: end,
        id: `gap_${page.gap.from}_${page.gap.to}`,
        rewinds: page.gap.reason === "restored",
        body: bodyOf("gap", yield* Clock.currentTimeMillis, JSON.stringify(page.gap))
      })
    }
    for (const item of page.items) {
      if (matches(webhook.filter, item) && isSent(webhook, now, item)) messages.push(messageOf(item))
    }
    return { messages, position: page.position }
  })

  /** Sends `messages` in order, as far as it comes; true when all are done with. */
  const deliverAll = Effect.fnUntraced(function* (first: Claim, messages: ReadonlyArray<Message>, letter: boolean) {
    let held = first
    for (const message of messages) {
      // Not again what another server has sent since.
      if (!letter && message.rewinds !== true && message.position <= held.webhook.position) continue
      // A page of them takes its time, and rights may go meanwhile.
      const standing = yield* Effect.onError(standingOf(held.webhook), () => release(held))
      if (standing._tag === "MayNothing") {
        yield* release(held)
        return undefined
      }
      if (message.item !== undefined && !isSent(held.webhook, standing.authority, message.item)) {
        if (!letter) continue
        yield* release(held)
        return undefined
      }
      const turn = yield* Effect.onInterrupt(deliver(held, message, letter), () => release(held))
      if (turn._tag === "Stop") return undefined
      held = turn.claim
    }
    return held
  })

  /** Waits for a change by somebody, at the most until `millis` have passed. */
  const rest = (millis: number) =>
    Effect.timeoutOption(webhooks.awaitChange, Math.max(1, Math.min(millis, options.pollMillis)))

  const behind = new Map<string, number>()
  const noteBehind = (id: string, events: number) => {
    behind.set(id, events)
    return Metric.update(EventMetrics.behind, Math.max(...behind.values()))
  }

  /** Works for one webhook, until it is paused or gone. */
  const work = Effect.fnUntraced(function* (id: string) {
    yield* feed.following
    let webhook = yield* find(id)
    /** How far it was looked for events that are for it, which may be further than what is written. */
    let cursor = webhook?.position ?? 0
    let notedMillis = yield* Clock.currentTimeMillis
    const refresh = Effect.gen(function* () {
      const before = webhook
      webhook = yield* find(id)
      if (webhook === undefined) return
      // Another filter, or somebody who wants events again: what was looked at says nothing.
      if (webhook.generation !== before?.generation || webhook.position < before.position) cursor = webhook.position
      cursor = Math.max(cursor, webhook.position)
    })
    for (;;) {
      if (webhook === undefined || webhook.state !== "active") return
      const nowMillis = yield* Clock.currentTimeMillis
      if (webhook.nextAttemptMillis !== undefined && webhook.nextAttemptMillis > nowMillis) {
        yield* rest(webhook.nextAttemptMillis - nowMillis)
        yield* refresh
        continue
      }
      const standing = yield* standingOf(webhook)
      if (standing._tag === "MayNothing") {
        yield* pauseBy(webhook, standing.why)
        yield* refresh
        continue
      }
      const now = standing.authority
      const letter = yield* nextLetter(webhook, now)
      const page =
        letter === undefined ? yield* nextPage(webhook, now, cursor) : { messages: [letter], position: cursor }
      if (page.messages.length > 0) {
        const held = yield* claim(id)
        if (held !== undefined && held.webhook.generation === webhook.generation) {
          const done = yield* deliverAll(held, page.messages, letter !== undefined)
          if (done !== undefined) {
            cursor = Math.max(page.position, done.webhook.position)
            yield* release(done)
          }
        } else if (held !== undefined) yield* release(held)
        yield* refresh
        yield* noteBehind(id, Math.max(0, page.position - (webhook?.position ?? page.position)))
        continue
      }
      if (page.position > cursor) {
        cursor = page.position
        continue
      }
      yield* noteBehind(id, 0)
      if (cursor > webhook.position && nowMillis - notedMillis >= options.noteMillis) {
        notedMillis = nowMillis
        yield* whole(sql`
          UPDATE webhook SET position = ${cursor}
          WHERE id = ${id} AND generation = ${webhook.generation} AND position = ${webhook.position}
            AND next_attempt IS NULL`)
        yield* refresh
        continue
      }
      const woken = yield* Effect.raceFirst(
        Effect.as(feed.awaitBeyond(cursor), false),
        Effect.as(rest(options.pollMillis), true)
      )
      if (woken) yield* refresh
    }
  }, Effect.scoped)

  const working = (id: string) =>
    work(id).pipe(
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.failCause(cause as Cause.Cause<never>)
          : Effect.logWarning("a webhook waits, since the database or the log could not be used").pipe(
              Effect.annotateLogs({ webhook: id, reason: detailOf(Cause.squash(cause)) }),
              Effect.andThen(Effect.sleep(options.pollMillis))
            )
      ),
      Effect.ensuring(Effect.sync(() => void behind.delete(id)))
    )

  /** Each active webhook has its fiber. */
  const supervise = Effect.gen(function* () {
    const rows = yield* whole(sql<{ readonly id: string; readonly state: string }>`SELECT id, state FROM webhook`)
    for (const { id, state } of rows) {
      if (state === "active" && !FiberMap.hasUnsafe(fibers, id)) yield* FiberMap.run(fibers, id, working(id))
    }
    yield* Metric.update(EventMetrics.webhooks, rows.filter(({ state }) => state === "active").length)
    yield* Metric.update(EventMetrics.webhooksPaused, rows.filter(({ state }) => state === "paused").length)
  }).pipe(
    Effect.catchTag("SqlError", (error) =>
      Effect.logWarning("webhooks could not be looked up, will try again").pipe(
        Effect.annotateLogs({ reason: detailOf(error) })
      )
    )
  )

  // On SQLite there is no other server: whatever was claimed when the last one ended is free.
  yield* sql.onDialectOrElse({
    pg: () => Effect.void,
    orElse: () => Effect.asVoid(sql`UPDATE webhook SET next_attempt = NULL`)
  })
  yield* supervise.pipe(
    Effect.andThen(rest(options.pollMillis)),
    Effect.forever,
    Effect.ensuring(FiberMap.clear(fibers)),
    (loop) => Jobs.once("webhooks", loop)
  )

  return WebhookDelivery.of({
    test: Effect.fn("WebhookDelivery.test")(function* (webhook) {
      const nowMillis = yield* Clock.currentTimeMillis
      const json = JSON.stringify({ webhook: webhook.name })
      return yield* post(webhook, { id: `test_${nowMillis}`, body: bodyOf("test", nowMillis, json) })
    })
  })
})
