/** Bodies that are too large and requests that never end, against the whole server; what others notice of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Net from "node:net"
import { freePorts } from "../../core/test/harness/ports.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as PrismServer from "./harness/PrismServer.ts"

const admin = "admin-token-of-a-test"

/** 1,000 in all. */
const perKind = 250

/** What a thousand of them may cost the server at the most, beside what it needs anyway: 200 KiB each. */
const growthBytesMax = 200 * 1024 * 1024

const head = (first: string, more: ReadonlyArray<string> = []): string =>
  [first, "host: prism", `authorization: Bearer ${admin}`, ...more].join("\r\n")

/** A connection of its own; `closed` once the server has ended it, `text` what it said until then. */
class Client {
  readonly socket: Net.Socket
  text = ""
  closed = false

  constructor(port: number, first: string) {
    this.socket = Net.connect({ host: "127.0.0.1", port })
    this.socket.setEncoding("utf8").on("data", (chunk: string) => (this.text += chunk))
    this.socket.on("error", () => this.socket.destroy())
    this.socket.on("close", () => (this.closed = true))
    this.socket.write(first)
  }

  send(text: string): void {
    if (!this.closed && this.socket.writable) this.socket.write(text)
  }
}

const connect = (port: number, first: string) =>
  Effect.acquireRelease(
    Effect.sync(() => new Client(port, first)),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const started = Effect.gen(function* () {
  const [port, powerdns] = yield* freePorts(2)
  const server = yield* PrismServer.serve(
    {
      http: { port, headersTimeout: "3s", requestTimeout: "6s" },
      powerdns: { nodes: [{ api: `http://127.0.0.1:${powerdns}`, apiKey: "x", dns: "127.0.0.1:53" }] },
      zones: [{ name: "hosts.prism.test" }],
      auth: { mode: "off", adminTokens: [{ name: "test", token: admin }] }
    },
    { awaitReady: false }
  )
  const get = (path: string) =>
    Effect.tryPromise(async () => {
      const headers = { authorization: `Bearer ${admin}` }
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers })
      return { status: response.status, text: await response.text() }
    })
  yield* waitUntil("the server answers", get("/v1/hosts"), ({ status }) => status === 200, { within: "20 seconds" })
  const metric = (name: string) =>
    Effect.map(get("/metrics"), ({ text }) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]))
  return { server, port: port!, get, metric }
})

const statusOf = ({ text }: Client): number => Number(/^HTTP\/1.1 (\d+)/.exec(text)?.[1])

const isProblem = (client: Client, status: number): void => {
  assert.strictEqual(statusOf(client), status, client.text)
  assert.match(client.text, /\r\ncontent-type: application\/problem\+json\r\n/i)
  assert.match(client.text, /\r\nx-request-id: /i)
  const body = JSON.parse(client.text.slice(client.text.indexOf("\r\n\r\n") + 4))
  assert.strictEqual(body.status, status)
}

describe("bodies that are too large", () => {
  it.live(
    "are refused before they are read, at once by their length, else where they pass it, however slowly they come",
    () =>
      Effect.gen(function* () {
        const { get, port } = yield* started
        const json = "content-type: application/json"
        const path = "POST /v1/publications/retry HTTP/1.1"

        const announced = yield* connect(port, `${head(path, [json, "content-length: 1073741824"])}\r\n\r\n{`)
        yield* waitUntil(
          "it is refused",
          Effect.sync(() => announced.closed),
          Boolean
        )
        isProblem(announced, 413)

        const chunked = yield* connect(port, `${head(path, [json, "transfer-encoding: chunked"])}\r\n\r\n`)
        const chunk = `4000\r\n${" ".repeat(0x4000)}\r\n`
        yield* waitUntil(
          "it is refused",
          Effect.sync(() => {
            chunked.send(chunk)
            return chunked.text
          }),
          (text) => text.includes("}")
        )
        isProblem(chunked, 413)

        const slow = yield* connect(port, `${head(path, [json, "content-length: 60000"])}\r\n\r\n`)
        yield* waitUntil(
          "it is given up",
          Effect.sync(() => {
            slow.send(" ")
            return slow.closed
          }),
          Boolean,
          { within: "20 seconds" }
        )
        isProblem(slow, 408)

        const stranger = yield* connect(
          port,
          `POST /v1/publications/retry HTTP/1.1\r\nhost: prism\r\n${json}\r\ncontent-length: 60000\r\n\r\n`
        )
        yield* waitUntil(
          "nothing of it is awaited",
          Effect.sync(() => stranger.text),
          (text) => text.includes("}")
        )
        assert.strictEqual(statusOf(stranger), 401)

        const nested = yield* connect(
          port,
          `${head(path, [json, "content-length: 60000", "connection: close"])}\r\n\r\n${'{"zone":'.padEnd(60_000, "[")}`
        )
        yield* waitUntil(
          "it is refused",
          Effect.sync(() => nested.closed),
          Boolean
        )
        isProblem(nested, 400)

        const twice = '{"zone":"hosts.prism.test","zone":7}'
        const doubled = yield* connect(
          port,
          `${head(path, [json, `content-length: ${twice.length}`, "connection: close"])}\r\n\r\n${twice}`
        )
        yield* waitUntil(
          "the last one counts",
          Effect.sync(() => doubled.closed),
          Boolean
        )
        isProblem(doubled, 400)

        assert.strictEqual((yield* get("/v1/hosts")).status, 200)
      })
  )
})

describe("1,000 requests that never end", () => {
  it.live("keep nobody from being served, cost little, and are closed in time", () =>
    Effect.gen(function* () {
      const { get, metric, port, server } = yield* started
      const before = yield* metric("process_resident_memory_bytes")
      const body = ["content-type: application/json", "content-length: 60000"]
      const kinds: ReadonlyArray<readonly [first: string, drip: string]> = [
        ["", ""],
        [head("GET /v1/hosts HTTP/1.1"), "\r\nx: y"],
        [`${head("POST /v1/publications/retry HTTP/1.1", body)}\r\n\r\n`, " "],
        [`${head("POST /v1/publications/retry HTTP/1.1", [...body, "idempotency-key: half"])}\r\n\r\n`, " "]
      ]
      const all = yield* Effect.forEach(Array.from({ length: perKind }, () => kinds).flat(), ([first, drip]) =>
        Effect.map(connect(port, first), (client) => ({ client, drip }))
      )
      const connections = metric("prism_http_connections")
      yield* waitUntil("all are open", connections, (open) => open >= all.length, { within: "20 seconds" })
      yield* Effect.forkScoped(
        Effect.sync(() => all.forEach(({ client, drip }) => client.send(drip))).pipe(
          Effect.delay("300 millis"),
          Effect.forever
        )
      )

      let served = 0
      let highest = 0
      yield* waitUntil(
        "all are closed, while others are served",
        Effect.gen(function* () {
          const answer = yield* get("/v1/hosts")
          assert.strictEqual(answer.status, 200, answer.text)
          served += 1
          highest = Math.max(highest, yield* metric("process_resident_memory_bytes"))
          return all.filter(({ client }) => !client.closed).length
        }),
        (open) => open === 0,
        { within: "60 seconds" }
      )
      assert.isAbove(served, 5)
      assert.isBelow(highest - before, growthBytesMax)
      for (const { client } of all) {
        // Whoever was told anything was told that it took too long.
        if (client.text !== "") assert.strictEqual(statusOf(client), 408, client.text)
      }
      assert.isAbove(all.filter(({ client }) => client.text !== "").length, perKind)
      yield* waitUntil("none is left", connections, (open) => open < 10, { within: "20 seconds" })
      const { stderr } = server.output()
      assert.notInclude(stderr, '"level":"error"')
      assert.deepStrictEqual(yield* server.kill("SIGTERM"), { code: 0, signal: null })
    })
  )
})
