/** The packaged server on PostgreSQL, as it runs in production. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { audit } from "../../core/test/harness/audit.ts"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const pointer = (address: string) => `${address.split(".").toReversed().join(".")}.in-addr.arpa`
const addressOf = (i: number, generation: number) => `127.${40 + generation}.${i >> 7}.${1 + (i & 127)}`
const hosts = Array.from({ length: 500 }, (_, i) => i)

/** Starts a server on a database of its own. */
const start = Effect.fnUntraced(function* (settings: Readonly<Record<string, unknown>> = {}) {
  const postgres = yield* Postgres
  const database = yield* postgres.createDatabase()
  const deployment = yield* Deployment.start({
    storage: { url: database.url },
    leases: { flushInterval: "200ms", sweepInterval: "200ms" },
    ...settings
  })
  return { postgres, database, deployment }
})

/** Registers host `i` at its address of `generation` until it is a success, as deployed clients do beat by beat. */
const registerUntilTaken = (deployment: Running, i: number, generation: number) =>
  waitUntil(
    `host ${i} is registered`,
    Agent.register(deployment.tcp(), `pg-${i}`, { from: addressOf(i, generation) }),
    (answer) => answer.status === "success",
    { within: "20 seconds" }
  )

const registerAll = (deployment: Running, generation: number) =>
  Effect.forEach(hosts, (i) => registerUntilTaken(deployment, i, generation), { concurrency: 50, discard: true })

/** Each of the hosts resolves at its address of `generation`, forward and reverse. */
const checkServed = Effect.fnUntraced(function* (deployment: Running, generation: number) {
  yield* waitUntil(
    "nothing is pending",
    deployment.publications,
    ({ zones }) => zones.every(({ parked, pending }) => pending + parked === 0),
    { within: "20 seconds" }
  )
  yield* Effect.forEach(
    hosts,
    Effect.fnUntraced(function* (i) {
      const address = addressOf(i, generation)
      assert.deepStrictEqual(yield* deployment.dig(`pg-${i}.${Deployment.zone}`, "A"), [address])
      assert.deepStrictEqual(yield* deployment.dig(pointer(address), "PTR"), [`pg-${i}.${Deployment.zone}`])
    }),
    { concurrency: 50, discard: true }
  )
})

layer(Postgres.layer({ fsync: true }), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  it.effect("500 hosts register and resolve, follow to other addresses, and are known after a restart", () =>
    Effect.gen(function* () {
      const { database, deployment, postgres } = yield* start()
      yield* registerAll(deployment, 0)
      yield* checkServed(deployment, 0)
      yield* registerAll(deployment, 1)
      yield* checkServed(deployment, 1)
      assert.deepStrictEqual(yield* deployment.dig(pointer(addressOf(7, 0)), "PTR"), [])
      assert.strictEqual((yield* deployment.prism.kill("SIGTERM")).code, 0)
      yield* deployment.prism.restart
      const answer = yield* Agent.register(deployment.tcp(), "pg-7", { from: addressOf(7, 1) })
      assert.deepInclude(answer, { status: "success", message: "lease renewed" })
      yield* waitUntil(
        "it is written when the host was last seen",
        postgres.query(database.database, "SELECT fqdn FROM host ORDER BY last_seen DESC LIMIT 1"),
        (fqdn) => fqdn.trim() === `pg-7.${Deployment.zone}.`
      )
      const rows = yield* postgres.query(
        database.database,
        `SELECT (SELECT COUNT(*) FROM host), (SELECT COUNT(*) FROM host_history),
          (SELECT COUNT(*) FROM ${audit} WHERE action LIKE 'host.%')`
      )
      assert.strictEqual(rows.trim(), "500|1000|1000")
    }).pipe(Effect.scoped)
  )

  for (const how of ["fast", "crash"] as const) {
    it.effect(
      `a ${how} stop of the database among registrations loses none that was answered, and needs no restart`,
      () =>
        Effect.gen(function* () {
          const { deployment, postgres } = yield* start()
          let answered = 0
          const registering = Effect.forEach(
            hosts,
            (i) => Effect.tap(registerUntilTaken(deployment, i, 0), () => Effect.sync(() => (answered += 1))),
            { concurrency: 50, discard: true }
          )
          const outage = Effect.gen(function* () {
            yield* waitUntil(
              "some are registered",
              Effect.sync(() => answered),
              (n) => n >= 100
            )
            yield* postgres.stop(how)
            const told = yield* Agent.register(deployment.tcp(), "pg-away", { from: "127.39.0.1" })
            assert.deepInclude(told, { status: "error", code: "unavailable" })
            const ready = yield* Effect.promise(() => fetch(`${deployment.prism.ready().http.url}/readyz`))
            assert.strictEqual(ready.status, 503)
            yield* postgres.start
          })
          yield* Effect.all([registering, outage], { concurrency: "unbounded" })
          yield* checkServed(deployment, 0)
        }).pipe(Effect.scoped)
    )
  }

  it.effect("a database that stands still keeps neither hosts nor the end of the server waiting for ever", () =>
    Effect.gen(function* () {
      const { deployment, postgres } = yield* start({ server: { drainDelay: "0s", shutdownTimeout: "1s" } })
      const host = { from: "127.38.0.1" }
      assert.strictEqual((yield* Agent.register(deployment.tcp(), "before", host)).level, "applied")
      yield* Effect.gen(function* () {
        yield* postgres.freeze
        const { url } = deployment.prism.ready().http
        const status = (path: string) =>
          Effect.promise(async () => {
            const headers = { authorization: `Bearer ${Deployment.adminToken}` }
            return (await fetch(`${url}${path}`, { headers, signal: AbortSignal.timeout(15_000) })).status
          })
        const register = Effect.gen(function* () {
          const client = yield* Agent.connect(deployment.tcp(), host)
          client.socket.write(Agent.frame("during"))
          // The server's limit is as long as the client's patience.
          return (yield* Effect.retry(client.receive(), { times: 1 }))[0]
        })
        const [answer, beat, hosts, ready, alive] = yield* Effect.all(
          [
            register,
            Agent.register(deployment.tcp(), "before", host),
            status("/v1/hosts"),
            status("/readyz"),
            status("/livez")
          ],
          { concurrency: "unbounded" }
        )
        assert.deepInclude(answer, { status: "error", code: "unavailable" })
        assert.deepInclude(beat, { status: "success", message: "lease renewed" })
        assert.deepStrictEqual([hosts, ready, alive], [503, 503, 200])
        const ended = yield* Effect.timeout(deployment.prism.kill("SIGTERM"), "15 seconds")
        assert.strictEqual(ended.code, 1)
        assert.include(deployment.prism.output().stderr, "the server did not end within 6 s")
      }).pipe(Effect.scoped)
      yield* deployment.prism.restart
      yield* deployment.untilDig(`before.${Deployment.zone}`, "A", [host.from])
    }).pipe(Effect.scoped)
  )
})
