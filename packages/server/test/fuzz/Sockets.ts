/**
 * Bytes that are almost right, through sockets, to a whole server: frames and
 * PROXY headers without TLS, hellos and what comes behind the handshake with
 * it. Beside them good clients have to be answered all the time.
 */
import { Duration, Effect } from "effect"
import { IpNetwork } from "effect/net"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as NodeTls from "node:tls"
import * as Dice from "../../../core/test/simulation/Dice.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { TcpServer } from "../../src/tcp/TcpServer.ts"
import * as Agent from "../harness/AgentClient.ts"
import type { Authority, Pair } from "../harness/certificates.ts"
import { server } from "../tcp/layers.ts"
import { frames, proxyHeader } from "./InProcess.ts"
import { junk, mutate, split } from "./Mutations.ts"

/** Where the load balancer and everyone else come from. */
const balancer = "127.0.8.1"
const elsewhere = "127.0.7.1"

export const layerOf = (ca: Authority, pair: Pair) =>
  server({
    frameTimeout: Duration.millis(500),
    proxyFrom: [IpNetwork.fromStringUnsafe(`${balancer}/32`)],
    tls: {
      host: "127.0.0.1",
      port: 0,
      ...pair,
      clientCa: ca.certificate,
      clientCrl: undefined,
      clientCertificates: "optional",
      clientName: "cn",
      reloadInterval: Duration.hours(1)
    }
  })

/** The first bytes of a client that speaks TLS, as they really are. */
export const captureHello: Effect.Effect<Buffer> = Effect.callback((resume) => {
  const listener = Net.createServer((socket) => {
    socket.once("data", (bytes) => {
      socket.destroy()
      listener.close()
      resume(Effect.succeed(bytes))
    })
  })
  listener.listen(0, "127.0.0.1", () => {
    const client = NodeTls.connect({ host: "127.0.0.1", port: (listener.address() as Net.AddressInfo).port })
    client.on("error", () => client.destroy())
  })
})

interface Case {
  readonly to: { readonly host: string; readonly port: number }
  readonly from: string
  /** Sent before the handshake where there is one, else all that is sent. */
  readonly bytes: Buffer
  /** Sent by TLS after a handshake that is right. */
  readonly secret?: Buffer
}

const makeCase = (dice: Dice.Dice, hello: Buffer, plain: Case["to"], tls: Case["to"]): Case => {
  const from = dice.chance(0.5) ? balancer : elsewhere
  const header = from === balancer && dice.chance(0.8) ? proxyHeader(dice) : Buffer.alloc(0)
  switch (dice.int(5)) {
    case 0:
      return { to: plain, from, bytes: Buffer.concat([header, frames(dice)]) }
    case 1:
      return { to: dice.pick([plain, tls]), from, bytes: Buffer.concat([proxyHeader(dice), junk(dice, 40)]) }
    case 2:
      return { to: tls, from: elsewhere, bytes: Buffer.alloc(0), secret: frames(dice) }
    default:
      return { to: tls, from, bytes: Buffer.concat([header, mutate(dice, hello)]) }
  }
}

/** Plays one case to its end: ours, or the server's. */
const play = (dice: Dice.Dice, { bytes, from, secret, to }: Case): Promise<void> =>
  new Promise((resolve) => {
    const raw = Net.connect({ ...to, localAddress: from })
    raw.on("error", () => raw.destroy())
    raw.on("close", () => resolve())
    const leave = () => {
      switch (dice.int(8)) {
        case 0:
        case 1:
        case 2:
          return raw.resetAndDestroy()
        case 3:
        case 4:
        case 5:
        case 6:
          return raw.destroy()
        default:
          // The server has to end it: by its answer, or by its time limit.
          raw.resume()
          raw.end()
      }
    }
    raw.once("connect", () => {
      if (secret !== undefined) {
        const socket = NodeTls.connect({ socket: raw, rejectUnauthorized: false })
        socket.on("error", () => raw.destroy())
        socket.once("secureConnect", () => {
          socket.resume()
          socket.write(secret, leave)
        })
        return
      }
      const pieces = [...split(dice, bytes)]
      const next = () => {
        const piece = pieces.shift()
        if (piece === undefined || raw.destroyed) leave()
        else if (pieces.length > 8) raw.write(Buffer.concat([piece, ...pieces.splice(0)]), next)
        else raw.write(piece, next)
      }
      raw.setNoDelay(true)
      next()
    })
  })

/** A host that registers on each port and is answered; fails when it is not. */
const goodClients = (ca: Authority) =>
  Effect.gen(function* () {
    const { plain, tls } = yield* TcpServer
    const client = yield* Agent.connect(plain!, { from: "127.0.9.1" })
    client.socket.write(Agent.frame("good"))
    const secure = new Agent.AgentClient(
      NodeTls.connect({ ...tls!, servername: "prism.test", ca: Fs.readFileSync(ca.certificate) })
    )
    secure.socket.write(Agent.frame("good-too"))
    for (const each of [client, secure]) {
      const [answer] = yield* each.receive()
      if (answer!.status !== "success") throw new Error(`a good client was told ${JSON.stringify(answer)}`)
      each.socket.destroy()
    }
  }).pipe(Effect.scoped)

/** Connections at once. */
const parallel = 48

/** How many cases are played before the good clients are asked again. */
const roundCases = 480

export const run = Effect.fnUntraced(function* (options: {
  readonly seed: string
  readonly ca: Authority
  readonly from: number
  readonly to: number
  readonly hello: Buffer
}) {
  const { ca, from, hello, seed, to } = options
  const { connections, plain, tls } = yield* TcpServer
  for (let start = from; start < to; start += roundCases) {
    const round = Array.from({ length: Math.min(roundCases, to - start) }, (_, i) => start + i)
    yield* Effect.all(
      [
        goodClients(ca),
        Effect.forEach(
          round,
          (i) =>
            Effect.promise(() => {
              const dice = Dice.make(`${seed}/sockets/${i}`)
              return play(dice, makeCase(dice, hello, plain!, tls!))
            }),
          { concurrency: parallel, discard: true }
        )
      ],
      { concurrency: 2, discard: true }
    )
  }
  yield* waitUntil(
    "the server has no connection open",
    Effect.sync(() => connections()),
    (count) => count === 0,
    { within: "20 seconds" }
  )
})
