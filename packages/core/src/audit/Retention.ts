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
 *
 * On PostgreSQL the log has partitions, and one that is old as a whole is dropped,
 * with what is left of the batch at its end. It is waited for: what is kept is up
 * to one partition more. One that lasts too long for that, since few entries
 * come or since it was there before, is emptied batch by batch, as on SQLite.
 */
import { Clock, Effect, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import * as Partitions from "../storage/Partitions.ts"
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

const { dayMillis } = Partitions

/** As many times as long as a partition is made for one may last, and be waited for. */
const spansMax = 2

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

  /** The partition of `position`; undefined: the log has none there. */
  const partitionOf = (position: number) =>
    Effect.map(Partitions.list(sql, Partitions.auditLog), (partitions) =>
      partitions.find(({ from, to }) => from <= position && position < to)
    )

  /** The end of the next few batches up to `position`. */
  const pieceEnd = (oldest: number, position: number) =>
    Effect.map(
      sql<{ readonly last: number | bigint | null }>`
        SELECT MAX(last_position) AS last FROM (
          SELECT last_position FROM audit_seal WHERE last_position >= ${oldest} AND last_position <= ${position}
          ORDER BY last_position LIMIT ${options.pieceMax}) AS piece`,
      ([piece]) => Number(piece?.last ?? position)
    )

  /** The end of the batch that a partition ends with, which may stand partly in the next one. */
  const partitionEnd = ({ to }: Partitions.Partition, position: number) =>
    Effect.map(
      sql<{ readonly last: number | bigint | null }>`
        SELECT MIN(last_position) AS last FROM audit_seal WHERE last_position >= ${to - 1} AND last_position <= ${position}`,
      ([batch]) => Number(batch?.last ?? position)
    )

  /** What goes next, in one transaction: a partition, or a few batches; false when nothing is left to go. */
  const takePiece = (position: number) =>
    Effect.gen(function* () {
      const { oldest } = yield* ends
      if (oldest === undefined || oldest > position) return false
      const partition = yield* partitionOf(oldest)
      const isWhole = partition !== undefined && partition.to - 1 <= position
      // Without a seal there, somebody has been at it: what was announced goes all the same.
      const last = yield* isWhole ? partitionEnd(partition, position) : pieceEnd(oldest, position)
      if (isWhole) yield* Partitions.drop(sql, [partition])
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

  interface Batch {
    readonly position: number | bigint
    readonly hash: string
    readonly at: number | bigint
  }

  /** Ends of batches from a position on, in order. The newest batch stays: the log is never empty. */
  const batchesFrom = (position: number, limit: number) =>
    sql<Batch>`
      SELECT s.last_position AS position, s.hash AS hash, l.at AS at
      FROM audit_seal s JOIN audit_log l ON l.position = s.last_position
      WHERE s.last_position >= ${position} AND s.last_position < (SELECT MAX(last_position) FROM audit_seal)
      ORDER BY s.last_position LIMIT ${limit}`

  const atOf = (position: number) =>
    Effect.map(sql<{ readonly at: number | bigint }>`SELECT at FROM audit_log WHERE position = ${position}`, ([row]) =>
      row === undefined ? undefined : Number(row.at)
    )

  /** The last batch of those that are old, of the next ones. */
  const oldBatch = Effect.fnUntraced(function* (oldest: number, beforeMillis: number) {
    const batches = yield* batchesFrom(oldest, options.batchesMax)
    if (batches[0] === undefined || Number(batches[0].at) >= beforeMillis - options.slackMillis) return undefined
    const firstKept = batches.findIndex(({ at }) => Number(at) >= beforeMillis)
    return firstKept < 0 ? batches.at(-1) : batches[firstKept - 1]
  })

  /** The batch that goes last, if any goes now. */
  const lastToGo = Effect.fnUntraced(function* (oldest: number, beforeMillis: number) {
    const partition = yield* partitionOf(oldest)
    const began = yield* atOf(oldest)
    const ended = partition && (yield* atOf(partition.to - 1))
    if (partition === undefined || began === undefined || ended === undefined) {
      return yield* oldBatch(oldest, beforeMillis)
    }
    if (ended >= beforeMillis) {
      const isSoon = ended - began <= spansMax * Partitions.spanFor(options.keepMillis)
      return isSoon ? undefined : yield* oldBatch(oldest, beforeMillis)
    }
    const [batch] = yield* batchesFrom(partition.to - 1, 1)
    return batch !== undefined && Number(batch.at) < beforeMillis ? batch : undefined
  })

  const announce = Effect.gen(function* () {
    if (options.keepMillis === 0) return
    const nowMillis = yield* Clock.currentTimeMillis
    const { oldest } = yield* ends
    if (oldest === undefined) return
    const last = yield* lastToGo(oldest, nowMillis - options.keepMillis)
    if (last === undefined) return
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
  // What is announced now is sealed by the next look, or the one after it.
  yield* Jobs.regularly("audit-retention", Effect.andThen(take, announce), {
    failed: "old entries of the audit could not be taken out",
    intervalMillis: options.intervalMillis
  })
})
