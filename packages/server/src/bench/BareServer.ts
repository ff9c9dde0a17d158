/**
 * The yardstick of the agents' port: a `node:net` server that reads frames and
 * answers each with the same bytes, as a process of its own. It parses
 * nothing, knows nobody and stores nothing.
 *
 * Says `{ port }` once it listens; told `{ expect: n }`, it says `"reached"`
 * when it has read n frames more.
 */
import { encode } from "@prism-dns/core/protocol/Wire"
import { encodeResponse } from "@prism-dns/core/protocol/MessageV1"
import * as Net from "node:net"

const answer = encode(encodeResponse({ status: "success", message: "lease renewed", more: {} }, Date.now()))
const answers = [Buffer.alloc(0), answer]
const answerTimes = (n: number) => (answers[n] ??= Buffer.concat(Array.from({ length: n }, () => answer)))

let framesRead = 0
let expected = Infinity

const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  let rest: Buffer | undefined
  socket.on("data", (chunk: Buffer) => {
    const input = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    let frames = 0
    while (input.length - at >= 4) {
      const end = at + 4 + input.readUInt32BE(at)
      if (end > input.length) break
      at = end
      frames += 1
    }
    rest = at === input.length ? undefined : input.subarray(at)
    framesRead += frames
    if (frames > 0 && socket.writable) socket.write(answerTimes(frames))
    if (framesRead >= expected) {
      expected = Infinity
      process.send?.("reached")
    }
  })
  socket.on("end", () => socket.end())
  socket.on("error", () => socket.destroy())
})

process.on("message", (message: unknown) => {
  if (typeof message === "object" && message !== null && "expect" in message) {
    expected = framesRead + Number(message.expect)
  }
})
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
  process.send?.({ port: (server.address() as Net.AddressInfo).port })
)
