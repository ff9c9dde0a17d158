import { assert, describe, it } from "@effect/vitest"
import * as Patches from "@prism-dns/core/dns/Patches"
import { Malformed, PowerDnsError, Refused, Unreachable } from "@prism-dns/core/powerdns/PowerDnsError"
import { Effect } from "effect"
import * as T from "../layers.ts"

const names = ["a", "b", "c", "d", "e"].map((name) => ({ name: T.nameOf(name) }))
const failing = (reason: PowerDnsError["reason"]) =>
  Effect.fail(new PowerDnsError({ node: "a", operation: "patch", reason }))

/** Sends `names` to one that answers as `answer` says of the names of a PATCH; gives what was refused, and what was taken. */
const send = Effect.fnUntraced(function* (
  answer: (names: ReadonlyArray<string>) => PowerDnsError["reason"] | undefined
) {
  const taken: Array<string> = []
  const refusals = yield* Patches.send(names, (some) =>
    Effect.suspend(() => {
      const reason = answer(some.map(({ name }) => name))
      if (reason !== undefined) return failing(reason)
      taken.push(...some.map(({ name }) => name))
      return Effect.void
    })
  )
  return { refusals, taken }
})

describe("changes that go as one PATCH", () => {
  it.effect("are halved until what is refused stands alone, and the others go through", () =>
    Effect.gen(function* () {
      const bad = [T.nameOf("b"), T.nameOf("e")]
      const refused = (some: ReadonlyArray<string>) =>
        bad.some((name) => some.includes(name)) ? new Refused({ detail: "no" }) : undefined
      const { refusals, taken } = yield* send(refused)
      assert.deepStrictEqual(
        refusals,
        bad.map((name) => ({ name, reason: "no" }))
      )
      assert.deepStrictEqual(taken, [T.nameOf("a"), T.nameOf("c"), T.nameOf("d")])
    })
  )

  for (const status of [400, 413]) {
    it.effect(`are halved where together they are too large (${status})`, () =>
      Effect.gen(function* () {
        const { refusals, taken } = yield* send((some) =>
          some.length > 2 ? new Malformed({ status, detail: "too large" }) : undefined
        )
        assert.deepStrictEqual(refusals, [])
        assert.deepStrictEqual(
          taken,
          names.map(({ name }) => name)
        )
      })
    )
  }

  it.effect("fail as a whole where it is the sending that failed", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(send(() => new Unreachable({ detail: "away" })))
      assert.strictEqual(error.reason._tag, "Unreachable")
    })
  )
})
