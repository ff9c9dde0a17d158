/** The ways in, with the whole server behind them: who is taken for whom, and what is written down of refusals. */
import { assert, describe, it } from "@effect/vitest"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { authFailures } from "@prism-dns/core/auth/AuthMetrics"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Duration, Effect, Metric, Option } from "effect"
import { IpNetwork } from "effect/net"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import * as NodeTls from "node:tls"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { TcpServer, type TcpServerOptions } from "../../src/tcp/TcpServer.ts"
import * as Agent from "../harness/AgentClient.ts"
import { AgentV2, makeKey } from "../harness/AgentV2.ts"
import { type Authority, authority, type Pair } from "../harness/certificates.ts"
import * as Headers from "../harness/proxyHeaders.ts"
import { connect, server, zone } from "./layers.ts"

const proxyFrom = [IpNetwork.fromStringUnsafe("127.0.8.0/24")]

/** Refusals are written at once, and can be looked at. */
const audited = (options: Partial<TcpServerOptions> = {}) =>
  server({ proxyFrom, ...options }, "open", Refusals.layer({ flushMillis: 5 }))

const untilAudited = (code: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const find = sql<{ actor: string; peer: string; reason: string }>`
      SELECT actor, peer, reason FROM audit_entry WHERE action = 'access.refused' ORDER BY sequence`
    const entries = yield* waitUntil(`${code} is audited`, find, (rows) =>
      rows.some(({ reason }) => reason.startsWith(`${code}: `))
    )
    return entries.find(({ reason }) => reason.startsWith(`${code}: `))!
  })

const countOf = (code: string) =>
  Effect.map(Metric.value(Metric.withAttributes(authFailures, { reason: code })), ({ count }) => count)

/** Metrics of this test alone. */
const counting = Effect.provideServiceEffect(
  Metric.MetricRegistry,
  Effect.sync(() => new Map())
)

const hostsCount = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ count: number }>`SELECT count(*) AS count FROM host`, ([row]) => row!.count)
)

/** The options of a port that shows this authority's certificate and asks for its clients'. */
const tlsOf = (ca: Authority, more: Partial<NonNullable<TcpServerOptions["tls"]>> = {}) => ({
  tls: {
    host: "127.0.0.1",
    port: 0,
    ...ca.issue("server", { alternativeNames: "DNS:prism.test" }),
    clientCa: ca.certificate,
    clientCrl: undefined,
    clientCertificates: "optional" as const,
    clientName: "cn" as const,
    reloadInterval: Duration.millis(50),
    ...more
  }
})

const connectTls = (ca: Authority, pair?: Pair) =>
  Effect.gen(function* () {
    const { tls } = yield* TcpServer
    const client = yield* Effect.acquireRelease(
      Effect.callback<Agent.AgentClient, Error>((resume) => {
        const socket = NodeTls.connect({
          host: tls!.host,
          port: tls!.port,
          servername: "prism.test",
          ca: Fs.readFileSync(ca.certificate),
          ...(pair !== undefined && { cert: Fs.readFileSync(pair.certificate), key: Fs.readFileSync(pair.key) })
        })
        const client = new Agent.AgentClient(socket)
        socket.once("secureConnect", () => resume(Effect.succeed(client)))
        socket.once("error", (error) => resume(Effect.fail(error)))
      }),
      (client) => Effect.sync(() => client.socket.destroy())
    )
    return new AgentV2(client)
  })

describe("behind a load balancer", () => {
  it.live("a host is registered at the address that the header names", () =>
    Effect.gen(function* () {
      for (const [hostname, header] of [
        ["one", Headers.line("127.0.99.1")],
        ["two", Headers.binary({ addresses: Headers.addresses("127.0.99.2", "127.0.8.1") })]
      ] as const) {
        const client = yield* connect({ from: "127.0.8.1" })
        client.socket.write(Buffer.concat([header, Agent.frame(hostname)]))
        const [answer] = yield* client.receive()
        assert.deepInclude(answer, { status: "success", address: hostname === "one" ? "127.0.99.1" : "127.0.99.2" })
      }
    }).pipe(Effect.scoped, Effect.provide(audited()))
  )

  it.live("a client that the balancer cannot name registers nothing", () =>
    Effect.gen(function* () {
      const client = yield* connect({ from: "127.0.8.1" })
      client.socket.write(Buffer.concat([Buffer.from("PROXY UNKNOWN\r\n"), Agent.frame("nobody")]))
      assert.deepInclude((yield* client.receive())[0], { status: "error", code: "peer-unknown" })
      assert.strictEqual(yield* hostsCount, 0)
    }).pipe(Effect.scoped, Effect.provide(audited()))
  )

  it.live("a header from elsewhere is refused, audited with the true address and counted; nothing is registered", () =>
    Effect.gen(function* () {
      for (const [i, header] of [Headers.line("127.0.99.1"), Headers.binary()].entries()) {
        const client = yield* connect({ from: `127.0.7.${i + 1}` })
        client.socket.write(Buffer.concat([header, Agent.frame("stolen")]))
        assert.deepInclude((yield* client.receive())[0], { status: "error", code: "proxy-not-allowed" })
        yield* client.closed
      }
      assert.deepInclude(yield* untilAudited("proxy-not-allowed"), { actor: "unknown", peer: "127.0.7.1" })
      assert.strictEqual(yield* countOf("proxy-not-allowed"), 2)
      assert.strictEqual(yield* hostsCount, 0)
    }).pipe(Effect.scoped, Effect.provide(audited()), counting)
  )

  it.live("a connection without a header, or with a wrong one, is refused and audited", () =>
    Effect.gen(function* () {
      for (const [bytes, code] of [
        [Agent.frame("web-1"), "proxy-missing"],
        [Headers.binary({ checksum: "wrong" }), "proxy-invalid"]
      ] as const) {
        const client = yield* connect({ from: "127.0.8.2" })
        client.socket.write(bytes)
        assert.deepInclude((yield* client.receive())[0], { status: "error", code })
        yield* client.closed
        assert.deepInclude(yield* untilAudited(code), { actor: "unknown", peer: "127.0.8.2" })
        assert.strictEqual(yield* countOf(code), 1)
      }
      assert.strictEqual(yield* hostsCount, 0)
    }).pipe(Effect.scoped, Effect.provide(audited()), counting)
  )
})

describe("by TLS", () => {
  it.live("hosts register by both protocols, and a key is proven for this one connection", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      yield* Effect.gen(function* () {
        const { client } = yield* connectTls(ca)
        client.socket.write(Agent.frame("old"))
        assert.deepInclude((yield* client.receive())[0], { status: "success", host: "old.hosts.prism.test." })

        const key = makeKey()
        const enrol = yield* connectTls(ca)
        const channel = (agent: AgentV2) =>
          (agent.client.socket as NodeTls.TLSSocket).exportKeyingMaterial(
            32,
            "EXPORTER-Channel-Binding",
            Buffer.alloc(0)
          )
        const hello = { method: "key", publicKey: Proof.exportPublicKey(key) } as const
        const first = yield* enrol.hello({ method: "enrol", publicKey: hello.publicKey, token: "good" })
        if (first.type !== "challenge") return assert.fail(JSON.stringify(first))
        enrol.prove(first, key, "enrol", channel(enrol))
        assert.deepInclude(yield* enrol.expect("welcome"), { version: "2.0" })

        // The same proof with the binding of another connection does not hold.
        const other = yield* connectTls(ca)
        const second = yield* other.hello(hello)
        if (second.type !== "challenge") return assert.fail(JSON.stringify(second))
        other.prove(second, key, "key", channel(enrol))
        assert.deepInclude(yield* other.expect("error"), { code: "proof-invalid" })
        assert.deepInclude(yield* untilAudited("proof-invalid"), { peer: "127.0.0.1" })
      }).pipe(Effect.provide(audited(tlsOf(ca))))
    }).pipe(Effect.scoped)
  )

  it.live("a client's certificate claims its own name, and no other", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      yield* Effect.gen(function* () {
        const agent = yield* connectTls(ca, ca.issue("web-1"))
        assert.deepInclude(yield* agent.hello({ method: "certificate" }), {
          type: "welcome",
          identity: { name: "cert:web-1", kind: "certificate" }
        })
        assert.deepInclude((yield* agent.register("web-1"))[0], { type: "ack", host: "web-1.hosts.prism.test." })
        assert.deepInclude((yield* agent.register("web-2"))[0], { type: "error", code: "name-not-allowed" })
        assert.deepInclude(yield* untilAudited("name-not-allowed"), { actor: "cert:web-1" })
        const host = yield* (yield* Registry).findByName(DomainName.make(`web-1.${zone}`))
        assert.strictEqual(Option.getOrThrow(host).owner, "cert:web-1")
        assert.strictEqual(yield* hostsCount, 1)

        const without = yield* connectTls(ca)
        assert.deepInclude(yield* without.hello({ method: "certificate" }), {
          type: "error",
          code: "certificate-missing"
        })
      }).pipe(Effect.provide(audited(tlsOf(ca))))
    }).pipe(Effect.scoped)
  )

  it.live("a certificate that is revoked ends the session that it opened, and opens none", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const clientCrl = ca.list()
      yield* Effect.gen(function* () {
        const pair = ca.issue("web-1")
        const agent = yield* connectTls(ca, pair)
        yield* agent.hello({ method: "certificate" })
        yield* agent.register("web-1")
        ca.revoke(pair)
        ca.list()
        assert.deepInclude(yield* agent.expect("error"), { code: "certificate-revoked", closing: true })
        yield* agent.client.closed
        const again = yield* connectTls(ca, pair)
        assert.deepInclude((yield* again.client.receive())[0], { status: "error", code: "certificate-revoked" })
        yield* again.client.closed
        assert.deepInclude(yield* untilAudited("certificate-revoked"), { peer: "127.0.0.1" })
        assert.strictEqual(yield* hostsCount, 1)
      }).pipe(Effect.provide(audited(tlsOf(ca, { clientCrl }))))
    }).pipe(Effect.scoped)
  )

  it.live("one that was replaced in time is revoked without a word to the session of its successor", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      const clientCrl = ca.list()
      yield* Effect.gen(function* () {
        const open = Effect.fnUntraced(function* (pair: Pair) {
          const agent = yield* connectTls(ca, pair)
          assert.deepInclude(yield* agent.hello({ method: "certificate" }), { type: "welcome" })
          return agent
        })
        const former = ca.issue("former", { subject: "/CN=web-1" })
        const before = yield* open(former)
        const after = yield* open(ca.issue("renewed", { subject: "/CN=web-1" }))
        ca.revoke(former)
        ca.list()
        assert.deepInclude(yield* before.expect("error"), { code: "certificate-revoked", closing: true })
        yield* before.client.closed
        assert.strictEqual((yield* after.beat).length, 1)
      }).pipe(Effect.provide(audited(tlsOf(ca, { clientCrl }))))
    }).pipe(Effect.scoped)
  )

  it.live("limits hold on both ports together, from the accept on", () =>
    Effect.gen(function* () {
      const ca = yield* authority()
      yield* Effect.gen(function* () {
        const { connections, tls } = yield* TcpServer
        yield* connect()
        // Neither says anything: one waits for its first byte, the other for its handshake.
        yield* Agent.connect(tls!)
        yield* waitUntil(
          "both are counted",
          Effect.sync(() => connections()),
          (count) => count === 2
        )
        const third = yield* connect()
        assert.deepInclude((yield* third.receive())[0], { status: "error", code: "capacity" })
      }).pipe(Effect.provide(audited({ ...tlsOf(ca), connectionsMax: 2 })))
    }).pipe(Effect.scoped)
  )
})
