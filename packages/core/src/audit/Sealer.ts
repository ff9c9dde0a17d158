/**
 * Seals the audit: moves committed entries from `audit_entry`, where transactions
 * write them, to `audit_log`, where they have positions and a chain of hashes.
 *
 * Promises: every committed entry comes to stand in the log once, and none that
 * is not committed; those of one subject in the order of their commits, and what
 * began after another had committed behind it; each batch is one transaction, with
 * a seal that holds the hash of its last entry. A failure delays and loses nothing. The end
 * of the log is known in memory too: where the database's is another than was
 * left there, there is an alarm, and the chain goes on from what was left, so
 * that the place shows when the log is verified. A database server that took over
 * may lack what was sealed last; there the chain goes on from what it has.
 *
 * On PostgreSQL, where transactions run side by side, it seals what one snapshot
 * shows, in the order of sequences, and asks nothing about numbers that are not
 * there: what is under way with a lower one comes in at a later position, once it
 * has committed, and holds up nobody. That keeps both orders: a later one of one
 * subject, or one that began later, drew its number later (`audit/Entries`), and a
 * snapshot that sees it sees the earlier one too.
 *
 * It runs after each commit of entries, and looks by itself now and then. Of
 * several servers one seals (`cluster/Jobs`), so that what is sealed together is
 * many entries; that no two do at once is the database's lock, not the job.
 */
import { Cause, Clock, Context, Effect, Latch, Layer, Metric } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Jobs from "../cluster/Jobs.ts"
import { Signals } from "../cluster/Signals.ts"
import { Failover } from "../storage/Failover.ts"
import { asTable, insertRows, integer } from "../storage/Rows.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { AuditLog, type Head } from "./AuditLog.ts"
import * as AuditMetrics from "./AuditMetrics.ts"
import * as Chain from "./Chain.ts"
import * as Entries from "./Entries.ts"

export interface SealerOptions {
  /** Entries in one transaction at the most. Undefined: as many as suit the database. */
  readonly batchMax: number | undefined
  /** How often it looks without having been woken, in milliseconds. */
  readonly pollMillis: number
  /** From a wake to the look at the least, so that what comes together is sealed together, in milliseconds. */
  readonly gatherMillis: number
  /** The longest rest between two batches, in milliseconds; otherwise it is three times as long as the last one took. */
  readonly restMillisMax: number
  /** The longest pause between two attempts that fail, in milliseconds. */
  readonly retryMillisMax: number
  /** How long what is left may take when the server stops, in milliseconds. */
  readonly stopMillisMax: number
}

export const defaultOptions: SealerOptions = {
  batchMax: undefined,
  pollMillis: 1000,
  gatherMillis: 50,
  restMillisMax: 200,
  retryMillisMax: 5000,
  stopMillisMax: 5000
}

/**
 * PostgreSQL is another process, and most of the time of a batch goes into its statements, whatever its length; on SQLite all
 * else waits for a batch.
 */
const batchMaxOf = (sql: SqlClient.SqlClient, { batchMax }: SealerOptions): number =>
  batchMax ?? sql.onDialectOrElse({ pg: () => 2000, orElse: () => 500 })

/** How many times as long as a batch took the next one waits. */
const restFactor = 3

/** How often entries that wait are counted for the metric at the most, in milliseconds. */
const countEveryMillis = 1000

/** Entries that are counted for the metric at the most. */
export const countedMax = 100_000

export class Sealer extends Context.Service<
  Sealer,
  {
    /** Says that there is something to seal. A hint: a lost one costs time, never truth. */
    readonly wake: Effect.Effect<void>
    /** Seals all that is committed now. */
    readonly drain: Effect.Effect<void, SqlError.SqlError>
  }
>()("@prism-dns/core/audit/Sealer") {
  static readonly layer = (options: Partial<SealerOptions> = {}) =>
    Layer.effect(Sealer, run({ ...defaultOptions, ...options }))
}

/** The number of the lock under which one server at a time seals; any will do, as long as it stays. */
const sealLock = 7_001_003

type InboxRow = Omit<Chain.EntryRow, "position">

interface SealedRow extends Chain.LogRow {
  readonly position: number
  readonly sequence: number
  readonly at: number
  readonly generation: number
}

/** `entries`, in order, chained behind `head`. */
export const chain = (head: Head, entries: ReadonlyArray<InboxRow>): ReadonlyArray<SealedRow> => {
  let { hash, position } = head
  return entries.map((entry) => {
    position += 1
    // Field by field: spreading a row takes several times as long as all the rest.
    const row = {
      position,
      sequence: Number(entry.sequence),
      at: Number(entry.at),
      actor: entry.actor,
      peer: entry.peer,
      action: entry.action,
      zone: entry.zone,
      subject: entry.subject,
      generation: Number(entry.generation),
      before: entry.before === null ? null : Chain.canonicalText(entry.before),
      after: entry.after === null ? null : Chain.canonicalText(entry.after),
      reason: entry.reason,
      cause: entry.cause,
      request: entry.request,
      result: entry.result,
      hash: ""
    }
    hash = Chain.hashOf(hash, Chain.textOf(row))
    row.hash = hash
    return row
  })
}

/**
 * The turn of the loop: seals one batch, and gives the number of entries in it. `moves`: how many times another database
 * server has taken over.
 */
export const make = Effect.fnUntraced(function* (
  options: SealerOptions = defaultOptions,
  moves: () => number = () => 0
) {
  const sql = yield* SqlClient.SqlClient
  const log = yield* AuditLog
  const batchMax = batchMaxOf(sql, options)
  const inbox = sql.literal(
    "sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result"
  )
  const all = sql.literal(Chain.columns)
  /** What this server left as the end of the log. */
  let left: Head | undefined
  let leftAfterMoves = 0
  let countedMillis = -Infinity

  /** Counting what is left costs as much as a third of sealing a batch. */
  const countNowAndThen = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    if (Math.abs(nowMillis - countedMillis) < countEveryMillis) return
    countedMillis = nowMillis
    yield* Metric.update(AuditMetrics.unsealed, yield* countInbox(sql))
  })

  const alarm = Effect.fnUntraced(function* (expected: string, found: string) {
    yield* Metric.update(AuditMetrics.sealAlarms, 1)
    yield* Effect.logError("the end of the audit log is not as it was left: somebody else has written there").pipe(
      Effect.annotateLogs({ expected, found })
    )
  })

  /** The end to go on from, and the first position that is free. */
  const findEnd = Effect.gen(function* () {
    const found = yield* log.head
    if (moves() !== leftAfterMoves) left = undefined
    const isKnown = left === undefined || found.position > left.position || found.hash === left.hash
    const head = isKnown ? found : left!
    if (!isKnown) yield* alarm(`${head.position}:${head.hash}`, `${found.position}:${found.hash}`)
    const [row] = yield* sql<{ readonly position: number | bigint | null }>`
      SELECT MAX(position) AS position FROM audit_log WHERE position > ${head.position}`
    const last = Number(row?.position ?? 0)
    if (last > head.position) yield* alarm(`${head.position}`, `${last}, which no seal covers`)
    return { hash: head.hash, position: Math.max(head.position, last) }
  })

  /** Entries of early versions are not as they are written today: they are sealed as these are. */
  const makeCanonical = (rows: ReadonlyArray<SealedRow>) =>
    rows.length === 0
      ? Effect.void
      : sql`
          UPDATE audit_entry SET before = r.earlier, after = r.later
          FROM ${asTable(
            sql,
            "r",
            { number: "bigint", earlier: "text", later: "text" },
            rows.map(({ after, before, sequence }) => ({ number: sequence, earlier: before, later: after }))
          )} WHERE audit_entry.sequence = r.number`

  /** From where transactions wrote them to the log. What PostgreSQL has it is not sent again. */
  const move = (rows: ReadonlyArray<SealedRow>) =>
    sql.onDialectOrElse({
      pg: () => {
        const places = rows.map(({ hash, position, sequence }) => ({
          place: position,
          number: sequence,
          digest: hash
        }))
        const table = asTable(sql, "r", { place: "bigint", number: "bigint", digest: "text" }, places)
        const numbers = asTable(sql, "r", { number: "bigint" }, places)
        return Effect.andThen(
          sql`
            INSERT INTO audit_log (${all})
            SELECT r.place, ${inbox}, r.digest FROM ${table} JOIN audit_entry ON sequence = r.number`,
          // Others may have committed earlier numbers meanwhile.
          sql`DELETE FROM audit_entry WHERE sequence IN (SELECT number FROM ${numbers})`
        )
      },
      // Nobody else writes meanwhile.
      orElse: () =>
        Effect.andThen(
          insertRows(sql, "audit_log", Chain.logColumns, rows),
          sql`DELETE FROM audit_entry WHERE sequence <= ${rows.at(-1)!.sequence}`
        )
    })

  const seal = Effect.gen(function* () {
    yield* sql.onDialectOrElse({
      pg: () => sql`SELECT pg_advisory_xact_lock(${sealLock})`,
      orElse: () => Effect.void
    })
    // In one snapshot: who sees an entry sees those that it is to stand behind.
    const taken = yield* sql<InboxRow>`SELECT ${inbox} FROM audit_entry ORDER BY sequence LIMIT ${batchMax}`
    if (taken.length === 0) return undefined
    const nowMillis = yield* Clock.currentTimeMillis
    const head = yield* findEnd
    const rows = chain(head, taken)
    const last = rows.at(-1)!
    yield* makeCanonical(rows.filter((row, i) => row.before !== taken[i]!.before || row.after !== taken[i]!.after))
    yield* move(rows)
    yield* sql`
      INSERT INTO audit_seal (last_position, first_position, at, hash)
      VALUES (${integer(sql, last.position)}, ${head.position + 1}, ${nowMillis}, ${last.hash})`
    return {
      entries: rows.length,
      head: { position: last.position, hash: last.hash },
      waitedMillis: nowMillis - rows[0]!.at
    }
  }).pipe(sql.withTransaction)

  return Effect.gen(function* () {
    const movesBefore = moves()
    const sealed = yield* seal
    if (sealed === undefined) {
      // Another server may have sealed.
      log.appended((yield* log.head).position)
      yield* Metric.update(AuditMetrics.unsealed, 0)
      yield* Metric.update(AuditMetrics.sealLag, 0)
      return 0
    }
    left = sealed.head
    leftAfterMoves = movesBefore
    log.appended(sealed.head.position)
    yield* Metric.update(AuditMetrics.position, sealed.head.position)
    const isFull = sealed.entries === batchMax
    yield* isFull ? countNowAndThen : Metric.update(AuditMetrics.unsealed, 0)
    yield* Metric.update(AuditMetrics.sealLag, isFull ? Math.max(0, sealed.waitedMillis) / 1000 : 0)
    return sealed.entries
  }).pipe(Effect.withSpan("Sealer.seal"))
})

const countInbox = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly entries: number | bigint }>`
      SELECT COUNT(*) AS entries FROM (SELECT 1 FROM audit_entry LIMIT ${countedMax}) AS counted`,
    ([row]) => Number(row!.entries)
  )

const run = Effect.fnUntraced(function* (options: SealerOptions) {
  const sql = yield* SqlClient.SqlClient
  const batchMax = batchMaxOf(sql, options)
  const { onMoved } = yield* Failover
  let moves = 0
  yield* Effect.acquireRelease(
    Effect.sync(() => onMoved(() => (moves += 1))),
    (stop) => Effect.sync(stop)
  )
  const seal = yield* make(options, () => moves)
  const log = yield* AuditLog
  const signals = yield* Signals
  const isOurs = yield* Jobs.standFor("audit-seal")
  const signal = yield* Latch.make(false)
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      Entries.onCommitted(sql, () => {
        signal.openUnsafe()
        if (!isOurs()) signals.send("audit")
      })
    ),
    (stop) => Effect.sync(stop)
  )
  yield* signals.listen("audit", () => signal.openUnsafe())
  let failures = 0
  let sealedMillis = yield* Clock.currentTimeMillis

  const failed = Effect.fnUntraced(function* (cause: Cause.Cause<SqlError.SqlError>) {
    failures += 1
    yield* Metric.update(AuditMetrics.sealFailures, 1)
    yield* Metric.update(AuditMetrics.sealLag, ((yield* Clock.currentTimeMillis) - sealedMillis) / 1000)
    if (failures === 1) {
      yield* Effect.logWarning("entries of the audit could not be sealed, they wait").pipe(
        Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)) })
      )
    }
    yield* Effect.sleep(Math.min(options.retryMillisMax, 100 * 2 ** Math.min(failures, 10)))
  })

  /**
   * Seals until nothing is left, resting three times as long as each batch took, so that it takes no more than a quarter of
   * the time: while thousands of hosts register at once, they come first.
   */
  const turn = Effect.gen(function* () {
    // Another server seals: here it is only seen how far it has come.
    if (!isOurs()) return log.appended((yield* log.head).position)
    for (;;) {
      const startMillis = yield* Clock.currentTimeMillis
      const entries = yield* seal
      if (failures > 0) yield* Effect.logInfo("entries of the audit are sealed again")
      failures = 0
      if (entries > 0) signals.send("audit")
      sealedMillis = yield* Clock.currentTimeMillis
      if (entries < batchMax) return
      yield* Effect.sleep(Math.min(options.restMillisMax, restFactor * (sealedMillis - startMillis)))
    }
  }).pipe(Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failed(cause))))

  const awaitWake = Effect.andThen(Effect.timeoutOption(signal.await, options.pollMillis), () => {
    signal.closeUnsafe()
    return Effect.sleep(options.gatherMillis)
  })

  const drain = Effect.gen(function* () {
    while ((yield* seal) === batchMax) yield* Effect.yieldNow
  })

  // What others wrote when they stopped, before us, is sealed too, when the database lets us.
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeoutOption(drain, options.stopMillisMax)))
  yield* Effect.andThen(turn, awaitWake).pipe(Effect.forever, Effect.forkScoped)

  return Sealer.of({ wake: Effect.sync(() => void signal.openUnsafe()), drain })
})
