/** The packaged server before two PowerDNS with databases of their own and a secondary, by the timings of production. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as PowerDnsProcess from "../../core/src/powerdns/PowerDnsProcess.ts"
import { freePorts } from "../../core/test/harness/ports.ts"
import * as PowerDns from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import { adminToken } from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

const zone = "hosts.prism.test"
const fqdn = (host: string) => `${host}.${zone}`

type Server = PowerDns.TestPowerDns["Service"]

const toNode = (name: string, server: Server, more: object) => ({
  name,
  api: server.apiUrl,
  apiKey: Redacted.value(server.apiKey),
  dns: `${server.dns.host}:${server.dns.port}`,
  ...more
})

interface Status {
  readonly nodes: ReadonlyArray<{ readonly name: string; readonly writes: boolean; readonly unserved: number }>
  readonly problems: ReadonlyArray<unknown>
}

describe("primaries with databases of their own", () => {
  it.live(
    "the first is killed: hosts register, it is named, and the secondary follows the other; Prism is started anew; it comes back with all of it",
    () =>
      Effect.gen(function* () {
        const primary = { primary: "yes", "allow-axfr-ips": "127.0.0.0/8" }
        const ns1 = yield* PowerDns.startServer(PowerDnsProcess.lmdb, primary)
        const ns2 = yield* PowerDns.startServer(PowerDnsProcess.sqlite, primary)
        const ns3 = yield* PowerDns.startServer(PowerDnsProcess.sqlite, { secondary: "yes" })
        const [tcp = 0, port = 0] = yield* freePorts(2)
        const url = `http://127.0.0.1:${port}`
        const prism = yield* PrismServer.serve(
          {
            tcp: { host: "127.0.0.1", port: tcp },
            http: { port },
            powerdns: {
              nodes: [
                toNode("ns1", ns1, { database: "one" }),
                toNode("ns2", ns2, { database: "two" }),
                toNode("ns3", ns3, { role: "secondary" })
              ]
            },
            zones: [{ name: zone, networks: ["127.0.0.0/8"] }],
            auth: { mode: "off", adminTokens: [{ name: "test", token: adminToken }] }
          },
          // The file that says it waits for the first primary.
          { awaitReady: false }
        )
        const untilReady = waitUntil(
          "Prism takes registrations",
          Effect.tryPromise(async () => (await fetch(`${url}/readyz`)).status),
          (seen) => seen === 200,
          { within: "60 seconds", every: "100 millis" }
        )
        yield* untilReady
        const http = (method: string, path: string) =>
          Effect.promise(async () => {
            const response = await fetch(`${url}${path}`, {
              method,
              headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
              ...(method === "POST" ? { body: JSON.stringify({ reason: "it is not needed" }) } : {})
            })
            const text = await response.text()
            assert.isTrue(response.ok, text)
            return (text === "" ? undefined : JSON.parse(text)) as unknown
          })
        const status = Effect.map(http("GET", "/v1/status"), (body) => body as Status)
        const untilStatus = (what: string, holds: (seen: Status) => boolean) =>
          waitUntil(what, status, holds, { within: "90 seconds", every: "200 millis" })
        const writer = ({ nodes }: Status) => nodes.find(({ writes }) => writes)?.name
        const unserved = ({ nodes }: Status) => nodes.flatMap(({ name, unserved }) => (unserved > 0 ? [name] : []))
        const untilAnswers = (server: Server, host: string, answer: string) =>
          waitUntil(
            `${host} is ${answer}`,
            Effect.map(PowerDns.resolve(server.dns, fqdn(host), "A"), ({ data, rcode }) => data.join(" ") || rcode),
            (seen) => seen === answer,
            { within: "90 seconds", every: "100 millis" }
          )
        const register = (host: string, from: string) =>
          Effect.map(Agent.register({ host: "127.0.0.1", port: tcp }, host, { from }), (answer) =>
            assert.deepInclude(answer, { status: "success", address: from })
          )

        for (const [host, from] of [
          ["stays", "127.0.30.1"],
          ["goes", "127.0.30.2"],
          ["moves", "127.0.30.3"]
        ] as const) {
          yield* register(host, from)
          for (const server of [ns1, ns2, ns3]) yield* untilAnswers(server, host, from)
        }
        const before = yield* untilStatus("all is served", (seen) => unserved(seen).length === 0)
        assert.strictEqual(writer(before), "ns1")
        assert.deepStrictEqual(before.problems, [])

        yield* ns1.kill
        yield* register("comes", "127.0.30.4")
        yield* untilAnswers(ns2, "comes", "127.0.30.4")
        yield* register("moves", "127.0.30.5")
        yield* http("POST", `/v1/hosts/${fqdn("goes")}/release`)
        yield* untilAnswers(ns2, "moves", "127.0.30.5")
        yield* untilAnswers(ns2, "goes", "NXDOMAIN")
        // The secondary fetches from the one that leads.
        yield* untilAnswers(ns3, "moves", "127.0.30.5")
        yield* untilAnswers(ns3, "comes", "127.0.30.4")
        yield* untilAnswers(ns3, "goes", "NXDOMAIN")
        const during = yield* untilStatus("it is named", (seen) => unserved(seen).join() === "ns1")
        assert.strictEqual(writer(during), "ns2")

        assert.deepInclude(yield* prism.kill("SIGTERM"), { code: 0 })
        yield* prism.restart
        yield* untilReady
        yield* untilStatus("ns2 takes the writes again", (seen) => writer(seen) === "ns2")
        yield* register("late", "127.0.30.6")
        for (const server of [ns2, ns3]) yield* untilAnswers(server, "late", "127.0.30.6")

        yield* ns1.start
        for (const server of [ns1, ns3]) {
          for (const [host, answer] of [
            ["stays", "127.0.30.1"],
            ["goes", "NXDOMAIN"],
            ["moves", "127.0.30.5"],
            ["comes", "127.0.30.4"],
            ["late", "127.0.30.6"]
          ] as const) {
            yield* untilAnswers(server, host, answer)
          }
        }
        yield* untilStatus("all is served", (seen) => unserved(seen).length === 0)
        yield* untilStatus("ns1 takes the writes again", (seen) => writer(seen) === "ns1")
        yield* register("later", "127.0.30.7")
        for (const server of [ns1, ns2, ns3]) yield* untilAnswers(server, "later", "127.0.30.7")
        yield* untilStatus("all is served", (seen) => unserved(seen).length === 0)
        assert.deepStrictEqual((yield* status).problems, [])
      }),
    240_000
  )
})
