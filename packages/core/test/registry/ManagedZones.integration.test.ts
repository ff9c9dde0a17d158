import { assert, layer } from "@effect/vitest"
import { ManagedZones } from "@prism-dns/core/registry/ManagedZones"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Postgres } from "../harness/Postgres.ts"
import { turns } from "../harness/turns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import { forward, postgres } from "../layers.ts"
import { alice, hostsIn, lab, life, register, suite } from "./ManagedZonesSuite.ts"

/** Keeps a table from being written, until it is told to end. */
const frozen = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  const done = yield* Deferred.make<void>()
  const end = yield* Deferred.make<void>()
  const fiber = yield* Effect.forkChild(
    Effect.gen(function* () {
      yield* sql`LOCK TABLE ${sql(table)} IN SHARE MODE`
      yield* Deferred.succeed(done, undefined)
      yield* Deferred.await(end)
    }).pipe(sql.withTransaction)
  )
  yield* Deferred.await(done)
  return Effect.andThen(Deferred.succeed(end, undefined), Fiber.join(fiber))
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("zones of the API on PostgreSQL", it, postgres)

  it.effect("a removal waits for a registration that shares the zone's turn, and finds the host", () =>
    Effect.gen(function* () {
      const managed = yield* ManagedZones
      yield* managed.create(lab, {}, alice)
      const thaw = yield* frozen("audit_entry")
      const registering = yield* Effect.forkChild(register("web-1", "192.0.2.1"))
      yield* waitUntil("the registration has the turn", turns, ({ granted }) => granted === 1)
      const removing = yield* Effect.forkChild(Effect.flip(managed.remove(lab, alice)))
      yield* waitUntil("the removal waits for it", turns, ({ waiting }) => waiting === 1)
      yield* thaw
      yield* Fiber.join(registering)
      assert.strictEqual((yield* Fiber.join(removing))._tag, "ZoneInUse")
      assert.strictEqual(yield* hostsIn(lab), 1)
    }).pipe(Effect.provide(Layer.fresh(life([forward]).pipe(Layer.provideMerge(postgres)))))
  )

  it.effect("a registration waits for the removal of its zone, and is refused", () =>
    Effect.gen(function* () {
      const managed = yield* ManagedZones
      yield* managed.create(lab, {}, alice)
      const thaw = yield* frozen("zone_setting")
      const removing = yield* Effect.forkChild(managed.remove(lab, alice))
      yield* waitUntil("the removal has the turn", turns, ({ granted }) => granted === 1)
      const registering = yield* Effect.forkChild(Effect.flip(register("web-1", "192.0.2.1")))
      yield* waitUntil("the registration waits for it", turns, ({ waiting }) => waiting === 1)
      yield* thaw
      yield* Fiber.join(removing)
      assert.strictEqual((yield* Fiber.join(registering))._tag, "ZoneGone")
      assert.strictEqual(yield* hostsIn(lab), 0)
    }).pipe(Effect.provide(Layer.fresh(life([forward]).pipe(Layer.provideMerge(postgres)))))
  )
})
