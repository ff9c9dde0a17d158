/**
 * The audit log, read forward by many: pages of events behind a position.
 *
 * Whoever follows pulls: it reads a page, does what it does with it, and reads
 * the next one. So who is slow is only behind, costs no memory while it is, and
 * holds nobody up. The newest events stand in memory, read once for all; older
 * ones come from the log, a few reads at a time. While nobody follows, nothing
 * is read.
 *
 * Promises: an event is given only after its transaction has committed, each
 * position once and in order; positions that are gone are named (`gap`).
 * Leaves to others: who may see what (`Event`), and sending it.
 */
import { Context, Deferred, Effect, Latch, Layer, Metric, type Scope, Semaphore } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { AuditLog } from "../audit/AuditLog.ts"
import type { Gap } from "../api/Events.ts"
import { detailOf } from "../storage/SqlFailure.ts"
import { integer } from "../storage/Rows.ts"
import { type Item, toItem } from "./Event.ts"
import * as EventMetrics from "./EventMetrics.ts"

export interface FeedOptions {
  /** Events in memory, over all that follow. */
  readonly recentMax: number
  /** Their JSON in memory at the most, in characters. */
  readonly recentCharactersMax: number
  /** Events of one page at the most. */
  readonly pageMax: number
  /** JSON of one page, in characters: a page ends with the event that goes beyond it. */
  readonly pageCharactersMax: number
  /** Pages that are read from the database at once. */
  readonly readsMax: number
  /** Rest after the log could not be read, in milliseconds. */
  readonly retryMillis: number
}

export const defaultOptions: FeedOptions = {
  recentMax: 10_000,
  recentCharactersMax: 64 * 1024 * 1024,
  pageMax: 200,
  pageCharactersMax: 256 * 1024,
  readsMax: 2,
  retryMillis: 1000
}

export interface Page {
  /** Positions that are there no longer, before the items. */
  readonly gap: Gap | undefined
  readonly items: ReadonlyArray<Item>
  /** What the page reaches to: where the next one starts. Without gap and items, where this one started. */
  readonly position: number
}

export class Feed extends Context.Service<
  Feed,
  {
    /** The highest position in the log; 0 when it is empty. */
    readonly head: Effect.Effect<number, SqlError.SqlError>
    /** The position before the oldest entry that is kept. */
    readonly beginning: Effect.Effect<number, SqlError.SqlError>
    /** The position before the first entry of a time or later, by the times that entries carry. */
    readonly before: (atMillis: number) => Effect.Effect<number, SqlError.SqlError>
    /** The page behind `position`; empty when there is no more yet. */
    readonly after: (position: number) => Effect.Effect<Page, SqlError.SqlError>
    /** Waits until there is something behind `position`, or it is not there any more. Only while `following`. */
    readonly awaitBeyond: (position: number) => Effect.Effect<void>
    /** Says that somebody follows, until the scope ends. */
    readonly following: Effect.Effect<void, never, Scope.Scope>
  }
>()("@prism-dns/core/events/Feed") {
  static readonly layer = (
    options: Partial<FeedOptions> = {}
  ): Layer.Layer<Feed, never, AuditLog | SqlClient.SqlClient> =>
    Layer.effect(Feed, make({ ...defaultOptions, ...options }))
}

/** The first entries of a time are looked for among so many that come next by their times: clocks of two servers differ a little. */
const entriesOfOneTime = 1000

/** The newest events, without gaps: of positions above `low` up to `high`. */
const makeRecent = ({ recentCharactersMax, recentMax }: FeedOptions) => {
  let items: Array<Item> = []
  /** Where in `items` the oldest one stands; what is before it is given up, and cut off now and then. */
  let first = 0
  let low = 0
  let characters = 0
  const high = () => low + items.length - first
  return {
    high,
    low: () => low,
    size: () => items.length - first,
    /** Starts anew behind `position`. */
    reset: (position: number) => {
      items = []
      first = 0
      low = position
      characters = 0
    },
    add: (item: Item) => {
      items.push(item)
      characters += item.json.length
      while (items.length - first > recentMax || (characters > recentCharactersMax && items.length - first > 1)) {
        characters -= items[first]!.json.length
        first++
        low++
      }
      if (first > recentMax) {
        items = items.slice(first)
        first = 0
      }
    },
    behind: (position: number, max: number): ReadonlyArray<Item> => {
      const from = first + position - low
      return items.slice(from, from + max)
    }
  }
}

const make = Effect.fnUntraced(function* (options: FeedOptions) {
  const log = yield* AuditLog
  const sql = yield* SqlClient.SqlClient
  const reads = yield* Semaphore.make(options.readsMax)
  const recent = makeRecent(options)
  const followed = yield* Latch.make(false)
  let followers = 0
  const isFollowed = () => followers > 0
  /** Whether what is in memory ends where the log does, as far as was heard. */
  let isAtEnd = false
  /** Times that the log turned out to end before what was read of it, as on a database server that took over. */
  let cuts = 0
  let grown = Deferred.makeUnsafe<void>()

  const announce = Effect.suspend(() => {
    const told = grown
    grown = Deferred.makeUnsafe<void>()
    return Deferred.succeed(told, undefined)
  })

  const head = Effect.map(log.head, ({ position }) => position)

  /** Reads on until nobody follows. */
  const follow = Effect.gen(function* () {
    recent.reset(yield* Effect.uninterruptible(head))
    isAtEnd = isFollowed()
    yield* announce
    while (isFollowed()) {
      yield* Effect.raceFirst(log.awaitBeyond(recent.high()), nobody)
      if (!isFollowed()) return
      // Let be until it is answered: who stops in the middle of it would have the database look for what to cancel.
      const entries = yield* Effect.uninterruptible(log.after(recent.high(), options.pageMax))
      // A hole in the positions: retention was faster than we, or the log is another one. Who follows finds out.
      if (entries.length > 0 && entries[0]!.position !== recent.high() + 1) recent.reset(entries[0]!.position - 1)
      for (const entry of entries) recent.add(toItem(entry))
      if (entries.length > 0) yield* announce
      else if (isFollowed()) {
        // Told of what is not there: the log may have become another one.
        const end = yield* Effect.uninterruptible(head)
        if (end < recent.high()) {
          recent.reset(end)
          cuts += 1
          yield* announce
        }
        yield* Effect.sleep(options.retryMillis)
      }
      yield* Metric.update(EventMetrics.recent, recent.size())
    }
  })

  const left = yield* Latch.make(false)
  const nobody = Effect.asVoid(left.await)

  yield* followed.await.pipe(
    Effect.andThen(follow),
    Effect.catch((error) =>
      Effect.logWarning("the log could not be read for those who follow events, will try again").pipe(
        Effect.annotateLogs({ reason: detailOf(error) }),
        Effect.andThen(Effect.sleep(options.retryMillis))
      )
    ),
    Effect.catchDefect((defect) =>
      Effect.logError("those who follow events wait because of a fault, will try again", defect).pipe(
        Effect.andThen(Effect.sleep(options.retryMillis))
      )
    ),
    Effect.forever,
    Effect.forkScoped
  )

  const following = Effect.acquireRelease(
    Effect.sync(() => {
      followers++
      left.closeUnsafe()
      followed.openUnsafe()
    }),
    () =>
      Effect.sync(() => {
        followers--
        if (isFollowed()) return
        followed.closeUnsafe()
        left.openUnsafe()
        isAtEnd = false
        recent.reset(recent.high())
      })
  )

  /** As many of `items` as make a page. */
  const cut = (items: ReadonlyArray<Item>): ReadonlyArray<Item> => {
    let characters = 0
    const end = items.findIndex((item) => (characters += item.json.length) > options.pageCharactersMax)
    return end === -1 ? items : items.slice(0, end + 1)
  }

  const read = Effect.fnUntraced(function* (position: number): Effect.fn.Return<Page, SqlError.SqlError> {
    const entries = yield* log.after(position, options.pageMax)
    const oldest = entries[0]
    if (oldest !== undefined) {
      const items = cut(entries.map(toItem))
      const gap =
        oldest.position > position + 1
          ? { from: position + 1, to: oldest.position - 1, reason: "retention" as const }
          : undefined
      return { gap, items, position: items.at(-1)!.id }
    }
    const end = yield* head
    if (end === position) return { gap: undefined, items: [], position }
    if (end < position) return { gap: { from: end + 1, to: position, reason: "restored" }, items: [], position: end }
    if ((yield* log.oldest) <= end) return yield* read(position) // came meanwhile
    return { gap: { from: position + 1, to: end, reason: "retention" }, items: [], position: end }
  })

  const after: Feed["Service"]["after"] = (position) =>
    Effect.suspend(() => {
      if (position >= recent.low() && position < recent.high()) {
        const items = cut(recent.behind(position, options.pageMax))
        return Effect.succeed({ gap: undefined, items, position: items.at(-1)!.id })
      }
      // Nothing newer was read: only who is behind, or ahead, of what is in memory asks the database.
      if (isAtEnd && position === recent.high()) return Effect.succeed({ gap: undefined, items: [], position })
      return reads.withPermit(Effect.uninterruptible(read(position)))
    })

  const awaitBeyond: Feed["Service"]["awaitBeyond"] = (position) =>
    Effect.suspend(() => {
      const known = cuts
      const wait: Effect.Effect<void> = Effect.suspend(() =>
        recent.high() > position || cuts > known ? Effect.void : Effect.andThen(Deferred.await(grown), wait)
      )
      return wait
    })

  return Feed.of({
    head,
    beginning: Effect.map(log.oldest, (oldest) => oldest - 1),
    before: Effect.fnUntraced(function* (atMillis) {
      const rows = yield* sql<{ readonly position: number | bigint | null }>`
        SELECT MIN(position) AS position FROM (
          SELECT position FROM audit_log WHERE at >= ${integer(sql, atMillis)}
          ORDER BY at, position LIMIT ${integer(sql, entriesOfOneTime)}) AS next`
      const position = rows[0]?.position
      return position === null || position === undefined ? yield* head : Number(position) - 1
    }),
    after,
    awaitBeyond,
    following
  })
})
