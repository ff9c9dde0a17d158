import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Acknowledgements, type Acknowledgement } from "@prism-dns/core/dns/Acknowledgements"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { RecordPlace } from "@prism-dns/core/dns/Zones"

const zone = DomainName.make("ex.test")
const place = (name: string): RecordPlace => ({ zone, name: DomainName.make(`${name}.ex.test`) })
const [a, b] = [place("a"), place("b")]
const applied: Acknowledgement = { _tag: "Applied", atMillis: 1 }
const parked: Acknowledgement = { _tag: "Parked", atMillis: 2, reason: "no" }

const test = (name: string, body: Effect.Effect<void, never, Acknowledgements>) =>
  it.effect(name, () => Effect.provide(body, Acknowledgements.layer))

describe("a ticket", () => {
  test(
    "is settled when the last of its records is applied, in whatever order",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a, b], 5)
      const waiting = yield* Effect.forkChild(acknowledgements.wait(ticket), { startImmediately: true })
      acknowledgements.settle(b.zone, b.name, 5, applied)
      assert.isUndefined(waiting.pollUnsafe())
      acknowledgements.settle(a.zone, a.name, 5, applied)
      assert.deepStrictEqual(yield* Fiber.join(waiting), applied)
      assert.strictEqual(acknowledgements.size(), 0)
    })
  )

  test(
    "can be settled before anyone waits for it",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a], 5)
      acknowledgements.settle(a.zone, a.name, 5, applied)
      assert.strictEqual(acknowledgements.size(), 0)
      assert.deepStrictEqual(yield* acknowledgements.wait(ticket), applied)
    })
  )

  test(
    "is parked with the first record that is, whatever comes of the others",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a, b], 5)
      acknowledgements.settle(b.zone, b.name, 5, parked)
      acknowledgements.settle(a.zone, a.name, 5, applied)
      assert.deepStrictEqual(yield* acknowledgements.wait(ticket), parked)
      assert.strictEqual(acknowledgements.size(), 0)
    })
  )

  test(
    "is settled by a later generation of its record, and not by an earlier one",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const earlier = acknowledgements.open([a], 5)
      const later = acknowledgements.open([a], 7)
      acknowledgements.settle(a.zone, a.name, 4, applied)
      assert.strictEqual(acknowledgements.size(), 2)
      acknowledgements.settle(a.zone, a.name, 6, applied)
      assert.strictEqual(acknowledgements.size(), 1)
      assert.deepStrictEqual(yield* acknowledgements.wait(earlier), applied)
      acknowledgements.settle(a.zone, a.name, 8, parked)
      assert.deepStrictEqual(yield* acknowledgements.wait(later), parked)
      assert.strictEqual(acknowledgements.size(), 0)
    })
  )

  test(
    "is not settled twice by one record",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      acknowledgements.open([a, b], 5)
      acknowledgements.settle(a.zone, a.name, 5, applied)
      acknowledgements.settle(a.zone, a.name, 6, applied)
      assert.strictEqual(acknowledgements.size(), 1)
    })
  )

  test(
    "is forgotten when who waits for it is interrupted",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a, b], 5)
      const waiting = yield* Effect.forkChild(acknowledgements.wait(ticket), { startImmediately: true })
      acknowledgements.settle(a.zone, a.name, 5, applied)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(acknowledgements.size(), 0)
      acknowledgements.settle(b.zone, b.name, 5, applied)
      acknowledgements.close(ticket)
      assert.strictEqual(acknowledgements.size(), 0)
    })
  )

  test(
    "of another zone is not settled by the same name here",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      acknowledgements.open([{ zone: DomainName.make("other.test"), name: a.name }], 5)
      acknowledgements.settle(a.zone, a.name, 9, applied)
      assert.strictEqual(acknowledgements.size(), 1)
    })
  )

  test(
    "is waited for no longer than asked, and then forgotten",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a], 5)
      const inTime = acknowledgements.open([b], 5)
      const tooLong = yield* Effect.forkChild(acknowledgements.waitAtMost(ticket, 2000), { startImmediately: true })
      const settled = yield* Effect.forkChild(acknowledgements.waitAtMost(inTime, 2000), { startImmediately: true })
      yield* TestClock.adjust(1900)
      assert.isUndefined(tooLong.pollUnsafe())
      acknowledgements.settle(b.zone, b.name, 5, applied)
      yield* TestClock.adjust(200)
      assert.isUndefined(yield* Fiber.join(tooLong))
      assert.deepStrictEqual(yield* Fiber.join(settled), applied)
      assert.strictEqual(acknowledgements.size(), 0)
    })
  )
})
