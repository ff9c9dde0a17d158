import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import { Effect } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { Exchange, finish } from "../../src/http/Exchange.ts"
import * as RequestId from "../../src/http/RequestId.ts"
import * as TraceParent from "../../src/http/TraceParent.ts"
import { bodyBytesMaxOf, largeBodyPaths } from "../../src/http/Answers.ts"
import { ask, server } from "./harness.ts"

const exchange = new Exchange("r-1", 0n)

const asked = (method: string, headers: Record<string, string> = {}) =>
  HttpServerRequest.fromWeb(new Request("http://localhost/v1/x", { method, headers }))

const tagged = (etag: string) => HttpServerResponse.jsonUnsafe({ a: 1 }, { headers: { etag } })

describe("an answer", () => {
  it("says its request's id, is kept by no cache, and is taken for nothing else", () => {
    const { headers } = finish(asked("GET"), exchange, HttpServerResponse.jsonUnsafe({}))
    assert.strictEqual(headers["x-request-id"], "r-1")
    assert.strictEqual(headers["cache-control"], "no-store")
    assert.strictEqual(headers["x-content-type-options"], "nosniff")
  })

  it("that its caller has already is 304 without a body, whatever else the tag stands beside", () => {
    for (const known of ['"7"', 'W/"7"', '"6", "7"', "*"]) {
      for (const method of ["GET", "HEAD"]) {
        const answer = finish(asked(method, { "if-none-match": known }), exchange, tagged('"7"'))
        assert.strictEqual(answer.status, 304, known)
        assert.strictEqual(answer.body._tag, "Empty")
        assert.strictEqual(answer.headers["etag"], '"7"')
        assert.isUndefined(answer.headers["content-type"])
      }
    }
    assert.strictEqual(finish(asked("GET", { "if-none-match": '"6"' }), exchange, tagged('"7"')).status, 200)
    assert.strictEqual(finish(asked("GET", { "if-none-match": '"7-a"' }), exchange, tagged('"7"')).status, 200)
    assert.strictEqual(finish(asked("POST", { "if-none-match": '"7"' }), exchange, tagged('"7"')).status, 200)
  })

  it("that says itself how it may be kept is left at that", () => {
    const response = HttpServerResponse.text("x", { headers: { "cache-control": "no-cache" } })
    assert.strictEqual(finish(asked("GET"), exchange, response).headers["cache-control"], "no-cache")
  })
})

describe("a request's id", () => {
  it("is taken from the caller where it is short and harmless", () => {
    for (const id of ["a", "0191f0c2-1111-7abc-8def-000000000001", "deploy:42_web.1"]) {
      assert.strictEqual(RequestId.given(id), id)
    }
    for (const id of [undefined, "", " a", "a b", "a\r\nx: y", "-a", "é", '"a"', "a;b", "x".repeat(129)]) {
      assert.isUndefined(RequestId.given(id))
    }
  })

  it("is else one that sorts by time", () => {
    const earlier = RequestId.make(1_700_000_000_000)
    assert.match(earlier, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    assert.isTrue(earlier < RequestId.make(1_700_000_000_001))
    assert.strictEqual(RequestId.given(earlier), earlier)
  })
})

describe("traceparent", () => {
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
  const span = "00f067aa0ba902b7"

  it("is understood as W3C says, later versions too", () => {
    assert.deepStrictEqual(TraceParent.parse(`00-${trace}-${span}-01`), { traceId: trace, spanId: span })
    assert.deepStrictEqual(TraceParent.parse(`01-${trace}-${span}-01-more`), { traceId: trace, spanId: span })
  })

  it("that is none is left out", () => {
    for (const text of [
      undefined,
      "",
      "x",
      `ff-${trace}-${span}-01`,
      `00-${trace}-${span}-01-more`,
      `00-${"0".repeat(32)}-${span}-01`,
      `00-${trace}-${"0".repeat(16)}-01`,
      `00-${trace.toUpperCase()}-${span}-01`
    ]) {
      assert.isUndefined(TraceParent.parse(text), text)
    }
  })
})

describe("the server", () => {
  it.live("answers with the request's id, in problems as their instance too", () =>
    Effect.gen(function* () {
      const own = yield* ask("/v1/hosts", { headers: { "x-request-id": "deploy-42" } })
      assert.strictEqual(own.headers.get("x-request-id"), "deploy-42")
      for (const [path, token] of [
        ["/v1/hosts/nobody.hosts.prism.test", undefined],
        ["/v1/nothing", undefined],
        ["/v1/hosts", ""],
        ["/v1/hosts?limit=x", undefined]
      ] as const) {
        const problem = yield* ask(path, { token })
        const id = problem.headers.get("x-request-id")!
        assert.match(id, /^[0-9a-f-]{36}$/)
        assert.strictEqual(problem.json.instance, `urn:prism-dns:request:${id}`)
        assert.strictEqual(problem.headers.get("cache-control"), "no-store")
      }
    }).pipe(Effect.provide(server()))
  )

  it.live("answers HEAD as GET, without the body", () =>
    Effect.gen(function* () {
      const head = yield* ask("/v1/hosts", { method: "HEAD" })
      assert.deepStrictEqual([head.status, head.text], [200, ""])
      assert.match(head.headers.get("content-type")!, /^application\/json/)
      const missing = yield* ask("/v1/hosts/nobody.hosts.prism.test", { method: "HEAD" })
      assert.deepStrictEqual([missing.status, missing.text], [404, ""])
    }).pipe(Effect.provide(server()))
  )

  it.live("takes no body that it could not read as UTF-8 JSON", () =>
    Effect.gen(function* () {
      for (const headers of [
        { "content-type": "text/plain" },
        { "content-type": "application/json; charset=latin1" },
        { "content-type": "application/json", "content-encoding": "gzip" }
      ]) {
        const answer = yield* ask("/v1/publications/retry", { method: "POST", body: "{}", headers })
        assert.strictEqual(answer.status, 415, JSON.stringify(headers))
        assert.strictEqual(answer.json.type, "urn:prism-dns:problem:media-type-unsupported")
      }
      for (const contentType of [
        "application/json",
        "application/json;charset=UTF-8",
        'APPLICATION/JSON; charset="utf-8"'
      ]) {
        const headers = { "content-type": contentType, "content-encoding": "identity" }
        assert.strictEqual((yield* ask("/v1/publications/retry", { method: "POST", body: "{}", headers })).status, 200)
      }
    }).pipe(Effect.provide(server()))
  )

  it("takes larger bodies only where they hold many things", () => {
    assert.strictEqual(bodyBytesMaxOf("/v1/hosts"), 65_536)
    assert.strictEqual(bodyBytesMaxOf("/v1/hosts::batch"), 8_388_608)
    assert.strictEqual(bodyBytesMaxOf("/v1/zones/:zone/records::batch"), 1_048_576)
    assert.strictEqual(bodyBytesMaxOf("/v1/zones/:zone/import"), 16_777_216)
    // A path that the contract does not know would bound nothing.
    const known = Object.values(Api.groups).flatMap((group) => Object.values(group.endpoints).map(({ path }) => path))
    assert.includeMembers<string>(known, [...largeBodyPaths])
  })
})
