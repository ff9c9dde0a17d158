/** Sessions of protocol 2.0 on real parts: levels as they are reached, both versions beside each other, a server that goes and comes back. */
import { assert, describe, it } from "@effect/vitest"
import type { ServerMessage } from "@prism-dns/core/protocol/MessageV2"
import * as Proof from "@prism-dns/core/protocol/Proof"
import { Effect, Fiber } from "effect"
import type * as Crypto from "node:crypto"
import * as Agent from "./harness/AgentClient.ts"
import * as AgentV2 from "./harness/AgentV2.ts"
import * as Deployment from "./harness/Deployment.ts"

const { zone } = Deployment

const settings = {
  auth: {
    mode: "required",
    adminTokens: [{ name: "test", token: Deployment.adminToken }],
    agentTokens: [{ name: "fleet", token: "token-of-the-fleet" }]
  },
  server: { drainDelay: "300ms" }
}

type Started = Effect.Success<ReturnType<typeof Deployment.start>>

const open = Effect.fnUntraced(function* (
  { tcp }: Started,
  key: Crypto.KeyObject,
  method: "key" | "enrol",
  from = "127.0.0.1"
) {
  const agent = yield* AgentV2.connect(tcp(), { from })
  const publicKey = Proof.exportPublicKey(key)
  const challenge = yield* agent.hello(
    method === "key" ? { method, publicKey } : { method, publicKey, token: "token-of-the-fleet" }
  )
  if (challenge.type !== "challenge") return assert.fail(JSON.stringify(challenge))
  agent.prove(challenge, key, method)
  yield* agent.expect("welcome")
  return agent
})

const levelsOf = (messages: ReadonlyArray<ServerMessage>) =>
  messages.map((message) => (message.type === "ack" ? message.level : JSON.stringify(message)))

describe("a session", () => {
  it.live(
    "is told of each level as PowerDNS reaches it; its name resolves when it is served, and is gone when it is released",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start(settings)
        const agent = yield* open(deployment, AgentV2.makeKey(), "enrol", "127.0.0.7")
        const acks = yield* agent.register("web-1", { ack: "served" })
        assert.deepStrictEqual(levelsOf(acks), ["accepted", "applied", "served"])
        const served = acks[2]!
        assert.deepStrictEqual(served.type === "ack" && served.nodes?.map(({ node }) => node), ["pdns"])
        assert.deepStrictEqual(yield* deployment.dig(`web-1.${zone}`, "A"), ["127.0.0.7"])
        assert.deepStrictEqual(yield* deployment.dig("7.0.0.127.in-addr.arpa", "PTR"), [`web-1.${zone}`])
        const again = yield* agent.register("web-1", { ack: "served" })
        assert.deepStrictEqual(levelsOf(again), ["accepted", "applied", "served"])
        agent.send({ type: "release", id: 50, host: `web-1.${zone}.`, ack: "served" })
        assert.deepStrictEqual(levelsOf(yield* agent.untilFinal), ["accepted", "applied", "served"])
        assert.deepStrictEqual(yield* deployment.dig(`web-1.${zone}`, "A"), [])
        assert.strictEqual(yield* deployment.metric('prism_registration_duration_seconds_count{level="served"}'), 2)
        assert.strictEqual(yield* deployment.metric('prism_sessions{kind="key"}'), 1)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "and clients of version 1 are served beside each other",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start(settings)
        const { tcp } = deployment
        const agent = yield* open(deployment, AgentV2.makeKey(), "enrol")
        const names = Array.from({ length: 20 }, (_, i) => i)
        yield* Effect.all(
          [
            Effect.forEach(names, (i) => agent.register(`new-${i}`)),
            Effect.forEach(names, (i) =>
              Effect.gen(function* () {
                const fields = { auth_token: "token-of-the-fleet" }
                const answer = yield* Agent.register(tcp(), `old-${i}`, { from: "127.0.0.2", fields })
                assert.strictEqual(answer.status, "success")
              })
            )
          ],
          { concurrency: "unbounded" }
        )
        yield* deployment.untilDig(`new-19.${zone}`, "A", ["127.0.0.1"], "10 seconds")
        yield* deployment.untilDig(`old-19.${zone}`, "A", ["127.0.0.2"], "10 seconds")
        // What is served meanwhile is told too; no lease is unknown.
        const told = new Set((yield* agent.beat).map(({ type }) => type))
        told.delete("ack")
        assert.deepStrictEqual([...told], ["beat"])
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "is told when the server drains, and finds its hosts as they were after a crash",
    () =>
      Effect.gen(function* () {
        const deployment = yield* Deployment.start(settings)
        const { prism } = deployment
        const key = AgentV2.makeKey()
        const agent = yield* open(deployment, key, "enrol")
        yield* agent.register("web-2", { ack: "served" })
        yield* prism.kill("SIGKILL")
        yield* agent.client.closed
        yield* prism.restart
        const again = yield* open(deployment, key, "key")
        const acks = yield* again.register("web-2", { ack: "served" })
        assert.deepStrictEqual(levelsOf(acks), ["accepted", "applied", "served"])
        assert.deepInclude(acks[0], { outcome: "renewed" })
        const ended = yield* Effect.forkChild(prism.kill("SIGTERM"))
        assert.deepInclude(yield* again.expect("drain"), { withinSeconds: 0.3 })
        assert.strictEqual((yield* again.beat).length, 1)
        yield* again.client.closed
        assert.deepStrictEqual(yield* Fiber.join(ended), { code: 0, signal: null })
      }).pipe(Effect.scoped),
    60_000
  )
})
