/**
 * Two groups of servers, each with a registry and a PowerDNS of its own, and
 * one name tree over both.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "@prism-dns/core/protocol/Wire"
import { Effect } from "effect"
import { freePorts } from "../../core/test/harness/ports.ts"
import * as PowerDns from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as AgentClient from "../../server/test/harness/AgentClient.ts"
import * as Deployment from "../../server/test/harness/Deployment.ts"
import * as Agent from "../src/Agent.ts"

const east = "east.hosts.prism.test"

const groups = Effect.gen(function* () {
  const [westPort, eastPort] = yield* freePorts(2)
  const list = [
    { name: "west", zones: ["hosts.prism.test"], servers: [`127.0.0.1:${westPort}`] },
    { name: "east", zones: [east], servers: [`127.0.0.1:${eastPort}`] }
  ]
  const group = (zone: string, port: number) =>
    Deployment.start({ tcp: { host: "127.0.0.1", port }, zones: [{ name: zone }], cluster: { groups: list } })
  return { west: yield* group("hosts.prism.test", westPort!), east: yield* group(east, eastPort!) }
})

const register = (server: { readonly host: string; readonly port: number }, hostname: string, zone?: string) =>
  Effect.gen(function* () {
    const agent = yield* Agent.make({
      server: `${server.host}:${server.port}`,
      hostname,
      ...(zone === undefined ? {} : { zone })
    })
    const { host } = yield* agent.waitFor("served")
    return host
  })

describe("two groups of servers", () => {
  it.live(
    "an agent finds the servers of its zone whichever it asks, and the name above leads to it",
    () =>
      Effect.gen(function* () {
        const { east: there, west: here } = yield* groups
        assert.strictEqual(yield* register(here.tcp(), "web-1"), "web-1.hosts.prism.test.")
        assert.strictEqual(yield* register(here.tcp(), "web-2", east), `web-2.${east}.`)
        assert.strictEqual(yield* register(here.tcp(), "web-3.east", "hosts.prism.test"), `web-3.${east}.`)
        assert.strictEqual(yield* register(here.tcp(), `web-4.${east}`), `web-4.${east}.`)
        // Which name is meant by one without a zone is for the servers to say that are asked.
        const relative = yield* Effect.flip(register(here.tcp(), "web-5.east"))
        assert.deepStrictEqual([relative.code, relative.message.includes(east)], ["misdirected", true])
        assert.strictEqual(yield* register(there.tcp(), "web-4", "hosts.prism.test"), "web-4.hosts.prism.test.")
        assert.deepStrictEqual(yield* there.dig(`web-2.${east}`, "A"), ["127.0.0.1"])
        assert.deepStrictEqual(yield* here.dig("web-4.hosts.prism.test", "A"), ["127.0.0.1"])

        // Whoever cannot follow is told where to go.
        const old = yield* AgentClient.connect(here.tcp())
        old.socket.write(AgentClient.frame(`web-5.${east}`))
        const [refusal] = yield* old.receive()
        assert.strictEqual(refusal!.status, "error")
        assert.include(refusal!.message, `connect to 127.0.0.1:${there.tcp().port}`)
        const api = yield* Effect.promise(async () => {
          const response = await fetch(`${here.prism.ready().http.url}/v1/hosts`, {
            method: "POST",
            headers: { authorization: `Bearer ${Deployment.adminToken}`, "content-type": "application/json" },
            body: JSON.stringify({ hostname: "web-5", zone: east, addresses: ["127.0.0.9"] })
          })
          return { status: response.status, text: await response.text() }
        })
        assert.strictEqual(api.status, 400, api.text)
        // A hello without a name is welcomed; its registration is refused, and the session goes on.
        const session = yield* AgentClient.connect(here.tcp())
        for (const message of [
          { type: "hello", id: 1, version: "2.0", auth: { method: "anonymous" } },
          { type: "register", id: 2, hostname: "web-6", zone: east },
          { type: "heartbeat", id: 3 }
        ]) {
          session.socket.write(Wire.encode(JSON.stringify(message)))
        }
        const answers = yield* session.receive(3)
        assert.deepStrictEqual(
          answers.map((answer) => (answer as { readonly code?: string; readonly type?: string }).code ?? answer),
          [answers[0], "misdirected", { type: "beat", id: 3 }] as never
        )

        // The zone above delegates the one below: a resolver that asks above is led to the servers below.
        const delegated = yield* Effect.promise(async () => {
          const response = await fetch(
            `${here.prism.ready().http.url}/v1/zones/hosts.prism.test./records/${east}./NS`,
            {
              method: "PUT",
              headers: { authorization: `Bearer ${Deployment.adminToken}`, "content-type": "application/json" },
              body: JSON.stringify({ contents: ["ns1.east.example.net."] })
            }
          )
          return `${response.status} ${await response.text()}`
        })
        assert.match(delegated, /^20[01] /)
        yield* waitUntil(
          "the answer above is a referral",
          PowerDns.resolve(here.powerdns.dns, `web-2.${east}`, "A"),
          ({ referral }) => referral.includes("ns1.east.example.net")
        )
      }),
    { timeout: 60_000 }
  )
})
