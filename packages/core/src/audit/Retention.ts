/**
 * Takes entries out of the audit log that are older than they are to be kept.
 *
 * Promises: only whole batches go, from the oldest on, and never the newest; an
 * `audit.pruned` entry that names the last position to go and its hash is sealed
 * before the first one goes, so that what is left can be verified: it begins with
 * the seal of that position, which stays. Work is done in small transactions,
 * and goes on after a restart. Entries are as old as they say themselves, which
 * their hashes cover; the times of seals, which nothing covers, do not count. Of
 * several servers one does it.
 */
import { Cause, Clock, Effect, Layer, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import * as AuditCheck from "./AuditCheck.ts"
import * as AuditMetrics from "./AuditMetrics.ts"
import * as Entries from "./Entries.ts"

export interface RetentionOptions {
  /** How long entries are kept, in milliseconds; 0: for ever. */
  readonly keepMillis: number
  /** By how much more the oldest is to be older before something goes, so that it goes by days and not by entries. */
  readonly slackMillis: number
  /** How often it is looked, in milliseconds. */
  readonly intervalMillis: number
  /** Batches that go for one `audit.pruned` entry at the most. */
  readonly batchesMax: number
  /** Batches in one transaction at the most. */
  readonly pieceMax: number
  /** Between two transactions, in milliseconds. */
  readonly restMillis: number
}

const dayMillis = 86_400_000

export const defaultOptions: RetentionOptions = {
  keepMillis: 400 * dayMillis,
  slackMillis: dayMillis,
  intervalMillis: 600_000,
  batchesMax: 1000,
  pieceMax: 4,
  restMillis: 50
}

export const layer = (options: Partial<RetentionOptions> = {}) =>
  Layer.effectDiscard(run({ ...defaultOptions, ...options }))

/** `announce` writes what is to go, if anything; `take` removes what was announced and is sealed; both in turn are a look. */
export const make = Effect.fnUntraced(function* (given: Partial<RetentionOptions> = {}) {
  const options = { ...defaultOptions, ...given }
  const sql = yield* SqlClient.SqlClient
  const { ends } = AuditCheck.make(sql)

  /** The next batches that go, in one transaction; false when nothing is left to go. */
  const takePiece = (position: number) =>
    Effect.gen(function* () {
      const { oldest } = yield* ends
      if (oldest === undefined || oldest > position) return false
      const [piece] = yield* sql<{ readonly last: number | bigint | null }>`
        SELECT MAX(last_position) AS last FROM (
          SELECT last_position FROM audit_seal WHERE last_position >= ${oldest} AND last_position <= ${position}
          ORDER BY last_position LIMIT ${options.pieceMax}) AS piece`
      // Without a seal there, somebody has been at it: what was announced goes all the same.
      const last = Number(piece?.last ?? position)
      yield* sql`DELETE FROM audit_log WHERE position <= ${last}`
      yield* sql`DELETE FROM audit_seal WHERE last_position < ${last}`
      yield* sql.afterCommit(Metric.update(AuditMetrics.pruned, last - oldest + 1))
      return last < position
    }).pipe(sql.withTransaction)

  const take = Effect.gen(function* () {
    const pruned = yield* AuditCheck.prunedTo(sql)
    if (pruned === undefined) return
    while (yield* takePiece(pruned.position)) yield* Effect.sleep(options.restMillis)
  })

  const announce = Effect.gen(function* () {
    if (options.keepMillis === 0) return
    const nowMillis = yield* Clock.currentTimeMillis
    const beforeMillis = nowMillis - options.keepMillis
    const { oldest } = yield* ends
    if (oldest === undefined) return
    // The newest batch stays: the log is never empty.
    const batches = yield* sql<{
      readonly position: number | bigint
      readonly hash: string
      readonly at: number | bigint
    }>`
      SELECT s.last_position AS position, s.hash AS hash, l.at AS at
      FROM audit_seal s JOIN audit_log l ON l.position = s.last_position
      WHERE s.last_position >= ${oldest} AND s.last_position < (SELECT MAX(last_position) FROM audit_seal)
      ORDER BY s.last_position LIMIT ${options.batchesMax}`
    if (batches[0] === undefined || Number(batches[0].at) >= beforeMillis - options.slackMillis) return
    const firstKept = batches.findIndex(({ at }) => Number(at) >= beforeMillis)
    const last = firstKept < 0 ? batches.at(-1)! : batches[firstKept - 1]!
    yield* Entries.write(sql, {
      atMillis: nowMillis,
      actor: Entries.prism,
      action: "audit.pruned",
      subject: "audit",
      after: { position: Number(last.position), hash: last.hash },
      reason: `older than ${options.keepMillis / dayMillis} days, as audit.retention says`
    })
  })

  return { announce, take }
})

const run = Effect.fnUntraced(function* (options: RetentionOptions) {
  const { announce, take } = yield* make(options)
  const guarded = (effect: Effect.Effect<void, SqlError.SqlError>) =>
    Effect.catchCause(effect, (cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.logWarning("old entries of the audit could not be taken out, will try again").pipe(
            Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)) })
          )
    )
  // What is announced now is sealed by the next look, or the one after it.
  yield* guarded(Effect.andThen(take, announce)).pipe(
    Effect.andThen(Effect.sleep(options.intervalMillis)),
    Effect.forever,
    (loop) => Jobs.once("audit-retention", loop)
  )
})
