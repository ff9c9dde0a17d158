/**
 * Signals over a line that all servers of a cluster share (`cluster/SignalLine`).
 *
 * What is to be said is gathered for some milliseconds, and kept while there is
 * no line, within its bounds. A text of one's own is called now and then, to see
 * that what is called is heard: behind a pool of connections that lends them by
 * the transaction, nothing is. A line that is lost, or on which nothing is heard,
 * is given up for a new one, with growing pauses; after each time without one,
 * all who listen are told that anything may have been missed.
 */
import { Cause, Clock, Effect, Exit, Fiber, Latch, Metric, Random, Result, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { detailOf } from "../storage/SqlFailure.ts"
import { type Line, SignalLine, textBytesMax } from "./SignalLine.ts"
import * as SignalMetrics from "./SignalMetrics.ts"
import type { SignalsService } from "./Signals.ts"
import { type Heard, type Topic, topics } from "./Topics.ts"

export interface SignalsOptions {
  /** How long what is to be said is gathered, in milliseconds. */
  readonly gatherMillis: number
  /** Words of a topic that wait to be sent; more become `all`. */
  readonly wordsMax: number
  /** How often it is tried out whether what is called is heard, in milliseconds. */
  readonly trialMillis: number
  /** How long a trial, a call, or the opening of a line may take, in milliseconds. */
  readonly answerMillisMax: number
  /** Between two lines, in milliseconds: from the first pause to the longest. */
  readonly retryMillisMin: number
  readonly retryMillisMax: number
}

export const defaultOptions: SignalsOptions = {
  gatherMillis: 15,
  wordsMax: 1000,
  trialMillis: 2000,
  answerMillisMax: 3000,
  retryMillisMin: 250,
  retryMillisMax: 5000
}

/** What is called: words on a topic, or a trial of one's own. */
const Text = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({
      from: Schema.String,
      topic: Schema.Literals(topics),
      words: Schema.optionalKey(Schema.Array(Schema.String))
    }),
    Schema.Struct({ from: Schema.String, trial: Schema.Int })
  ])
)
const decode = Schema.decodeUnknownResult(Text)

const bytesOf = (text: string): number => Buffer.byteLength(text)

/** The texts that say `words`, each no longer than a line takes. */
export const textsOf = (from: string, topic: Topic, words: ReadonlySet<string> | "all"): ReadonlyArray<string> => {
  if (words === "all") return [JSON.stringify({ from, topic })]
  const bare = bytesOf(JSON.stringify({ from, topic, words: [] }))
  const texts: Array<string> = []
  let some: Array<string> = []
  let bytes = bare
  for (const word of words) {
    const more = bytesOf(JSON.stringify(word)) + 1
    // Names are far shorter: whatever this is, it is said without being named.
    if (bare + more > textBytesMax) return textsOf(from, topic, "all")
    if (bytes + more > textBytesMax) {
      texts.push(JSON.stringify({ from, topic, words: some }))
      some = []
      bytes = bare
    }
    some.push(word)
    bytes += more
  }
  texts.push(JSON.stringify({ from, topic, words: some }))
  return texts
}

const notHeard = new SqlError.SqlError({
  reason: new SqlError.ConnectionError({
    cause: new Error("what is called is not heard; behind a pool of connections signals need a way around it"),
    message: "what is called is not heard",
    operation: "signals"
  })
})

export const make = Effect.fnUntraced(function* (given: Partial<SignalsOptions>) {
  const options = { ...defaultOptions, ...given }
  const lines = yield* SignalLine
  const from = yield* (yield* SecureRandom.SecureRandom).uuidV7()
  const context = yield* Effect.context()
  const clock = yield* Clock.Clock
  const elapsed = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const listeners = new Map<Topic, Set<(heard: Heard) => void>>()
  /** What is to be said. */
  const pending = new Map<Topic, Set<string> | "all">()
  const hasPending = yield* Latch.make(false)
  let isHearing = false
  let trial = 0
  /** The last trial that was heard. */
  let answered = 0
  const hasAnswer = yield* Latch.make(false)

  const send: SignalsService["send"] = (topic, words) => {
    const before = pending.get(topic)
    if (before === "all") return
    if (words === undefined) pending.set(topic, "all")
    else {
      const all = before ?? new Set()
      for (const word of words) all.add(word)
      if (all.size === 0) return
      pending.set(topic, all.size > options.wordsMax ? "all" : all)
      if (all.size > options.wordsMax) {
        Metric.withAttributes(SignalMetrics.allTotal, { topic }).updateUnsafe(1, context)
      }
    }
    hasPending.openUnsafe()
  }

  const tell = (topic: Topic, heard: Heard) => {
    for (const listener of listeners.get(topic) ?? []) {
      try {
        listener(heard)
      } catch (error) {
        Effect.runForkWith(context)(
          Effect.logError("a signal could not be followed", Cause.die(error)).pipe(Effect.annotateLogs({ topic }))
        )
      }
    }
  }

  const setHearing = (now: boolean) => {
    isHearing = now
    SignalMetrics.hearing.updateUnsafe(now ? 1 : 0, context)
  }
  setHearing(false)

  const hear = (text: string) => {
    // Whoever may use the database may call anything: what is not understood, as of a newer server, is left alone.
    const decoded = decode(text)
    if (Result.isFailure(decoded)) return
    const said = decoded.success
    if ("trial" in said) {
      if (said.from !== from || said.trial <= answered) return
      answered = said.trial
      return hasAnswer.openUnsafe()
    }
    if (said.from === from) return
    Metric.withAttributes(SignalMetrics.heardTotal, { topic: said.topic }).updateUnsafe(1, context)
    tell(said.topic, said.words === undefined ? "all" : new Set(said.words))
  }

  /** What takes too long is not waited for, nor is its end: a driver tries in vain to take back what it has asked for. */
  const inTime = <A, R>(effect: Effect.Effect<A, SqlError.SqlError, R>) =>
    Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) =>
      Fiber.join(fiber).pipe(
        Effect.timeoutOrElse({ duration: options.answerMillisMax, orElse: () => Effect.fail(notHeard) }),
        Effect.onExit((exit) => Effect.sync(() => void (Exit.isFailure(exit) && fiber.interruptUnsafe())))
      )
    )

  /** Says what there is to say. What a line did not take is said on the next one. */
  const say = Effect.fnUntraced(function* (line: Line) {
    for (const [topic, words] of new Map(pending)) {
      pending.delete(topic)
      const texts = textsOf(from, topic, words)
      yield* Effect.forEach(
        texts,
        (text) =>
          Effect.tap(
            inTime(line.call(text)),
            Metric.update(Metric.withAttributes(SignalMetrics.sentTotal, { topic }), 1)
          ),
        { discard: true }
      ).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            send(topic, words === "all" ? undefined : words)
          })
        )
      )
    }
  })

  let closing = false
  const calling = (line: Line) =>
    Effect.andThen(
      hasPending.await,
      Effect.gen(function* () {
        yield* Effect.sleep(options.gatherMillis)
        hasPending.closeUnsafe()
        yield* say(line)
      })
    ).pipe(
      Effect.forever,
      // What was said right before the end is heard.
      Effect.onInterrupt(() => (closing ? Effect.ignore(say(line)) : Effect.void))
    )

  const hearing = (line: Line) => Effect.map(line.hear, (texts) => texts.forEach(hear)).pipe(Effect.forever)

  /** Tries again and again whether what is called is heard; fails when it is not. */
  const trying = (line: Line) =>
    Effect.gen(function* () {
      trial += 1
      hasAnswer.closeUnsafe()
      const sentAt = elapsed()
      yield* inTime(line.call(JSON.stringify({ from, trial })))
      if (answered < trial) yield* inTime(hasAnswer.await)
      if (!isHearing) {
        setHearing(true)
        yield* Effect.logInfo("signals of other servers are heard").pipe(
          Effect.annotateLogs({ millis: Math.round(elapsed() - sentAt) })
        )
        // From here on nothing is missed; before, anything may have been.
        for (const topic of topics) tell(topic, "all")
      }
      yield* Effect.sleep(options.trialMillis)
    }).pipe(Effect.forever)

  let announced = false
  const onLine = Effect.scoped(
    Effect.gen(function* () {
      const line = yield* inTime(lines.open)
      yield* Metric.update(SignalMetrics.linesTotal, 1)
      if (pending.size > 0) hasPending.openUnsafe()
      yield* Effect.raceAllFirst([calling(line), hearing(line), trying(line)])
    })
  ).pipe(
    Effect.catchCause((cause) =>
      Effect.gen(function* () {
        const wasHearing = isHearing
        setHearing(false)
        if (announced && !wasHearing) return
        announced = true
        yield* Effect.logWarning("signals of other servers are not heard; what they change is seen later").pipe(
          Effect.annotateLogs({ reason: detailOf(Cause.squash(cause)) })
        )
      })
    )
  )

  /** Opens line after line, after pauses that grow until something is heard again. */
  yield* Effect.gen(function* () {
    let pause = options.retryMillisMin
    while (true) {
      const before = answered
      yield* onLine
      pause = answered > before ? options.retryMillisMin : Math.min(pause * 2, options.retryMillisMax)
      // Servers that lost theirs at the same moment do not come back at the same moment.
      yield* Effect.sleep(pause * (0.5 + (yield* Random.next) / 2))
    }
  }).pipe(Effect.forkScoped)
  yield* Effect.addFinalizer(() => Effect.sync(() => void (closing = true)))

  const listen: SignalsService["listen"] = (topic, listener) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => {
          const all = listeners.get(topic) ?? new Set()
          listeners.set(topic, all.add(listener))
        }),
        () => Effect.sync(() => listeners.get(topic)?.delete(listener))
      )
    )

  return { send, listen, isHearing: () => isHearing }
})
