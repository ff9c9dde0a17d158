/**
 * The yardstick of the agents' port: a `node:net` server that reads frames and
 * answers each with the same bytes, as a process of its own. It parses
 * nothing, knows nobody and stores nothing. With a certificate it is a
 * `node:tls` server that does the same.
 *
 * Its argument is `BareOptions` in JSON. Says `{ port }` once it listens; told
 * `{ expect: n }`, it says `"reached"` when it has read n frames more.
 */
import { encode } from "@prism-dns/core/protocol/Wire"
import { encodeResponse } from "@prism-dns/core/protocol/MessageV1"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Tls from "node:tls"

export interface BareOptions {
  /** What each frame is answered with; a response of protocol 1.0 when left out. */
  readonly answer?: string
  /** Files in PEM. */
  readonly tls?: { readonly certificate: string; readonly key: string }
}

const options = JSON.parse(process.argv[2] ?? "{}") as BareOptions
const answer = encode(
  options.answer ?? encodeResponse({ status: "success", message: "lease renewed", more: {} }, Date.now())
)
const answers = [Buffer.alloc(0), answer]
const answerTimes = (n: number) => (answers[n] ??= Buffer.concat(Array.from({ length: n }, () => answer)))

let framesRead = 0
let expected = Infinity

const accept = (socket: Net.Socket) => {
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
}

const sockets = { allowHalfOpen: true, noDelay: true }
const server =
  options.tls === undefined
    ? Net.createServer(sockets, accept)
    : Tls.createServer(
        {
          ...sockets,
          cert: Fs.readFileSync(options.tls.certificate),
          key: Fs.readFileSync(options.tls.key),
          minVersion: "TLSv1.3"
        },
        accept
      )

process.on("message", (message: unknown) => {
  if (typeof message === "object" && message !== null && "expect" in message) {
    expected = framesRead + Number(message.expect)
  }
})
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
  process.send?.({ port: (server.address() as Net.AddressInfo).port })
)
