/**
 * Guards that have tripped: what is held back until a person says a word, or
 * until what tripped them is over.
 *
 * They are kept in the database, so a restart forgets neither the alarm nor the
 * word. Leaves to others: what trips a guard and what it holds back
 * (`registry/Expiry`).
 */
import { Clock, Context, Effect, Layer, Metric, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import { Durability } from "../storage/Durability.ts"
import { integer } from "../storage/Rows.ts"
import type { Actor } from "./HostRepo.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"

/** `mass-expiry`: too many hosts have vanished at once to believe it. */
export const guardKinds = ["mass-expiry"] as const
export type GuardKind = (typeof guardKinds)[number]

export interface Guard {
  readonly kind: GuardKind
  readonly trippedAtMillis: number
  /** What was seen and what can be done, in sentences for people. */
  readonly detail: string
  /** A person's word: hosts last seen before that may expire. */
  readonly allowedBeforeMillis: number | undefined
  /** It holds something back; false once that was allowed and nothing came since. */
  readonly waiting: boolean
}

/** There is nothing to allow: the guard holds nothing back. */
export class GuardNotTripped extends Schema.TaggedError<GuardNotTripped>()("GuardNotTripped", {
  kind: Schema.String
}) {
  override get message(): string {
    return `the guard ${this.kind} has not tripped`
  }
}

export class Guards extends Context.Service<
  Guards,
  {
    /** The guards that have tripped and are not lifted yet. */
    readonly list: Effect.Effect<ReadonlyArray<Guard>, SqlError.SqlError>
    /**
     * A person's word, kept with its reason: what the guard has held back until now may happen. With `dryRun` it is only
     * tried.
     */
    readonly allow: (
      kind: GuardKind,
      actor: Actor,
      reason: string,
      options?: { readonly dryRun: boolean }
    ) => Effect.Effect<Guard, GuardNotTripped | SqlError.SqlError>
  }
>()("@prism-dns/core/registry/Guards") {
  static readonly layer = Layer.effect(
    Guards,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const durability = yield* Durability
      const guards = make(sql)
      return Guards.of({
        list: guards.list,
        allow: Effect.fn("Guards.allow")(function* (kind, actor, reason, { dryRun } = { dryRun: false }) {
          if (dryRun) return yield* Audit.undone(sql)(guards.allow(kind, actor, reason))
          const allowed = yield* guards.allow(kind, actor, reason)
          yield* durability.flush
          yield* Metric.update(Metric.withAttributes(RegistryMetrics.guardTripped, { guard: kind }), 0)
          return allowed
        })
      })
    })
  )
}

interface GuardRow {
  readonly kind: GuardKind
  readonly tripped_at: number | bigint
  readonly detail: string
  readonly allowed_before: number | bigint | null
}

const toGuard = (row: GuardRow): Guard => {
  const trippedAtMillis = Number(row.tripped_at)
  const allowedBeforeMillis = row.allowed_before === null ? undefined : Number(row.allowed_before)
  return {
    kind: row.kind,
    trippedAtMillis,
    detail: row.detail,
    allowedBeforeMillis,
    waiting: allowedBeforeMillis === undefined || allowedBeforeMillis < trippedAtMillis
  }
}

const isoTime = (millis: number): string => new Date(millis).toISOString()

/** What the audit says of the alarm. */
const auditView = ({ detail, trippedAtMillis }: Guard) => ({ detail, trippedAt: isoTime(trippedAtMillis) })

/** The statements, for those that trip guards. */
export const make = (sql: SqlClient.SqlClient) => {
  const list = Effect.map(
    sql<GuardRow>`SELECT kind, tripped_at, detail, allowed_before FROM guard WHERE zone = '' ORDER BY kind`,
    (rows) => rows.map(toGuard)
  )

  const find = (kind: GuardKind) =>
    Effect.map(
      sql<GuardRow>`SELECT kind, tripped_at, detail, allowed_before FROM guard WHERE kind = ${kind} AND zone = ''`,
      (rows) => (rows[0] === undefined ? undefined : toGuard(rows[0]))
    )

  const allow = Effect.fnUntraced(
    function* (kind: GuardKind, actor: Actor, reason: string) {
      const nowMillis = yield* Clock.currentTimeMillis
      // Not before it tripped, even when the clock went back: the word answers what was seen.
      const rows = yield* sql<GuardRow>`
        UPDATE guard SET allowed_before = CASE WHEN tripped_at > ${nowMillis} THEN tripped_at ELSE ${nowMillis} END
        WHERE kind = ${kind} AND zone = '' RETURNING kind, tripped_at, detail, allowed_before`
      if (rows[0] === undefined) return yield* new GuardNotTripped({ kind })
      const guard = toGuard(rows[0])
      yield* Audit.write(sql, {
        atMillis: nowMillis,
        actor,
        action: "guard.allowed",
        subject: kind,
        before: auditView(guard),
        after: { allowedBefore: isoTime(guard.allowedBeforeMillis ?? nowMillis) },
        reason
      })
      return guard
    },
    (effect) => sql.withTransaction(effect)
  )

  return {
    list,
    find,
    allow,
    /** Sets off the alarm, anew when what was allowed is not all. */
    trip: (kind: GuardKind, detail: string, nowMillis: number) =>
      sql`
        INSERT INTO guard (kind, zone, tripped_at, detail) VALUES (${kind}, '', ${nowMillis}, ${detail})
        ON CONFLICT (kind, zone) DO UPDATE SET detail = excluded.detail, tripped_at = CASE
          WHEN guard.allowed_before IS NULL OR guard.allowed_before < ${integer(sql, nowMillis)} THEN excluded.tripped_at
          ELSE guard.allowed_before + 1 END`.pipe(
        Effect.andThen(
          Audit.write(sql, {
            atMillis: nowMillis,
            actor: Audit.prism,
            action: "guard.tripped",
            subject: kind,
            after: { detail }
          })
        ),
        sql.withTransaction
      ),
    lift: (kind: GuardKind, nowMillis: number) =>
      sql`DELETE FROM guard WHERE kind = ${kind} AND zone = ''`.pipe(
        Effect.andThen(
          Audit.write(sql, { atMillis: nowMillis, actor: Audit.prism, action: "guard.lifted", subject: kind })
        ),
        sql.withTransaction
      )
  }
}

export type GuardRepo = ReturnType<typeof make>
