/**
 * The load: hosts as deployed ones behave, each with an address of its own
 * (127.16.0.0 and up) from which it connects.
 */
import { encode } from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import * as Net from "node:net"
import { BenchFailed } from "./Benchmark.ts"
import { token } from "./Servers.ts"

/** As many as addresses are set aside for them. */
export const hostsMax = 1 << 20

export const hostname = (host: number): string => `host-${host}`

export const address = (host: number): string => `127.${16 + (host >>> 16)}.${(host >>> 8) & 255}.${host & 255}`

/** A registration as client 1.1 writes it. */
export const frame = (host: number): Uint8Array =>
  encode(
    JSON.stringify({
      version: "1.0",
      type: "registration",
      hostname: hostname(host),
      client_ip: address(host),
      timestamp: "2026-11-23T06:14:00.123456+00:00",
      auth_token: token
    }).replaceAll(/(?<=[,:])"/g, ' "')
  )

export const frames = (hosts: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: hosts }, (_, host) => frame(host))

export interface SendOptions {
  readonly port: number
  /** Those of hosts 0, 1, 2… */
  readonly frames: ReadonlyArray<Uint8Array>
  /** Default: one for each host; if more, hosts take turns. */
  readonly connections?: number
  /** Connections that are on their way at once. */
  readonly atOnceMax: number
  /** Waits for the answer as no deployed client does; otherwise a connection is closed as soon as its frame is sent. */
  readonly awaitAnswer: boolean
}

/** Connections that send one frame and FIN at once. Ends when all are closed. */
export const sendEach = (options: SendOptions): Effect.Effect<void, BenchFailed> =>
  Effect.callback((resume) => {
    const { awaitAnswer, frames, port } = options
    const { connections = frames.length } = options
    const open = new Set<Net.Socket>()
    let next = 0
    let closed = 0
    const fail = (detail: string) => {
      for (const socket of open) socket.destroy()
      resume(Effect.fail(new BenchFailed({ detail })))
    }
    const start = () => {
      const host = next++ % frames.length
      const frame = frames[host]!
      const socket = Net.connect({ host: "127.0.0.1", port, localAddress: address(host), noDelay: true })
      let done = false
      open.add(socket)
      socket.on("error", (error) => {
        if (!done) fail(`host ${host} could not send its frame: ${error.message}`)
      })
      socket.on("close", () => {
        open.delete(socket)
        if (!done) return fail(`host ${host} was cut off`)
        closed += 1
        if (next < connections) start()
        else if (closed === connections) resume(Effect.void)
      })
      if (awaitAnswer) {
        socket.on("data", () => (done = true))
        socket.end(frame)
      } else {
        socket.end(frame, () => {
          done = true
          socket.destroy()
        })
      }
    }
    for (let i = 0; i < Math.min(options.atOnceMax, connections); i++) start()
    return Effect.sync(() => {
      for (const socket of open) socket.removeAllListeners("close").destroy()
    })
  })

/** A registration that is due at a moment of its own. */
export interface Due {
  readonly frame: Uint8Array
  /** Address that the host connects from, and gets. */
  readonly address: string
}

/**
 * Sends each when it is due, `perSecond` of them evenly, whatever has become of those before. Gives for each when it was
 * due and when its answer had come, in milliseconds since 1970. Ends when all are answered.
 */
export const sendEvenly = (options: {
  readonly port: number
  readonly all: ReadonlyArray<Due>
  readonly perSecond: number
}): Effect.Effect<ReadonlyArray<{ readonly dueMillis: number; readonly answeredMillis: number }>, BenchFailed> =>
  Effect.callback((resume) => {
    const { all, perSecond, port } = options
    const now = () => performance.timeOrigin + performance.now()
    const startMillis = now() + 10
    const dueMillis = (i: number) => startMillis + (i * 1000) / perSecond
    const open = new Set<Net.Socket>()
    const answers: Array<{ dueMillis: number; answeredMillis: number }> = []
    let next = 0
    let answered = 0
    const end = (result: Effect.Effect<typeof answers, BenchFailed>) => {
      clearInterval(ticker)
      for (const socket of open) socket.removeAllListeners("close").destroy()
      resume(result)
    }
    const send = (i: number) => {
      const { address, frame } = all[i]!
      const socket = Net.connect({ host: "127.0.0.1", port, localAddress: address, noDelay: true })
      open.add(socket)
      let done = false
      socket.on("error", () => undefined) // "close" follows
      socket.once("data", () => {
        done = true
        answers[i] = { dueMillis: dueMillis(i), answeredMillis: now() }
        answered += 1
      })
      socket.on("close", () => {
        open.delete(socket)
        if (!done) return end(Effect.fail(new BenchFailed({ detail: `the host at ${address} had no answer` })))
        if (answered === all.length) end(Effect.succeed(answers))
      })
      socket.end(frame)
    }
    const ticker = setInterval(() => {
      while (next < all.length && dueMillis(next) <= now()) send(next++)
      if (next === all.length) clearInterval(ticker)
    }, 1)
    return Effect.sync(() => {
      clearInterval(ticker)
      for (const socket of open) socket.removeAllListeners("close").destroy()
    })
  })

/** Opens one connection for each host and keeps it, until the scope ends. */
export const connectEach = (options: { readonly port: number; readonly hosts: number; readonly atOnceMax: number }) =>
  Effect.acquireRelease(
    Effect.callback<ReadonlyArray<Net.Socket>, BenchFailed>((resume) => {
      const sockets: Array<Net.Socket> = []
      let connected = 0
      const start = () => {
        const host = sockets.length
        const socket = Net.connect({
          host: "127.0.0.1",
          port: options.port,
          localAddress: address(host),
          noDelay: true
        })
        sockets.push(socket)
        socket.on("error", (error) => {
          for (const each of sockets) each.destroy()
          resume(Effect.fail(new BenchFailed({ detail: `connection ${host}: ${error.message}` })))
        })
        socket.once("connect", () => {
          connected += 1
          if (sockets.length < options.hosts) start()
          else if (connected === options.hosts) resume(Effect.succeed(sockets))
        })
      }
      for (let i = 0; i < Math.min(options.atOnceMax, options.hosts); i++) start()
    }),
    (sockets) => Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
  )

/** Reads the answers of one connection; gives the number of whole frames in each chunk. */
const answerCounter = () => {
  let rest: Buffer | undefined
  return (chunk: Buffer): number => {
    const input = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    let count = 0
    while (input.length - at >= 4) {
      const end = at + 4 + input.readUInt32BE(at)
      if (end > input.length) break
      at = end
      count += 1
    }
    rest = at === input.length ? undefined : input.subarray(at)
    return count
  }
}

/**
 * Beats on open connections, connection `n` as host `n`, with `inFlight` of them unanswered at any time, for `millis`.
 * Gives the number of answers.
 */
export const beat = (options: {
  readonly sockets: ReadonlyArray<Net.Socket>
  readonly inFlight: number
  readonly millis: number
}): Effect.Effect<number, BenchFailed> =>
  Effect.callback((resume) => {
    const { inFlight, sockets } = options
    let answers = 0
    let unanswered = sockets.length * inFlight
    let stopping = false
    const cleanUp = () => {
      clearTimeout(timer)
      for (const socket of sockets) socket.removeAllListeners("data")
    }
    const timer = setTimeout(() => (stopping = true), options.millis)
    sockets.forEach((socket, host) => {
      const one = frame(host)
      const batches = Array.from({ length: inFlight + 1 }, (_, n) =>
        Buffer.concat(Array.from({ length: n }, () => one))
      )
      const count = answerCounter()
      socket.on("data", (chunk: Buffer) => {
        const n = count(chunk)
        answers += n
        if (!stopping) {
          if (n > 0) socket.write(batches[n]!)
          return
        }
        unanswered -= n
        if (unanswered > 0) return
        cleanUp()
        resume(Effect.succeed(answers))
      })
      socket.once("close", () => {
        cleanUp()
        resume(Effect.fail(new BenchFailed({ detail: `the connection of host ${host} was closed` })))
      })
      socket.write(batches[inFlight]!)
    })
    return Effect.sync(cleanUp)
  })
