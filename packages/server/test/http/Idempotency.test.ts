import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import { AnswersSecret } from "@prism-dns/core/api/Authentication"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { Cluster, type InstanceStatus } from "@prism-dns/core/cluster/Cluster"
import { Context, Duration, Effect, Fiber, Latch, Layer } from "effect"
import { HttpServerResponse } from "effect/http"
import { OpenApi } from "effect/http-api"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as Failovers from "../../../core/test/harness/Failovers.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as Database from "../../src/Database.ts"
import * as Exchange from "../../src/http/Exchange.ts"
import {
  abandonedAfter,
  fingerprintOf,
  Idempotency,
  type IdempotencyOptions,
  keptBodyMax,
  keyOf,
  rightsOf
} from "../../src/http/Idempotency.ts"
import { ask, otherZone, register, server, zone } from "./harness.ts"

const database = Database.layer({ url: { _tag: "Sqlite", filename: ":memory:" }, connectionsMax: 1 }).pipe(Layer.orDie)

const kept = (options: Partial<IdempotencyOptions> = {}, instance = "one") =>
  Idempotency.layer({ instance, ...options }).pipe(Layer.provideMerge(Layer.mergeAll(database, Cluster.layerAlone)))

const mine = { caller: "ann", key: "k-1", rights: "all", secret: false }
const asked = fingerprintOf("POST", "/v1/x", "{}")

const json = (body: unknown, status = 200) => HttpServerResponse.jsonUnsafe(body, { status })

/** Answers the claim with `response`, as a request does. */
const answer = Effect.fn(function* (claim: typeof mine, response: HttpServerResponse.HttpServerResponse) {
  const { toItsEnd } = yield* Idempotency
  const exchange = new Exchange.Exchange("r", 0n)
  exchange.claim = claim
  return yield* Effect.provideService(toItsEnd(Effect.succeed(response)), Exchange.Current, exchange)
})

/** What became of a claim, in a word and a number. */
const outcome = Effect.fn(function* (claim = mine, fingerprint = asked) {
  const claimed = yield* (yield* Idempotency).claim(claim, fingerprint)
  switch (claimed._tag) {
    case "Do":
      return "do"
    case "Replay":
      return `replay ${claimed.response.status}`
    case "Refuse":
      return `refuse ${claimed.problem.status} ${claimed.problem.type.split(":").at(-1)}`
  }
})

describe("an Idempotency-Key", () => {
  it("is a string of structured fields, or bare text", () => {
    assert.strictEqual(keyOf('"8e03978e-40d5"'), "8e03978e-40d5")
    assert.strictEqual(keyOf(" 8e03978e-40d5 "), "8e03978e-40d5")
    assert.strictEqual(keyOf('"a\\"b\\\\c"'), 'a"b\\c')
    assert.strictEqual(keyOf("x".repeat(255))?.length, 255)
    for (const text of ["", '""', "a b", "é", "a\tb", '"a', 'a"', "x".repeat(256)])
      assert.isUndefined(keyOf(text), text)
  })

  it.effect("is done once, and the same request gets the same answer for as long as it is kept", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* outcome(), "do")
      assert.strictEqual(yield* outcome(), "refuse 409 idempotency-in-progress")
      yield* answer(mine, HttpServerResponse.setHeaders(json({ id: 7 }, 201), { location: "/v1/x/7", etag: '"1"' }))
      const claimed = yield* (yield* Idempotency).claim(mine, asked)
      assert.strictEqual(claimed._tag, "Replay")
      if (claimed._tag !== "Replay") return
      const { body, headers, status } = claimed.response
      assert.strictEqual(status, 201)
      assert.deepInclude({ ...headers }, { location: "/v1/x/7", etag: '"1"', "idempotent-replayed": "true" })
      assert.deepStrictEqual(body._tag === "Uint8Array" && body.text, '{"id":7}')
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* outcome(), "do")
    }).pipe(Effect.provide(kept({ keep: Duration.hours(1) })))
  )

  it.effect("of another request is refused, and of another caller is another key", () =>
    Effect.gen(function* () {
      yield* outcome()
      yield* answer(mine, json({}))
      for (const other of [
        fingerprintOf("POST", "/v1/x", "{ }"),
        fingerprintOf("POST", "/v1/y", "{}"),
        fingerprintOf("POST", "/v1/x?a=1", "{}")
      ]) {
        assert.strictEqual(yield* outcome(mine, other), "refuse 422 idempotency-key-reused")
      }
      assert.strictEqual(yield* outcome({ ...mine, caller: "bob" }), "do")
      assert.strictEqual(yield* outcome(), "replay 200")
    }).pipe(Effect.provide(kept()))
  )

  it.effect("is not answered again to a caller whose rights are others by now, and is not done again either", () =>
    Effect.gen(function* () {
      yield* outcome()
      yield* answer(mine, json({ id: 7 }, 201))
      assert.strictEqual(yield* outcome({ ...mine, rights: "less" }), "refuse 409 idempotency-answer-gone")
      assert.strictEqual(yield* outcome(), "replay 201")
    }).pipe(Effect.provide(kept()))
  )

  it("is for rights as they are, in whatever order they are said", () => {
    const [x, y] = [zone, otherZone]
    const reading = { verb: "read", resource: "hosts" } as const
    const authority = { permissions: [reading, { ...reading, zones: [x, y] }], zones: [x, y], names: undefined }
    const same = { permissions: [{ ...reading, zones: [y, x] }, reading, reading], zones: [y, x], names: undefined }
    const rights = rightsOf(authority, unlimited)
    assert.strictEqual(rightsOf(same, { ...unlimited }), rights)
    for (const other of [
      rightsOf({ ...authority, zones: [x] }, unlimited),
      rightsOf({ ...authority, zones: undefined }, unlimited),
      rightsOf({ ...authority, names: ["web-*"] }, unlimited),
      rightsOf({ ...authority, permissions: [reading] }, unlimited),
      rightsOf(authority, { ...unlimited, zones: [x] }),
      rightsOf(authority, { ...unlimited, namesMax: 3 })
    ]) {
      assert.notStrictEqual(other, rights)
    }
  })

  it.effect("keeps what was decided, and not what was refused beforehand or failed", () =>
    Effect.gen(function* () {
      for (const [status, then] of [
        [204, "replay 204"],
        [404, "replay 404"],
        [409, "replay 409"],
        [412, "replay 412"],
        [400, "do"],
        [403, "do"],
        [429, "do"],
        [500, "do"],
        [503, "do"]
      ] as const) {
        const claim = { ...mine, key: `k-${status}` }
        yield* outcome(claim)
        yield* answer(claim, status === 204 ? HttpServerResponse.empty({ status }) : json({}, status))
        assert.strictEqual(yield* outcome(claim), then, String(status))
      }
    }).pipe(Effect.provide(kept()))
  )

  it.effect("of an answer with a secret, or a very long one, is told so, and nothing is done again", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const secret = { ...mine, secret: true }
      yield* outcome(secret)
      yield* answer(secret, json({ token: "prism_s3cret" }, 201))
      assert.strictEqual(yield* outcome(secret), "refuse 409 idempotency-answer-gone")
      assert.notInclude(JSON.stringify(yield* sql`SELECT * FROM idempotency`), "s3cret")
      const long = { ...mine, key: "long" }
      yield* outcome(long)
      yield* answer(long, json("x".repeat(keptBodyMax)))
      assert.strictEqual(yield* outcome(long), "refuse 409 idempotency-answer-gone")
    }).pipe(Effect.provide(kept()))
  )

  it.effect("left by a process that ended is taken up again: by the same instance at once, by another one later", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const of = (instance: string) =>
        Effect.provide(
          outcome(),
          Layer.fresh(Idempotency.layer({ instance })).pipe(Layer.provideMerge(Layer.succeed(SqlClient.SqlClient, sql)))
        )
      assert.strictEqual(yield* of("two"), "do")
      assert.strictEqual(yield* of("two"), "do")
      assert.strictEqual(yield* outcome(), "refuse 409 idempotency-in-progress")
      yield* TestClock.adjust(abandonedAfter)
      assert.strictEqual(yield* outcome(), "do")
    }).pipe(Effect.provide(kept()))
  )

  it.effect("is another server's to answer until that is known to have ended", () =>
    Effect.gen(function* () {
      const started = (name: string, state: InstanceStatus["state"], startedMillis: number): InstanceStatus => ({
        id: name,
        name,
        state,
        version: "1",
        startedMillis,
        renewedMillis: 0,
        sessions: 0,
        isSelf: name === "one"
      })
      const others = [started("one", "live", 0), started("two", "live", 0), started("three", "live", 0)]
      const among = (name: string) =>
        Layer.effect(
          Cluster,
          Effect.map(Cluster, (alone) => Cluster.of({ ...alone, instances: Effect.sync(() => others) }))
        ).pipe(
          Layer.provide(Cluster.layerAlone),
          (cluster) => Idempotency.layer({ instance: name }).pipe(Layer.provide(cluster)),
          Layer.provide(Layer.succeed(SqlClient.SqlClient, sql)),
          Layer.fresh
        )
      const sql = yield* SqlClient.SqlClient
      const by = (name: string, key: string) => Effect.scoped(Effect.provide(outcome({ ...mine, key }), among(name)))
      assert.strictEqual(yield* by("two", "a"), "do")
      assert.strictEqual(yield* by("three", "b"), "do")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* by("one", "a"), "refuse 409 idempotency-in-progress")
      // One is declared dead, the other was restarted.
      others[1] = started("two", "dead", 0)
      others[2] = started("three", "live", 30_000)
      assert.strictEqual(yield* by("one", "a"), "do")
      assert.strictEqual(yield* by("one", "b"), "do")
    }).pipe(Effect.provide(kept()))
  )

  it.effect(
    "whose request was under way when another database server took over is done anew, and not twice at once",
    () => {
      const failover = Failovers.make()
      return Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        assert.strictEqual(yield* outcome(), "do")
        // That server knows nothing of it.
        yield* sql`DELETE FROM idempotency`
        assert.strictEqual(yield* outcome(), "refuse 409 idempotency-in-progress")
        failover.move()
        yield* answer(mine, json({ n: 1 }, 201))
        assert.strictEqual(yield* outcome(), "do")
        yield* answer(mine, json({ n: 2 }, 201))
        assert.strictEqual(yield* outcome(), "replay 201")
        // It has the key, and perhaps not what the answer tells of.
        const other = { ...mine, key: "k-2" }
        assert.strictEqual(yield* outcome(other), "do")
        failover.move()
        yield* answer(other, json({ n: 1 }, 201))
        assert.strictEqual(yield* outcome(other), "do")
      }).pipe(Effect.provide(kept().pipe(Layer.provide(failover.layer))))
    }
  )

  it.effect("is forgotten when it is old, and when there are too many", () =>
    Effect.gen(function* () {
      const { sweep } = yield* Idempotency
      const sql = yield* SqlClient.SqlClient
      for (const key of ["a", "b", "c", "d"]) {
        yield* outcome({ ...mine, key })
        yield* answer({ ...mine, key }, json({}))
        yield* TestClock.adjust("1 second")
      }
      const left = Effect.map(sql<{ key: string }>`SELECT key FROM idempotency ORDER BY key`, (rows) =>
        rows.map(({ key }) => key).join("")
      )
      yield* sweep
      assert.strictEqual(yield* left, "cd")
      yield* TestClock.adjust("1 hour")
      yield* sweep
      assert.strictEqual(yield* left, "")
    }).pipe(Effect.provide(kept({ keysMax: 2, keep: Duration.hours(1) })))
  )
})

describe("the server", () => {
  const retire = (key: string, reason = "moved", host = `once.${zone}`) =>
    ask(`/v1/hosts/${host}/retire`, {
      method: "POST",
      body: JSON.stringify({ reason }),
      headers: { "content-type": "application/json", "idempotency-key": key }
    })

  it.live("does a POST with a key once, and says so", () =>
    Effect.gen(function* () {
      yield* register("once", "192.0.2.1")
      const first = yield* retire("a-key")
      assert.strictEqual(first.status, 200)
      assert.isNull(first.headers.get("idempotent-replayed"))
      const again = yield* retire('"a-key"')
      assert.strictEqual(again.status, 200)
      assert.strictEqual(again.headers.get("idempotent-replayed"), "true")
      assert.strictEqual(again.text, first.text)
      assert.notStrictEqual(again.headers.get("x-request-id"), first.headers.get("x-request-id"))
      const other = yield* retire("a-key", "another reason")
      assert.strictEqual(other.status, 422)
      assert.strictEqual(other.json.type, "urn:prism-dns:problem:idempotency-key-reused")
      const invalid = yield* retire("a key")
      assert.strictEqual(invalid.status, 400)
      assert.deepInclude(invalid.json.errors[0], { in: "header", pointer: "/idempotency-key" })
    }).pipe(Effect.provide(server()))
  )

  it.live("goes on when its caller has gone, who then gets the answer", () =>
    Effect.gen(function* () {
      yield* register("once", "192.0.2.1")
      const sql = yield* SqlClient.SqlClient
      const held = yield* Latch.make()
      const release = yield* Latch.make()
      const first = yield* Effect.forkChild(retire("gone"))
      const claimed = Effect.map(sql`SELECT key FROM idempotency`, (rows) => rows.length)
      yield* waitUntil("the key is taken", claimed, (rows) => rows === 1)
      const holder = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(held.open, release.await)))
      yield* held.await
      yield* Fiber.interrupt(first)
      yield* release.open
      yield* Fiber.join(holder)
      const again = yield* waitUntil("it is answered", retire("gone"), ({ status }) => status !== 409)
      assert.deepStrictEqual([again.status, again.headers.get("idempotent-replayed")], [200, "true"])
    }).pipe(Effect.provide(server()))
  )

  it.live("shows a token once, also to who asks twice", () =>
    Effect.gen(function* () {
      const issue = ask("/v1/tokens", {
        method: "POST",
        body: JSON.stringify({ name: "ci", allows: "enrol", reason: "for the pipeline" }),
        headers: { "content-type": "application/json", "idempotency-key": "t-1" }
      })
      const first = yield* issue
      assert.strictEqual(first.status, 201, first.text)
      const again = yield* issue
      assert.strictEqual(again.status, 409)
      assert.strictEqual(again.json.type, "urn:prism-dns:problem:idempotency-answer-gone")
    }).pipe(Effect.provide(server()))
  )
})

describe("a token that was narrowed", () => {
  const json = { "content-type": "application/json" }

  it.live("does not get the answer to what it may do no more, nor one by which it was wider", () =>
    Effect.gen(function* () {
      const made = yield* ask("/v1/tokens", {
        method: "POST",
        headers: json,
        body: JSON.stringify({ name: "web-team", allows: "bearer", roles: ["operator"], reason: "a test" })
      })
      assert.strictEqual(made.status, 201, made.text)
      const { token } = made.json
      yield* register("once", "192.0.2.1")
      const retire = ask(`/v1/hosts/once.${zone}/retire`, {
        method: "POST",
        token,
        body: JSON.stringify({ reason: "moved" }),
        headers: { ...json, "idempotency-key": "narrow" }
      })
      assert.strictEqual((yield* retire).status, 200)
      assert.strictEqual((yield* retire).headers.get("idempotent-replayed"), "true")
      const seen = yield* ask("/v1/tokens/web-team")
      const narrowed = yield* ask("/v1/tokens/web-team", {
        method: "PATCH",
        headers: { ...json, "if-match": seen.headers.get("etag")! },
        body: JSON.stringify({ grant: { zones: [otherZone] }, reason: "a test" })
      })
      assert.strictEqual(narrowed.status, 200, narrowed.text)
      const again = yield* retire
      assert.strictEqual(again.status, 409)
      assert.strictEqual(again.json.type, "urn:prism-dns:problem:idempotency-answer-gone")
      assert.notInclude(again.text, "192.0.2.1")
    }).pipe(Effect.provide(server()))
  )
})

describe("the contract", () => {
  it("marks each POST whose answer holds a secret", () => {
    const document: any = OpenApi.fromApi(Api)
    const schemas = document.components.schemas
    for (const group of Object.values(Api.groups)) {
      for (const endpoint of Object.values(group.endpoints)) {
        if (endpoint.method !== "POST") continue
        const path = endpoint.path
          .replaceAll(/(?<!:):(\w+)/g, "{$1}")
          .replaceAll("::{", ":")
          .replaceAll("::", ":")
        const operation = document.paths[path]?.post
        assert.isDefined(operation, path)
        const holds = Object.entries<any>(operation.responses)
          .filter(([status]) => Number(status) < 400)
          .some(([, { content = {} }]) => {
            const { schema } = content["application/json"] ?? {}
            const named = schema?.$ref === undefined ? schema : schemas[schema.$ref.split("/").at(-1)]
            return Object.keys(named?.properties ?? {}).some((name) => ["token", "secret"].includes(name))
          })
        assert.strictEqual(Context.get(endpoint.annotations, AnswersSecret), holds, `POST ${path}`)
      }
    }
  })
})
