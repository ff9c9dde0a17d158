/**
 * A name server that says what a test wants, over UDP and TCP on one free port.
 *
 * Gone with its scope.
 */
import dnsPacket from "dns-packet"
import { Effect } from "effect"
import { createSocket } from "node:dgram"
import * as Net from "node:net"
import { freePorts } from "./ports.ts"

export interface Reply {
  readonly rcode?: "NOERROR" | "NXDOMAIN" | "SERVFAIL" | "REFUSED"
  readonly answers?: ReadonlyArray<dnsPacket.Answer>
  /** Default true. */
  readonly authoritative?: boolean
  readonly truncated?: boolean
  /** In place of the id asked. */
  readonly id?: number
  /** In place of the question asked. */
  readonly question?: dnsPacket.Question
}

/** None, one or several datagrams in answer to a question. */
export type Respond = (question: dnsPacket.Question, over: "udp" | "tcp") => ReadonlyArray<Reply>

const rcodes = { NOERROR: 0, NXDOMAIN: 3, SERVFAIL: 2, REFUSED: 5 }

const encode = (query: dnsPacket.DecodedPacket, reply: Reply): Buffer =>
  dnsPacket.encode({
    type: "response",
    id: reply.id ?? query.id ?? 0,
    flags:
      (reply.authoritative === false ? 0 : dnsPacket.AUTHORITATIVE_ANSWER) |
      (reply.truncated === true ? dnsPacket.TRUNCATED_RESPONSE : 0) |
      rcodes[reply.rcode ?? "NOERROR"],
    questions: reply.question === undefined ? (query.questions ?? []) : [reply.question],
    answers: [...(reply.answers ?? [])]
  })

/** Starts one; `questions` counts what it was asked over UDP. */
export const start = (respond: Respond) => Effect.flatMap(freePorts(1), ([port]) => listen(respond, port!))

const listen = (respond: Respond, port: number) =>
  Effect.acquireRelease(
    Effect.callback<{ host: string; port: number; questions: () => number; close: () => void }>((resume) => {
      let questions = 0
      const udp = createSocket("udp4")
      const streams = new Set<Net.Socket>()
      const tcp = Net.createServer((stream) => {
        streams.add(stream)
        stream.on("error", () => stream.destroy())
        stream.on("data", (chunk: Buffer) => {
          const query = dnsPacket.decode(chunk.subarray(2))
          for (const reply of respond(query.questions![0]!, "tcp")) {
            const message = encode(query, reply)
            const length = Buffer.alloc(2)
            length.writeUInt16BE(message.length)
            // In pieces, as TCP may.
            stream.write(Buffer.concat([length, message.subarray(0, 5)]))
            stream.write(message.subarray(5))
          }
        })
      })
      udp.on("message", (message, from) => {
        questions += 1
        const query = dnsPacket.decode(message)
        for (const reply of respond(query.questions![0]!, "udp"))
          udp.send(encode(query, reply), from.port, from.address)
      })
      for (const socket of [udp, tcp]) socket.once("error", (error) => resume(Effect.die(error)))
      udp.bind(port, "127.0.0.1", () => {
        tcp.listen(port, "127.0.0.1", () =>
          resume(
            Effect.succeed({
              host: "127.0.0.1",
              port,
              questions: () => questions,
              close: () => {
                udp.close()
                tcp.close()
                for (const stream of streams) stream.destroy()
              }
            })
          )
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )
