/** The bad days of tools that write DNS: whatever is lost, no record is deleted for it, and an alarm says why. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import { waitUntil } from "../../core/test/harness/waitUntil.ts"
import * as Agent from "./harness/AgentClient.ts"
import * as Deployment from "./harness/Deployment.ts"

type Running = Effect.Success<ReturnType<typeof Deployment.start>>

const zones = [
  { name: Deployment.zone, reconcileInterval: "1s" },
  { name: "127.in-addr.arpa", reconcileInterval: "1s" }
]
const hosts = Array.from({ length: 40 }, (_, i) => i)
const addressOf = (i: number) => `127.60.0.${i + 1}`
const nameOf = (i: number) => `d-${i}.${Deployment.zone}`
const pointer = (address: string) => `${address.split(".").toReversed().join(".")}.in-addr.arpa`
const leasesThatPass = { beatInterval: "1s", grace: "500ms", sweepInterval: "200ms", flushInterval: "200ms" }

const registerAll = (deployment: Running) =>
  Effect.forEach(
    hosts,
    (i) =>
      Effect.map(Agent.register(deployment.tcp(), `d-${i}`, { from: addressOf(i) }), ({ status }) =>
        assert.strictEqual(status, "success")
      ),
    { concurrency: 20, discard: true }
  )

const untilPublished = (deployment: Running) =>
  waitUntil(
    "nothing is pending",
    deployment.publications,
    (seen) => seen.zones.every(({ parked, pending }) => pending + parked === 0),
    { within: "20 seconds" }
  )

/** Every name is answered, forward and reverse. */
const checkServed = (deployment: Running) =>
  Effect.forEach(
    hosts,
    Effect.fnUntraced(function* (i) {
      assert.deepStrictEqual(yield* deployment.dig(nameOf(i), "A"), [addressOf(i)], nameOf(i))
      assert.deepStrictEqual(yield* deployment.dig(pointer(addressOf(i)), "PTR"), [`d-${i}.${Deployment.zone}`])
    }),
    { concurrency: 20, discard: true }
  )

/** Each zone was compared as a whole since the server started. */
const untilReconciled = (deployment: Running) =>
  Effect.forEach(
    zones,
    ({ name }) =>
      waitUntil(
        `${name} was looked at as a whole`,
        deployment.metric(`prism_reconcile_last_success_timestamp_seconds{zone="${name}."}`),
        (seen) => seen !== undefined && seen > 0,
        { within: "20 seconds" }
      ),
    { discard: true }
  )

interface PlanList {
  readonly items: ReadonlyArray<{
    readonly kind: string
    readonly state: string
    readonly counts: { readonly deletedNames: number }
  }>
}

const plansOf = (deployment: Running, zone: string) =>
  Effect.map(deployment.get(`/v1/zones/${zone}/plans`), (body) => (body as PlanList).items)

const withDatabase = (file: string, statements: string) =>
  Effect.sync(() => {
    using db = new DatabaseSync(file)
    db.exec(statements)
  })

/** Settings with a registry in a file the test knows. */
const start = Effect.fnUntraced(function* (settings: Readonly<Record<string, unknown>> = {}) {
  const deployment = yield* Deployment.start({ zones, ...settings })
  const file = `${deployment.prism.folder}/prism.db`
  assert.isTrue(Fs.existsSync(file))
  return { deployment, file }
})

describe("not one record is deleted", () => {
  it.live(
    "when the registry's hosts are gone: the deletions stand in an open plan that says why",
    () =>
      Effect.gen(function* () {
        const { deployment, file } = yield* start()
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* deployment.prism.kill("SIGKILL")
        yield* withDatabase(file, "DELETE FROM host_address; DELETE FROM host; DELETE FROM outbox;")
        yield* deployment.prism.restart
        yield* untilReconciled(deployment)
        const plan = yield* waitUntil(
          "the deletions wait in a plan",
          plansOf(deployment, Deployment.zone),
          (plans) => plans.some(({ state }) => state === "open"),
          { within: "10 seconds" }
        )
        const open = plan.find(({ state }) => state === "open")!
        assert.strictEqual(open.counts.deletedNames, hosts.length)
        const zone = (yield* deployment.get(`/v1/zones/${Deployment.zone}`)) as {
          readonly reconciliation: { readonly last: { readonly guards: ReadonlyArray<string> } }
        }
        const { guards } = zone.reconciliation.last
        assert.isTrue(
          guards.some((sentence) => /registry/.test(sentence)),
          guards.join("; ")
        )
        assert.strictEqual(
          yield* deployment.metric(`prism_reconcile_drift{zone="${Deployment.zone}.",kind="unexpected"}`),
          hosts.length
        )
        assert.match(deployment.prism.output().stderr, /registry/)
        yield* checkServed(deployment)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "when the registry's file is lost: the records are nobody's then, and hosts that come again have them back",
    () =>
      Effect.gen(function* () {
        const { deployment, file } = yield* start()
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* deployment.prism.kill("SIGKILL")
        for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(`${file}${suffix}`, { force: true })
        yield* deployment.prism.restart
        yield* untilReconciled(deployment)
        assert.strictEqual(
          yield* deployment.metric(`prism_reconcile_drift{zone="${Deployment.zone}.",kind="foreign"}`),
          hosts.length
        )
        yield* checkServed(deployment)
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* checkServed(deployment)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "when PowerDNS has lost the zone's records: an alarm, and they are written again",
    () =>
      Effect.gen(function* () {
        const { deployment } = yield* start()
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* deployment.powerdns.stop
        yield* withDatabase(
          `${deployment.powerdns.directory}/pdns.sqlite3`,
          "DELETE FROM records WHERE type IN ('A', 'AAAA', 'PTR');"
        )
        yield* deployment.powerdns.start
        assert.deepStrictEqual(yield* deployment.dig(nameOf(0), "A"), [])
        yield* waitUntil(
          "the last name is there again",
          Effect.forEach(hosts, (i) => deployment.dig(nameOf(i), "A"), { concurrency: 20 }),
          (answers) => answers.every((data) => data.length === 1),
          { within: "30 seconds", every: "100 millis" }
        )
        yield* untilPublished(deployment)
        yield* waitUntil(
          "the pointers are there again",
          Effect.forEach(hosts, (i) => deployment.dig(pointer(addressOf(i)), "PTR"), { concurrency: 20 }),
          (answers) => answers.every((data) => data.length === 1),
          { within: "30 seconds", every: "100 millis" }
        )
        yield* checkServed(deployment)
        assert.match(deployment.prism.output().stderr, /fewer|lost|shrunk|empty/)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "after a restart with all leases old: the hosts stay until a person says otherwise",
    () =>
      Effect.gen(function* () {
        const { deployment, file } = yield* start({
          leases: leasesThatPass,
          zones: zones.map((zone) => ({ ...zone, whenOffline: "withdraw", withdrawAfter: "0s" }))
        })
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* deployment.prism.kill("SIGKILL")
        yield* withDatabase(file, "UPDATE host SET last_seen = 1000;")
        yield* deployment.prism.restart
        const guards = yield* waitUntil(
          "the guard has tripped",
          deployment.get("/v1/guards"),
          (body) => (body as { readonly items: ReadonlyArray<{ readonly kind: string }> }).items.length > 0,
          { within: "20 seconds" }
        )
        const [guard] = (
          guards as { readonly items: ReadonlyArray<{ readonly kind: string; readonly detail: string }> }
        ).items
        assert.strictEqual(guard?.kind, "mass-expiry")
        assert.match(guard?.detail ?? "", /40/)
        yield* untilReconciled(deployment)
        yield* checkServed(deployment)
      }).pipe(Effect.scoped),
    60_000
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("not one record is deleted", (it) => {
  it.effect(
    "while the registry's database is away for longer than a lease, nor after it is back",
    () =>
      Effect.gen(function* () {
        const postgres = yield* Postgres
        const { url } = yield* postgres.createDatabase()
        const deployment = yield* Deployment.start({
          zones: zones.map((zone) => ({ ...zone, whenOffline: "withdraw", withdrawAfter: "0s" })),
          leases: leasesThatPass,
          storage: { url }
        })
        yield* registerAll(deployment)
        yield* untilPublished(deployment)
        yield* postgres.stop("fast")
        // Longer than the leases, and than several rounds of the reconciler.
        const since = Date.now()
        yield* waitUntil(
          "the database was away for two leases",
          checkServed(deployment),
          () => Date.now() - since > 6000,
          {
            within: "20 seconds",
            every: "200 millis"
          }
        )
        yield* postgres.start
        yield* waitUntil(
          "the guard has tripped",
          deployment.get("/v1/guards"),
          (body) => (body as { readonly items: ReadonlyArray<unknown> }).items.length > 0,
          { within: "30 seconds" }
        )
        yield* checkServed(deployment)
      }).pipe(Effect.scoped),
    60_000
  )
})
