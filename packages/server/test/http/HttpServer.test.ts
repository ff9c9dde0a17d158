import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import * as Client from "@prism-dns/core/api/Client"
import { problems } from "@prism-dns/core/api/Problems"
import { Deferred, Effect, Exit, Fiber, Latch, Layer, Redacted, Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import { OpenApi } from "effect/http-api"
import { SqlClient } from "effect/sql"
import * as Net from "node:net"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Drain } from "../../src/Drain.ts"
import { bodyBytesMax } from "../../src/http/Answers.ts"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import type { HttpServerOptions } from "../../src/http/HttpServer.ts"
import { ListenFailed } from "../../src/ServerError.ts"
import { adminToken, type Answer, ask, register, server, zone } from "./harness.ts"

const isProblem = (
  answer: Answer,
  problem: { readonly type: string; readonly status: number; readonly title: string }
) => {
  assert.strictEqual(answer.status, problem.status, answer.text)
  assert.strictEqual(answer.headers.get("content-type"), "application/problem+json")
  const { detail, status, title, type } = answer.json
  assert.deepStrictEqual({ status, title, type }, problem)
  assert.isString(detail)
  assert.notStrictEqual(detail, "")
}

/** Sends `text` on a connection of its own; `received` is what came back by the time the other side ended it. */
const raw = Effect.fn(function* (port: number, text: string) {
  const socket = Net.connect(port, "127.0.0.1")
  yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
  const closed = yield* Deferred.make<string>()
  let received = ""
  socket.on("data", (chunk) => (received += chunk.toString()))
  socket.on("close", () => Deferred.doneUnsafe(closed, Effect.succeed(received)))
  socket.on("error", () => undefined)
  yield* Effect.callback<void>((resume) => {
    socket.on("connect", () => socket.write(text, () => resume(Effect.void)))
  })
  return { received: Deferred.await(closed) }
})

describe("the API over HTTP", () => {
  it.live("lists hosts, with a link to the next page that keeps the filters", () =>
    Effect.gen(function* () {
      for (const name of ["a-1", "a-2", "a-3", "b-1"]) yield* register(name, "192.0.2.1")
      const first = yield* ask(`/v1/hosts?q=a-&limit=2&zone=${zone.toUpperCase()}`)
      assert.strictEqual(first.status, 200)
      assert.match(first.headers.get("content-type")!, /^application\/json/)
      const { items, nextCursor } = first.json
      assert.deepStrictEqual(
        items.map((host: any) => host.fqdn),
        [`a-1.${zone}`, `a-2.${zone}`]
      )
      const link = /^<([^>]+)>; rel="next"$/.exec(first.headers.get("link")!)
      const second = yield* ask(link![1]!)
      assert.deepStrictEqual(
        second.json.items.map((host: any) => host.fqdn),
        [`a-3.${zone}`]
      )
      assert.isNull(second.headers.get("link"))
      assert.isFalse("nextCursor" in second.json)
      assert.include(link![1], encodeURIComponent(nextCursor))
    }).pipe(Effect.provide(server()))
  )

  it.live("is spoken by the typed client", () =>
    Effect.gen(function* () {
      const host = yield* register("typed", "192.0.2.1")
      const { url } = yield* HttpAddress
      const client = yield* Client.make({ baseUrl: url, token: adminToken })
      assert.strictEqual((yield* client.hosts.get({ params: { host: host.fqdn }, query: {} })).body.id, host.id)
      const page = yield* client.hosts.list({ query: { zone, limit: 1 } })
      assert.deepStrictEqual(
        page.body.items.map(({ id }) => id),
        [host.id]
      )
      assert.strictEqual(
        (yield* Effect.flip(client.hosts.get({ params: { host: "typed" }, query: {} })))._tag,
        "HostNotFound"
      )
      const stranger = yield* Client.make({ baseUrl: url, token: Redacted.make("guess") })
      assert.strictEqual((yield* Effect.flip(stranger.publications.list({ query: {} })))._tag, "TokenInvalid")
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(FetchHttpClient.layer))))
  )

  it.live("shows one host by id and by name, and what is being published", () =>
    Effect.gen(function* () {
      const host = yield* register("one", "192.0.2.1")
      for (const reference of [host.id, host.fqdn, "ONE.hosts.prism.test"]) {
        const answer = yield* ask(`/v1/hosts/${reference}`)
        assert.strictEqual(answer.json.id, host.id)
      }
      const publications = yield* waitUntil("it is published", ask("/v1/publications"), ({ json }) =>
        json.zones.some((each: any) => each.zone === zone && each.lastPublished !== undefined)
      )
      assert.deepStrictEqual(publications.json.items, [])
    }).pipe(Effect.provide(server()))
  )

  it.live("HEAD answers like GET, without a body", () =>
    Effect.gen(function* () {
      for (const path of ["/v1/hosts", "/livez", "/readyz"]) {
        const answer = yield* ask(path, { method: "HEAD" })
        assert.strictEqual(answer.status, 200, path)
        assert.strictEqual(answer.text, "")
      }
    }).pipe(Effect.provide(server()))
  )

  it.live("every error is problem+json", () =>
    Effect.gen(function* () {
      for (const [path, pointer] of [
        ["/v1/hosts?limit=0", "/limit"],
        ["/v1/hosts?limit=1001", "/limit"],
        ["/v1/hosts?limit=ten", "/limit"],
        ["/v1/hosts?limit=1.5", "/limit"],
        ["/v1/hosts?state=gone", "/state"],
        ["/v1/hosts?sate=online", "/sate"],
        ["/v1/hosts?zone=a..b", "/zone"],
        ["/v1/hosts?zone=a.test&zone=b.test", "/zone"],
        ["/v1/hosts?address=300.1.1.1", "/address"],
        ["/v1/hosts?q=", "/q"],
        ["/v1/hosts?cursor=bm9uc2Vuc2U", "/cursor"],
        ["/v1/publications?limit=-1", "/limit"]
      ] as const) {
        const answer = yield* ask(path)
        isProblem(answer, problems.requestInvalid)
        const [error] = answer.json.errors
        assert.deepStrictEqual([error.in, error.pointer], ["query", pointer], answer.text)
        assert.isString(error.detail)
      }

      for (const [token, authorization] of [
        ["", undefined],
        ["wrong", undefined],
        ["", "Basic YTpi"]
      ] as const) {
        for (const path of ["/v1/hosts", `/v1/hosts/x.${zone}`, "/v1/publications", "/v1/hosts?limit=0"]) {
          const answer = yield* ask(path, { token, ...(authorization !== undefined && { headers: { authorization } }) })
          isProblem(answer, problems.tokenInvalid)
          assert.match(answer.headers.get("www-authenticate")!, /^Bearer /)
        }
      }

      isProblem(yield* ask(`/v1/hosts/nobody.${zone}`), problems.hostNotFound)
      isProblem(yield* ask(`/v1/hosts/${"x".repeat(700)}`), problems.hostNotFound)

      for (const path of [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/hosts/a/b",
        "/metrics/x",
        `/v1/hosts/${"x".repeat(2000)}`,
        "/%zz"
      ]) {
        isProblem(yield* ask(path), problems.pathNotFound)
      }

      for (const [method, path] of [
        ["POST", "/v1/status"],
        ["DELETE", "/v1/publications"],
        ["PUT", "/v1/publications"],
        ["PATCH", "/metrics"],
        ["POST", "/readyz"],
        ["OPTIONS", "/openapi.json"]
      ] as const) {
        const answer = yield* ask(path, { method })
        isProblem(answer, problems.methodNotAllowed)
        assert.strictEqual(answer.headers.get("allow"), "GET, HEAD", `${method} ${path}`)
      }

      const sql = yield* SqlClient.SqlClient
      yield* sql`ALTER TABLE host RENAME TO elsewhere`
      const broken = yield* ask("/v1/hosts")
      isProblem(broken, problems.internalError)
      assert.notInclude(broken.text, "host")
      assert.notInclude(broken.text, "sqlite")
    }).pipe(Effect.provide(server()))
  )

  it.live("a body that is no JSON, has unknown fields, is too long or of another type is refused as problem+json", () =>
    Effect.gen(function* () {
      const post = (body: RequestInit["body"], type = "application/json") =>
        ask("/v1/publications/retry", { method: "POST", body: body ?? null, headers: { "content-type": type } })

      for (const body of ["{", '{"zone": 1}', '{"zone": "a..b"}', '{"zoen": "a.test"}', "[]", '"a"']) {
        const answer = yield* post(body)
        isProblem(answer, problems.requestInvalid)
        assert.strictEqual(answer.json.errors[0].in, "body", body)
      }
      isProblem(yield* post("zone=a.test", "application/x-www-form-urlencoded"), problems.mediaTypeUnsupported)
      const tooLong = JSON.stringify({ zone: "x".repeat(bodyBytesMax) })
      isProblem(yield* post(tooLong), problems.bodyTooLarge)
      isProblem(yield* ask("/v1/publications/retry", { method: "POST", token: "", body: "{" }), problems.tokenInvalid)

      for (const body of ["", "{}", '{"zone": "Lab.prism.test"}']) {
        const answer = yield* post(body)
        assert.strictEqual(answer.status, 200, answer.text)
        assert.deepStrictEqual(answer.json, { names: 0 })
      }
    }).pipe(Effect.provide(server()))
  )

  it.live("what is no request at all is refused as problem+json too", () =>
    Effect.gen(function* () {
      const { port } = yield* HttpAddress
      for (const [text, problem] of [
        ["hello\r\n\r\n", problems.requestMalformed],
        ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", problems.requestMalformed],
        [`GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, problems.headersTooLarge]
      ] as const) {
        const [head, body] = (yield* (yield* raw(port, text)).received).split("\r\n\r\n")
        assert.match(head!, new RegExp(`^HTTP/1.1 ${problem.status} `))
        assert.match(head!, /\r\ncontent-type: application\/problem\+json\r\n/)
        assert.strictEqual(JSON.parse(body!).type, problem.type)
      }
      assert.strictEqual((yield* ask("/livez")).status, 200)
    }).pipe(Effect.provide(server()))
  )

  it.live("the contract is at /openapi.json, and /docs asks nobody else for anything", () =>
    Effect.gen(function* () {
      const contract = yield* ask("/openapi.json", { token: "" })
      assert.deepStrictEqual(contract.json, JSON.parse(JSON.stringify(OpenApi.fromApi(Api))))
      assert.includeMembers(Object.keys(contract.json.paths), ["/v1/hosts", "/v1/hosts/{host}", "/v1/publications"])
      const docs = yield* ask("/docs", { token: "" })
      assert.strictEqual(docs.status, 200)
      assert.match(docs.headers.get("content-type")!, /^text\/html/)
      const policy = docs.headers.get("content-security-policy")!
      assert.include(policy, "default-src 'none'")
      assert.notMatch(policy, /https?:|\*/)
      // Nothing of the page itself is loaded by address, before any script has run.
      assert.notMatch(docs.text, /<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?\/\//i)
    }).pipe(Effect.provide(server()))
  )
})

describe("the port", () => {
  it.live("is any free one when none is said, and the address tells which", () =>
    Effect.gen(function* () {
      const { host, port, url } = yield* HttpAddress
      assert.isAbove(port, 0)
      assert.deepStrictEqual([host, url], ["127.0.0.1", `http://127.0.0.1:${port}`])
    }).pipe(Effect.provide(server()))
  )

  it.live("of an address that stands for all of them is reached by loopback", () =>
    Effect.gen(function* () {
      const { host } = yield* HttpAddress
      assert.strictEqual(host, "0.0.0.0")
      assert.strictEqual((yield* ask("/livez")).status, 200)
    }).pipe(Effect.provide(server({ host: "0.0.0.0" })))
  )

  it.live("that is taken is named by the error", () =>
    Effect.gen(function* () {
      const { port } = yield* HttpAddress
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.fresh(server({ port })))))
      assert.instanceOf(error, ListenFailed)
      assert.deepStrictEqual([error.service, error.port, error.code], ["http", port, "EADDRINUSE"])
      assert.include(error.message, String(port))
    }).pipe(Effect.provide(server()))
  )

  it.live("of an address this machine does not have is named by the error", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(server({ host: "192.0.2.1" }))))
      assert.instanceOf(error, ListenFailed)
      assert.strictEqual(error.code, "EADDRNOTAVAIL")
    })
  )
})

describe("the end", () => {
  const started = Effect.fn(function* (options: Partial<HttpServerOptions>) {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(Layer.fresh(server(options)), scope)
    return { context, close: Scope.close(scope, Exit.void) }
  })

  /** A later request that is answered: what was sent before it has been read by then. */
  const settled = ask("/livez")

  const connects = (port: number) =>
    Effect.callback<void, Error>((resume) => {
      const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.void))
      socket.on("error", (error) => resume(Effect.fail(error)))
      return Effect.sync(() => socket.destroy())
    })

  it.live("finishes the request under way", () =>
    Effect.gen(function* () {
      const { close, context } = yield* started({})
      const sql = yield* SqlClient.SqlClient.pipe(Effect.provide(context))
      // SQLite has one connection: while this transaction is open, a request waits for it.
      const held = yield* Latch.make()
      const release = yield* Latch.make()
      const holder = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(held.open, release.await)))
      yield* held.await
      const { port } = yield* HttpAddress.pipe(Effect.provide(context))
      const request = "GET /v1/hosts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer admin-token\r\n\r\n"
      const { received } = yield* raw(port, request)
      yield* Effect.provide(settled, context)
      yield* Drain.use((drain) => drain.start).pipe(Effect.provide(context))
      const closing = yield* Effect.forkChild(close)
      yield* waitUntil("no new connection is taken", Effect.exit(connects(port)), Exit.isFailure)
      yield* release.open
      const answer = yield* received
      assert.match(answer, /^HTTP\/1.1 200 OK\r\n/)
      assert.include(answer, '{"items":[]}')
      yield* Fiber.join(holder)
      yield* Fiber.join(closing)
    })
  )

  it.live("does not wait longer than the limit for a client that never sends the rest", () =>
    Effect.gen(function* () {
      const { close, context } = yield* started({ shutdownTimeout: "100 millis" })
      const { port } = yield* HttpAddress.pipe(Effect.provide(context))
      const half = yield* raw(port, "GET /v1/hosts HTTP/1.1\r\nhost: x\r\n")
      const idle = yield* raw(port, "")
      yield* Effect.provide(settled, context)
      yield* Effect.timeout(close, "3 seconds")
      assert.strictEqual(yield* half.received, "")
      assert.strictEqual(yield* idle.received, "")
    })
  )

  it.live("a client that keeps its connection is asked to leave once the server drains", () =>
    Effect.gen(function* () {
      const { port } = yield* HttpAddress
      assert.notStrictEqual((yield* ask("/livez")).headers.get("connection"), "close")
      yield* (yield* Drain).start
      const { received } = yield* raw(port, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
      const answer = yield* received
      assert.match(answer, /^HTTP\/1.1 200 OK\r\n/)
      assert.match(answer, /\r\nconnection: close\r\n/i)
    }).pipe(Effect.provide(server()))
  )
})
