import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { HttpClient } from "effect/http"
import * as Net from "node:net"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import * as ResettingAgent from "../../src/http/ResettingAgent.ts"

/** A server that answers `answers` requests, and then no more; how each of its connections ended. */
const server = (answers: number) =>
  Effect.acquireRelease(
    Effect.callback<{
      readonly url: string
      readonly requests: () => number
      readonly ends: Array<string>
      close: () => void
    }>((resume) => {
      const ends: Array<string> = []
      let requests = 0
      const listening = Net.createServer((socket) => {
        socket.on("data", () => {
          requests += 1
          if (requests <= answers) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        })
        socket.on("end", () => ends.push("closed"))
        socket.on("error", (error: NodeJS.ErrnoException) => ends.push(error.code ?? error.message))
      })
      listening.listen(0, "127.0.0.1", () => {
        const { port } = listening.address() as Net.AddressInfo
        resume(
          Effect.succeed({
            url: `http://127.0.0.1:${port}/`,
            requests: () => requests,
            ends,
            close: () => listening.close()
          })
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )

describe("connections to other HTTP servers", () => {
  it.live("are reset when a request is given up before its answer, so that nothing of it is delivered later", () =>
    Effect.gen(function* () {
      const { ends, requests, url } = yield* server(1)
      yield* Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        assert.strictEqual(yield* (yield* client.get(url)).text, "ok")
        // On the connection that was kept.
        const given = yield* Effect.forkChild(client.get(url))
        yield* waitUntil("it has arrived", Effect.sync(requests), (n) => n === 2)
        yield* Fiber.interrupt(given)
        yield* waitUntil(
          "the connection has ended",
          Effect.sync(() => ends),
          (ends) => ends.length > 0
        )
      }).pipe(Effect.provide(ResettingAgent.layer))
      assert.deepStrictEqual(ends, ["ECONNRESET"])
    }).pipe(Effect.scoped)
  )

  it.live("are closed as usual when nothing is under way", () =>
    Effect.gen(function* () {
      const { ends, url } = yield* server(1)
      yield* Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        assert.strictEqual(yield* (yield* client.get(url)).text, "ok")
      }).pipe(Effect.provide(ResettingAgent.layer))
      yield* waitUntil(
        "the connection has ended",
        Effect.sync(() => ends),
        (ends) => ends.length > 0
      )
      assert.deepStrictEqual(ends, ["closed"])
    }).pipe(Effect.scoped)
  )
})
