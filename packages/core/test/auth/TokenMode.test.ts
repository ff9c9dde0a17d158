import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Redacted } from "effect"
import { TokenBucket } from "@prism-dns/core/auth/TokenBucket"
import { identify, NotAllowed } from "@prism-dns/core/auth/TokenMode"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { integer } from "../arbitraries.ts"

const tokens = Tokens.layerStatic([
  { name: "fleet", token: Redacted.make("agent-secret"), role: "agent" },
  { name: "ops", token: Redacted.make("admin-secret"), role: "admin" }
])

const test = (name: string, body: (tokens: Tokens["Service"]) => void) =>
  it.effect(name, () => Effect.provide(Effect.map(Tokens, body), tokens))

const code = (outcome: ReturnType<typeof identify>) => (outcome instanceof NotAllowed ? outcome.code : outcome.name)

describe("who registers", () => {
  test("with tokens required is the holder of a valid one, or nobody", (tokens) => {
    assert.strictEqual(code(identify("required", tokens, "agent-secret")), "fleet")
    assert.strictEqual(code(identify("required", tokens, undefined)), "token-missing")
    assert.strictEqual(code(identify("required", tokens, "wrong")), "token-invalid")
    assert.strictEqual(code(identify("required", tokens, "")), "token-invalid")
    assert.strictEqual(code(identify("required", tokens, "admin-secret")), "token-not-allowed")
  })

  test("with tokens optional may be anonymous, but not with a wrong token", (tokens) => {
    assert.strictEqual(code(identify("optional", tokens, "agent-secret")), "fleet")
    assert.strictEqual(code(identify("optional", tokens, undefined)), "anonymous")
    assert.strictEqual(code(identify("optional", tokens, "wrong")), "token-invalid")
  })

  test("with tokens off is anonymous, whatever the message says", (tokens) => {
    assert.strictEqual(code(identify("off", tokens, undefined)), "anonymous")
    assert.strictEqual(code(identify("off", tokens, "wrong")), "anonymous")
  })
})

describe("a rate with a burst", () => {
  it("gives the burst at once, and then one permit each 1 / rate", () => {
    const bucket = new TokenBucket({ ratePerSecond: 10, burst: 3 }, 0)
    assert.deepStrictEqual([bucket.take(0), bucket.take(0), bucket.take(0)], [0, 0, 0])
    assert.closeTo(bucket.take(0), 0.1, 1e-9)
    assert.closeTo(bucket.take(50), 0.05, 1e-9)
    assert.strictEqual(bucket.take(100), 0)
    assert.isAbove(bucket.take(100), 0)
  })

  it("gives no more than the burst after a long rest", () => {
    const bucket = new TokenBucket({ ratePerSecond: 10, burst: 3 }, 0)
    assert.strictEqual([0, 1, 2, 3, 4].filter(() => bucket.take(3_600_000) === 0).length, 3)
  })

  it.prop(
    "over any stretch of time gives at most the burst and what the rate allows, and says how long to wait",
    { steps: Arbitrary.array(integer(0, 400), { maxLength: 60 }) },
    ({ steps }) => {
      const bucket = new TokenBucket({ ratePerSecond: 10, burst: 5 }, 0)
      let now = 0
      let given = 0
      for (const step of steps) {
        now += step
        const waitSeconds = bucket.take(now)
        if (waitSeconds === 0) given += 1
        else {
          assert.isAtMost(waitSeconds, 0.1)
          now += Math.ceil(waitSeconds * 1000)
          assert.strictEqual(bucket.take(now), 0)
          given += 1
        }
        assert.isAtMost(given, 5 + now / 100 + 1e-6)
      }
    }
  )

  it("gives nothing for a clock that goes back, and counts on from there", () => {
    const bucket = new TokenBucket({ ratePerSecond: 10, burst: 1 }, 3_600_000)
    assert.strictEqual(bucket.take(3_600_000), 0)
    assert.closeTo(bucket.take(0), 0.1, 1e-9)
    assert.strictEqual(bucket.take(100), 0)
  })
})
