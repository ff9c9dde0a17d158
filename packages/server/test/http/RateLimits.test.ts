import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { defaultOptions, peerOf, RateLimits } from "../../src/http/RateLimits.ts"
import { ask, server } from "./harness.ts"

const two = { ratePerSecond: 1, burst: 2 }

describe("the rates of callers", () => {
  it.effect("let a burst through, say what is left, and then when to come back", () =>
    Effect.gen(function* () {
      const { take } = yield* RateLimits
      assert.deepStrictEqual(take("reads", "ann"), {
        waitSeconds: 0,
        headers: { "ratelimit-policy": '"reads";q=2;w=2', ratelimit: '"reads";r=1;t=1' }
      })
      assert.strictEqual(take("reads", "ann").headers["ratelimit"], '"reads";r=0;t=2')
      yield* TestClock.adjust("250 millis")
      assert.strictEqual(take("reads", "ann").waitSeconds, 0.75)
      yield* TestClock.adjust("750 millis")
      assert.strictEqual(take("reads", "ann").waitSeconds, 0)
    }).pipe(Effect.provide(RateLimits.layer({ reads: two })))
  )

  it.effect("are of each caller, and of reads and changes, alone", () =>
    Effect.gen(function* () {
      const { take } = yield* RateLimits
      for (const _ of [1, 2]) take("reads", "ann")
      assert.isAbove(take("reads", "ann").waitSeconds, 0)
      assert.strictEqual(take("changes", "ann").waitSeconds, 0)
      assert.strictEqual(take("reads", "bob").waitSeconds, 0)
    }).pipe(Effect.provide(RateLimits.layer({ reads: two })))
  )

  it.effect("are kept for so many callers, and forgotten for those who have not asked for longest", () =>
    Effect.gen(function* () {
      const { take } = yield* RateLimits
      for (const name of ["ann", "ann", "bob", "bob", "eve"]) take("reads", name)
      assert.isAbove(take("reads", "bob").waitSeconds, 0)
      assert.strictEqual(take("reads", "ann").waitSeconds, 0)
    }).pipe(Effect.provide(RateLimits.layer({ reads: two, callersMax: 2 })))
  )

  it("are by address for those who prove nothing; an IPv6 network is one", () => {
    assert.strictEqual(peerOf("192.0.2.7"), "192.0.2.7")
    assert.strictEqual(peerOf("::ffff:192.0.2.7"), "192.0.2.7")
    assert.strictEqual(peerOf("2001:db8:1:2::7"), "2001:db8:1:2")
    assert.strictEqual(peerOf("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2")
    assert.strictEqual(peerOf("::1"), "0:0:0:0")
    assert.strictEqual(peerOf("fe80::1%eth0"), "fe80:0:0:0")
    assert.strictEqual(peerOf(undefined), "unknown")
  })
})

describe("a caller that asks too often", () => {
  it.live("is told when to come back, while others go on", () =>
    Effect.gen(function* () {
      for (const left of [1, 0]) {
        const answer = yield* ask("/v1/whoami")
        assert.strictEqual(answer.status, 200)
        assert.strictEqual(answer.headers.get("ratelimit-policy"), '"reads";q=2;w=20')
        assert.match(answer.headers.get("ratelimit")!, new RegExp(`^"reads";r=${left};t=\\d+$`))
      }
      const refused = yield* ask("/v1/whoami")
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.json.type, "urn:prism-dns:problem:rate-limited")
      const seconds = Number(refused.headers.get("retry-after"))
      assert.isTrue(seconds >= 1 && seconds <= 10)
      assert.strictEqual(refused.json.retryAfterSeconds, seconds)
      assert.match(refused.headers.get("ratelimit")!, /^"reads";r=0;t=\d+$/)
      const change = yield* ask("/v1/publications/retry", { method: "POST" })
      assert.match(change.headers.get("ratelimit")!, /^"changes";/)
      assert.strictEqual(change.status, 200)
      assert.strictEqual((yield* ask("/livez", { token: "" })).status, 200)
    }).pipe(Effect.provide(server({ rateLimit: { reads: { ratePerSecond: 0.1, burst: 2 } } })))
  )

  it.live("without a token is slowed down by its address, and whoever has one is not", () =>
    Effect.gen(function* () {
      for (const token of ["", "guess"]) assert.strictEqual((yield* ask("/v1/whoami", { token })).status, 401)
      const refused = yield* ask("/v1/whoami", { token: "guess" })
      assert.strictEqual(refused.status, 429)
      assert.isAtLeast(Number(refused.headers.get("retry-after")), 1)
      assert.strictEqual((yield* ask("/v1/whoami")).status, 200)
    }).pipe(Effect.provide(server({ rateLimit: { failures: { ratePerSecond: 0.1, burst: 2 } } })))
  )
})

describe("what is allowed by default", () => {
  it("is more to read than to change, and least to those who prove nothing", () => {
    const { changes, failures, reads } = defaultOptions
    assert.isAbove(reads.ratePerSecond, changes.ratePerSecond)
    assert.isAbove(changes.ratePerSecond, failures.ratePerSecond)
  })
})
