import { assert, describe, it } from "@effect/vitest"
import { PreconditionFailed, PreconditionRequired } from "@prism-dns/core/api/Problems"
import { Effect } from "effect"
import { changedFields, requireMatch, withTag } from "../../src/http/Conditional.ts"

const changes = [{ pointer: "/ttlSeconds", before: 60, now: 30 }]

const current = (version: number | undefined, required = true) => ({
  version,
  required,
  changesSince: (since: string) =>
    Effect.succeed({ changes: since === "3" ? changes : [], changedBy: "ann", changedAt: "2026-11-26T20:00:00.000Z" })
})

const check = (
  headers: { "if-match"?: string; "if-none-match"?: string },
  version: number | undefined,
  required = true
) => requireMatch({ headers }, current(version, required))

describe("If-Match", () => {
  it.effect("lets a change through that starts from what is there", () =>
    Effect.gen(function* () {
      yield* check({ "if-match": '"4"' }, 4)
      yield* check({ "if-match": '"4-applied.17"' }, 4)
      yield* check({ "if-match": '"3", "4"' }, 4)
      yield* check({ "if-match": "*" }, 4)
      yield* check({}, 4, false)
      yield* check({}, undefined)
    })
  )

  it.effect("that names something older is told what changed, by whom and when", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(check({ "if-match": '"3"' }, 4))
      assert.instanceOf(error, PreconditionFailed)
      const { changedAt, changedBy, changes: told, etag } = error
      assert.deepStrictEqual([etag, changedBy, changedAt], ['"4"', "ann", "2026-11-26T20:00:00.000Z"])
      assert.deepStrictEqual(told, changes)
    })
  )

  it.effect("that is weak, or of something that is gone, lets nothing through", () =>
    Effect.gen(function* () {
      assert.instanceOf(yield* Effect.flip(check({ "if-match": 'W/"4"' }, 4)), PreconditionFailed)
      assert.instanceOf(yield* Effect.flip(check({ "if-match": '"4"' }, undefined)), PreconditionFailed)
      assert.instanceOf(yield* Effect.flip(check({ "if-match": "*" }, undefined)), PreconditionFailed)
    })
  )

  it.effect("is asked for where leaving it out could undo another's change", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(check({}, 4))
      assert.instanceOf(error, PreconditionRequired)
      assert.include(error.detail, '"4"')
    })
  )
})

describe("If-None-Match: *", () => {
  it.effect("makes what is not there, and leaves alone what is", () =>
    Effect.gen(function* () {
      yield* check({ "if-none-match": "*" }, undefined)
      assert.instanceOf(yield* Effect.flip(check({ "if-none-match": "*" }, 4, false)), PreconditionFailed)
    })
  )
})

describe("changed fields", () => {
  it("are named by pointer, however deep, with what was and what is", () => {
    assert.deepStrictEqual(changedFields({ a: 1, b: { "c/d": [1], e: 2 } }, { a: 1, b: { "c/d": [1, 2] }, f: null }), [
      { pointer: "/b/c~1d", before: [1], now: [1, 2] },
      { pointer: "/b/e", before: 2 },
      { pointer: "/f", now: null }
    ])
  })
})

describe("a tag", () => {
  it("stands beside other headers", () => {
    const { body, headers } = withTag({ id: "x" }, '"4"', { location: "/v1/x" })
    assert.deepStrictEqual([body, headers], [{ id: "x" }, { location: "/v1/x", etag: '"4"' }])
  })
})
