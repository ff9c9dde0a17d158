/** The configuration for HAProxy in deploy/, with the real HAProxy and two servers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as NodeTls from "node:tls"
import { freePorts } from "../../core/test/harness/ports.ts"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import { AgentV2 } from "./harness/AgentV2.ts"
import { authority } from "./harness/certificates.ts"
import * as PrismServer from "./harness/PrismServer.ts"

const configuration = Path.resolve(import.meta.dirname, "../deploy/haproxy/haproxy.cfg")

interface Endpoint {
  readonly host: string
  readonly port: number
}

/** One that is ready without a PowerDNS: what it accepts waits to be published. */
const startServer = Effect.fnUntraced(function* (
  instance: string,
  tls: { readonly certificate: string; readonly key: string }
) {
  const [tcp, secure, http, powerdns] = yield* freePorts(4)
  const server = yield* PrismServer.serve(
    {
      server: { instance, drainDelay: "60s" },
      tcp: { host: "127.0.0.1", port: tcp, proxyFrom: ["127.0.0.1"], protocol1: "on" },
      tls: { host: "127.0.0.1", port: secure, ...tls },
      http: { port: http },
      powerdns: { nodes: [{ api: `http://127.0.0.1:${powerdns}`, apiKey: "x", dns: "127.0.0.1:53" }] },
      zones: [{ name: "hosts.prism.test", networks: ["127.0.0.0/8"] }],
      leases: { ackTimeout: "0s" },
      auth: { mode: "optional" }
    },
    { awaitReady: false }
  )
  return { instance, server, tcp: tcp!, tls: secure!, http: http! }
})

/** The real thing with the configuration of deploy/, its addresses replaced; ready when its servers are. */
const startHaproxy = Effect.fnUntraced(function* (servers: ReadonlyArray<{ tcp: number; tls: number; http: number }>) {
  const folder = yield* temporaryFolder("prism-haproxy-")
  const [tcp, tls, metrics] = yield* freePorts(3)
  let text = Fs.readFileSync(configuration, "utf8")
    .replace("maxconn 50000", "maxconn 2000") // a test's limit of open files
    .replace("maxconn 25000", "maxconn 1000")
    .replace("/run/haproxy/admin.sock", Path.join(folder, "admin.sock"))
    .replace("192.0.2.10:8080", `127.0.0.1:${tcp}`)
    .replace("192.0.2.10:8443", `127.0.0.1:${tls}`)
    .replace("127.0.0.1:8404", `127.0.0.1:${metrics}`)
  for (const [i, server] of servers.entries()) {
    text = text
      .replace(`192.0.2.1${i + 1}:8080`, `127.0.0.1:${server.tcp} port ${server.http}`)
      .replace(`192.0.2.1${i + 1}:8443`, `127.0.0.1:${server.tls} port ${server.http}`)
  }
  assert.notInclude(text.replace(/^#.*$/gm, ""), "192.0.2.")
  const file = Path.join(folder, "haproxy.cfg")
  Fs.writeFileSync(file, text)
  const check = ChildProcess.spawnSync("haproxy", ["-c", "-f", file], { cwd: folder, encoding: "utf8" })
  assert.strictEqual(check.status, 0, check.stderr)
  const process = yield* Effect.acquireRelease(
    Effect.sync(() => ChildProcess.spawn("haproxy", ["-db", "-f", file], { cwd: folder, stdio: "ignore" })),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const status = Effect.tryPromise(async () => {
    if (process.exitCode !== null) throw new Error(`haproxy has ended with ${process.exitCode}`)
    return (await fetch(`http://127.0.0.1:${metrics}/metrics`)).text()
  })
  const areUp = (count: number) =>
    waitUntil(
      `HAProxy has ${count} servers up for each port`,
      status,
      (seen) => (seen.match(/^haproxy_server_status\{.*state="UP"\} 1$/gm) ?? []).length === 2 * count,
      { within: "20 seconds" }
    )
  yield* areUp(servers.length)
  return { tcp: { host: "127.0.0.1", port: tcp! }, tls: { host: "127.0.0.1", port: tls! }, areUp }
})

/** A session of protocol 2, which lasts; and which server has it. */
const openSession = Effect.fnUntraced(function* (to: Endpoint, from: string) {
  const agent = new AgentV2(yield* Agent.connect(to, { from }))
  const welcome = yield* agent.hello({ method: "anonymous" })
  if (welcome.type !== "welcome") return yield* Effect.die(new Error(JSON.stringify(welcome)))
  return { agent, welcome }
})

describe("HAProxy with the configuration of deploy/", () => {
  it.live(
    "hosts are registered at their own addresses; from a server that drains they go, and from one that stands still they are cut off",
    () =>
      Effect.gen(function* () {
        const ca = yield* authority()
        const pair = ca.issue("prism", { alternativeNames: "DNS:prism.test" })
        const servers = [yield* startServer("prism-1", pair), yield* startServer("prism-2", pair)]
        const haproxy = yield* startHaproxy(servers)

        // By protocol 1, by protocol 2, and by TLS that is passed through.
        const answer = yield* Agent.register(haproxy.tcp, "old", { from: "127.0.77.1" })
        assert.deepInclude(answer, { status: "success", address: "127.0.77.1" })
        const sessions = yield* Effect.forEach(Array.from({ length: 8 }), (_, i) =>
          openSession(haproxy.tcp, `127.0.77.${i + 10}`)
        )
        for (const [i, { agent, welcome }] of sessions.entries()) {
          assert.strictEqual(welcome.observedAddress, `127.0.77.${i + 10}`)
          const [ack] = yield* agent.register(`new-${i}`, { ack: "accepted" })
          assert.deepInclude(ack, { type: "ack", addresses: [`127.0.77.${i + 10}`] })
        }
        const secure = yield* Effect.acquireRelease(
          Effect.sync(
            () =>
              new Agent.AgentClient(
                NodeTls.connect({
                  ...haproxy.tls,
                  localAddress: "127.0.77.99",
                  servername: "prism.test",
                  ca: Fs.readFileSync(ca.certificate)
                } as NodeTls.ConnectionOptions)
              )
          ),
          (client) => Effect.sync(() => client.socket.destroy())
        )
        secure.socket.write(Agent.frame("secure"))
        assert.deepInclude((yield* secure.receive())[0], { status: "success", address: "127.0.77.99" })

        const of = (server: string) => sessions.filter(({ welcome }) => welcome.server.instance === server)
        const [first, second] = servers as [(typeof servers)[0], (typeof servers)[0]]
        assert.isAbove(of(first.instance).length, 0)
        assert.isAbove(of(second.instance).length, 0)

        // From SIGTERM on it is not ready, and serves its sessions for another minute: they are told to go, and not cut off.
        process.kill(first.server.pid(), "SIGTERM")
        for (const { agent } of of(first.instance)) yield* agent.expect("drain")
        yield* haproxy.areUp(1)
        for (const { agent } of sessions) assert.strictEqual((yield* agent.beat).at(-1)?.type, "beat")
        for (let i = 0; i < 4; i++) {
          const { welcome } = yield* openSession(haproxy.tcp, `127.0.77.${i + 10}`)
          assert.strictEqual(welcome.server.instance, second.instance)
        }

        // One that stands still says nothing: its sessions are closed, since they would find out much later.
        yield* Effect.acquireRelease(
          Effect.sync(() => process.kill(second.server.pid(), "SIGSTOP")),
          () => Effect.sync(() => process.kill(second.server.pid(), "SIGCONT"))
        )
        for (const { agent } of of(second.instance)) yield* agent.client.closed
        for (const { agent } of of(first.instance)) assert.strictEqual((yield* agent.beat).at(-1)?.type, "beat")
      }).pipe(Effect.scoped)
  )
})
