/** Two servers on one PostgreSQL and one PowerDNS: who writes each zone, and what becomes of it when one ends. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import * as PowerDns from "../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import { adminToken } from "./harness/Deployment.ts"
import * as PrismServer from "./harness/PrismServer.ts"

const zones = ["a.prism.test", "b.prism.test", "c.prism.test", "127.in-addr.arpa"]
const within = { within: "20 seconds" as const }

/** Starts a database, a PowerDNS, and servers called s0, s1 and so on. */
const start = Effect.fnUntraced(function* (count: number) {
  const postgres = yield* Postgres
  const database = yield* postgres.createDatabase()
  const powerdns = Context.get(yield* Layer.build(PowerDns.layerServer("sqlite")), PowerDns.TestPowerDns)
  const serve = (i: number) =>
    PrismServer.serve({
      server: { instance: `s${i}`, drainDelay: "0s" },
      storage: { url: database.url },
      powerdns: {
        nodes: [
          {
            name: "pdns",
            api: powerdns.apiUrl,
            apiKey: Redacted.value(powerdns.apiKey),
            dns: `${powerdns.dns.host}:${powerdns.dns.port}`
          }
        ]
      },
      auth: { mode: "off", adminTokens: [{ name: "test", token: adminToken }] },
      zones: zones.map((name) => ({ name, networks: ["127.0.0.0/8"] }))
    })
  const servers = yield* Effect.forEach(
    Array.from({ length: count }, (_, i) => i),
    serve,
    { concurrency: "unbounded" }
  )
  /** By zone the name of the server that writes it. */
  const writers = Effect.map(
    postgres.query(
      database.database,
      `SELECT l.name, COALESCE(i.name, '') FROM cluster_lease l LEFT JOIN instance i ON i.id = l.instance
       WHERE l.name LIKE 'zone/%' ORDER BY l.name`
    ),
    (text) =>
      new Map(
        text
          .trim()
          .split("\n")
          .filter(Boolean)
          .map((line) => line.split("|") as [string, string])
      )
  )
  const untilWriters = (what: string, holds: (counts: ReadonlyMap<string, number>) => boolean) =>
    waitUntil(
      what,
      Effect.map(
        writers,
        (all) => new Map([...Map.groupBy(all.values(), (name) => name)].map(([name, each]) => [name, each.length]))
      ),
      holds,
      within
    )
  const register = (i: number, host: string, zone: string, third: number) =>
    waitUntil(
      `${host} is registered`,
      Agent.register(servers[i]!.ready().tcp, `${host}.${zone}`, { from: `127.60.${third}.1` }),
      (answer) => answer.status === "success",
      within
    )
  const untilServed = (host: string, zone: string, third: number) =>
    waitUntil(
      `${host}.${zone} is at its address`,
      Effect.map(PowerDns.resolve(powerdns.dns, `${host}.${zone}`, "A"), ({ data }) => data.join()),
      (data) => data === `127.60.${third}.1`,
      within
    )
  return { postgres, database, servers, untilWriters, register, untilServed }
})

const forward = zones.slice(0, 3)

layer(Postgres.layer(), { timeout: "120 seconds", excludeTestServices: true })("two servers on one registry", (it) => {
  it.effect("each write half of the zones, and all of them once the other is killed, or has stopped in order", () =>
    Effect.gen(function* () {
      const { register, servers, untilServed, untilWriters } = yield* start(2)
      yield* untilWriters("each writes two zones", (counts) => counts.get("s0") === 2 && counts.get("s1") === 2)
      for (const [n, zone] of forward.entries()) {
        yield* register(n % 2, "web", zone, n)
        yield* untilServed("web", zone, n)
      }
      yield* servers[0]!.kill("SIGKILL")
      yield* untilWriters("the other writes all", (counts) => counts.get("s1") === zones.length)
      for (const [n, zone] of forward.entries()) {
        yield* register(1, "web", zone, n + 10)
        yield* untilServed("web", zone, n + 10)
      }
      yield* servers[0]!.restart
      yield* untilWriters("each writes two zones again", (counts) => counts.get("s0") === 2 && counts.get("s1") === 2)
      assert.strictEqual((yield* servers[1]!.kill("SIGTERM")).code, 0)
      yield* untilWriters("the first writes all", (counts) => counts.get("s0") === zones.length)
      for (const [n, zone] of forward.entries()) {
        yield* register(0, "web", zone, n + 20)
        yield* untilServed("web", zone, n + 20)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("one that stood still goes on as another instance, and its zones were the other's meanwhile", () =>
    Effect.gen(function* () {
      const { database, postgres, register, servers, untilServed, untilWriters } = yield* start(2)
      yield* untilWriters("each writes two zones", (counts) => counts.get("s0") === 2 && counts.get("s1") === 2)
      yield* Effect.acquireUseRelease(
        Effect.sync(() => process.kill(servers[0]!.pid(), "SIGSTOP")),
        () =>
          Effect.gen(function* () {
            yield* untilWriters("the other writes all", (counts) => counts.get("s1") === zones.length)
            for (const [n, zone] of forward.entries()) {
              yield* register(1, "web", zone, n)
              yield* untilServed("web", zone, n)
            }
          }),
        () => Effect.sync(() => process.kill(servers[0]!.pid(), "SIGCONT"))
      )
      yield* untilWriters("each writes two zones again", (counts) => counts.get("s0") === 2 && counts.get("s1") === 2)
      const states = yield* postgres.query(
        database.database,
        "SELECT name, state, count(*) FROM instance GROUP BY name, state ORDER BY name, state"
      )
      assert.deepStrictEqual(states.trim().split("\n"), ["s0|dead|1", "s0|live|1", "s1|live|1"])
      for (const [n, zone] of forward.entries()) {
        yield* register(0, "web", zone, n + 10)
        yield* untilServed("web", zone, n + 10)
      }
    }).pipe(Effect.scoped)
  )
})
