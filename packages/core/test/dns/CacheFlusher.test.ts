import { assert, describe, it } from "@effect/vitest"
import * as CacheFlusher from "@prism-dns/core/dns/CacheFlusher"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Unreachable } from "@prism-dns/core/powerdns/PowerDnsError"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"

const zone = DomainName.make("hosts.prism.test")

const flushes = Effect.gen(function* () {
  const memory = yield* PowerDnsMemory
  return (yield* memory.calls).filter(({ operation }) => operation === "flush").length
})

const start = Effect.gen(function* () {
  const flusher = yield* CacheFlusher.make(yield* PowerDnsClient, 50)
  return Effect.map(Clock.currentTimeMillis, (nowMillis) => flusher.wrote(zone, nowMillis))
})

describe("CacheFlusher", () => {
  it.effect("a write is followed by one flush, no sooner than the delay", () =>
    Effect.gen(function* () {
      const write = yield* start
      yield* write
      yield* TestClock.adjust(49)
      assert.strictEqual(yield* flushes, 0)
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* flushes, 1)
      yield* TestClock.adjust(1000)
      assert.strictEqual(yield* flushes, 1)
    }).pipe(Effect.provide(PowerDnsMemory.layer()))
  )

  it.effect("of writes in a row the last one is followed by a flush", () =>
    Effect.gen(function* () {
      const write = yield* start
      for (let i = 0; i < 100; i++) {
        yield* write
        yield* TestClock.adjust(10)
      }
      assert.strictEqual(yield* flushes, 0)
      yield* TestClock.adjust(200)
      assert.strictEqual(yield* flushes, 1)
    }).pipe(Effect.provide(PowerDnsMemory.layer()))
  )

  it.effect("a flush that fails ends nothing", () =>
    Effect.gen(function* () {
      const write = yield* start
      const memory = yield* PowerDnsMemory
      yield* memory.failNext(new Unreachable({ detail: "away" }), "flush")
      yield* write
      yield* TestClock.adjust(100)
      yield* write
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* flushes, 2)
    }).pipe(Effect.provide(PowerDnsMemory.layer()))
  )
})
