import { assert, describe, it } from "@effect/vitest"
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, Metric, Redacted, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import * as Http from "node:http"
import * as Net from "node:net"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import type * as PowerDnsHttp from "@prism-dns/core/powerdns/PowerDnsHttp"
import * as PowerDnsMetrics from "@prism-dns/core/powerdns/PowerDnsMetrics"
import { WriteGuard } from "@prism-dns/core/powerdns/WriteGuard"
import { waitUntil } from "../harness/waitUntil.ts"

const key = "key-4711-never-shown"
const zone = DomainName.make("ex.test")
const name = DomainName.make("a.ex.test")
const change: RRset.RRsetChange = { _tag: "Replace", rrset: RRset.make(name, "A", 60, ["192.0.2.1"]) }

type Handler = (request: Http.IncomingMessage, response: Http.ServerResponse) => void

/** An HTTP server that answers as a test tells it, and counts. */
const server = Effect.acquireRelease(
  Effect.callback<{
    url: string
    port: number
    handler: Handler
    readonly requests: Array<{ method: string; url: string; headers: Http.IncomingHttpHeaders }>
    connections: { open: number; most: number }
    close: () => void
  }>((resume) => {
    const connections = { open: 0, most: 0 }
    const inner = Http.createServer((request, response) => {
      state.requests.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers })
      connections.open++
      connections.most = Math.max(connections.most, connections.open)
      response.on("close", () => connections.open--)
      request.resume().on("end", () => state.handler(request, response))
    })
    const state = {
      url: "",
      port: 0,
      handler: answer(204, "", ""),
      requests: [] as Array<{ method: string; url: string; headers: Http.IncomingHttpHeaders }>,
      connections,
      close: () => {
        inner.closeAllConnections()
        inner.close()
      }
    }
    inner.listen(0, "127.0.0.1", () => {
      state.port = (inner.address() as Net.AddressInfo).port
      state.url = `http://127.0.0.1:${state.port}`
      resume(Effect.succeed(state))
    })
  }),
  (state) => Effect.sync(() => state.close())
)

const answer =
  (status: number, type: string, body: string): Handler =>
  (_request, response) => {
    response.writeHead(status, { "content-type": type, connection: "close" })
    response.end(body)
  }

const hang: Handler = () => undefined

const reset: Handler = (request) => void request.socket.resetAndDestroy()

const transports = {
  fetch: FetchHttpClient.layer,
  undici: NodeHttpClient.layerUndici,
  "node:http": NodeHttpClient.layerNodeHttpOptions({ keepAlive: true })
}

describe.each(["fetch", "undici", "node:http"] as const)("the client over %s", (transport) => {
  const client = (url: string, options?: Partial<PowerDnsHttp.Options>) =>
    Effect.map(
      Layer.build(
        PowerDnsClient.layer({
          node: `${transport}-test`,
          url,
          apiKey: Redacted.make(key),
          requestTimeout: "5 seconds",
          retry: { delay: "2 millis" },
          ...options
        }).pipe(Layer.provide(transports[transport]))
      ),
      (context) => PowerDnsClient.of(context.mapUnsafe.get(PowerDnsClient.key) as PowerDnsClient["Service"])
    )

  const test = (title: string, body: Effect.Effect<void, unknown, Effect.Services<typeof server>>) =>
    it.live(title, () => Effect.scoped(body))

  const table: ReadonlyArray<readonly [number, string, string, string, RegExp]> = [
    [422, "application/json", '{"error":"RRset x: no"}', "Refused", /^RRset x: no$/],
    [422, "application/json", '{"error":"bad","errors":["one","two"]}', "Refused", /^bad; one; two$/],
    [404, "text/plain; charset=utf-8", "Not Found", "NotFound", /Not Found/],
    [404, "application/json", '{"error":"Not Found"}', "NotFound", /^Not Found$/],
    [404, "text/html", "<h1>nginx</h1>", "Malformed", /is this its address/],
    [409, "text/plain; charset=utf-8", "Conflict", "Conflict", /Conflict/],
    [409, "application/json", '{"error":"Conflict"}', "Conflict", /^Conflict$/],
    [401, "text/plain; charset=utf-8", "Unauthorized", "Unauthorized", /key is wrong/],
    [403, "text/plain", "Forbidden", "Unauthorized", /key is wrong/],
    [400, "text/plain; charset=utf-8", "Bad Request", "Malformed", /webserver-max-bodysize/],
    [413, "text/plain", "Too Large", "Malformed", /webserver-max-bodysize/],
    [405, "text/plain; charset=utf-8", "Method Not Allowed", "Malformed", /status 405/],
    [302, "text/html", "", "Malformed", /status 302/],
    [500, "text/plain; charset=utf-8", "Internal Server Error", "BackendFailed", /Internal Server Error/],
    [503, "text/html", "no server", "BackendFailed", /status 503/],
    [504, "text/html", "gateway", "Uncertain", /status 504/],
    [500, "application/json", "not json", "BackendFailed", /not json/]
  ]
  for (const [status, type, body, tag, detail] of table) {
    test(
      `status ${status} with ${type} '${body}' is ${tag}`,
      Effect.gen(function* () {
        const http = yield* server
        http.handler = answer(status, type, body)
        const error = yield* Effect.flip((yield* client(http.url)).patch(zone, [change]))
        assert.strictEqual(error.reason._tag, tag, error.message)
        assert.match(error.reason.detail, detail)
        assert.strictEqual(error.operation, "patch")
        assert.strictEqual(error.retryable, ["BackendFailed", "Uncertain"].includes(tag))
      })
    )
  }

  test(
    "an answer that is no JSON, or another JSON, is Malformed",
    Effect.gen(function* () {
      const http = yield* server
      const { server: version, exportZone } = yield* client(http.url)
      for (const [type, body] of [
        ["application/json", "{"],
        ["application/json", '{"version":7}'],
        ["text/html", "<p>hello</p>"]
      ] as const) {
        http.handler = answer(200, type, body)
        assert.strictEqual((yield* Effect.flip(version)).reason._tag, "Malformed", body)
      }
      http.handler = answer(200, "text/html", "<p>hello</p>\n")
      assert.strictEqual((yield* Effect.flip(exportZone(zone))).reason._tag, "Malformed")
    })
  )

  test(
    "a refused connection is Unreachable, and tried again",
    Effect.gen(function* () {
      const http = yield* server
      http.close()
      const error = yield* Effect.flip((yield* client(http.url)).patch(zone, [change]))
      assert.strictEqual(error.reason._tag, "Unreachable", error.message)
      assert.match(error.message, /ECONNREFUSED/)
    })
  )

  test(
    "a name that does not resolve is Unreachable",
    Effect.gen(function* () {
      const error = yield* Effect.flip((yield* client("http://no-such-host.invalid:8053")).server)
      assert.strictEqual(error.reason._tag, "Unreachable", error.message)
    })
  )

  test(
    "a port that nobody can have is Unreachable",
    Effect.gen(function* () {
      const error = yield* Effect.flip((yield* client("http://127.0.0.1:1")).server)
      assert.strictEqual(error.reason._tag, "Unreachable", error.message)
    })
  )

  test(
    "a connection that breaks after the request is Uncertain: a read is repeated, a write is not",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = reset
      const powerDns = yield* client(http.url)
      assert.strictEqual((yield* Effect.flip(powerDns.patch(zone, [change]))).reason._tag, "Uncertain")
      assert.strictEqual(http.requests.length, 1)
      assert.strictEqual((yield* Effect.flip(powerDns.exportZone(zone))).reason._tag, "Uncertain")
      assert.strictEqual(http.requests.length, 4)
    })
  )

  test(
    "an answer that ends in its middle is Uncertain",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (request, response) => {
        response.writeHead(200, { "content-type": "application/json", "content-length": "1000" })
        response.write('{"version":', () => request.socket.resetAndDestroy())
      }
      const error = yield* Effect.flip((yield* client(http.url)).server)
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
    })
  )

  test(
    "no answer in time is Uncertain, and the connection is given up",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = hang
      const powerDns = yield* client(http.url, { requestTimeout: "100 millis" })
      const error = yield* Effect.flip(powerDns.patch(zone, [change]))
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
      assert.match(error.message, /no answer within 100ms/)
      yield* waitUntil(
        "the connection is closed",
        Effect.sync(() => http.connections.open),
        (open) => open === 0
      )
    })
  )

  test(
    "a write is not begun without the right to it, and what is read does not need one",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = answer(204, "application/json", "")
      const powerDns = yield* client(http.url)
      const guarded = Effect.provideService(WriteGuard, { isValid: () => false, remainingMillis: () => 0 })
      const error = yield* Effect.flip(guarded(powerDns.patch(zone, [change])))
      assert.strictEqual(error.reason._tag, "Withheld", error.message)
      assert.strictEqual(http.connections.most, 0)
      yield* guarded(Effect.ignore(powerDns.server))
      assert.strictEqual(http.connections.most, 1)
    })
  )

  test(
    "a write goes on while the right to it is renewed, and is cut off when that ends before its answer",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = hang
      const powerDns = yield* client(http.url)
      let renewals = 3
      const guard = { isValid: () => renewals > 0, remainingMillis: () => (renewals-- > 0 ? 10 : 0) }
      const error = yield* powerDns.patch(zone, [change]).pipe(Effect.provideService(WriteGuard, guard), Effect.flip)
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
      assert.match(error.message, /another server may write there/)
      assert.isBelow(renewals, 0)
      yield* waitUntil(
        "the connection is closed",
        Effect.sync(() => http.connections.open),
        (open) => open === 0
      )
    })
  )

  test(
    "an answer whose body never ends is Uncertain, and the connection is given up",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (_request, response) => {
        response.writeHead(200, { "content-type": "text/plain" })
        response.write("ex.test.\t60\tIN\tA\t192.0.2.1\n")
      }
      const powerDns = yield* client(http.url, { requestTimeout: "100 millis", retry: { attemptsMax: 1 } })
      const error = yield* Effect.flip(powerDns.exportZone(zone))
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
      yield* waitUntil(
        "the connection is closed",
        Effect.sync(() => http.connections.open),
        (open) => open === 0
      )
    })
  )

  const exported = (count: number) =>
    "ex.test.\t60\tIN\tSOA\tns1.ex.test. h.ex.test. 7 10800 3600 604800 60\n" +
    Array.from({ length: count }, (_, i) => `h${i}.ex.test.\t60\tIN\tA\t10.0.${i >> 8}.${i & 255}\n`).join("")

  const runRecords = (powerDns: PowerDnsClient["Service"]) =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const error = yield* Effect.flip(
        Stream.runForEach(powerDns.records(zone), (piece) => Effect.sync(() => piece.forEach((r) => seen.push(r.name))))
      )
      return { seen, error }
    })

  test(
    "records that break off are Uncertain, whatever came before, and are not asked for again",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (request, response) => {
        const whole = exported(5000)
        response.writeHead(200, { "content-type": "text/plain", "content-length": `${whole.length}` })
        response.write(whole.slice(0, 100_000), () => request.socket.resetAndDestroy())
      }
      const { error } = yield* runRecords(yield* client(http.url))
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
      assert.strictEqual(error.operation, "records")
      assert.strictEqual(http.requests.length, 1)
    })
  )

  test(
    "records that stop coming are Uncertain, and their connection is given up",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (_request, response) => {
        response.writeHead(200, { "content-type": "text/plain" })
        response.write(exported(3))
      }
      const powerDns = yield* client(http.url, { requestTimeout: "100 millis", connectionsMax: 1 })
      const { error, seen } = yield* runRecords(powerDns)
      assert.strictEqual(error.reason._tag, "Uncertain", error.message)
      assert.deepStrictEqual(seen, ["ex.test.", "h0.ex.test.", "h1.ex.test."], "the last one may have gone on")
      yield* waitUntil(
        "the connection is closed",
        Effect.sync(() => http.connections.open),
        (open) => open === 0
      )
      http.handler = answer(200, "application/json", '{"version":"4.7.3"}')
      yield* powerDns.server
    })
  )

  test(
    "records that are none, or lack an SOA, are Malformed",
    Effect.gen(function* () {
      const http = yield* server
      const powerDns = yield* client(http.url)
      for (const body of ["", "<p>hello</p>\n", "a.ex.test.\t60\tIN\tA\t192.0.2.1\n"]) {
        http.handler = answer(200, "text/plain", body)
        assert.strictEqual((yield* runRecords(powerDns)).error.reason._tag, "Malformed", body)
      }
    })
  )

  test(
    "records are asked for again while none has come, and a reader may take longer than a request",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (request, response) =>
        http.requests.length < 3
          ? answer(500, "text/plain", "locked")(request, response)
          : answer(200, "text/plain", exported(5000))(request, response)
      const powerDns = yield* client(http.url, { requestTimeout: "200 millis", connectionsMax: 1 })
      const pieces = yield* powerDns.records(zone).pipe(
        Stream.tap(() => Effect.sleep("150 millis")),
        Stream.runCollect
      )
      assert.strictEqual(pieces.flat().length, 5001)
      assert.isAbove(pieces.length, 2)
      assert.strictEqual(http.requests.length, 3)
    })
  )

  test(
    "records that nobody takes to the end free their connection",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = answer(200, "text/plain", exported(20_000))
      const powerDns = yield* client(http.url, { connectionsMax: 1 })
      for (let i = 0; i < 3; i++) assert.strictEqual((yield* Stream.runHead(powerDns.records(zone)))._tag, "Some")
      yield* waitUntil(
        "the connections are closed",
        Effect.sync(() => http.connections.open),
        (open) => open === 0
      )
    })
  )

  test(
    "a write that the backend failed is repeated, and a creation is not",
    Effect.gen(function* () {
      const http = yield* server
      const failing: Handler = (request, response) =>
        http.requests.length < 3
          ? answer(500, "text/plain", "locked")(request, response)
          : answer(204, "", "")(request, response)
      http.handler = failing
      const powerDns = yield* client(http.url)
      yield* powerDns.patch(zone, [change])
      assert.strictEqual(http.requests.length, 3)
      http.requests.length = 0
      const error = yield* Effect.flip(powerDns.createZone({ name: zone, kind: "Native", nameservers: [] }))
      assert.strictEqual(error.reason._tag, "BackendFailed")
      assert.strictEqual(http.requests.length, 1)
    })
  )

  test(
    "the key goes into the request's header only, without Expect, and follows no redirect",
    Effect.gen(function* () {
      const http = yield* server
      const elsewhere = yield* server
      http.handler = (_request, response) => {
        response.writeHead(307, { location: `${elsewhere.url}/stolen` })
        response.end()
      }
      const error = yield* Effect.flip((yield* client(`${http.url}/`)).patch(zone, [change]))
      assert.strictEqual(elsewhere.requests.length, 0)
      const [request] = http.requests
      assert.strictEqual(request?.headers["x-api-key"], key)
      assert.isUndefined(request?.headers.expect)
      assert.isUndefined(request?.headers["traceparent"])
      assert.strictEqual(request?.url, "/api/v1/servers/localhost/zones/ex.test.")
      assert.notInclude(`${error.message}${JSON.stringify(error)}${error.stack ?? ""}`, key)
    })
  )

  test(
    "no more connections are open at once than asked for, and never more than 8",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = (request, response) =>
        void setTimeout(() => answer(200, "application/json", '{"metadata":[]}')(request, response), 5)
      for (const [asked, most] of [
        [undefined, 4],
        [2, 2],
        [50, 8]
      ] as const) {
        http.connections.most = 0
        const powerDns = yield* client(http.url, asked === undefined ? {} : { connectionsMax: asked })
        yield* Effect.forEach(Array.from({ length: 40 }), () => powerDns.getMetadata(zone, "X-A"), {
          concurrency: "unbounded"
        })
        assert.strictEqual(http.connections.most, most)
      }
    })
  )

  test(
    "waiting for a connection ends too",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = hang
      const powerDns = yield* client(http.url, {
        connectionsMax: 1,
        requestTimeout: "100 millis",
        retry: { attemptsMax: 1 },
        breaker: { failuresMax: 100 }
      })
      const errors = yield* Effect.forEach(Array.from({ length: 6 }), () => Effect.flip(powerDns.server), {
        concurrency: "unbounded"
      })
      const tags = errors.map(({ reason }) => reason._tag)
      assert.strictEqual(tags.filter((tag) => tag === "Uncertain" || tag === "Unreachable").length, 6)
      assert.isTrue(errors.some(({ message }) => message.includes("no free connection within 100ms")))
    })
  )

  test(
    "after five failures in a row the server is left alone, and asked again a moment later",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = answer(500, "text/plain", "broken")
      const powerDns = yield* client(http.url, { retry: { attemptsMax: 1 }, breaker: { openFor: "100 millis" } })
      for (let i = 0; i < 5; i++) {
        assert.strictEqual((yield* Effect.flip(powerDns.server)).reason._tag, "BackendFailed")
      }
      const error = yield* Effect.flip(powerDns.server)
      assert.strictEqual(error.reason._tag, "Unreachable", error.message)
      assert.match(error.message, /left alone for a moment, after: .*broken/)
      assert.isTrue(error.retryable)
      assert.strictEqual(http.requests.length, 5)
      http.handler = answer(200, "application/json", '{"version":"4.9.0"}')
      const seen = yield* waitUntil("it answers again", Effect.option(powerDns.server), ({ _tag }) => _tag === "Some")
      assert.deepStrictEqual(seen._tag === "Some" && seen.value, { version: "4.9.0" })
      assert.strictEqual(http.requests.length, 6)
    })
  )

  test(
    "a server that says no is not left alone",
    Effect.gen(function* () {
      const http = yield* server
      http.handler = answer(422, "application/json", '{"error":"no"}')
      const powerDns = yield* client(http.url)
      for (let i = 0; i < 8; i++) {
        assert.strictEqual((yield* Effect.flip(powerDns.patch(zone, [change]))).reason._tag, "Refused")
      }
      assert.strictEqual(http.requests.length, 8)
    })
  )

  test(
    "each request is measured by operation and status, and the node is up or not",
    Effect.gen(function* () {
      const http = yield* server
      const node = `${transport}-measured`
      const powerDns = yield* client(http.url, { node })
      const count = (operation: string, status: string) =>
        Effect.map(
          Metric.value(Metric.withAttributes(PowerDnsMetrics.requestDurationSeconds, { node, operation, status })),
          ({ count }) => count
        )
      const up = Effect.map(Metric.value(Metric.withAttributes(PowerDnsMetrics.up, { node })), ({ value }) => value)
      yield* powerDns.patch(zone, [change])
      assert.strictEqual(yield* count("patch", "204"), 1)
      assert.strictEqual(yield* up, 1)
      http.handler = answer(500, "text/plain", "locked")
      yield* Effect.flip(powerDns.patch(zone, [change]))
      assert.strictEqual(yield* count("patch", "500"), 3)
      assert.strictEqual(yield* up, 0)
      http.handler = answer(422, "application/json", '{"error":"no"}')
      yield* Effect.flip(powerDns.patch(zone, [change]))
      assert.strictEqual(yield* up, 1)
      http.close()
      yield* Effect.flip(powerDns.patch(zone, [change]))
      assert.strictEqual(yield* count("patch", "unreachable"), 3)
      assert.strictEqual(yield* up, 0)
    })
  )
})
