import { layer } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Signals } from "@prism-dns/core/cluster/Signals"
import * as Zone from "@prism-dns/core/domain/Zone"
import type { IpAddress } from "@prism-dns/core/domain/IpAddress"
import * as Expiry from "@prism-dns/core/registry/Expiry"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import { expect } from "vitest"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import * as Dice from "../simulation/Dice.ts"
import * as Servers from "./servers.ts"

const leaseMillis = 60_000
const othersMillisMax = 30_000

/** One of several servers; `ended`: when another one did. */
const among = (ended: () => number = () => 0) =>
  Layer.effect(
    Cluster,
    Effect.map(Cluster, (alone) => Cluster.of({ ...alone, isAlone: () => false, endedMillis: ended }))
  ).pipe(Layer.provide(Cluster.layerAlone))

const serverOf = Effect.fnUntraced(function* (
  server: Effect.Success<typeof Servers.database>["server"],
  options: { readonly ears?: "hearing" | "deaf"; readonly ended?: () => number } = {}
) {
  const context = yield* server(T.registry(), options.ears)
  const thereSinceMillis = yield* Clock.currentTimeMillis
  /** Begins to look at leases. */
  const look = Expiry.make({ leaseMillis, othersMillisMax, sweepMillis: 60_000 }, thereSinceMillis).pipe(
    Effect.provide(Layer.merge(Layer.succeedContext(context), among(options.ended)))
  )
  const expiry = yield* look
  const [registry, leases] = [Context.get(context, Registry), Context.get(context, Leases)]
  return {
    ...expiry,
    look,
    leases,
    sql: Context.get(context, SqlClient.SqlClient),
    /** Says to the others that any host may have changed. */
    sendAll: () => Context.get(context, Signals).send("hosts"),
    register: (hostname: string, address: string) => registry.register(T.registration(hostname, address, "fleet")),
    registerAny: registry.register,
    /** The beat of a host, where it is answered from memory. */
    renew: (hostname: string, address: string) => {
      const { addresses, fqdn, registrant } = T.registration(hostname, address, "fleet")
      return Effect.map(Clock.currentTimeMillis, (now) => leases.renew(fqdn, addresses, registrant, now) !== undefined)
    },
    state: Effect.map(registry.findByName(T.nameOf("web")), (found) =>
      found._tag === "Some" ? found.value.state : ""
    ),
    retire: registry.retire
  }
})

const jump = (millis: number) => Effect.flatMap(T.Time, (time) => time.jump(millis))

layer(Postgres.layer(), { timeout: "90 seconds", excludeTestServices: true })("hosts of two servers", (it) => {
  const test = <E>(name: string, body: Effect.Effect<void, E, Postgres | T.Time>) =>
    it.effect(name, () => T.withTime("on", body))

  test(
    "a host that has moved to another server is expired neither while that has not written its beats nor by the old one's memory",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const [a, b] = [yield* serverOf(server), yield* serverOf(server)]
      yield* jump(leaseMillis + 1000) // the grace of the start
      yield* a.register("web", "192.0.2.1")
      expect((yield* b.register("web", "192.0.2.1")).outcome).toBe("renewed")
      yield* jump(leaseMillis - 1000)
      // As a session does: from memory, or else, where the old server's own word has come late, by the registry.
      if (!(yield* b.renew("web", "192.0.2.1"))) {
        expect((yield* b.register("web", "192.0.2.1")).outcome).toBe("renewed")
      }
      // What stands in the database is older than a lease now, and what it has seen is not written yet.
      yield* jump(3000)
      yield* a.sweep
      expect(yield* a.state).toBe("online")
      yield* b.flush
      yield* jump(leaseMillis)
      yield* a.sweep
      expect(yield* a.state).toBe("online")
      // It falls silent.
      yield* jump(othersMillisMax)
      yield* a.sweep
      expect(yield* a.state).toBe("offline")
    }).pipe(Effect.scoped)
  )

  test(
    "hosts of a server that has ended have a lease of time to turn up on another one",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      let ended = 0
      const a = yield* serverOf(server, { ended: () => ended })
      yield* jump(leaseMillis + 1000)
      yield* a.register("web", "192.0.2.1")
      const now = yield* Clock.currentTimeMillis
      yield* jump(leaseMillis + othersMillisMax + 1000)
      ended = now + leaseMillis
      a.leases.outdated([T.nameOf("web")])
      yield* a.sweep
      expect(yield* a.state).toBe("online")
      yield* jump(leaseMillis)
      yield* a.sweep
      expect(yield* a.state).toBe("offline")
    }).pipe(Effect.scoped)
  )

  for (const wasThere of [true, false]) {
    test(
      `whoever begins to look at leases ${wasThere ? "goes on where another server left off" : "gives a lease, where it was not there itself meanwhile"}`,
      Effect.gen(function* () {
        const { server } = yield* Servers.database
        const a = yield* serverOf(server)
        const before = yield* serverOf(server)
        yield* jump(leaseMillis + 1000) // the grace of the start
        yield* a.register("web", "192.0.2.1")
        a.leases.outdated([T.nameOf("web")])
        yield* jump(leaseMillis + othersMillisMax - 10_000)
        yield* a.sweep
        const after = yield* serverOf(server)
        yield* jump(20_000)
        yield* (yield* (wasThere ? before : after).look).sweep
        expect(yield* a.state).toBe(wasThere ? "offline" : "online")
      }).pipe(Effect.scoped)
    )
  }

  test(
    "a host that another server has changed is not renewed as it was: at once where that is heard",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const [a, b] = [yield* serverOf(server), yield* serverOf(server)]
      yield* a.register("web", "192.0.2.1")
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
      yield* b.register("web", "192.0.2.2")
      yield* waitUntil("it is not renewed", a.renew("web", "192.0.2.1"), (renewed) => !renewed)
      // That the old one's own word came late may have cost it its place in memory, and nothing else.
      expect((yield* b.register("web", "192.0.2.2")).outcome).toBe("renewed")
    }).pipe(Effect.scoped)
  )

  test(
    "and with the next flush of its beats where it is not",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const [a, b] = [yield* serverOf(server, { ears: "deaf" }), yield* serverOf(server)]
      yield* a.register("web", "192.0.2.1")
      yield* b.register("web", "192.0.2.2")
      yield* jump(1000)
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
      yield* a.flush
      expect(yield* a.renew("web", "192.0.2.1")).toBe(false)
      // What the old server has seen has not moved what the new one has.
      yield* b.flush
      expect(yield* b.renew("web", "192.0.2.2")).toBe(true)
    }).pipe(Effect.scoped)
  )

  test(
    "a host is not renewed from memory where any may have changed: what it says it is is asked of the database",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const [a, b] = [yield* serverOf(server), yield* serverOf(server)]
      yield* a.register("web", "192.0.2.1")
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
      b.sendAll()
      yield* waitUntil("it is not renewed", a.renew("web", "192.0.2.1"), (renewed) => !renewed)
      expect((yield* a.register("web", "192.0.2.1")).outcome).toBe("renewed")
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
    }).pipe(Effect.scoped)
  )

  test(
    "a server whose beats do not reach the others for a lease renews nothing, and begins again once they do",
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { server } = yield* Servers.database
      const a = yield* serverOf(server)
      yield* a.register("web", "192.0.2.1")
      yield* a.flush
      yield* postgres.stop("fast")
      yield* jump(leaseMillis - 1000)
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
      expect((yield* Effect.result(a.flush))._tag).toBe("Failure")
      yield* jump(1001)
      expect(yield* a.renew("web", "192.0.2.1")).toBe(false)
      yield* postgres.start
      yield* waitUntil("it can be written again", a.flush, () => true)
      // Others may have taken it for silent: it is looked up.
      expect(yield* a.renew("web", "192.0.2.1")).toBe(false)
      yield* waitUntil("it is registered", a.register("web", "192.0.2.1"), ({ outcome }) => outcome === "renewed")
      expect(yield* a.renew("web", "192.0.2.1")).toBe(true)
    }).pipe(Effect.scoped)
  )

  test(
    "servers that end again and again keep hosts from expiring for a few leases, and not for ever",
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      let ended = 0
      const a = yield* serverOf(server, { ended: () => ended })
      yield* jump(leaseMillis + 1000)
      yield* a.register("web", "192.0.2.1")
      yield* a.sweep
      const endAndSweep = Effect.gen(function* () {
        yield* jump(leaseMillis / 2)
        ended = yield* Clock.currentTimeMillis
        yield* a.sweep
        return yield* a.state
      })
      const states = yield* Effect.forEach(Array.from({ length: 6 }), () => endAndSweep)
      expect(states).toEqual(["online", "online", "online", "online", "online", "offline"])
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layer(), { timeout: "90 seconds", excludeTestServices: true })(
  "two registries on one database",
  (it) => {
    for (const seed of [1, 2, 3]) {
      it.effect(`that change the same names at the same moment agree with the rows (seed ${seed})`, () =>
        Effect.gen(function* () {
          const { server } = yield* Servers.database
          const hostsMax = 12
          const limited = Zone.make(T.forward.name, { policy: { hostsMax } })
          const parts = T.registry({}, [limited, T.reverse4, T.reverse6])
          const servers = [yield* server(parts), yield* server(parts)].map((context) => Context.get(context, Registry))
          const dice = Dice.make(`${seed}`)
          const actor = { name: "ops", peer: undefined }
          const outcomes: Array<string> = []
          const one = (registry: Registry["Service"]) =>
            Effect.suspend((): Effect.Effect<unknown> => {
              const hostname = `h${dice.int(20)}`
              const word = dice.int(10)
              const done =
                word === 0
                  ? registry.retire(T.nameOf(hostname), actor, "test")
                  : word === 1
                    ? registry.release(T.nameOf(hostname), actor, "test")
                    : word === 2
                      ? registry.transfer(T.nameOf(hostname), "others", actor, "test")
                      : registry.register(T.registration(hostname, `192.0.2.${1 + dice.int(9)}`, "fleet"))
              return Effect.map(
                Effect.result(done as Effect.Effect<unknown, { readonly _tag: string; readonly message: string }>),
                (result) =>
                  outcomes.push(Result.isSuccess(result) ? "done" : `${result.failure._tag}: ${result.failure.message}`)
              )
            })
          const many = (registry: Registry["Service"]) =>
            Effect.forEach(
              Array.from({ length: 25 }, (_, i) => i),
              () => Effect.forEach(Array.from({ length: 8 }), () => one(registry), { concurrency: "unbounded" }),
              { discard: true }
            )
          yield* Effect.all(servers.map(many), { concurrency: "unbounded" })

          expect(outcomes).toHaveLength(400)
          expect(outcomes.filter((each) => each.startsWith("RegistryUnavailable"))).toEqual([])
          expect(outcomes.filter((each) => each === "done").length).toBeGreaterThan(100)
          const context = yield* server(Layer.empty)
          const sql = Context.get(context, SqlClient.SqlClient)
          const hosts = yield* sql<{
            readonly id: string
            readonly fqdn: string
            readonly addresses: string
            readonly owner: string
          }>`
          SELECT id, fqdn, owner, addresses FROM host ORDER BY fqdn`
          expect(new Set(hosts.map(({ fqdn }) => fqdn)).size).toBe(hosts.length)
          expect(hosts.length).toBeLessThanOrEqual(hostsMax)
          // Counts are those of the rows.
          const counted = yield* sql`SELECT kind, key, hosts::int AS hosts FROM host_count ORDER BY kind, key`
          const tally = yield* sql`
          SELECT 'owner' AS kind, owner AS key, COUNT(*)::int AS hosts FROM host GROUP BY owner
          UNION ALL SELECT 'zone', zone, COUNT(*)::int FROM host GROUP BY zone ORDER BY kind, key`
          expect(counted).toEqual(tally)
          // Each host has one version that stands, which is what it is; addresses are those of the rows; each change has its entry.
          const [wrong] = yield* sql<{
            readonly versions: number
            readonly addresses: number
            readonly entries: number
          }>`
          SELECT
            (SELECT COUNT(*)::int FROM host h WHERE 1 <> (
              SELECT COUNT(*) FROM host_history v WHERE v.host_id = h.id AND v.valid_to IS NULL
                AND v.generation = h.generation AND v.addresses = h.addresses AND v.owner = h.owner AND v.state = h.state)) AS versions,
            (SELECT COUNT(*)::int FROM host h WHERE (SELECT COUNT(*) FROM host_address a WHERE a.host_id = h.id)
              <> jsonb_array_length(h.addresses::jsonb)) AS addresses,
            (SELECT COUNT(*)::int FROM host_history) - (SELECT COUNT(*)::int FROM audit_entry WHERE action LIKE 'host.%') AS entries`
          expect(wrong).toEqual({ versions: 0, addresses: 0, entries: 0 })
          const unmarked = yield* sql`SELECT fqdn FROM host h WHERE NOT EXISTS (
          SELECT 1 FROM outbox o WHERE o.zone = h.zone AND o.name = h.fqdn)`
          expect(unmarked).toEqual([])
          // What either says of a host from memory is what stands there.
          for (const registry of servers) {
            for (const { addresses, fqdn } of hosts) {
              const [found] = (yield* registry.list({ limit: 100 })).filter((host) => host.fqdn === fqdn)
              expect(found?.addresses).toEqual(JSON.parse(addresses) as ReadonlyArray<IpAddress>)
            }
          }
        }).pipe(Effect.scoped)
      )
    }
  }
)
