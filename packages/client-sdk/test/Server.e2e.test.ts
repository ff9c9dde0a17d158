/**
 * The engine against the server as it runs in production: with TLS and keys,
 * through a crash, a drain, a revocation, to the release. DNS is asked.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { freePorts } from "../../core/test/harness/ports.ts"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Certificates from "../../server/test/harness/certificates.ts"
import * as Deployment from "../../server/test/harness/Deployment.ts"
import * as Agent from "../src/Agent.ts"
import type { AgentEvent } from "../src/Options.ts"

const token = "agent-token-of-the-engine-0123456789"

class Running extends Context.Service<
  Running,
  {
    readonly deployment: Effect.Success<ReturnType<typeof Deployment.start>>
    readonly server: string
    readonly ca: string
  }
>()("@prism-dns/client-sdk/test/Running") {
  static readonly layer = Layer.effect(
    Running,
    Effect.gen(function* () {
      const authority = yield* Certificates.authority()
      const pair = authority.issue("server", { alternativeNames: "IP:127.0.0.1", usage: "serverAuth" })
      const [port] = yield* freePorts(1)
      const deployment = yield* Deployment.start({
        server: { drainDelay: "2s" },
        tls: { host: "127.0.0.1", port, certificate: pair.certificate, key: pair.key },
        leases: { beatInterval: "2s" },
        auth: {
          mode: "required",
          agentTokens: [{ name: "engine", token }],
          adminTokens: [{ name: "test", token: Deployment.adminToken }]
        }
      })
      return { deployment, server: `tls://127.0.0.1:${port}`, ca: Fs.readFileSync(authority.certificate, "utf8") }
    })
  )
}

const start = Effect.fnUntraced(function* (hostname: string, options: Partial<Agent.EngineOptions> = {}) {
  const { ca, server } = yield* Running
  const events: Array<AgentEvent> = []
  const agent = yield* Agent.make({
    server,
    hostname,
    tls: { ca },
    timing: { backoffBaseMillis: 100, backoffCapMillis: 500 },
    ...options
  })
  agent.subscribe((event) => events.push(event))
  const count = (type: AgentEvent["type"]) => events.filter((event) => event.type === type).length
  return { agent, count }
})

const enrolled = Effect.fnUntraced(function* (hostname: string) {
  const stateDir = Path.join(yield* temporaryFolder("prism-engine-"), "state")
  return { stateDir, ...(yield* start(hostname, { token, stateDir })) }
})

const until = (what: string, holds: () => boolean) =>
  waitUntil(what, Effect.sync(holds), (held) => held, { within: "20 seconds" })

layer(Running.layer, { timeout: "60 seconds", excludeTestServices: true })("an engine and a real server", (it) => {
  it.effect("over TLS a key is enrolled, and proves itself later without the token; the name is served", () =>
    Effect.gen(function* () {
      const { deployment } = yield* Running
      const { agent, stateDir } = yield* enrolled("tls-1")
      const { host } = yield* agent.waitFor("served")
      assert.deepStrictEqual(yield* deployment.dig(host, "A"), ["127.0.0.1"])
      yield* agent.close
      const again = yield* start("tls-1", { stateDir })
      yield* again.agent.waitFor("served")
      assert.strictEqual(again.agent.snapshot().identity, agent.snapshot().identity)
      assert.match(agent.snapshot().identity ?? "", /^i-/)
    }).pipe(Effect.scoped)
  )

  it.effect("a crash of the server costs a reconnect: the record stays, and no level is told again", () =>
    Effect.gen(function* () {
      const { deployment } = yield* Running
      const { agent, count } = yield* enrolled("crash-1")
      const { host } = yield* agent.waitFor("served")
      yield* deployment.prism.kill("SIGKILL")
      yield* until("it has noticed", () => agent.snapshot().state !== "online")
      assert.deepStrictEqual(yield* deployment.dig(host, "A"), ["127.0.0.1"])
      yield* deployment.prism.restart
      yield* until("it is back", () => count("connected") === 2 && agent.snapshot().state === "online")
      assert.deepStrictEqual(yield* deployment.dig(host, "A"), ["127.0.0.1"])
      assert.deepStrictEqual([count("accepted"), count("applied"), count("served")], [1, 1, 1])
    }).pipe(Effect.scoped)
  )

  it.effect("a server that drains is left in peace, and found again after its restart", () =>
    Effect.gen(function* () {
      const { deployment } = yield* Running
      const states: Array<string> = []
      const { agent, count } = yield* enrolled("drain-1")
      yield* agent.waitFor("served")
      agent.subscribe((event) => event.type === "state" && states.push(event.data.state))
      yield* deployment.prism.kill("SIGTERM")
      assert.include(states, "draining")
      yield* deployment.prism.restart
      yield* until("it is back", () => count("connected") >= 2 && agent.snapshot().state === "online")
    }).pipe(Effect.scoped)
  )

  it.effect("an update is served, and a release takes the records away", () =>
    Effect.gen(function* () {
      const { deployment } = yield* Running
      const { agent } = yield* enrolled("update-1")
      const { host } = yield* agent.waitFor("served")
      yield* agent.update({ addresses: ["127.0.0.1"], labels: { rack: "7" } }, "served")
      const shown = (yield* deployment.get(`/v1/hosts/${host}`)) as { readonly labels: unknown }
      assert.deepStrictEqual(shown.labels, { rack: "7" })
      yield* agent.release
      yield* deployment.untilDig(host, "A", [])
      assert.strictEqual(agent.snapshot().state, "released")
    }).pipe(Effect.scoped)
  )

  it.effect("a key is replaced on a live session, and the new one is the same identity", () =>
    Effect.gen(function* () {
      const { agent, stateDir } = yield* enrolled("rotate-1")
      yield* agent.waitFor("accepted")
      yield* agent.rotateKey
      yield* agent.close
      const again = yield* start("rotate-1", { stateDir })
      yield* again.agent.waitFor("accepted")
      assert.strictEqual(again.agent.snapshot().identity, agent.snapshot().identity)
    }).pipe(Effect.scoped)
  )

  it.effect("a token that is not known ends it with its code", () =>
    Effect.gen(function* () {
      const { agent } = yield* start("token-1", { token: "nobody's" })
      assert.strictEqual((yield* Effect.flip(agent.ended)).code, "token-invalid")
    }).pipe(Effect.scoped)
  )
})
