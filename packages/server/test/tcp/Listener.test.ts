import { assert, describe, it } from "@effect/vitest"
import type { Revocation } from "@prism-dns/core/auth/Revocations"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Duration, Effect, Logger, Metric } from "effect"
import { IpNetwork } from "effect/net"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as NodeTls from "node:tls"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import type { Connection, Hooks } from "../../src/tcp/Connection.ts"
import * as Listener from "../../src/tcp/Listener.ts"
import * as PeerAddress from "../../src/tcp/PeerAddress.ts"
import * as TcpMetrics from "../../src/tcp/TcpMetrics.ts"
import { type Authority, authority, type Pair } from "../harness/certificates.ts"
import * as Headers from "../harness/proxyHeaders.ts"

interface Refused {
  readonly code: string
  readonly message: string
  readonly peer: string | undefined
  readonly answer: boolean
}

/** What the hooks were told. Connections that are ready get back what they send. */
const observe = (options: { readonly connectionsMax?: number } = {}) => {
  const ready: Array<Connection> = []
  const refused: Array<Refused> = []
  let open = 0
  const hooks: Hooks = {
    opened: (socket) => {
      if (open >= (options.connectionsMax ?? 100)) {
        socket.destroy()
        return false
      }
      open += 1
      socket.on("close", () => (open -= 1))
      return true
    },
    refused: (socket, code, message, peer, answer) => {
      refused.push({ code, message, peer, answer })
      socket.on("error", () => undefined)
      if (answer) socket.end(`refused ${code}`)
      else socket.destroy()
    },
    ready: (connection) => {
      ready.push(connection)
      connection.socket.on("error", () => undefined)
      connection.socket.on("data", (chunk) => connection.socket.write(chunk))
      connection.socket.on("end", () => connection.socket.end())
    }
  }
  return { hooks, ready, refused, open: () => open }
}

type Observed = ReturnType<typeof observe>

const base = {
  host: "127.0.0.1",
  port: 0,
  proxyFrom: [] as ReadonlyArray<IpNetwork.IpNetwork>,
  openingTimeout: Duration.seconds(30)
}
const balancer = { proxyFrom: [IpNetwork.fromStringUnsafe("127.0.8.0/24")] }

const listenPlain = (seen: Observed, options: Partial<Listener.ListenOptions> = {}) =>
  Effect.gen(function* () {
    const peerOf = yield* PeerAddress.make
    return yield* Listener.listenPlain({ ...base, peerOf, ...options }, seen.hooks)
  })

const revocations = () => {
  const announced: Array<Revocation> = []
  return { announced, announce: (revocation: Revocation) => void announced.push(revocation) }
}

const tlsOf = (pair: Pair, more: Partial<Listener.TlsListenOptions["tls"]> = {}): Listener.TlsListenOptions["tls"] => ({
  ...pair,
  clientCa: undefined,
  clientCrl: undefined,
  clientCertificates: "off",
  clientName: "cn",
  reloadInterval: Duration.millis(50),
  announce: () => undefined,
  ...more
})

const listenTls = (
  seen: Observed,
  tls: Listener.TlsListenOptions["tls"],
  options: Partial<Listener.ListenOptions> = {}
) =>
  Effect.gen(function* () {
    const peerOf = yield* PeerAddress.make
    return yield* Listener.listenTls({ ...base, peerOf, tls, ...options }, seen.hooks)
  })

/** A connection's end as a test sees it. */
class End {
  readonly socket: Net.Socket
  text = ""
  error: string | undefined
  ended = false

  constructor(socket: Net.Socket) {
    this.socket = socket
    socket.on("data", (chunk) => (this.text += chunk.toString("latin1")))
    socket.on("error", (error: NodeJS.ErrnoException) => (this.error = error.code ?? error.message))
    socket.on("close", () => (this.ended = true))
  }

  says(text: string) {
    return waitUntil(
      `the other end says ${text}`,
      Effect.sync(() => this.text),
      (seen) => seen === text
    )
  }

  get closes() {
    return waitUntil(
      "the connection is closed",
      Effect.sync(() => this.ended),
      (ended) => ended
    )
  }
}

const open = (make: () => Net.Socket) =>
  Effect.acquireRelease(
    Effect.sync(() => new End(make())),
    (end) => Effect.sync(() => end.socket.destroy())
  )

const connect = (to: Listener.ListenAddress, from = "127.0.0.1") =>
  open(() => Net.connect({ ...to, localAddress: from }))

const connectTls = (to: Listener.ListenAddress, options: NodeTls.ConnectionOptions = {}) =>
  open(() => NodeTls.connect({ ...to, rejectUnauthorized: false, ...options }))

const filesOf = (pair: Pair) => ({ cert: Fs.readFileSync(pair.certificate), key: Fs.readFileSync(pair.key) })

const until = <A>(what: string, look: () => A, holds: (seen: A) => boolean) => waitUntil(what, Effect.sync(look), holds)

const writeByByte = (socket: Net.Socket, bytes: Uint8Array) =>
  Effect.promise(async () => {
    for (const byte of bytes) await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
  })

describe("the port without TLS", () => {
  it.live("hands a connection on with the address it came from", () =>
    Effect.gen(function* () {
      const seen = observe()
      const client = yield* connect(yield* listenPlain(seen), "127.0.7.1")
      client.socket.write("hello")
      yield* client.says("hello")
      assert.deepInclude(seen.ready[0], { peer: IpAddress.make("127.0.7.1"), transport: { _tag: "Plain" } })
    }).pipe(Effect.scoped)
  )

  it.live("from a load balancer it is that of the header, and what comes behind the header is kept", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenPlain(seen, balancer)
      const headers = [
        [Headers.line("192.0.2.7"), "192.0.2.7"],
        [Headers.line("2001:db8::7"), "2001:db8::7"],
        [Headers.binary({ checksum: "right" }), "192.0.2.7"],
        [Headers.binary({ versionAndCommand: 0x20 }), "127.0.8.1"],
        [Buffer.from("PROXY UNKNOWN\r\n"), undefined]
      ] as const
      for (const [header, peer] of headers) {
        const whole = yield* connect(to, "127.0.8.1")
        whole.socket.write(Buffer.concat([header, Buffer.from("hello")]))
        yield* whole.says("hello")
        assert.strictEqual<string | undefined>(seen.ready.at(-1)!.peer, peer)
        const dripping = yield* connect(to, "127.0.8.1")
        dripping.socket.setNoDelay(true)
        yield* writeByByte(dripping.socket, Buffer.concat([header, Buffer.from("hello")]))
        yield* dripping.says("hello")
        assert.strictEqual<string | undefined>(seen.ready.at(-1)!.peer, peer)
      }
      assert.deepStrictEqual(seen.refused, [])
    }).pipe(Effect.scoped)
  )

  it.live("a load balancer's connection without a right header is refused, with the balancer's address", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenPlain(seen, balancer)
      for (const [bytes, code] of [
        [Buffer.from([0, 0, 0, 2, 0x7b, 0x7d]), "proxy-missing"],
        [Buffer.from("PROXY TCP4 x y 1 2\r\n"), "proxy-invalid"],
        [Headers.binary({ checksum: "wrong" }), "proxy-invalid"]
      ] as const) {
        const client = yield* connect(to, "127.0.8.2")
        client.socket.write(bytes)
        yield* client.says(`refused ${code}`)
        assert.deepInclude(seen.refused.at(-1), { code, peer: "127.0.8.2", answer: true })
      }
      const half = yield* connect(to, "127.0.8.2")
      half.socket.end("PROXY TCP4 192.0")
      yield* half.says("refused proxy-invalid")
      assert.deepStrictEqual(seen.ready, [])
    }).pipe(Effect.scoped)
  )

  it.live("a health check that connects and goes is nobody's failure", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenPlain(seen, balancer)
      for (let i = 0; i < 5; i++) {
        const check = yield* connect(to, "127.0.8.3")
        check.socket.end()
        yield* check.closes
      }
      yield* until("nothing is open", seen.open, (count) => count === 0)
      assert.deepStrictEqual([seen.ready, seen.refused], [[], []])
    }).pipe(Effect.scoped)
  )

  it.live("a header that drips in takes no longer than a header may", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenPlain(seen, { ...balancer, openingTimeout: Duration.millis(300) })
      const client = yield* connect(to, "127.0.8.4")
      yield* Effect.forkScoped(
        Effect.forEach("PROXY UNKNOWN ".split(""), (byte) =>
          Effect.sync(() => client.socket.write(byte)).pipe(Effect.delay("50 millis"))
        )
      )
      yield* client.says("refused timeout")
      assert.deepStrictEqual(seen.ready, [])
    }).pipe(Effect.scoped)
  )

  it.live("limits hold from the accept on, and what is not handed on yet ends with the scope", () =>
    Effect.gen(function* () {
      const seen = observe({ connectionsMax: 2 })
      const waiting = yield* Effect.gen(function* () {
        const to = yield* listenPlain(seen, balancer)
        const waiting = [yield* open(() => Net.connect({ ...to, localAddress: "127.0.8.5" }))]
        waiting[0]!.socket.write("PROXY ")
        waiting.push(yield* open(() => Net.connect({ ...to, localAddress: "127.0.8.5" })))
        yield* until("both are open", seen.open, (count) => count === 2)
        const third = yield* open(() => Net.connect({ ...to, localAddress: "127.0.8.5" }))
        yield* third.closes
        return waiting
      }).pipe(Effect.scoped)
      for (const client of waiting) yield* client.closes
      yield* until("nothing is open", seen.open, (count) => count === 0)
    }).pipe(Effect.scoped)
  )
})

describe("the port with TLS", () => {
  it.live("speaks TLS 1.3 and nothing older, and both ends have the same exporter", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")))
      const client = yield* connectTls(to)
      client.socket.write("hello")
      yield* client.says("hello")
      const socket = client.socket as NodeTls.TLSSocket
      assert.strictEqual(socket.getProtocol(), "TLSv1.3")
      const { peer, transport } = seen.ready[0]!
      assert.strictEqual(peer, "127.0.0.1")
      assert.strictEqual(transport._tag, "Tls")
      assert.deepStrictEqual(
        transport._tag === "Tls" && Buffer.from(transport.exporter()),
        socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0))
      )
      // What waited while its connection went away is still worked on: it proves nothing, and breaks nothing.
      seen.ready[0]!.socket.destroy()
      assert.strictEqual(transport._tag === "Tls" && transport.exporter().length, 32)
      const old = yield* connectTls(to, { maxVersion: "TLSv1.2" })
      yield* old.closes
      assert.strictEqual(old.error, "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION")
      assert.strictEqual(seen.ready.length, 1)
    }).pipe(Effect.scoped)
  )

  it.live("lets a client go at once that ends its side, or vanishes, within its handshake", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")), {
        openingTimeout: Duration.minutes(5)
      })
      const ended = yield* connect(to)
      ended.socket.end(Buffer.from([0x16, 3, 1, 2, 0, 1, 0]))
      yield* ended.closes
      yield* until("nothing is open", seen.open, (count) => count === 0)
      for (let i = 0; i < 100; i++) {
        const raw = Net.connect(to)
        const secure = NodeTls.connect({ socket: raw, rejectUnauthorized: false })
        for (const socket of [raw, secure]) socket.on("error", () => undefined)
        raw.once("connect", () => setTimeout(() => raw.resetAndDestroy(), i % 5))
        yield* until(
          "it is gone",
          () => raw.closed,
          (closed) => closed
        )
      }
      yield* until("nothing is open", seen.open, (count) => count === 0)
    }).pipe(Effect.scoped)
  )

  it.live("ends a connection in order when the client has ended its side", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")))
      const client = yield* connectTls(to, { allowHalfOpen: true } as NodeTls.ConnectionOptions)
      client.socket.end("last words")
      yield* client.says("last words")
      yield* client.closes
      yield* until("nothing is open", seen.open, (count) => count === 0)
    }).pipe(Effect.scoped)
  )

  it.live("resumes no session", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")))
      const first = yield* connectTls(to)
      let session: Buffer | undefined
      first.socket.on("session", (found: Buffer) => (session = found))
      first.socket.write("hello")
      yield* first.says("hello")
      const second = yield* connectTls(to, session === undefined ? {} : { session })
      second.socket.write("hello")
      yield* second.says("hello")
      assert.isFalse((second.socket as NodeTls.TLSSocket).isSessionReused())
    }).pipe(Effect.scoped)
  )

  it.live("takes a PROXY header before the handshake, in one segment with it or byte by byte", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")), balancer)
      for (const header of [Headers.line("192.0.2.7"), Headers.binary()]) {
        const raw = yield* connect(to, "127.0.8.1")
        raw.socket.removeAllListeners("data")
        yield* writeByByte(raw.socket, header)
        const dripping = yield* open(() => NodeTls.connect({ socket: raw.socket, rejectUnauthorized: false }))
        dripping.socket.write("hello")
        yield* dripping.says("hello")
        assert.strictEqual(seen.ready.at(-1)!.peer, "192.0.2.7")

        const through = yield* connect(to, "127.0.8.1")
        through.socket.removeAllListeners("data")
        through.socket.cork()
        through.socket.write(header)
        const whole = yield* open(() => NodeTls.connect({ socket: through.socket, rejectUnauthorized: false }))
        through.socket.uncork()
        whole.socket.write("hello")
        yield* whole.says("hello")
        assert.strictEqual(seen.ready.at(-1)!.peer, "192.0.2.7")
      }
      assert.strictEqual(seen.ready.length, 4)
    }).pipe(Effect.scoped)
  )

  it.live("refuses a header from elsewhere as forged, one that is missing, and what is no TLS", () =>
    Effect.gen(function* () {
      const seen = observe()
      const to = yield* listenTls(seen, tlsOf((yield* authority()).issue("server")), balancer)
      for (const [from, bytes, code, answer] of [
        ["127.0.7.1", Headers.line("192.0.2.7"), "proxy-not-allowed", false],
        ["127.0.7.1", Headers.binary(), "proxy-not-allowed", false],
        ["127.0.7.1", Buffer.from("PROXY FORGED\r\n"), "proxy-not-allowed", false],
        ["127.0.8.1", Buffer.from([0x16, 3, 1, 0, 5]), "proxy-missing", false],
        ["127.0.7.1", Buffer.from([0, 0, 0, 2, 0x7b, 0x7d]), "not-tls", true]
      ] as const) {
        const client = yield* connect(to, from)
        client.socket.write(bytes)
        yield* client.closes
        assert.deepInclude(seen.refused.at(-1), { code, peer: from, answer })
      }
      for (const bytes of ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "\r\n\r\n"]) {
        const client = yield* connect(to, "127.0.7.1")
        client.socket.end(bytes)
        yield* client.closes
      }
      assert.strictEqual(seen.refused.length, 5)
      yield* until("nothing is open", seen.open, (count) => count === 0)
      assert.deepStrictEqual(seen.ready, [])
    }).pipe(Effect.scoped)
  )

  it.live("a handshake that drips, or never comes, takes no longer than it may", () =>
    Effect.gen(function* () {
      const seen = observe()
      const pair = (yield* authority()).issue("server")
      const to = yield* listenTls(seen, tlsOf(pair), { openingTimeout: Duration.millis(300) })
      const silent = yield* connect(to)
      const hello = yield* connect(to)
      hello.socket.write(Buffer.from([0x16, 3, 1, 2, 0, 1, 0]))
      yield* silent.closes
      yield* hello.closes
      yield* until("nothing is open", seen.open, (count) => count === 0)
      assert.deepStrictEqual([seen.ready, seen.refused], [[], []])
      const quick = yield* connectTls(to)
      quick.socket.write("hello")
      yield* quick.says("hello")
    }).pipe(Effect.scoped)
  )
})

/** A port that asks for certificates of `clients`. */
const listenForCertificates = (
  seen: Observed,
  clients: Authority,
  more: Partial<Listener.TlsListenOptions["tls"]> = {}
) =>
  listenTls(
    seen,
    tlsOf(clients.issue("server"), { clientCa: clients.certificate, clientCertificates: "required", ...more })
  )

const certificateOf = (connection: Connection | undefined) =>
  connection?.transport._tag === "Tls" ? connection.transport.certificate : undefined

describe("clients' certificates", () => {
  it.live("one that is good names its holder", () =>
    Effect.gen(function* () {
      const clients = yield* authority()
      const pair = clients.issue("web-1", {
        alternativeNames: "DNS:web-1.hosts.example.net,DNS:other,URI:spiffe://example.net/web-1"
      })
      for (const [clientName, name] of [
        ["cn", "web-1"],
        ["dns", "web-1.hosts.example.net"],
        ["uri", "spiffe://example.net/web-1"]
      ] as const) {
        const seen = observe()
        const client = yield* connectTls(yield* listenForCertificates(seen, clients, { clientName }), filesOf(pair))
        client.socket.write("hello")
        yield* client.says("hello")
        const certificate = certificateOf(seen.ready[0])
        assert.strictEqual(certificate?.name, name)
        assert.match(certificate?.fingerprint ?? "", /^[0-9a-f]{64}$/)
        assert.isAbove(certificate?.expiresAtMillis ?? 0, Date.now())
      }
    }).pipe(Effect.scoped)
  )

  it.live("without one, where it is required, the handshake fails; where it is optional the client has none", () =>
    Effect.gen(function* () {
      const clients = yield* authority()
      const strict = observe()
      const refused = yield* connectTls(yield* listenForCertificates(strict, clients))
      yield* refused.closes
      assert.strictEqual(refused.error, "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED")
      yield* until(
        "it is told",
        () => strict.refused.map(({ code }) => code).join(),
        (codes) => codes === "certificate-missing"
      )
      assert.deepInclude(strict.refused[0], { peer: "127.0.0.1", answer: false })
      const lax = observe()
      const taken = yield* connectTls(yield* listenForCertificates(lax, clients, { clientCertificates: "optional" }))
      taken.socket.write("hello")
      yield* taken.says("hello")
      assert.deepInclude(lax.ready[0]?.transport, { _tag: "Tls", certificate: undefined })
    }).pipe(Effect.scoped)
  )

  it.live("one of another authority, of another time, of another use, without a name or revoked is refused", () =>
    Effect.gen(function* () {
      const clients = yield* authority()
      const others = yield* authority("Other Authority")
      const revoked = clients.issue("revoked")
      clients.revoke(revoked)
      const clientCrl = clients.list()
      const cases = [
        [others.issue("foreign"), "certificate-invalid", "none of the authorities"],
        [clients.issue("old", { valid: ["20250101000000Z", "20250102000000Z"] }), "certificate-invalid", "expired"],
        [
          clients.issue("early", { valid: ["20450101000000Z", "20450102000000Z"] }),
          "certificate-invalid",
          "not valid yet"
        ],
        [clients.issue("use", { usage: "serverAuth" }), "certificate-invalid", "not for clients"],
        [clients.issue("nameless", { subject: "/O=Example" }), "certificate-invalid", "no common name"],
        [clients.issue("two", { subject: "/CN=one/CN=two" }), "certificate-invalid", "several common names"],
        [revoked, "certificate-revoked", "was revoked"]
      ] as const
      for (const mode of ["optional", "required"] as const) {
        const seen = observe()
        const to = yield* listenForCertificates(seen, clients, { clientCertificates: mode, clientCrl })
        for (const [pair, code, words] of cases) {
          const client = yield* connectTls(to, filesOf(pair))
          client.socket.write("hello")
          yield* client.closes
          const last = yield* until(
            `${code} is told`,
            () => seen.refused.splice(0),
            (told) => told.length > 0
          )
          assert.strictEqual(last[0]!.code, code, `${mode}: ${words}`)
          assert.include(last[0]!.message, words, mode)
          assert.notInclude(client.text, "hello")
        }
        assert.deepStrictEqual(seen.ready, [])
        const good = yield* connectTls(to, filesOf(clients.issue("good")))
        good.socket.write("hello")
        yield* good.says("hello")
      }
    }).pipe(Effect.scoped)
  )

  it.live("a live connection whose certificate is revoked or runs out is announced and ends; others go on", () =>
    Effect.gen(function* () {
      const clients = yield* authority()
      const { announce, announced } = revocations()
      const seen = observe()
      const clientCrl = clients.list()
      const to = yield* listenForCertificates(seen, clients, { clientCrl, announce })
      const pair = clients.issue("web-1")
      const inASecond = new Date(Date.now() + 3000).toISOString().replace(/[-:T]|\.\d+/g, "")
      const short = clients.issue("short", { valid: ["20260101000000Z", inASecond] })
      const ends: Record<string, End> = {}
      for (const [name, files] of Object.entries({ revoked: pair, short, good: clients.issue("web-2") })) {
        ends[name] = yield* connectTls(to, filesOf(files))
        ends[name].socket.write("hello")
        yield* ends[name].says("hello")
      }
      clients.revoke(pair)
      clients.list()
      yield* until(
        "the revoked one is announced",
        () => announced.length,
        (count) => count > 0
      )
      assert.deepInclude(announced[0], { principal: "cert:web-1", code: "certificate-revoked" })
      yield* ends["revoked"]!.closes
      yield* ends["short"]!.closes
      assert.deepInclude(announced[1], { principal: "cert:short", code: "certificate-invalid" })
      assert.isFalse(ends["good"]!.ended)
      const again = yield* connectTls(to, filesOf(pair))
      yield* again.closes
      yield* until(
        "it is told",
        () => seen.refused.at(-1)?.code,
        (code) => code === "certificate-revoked"
      )
    }).pipe(Effect.scoped)
  )
})

describe("the files of TLS", () => {
  /** Whose certificate the port shows now. */
  const shown = (to: Listener.ListenAddress) =>
    Effect.gen(function* () {
      const client = yield* connectTls(to)
      client.socket.write("hello")
      yield* client.says("hello")
      return (client.socket as NodeTls.TLSSocket).getPeerCertificate().subject.CN
    }).pipe(Effect.scoped)

  /** Lines of the log. */
  const logged = () => {
    const lines: Array<string> = []
    const layer = Logger.layer([
      Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${[message].flat().join(" ")}`))
    ])
    return { lines, layer }
  }

  const replace = (from: Pair, to: Pair) => {
    Fs.copyFileSync(from.certificate, to.certificate)
    Fs.copyFileSync(from.key, to.key)
  }

  it.live("are read anew when they change, and connections that are open go on", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const seen = observe()
      const pair = ca.issue("first")
      const to = yield* listenTls(seen, tlsOf(pair))
      const before = yield* connectTls(to)
      before.socket.write("hello")
      yield* before.says("hello")
      assert.strictEqual(yield* shown(to), "first")
      replace(ca.issue("second"), pair)
      yield* waitUntil("the new one is shown", shown(to), (name) => name === "second")
      before.socket.write(", again")
      yield* before.says("hello, again")
      const expiry = yield* Metric.value(TcpMetrics.tlsCertificateExpiry)
      assert.approximately(expiry.value, Date.now() / 1000 + 2 * 86_400, 600)
    }).pipe(Effect.scoped)
  )

  it.live("are read anew on SIGHUP", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const pair = ca.issue("first")
      const to = yield* listenTls(observe(), tlsOf(pair, { reloadInterval: Duration.hours(1) }))
      replace(ca.issue("second"), pair)
      process.kill(process.pid, "SIGHUP")
      yield* waitUntil("the new one is shown", shown(to), (name) => name === "second")
    }).pipe(Effect.scoped)
  )

  it.live("that cannot be used change nothing, and the log says what to do; nothing of a key is in it", () => {
    const { layer, lines } = logged()
    return Effect.gen(function* () {
      const ca = yield* authority()
      const pair = ca.issue("first")
      const to = yield* listenTls(observe(), tlsOf(pair))
      const key = Fs.readFileSync(pair.key, "utf8")
      for (const [file, text, words] of [
        [pair.key, Fs.readFileSync(ca.issue("other").key, "utf8"), "not the key of the certificate"],
        [pair.key, key.replace(/^[A-Za-z0-9+/]{20}/m, "AAAAAAAAAAAAAAAAAAAA"), "no key in PEM"],
        [pair.certificate, "", "holds no certificate"],
        [pair.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"]
      ] as const) {
        const before = Fs.readFileSync(file)
        lines.length = 0
        Fs.writeFileSync(file, text)
        yield* until(
          `the log says ${words}`,
          () => lines.join("\n"),
          (log) => log.includes("cannot be used")
        )
        assert.strictEqual(yield* shown(to), "first")
        Fs.writeFileSync(file, before)
        yield* until(
          "the log says it is well again",
          () => lines.join("\n"),
          (log) => log.includes("read again")
        )
        for (const line of key.split("\n")) {
          if (line.length > 20) assert.notInclude(lines.join("\n"), line)
        }
      }
    }).pipe(Effect.provide(layer), Effect.scoped)
  })

  it.live("that cannot be used from the start are an error that names the setting", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const pair = ca.issue("first")
      const fails = (tls: Partial<Listener.TlsListenOptions["tls"]>) =>
        Effect.map(
          Effect.flip(
            listenTls(observe(), tlsOf(pair, { clientCertificates: "required", clientCa: ca.certificate, ...tls }))
          ),
          (error) => error.message
        )
      assert.strictEqual(
        yield* fails({ certificate: "/nowhere.crt" }),
        "tls.certificate: its file cannot be read: there is no such file"
      )
      assert.include(yield* fails({ key: ca.issue("second").key }), "tls.key: it is not the key")
      assert.include(yield* fails({ clientCa: pair.key }), "tls.clientCa: the file holds no certificate")
      assert.include(yield* fails({ clientCrl: pair.key }), "tls.clientCrl: the file holds no revocation list")
    }).pipe(Effect.scoped)
  )

  it.live("are warned about when they run out soon", () => {
    const { layer, lines } = logged()
    return Effect.gen(function* () {
      const ca = yield* authority()
      yield* listenTls(observe(), tlsOf(ca.issue("first")))
      assert.include(lines.join("\n"), "runs out soon")
      lines.length = 0
      yield* listenTls(observe(), tlsOf(ca.issue("past", { valid: ["20250101000000Z", "20250102000000Z"] })))
      assert.include(lines.join("\n"), "has expired")
    }).pipe(Effect.provide(layer), Effect.scoped)
  })
})

describe("a port", () => {
  it.live("takes a crowd in far fewer turns of the event loop than it has members", (test) =>
    Effect.gen(function* () {
      if (process.platform !== "linux") return test.skip("only Linux shares out who connects among several sockets")
      const seen = observe({ connectionsMax: 1000 })
      const { port } = yield* listenPlain(seen)
      const crowd = 300
      // They stand in the kernel's queue before the first of them is taken.
      const clients = yield* Effect.acquireRelease(
        Effect.sync(() => Array.from({ length: crowd }, () => Net.connect({ host: "127.0.0.1", port }))),
        (clients) => Effect.sync(() => clients.forEach((client) => client.destroy()))
      )
      for (const client of clients) client.on("error", () => undefined)
      let turns = 0
      yield* Effect.callback<void>((resume) => {
        const turn = () => {
          turns += 1
          if (seen.ready.length === crowd) resume(Effect.void)
          else setImmediate(turn)
        }
        setImmediate(turn)
      })
      assert.isBelow(turns, crowd / 3)
    }).pipe(Effect.scoped)
  )

  it.live("that somebody else has is an error, also when that is one of us", () =>
    Effect.gen(function* () {
      const { port } = yield* listenPlain(observe())
      const error = yield* Effect.flip(listenPlain(observe(), { port }))
      assert.deepInclude(error, { _tag: "ListenFailed", code: "EADDRINUSE", port })
    }).pipe(Effect.scoped)
  )
})
