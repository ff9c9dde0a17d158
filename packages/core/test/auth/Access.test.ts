import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Identities } from "@prism-dns/core/auth/Identities"
import { type Revocation, Revocations } from "@prism-dns/core/auth/Revocations"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"
import { access, actor, keyOf, spec, suite } from "./AccessSuite.ts"

suite(it, T.sqlite())

/** Lets the loops have their turn at `millis`. */
const turnAt = Effect.fnUntraced(function* (millis: number) {
  yield* (yield* T.Time).set(millis)
  yield* TestClock.adjust("10 seconds")
})

const issue = Effect.fnUntraced(function* (given: Parameters<typeof spec>[0]) {
  const { token } = yield* (yield* Tokens).issue(spec(given), actor, "for a test")
  return Redacted.value(token)
})

const codeOf = (text: string, use: "bearer" | "enrol" = "bearer") =>
  Effect.map(Tokens, (tokens) => {
    const verified = tokens.verify(text, "agent", use)
    return verified instanceof TokenRefused ? verified.code : verified.name
  })

const test = (
  name: string,
  body: Effect.Effect<void, unknown, Tokens | Identities | Revocations | SqlClient.SqlClient | T.Time>,
  options?: Parameters<typeof access>[0]
) =>
  it.effect(name, () =>
    T.withTime(
      "still",
      Effect.gen(function* () {
        yield* (yield* T.Time).set(1_000_000)
        yield* Effect.provide(body, access(options).pipe(Layer.provideMerge(Layer.fresh(T.sqlite()))))
      })
    )
  )

describe("as time goes on", () => {
  test(
    "whoever speaks by a token is told once when it runs out",
    Effect.gen(function* () {
      const heard: Array<Revocation> = []
      const { listen } = yield* Revocations
      listen((revocation) => heard.push(revocation))
      yield* issue({ allows: "bearer", expiresAtMillis: 1_060_000 })
      yield* turnAt(1_059_000)
      assert.deepStrictEqual(heard, [])
      yield* turnAt(1_061_000)
      yield* turnAt(1_071_000)
      assert.deepStrictEqual(
        heard.map(({ code, principal }) => [principal, code]),
        [["rack-7", "token-expired"]]
      )
    })
  )

  test(
    "last uses are written, of a token and of an identity, and not with each use",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const tokens = yield* Tokens
      const identities = yield* Identities
      const text = yield* issue({ allows: "both" })
      const token = tokens.verify(text, "agent", "enrol")
      if (token instanceof TokenRefused) return assert.fail(token.message)
      yield* identities.enrol({ publicKey: keyOf(1), token, peer: undefined })
      const written = sql<{ readonly at: number | null }>`
        SELECT last_used AS at FROM access_token UNION ALL SELECT last_used FROM identity`.pipe(
        Effect.map((rows) => rows.map(({ at }) => at))
      )
      yield* (yield* T.Time).set(1_004_000)
      for (let i = 0; i < 3; i++) {
        yield* codeOf(text)
        yield* identities.authenticate(keyOf(1))
      }
      assert.deepStrictEqual(yield* written, [1_000_000, null])
      yield* turnAt(1_009_000)
      assert.deepStrictEqual(yield* written, [1_004_000, 1_004_000])
    })
  )

  test(
    "tokens that have been no good for long make room, and are then refused as any that is not known",
    Effect.gen(function* () {
      const tokens = yield* Tokens
      const expired = yield* issue({ name: "expired", allows: "bearer", expiresAtMillis: 1_001_000 })
      const good = yield* issue({ name: "good", allows: "bearer" })
      const full = yield* Effect.flip(tokens.issue(spec({ name: "more" }), actor, "x"))
      assert.strictEqual(full._tag, "TooManyTokens")
      yield* turnAt(1_060_000)
      assert.strictEqual(yield* codeOf(expired), "token-expired")
      yield* turnAt(1_061_000)
      assert.strictEqual(yield* codeOf(expired), "token-invalid")
      assert.strictEqual(yield* codeOf(good), "good")
      // The name is not free for all that.
      const taken = yield* Effect.flip(tokens.issue(spec({ name: "expired" }), actor, "x"))
      assert.strictEqual(taken._tag, "TokenNameTaken")
      yield* issue({ name: "more" })
    }),
    { tokensMax: 4, rememberMillis: 60_000 }
  )
})

describe("a machine that was rebuilt, in a zone of the policy reject", () => {
  it.effect("gets its name by a marked token, from other addresses once the old lease has passed", () =>
    T.withTime(
      "still",
      Effect.gen(function* () {
        const time = yield* T.Time
        yield* time.set(1_000_000)
        const zone = Zone.make(T.forward.name, { policy: { conflict: "reject" } })
        const body = Effect.gen(function* () {
          const registry = yield* Registry
          const identities = yield* Identities
          const expiry = yield* Expiry.make({})
          const enrol = Effect.fnUntraced(function* (text: string, key: number) {
            const token = (yield* Tokens).verify(text, "agent", "enrol")
            if (token instanceof TokenRefused) return assert.fail(token.message)
            return yield* identities.enrol({ publicKey: keyOf(key), token, peer: undefined })
          })
          const before = yield* enrol("fleet-secret", 1)
          yield* registry.register({ ...T.registration("web", "192.0.2.7"), registrant: before })
          const rebuilt = yield* enrol(yield* issue({ host: T.nameOf("web") }), 2)
          const registration = { ...T.registration("web", "192.0.2.8"), registrant: rebuilt }
          assert.strictEqual((yield* Effect.flip(registry.register(registration)))._tag, "HostnameTaken")
          // In the same place it is there at once.
          const same = { ...T.registration("web", ["192.0.2.7", "192.0.2.8"]), registrant: rebuilt }
          assert.strictEqual((yield* registry.register(same)).host.owner, rebuilt.name)

          const again = yield* enrol(yield* issue({ name: "again", host: T.nameOf("web") }), 3)
          for (let at = 1_000_000; at <= 1_310_000; at += 5000) {
            yield* time.set(at)
            yield* expiry.sweep
          }
          const moved = { ...T.registration("web", "192.0.2.9"), registrant: again }
          assert.strictEqual((yield* registry.register(moved)).outcome, "returned")
        })
        yield* Effect.provide(body, access({}, [zone]).pipe(Layer.provideMerge(Layer.fresh(T.sqlite()))))
      })
    )
  )
})
