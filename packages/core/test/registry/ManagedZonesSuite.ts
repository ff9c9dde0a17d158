/** What zones of the API do, on any database. */
import { assert, describe, type Vitest } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import type { HostName } from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Leases } from "@prism-dns/core/registry/Leases"
import { ManagedZones } from "@prism-dns/core/registry/ManagedZones"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import { Clock, Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../harness/waitUntil.ts"
import { forward, pointerOf, registration, reverse4 } from "../layers.ts"

/** One run of the server with these zones in its configuration, on the database around. */
export const life = (configured: ReadonlyArray<Zone.Zone>) =>
  ManagedZones.layer().pipe(
    Layer.provideMerge(ZoneChanges.layer),
    Layer.provideMerge(Registry.layer()),
    Layer.provideMerge(Layer.mergeAll(Acknowledgements.layer, Leases.layer, RecordSource.layer)),
    Layer.provideMerge(Outbox.layer),
    Layer.provideMerge(Ownership.layer),
    Layer.provideMerge(Zones.layerManaged(configured)),
    Layer.provideMerge(Cluster.layerAlone),
    Layer.provide(SecureRandom.layerWebCrypto),
    Layer.orDie
  )

export const lab = DomainName.make("lab.test")
export const alice = { actor: { name: "alice", peer: "198.51.100.7" } }
const bob = { actor: { name: "bob", peer: "198.51.100.8" } }

export const register = (label: string, address: string, zone = lab) =>
  Effect.flatMap(Registry, ({ register }) =>
    register({
      ...registration(label, address, "rack-7"),
      fqdn: DomainName.make(`${label}.${zone}`),
      hostname: label as HostName,
      zone
    })
  )

const marks = (zone: DomainName.DomainName) =>
  Effect.flatMap(Outbox, ({ due }) => Effect.map(due(zone, 1000), (found) => found.map(({ name }) => name).sort()))

/** Takes what is marked as published. */
const settle = Effect.fnUntraced(function* (zone: Zone.Zone) {
  const outbox = yield* Outbox
  const source = yield* RecordSource
  const due = yield* outbox.due(zone.name, 1000)
  const desired = yield* source.desired(
    zone,
    due.map(({ name }) => name)
  )
  yield* outbox.settle(
    zone,
    due.map(({ generation, name }) => ({ name, generation, rrsets: desired.get(name) ?? [] })),
    yield* Clock.currentTimeMillis
  )
})

const historyOf = (zone: DomainName.DomainName) =>
  Effect.flatMap(ManagedZones, ({ history }) =>
    Effect.map(history(zone, { before: undefined, limit: 100 }), (found) =>
      found.map(({ actor, event, settings }) => [event, actor, settings.policy.ttlSeconds])
    )
  )

const auditOf = (zone: DomainName.DomainName) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly action: string; readonly actor: string; readonly reason: string | null }>`
        SELECT action, actor, reason FROM audit_entry WHERE subject = ${zone} ORDER BY sequence`,
      (rows) => rows.map(({ action, actor, reason }) => [action, actor, reason])
    )
  )

export const hostsIn = (zone: DomainName.DomainName) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly hosts: number | bigint }>`SELECT COUNT(*) AS hosts FROM host WHERE zone = ${zone}`,
      ([row]) => Number(row!.hosts)
    )
  )

export const suite = <R>(
  name: string,
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) =>
  describe(name, () => {
    const test = (title: string, body: Effect.Effect<unknown, unknown, SqlClient.SqlClient>) =>
      it.effect(title, () => Effect.provide(body, Layer.fresh(database)), 60_000)

    const living = <A, E2>(
      body: Effect.Effect<A, E2, Layer.Success<ReturnType<typeof life>> | SqlClient.SqlClient>,
      configured: ReadonlyArray<Zone.Zone> = [forward]
    ) => Effect.provide(body, life(configured))

    test(
      "a zone that is made takes registrations at once, and after a restart; who made it, and why, is kept",
      Effect.gen(function* () {
        yield* living(
          Effect.gen(function* () {
            const zones = yield* Zones
            const managed = yield* ManagedZones
            const told: Array<string | undefined> = []
            yield* zones.changed(({ after }) => void told.push(after?.name))
            const made = yield* managed.create(lab, { policy: { ttlSeconds: 45 } }, { ...alice, reason: "a lab" })
            assert.deepStrictEqual([made.after.policy.ttlSeconds, made.after.origin], [45, "api"])
            assert.deepStrictEqual(told, [lab])
            assert.deepStrictEqual(
              zones.all.map(({ name }) => name),
              [forward.name, lab]
            )
            assert.strictEqual(zones.find(lab)?.generation, made.after.generation)
            yield* register("web-1", "192.0.2.1")
            assert.deepStrictEqual(yield* marks(lab), [`web-1.${lab}`])
            const again = yield* Effect.flip(managed.create(lab, {}, alice))
            assert.strictEqual(again._tag, "ZoneExists")
          }).pipe(Effect.scoped)
        )
        yield* living(
          Effect.gen(function* () {
            const zones = yield* Zones
            assert.strictEqual(zones.find(lab)?.policy.ttlSeconds, 45)
            yield* register("web-2", "192.0.2.2")
            assert.deepStrictEqual(yield* historyOf(lab), [["created", "alice", 45]])
            assert.deepStrictEqual(yield* auditOf(lab), [["zone.created", "alice", "a lab"]])
            assert.deepStrictEqual(yield* auditOf(forward.name), [["zone.created", "configuration", null]])
          })
        )
      })
    )

    test(
      "what the API sets lies over the configuration until null takes it back, and another configuration is another base",
      Effect.gen(function* () {
        yield* living(
          Effect.gen(function* () {
            const managed = yield* ManagedZones
            const zones = yield* Zones
            const { after } = yield* managed.change(
              forward.name,
              { policy: { ttlSeconds: 120, deleteBudget: { min: 3 } } },
              alice
            )
            assert.deepStrictEqual(after.overridden, ["/policy/ttlSeconds", "/policy/deleteBudget/min"])
            assert.deepStrictEqual([after.origin, after.policy.deleteBudget.share], ["configuration", 0.1])
            assert.strictEqual(zones.find(forward.name)?.policy.ttlSeconds, 120)
            yield* managed.change(forward.name, { policy: { deleteBudget: { min: null } } }, bob)
            assert.deepStrictEqual(zones.find(forward.name)?.overridden, ["/policy/ttlSeconds"])
          })
        )
        const changed = Zone.make(forward.name, { policy: { ttlSeconds: 90, hostsMax: 7 } })
        yield* living(
          Effect.gen(function* () {
            const managed = yield* ManagedZones
            const zones = yield* Zones
            const now = zones.find(forward.name)
            assert.deepStrictEqual([now?.policy.ttlSeconds, now?.policy.hostsMax], [120, 7])
            const { after } = yield* managed.change(forward.name, { policy: null }, bob)
            assert.deepStrictEqual([after.policy.ttlSeconds, after.overridden], [90, []])
            const sql = yield* SqlClient.SqlClient
            assert.deepStrictEqual(yield* sql`SELECT name FROM zone_setting`, [])
            assert.deepStrictEqual(yield* historyOf(forward.name), [
              ["changed", "bob", 90],
              ["changed", "configuration", 120],
              ["changed", "bob", 120],
              ["changed", "alice", 120],
              ["created", "configuration", 60]
            ])
          }),
          [changed]
        )
      })
    )

    test(
      "a zone is found as it was at any time, also one that has gone",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const tick = waitUntil("a millisecond has passed", Clock.currentTimeMillis, (now) => now > last)
          let last = 0
          const now = Effect.gen(function* () {
            last = yield* Clock.currentTimeMillis
            yield* tick
            return last
          })
          const before = yield* now
          yield* managed.create(lab, {}, alice)
          const first = yield* now
          yield* managed.change(lab, { policy: { ttlSeconds: 30 } }, bob)
          const second = yield* now
          yield* managed.remove(lab, alice)
          const after = yield* now
          const ttlAt = (millis: number) =>
            Effect.map(managed.findAt(lab, millis), (version) => version?.settings.policy.ttlSeconds)
          assert.deepStrictEqual(yield* Effect.forEach([before, first, second, after], ttlAt), [
            undefined,
            60,
            30,
            undefined
          ])
          const names = (millis: number) =>
            Effect.map(managed.listAt(millis, { after: undefined, limit: 10 }), (found) =>
              found.map(({ name }) => name)
            )
          assert.deepStrictEqual(yield* names(second), [forward.name, lab])
          assert.deepStrictEqual(yield* names(after), [forward.name])
          assert.deepStrictEqual(yield* auditOf(lab), [
            ["zone.created", "alice", null],
            ["zone.changed", "bob", null],
            ["zone.deleted", "alice", null]
          ])
        })
      )
    )

    test(
      "what cannot be is refused, and a dry run says so too and changes nothing",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const sql = yield* SqlClient.SqlClient
          const eu = DomainName.make(`eu.${forward.name}`)
          yield* register("web.eu", "192.0.2.1", forward.name)
          for (const dryRun of [true, false]) {
            const overlap = yield* Effect.flip(managed.create(eu, {}, { ...alice, dryRun }))
            assert.deepInclude(overlap, { _tag: "ZoneOverlaps", other: forward.name, hosts: 1, records: 0 })
            assert.include(overlap.message, `web.${eu}`)
            const nothing = yield* Effect.flip(
              managed.create(DomainName.make("300.in-addr.arpa"), {}, { ...alice, dryRun })
            )
            assert.strictEqual(nothing._tag, "ZoneInvalid")
            const bounds = yield* Effect.flip(
              managed.change(forward.name, { policy: { ttlSecondsMin: 7200 } }, { ...alice, dryRun })
            )
            assert.deepInclude(bounds, { _tag: "ZoneInvalid", pointer: "/policy/ttlSecondsMin" })
            const configured = yield* Effect.flip(managed.remove(forward.name, { ...alice, dryRun }))
            assert.strictEqual(configured._tag, "ZoneConfigured")
          }
          const tried = yield* managed.change(forward.name, { policy: { ttlSeconds: 30 } }, { ...alice, dryRun: true })
          assert.deepStrictEqual([tried.namesMarked, tried.after.policy.ttlSeconds], [1, 30])
          yield* managed.create(lab, {}, { ...alice, dryRun: true })
          assert.deepStrictEqual(yield* sql`SELECT name FROM zone_setting`, [])
          assert.deepStrictEqual((yield* Zones).find(lab), undefined)
          assert.deepStrictEqual(yield* auditOf(lab), [])
        })
      )
    )

    test(
      "a zone goes once nothing is in it and nobody is let into it; then no host comes in",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const registry = yield* Registry
          const sql = yield* SqlClient.SqlClient
          yield* managed.create(lab, {}, alice)
          const { host } = yield* register("web-1", "192.0.2.1")
          yield* sql`
            INSERT INTO access_role (name, description, permissions, generation, created_at, created_by, updated_at, updated_by)
            VALUES ('lab', '', ${JSON.stringify([{ verb: "*", resource: "hosts", zones: [lab] }])}, 1, 1, '', 1, '')`
          const inUse = yield* Effect.flip(managed.remove(lab, alice))
          assert.deepInclude(inUse, { _tag: "ZoneInUse", hosts: 1, records: 0, roles: 1 })
          assert.strictEqual(inUse.message, `${lab} is in use: 1 host, 1 role that names it`)
          yield* sql`DELETE FROM access_role`
          yield* settle((yield* Zones).find(lab)!)
          yield* registry.release(host.fqdn, alice.actor, "not needed")
          const stillThere = yield* Effect.flip(managed.remove(lab, alice))
          assert.deepInclude(stillThere, { _tag: "ZoneInUse", hosts: 0, publishedNames: 1 })
          yield* settle((yield* Zones).find(lab)!)
          yield* managed.remove(lab, alice)
          const refused = yield* Effect.flip(register("web-2", "192.0.2.2"))
          assert.strictEqual(refused._tag, "ZoneGone")
          assert.deepStrictEqual(yield* hostsIn(lab), 0)
        })
      )
    )

    test(
      "of changes at the same instant from the same version exactly one wins",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          yield* managed.create(lab, {}, alice)
          for (let round = 1; round <= 5; round++) {
            const seen = (yield* Zones).find(lab)!.generation
            const results = yield* Effect.forEach(
              Array.from({ length: 8 }, (_, i) => i),
              (i) =>
                managed
                  .change(
                    lab,
                    { policy: { ttlSeconds: 100 * round + i } },
                    {
                      ...alice,
                      check: ({ generation }) => (generation === seen ? Effect.void : Effect.fail("late" as const))
                    }
                  )
                  .pipe(
                    Effect.map(({ after }) => after.policy.ttlSeconds),
                    Effect.catch((error) => (error === "late" ? Effect.succeed(error) : Effect.die(error)))
                  ),
              { concurrency: "unbounded" }
            )
            const won = results.filter((result) => result !== "late")
            assert.strictEqual(won.length, 1)
            assert.strictEqual((yield* Zones).find(lab)?.policy.ttlSeconds, won[0])
          }
          assert.strictEqual((yield* historyOf(lab)).length, 6)
        })
      )
    )

    test(
      "registrations that meet the removal of their zone are in it, and it stays, or are refused, and it goes",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const zones = yield* Zones
          const registry = yield* Registry
          for (let round = 0; round < 20; round++) {
            yield* managed.create(lab, {}, alice)
            const registered = yield* Effect.forEach(
              Array.from({ length: 6 }, (_, i) => i),
              (i) =>
                Effect.gen(function* () {
                  yield* Effect.repeat(Effect.yieldNow, { times: i * (round % 4) })
                  if (i === 3) {
                    return yield* managed.remove(lab, alice).pipe(
                      Effect.as("removed"),
                      Effect.catchTag("ZoneInUse", () => Effect.succeed("stays"))
                    )
                  }
                  return yield* register(`web-${i}`, `192.0.2.${i + 1}`).pipe(
                    Effect.as("registered"),
                    Effect.catchTag("ZoneGone", () => Effect.succeed("gone"))
                  )
                }),
              { concurrency: "unbounded" }
            )
            const isGone = registered.includes("removed")
            const hosts = yield* hostsIn(lab)
            assert.strictEqual(hosts, registered.filter((each) => each === "registered").length)
            assert.strictEqual(zones.find(lab) === undefined, isGone)
            if (isGone) assert.strictEqual(hosts, 0)
            else {
              for (let i = 0; i < 6; i++) {
                yield* Effect.ignore(registry.release(DomainName.make(`web-${i}.${lab}`), alice.actor, "next round"))
              }
              yield* settle(zones.find(lab)!)
              yield* managed.remove(lab, alice)
            }
          }
        })
      )
    )

    test(
      "a reverse zone that comes gets the pointers of hosts that are there; one within another takes them over, and gives them back",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const zones = yield* Zones
          const wide = DomainName.make("192.in-addr.arpa")
          yield* register("web-1", "192.0.2.1", forward.name)
          yield* managed.create(wide, {}, alice)
          const pointer = pointerOf("192.0.2.1")
          yield* waitUntil("the pointer is marked", marks(wide), (names) => names.includes(pointer))
          yield* settle(zones.find(wide)!)
          const desired = (zone: DomainName.DomainName) =>
            Effect.flatMap(RecordSource, (source) =>
              Effect.map(source.desired(zones.find(zone)!, [pointer]), (found) => found.size)
            )
          assert.strictEqual(yield* desired(wide), 1)

          yield* managed.create(reverse4.name, {}, alice)
          yield* waitUntil("it is marked in the smaller one", marks(reverse4.name), (names) => names.includes(pointer))
          yield* waitUntil("and in the wider one", marks(wide), (names) => names.includes(pointer))
          assert.deepStrictEqual([yield* desired(wide), yield* desired(reverse4.name)], [0, 1])
          yield* settle(zones.find(wide)!)
          yield* settle(zones.find(reverse4.name)!)

          yield* managed.remove(reverse4.name, alice)
          yield* waitUntil("it is marked in the wider one again", marks(wide), (names) => names.includes(pointer))
          assert.strictEqual(yield* desired(wide), 1)
        })
      )
    )

    test(
      "another TTL marks the zone's names while the server runs",
      living(
        Effect.gen(function* () {
          const managed = yield* ManagedZones
          const zones = yield* Zones
          yield* register("web-1", "192.0.2.1", forward.name)
          yield* settle(zones.find(forward.name)!)
          const { namesMarked } = yield* managed.change(forward.name, { policy: { ttlSeconds: 300 } }, alice)
          assert.strictEqual(namesMarked, 1)
          yield* waitUntil("it is marked", marks(forward.name), (names) => names.length === 1)
        })
      )
    )
  })
