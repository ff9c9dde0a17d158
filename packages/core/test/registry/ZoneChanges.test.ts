import { assert, describe, it } from "@effect/vitest"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as ZoneChanges from "@prism-dns/core/registry/ZoneChanges"
import { Effect, Layer } from "effect"
import { waitUntil } from "../harness/waitUntil.ts"
import { forward, pointerOf, registration, registry, reverse4, sqlite } from "../layers.ts"

const withTtl = (ttlSeconds: number) => Zone.make(forward.name, { policy: { ...forward.policy, ttlSeconds } })

/** One run of the server with these zones, on the database around; what it marked is taken as published at its end. */
const start = <A, E, R>(zones: ReadonlyArray<Zone.Zone>, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox
    const result = yield* effect
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
