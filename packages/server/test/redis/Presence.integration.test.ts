/** Which server has whose session, told by a real Redis, and asked for by the API. */
import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Context, Effect, Layer, Result } from "effect"
import * as Redis from "../../../core/test/harness/Redis.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Presence, type PresenceService } from "../../src/Presence.ts"
import { RedisLink } from "../../src/redis/RedisLink.ts"
import * as RedisPresence from "../../src/redis/RedisPresence.ts"
import * as RedisUrl from "../../src/redis/RedisUrl.ts"
import { ask, register, server, services, zone } from "../http/harness.ts"

/** What the user of `deploy/` may write. */
const prefix = "prism-dns:"
const web = DomainName.make("web.hosts.test")

const layer = (redis: Redis.Redis, name: string, options: Partial<RedisPresence.PresenceOptions> = {}) =>
  RedisPresence.layer({ prefix, instance: name, tellMillis: 20, ...options }).pipe(
    Layer.provideMerge(
      RedisLink.layer({ url: Result.getOrThrow(RedisUrl.parse(redis.url)), retryMillisMax: 200 }, `${prefix}trial`)
    )
  )

const instance = Effect.fnUntraced(function* (...args: Parameters<typeof layer>) {
  const context = yield* Layer.build(layer(...args))
  const link = Context.get(context, RedisLink)
  const connected = (wanted: boolean) =>
    waitUntil(`it is ${wanted ? "" : "not "}connected`, Effect.sync(link.isConnected), (is) => is === wanted)
  yield* connected(true)
  return { presence: Context.get(context, Presence), connected }
})

const seatIs = (presence: PresenceService, wanted: string | undefined) =>
  waitUntil(`its session is ${wanted}`, presence.find(web), (seat) => seat?.instance === wanted)

describe("the server that has a host's session", () => {
  it.live("is known to all, and follows the host; what one had before it is not taken back", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const a = yield* instance(redis, "a 1")
      const b = yield* instance(redis, "b")
      const [first, second, third] = [{}, {}, {}]
      a.presence.come(web, first, 1000)
      yield* seatIs(b.presence, "a 1")
      assert.deepStrictEqual(yield* b.presence.find(web), { instance: "a 1", sinceMillis: 1000 })
      b.presence.come(web, second, 2000)
      yield* seatIs(a.presence, "b")
      // Its connection was half open; what it says now is old.
      a.presence.go(web, first)
      const mark = DomainName.make("mark.hosts.test")
      a.presence.come(mark, third, 3000)
      yield* waitUntil("it was told", b.presence.find(mark), (seat) => seat !== undefined)
      assert.strictEqual((yield* a.presence.find(web))?.instance, "b")
      b.presence.go(web, second)
      yield* seatIs(a.presence, undefined)
    })
  )

  it.live("is not known while Redis is gone, for which nobody waits, and is told anew when it is back", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const a = yield* instance(redis, "a", { againMillis: 400 })
      a.presence.come(web, {}, 1000)
      yield* seatIs(a.presence, "a")
      yield* redis.freeze
      assert.isUndefined(yield* a.presence.find(web))
      yield* redis.kill
      yield* a.connected(false)
      assert.isUndefined(yield* a.presence.find(web))
      yield* redis.start
      yield* a.connected(true)
      yield* seatIs(a.presence, "a")
    })
  )

  it.live("is forgotten some time after that server has ended", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      const b = yield* instance(redis, "b")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const a = yield* instance(redis, "a", { keptMillis: 300 })
          a.presence.come(web, {}, 1000)
          yield* seatIs(b.presence, "a")
        })
      )
      yield* seatIs(b.presence, undefined)
    })
  )

  it.live("stands with the host where it is asked for, and else the host is as it is", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.make
      yield* Effect.gen(function* () {
        const host = yield* register("web-1", "192.0.2.1")
        const path = `/v1/hosts/web-1.${zone}`
        assert.isUndefined((yield* ask(`${path}?session=true`)).json.session)
        const presence = yield* Presence
        presence.come(host.fqdn, {}, Date.parse("2026-01-02T03:04:05.000Z"))
        const answer = yield* waitUntil("it is told", ask(`${path}?session=true`), ({ json }) => "session" in json)
        assert.deepStrictEqual(answer.json.session, { instance: "a", since: "2026-01-02T03:04:05.000Z" })
        assert.notProperty((yield* ask(path)).json, "session")
      }).pipe(Effect.provide(server({}, services.pipe(Layer.provideMerge(layer(redis, "a"))))))
    })
  )
})
