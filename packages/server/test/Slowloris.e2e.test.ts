/** Thousands of connections that drip their bytes, against the whole server; what others notice of it. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as NodeTls from "node:tls"
import { freePorts } from "../../core/test/harness/ports.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import { captureHello } from "./fuzz/Sockets.ts"
import * as Agent from "./harness/AgentClient.ts"
import { authority } from "./harness/certificates.ts"
import * as PrismServer from "./harness/PrismServer.ts"
import * as Headers from "./harness/proxyHeaders.ts"

const balancer = "127.0.8.1"

/** 5,000 in all. */
const perKind = 1250

interface Endpoint {
  readonly host: string
  readonly port: number
}

/** A connection that sends `first` at once and a byte of `rest` with each drip; closed, it begins anew until it is told to stop. */
class Dripping {
  readonly #connect: () => Net.Socket
  readonly #rest: Uint8Array
  #socket: Net.Socket
  #at = 0
  #stopped = false
  closed = false

  constructor(to: Endpoint, from: string, first: Uint8Array, rest: Uint8Array) {
    this.#rest = rest
    this.#connect = () => {
      const socket = Net.connect({ ...to, localAddress: from })
      socket.on("error", () => socket.destroy())
      socket.on("close", () => this.#again())
      socket.resume()
      if (first.length > 0) socket.write(first)
      return socket
    }
    this.#socket = this.#connect()
  }

  #again(): void {
    this.closed = this.#stopped
    this.#at = 0
    if (!this.#stopped) this.#socket = this.#connect()
  }

  drip(): void {
    if (this.closed || this.#at >= this.#rest.length) return
    this.#socket.write(this.#rest.subarray(this.#at, this.#at + 1))
    this.#at += 1
  }

  stop(): void {
    this.#stopped = true
  }

  destroy(): void {
    this.#stopped = true
    this.#socket.destroy()
  }
}

describe("5,000 connections that drip bytes", () => {
  it.live(
    "before hello, in the PROXY header, in the handshake, after the welcome: others are served, they are closed",
    () =>
      Effect.gen(function* () {
        const ca = yield* authority()
        const [tcpPort, tlsPort, httpPort, powerdns] = yield* freePorts(4)
        yield* PrismServer.serve(
          {
            server: { drainDelay: "0s" },
            tcp: { host: "127.0.0.1", port: tcpPort, proxyFrom: [balancer], protocol1: "on", frameTimeout: "10s" },
            tls: { host: "127.0.0.1", port: tlsPort, ...ca.issue("prism", { alternativeNames: "DNS:prism.test" }) },
            http: { port: httpPort },
            powerdns: { nodes: [{ api: `http://127.0.0.1:${powerdns}`, apiKey: "x", dns: "127.0.0.1:53" }] },
            zones: [{ name: "hosts.prism.test", networks: ["127.0.0.0/8"] }],
            leases: { ackTimeout: "0s" },
            auth: { mode: "off" }
          },
          { awaitReady: false }
        )
        const tcp = { host: "127.0.0.1", port: tcpPort! }
        const tls = { host: "127.0.0.1", port: tlsPort! }
        const get = (path: string) =>
          Effect.tryPromise(async () => (await fetch(`http://127.0.0.1:${httpPort}${path}`)).text())
        yield* waitUntil("the server is ready", get("/readyz"), (text) => text.length > 0 && !text.includes("not"), {
          within: "20 seconds"
        })
        const open = Effect.map(get("/metrics"), (text) => Number(/^prism_tcp_connections (\d+)$/m.exec(text)?.[1]))

        const hello = yield* captureHello
        const nothing = new Uint8Array(0)
        const frame = Agent.frame("slow", { pad: "x".repeat(1000) })
        const welcome = Wire.encode(
          JSON.stringify({ type: "hello", id: 1, version: "2.0", auth: { method: "anonymous" } })
        )
        const header = Headers.binary({ extensions: [Headers.extension(4, new Uint8Array(1000))] })
        const kinds: ReadonlyArray<() => Dripping> = [
          () => new Dripping(tcp, "127.0.7.1", nothing, frame),
          () => new Dripping(tcp, balancer, nothing, header),
          () => new Dripping(tls, "127.0.7.2", nothing, hello),
          () => new Dripping(tcp, "127.0.7.3", welcome, frame)
        ]
        const all = yield* Effect.acquireRelease(
          Effect.sync(() => Array.from({ length: perKind }, () => kinds.map((make) => make())).flat()),
          (connections) => Effect.sync(() => connections.forEach((connection) => connection.destroy()))
        )
        yield* waitUntil("nearly all are open", open, (count) => count > 0.9 * all.length, { within: "40 seconds" })
        yield* Effect.forkScoped(
          Effect.sync(() => all.forEach((connection) => connection.drip())).pipe(
            Effect.delay("200 millis"),
            Effect.forever
          )
        )

        for (let i = 0; i < 20; i++) {
          const plain = yield* Agent.register(tcp, `good-${i}`, { from: "127.0.9.1" })
          assert.strictEqual(plain.status, "success", plain.message)
          const behind = yield* Agent.connect(tcp, { from: balancer })
          behind.socket.write(Buffer.concat([Headers.line("127.0.9.2"), Agent.frame(`behind-${i}`)]))
          assert.deepInclude((yield* behind.receive())[0], { status: "success", address: "127.0.9.2" })
          behind.socket.destroy()
          const secure = new Agent.AgentClient(
            NodeTls.connect({ ...tls, servername: "prism.test", ca: Fs.readFileSync(ca.certificate) })
          )
          secure.socket.write(Agent.frame(`secure-${i}`))
          assert.deepInclude((yield* secure.receive())[0], { status: "success" })
          secure.socket.destroy()
        }
        // That they were served says something only if the others were there.
        assert.isAbove(yield* open, 0.8 * all.length)

        for (const connection of all) connection.stop()
        const welcomed = all.filter((_, i) => i % kinds.length === 3)
        const others = all.filter((_, i) => i % kinds.length !== 3)
        yield* waitUntil(
          "those that were never welcomed are closed",
          Effect.sync(() => others.filter(({ closed }) => !closed).length),
          (left) => left === 0,
          { within: "40 seconds" }
        )
        yield* waitUntil("the server holds no more", open, (count) => count <= welcomed.length)
      }).pipe(Effect.scoped)
  )
})
