/** Dead peers and bad input are the normal case: refused as the protocol says, nothing kept, others not disturbed. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Fs from "node:fs"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Wire from "@prism-dns/core/protocol/Wire"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

/** So little heap that whatever is left behind by 10,000 connections, a few KiB each, ends the process. */
const smallHeap = { NODE_OPTIONS: "--max-old-space-size=144" }

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const openFiles = (deployment: Running) => Fs.readdirSync(`/proc/${deployment.prism.pid()}/fd`).length

/** Waits until no connection of an agent and no file of one is open any more. */
const untilQuiet = (deployment: Running, filesBefore: number) =>
  waitUntil(
    "every connection and its file is closed",
    Effect.map(deployment.metric("prism_tcp_connections"), (connections) => ({
      connections,
      files: openFiles(deployment)
    })),
    // Sockets to PowerDNS and of the scrape itself come and go.
    ({ connections, files }) => connections === 0 && files <= filesBefore + 8,
    { within: "10 seconds", every: "50 millis" }
  )

describe("dead peers", () => {
  it.live(
    "10,000 clients that close, reset and half-close in turn leave no connection, no file and no memory",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start({}, smallHeap)
        const { tcp } = deployment
        const one = Effect.fnUntraced(function* (i: number) {
          const host = i % 500
          const from = `127.0.${10 + (host >> 7)}.${1 + (host & 127)}`
          const bytes = Agent.frame(`peer-${host}`)
          if (i % 3 < 2) return yield* Agent.sendAndClose(tcp(), bytes, i % 3 === 0 ? "fin" : "reset", { from })
          const client = yield* Agent.connect(tcp(), { from })
          client.socket.end(bytes)
          const [answer] = yield* client.receive()
          assert.strictEqual(answer!.status, "success")
          yield* client.closed
        }, Effect.scoped)
        const round = (count: number) =>
          Effect.forEach(
            Array.from({ length: count }, (_, i) => i),
            one,
            { concurrency: 50, discard: true }
          )

        yield* round(1500)
        yield* waitUntil(
          "all of the first round is published",
          deployment.publications,
          ({ zones }) => zones.every((zone) => zone.pending === 0),
          { within: "20 seconds" }
        )
        const filesBefore = openFiles(deployment)
        yield* round(10_000)
        yield* untilQuiet(deployment, filesBefore)
        assert.strictEqual(yield* deployment.metric(`prism_hosts{state="online",zone="${Deployment.zone}."}`), 500)
        // Errors of dead peers are no errors of ours.
        assert.notInclude(deployment.prism.output().stderr, '"level":"error"')
      }).pipe(Effect.scoped),
    120_000
  )
})

describe("bad input", () => {
  it.live("is refused as the protocol says with flat memory, and a good client beside it notices nothing", () =>
    Effect.gen(function* () {
      const deployment = yield* Deployment.start({ tcp: { host: "127.0.0.1", port: 0, frameTimeout: "2s" } }, smallHeap)
      const { tcp } = deployment
      yield* Agent.register(tcp(), "good", { from: "127.0.40.1" })
      const filesBefore = openFiles(deployment)
      let beats = 0
      const good = yield* Agent.register(tcp(), "good", { from: "127.0.40.1" }).pipe(
        Effect.tap((answer) =>
          Effect.sync(() => {
            assert.strictEqual(answer.status, "success")
            beats += 1
          })
        ),
        Effect.delay("20 millis"),
        Effect.forever,
        Effect.forkChild
      )

      const expectRefusal = Effect.fnUntraced(function* (bytes: Uint8Array, code: string) {
        const client = yield* Agent.connect(tcp())
        client.socket.write(bytes)
        assert.deepInclude((yield* client.receive())[0], { status: "error", code })
        return client
      })
      const closes = (bytes: Uint8Array, code: string) =>
        Effect.flatMap(expectRefusal(bytes, code), (client) => client.closed).pipe(Effect.scoped)
      const goesOn = (bytes: Uint8Array, code: string) =>
        Effect.gen(function* () {
          const client = yield* expectRefusal(bytes, code)
          client.socket.write(Agent.frame("after-bad"))
          assert.strictEqual((yield* client.receive())[0]!.status, "success")
        }).pipe(Effect.scoped)

      // The prefix of 65,537 bytes and then the bytes themselves, which are not kept.
      yield* closes(Buffer.concat([new Uint8Array([0, 1, 0, 1]), new Uint8Array(65_537)]), "too-large")
      yield* closes(new Uint8Array([0xff, 0xff, 0xff, 0xff]), "too-large")
      yield* closes(Buffer.from("POST /v1/hosts HTTP/1.1\r\nHost: prism\r\nContent-Length: 2\r\n\r\n{}"), "not-prism")
      yield* closes(Buffer.from("1603010200010001fc0303", "hex"), "not-prism")
      yield* goesOn(Wire.encode("[".repeat(10_000) + "]".repeat(10_000)), "not-an-object")
      yield* goesOn(Wire.encode('{"a":'.repeat(10_000) + "1" + "}".repeat(10_000)), "invalid")
      yield* goesOn(Wire.encode(""), "empty")

      // 1,000 that announce 64 KiB and drip it, beside each other: told at the time limit.
      yield* Effect.forEach(
        Array.from({ length: 1000 }, (_, i) => i),
        Effect.fnUntraced(function* () {
          const client = yield* Agent.connect(tcp())
          client.socket.write(new Uint8Array([0, 1, 0, 0]))
          const timer = setInterval(() => client.socket.write("x"), 200)
          yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
          assert.deepInclude((yield* client.receive())[0], { status: "error", code: "timeout" })
          yield* client.closed
        }, Effect.scoped),
        { concurrency: 1000, discard: true }
      )

      // 10,000 random frames, honest in their length.
      let seed = 1
      const random = (below: number) => {
        seed = (seed * 48_271) % 2_147_483_647
        return seed % below
      }
      for (let round = 0; round < 10; round++) {
        const client = yield* Agent.connect(tcp())
        for (let i = 0; i < 1000; i++) {
          const payload = Uint8Array.from({ length: random(200) }, () => random(256))
          client.socket.write(Buffer.concat([new Uint8Array([0, 0, 0, payload.length]), payload]))
        }
        assert.isTrue((yield* client.receive(1000)).every((answer) => answer.status === "error"))
        client.socket.destroy()
      }

      assert.strictEqual(yield* Effect.sync(() => good.pollUnsafe()), undefined)
      yield* Fiber.interrupt(good)
      assert.isAbove(beats, 20)
      yield* untilQuiet(deployment, filesBefore)
    }).pipe(Effect.scoped)
  )
})
