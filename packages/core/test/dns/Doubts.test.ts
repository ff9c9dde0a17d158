import { assert, describe, it } from "@effect/vitest"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as RRset from "@prism-dns/core/domain/RRset"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as T from "../layers.ts"

const zone = T.forward
const web = T.nameOf("web")
const rrsets = [RRset.make(web, "A", 60, ["192.0.2.1"])]
const doubtMillis = 15_000
const hour = 3_600_000

const test = (name: string, body: Effect.Effect<void, unknown, Outbox | SqlClient.SqlClient>) =>
  it.effect(name, () => Effect.provide(body, Outbox.layer.pipe(Layer.provideMerge(T.sqlite()))))

/** A write of web had no answer, and one after it had at `nowMillis`; its mark is cleared. */
const doubted = Effect.fnUntraced(function* (nowMillis: number) {
  const outbox = yield* Outbox
  yield* outbox.claim(zone.name, [{ name: web, sent: rrsets }], nowMillis)
  yield* outbox.doubt(zone.name, [web])
  yield* outbox.endDoubts(zone.name, nowMillis + doubtMillis)
  yield* outbox.settle(zone, [{ name: web, generation: 1, rrsets }], nowMillis)
})

const isInDoubt = Effect.flatMap(Outbox, (outbox) =>
  Effect.map(outbox.published(zone.name, [web]), (published) => published.get(web)?.inDoubt === true)
)

const marks = Effect.flatMap(Outbox, (outbox) => outbox.due(zone.name, 10))

describe("a doubt", () => {
  test(
    "is known with what is published, and ends in its time with a mark",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      yield* doubted(hour)
      assert.isTrue(yield* isInDoubt)
      assert.deepStrictEqual([...(yield* outbox.markElapsed(hour + 14_999, 10, doubtMillis))], [])
      assert.isTrue(yield* isInDoubt)
      assert.deepStrictEqual([...(yield* outbox.markElapsed(hour + 15_000, 10, doubtMillis))], [zone.name])
      assert.isFalse(yield* isInDoubt)
      assert.deepStrictEqual(
        (yield* marks).map(({ cause, name }) => [name, cause]),
        [[web, "doubt"]]
      )
    })
  )

  test(
    "has no longer to go than its time when the clock went back an hour",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      yield* doubted(hour)
      assert.deepStrictEqual([...(yield* outbox.markElapsed(5000, 10, doubtMillis))], [])
      assert.isTrue(yield* isInDoubt)
      yield* outbox.markElapsed(19_999, 10, doubtMillis)
      assert.isTrue(yield* isInDoubt)
      assert.deepStrictEqual([...(yield* outbox.markElapsed(20_000, 10, doubtMillis))], [zone.name])
      assert.isFalse(yield* isInDoubt)
    })
  )

  test(
    "of a name whose zone another begins to write has a mark with it, and leaves one that stands as it is",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      const sql = yield* SqlClient.SqlClient
      yield* doubted(hour)
      yield* outbox.doubtClaimed(zone.name, hour + 5000)
      yield* outbox.markElapsed(2 * hour, 10, doubtMillis)
      assert.isTrue(yield* isInDoubt)
      const [first] = yield* marks
      assert.deepStrictEqual([first?.name, first?.cause, first?.markedAtMillis], [web, "doubt", hour + 5000])
      yield* sql`UPDATE outbox SET cause = 'released'`
      yield* outbox.doubtClaimed(zone.name, hour + 6000)
      assert.deepStrictEqual(yield* marks, [{ ...first!, cause: "released" }])
      assert.deepStrictEqual(yield* outbox.doubtClaimed(T.reverse4.name, hour), undefined)
      assert.deepStrictEqual(yield* outbox.due(T.reverse4.name, 10), [])
    })
  )
})

describe("that anything may stand at a name", () => {
  const published = Effect.flatMap(Outbox, (outbox) =>
    Effect.map(outbox.published(zone.name, [web]), (published) => published.get(web))
  )
  const marked = Effect.map(marks, ([mark]) => mark!.generation)

  for (const after of [rrsets, []]) {
    const what = after.length > 0 ? "what is there" : "that nothing is there any more"
    test(
      `stays known where it is said while ${what} is published, until that was done once more`,
      Effect.gen(function* () {
        const outbox = yield* Outbox
        yield* outbox.settle(zone, [{ name: web, generation: 1, rrsets }], 1)
        yield* outbox.mark([{ zone: zone.name, name: web }], 2, 2, "registered")
        yield* outbox.claim(zone.name, [{ name: web, sent: rrsets }], 2)
        // Another part finds out meanwhile that more may stand there, and has the name looked at.
        yield* outbox.claim(zone.name, [{ name: web, sent: "anything", types: ["TXT"] }], 3)
        yield* outbox.recheck(zone.name, [web], 3, "doubt")
        yield* outbox.settle(zone, [{ name: web, generation: 2, rrsets: after }], 4)
        assert.deepStrictEqual((yield* published)?.rrsets, after)
        assert.strictEqual((yield* published)?.sent, "anything")
        assert.sameMembers([...((yield* published)?.sentTypes ?? [])], ["A", "TXT"])
        const generation = yield* marked
        yield* outbox.settle(zone, [{ name: web, generation, rrsets: after, rewritten: true }], 5)
        assert.deepStrictEqual(yield* marks, [])
        const last = yield* published
        if (after.length > 0) assert.deepInclude(last, { rrsets: after, sent: undefined })
        else assert.isUndefined(last)
      })
    )
  }

  test(
    "is not over where it was said once more while it was written whatever stood there",
    Effect.gen(function* () {
      const outbox = yield* Outbox
      yield* outbox.settle(zone, [{ name: web, generation: 1, rrsets }], 1)
      yield* outbox.recheck(zone.name, [web], 2, "doubt")
      const generation = yield* marked
      yield* outbox.recheck(zone.name, [web], 3, "doubt")
      yield* outbox.settle(zone, [{ name: web, generation, rrsets, rewritten: true }], 4)
      assert.strictEqual((yield* published)?.sent, "anything")
      yield* outbox.settle(zone, [{ name: web, generation: yield* marked, rrsets, rewritten: true }], 5)
      assert.deepInclude(yield* published, { rrsets, sent: undefined })
    })
  )
})
