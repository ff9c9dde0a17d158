/**
 * Requests that share a commit: who comes while one is under way is part of the
 * next, in one transaction, whatever their number (group commit).
 *
 * Promises: each request is answered once, with what became of it or that it was
 * not done, also when the database is silent or the server stops. What was
 * refused is not carried out afterwards, unless all that was left of it was the
 * commit itself. Leaves to others: what is written, and its answers
 * (`registry/Registry`).
 */
import { Clock, Effect, Fiber, Queue, Result, Schema } from "effect"
import { outOfTouch } from "../cluster/Asked.ts"
import type { Cluster } from "../cluster/Cluster.ts"

/**
 * The registry's database did not take the change; nothing of it is stored, unless the sentence says that it may have been
 * done. Trying again later may help.
 */
export class RegistryUnavailable extends Schema.TaggedError<RegistryUnavailable>()("RegistryUnavailable", {
  detail: Schema.String
}) {
  override get message(): string {
    return `the registry could not be written: ${this.detail}`
  }
}

/** Some who asked have gone while it was being written: it is decided anew, without them. */
export class Overtaken extends Schema.TaggedError<Overtaken>()("Overtaken", {}) {
  override get message(): string {
    return "the database was slow, and some who asked have gone meanwhile"
  }
}

export interface GroupCommitOptions {
  /** Requests in one commit at the most. */
  readonly batchMax: number
  /** How long requests that keep coming are gathered for one commit at the most, in milliseconds. */
  readonly gatherMillisMax: number
  /** Requests that may wait for a commit; beyond it callers are told that the registry is unavailable. */
  readonly waitingMax: number
  /** How long the database may take over a commit until those who wait are told so, in milliseconds. */
  readonly answerMillisMax: number
}

/** A request that waits for its commit, and who is told what became of it. */
export interface Waiting {
  /** Of this server in the cluster, when it was asked. */
  readonly life: number
  /** Whether whoever asked still waits, and never again once not; undefined: it counts in any case. */
  readonly isWanted?: (() => boolean) | undefined
  /** Only the first answer counts. */
  readonly resume: (result: Result.Result<never, RegistryUnavailable>) => void
}

/** Those whose commits are under way. */
export interface Batch<W extends Waiting> {
  readonly waiting: ReadonlyArray<W>
  /** They were told already that it takes too long. */
  readonly isLate: () => boolean
  /**
   * One attempt to write what those of `asked` want who still wait; the others are refused. `write` has `last` as the last
   * of its transaction, when its rows are held: it fails where what was asked must not be done any more.
   */
  readonly attempt: <B extends W, A, E, R>(
    asked: ReadonlyArray<B>,
    write: (
      wanted: ReadonlyArray<B>,
      last: Effect.Effect<void, RegistryUnavailable | Overtaken>
    ) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | RegistryUnavailable, R>
}

/** From this share of `answerMillisMax` on a transaction is slow: some who wait for it may have gone. */
const slowShare = 0.2

const silentFor = (millis: number) => `the database has not answered for ${millis / 1000} s`

/** How often whoever comes while the database is silent is refused, in milliseconds. */
const refuseMillis = 1000

/** Whoever asked has gone, and has perhaps asked another server for something newer since. */
const isLeft = ({ isWanted }: Waiting): boolean => isWanted?.() === false

export const refuse = (waiting: ReadonlyArray<Waiting>, detail: string): void => {
  for (const { resume } of waiting) resume(Result.fail(new RegistryUnavailable({ detail })))
}

const withoutThoseGone = <W extends Waiting>(waiting: ReadonlyArray<W>): ReadonlyArray<W> => {
  const gone = new Set(waiting.filter(isLeft))
  if (gone.size === 0) return waiting
  refuse([...gone], "whoever asked has gone")
  return waiting.filter((each) => !gone.has(each))
}

/** Takes requests, and has `answer` write them and tell each what became of it; `answer` never fails. */
export const make = Effect.fnUntraced(function* <W extends Waiting>(
  options: GroupCommitOptions,
  cluster: Pick<Cluster["Service"], "life" | "proven">,
  answer: (batch: Batch<W>) => Effect.Effect<void>
) {
  const clock = yield* Clock.Clock
  const queue = yield* Queue.bounded<W>(options.waitingMax)
  let closed = false

  /** By a clock that only goes on: that of the day may be set meanwhile. */
  const elapsedMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const isSlow = (sinceMillis: number) => elapsedMillis() - sinceMillis > options.answerMillisMax * slowShare

  const wait = (waiting: W): void => {
    if (closed) return refuse([waiting], "the server is stopping")
    if (Queue.offerUnsafe(queue, waiting)) return
    refuse([waiting], `more than ${options.waitingMax} registrations are waiting already`)
  }

  /**
   * Before each attempt: what was asked before this server was taken for dead is not carried out. Whoever asked has gone to
   * another server, where it may have asked for something newer since.
   */
  const inLifeOf = (life: number) =>
    Effect.flatMap(cluster.proven, (isProven) =>
      isProven && cluster.life() === life ? Effect.void : Effect.fail(new RegistryUnavailable({ detail: outOfTouch }))
    )

  const batchOf = (waiting: ReadonlyArray<W>, life: number, isLate: () => boolean): Batch<W> => ({
    waiting,
    isLate,
    attempt: (asked, write) =>
      Effect.suspend(() => {
        const beganMillis = elapsedMillis()
        const wanted = withoutThoseGone(asked)
        /**
         * Those who waited have not been refused meanwhile, or what they asked elsewhere since, and were told, would be
         * undone by it; and where it was slow, none has gone. A statement may have been on its way for long: what a cut
         * network holds back it delivers once it is whole again.
         */
        const last = Effect.suspend((): Effect.Effect<void, RegistryUnavailable | Overtaken> => {
          if (isLate()) return Effect.fail(new RegistryUnavailable({ detail: silentFor(options.answerMillisMax) }))
          if (cluster.life() !== life) return Effect.fail(new RegistryUnavailable({ detail: outOfTouch }))
          return isSlow(beganMillis) && wanted.some(isLeft) ? Effect.fail(new Overtaken()) : Effect.void
        })
        return Effect.andThen(inLifeOf(life), write(wanted, last))
      })
  })

  /**
   * Waits for a request, and then for its company: as long as each turn of the event loop brings more, up to
   * `gatherMillisMax`. Connections are accepted one a turn, so a commit in every turn would be a commit for each; one
   * that comes alone waits for two empty turns, some microseconds.
   */
  const gather = Effect.gen(function* () {
    yield* Queue.peek(queue)
    const deadlineMillis = (yield* Clock.currentTimeMillis) + options.gatherMillisMax
    let waiting = Queue.sizeUnsafe(queue)
    let emptyTurns = 0
    while (emptyTurns < 2 && waiting < options.batchMax && (yield* Clock.currentTimeMillis) < deadlineMillis) {
      yield* Effect.yieldNow
      const size = Queue.sizeUnsafe(queue)
      emptyTurns = size > waiting ? 0 : emptyTurns + 1
      waiting = size
    }
    return yield* Queue.takeBetween(queue, 1, options.batchMax)
  })

  /**
   * Tells those who wait that the database has been silent for too long, and whoever comes while it stays so. What it
   * was given is undone when it answers (`Batch.attempt`), unless all that was left was the commit.
   */
  const refuseInTime = Effect.fnUntraced(function* (waiting: ReadonlyArray<W>, isNowLate: () => void) {
    const detail = silentFor(options.answerMillisMax)
    yield* Effect.sleep(options.answerMillisMax)
    isNowLate()
    refuse(waiting, detail)
    yield* Effect.logError("registrations are refused").pipe(Effect.annotateLogs({ reason: detail }))
    while (true) {
      refuse(yield* Queue.clear(queue), detail)
      yield* Effect.sleep(refuseMillis)
    }
  })

  const answerInTime = Effect.fnUntraced(function* (taken: ReadonlyArray<W>) {
    const life = cluster.life()
    // Who comes back in a crowd gives up, and comes again: the work of those who have gone would make the others wait longer.
    const wanted = withoutThoseGone(taken)
    const waiting = wanted.filter((each) => each.life === life)
    refuse(
      wanted.filter((each) => each.life !== life),
      outOfTouch
    )
    if (waiting.length === 0) return
    let late = false
    const impatience = yield* Effect.forkChild(refuseInTime(waiting, () => (late = true)))
    yield* answer(batchOf(waiting, life, () => late))
    yield* Fiber.interrupt(impatience)
  })

  // Runs after the loop below has ended: nobody is left to wait for an answer that does not come.
  yield* Effect.addFinalizer(() =>
    Effect.map(Queue.clear(queue), (rest) => {
      closed = true
      refuse(rest, "the server is stopping")
    })
  )
  // What was taken is answered, also when we are stopped meanwhile.
  yield* Effect.uninterruptibleMask((restore) => Effect.flatMap(restore(gather), answerInTime)).pipe(
    Effect.forever,
    Effect.forkScoped
  )

  return { wait, isSlow }
})
