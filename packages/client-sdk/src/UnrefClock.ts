/** The clock of a process that need not stay for what waits by it. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

const wallMillis = () => Date.now()
const wallNanos = () => BigInt(Date.now()) * 1_000_000n
const monotonicNanos = () => process.hrtime.bigint()

/** Longest wait of a Node timer. */
const timerMillisMax = 2 ** 31 - 1

export const unrefClock: Clock.Clock = {
  currentTimeMillisUnsafe: wallMillis,
  currentTimeMillis: Effect.sync(wallMillis),
  currentTimeNanosUnsafe: wallNanos,
  currentTimeNanos: Effect.sync(wallNanos),
  monotonicTimeNanosUnsafe: monotonicNanos,
  monotonicTimeNanos: Effect.sync(monotonicNanos),
  sleep: (duration) =>
    Effect.callback<void>((resume) => {
      const timer = setTimeout(
        () => resume(Effect.void),
        Math.min(Math.max(Duration.toMillis(duration), 0), timerMillisMax)
      )
      timer.unref()
      return Effect.sync(() => clearTimeout(timer))
    })
}
