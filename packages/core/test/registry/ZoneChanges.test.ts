import { assert, describe, it } from "@effect/vitest"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../harness/waitUntil.ts"
import { forward, nameOf, pointerOf, registration, registry, reverse4, sqlite } from "../layers.ts"

const withTtl = (ttlSeconds: number) => Zone.make(forward.name, { policy: { ...forward.policy, ttlSeconds } })

/** Waits until all names were marked for the settings of these zones. */
const settingsKnown = Effect.fnUntraced(function* (zones: ReadonlyArray<Zone.Zone>) {
  const sql = yield* SqlClient.SqlClient
  const known = sql<{ readonly zone: string; readonly fingerprint: string }>`
    SELECT zone, fingerprint FROM zone_fingerprint`
  yield* waitUntil("the zones' settings are known", known, (rows) =>
    zones.every(({ name, policy }) =>
      rows.some(({ fingerprint, zone }) => {
        const { ttlSeconds, ttlSecondsMin } = JSON.parse(fingerprint)
        return zone === name && ttlSeconds === policy.ttlSeconds && ttlSecondsMin === policy.ttlSecondsMin
      })
    )
  )
})

/** One run of the server with these zones, on the database around; what it marked is taken as published at its end. */
const start = <A, E, R>(zones: ReadonlyArray<Zone.Zone>, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox
    const result = yield* effect
    yield* settingsKnown(zones)
    for (const zone of zones) {
      const marks = yield* outbox.due(zone.name, 10_000)
      yield* outbox.settle(
        zone,
        marks.map((mark) => ({ name: mark.name, generation: mark.generation, rrsets: [] })),
        0
      )
    }
    return result
  }).pipe(Effect.provide(ZoneChanges.layer.pipe(Layer.provideMerge(registry({}, zones)))))

const register = (count: number) =>
  Effect.gen(function* () {
    const service = yield* Registry
    yield* Effect.forEach(
      Array.from({ length: count }, (_, i) => i),
      (i) => service.register(registration(`host-${i}`, `192.0.2.${(i % 250) + 1}`)),
      { concurrency: "unbounded", discard: true }
    )
  })

const marked = Effect.gen(function* () {
  const outbox = yield* Outbox
  return (yield* outbox.list({ limit: 10_000 })).map(({ name }) => name)
})

describe("ZoneChanges", () => {
  it.live("another TTL marks every host of the zone, once, over more than a page", () =>
    Effect.gen(function* () {
      const hosts = ZoneChanges.pageSize + 10
      yield* start([withTtl(60)], register(hosts))
      yield* start(
        [withTtl(5)],
        waitUntil("all are marked", marked, (names) => names.length === hosts)
      )
      // The same settings again: nobody is marked, however long one waits for the next change.
      yield* start(
        [withTtl(5), reverse4],
        waitUntil("the pointers are marked", marked, (names) => names.length > 0).pipe(
          Effect.map((names) => assert.isTrue(names.every((name) => name.endsWith(".in-addr.arpa."))))
        )
      )
    }).pipe(Effect.provide(sqlite()))
  )

  it.live("other bounds of the TTL do the same, and those of a registry from before there were any do not", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const within = (ttlSecondsMin: number) =>
        Zone.make(forward.name, { policy: { ...forward.policy, ttlSeconds: 60, ttlSecondsMin } })
      yield* start([within(30)], register(2))
      yield* start(
        [within(10)],
        waitUntil("all are marked", marked, (names) => names.length === 2)
      )
      yield* sql`UPDATE zone_fingerprint SET fingerprint = '{"ttlSeconds":60}'`
      yield* start([within(20)], Effect.void)
      yield* start(
        [within(20)],
        Effect.map(marked, (names) => assert.deepStrictEqual(names, []))
      )
    }).pipe(Effect.provide(sqlite()))
  )

  it.live("another TTL reaches names that only stand above others", () =>
    Effect.gen(function* () {
      const above = nameOf("b.c")
      yield* start(
        [withTtl(60)],
        Effect.gen(function* () {
          const outbox = yield* Outbox
          const rrset = RRset.make(nameOf("a.b.c"), "A", 60, ["192.0.2.1"])
          yield* outbox.settle(withTtl(60), [{ name: nameOf("a.b.c"), generation: 1, rrsets: [rrset] }], 0)
        })
      )
      yield* start(
        [withTtl(5)],
        waitUntil("it is marked", marked, (names) => names.length > 0).pipe(
          Effect.map((names) => assert.include(names, above))
        )
      )
    }).pipe(Effect.provide(sqlite()))
  )

  it.live("a deletion that waits for a person goes on waiting", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const kept = yield* start(
        [withTtl(60)],
        Effect.map(register(1), () => undefined)
      ).pipe(
        Effect.andThen(sql`
          INSERT INTO outbox (zone, name, generation, cause, urgency, marked_at, parked_at, parked_reason, plan)
          VALUES (${forward.name}, ${nameOf("host-0")}, 1, 'withdrawn', 1, 1, 1, 'too many', 'a-plan')`),
        Effect.andThen(
          Effect.gen(function* () {
            yield* settingsKnown([withTtl(5)])
            return yield* sql`SELECT cause, plan FROM outbox WHERE name = ${nameOf("host-0")}`
          }).pipe(Effect.provide(ZoneChanges.layer.pipe(Layer.provideMerge(registry({}, [withTtl(5)])))))
        )
      )
      assert.deepStrictEqual(
        kept.map((row) => ({ ...row })),
        [{ cause: "withdrawn", plan: "a-plan" }]
      )
    }).pipe(Effect.provide(sqlite()))
  )

  it.live("a reverse zone that comes later gets the pointers of hosts that were there before", () =>
    Effect.gen(function* () {
      yield* start([forward], register(1))
      yield* start(
        [forward, reverse4],
        waitUntil("the pointer is marked", marked, (names) => names.length === 1).pipe(
          Effect.map((names) => assert.deepStrictEqual(names, [pointerOf("192.0.2.1")]))
        )
      )
    }).pipe(Effect.provide(sqlite()))
  )
})
