/**
 * Seals the audit: moves committed entries from `audit_entry`, where transactions
 * write them, to `audit_log`, where they have positions and a chain of hashes.
 *
 * Promises: every committed entry comes to stand in the log once, and none that
 * is not committed; in the order of their sequences, so that those of one subject
 * stand in the order of their commits, and what began after another had committed
 * stands behind it (`audit/Entries`); each batch is one transaction, with a seal
 * that holds the hash of its last entry. A failure delays and loses nothing. The end
 * of the log is known in memory too: where the database's is another than was
 * left there, there is an alarm, and the chain goes on from what was left, so
 * that the place shows when the log is verified. A database server that took over
 * may lack what was sealed last; there the chain goes on from what it has.
 *
 * On PostgreSQL, where transactions run side by side, an entry may be seen before
 * one of a lower sequence is. So what follows without a gap on what was sealed
 * last is sealed at once, and the rest waits until it is known what becomes of the
 * gap: it closes, or nothing is left of the transactions that shared a turn
 * (`audit/Turns`) after it was seen, and whoever looks again still sees it; then it
 * was rolled back, or never drawn. Other transactions are of no matter, however
 * long they last. Nothing is locked meanwhile, and no writer waits.
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
import * as Turns from "./Turns.ts"

export interface SealerOptions {
  /** Entries in one transaction at the most. */
  readonly batchMax: number
  /** How often it looks without having been woken, in milliseconds. */
  readonly pollMillis: number
  /**
   * From a wake to the look at the least, so that what comes together is sealed together, in milliseconds. As soon it looks
   * again where entries wait for a transaction that is under way, and then twice as late each time.
   */
  readonly gatherMillis: number
  /**
   * The longest rest between two batches, or two looks at what waits, in milliseconds; otherwise it is three times as long
   * as the last batch took.
   */
  readonly restMillisMax: number
  /** The longest pause between two attempts that fail, in milliseconds. */
  readonly retryMillisMax: number
  /** How long what is left may take when the server stops, in milliseconds. */
  readonly stopMillisMax: number
}

export const defaultOptions: SealerOptions = {
  batchMax: 500,
  pollMillis: 1000,
  gatherMillis: 50,
  restMillisMax: 200,
  retryMillisMax: 5000,
  stopMillisMax: 5000
}

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
    /** Seals all that is committed now: what waits for transactions under way, once they have ended. */
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

/** What became of a batch. */
export interface Sealed {
  readonly entries: number
  /** There may be more. */
  readonly isFull: boolean
  /** The first and the last of the entries that were seen, and wait for a transaction under way, by their sequences. */
  readonly held: readonly [first: number, last: number] | undefined
}

/** A gap between sequences, as it was seen. */
interface Gap {
  /** The highest sequence that was seen: all numbers below had been drawn. */
  readonly upTo: number
  /** Who had a turn after that: nobody else may still fill a gap below `upTo`. */
  readonly writers: Turns.Writers
}

/**
 * How many of `sequences`, which rise, may be sealed: those that nothing comes before any more, as far as `decided`, and
 * those that follow without a gap.
 */
export const countReady = (sequences: ReadonlyArray<number>, decided: number): number => {
  let last = decided
  const held = sequences.findIndex((sequence) => {
    if (sequence > last + 1) return true
    last = Math.max(last, sequence)
    return false
  })
  return held < 0 ? sequences.length : held
}

/** The turn of the loop: seals one batch. `moves`: how many times another database server has taken over. */
export const make = Effect.fnUntraced(function* (
  options: SealerOptions = defaultOptions,
  moves: () => number = () => 0
) {
  const sql = yield* SqlClient.SqlClient
  const log = yield* AuditLog
  const inbox = sql.literal(
    "sequence, at, actor, peer, action, zone, subject, generation, before, after, reason, cause, request, result"
  )
  const all = sql.literal(Chain.columns)
  /** What this server left as the end of the log. */
  let left: Head | undefined
  let leftAfterMoves = 0
  let countedMillis = -Infinity
  /** That entries wait for. */
  let gap: Gap | undefined

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

  /** The end to go on from, with the sequence that stands there, and the first position that is free. */
  const findEnd = Effect.gen(function* () {
    const found = yield* log.head
    if (moves() !== leftAfterMoves) left = undefined
    const isKnown = left === undefined || found.position > left.position || found.hash === left.hash
    const head = isKnown ? found : left!
    if (!isKnown) yield* alarm(`${head.position}:${head.hash}`, `${found.position}:${found.hash}`)
    const [row] = yield* sql<{ readonly position: number | bigint | null; readonly sequence: number | bigint | null }>`
      SELECT MAX(position) AS position, (SELECT sequence FROM audit_log WHERE position = ${head.position}) AS sequence
      FROM audit_log WHERE position > ${head.position}`
    const last = Number(row?.position ?? 0)
    if (last > head.position) yield* alarm(`${head.position}`, `${last}, which no seal covers`)
    // Where retention has taken it, or somebody else, it is not known.
    const sequence = head.position === 0 ? 0 : Number(row?.sequence ?? -Infinity)
    return { hash: head.hash, position: Math.max(head.position, last), sequence }
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

  /** What is there, in one snapshot. */
  const look = sql<InboxRow>`SELECT ${inbox} FROM audit_entry ORDER BY sequence LIMIT ${options.batchMax}`

  const sequencesOf = (rows: ReadonlyArray<InboxRow>) => rows.map(({ sequence }) => Number(sequence))

  /** Up to where nothing comes any more, by the gap that was seen before: for a look after this. */
  const decidedByGap = Effect.gen(function* () {
    if (gap === undefined) return -Infinity
    const { upTo, writers } = gap
    const now = yield* Turns.writers(sql)
    const isSame = now.server === writers.server
    if (isSame && [...writers.transactions].some((one) => now.transactions.has(one))) return -Infinity
    gap = undefined
    return isSame ? upTo : -Infinity
  })

  /** Entries that are there, how many of them may be sealed, and behind what. */
  const takeReady = Effect.gen(function* () {
    const decided = yield* decidedByGap
    const seen = yield* look
    if (seen.length === 0) return { seen, ready: 0, head: undefined }
    const head = yield* findEnd
    const sequences = sequencesOf(seen)
    const ready = countReady(sequences, Math.max(decided, head.sequence))
    if (ready === seen.length) {
      gap = undefined
      return { seen, ready, head }
    }
    if (gap !== undefined && sequences[ready]! <= gap.upTo) return { seen, ready, head }
    const upTo = sequences.at(-1)!
    const writers = yield* Turns.writers(sql)
    if (writers.transactions.size > 0) {
      gap = { upTo, writers }
      return { seen, ready, head }
    }
    // Whoever could fill it has committed before this look, or will never.
    gap = undefined
    const again = yield* look
    return { seen: again, ready: countReady(sequencesOf(again), upTo), head }
  })

  const takeAll = Effect.gen(function* () {
    const seen = yield* look
    return { seen, ready: seen.length, head: seen.length === 0 ? undefined : yield* findEnd }
  })

  const seal = Effect.gen(function* () {
    yield* sql.onDialectOrElse({
      pg: () => sql`SELECT pg_advisory_xact_lock(${sealLock})`,
      orElse: () => Effect.void
    })
    const { head, ready, seen } = yield* sql.onDialectOrElse({
      pg: () => takeReady,
      // One transaction writes after the other.
      orElse: () => takeAll
    })
    const nowMillis = yield* Clock.currentTimeMillis
    const first = seen[ready]
    const held = first === undefined ? undefined : ([Number(first.sequence), Number(seen.at(-1)!.sequence)] as const)
    const waitedMillis = first === undefined ? 0 : nowMillis - Number(first.at)
    const isFull = seen.length === options.batchMax
    if (ready === 0 || head === undefined) return { entries: 0, head: undefined, held, isFull: false, waitedMillis }
    const taken = seen.slice(0, ready)
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
      held,
      isFull,
      waitedMillis: isFull ? nowMillis - rows[0]!.at : waitedMillis
    }
  }).pipe(sql.withTransaction)

  return Effect.gen(function* () {
    const movesBefore = moves()
    const { entries, head, held, isFull, waitedMillis } = yield* seal
    if (head === undefined) {
      // Another server may have sealed.
      log.appended((yield* log.head).position)
    } else {
      left = head
      leftAfterMoves = movesBefore
      log.appended(head.position)
      yield* Metric.update(AuditMetrics.position, head.position)
    }
    yield* isFull || held !== undefined ? countNowAndThen : Metric.update(AuditMetrics.unsealed, 0)
    yield* Metric.update(AuditMetrics.sealLag, Math.max(0, waitedMillis) / 1000)
    return { entries, held, isFull } satisfies Sealed
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
    let lookMillis = options.gatherMillis
    for (;;) {
      // Another server seals: here it is only seen how far it has come.
      if (!isOurs()) return log.appended((yield* log.head).position)
      const startMillis = yield* Clock.currentTimeMillis
      const { entries, held, isFull } = yield* seal
      if (failures > 0) yield* Effect.logInfo("entries of the audit are sealed again")
      failures = 0
      if (entries > 0) signals.send("audit")
      sealedMillis = yield* Clock.currentTimeMillis
      if (held !== undefined) {
        lookMillis = Math.min(options.restMillisMax, entries > 0 ? options.gatherMillis : 2 * lookMillis)
        yield* Effect.sleep(lookMillis)
      } else if (isFull) {
        yield* Effect.sleep(Math.min(options.restMillisMax, restFactor * (sealedMillis - startMillis)))
      } else return
    }
  }).pipe(Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failed(cause))))

  const awaitWake = Effect.andThen(Effect.timeoutOption(signal.await, options.pollMillis), () => {
    signal.closeUnsafe()
    return Effect.sleep(options.gatherMillis)
  })

  const drain = Effect.gen(function* () {
    /** The last entry that waits and was there when we came to the first that does. */
    let newest: number | undefined
    for (;;) {
      const { held, isFull } = yield* seal
      if (held === undefined && !isFull) return
      if (held !== undefined) {
        newest ??= held[1]
        if (held[0] > newest) return
        yield* Effect.sleep(options.gatherMillis)
      } else yield* Effect.yieldNow
    }
  })

  // What others wrote when they stopped, before us, is sealed too, when the database lets us.
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeoutOption(drain, options.stopMillisMax)))
  yield* Effect.andThen(turn, awaitWake).pipe(Effect.forever, Effect.forkScoped)

  return Sealer.of({ wake: Effect.sync(() => void signal.openUnsafe()), drain })
})
