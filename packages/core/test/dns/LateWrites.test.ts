import { assert, it } from "@effect/vitest"
import { Effect, Layer, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as LateWrites from "@prism-dns/core/dns/LateWrites"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { type LateWrites as Late, PowerDnsWriter } from "@prism-dns/core/powerdns/PowerDnsWriter"
import * as T from "../layers.ts"

it.effect("names that a server may have written late are marked, and their zone's writer is woken", () =>
  Effect.gen(function* () {
    const told = yield* Queue.unbounded<Late>()
    const writer = Layer.mock(PowerDnsWriter)({ lateWrites: Stream.fromQueue(told) })
    const outbox = Outbox.layer.pipe(Layer.provideMerge(T.sqlite()))
    yield* Effect.gen(function* () {
      const { awaitWake, dueZones, findMarks } = yield* Outbox
      const names = ["a", "b"].map((label) => T.nameOf(label))
      yield* Queue.offer(told, { node: "a", zone: T.forward.name, names })
      yield* TestClock.adjust(10)
      assert.deepStrictEqual([...(yield* awaitWake)], [T.forward.name])
      assert.deepStrictEqual(yield* dueZones([T.forward.name]), [T.forward.name])
      const marks = yield* findMarks(names.map((name) => ({ zone: T.forward.name, name })))
      assert.deepStrictEqual(marks.map(({ name }) => name).sort(), names)
    }).pipe(Effect.provide(LateWrites.layer.pipe(Layer.provide(writer), Layer.provideMerge(outbox))))
  })
)
