/**
 * Webhooks: addresses to which events are delivered, in the database.
 *
 * A webhook sends what whoever changed it last might see then and may see still:
 * that authority is kept with it, and by whose word it is. Its secret is told when it is made or replaced, and never again; a
 * replaced one signs beside the new one for a day. Promises: a change and its
 * audit entry are one transaction; one that is paused sends nothing and forgets
 * nothing. Leaves to others: sending (`WebhookDelivery`), and whether the caller
 * may do it.
 */
import { Clock, Context, Deferred, Effect, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import { Signals } from "../cluster/Signals.ts"
import type { Authority } from "../auth/Permissions.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import type { Filter } from "./Event.ts"
import { Feed } from "./Feed.ts"
import * as Signing from "./WebhookSigning.ts"

/** Webhooks at the most. */
export const webhooksMax = 100

/** Dead letters that are kept of one webhook; beyond it the oldest are forgotten. */
export const deadLettersMax = 10_000

/** How long a secret that was replaced signs beside the new one. */
export const formerSecretMillis = 24 * 3_600_000

export const webhookStates = ["active", "paused"] as const
export type WebhookState = (typeof webhookStates)[number]

export interface Webhook {
  readonly id: string
  readonly name: string
  readonly url: string
  readonly filter: Filter
  /** Beyond this it sends nothing: what whoever changed it last might see then. */
  readonly authority: Authority
  /** The roles of whoever changed it last, where that one came by an identity provider; undefined: by the token `updatedBy`. */
  readonly roles: ReadonlyArray<string> | undefined
  readonly state: WebhookState
  /** Of the last event that was delivered, given up, or not for it. */
  readonly position: number
  /** Of the event behind it, so far. */
  readonly attempts: number
  readonly nextAttemptMillis: number | undefined
  /** Of the last attempt, or why it is paused. */
  readonly lastError: string | undefined
  readonly lastSuccessMillis: number | undefined
  readonly generation: number
  readonly createdAtMillis: number
  readonly createdBy: string
  readonly updatedAtMillis: number
  readonly updatedBy: string
}

/** What people say of a webhook. */
export interface WebhookSpec {
  readonly name: string
  readonly url: string
  readonly filter: Filter
}

export interface WebhookChange {
  readonly url?: string | undefined
  readonly filter?: Filter | undefined
  readonly state?: WebhookState | undefined
  readonly rotateSecret?: boolean | undefined
}

export interface DeadLetter {
  readonly position: number
  readonly atMillis: number
  /** 0: it is to be tried again. */
  readonly attempts: number
  readonly error: string
}

/** From where to send again. */
export type Replay =
  | { readonly _tag: "After"; readonly position: number }
  | { readonly _tag: "Since"; readonly atMillis: number }
  | { readonly _tag: "DeadLetters" }

export class WebhookUnknown extends Schema.TaggedError<WebhookUnknown>()("WebhookUnknown", {
  reference: Schema.String
}) {
  override get message(): string {
    return `there is no webhook ${this.reference}`
  }
}

export class WebhookNameTaken extends Schema.TaggedError<WebhookNameTaken>()("WebhookNameTaken", {
  name: Schema.String
}) {
  override get message(): string {
    return `another webhook is called ${this.name}`
  }
}

export class TooManyWebhooks extends Schema.TaggedError<TooManyWebhooks>()("TooManyWebhooks", { max: Schema.Int }) {
  override get message(): string {
    return `there are ${this.max} webhooks already, which is the most`
  }
}

/** A change that may also be tried only: all is checked, nothing is written. */
export interface ChangeOptions {
  readonly actor: Audit.Actor
  /** What the actor may see: the webhook sends that from now on, for as long as the actor may see it. */
  readonly authority: Authority
  /** The actor's roles, where it came by an identity provider. */
  readonly roles: ReadonlyArray<string> | undefined
  readonly reason?: string | undefined
  readonly dryRun: boolean
}

/** A webhook whose secret is new. */
export interface WithSecret {
  readonly webhook: Webhook
  /** Undefined where it has not changed, or nothing has. */
  readonly secret: string | undefined
}

export class Webhooks extends Context.Service<
  Webhooks,
  {
    /** By name or id. */
    readonly find: (reference: string) => Effect.Effect<Webhook | undefined, SqlError.SqlError>
    /** Behind the name `after`, in the order of names. */
    readonly list: (after: string, limit: number) => Effect.Effect<ReadonlyArray<Webhook>, SqlError.SqlError>
    /** Begins with what happens from now on. */
    readonly create: (
      spec: WebhookSpec,
      options: ChangeOptions
    ) => Effect.Effect<WithSecret, WebhookNameTaken | TooManyWebhooks | SqlError.SqlError>
    /** `check` is asked with what is there, in the transaction of the change. */
    readonly change: <E, R>(
      reference: string,
      change: WebhookChange,
      options: ChangeOptions,
      check: (current: Webhook) => Effect.Effect<void, E, R>
    ) => Effect.Effect<WithSecret, WebhookUnknown | SqlError.SqlError | E, R>
    readonly remove: <E, R>(
      reference: string,
      options: ChangeOptions,
      check: (current: Webhook) => Effect.Effect<void, E, R>
    ) => Effect.Effect<Webhook, WebhookUnknown | SqlError.SqlError | E, R>
    /** Sends again; gives how many dead letters are to be tried again. */
    readonly replay: (
      reference: string,
      replay: Replay,
      options: ChangeOptions
    ) => Effect.Effect<{ readonly webhook: Webhook; readonly deadLetters: number }, WebhookUnknown | SqlError.SqlError>
    readonly deadLetters: (
      id: string,
      after: number,
      limit: number
    ) => Effect.Effect<ReadonlyArray<DeadLetter>, SqlError.SqlError>
    /** The webhook as a change of this generation left it, where the audit still knows. */
    readonly at: (name: string, generation: number) => Effect.Effect<unknown, SqlError.SqlError>
    /** With which secrets a message is signed now, the newest first; for who sends. */
    readonly secretsOf: (id: string) => Effect.Effect<ReadonlyArray<string>, SqlError.SqlError>
    /** Waits for the next change that somebody makes. A hint: what another server changes may be heard of late. */
    readonly awaitChange: Effect.Effect<void>
  }
>()("@prism-dns/core/events/Webhooks") {
  static readonly layer = Layer.effect(
    Webhooks,
    Effect.suspend(() => make)
  )
}

export interface WebhookRow {
  readonly id: string
  readonly name: string
  readonly url: string
  readonly filter: string
  readonly state: WebhookState
  readonly position: number | bigint
  readonly attempts: number | bigint
  readonly next_attempt: number | bigint | null
  readonly last_error: string | null
  readonly last_success: number | bigint | null
  readonly generation: number | bigint
  readonly created_at: number | bigint
  readonly created_by: string
}

export const columns =
  "id, name, url, filter, state, position, attempts, next_attempt, last_error, last_success, generation, created_at, created_by"

/** The column `filter`: what it sends, and on whose word. */
interface Stored extends Filter {
  readonly authority: Authority
  readonly roles?: ReadonlyArray<string>
  readonly updatedAtMillis: number
  readonly updatedBy: string
}

/** The column `secret`. */
interface Secrets {
  readonly current: string
  readonly former?: { readonly secret: string; readonly untilMillis: number }
}

const optional = (value: number | bigint | null): number | undefined => (value === null ? undefined : Number(value))

export const toWebhook = (row: WebhookRow): Webhook => {
  const { authority, hosts, kinds, roles, updatedAtMillis, updatedBy, zones }: Stored = JSON.parse(row.filter)
  return {
    id: row.id,
    name: row.name,
    url: row.url,
    filter: { kinds, zones, hosts },
    authority: { permissions: authority.permissions, zones: authority.zones, names: authority.names },
    roles,
    state: row.state,
    position: Number(row.position),
    attempts: Number(row.attempts),
    nextAttemptMillis: optional(row.next_attempt),
    lastError: row.last_error ?? undefined,
    lastSuccessMillis: optional(row.last_success),
    generation: Number(row.generation),
    createdAtMillis: Number(row.created_at),
    createdBy: row.created_by,
    updatedAtMillis,
    updatedBy
  }
}

const toStored = ({ authority, filter, roles, updatedAtMillis, updatedBy }: Webhook): string =>
  JSON.stringify({
    ...filter,
    authority,
    ...(roles !== undefined && { roles }),
    updatedAtMillis,
    updatedBy
  } satisfies Stored)

/** What somebody set, for the audit and for who compares. Never the secret. */
export const plainOf = ({ filter: { hosts, kinds, zones }, state, url }: Webhook) => ({
  url,
  ...(kinds !== undefined && { kinds }),
  ...(zones !== undefined && { zones }),
  ...(hosts !== undefined && { hosts }),
  state
})

const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const durability = yield* Durability
  const random = yield* SecureRandom.SecureRandom
  const feed = yield* Feed
  const all = sql.literal(columns)
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))
  const signals = yield* Signals
  let changed = Deferred.makeUnsafe<void>()

  const tell = () => {
    const told = changed
    changed = Deferred.makeUnsafe<void>()
    Deferred.doneUnsafe(told, Effect.void)
  }
  /** Whoever delivers, here or elsewhere, looks at once; without being told it looks now and then. */
  const announce = Effect.sync(() => {
    tell()
    signals.send("webhooks")
  })
  yield* signals.listen("webhooks", tell)

  const find: Webhooks["Service"]["find"] = Effect.fn("Webhooks.find")(function* (reference) {
    const [row] = yield* sql<WebhookRow>`
      SELECT ${all} FROM webhook WHERE name = ${reference} OR id = ${reference} ORDER BY name LIMIT 1`
    return row === undefined ? undefined : toWebhook(row)
  })

  const lock = Effect.fnUntraced(function* (reference: string) {
    const [row] = yield* sql<WebhookRow & { readonly secret: string }>`
      SELECT ${all}, secret FROM webhook WHERE name = ${reference} OR id = ${reference}
      ORDER BY name LIMIT 1 ${forUpdate}`
    if (row === undefined) return yield* new WebhookUnknown({ reference })
    return { before: toWebhook(row), secrets: JSON.parse(row.secret) as Secrets }
  })

  const makeSecret = Effect.map(random.randomBytes(Signing.secretBytes), Signing.toSecret)

  const create: Webhooks["Service"]["create"] = Effect.fn("Webhooks.create")(function* (
    { filter, name, url },
    { actor, authority, dryRun, reason, roles }
  ) {
    const nowMillis = yield* Clock.currentTimeMillis
    const [counted] = yield* sql<{ readonly webhooks: number | bigint; readonly taken: number | bigint }>`
      SELECT COUNT(*) AS webhooks, COUNT(CASE WHEN name = ${name} THEN 1 END) AS taken FROM webhook`
    if (Number(counted!.taken) > 0) return yield* new WebhookNameTaken({ name })
    if (Number(counted!.webhooks) >= webhooksMax) return yield* new TooManyWebhooks({ max: webhooksMax })
    const webhook: Webhook = {
      id: yield* random.uuidV7(),
      name,
      url,
      filter,
      authority,
      roles,
      state: "active",
      position: yield* feed.head,
      attempts: 0,
      nextAttemptMillis: undefined,
      lastError: undefined,
      lastSuccessMillis: undefined,
      generation: 0,
      createdAtMillis: nowMillis,
      createdBy: actor.name,
      updatedAtMillis: nowMillis,
      updatedBy: actor.name
    }
    if (dryRun) return { webhook, secret: undefined }
    const secret = yield* makeSecret
    const made = yield* Effect.gen(function* () {
      const generation = yield* Generation.next(sql)
      yield* sql`
        INSERT INTO webhook (id, name, url, secret, filter, state, position, attempts, generation, created_at, created_by)
        VALUES (${webhook.id}, ${name}, ${url}, ${JSON.stringify({ current: secret } satisfies Secrets)},
          ${toStored(webhook)}, 'active', ${webhook.position}, 0, ${generation}, ${nowMillis}, ${actor.name})`
      const entry = { actor, action: "webhook.created" as const, subject: name, after: plainOf(webhook), reason }
      yield* Audit.writeAll(sql, [{ ...entry, generation }], nowMillis)
      return { ...webhook, generation }
    }).pipe(
      sql.withTransaction,
      Effect.catchReason("SqlError", "UniqueViolation", () => Effect.fail(new WebhookNameTaken({ name })))
    )
    yield* durability.flush
    yield* announce
    return { webhook: made, secret }
  })

  const change: Webhooks["Service"]["change"] = (
    reference,
    changes,
    { actor, authority, dryRun, reason, roles },
    check
  ) =>
    Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const result = yield* Effect.gen(function* () {
        const { before, secrets } = yield* lock(reference)
        yield* check(before)
        const isResumed = changes.state === "active" && before.state === "paused"
        const after: Webhook = {
          ...before,
          url: changes.url ?? before.url,
          filter: changes.filter ?? before.filter,
          state: changes.state ?? before.state,
          authority,
          roles,
          // Whoever mends it does not want to wait for the next attempt.
          nextAttemptMillis: undefined,
          ...(isResumed && { attempts: 0, lastError: undefined }),
          updatedAtMillis: nowMillis,
          updatedBy: actor.name
        }
        if (dryRun) return { webhook: after, secret: undefined }
        const secret = changes.rotateSecret === true ? yield* makeSecret : undefined
        const kept: Secrets =
          secret === undefined
            ? secrets
            : { current: secret, former: { secret: secrets.current, untilMillis: nowMillis + formerSecretMillis } }
        const generation = yield* Generation.next(sql)
        yield* sql`
          UPDATE webhook SET url = ${after.url}, secret = ${JSON.stringify(kept)}, filter = ${toStored(after)},
            state = ${after.state}, attempts = ${after.attempts}, next_attempt = NULL,
            last_error = ${after.lastError ?? null}, generation = ${generation}
          WHERE id = ${after.id}`
        yield* Audit.writeAll(
          sql,
          [
            {
              actor,
              action: "webhook.changed",
              subject: after.name,
              before: plainOf(before),
              after: { ...plainOf(after), ...(secret !== undefined && { secret: "replaced" }) },
              reason,
              generation
            }
          ],
          nowMillis
        )
        return { webhook: { ...after, generation }, secret }
      }).pipe(sql.withTransaction)
      yield* durability.flush
      yield* announce
      return result
    }).pipe(Effect.withSpan("Webhooks.change"))

  const remove: Webhooks["Service"]["remove"] = (reference, { actor, dryRun, reason }, check) =>
    Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const removed = yield* Effect.gen(function* () {
        const { before } = yield* lock(reference)
        yield* check(before)
        if (dryRun) return before
        yield* sql`DELETE FROM webhook WHERE id = ${before.id}`
        const entry = {
          actor,
          action: "webhook.deleted" as const,
          subject: before.name,
          before: plainOf(before),
          reason
        }
        yield* Audit.writeAll(sql, [entry], nowMillis)
        return before
      }).pipe(sql.withTransaction)
      yield* durability.flush
      yield* announce
      return removed
    }).pipe(Effect.withSpan("Webhooks.remove"))

  const replay: Webhooks["Service"]["replay"] = Effect.fn("Webhooks.replay")(function* (
    reference,
    what,
    { actor, dryRun, reason }
  ) {
    const nowMillis = yield* Clock.currentTimeMillis
    const from =
      what._tag === "After" ? what.position : what._tag === "Since" ? yield* feed.before(what.atMillis) : undefined
    const result = yield* Effect.gen(function* () {
      const { before } = yield* lock(reference)
      const [letters] = yield* sql<{ readonly letters: number | bigint }>`
        SELECT COUNT(*) AS letters FROM webhook_dead_letter
        WHERE webhook = ${before.id} AND position > ${from ?? -1}`
      const deadLetters = Number(letters!.letters)
      const position = from === undefined ? before.position : Math.min(from, before.position)
      const webhook = { ...before, position, attempts: 0, nextAttemptMillis: undefined }
      if (dryRun) return { webhook, deadLetters }
      if (from === undefined) {
        yield* sql`UPDATE webhook_dead_letter SET attempts = 0 WHERE webhook = ${before.id}`
      } else {
        // They come again in their turn.
        yield* sql`DELETE FROM webhook_dead_letter WHERE webhook = ${before.id} AND position > ${from}`
      }
      yield* sql`
        UPDATE webhook SET position = ${position}, attempts = 0, next_attempt = NULL WHERE id = ${before.id}`
      const after = from === undefined ? { deadLetters } : { position }
      yield* Audit.writeAll(
        sql,
        [
          {
            actor,
            action: "webhook.replayed",
            subject: before.name,
            before: { position: before.position },
            after,
            reason
          }
        ],
        nowMillis
      )
      return { webhook, deadLetters }
    }).pipe(sql.withTransaction)
    yield* durability.flush
    yield* announce
    return result
  })

  return Webhooks.of({
    find,
    list: Effect.fn("Webhooks.list")(function* (after, limit) {
      const rows = yield* sql<WebhookRow>`
        SELECT ${all} FROM webhook WHERE name > ${after} ORDER BY name LIMIT ${limit}`
      return rows.map(toWebhook)
    }),
    create,
    change,
    remove,
    replay,
    deadLetters: Effect.fn("Webhooks.deadLetters")(function* (id, after, limit) {
      const rows = yield* sql<{
        readonly position: number | bigint
        readonly at: number | bigint
        readonly attempts: number | bigint
        readonly error: string
      }>`
        SELECT position, at, attempts, error FROM webhook_dead_letter
        WHERE webhook = ${id} AND position > ${after} ORDER BY position LIMIT ${limit}`
      return rows.map((row): DeadLetter => ({
        position: Number(row.position),
        atMillis: Number(row.at),
        attempts: Number(row.attempts),
        error: row.error
      }))
    }),
    at: Effect.fn("Webhooks.at")(function* (name, generation) {
      const rows = yield* sql<{ readonly after: string | null }>`
        SELECT after FROM audit_log WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'webhook.%'
        UNION ALL
        SELECT after FROM audit_entry WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'webhook.%'`
      const after = rows[0]?.after
      return after === null || after === undefined ? undefined : JSON.parse(after)
    }),
    secretsOf: Effect.fn("Webhooks.secretsOf")(function* (id) {
      const [row] = yield* sql<{ readonly secret: string }>`SELECT secret FROM webhook WHERE id = ${id}`
      if (row === undefined) return []
      const { current, former }: Secrets = JSON.parse(row.secret)
      const nowMillis = yield* Clock.currentTimeMillis
      return former === undefined || former.untilMillis <= nowMillis ? [current] : [current, former.secret]
    }),
    awaitChange: Effect.suspend(() => Deferred.await(changed))
  })
})
