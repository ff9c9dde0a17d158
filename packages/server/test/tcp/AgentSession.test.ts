import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import * as Net from "node:net"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { AgentSession, type Protocol, type Slot, unsentBytesMax } from "../../src/tcp/AgentSession.ts"

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

describe("what is pushed", () => {
  const open = Effect.fnUntraced(function* (answer: Protocol["answer"], more?: Partial<Protocol>) {
    const { port, sessions } = yield* listen(answer, more)
    const client = yield* connectDeaf(port)
    yield* waitUntil(
      "it is connected",
      Effect.sync(() => sessions.size),
      (size) => size === 1
    )
    const [session] = sessions
    return { client, session: session!, sessions }
  })

  /** Frames that the client has been sent. */
  const receive = (client: Net.Socket) => {
    const received: Array<string> = []
    const decoder = new Wire.FrameDecoder(1 << 20)
    client.on("data", (chunk) => {
      for (const frame of decoder.push(new Uint8Array(chunk))) {
        if (frame._tag === "Payload") received.push(Buffer.from(frame.bytes).toString())
      }
    })
    client.resume()
    return (count: number) =>
      waitUntil(
        `${count} frames have come`,
        Effect.sync(() => received),
        ({ length }) => length >= count
      )
  }

  it.live("ends the connection of a client that does not take it, and holds no more than the bound", () =>
    Effect.gen(function* () {
      const { session, sessions } = yield* open(() => undefined)
      let pushed = 0
      // What the kernel takes comes on top.
      yield* waitUntil(
        "no session is left",
        Effect.sync(() => {
          session.push(longAnswer)
          pushed += longAnswer.length
          return sessions.size
        }),
        (size) => size === 0
      )
      assert.isAbove(pushed, unsentBytesMax)
    }).pipe(Effect.scoped)
  )

  it.live("behind an answer comes behind it, also when earlier requests are under way", () =>
    Effect.gen(function* () {
      const slots: Array<Slot> = []
      const { client, session } = yield* open((_, session) => void slots.push(session.reserve()))
      const received = receive(client)
      client.write(frames(2))
      yield* waitUntil(
        "both are under way",
        Effect.sync(() => slots.length),
        (length) => length === 2
      )
      session.respond(slots[1]!, "second")
      session.follow(slots[1]!, "of the second")
      session.push("of none")
      session.respond(slots[0]!, "first")
      session.follow(slots[0]!, "of the first")
      assert.deepStrictEqual(yield* received(5), ["of none", "first", "second", "of the second", "of the first"])
    }).pipe(Effect.scoped)
  )

  it.live("as the last word ends the connection, whatever is under way", () =>
    Effect.gen(function* () {
      const { client, session, sessions } = yield* open((_, session) => void session.reserve())
      const received = receive(client)
      client.write(frames(3))
      session.terminate("enough")
      session.terminate("once more")
      assert.deepStrictEqual(yield* received(1), ["enough"])
      yield* untilNone(sessions)
    }).pipe(Effect.scoped)
  )
})

describe("a request that holds", () => {
  it.live("lets later ones begin once it is answered", () =>
    Effect.gen(function* () {
      const begun: Array<string> = []
      const slots: Array<Slot> = []
      const { port, sessions } = yield* listen((_, session) => {
        begun.push(`${begun.length}`)
        slots.push(session.reserve(begun.length === 1))
        return undefined
      })
      const client = yield* connectDeaf(port)
      client.write(frames(3))
      yield* waitUntil(
        "the first has begun",
        Effect.sync(() => begun.length),
        (length) => length > 0
      )
      assert.deepStrictEqual(begun, ["0"])
      const [session] = sessions
      session!.respond(slots[0]!, "held")
      assert.deepStrictEqual(begun, ["0", "1", "2"])
    }).pipe(Effect.scoped)
  )

  it.live("and is not answered until the connection is gone is the last, where a protocol does not outlive it", () =>
    Effect.gen(function* () {
      let begun = 0
      const { port, sessions } = yield* listen(
        (_, session) => {
          begun += 1
          session.reserve(true)
          return undefined
        },
        { outlivesConnection: false }
      )
      const client = yield* connectDeaf(port)
      client.write(frames(3))
      yield* waitUntil(
        "the first has begun",
        Effect.sync(() => begun),
        (count) => count === 1
      )
      for (const session of sessions) session.destroy()
      yield* untilNone(sessions)
      assert.strictEqual(begun, 1)
    }).pipe(Effect.scoped)
  )
})
