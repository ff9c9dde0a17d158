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
/** Served by nodes n0, n1, … at these times. */
const served = (...times: ReadonlyArray<number>): Acknowledgement => ({
  _tag: "Served",
  atMillis: Math.max(...times),
  nodes: times.map((atMillis, i) => ({ node: `n${i}`, atMillis }))
})
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
    "outlives whoever waits for it, and is over when its change was not made",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a, b], 5)
      const waiting = yield* Effect.forkChild(acknowledgements.wait(ticket), { startImmediately: true })
      acknowledgements.settle(a.zone, a.name, 5, applied)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(acknowledgements.size(), 1)
      const other = yield* Effect.forkChild(acknowledgements.wait(ticket, "served"), { startImmediately: true })
      acknowledgements.close(ticket)
      assert.strictEqual((yield* Fiber.join(other))._tag, "Forgotten")
      assert.strictEqual(acknowledgements.size("served"), 0)
      acknowledgements.settle(b.zone, b.name, 5, applied)
      assert.isUndefined(ticket.applied)
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
    "is waited for no longer than asked, and whoever listens learns of it later",
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
      assert.strictEqual(acknowledgements.size(), 1)
      const heard: Array<string> = []
      ticket.onApplied(({ _tag }) => heard.push(_tag))
      ticket.onServed(({ _tag }) => heard.push(_tag))
      acknowledgements.settle(a.zone, a.name, 5, applied)
      assert.deepStrictEqual(heard, ["Applied"])
      acknowledgements.settle(a.zone, a.name, 5, served(3))
      assert.deepStrictEqual(heard, ["Applied", "Served"])
    })
  )

  test(
    "is served when the last of its records is, and says when each node had them all",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a, b], 5)
      const waiting = yield* Effect.forkChild(acknowledgements.wait(ticket, "served"), { startImmediately: true })
      for (const { name, zone } of [a, b]) acknowledgements.settle(zone, name, 5, applied)
      assert.strictEqual(acknowledgements.size(), 0)
      acknowledgements.settle(a.zone, a.name, 5, served(7, 4))
      acknowledgements.settle(a.zone, a.name, 6, served(9, 9))
      assert.isUndefined(waiting.pollUnsafe())
      acknowledgements.settle(b.zone, b.name, 5, served(6, 8))
      assert.deepStrictEqual(yield* Fiber.join(waiting), served(7, 8))
      assert.strictEqual(acknowledgements.size("served"), 0)
    })
  )

  test(
    "that is applied is not parked by a later change of its record that is refused",
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const ticket = acknowledgements.open([a], 5)
      acknowledgements.settle(a.zone, a.name, 5, applied)
      acknowledgements.settle(a.zone, a.name, 6, parked)
      assert.strictEqual(acknowledgements.size("served"), 1)
      acknowledgements.settle(a.zone, a.name, 5, served(2))
      assert.strictEqual(ticket.end?._tag, "Served")
    })
  )

  it.effect("is forgotten when more are open than may be, the oldest first", () =>
    Effect.gen(function* () {
      const acknowledgements = yield* Acknowledgements
      const [first, second, third] = [1, 2, 3].map((generation) => acknowledgements.open([a], generation))
      assert.strictEqual((yield* acknowledgements.wait(first!))._tag, "Forgotten")
      assert.strictEqual(acknowledgements.size("served"), 2)
      acknowledgements.settle(a.zone, a.name, 3, applied)
      assert.isDefined(second!.applied)
      assert.isDefined(third!.applied)
    }).pipe(Effect.provide(Acknowledgements.layerWith({ ticketsMax: 2 })))
  )
})
