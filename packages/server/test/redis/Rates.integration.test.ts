/** Rates that two instances share by a real Redis, which is then killed, frozen, and started anew. */
import { assert, describe, it } from "@effect/vitest"
import { Admission } from "@prism-dns/core/auth/Admission"
import type { Claim } from "@prism-dns/core/auth/Policy"
import { type Principal, unlimited } from "@prism-dns/core/auth/Principal"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Context, Effect, Layer, Logger, Result } from "effect"
import * as Redis from "../../../core/test/harness/Redis.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { RateLimits } from "../../src/http/RateLimits.ts"
import { RedisLink } from "../../src/redis/RedisLink.ts"
import * as RedisRates from "../../src/redis/RedisRates.ts"
import * as RedisUrl from "../../src/redis/RedisUrl.ts"

/** What the user of `deploy/` may write. */
const prefix = "prism-dns:"
const options = (redis: Redis.Redis) => ({ url: Result.getOrThrow(RedisUrl.parse(redis.url)), retryMillisMax: 200 })

/** One instance; its link, and what it logs. */
const instance = Effect.fnUntraced(function* (redis: Redis.Redis, rate: { ratePerSecond: number; burst: number }) {
  const lines: Array<string> = []
  /** From the start of a request to Redis to its end; of those without an answer too. */
  const requests: Array<{ readonly from: number; readonly to: number }> = []
  const watched = Layer.effect(
    RedisLink,
    Effect.map(RedisLink, (link) =>
      RedisLink.of({
        ...link,
        run: (...args) =>
          Effect.suspend(() => {
            const from = performance.now()
            return Effect.ensuring(
              link.run(...args),
              Effect.sync(() => requests.push({ from, to: performance.now() }))
            )
          })
      })
    )
  ).pipe(Layer.provide(RedisLink.layer(options(redis), `${prefix}trial`)))
  const limits = { identity: rate, name: rate, network: rate }
  const context = yield* Layer.build(
    Layer.mergeAll(RateLimits.layer({ changes: rate }), Admission.layer({ anonymous: "open", limits })).pipe(
      Layer.provide(RedisRates.layer({ prefix })),
      Layer.provideMerge(watched),
      Layer.provide(Zones.layer([Zone.make(DomainName.make("hosts.test"))])),
      Layer.provide(
        Logger.layer([Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))])
      )
    )
  )
  const { take } = Context.get(context, RateLimits)
  const link = Context.get(context, RedisLink)
  return {
    admission: Context.get(context, Admission),
    isConnected: Effect.sync(link.isConnected),
    take: () => take("changes", "ann").waitSeconds === 0,
    lines,
    requests
  }
})

const connected = (instance: { readonly isConnected: Effect.Effect<boolean> }, wanted = true) =>
  waitUntil(`it is ${wanted ? "" : "not "}connected`, instance.isConnected, (is) => is === wanted)

/** What Redis says is left in the bucket. */
const left = (redis: Redis.Redis, key = "api-changes:ann") =>
  Effect.map(redis.ask("get", `${prefix}rate:${key}`), (said) => Math.floor(Number(said.split(" ")[0])))

const taken = (take: () => boolean, times: number) => Array.from({ length: times }, take).filter(Boolean).length

/** Next to nothing comes back while a test runs. */
const slow = { ratePerSecond: 0.001, burst: 100 }

describe("rates that instances share", () => {
  it.live("are one: what one instance lets through is not left at the other", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const [a, b] = [yield* instance(redis, slow), yield* instance(redis, slow)]
      yield* connected(a)
      yield* connected(b)
      assert.strictEqual(taken(a.take, 60), 60)
      yield* waitUntil("it is told", left(redis), (permits) => permits === 40)
      assert.isTrue(b.take())
      yield* waitUntil("that too", left(redis), (permits) => permits === 39)
      yield* waitUntil(
        "it has learned of it",
        Effect.sync(() => b.requests.length),
        (count) => count > 0
      )
      // Whatever it lets through from here on, the last one is the last of all.
      assert.strictEqual(taken(b.take, 100), 39)
      yield* waitUntil("nothing is left", left(redis), (permits) => permits === 0)
      assert.isTrue(taken(a.take, 100) <= 40)
      yield* waitUntil("it knows", Effect.sync(a.take), (took) => !took)
    })
  )

  it.live("go beyond one rate by no more than what the other lets through until it is known", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const rate = { ratePerSecond: 500, burst: 50 }
      const instances = [yield* instance(redis, rate), yield* instance(redis, rate)]
      for (const each of instances) yield* connected(each)
      const takes: ReadonlyArray<Array<number>> = [[], []]
      const start = performance.now()
      yield* waitUntil(
        "both have asked for a while",
        Effect.sync(() => {
          for (const [i, { take }] of instances.entries()) {
            for (let n = 0; n < 100; n++) if (take()) takes[i]!.push(performance.now())
          }
          return performance.now() - start
        }),
        (millis) => millis > 2000,
        { every: "2 millis" }
      )
      const seconds = (performance.now() - start) / 1000
      /** What is let through is known to the other when both have exchanged. */
      const lagMillis = instances
        .map(({ requests }) => Math.max(...requests.map(({ to }, i) => to - (i === 0 ? start : requests[i - 1]!.from))))
        .reduce((sum, each) => sum + each, 0)
      const mostWithin = Math.max(
        ...takes.map((times) =>
          Math.max(...times.map((from, i) => times.slice(i).filter((at) => at <= from + lagMillis).length))
        )
      )
      const all = takes.flat().length
      assert.isAtMost(all, rate.burst + rate.ratePerSecond * seconds + mostWithin + 1)
      // Nor does it become far less.
      assert.isAtLeast(all, (rate.ratePerSecond * seconds) / 2)
    })
  )

  it.live("are those of hosts too: of an identity, a name and a network, and a beat counts for nothing", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const [a, b] = [yield* instance(redis, slow), yield* instance(redis, slow)]
      yield* connected(a)
      yield* connected(b)
      const who: Principal = { name: "key-1", kind: "key", anonymous: false, actsFor: [], grant: unlimited }
      const claim: Claim = {
        fqdn: DomainName.make("web.hosts.test"),
        zone: DomainName.make("hosts.test"),
        addresses: [IpAddress.make("10.0.0.1")],
        peer: IpAddress.make("10.0.0.1"),
        protocol: "1.0"
      }
      const admit = ({ admission }: typeof a) => admission.admit(who, claim, Date.now())._tag === "Allowed"
      for (let n = 0; n < 10; n++) {
        assert.isTrue(admit(a))
        a.admission.giveBack(who, claim)
      }
      assert.strictEqual(
        taken(() => admit(a), 30),
        30
      )
      for (const key of ["principal:key-1", "name:web.hosts.test. key-1", "network:10.0.0.0/24"]) {
        yield* waitUntil(`${key} is told`, left(redis, key), (permits) => permits === 70)
      }
      assert.isTrue(admit(b))
      yield* waitUntil(
        "it has learned of them",
        Effect.sync(() => b.requests.length),
        (count) => count >= 3
      )
      assert.strictEqual(
        taken(() => admit(b), 100),
        69
      )
      // Each is forgotten when it is full.
      assert.isAbove(Number(yield* redis.ask("pttl", `${prefix}rate:principal:key-1`)), 0)
    })
  )
})

describe("Redis that is gone", () => {
  it.live("has nobody refused: each instance counts for itself, says so once, and shares again when it is back", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const [a, b] = [yield* instance(redis, slow), yield* instance(redis, slow)]
      yield* connected(a)
      yield* connected(b)
      assert.strictEqual(taken(a.take, 10), 10)
      yield* waitUntil("it is told", left(redis), (permits) => permits === 90)
      yield* redis.kill
      yield* connected(a, false)
      yield* connected(b, false)
      assert.strictEqual(taken(a.take, 50), 50)
      assert.strictEqual(taken(b.take, 80), 80)
      yield* redis.start
      yield* connected(a)
      yield* connected(b)
      // It has forgotten all, and takes what is known here.
      assert.isTrue(a.take())
      yield* waitUntil("it is told", left(redis), (permits) => permits === 39)
      for (const { lines } of [a, b]) {
        assert.deepStrictEqual(lines, [
          "Info Redis answers",
          "Warn Redis does not answer; this server does without it",
          "Info Redis answers"
        ])
        assert.notInclude(lines.join(), redis.password)
      }
    })
  )

  it.live("because it was frozen, has nobody wait, and nothing is counted twice when it goes on", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const a = yield* instance(redis, slow)
      yield* connected(a)
      assert.isTrue(a.take())
      yield* waitUntil("it is told", left(redis), (permits) => permits === 99)
      yield* redis.freeze
      // A server that starts meanwhile does not wait for it either.
      const late = yield* instance(redis, slow)
      assert.strictEqual(taken(a.take, 20), 20)
      assert.strictEqual(taken(late.take, 20), 20)
      yield* connected(a, false)
      const before = a.requests.length
      assert.strictEqual(taken(a.take, 20), 20)
      for (const [{ requests }, told] of [
        [a, before],
        [late, 0]
      ] as const) {
        yield* waitUntil(
          "it has tried to tell what it let through",
          Effect.sync(() => requests.length),
          (all) => all > told
        )
      }
      yield* redis.thaw
      yield* connected(a)
      yield* connected(late)
      assert.isTrue(a.take())
      // What it was told before it was frozen it may have read since, once.
      yield* waitUntil("it shares again", left(redis), (permits) => permits === 98 || permits === 78)
    })
  )

  it.live("before a server starts, or refuses its password, is no reason not to start", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const wrong = yield* instance({ ...redis, url: `redis://:wrong-one@127.0.0.1:${redis.port}` }, slow)
      assert.strictEqual(taken(wrong.take, 101), 100)
      yield* waitUntil(
        "it says why",
        Effect.sync(() => wrong.lines),
        (lines) => lines.length > 0
      )
      assert.deepStrictEqual(wrong.lines, ["Warn Redis does not answer; this server does without it"])
    })
  )
})
