/**
 * Asks a server the same question over kept connections, one request in flight
 * on each, for as long as a message says: a process of its own, beside the
 * server on the same cores.
 */
import * as Net from "node:net"

export interface Job {
  readonly port: number
  /** The whole request, as it goes out. */
  readonly request: string
  readonly connections: number
  readonly millis: number
}

export interface Outcome {
  readonly requests: number
  readonly millis: number
  /** Answers whose status is not 200. */
  readonly others: number
  /** How long requests took, in microseconds, by their share. */
  readonly p50: number
  readonly p99: number
}

const headEnd = Buffer.from("\r\n\r\n")

const run = (job: Job): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const request = Buffer.from(job.request)
    const took: Array<number> = []
    let others = 0
    let open = job.connections
    const start = performance.now()
    const until = start + job.millis
    for (let i = 0; i < job.connections; i++) {
      const socket = Net.connect({ host: "127.0.0.1", port: job.port, noDelay: true })
      let sent = 0
      let rest: Buffer | undefined
      const send = () => {
        sent = performance.now()
        socket.write(request)
      }
      socket.on("connect", send)
      socket.on("error", reject)
      socket.on("close", () => {
        open -= 1
        if (open > 0) return
        took.sort((a, b) => a - b)
        const share = (q: number) => (took[Math.min(took.length - 1, Math.floor(q * took.length))] ?? 0) * 1000
        const millis = performance.now() - start
        resolve({ requests: took.length, millis, others, p50: share(0.5), p99: share(0.99) })
      })
      socket.on("data", (chunk: Buffer) => {
        const input = rest === undefined ? chunk : Buffer.concat([rest, chunk])
        const head = input.indexOf(headEnd)
        const length = head === -1 ? undefined : /content-length: (\d+)/i.exec(input.toString("latin1", 0, head))?.[1]
        if (head === -1 || input.length < head + 4 + Number(length ?? 0)) {
          rest = input
          return
        }
        rest = undefined
        if (!input.toString("latin1", 0, 12).endsWith("200")) others += 1
        const now = performance.now()
        took.push(now - sent)
        if (now < until) send()
        else socket.end()
      })
    }
  })

process.on("message", (job: Job) => {
  run(job).then(
    (outcome) => process.send?.({ outcome }),
    (error: unknown) => process.send?.({ failure: String(error) })
  )
})
process.on("disconnect", () => process.exit(0))
// The probe of memory lets the channel keep nobody alive.
process.channel?.ref()
process.send?.("ready")
