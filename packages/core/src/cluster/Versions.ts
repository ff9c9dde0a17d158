/**
 * What a server keeps in memory of the registry, kept as other servers have it.
 *
 * Each change of such a thing raises a number in the transaction of the change
 * (`bumpOf`). Whoever keeps it in memory looks at the number each second, and at
 * once when it is told to (`cluster/Signals`), and reads anew when it has risen
 * (`follow`). While the database cannot be read, what is in memory stays, and it
 * is said. On SQLite there is one server, and nothing to follow.
 *
 * Promises: what is committed elsewhere is in memory here within `pollMillis` and
 * the time of a read, as long as the database answers. Leaves to others: reading
 * anew, so that what is newer in memory stays.
 */
import { Effect, Latch, Metric } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import { Failover } from "../storage/Failover.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { Signals } from "./Signals.ts"
import * as SignalMetrics from "./SignalMetrics.ts"
import type { Topic } from "./Topics.ts"

export interface Followed {
  readonly topic: Topic
  /** Rises, or changes, with what is kept. Default: the number that `bumpOf` raises. */
  readonly version?: Effect.Effect<number, SqlError.SqlError>
  /** Reads anew. What is newer in memory than what is read stays. */
  readonly reload: Effect.Effect<void, SqlError.SqlError>
  /**
   * Reads anew, and nothing of what is in memory stays, however new it says it is: for another database server that took
   * over, perhaps without the last changes. Default: `reload`, where that compares nothing.
   */
  readonly anew?: Effect.Effect<void, SqlError.SqlError> | undefined
  /** How often it is looked whether it has changed, in milliseconds. Default 1000. */
  readonly pollMillis?: number | undefined
}

export const defaultPollMillis = 1000

/**
 * For a transaction that changes what others keep in memory: others of the topic wait from then on until it commits, so it
 * is done behind all else that `audit/Entries.inTransaction` gathers, and anywhere else comes behind the entries too. It
 * tells them by the signals of who made it, wherever it runs.
 */
export const bumpOf = (sql: SqlClient.SqlClient, topic: Topic) =>
  Effect.map(Signals, (signals): Effect.Effect<void, SqlError.SqlError> =>
    sql.onDialectOrElse({
      pg: () =>
        Audit.atEnd(
          `change_version ${topic}`,
          Effect.andThen(
            sql`
              INSERT INTO change_version (topic, version) VALUES (${topic}, 1)
              ON CONFLICT (topic) DO UPDATE SET version = change_version.version + 1`,
            sql.afterCommit(Effect.sync(() => signals.send(topic)))
          )
        ),
      orElse: () => Effect.void
    })
  )

const versionOf = (sql: SqlClient.SqlClient, topic: Topic) =>
  Effect.map(
    sql<{ readonly version: number | bigint }>`SELECT version FROM change_version WHERE topic = ${topic}`,
    ([row]) => Number(row?.version ?? 0)
  )

/** Has `reload` run when others have changed what it reads, until the scope ends. */
export const follow = (sql: SqlClient.SqlClient, followed: Followed) =>
  sql.onDialectOrElse({ pg: () => run(sql, followed), orElse: () => Effect.void })

const run = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  { pollMillis = defaultPollMillis, reload, anew = reload, topic, version = versionOf(sql, topic) }: Followed
) {
  const signals = yield* Signals
  const told = yield* Latch.make(false)
  yield* signals.listen(topic, () => told.openUnsafe())
  const stale = Metric.withAttributes(SignalMetrics.stale, { topic })
  /** What is in memory was read before the first look. */
  let known: number | undefined
  let failing = false
  /** Times that another database server took over, and how many of them what is in memory was read behind. */
  let [moves, followed] = [0, 0]
  const { onMoved } = yield* Failover
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      onMoved(() => {
        moves += 1
        told.openUnsafe()
      })
    ),
    (stop) => Effect.sync(stop)
  )

  const look = Effect.gen(function* () {
    told.closeUnsafe()
    const moved = moves
    const now = yield* version
    if (now === known && moved === followed) return
    yield* moved === followed ? reload : anew
    known = now
    followed = moved
  }).pipe(
    Effect.andThen(
      Effect.suspend(() => {
        if (!failing) return Metric.update(stale, 0)
        failing = false
        return Effect.andThen(
          Metric.update(stale, 0),
          Effect.logInfo("what other servers change is followed again").pipe(Effect.annotateLogs({ topic }))
        )
      })
    ),
    Effect.catch((error) =>
      Effect.suspend(() => {
        if (failing) return Effect.void
        failing = true
        return Effect.andThen(
          Metric.update(stale, 1),
          Effect.logWarning("what other servers change cannot be read, what is known stays as it is").pipe(
            Effect.annotateLogs({ topic, reason: detailOf(error) })
          )
        )
      })
    ),
    Effect.catchDefect((defect) =>
      Effect.logError("what other servers change cannot be followed, will try again", defect).pipe(
        Effect.annotateLogs({ topic })
      )
    )
  )

  yield* Effect.andThen(look, Effect.raceFirst(told.await, Effect.sleep(pollMillis))).pipe(
    Effect.forever,
    Effect.forkScoped
  )
})
