import { assert, describe, it } from "@effect/vitest"
import { make, slewShare, stepMillis } from "@prism-dns/core/cluster/DatabaseClock"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"

const hour = 3_600_000

/** A clock that was told the time by a database that is `ahead` of the machine by so much, at once. */
const told = Effect.fnUntraced(function* (ahead: number) {
  const machine = yield* Clock.Clock
  const { clock, service } = make(machine)
  const elapsed = () => Number(machine.monotonicTimeNanosUnsafe()) / 1e6
  const now = () => clock.currentTimeMillisUnsafe() - machine.currentTimeMillisUnsafe()
  /** `took`: how long the answer took, of which nobody knows when the clock was read. */
  const tell = (ahead: number, took = 0) =>
    service.observe({
      databaseMillis: machine.currentTimeMillisUnsafe() + ahead - took / 2,
      beforeElapsed: elapsed() - took,
      afterElapsed: elapsed()
    })
  yield* tell(ahead)
  return { clock, service, now, tell }
})

describe("the database's clock", () => {
  it.effect("is the time from the first answer on, however wrong the machine's is", () =>
    Effect.gen(function* () {
      const { now, service } = yield* told(-hour)
      assert.strictEqual(now(), -hour)
      assert.strictEqual(service.offsetMillis(), hour)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(now(), -hour)
    })
  )

  it.effect("is met little by little where it differs little, and time goes on meanwhile", () =>
    Effect.gen(function* () {
      for (const difference of [500, -500]) {
        const { clock, now, tell } = yield* told(0)
        yield* tell(difference)
        assert.strictEqual(now(), 0)
        let last = clock.currentTimeMillisUnsafe()
        for (let i = 0; i < 100; i++) {
          yield* TestClock.adjust(Math.abs(difference) / slewShare / 100)
          const millis = clock.currentTimeMillisUnsafe()
          assert.isAbove(millis, last)
          last = millis
        }
        assert.strictEqual(now(), difference)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(now(), difference)
      }
    })
  )

  it.effect("is followed at once where it differs much, back too", () =>
    Effect.gen(function* () {
      const { now, tell } = yield* told(0)
      for (const ahead of [stepMillis + 1, 0, hour, -hour]) {
        yield* tell(ahead)
        assert.strictEqual(now(), ahead)
      }
    })
  )

  it.effect("is not doubted by an answer that took longer than it differs", () =>
    Effect.gen(function* () {
      const { now, tell } = yield* told(0)
      yield* tell(400, 1000)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(now(), 0)
      yield* tell(600, 1000)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(now(), 100)
    })
  )
})
