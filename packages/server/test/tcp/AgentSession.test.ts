import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import * as Net from "node:net"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { AgentSession, type Protocol } from "../../src/tcp/AgentSession.ts"

const frameTimeoutMillis = 300
/** Long enough that a few hundred fill every buffer on the way. */
const longAnswer = "x".repeat(60_000)

/** A port whose sessions answer by `answer`; gone with the scope. */
const listen = Effect.fnUntraced(function* (answer: Protocol["answer"], more: Partial<Protocol> = {}) {
  const protocol: Protocol = {
    answer,
    refuse: (reason) => reason,
    outlivesConnection: true,
    closed: () => undefined,
    ...more
  }
  const sessions = new Set<AgentSession>()
  const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
    sessions.add(
      new AgentSession(
        { socket, peer: undefined, transport: { _tag: "Plain" } },
        {
          frameTimeoutMillis,
          payloadBytesMax: Wire.payloadBytesMax,
          pipelineMax: 64,
          protocol,
          onClose: (session) => sessions.delete(session)
        }
      )
    )
  })
  yield* Effect.callback<void>((resume) => {
    server.listen(0, "127.0.0.1", () => resume(Effect.void))
  })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      server.close()
      for (const session of sessions) session.destroy()
    })
  )
  return { port: (server.address() as Net.AddressInfo).port, sessions }
})

/** A client that takes nothing of what it is sent. */
const connectDeaf = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
      socket.on("error", () => undefined)
      socket.pause()
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const untilNone = (sessions: ReadonlySet<AgentSession>) =>
  waitUntil(
    "no session is left",
    Effect.sync(() => sessions.size),
    (size) => size === 0
  )

const frames = (count: number) => Buffer.concat(Array.from({ length: count }, () => Wire.encode("{}")))

describe("a client that takes no answer", () => {
  it.live("is let go after the time limit", () =>
    Effect.gen(function* () {
      const { port, sessions } = yield* listen(() => longAnswer)
      const client = yield* connectDeaf(port)
      client.write(frames(500))
      yield* waitUntil(
        "it is connected",
        Effect.sync(() => sessions.size),
        (size) => size === 1
      )
      yield* untilNone(sessions)
    }).pipe(Effect.scoped)
  )

  it.live("and has ended its side is let go after the time limit", () =>
    Effect.gen(function* () {
      const { port, sessions } = yield* listen(() => longAnswer)
      const client = yield* connectDeaf(port)
      client.end(frames(500))
      yield* waitUntil(
        "it is connected",
        Effect.sync(() => sessions.size),
        (size) => size === 1
      )
      yield* untilNone(sessions)
    }).pipe(Effect.scoped)
  )
})

describe("a client that has ended its side", () => {
  it.live("is waited for as long as its request is under way", () =>
    Effect.gen(function* () {
      const { port } = yield* listen((_payload, session) => {
        const slot = session.reserve()
        setTimeout(() => session.respond(slot, "late"), frameTimeoutMillis * 3)
        return undefined
      })
      const received = yield* Effect.callback<string>((resume) => {
        let text = ""
        const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => socket.end(frames(1)))
        socket.on("data", (chunk) => (text += chunk.subarray(Wire.prefixBytes).toString()))
        socket.on("end", () => resume(Effect.succeed(text)))
        return Effect.sync(() => socket.destroy())
      })
      assert.strictEqual(received, "late")
    }).pipe(Effect.scoped)
  )
})
