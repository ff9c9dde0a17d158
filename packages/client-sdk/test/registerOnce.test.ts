import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import {
  registerOnce as register,
  RegistrationFailed,
  type RegisterOnceOptions as RegisterOptions
} from "@prism-dns/client-sdk"
import * as Net from "node:net"

/** A server that takes one frame and answers with `answer`, or does what `act` does. */
const withServer = async <A>(
  act: (socket: Net.Socket, request: Record<string, unknown>) => void,
  use: (server: string) => Promise<A>
): Promise<A> => {
  const server = Net.createServer((socket) => {
    const decoder = new Wire.FrameDecoder()
    socket.on("error", () => undefined)
    socket.on("data", (chunk) => {
      for (const frame of decoder.push(chunk)) {
        if (frame._tag === "Payload") act(socket, JSON.parse(Buffer.from(frame.bytes).toString()))
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  try {
    return await use(`127.0.0.1:${(server.address() as Net.AddressInfo).port}`)
  } finally {
    server.close()
  }
}

const answering = (response: object) => (socket: Net.Socket) => {
  const bytes = Wire.encode(JSON.stringify(response))
  // In two pieces, as a network may deliver it.
  socket.write(bytes.subarray(0, 7))
  setImmediate(() => socket.write(bytes.subarray(7)))
}

const failure = async (options: RegisterOptions): Promise<RegistrationFailed> => {
  try {
    await register(options)
  } catch (error) {
    if (error instanceof RegistrationFailed) return error
    throw error
  }
  throw new Error("it was expected to fail")
}

describe("register", () => {
  it("returns the name, the address and the level", async () => {
    let seen: Record<string, unknown> = {}
    const response = {
      status: "success",
      message: "host registered",
      host: "a.x.",
      address: "127.0.0.1",
      level: "applied"
    }
    const registration = await withServer(
      (socket, request) => {
        seen = request
        answering(response)(socket)
      },
      (server) => register({ server, hostname: "a", token: "t" })
    )
    assert.deepStrictEqual(registration, {
      host: "a.x.",
      address: "127.0.0.1",
      level: "applied",
      message: "host registered"
    })
    assert.deepInclude(seen, { version: "1.0", type: "registration", hostname: "a", auth_token: "t" })
  })

  it("a refusal carries the server's code and when to try again", async () => {
    const response = { status: "error", message: "too many", code: "rate-limited", retryAfterSeconds: 7 }
    const error = await withServer(answering(response), (server) => failure({ server }))
    assert.deepStrictEqual([error.code, error.retryAfterSeconds, error.message], ["rate-limited", 7, "too many"])
  })

  it.each([
    ["closes without an answer", (socket: Net.Socket) => socket.end(), "unreachable"],
    [
      "answers with an endless frame",
      (socket: Net.Socket) => socket.write(new Uint8Array([255, 255, 255, 255])),
      "protocol"
    ],
    ["answers with nonsense", (socket: Net.Socket) => socket.write(Wire.encode("nonsense")), "protocol"],
    ["says nothing", () => undefined, "timeout"]
  ])("a server that %s is a failure with a code", async (_, act, code) => {
    assert.strictEqual((await withServer(act, (server) => failure({ server, timeoutMillis: 200 }))).code, code)
  })

  it("no server at all is `unreachable`", async () => {
    assert.strictEqual((await failure({ server: "127.0.0.1:1" })).code, "unreachable")
  })

  it("a server without a port is refused before anything is sent", async () => {
    assert.strictEqual((await failure({ server: "prism.example.net" })).code, "invalid")
  })
})
