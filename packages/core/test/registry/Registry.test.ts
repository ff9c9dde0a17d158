import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Asked } from "@prism-dns/core/cluster/Asked"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Zones } from "@prism-dns/core/dns/Zones"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"
import { suite } from "./RegistrySuite.ts"

suite("the registry on SQLite", it, T.sqlite())

describe("a database that does not answer", () => {
  it.effect("keeps nobody waiting for long, and is used again once it answers", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const registry = yield* Registry
      const register = (hostname: string) =>
        Effect.forkChild(Effect.flip(registry.register(T.registration(hostname, "192.0.2.1"))), {
          startImmediately: true
        })
      const silence = yield* Effect.forkChild(sql.withTransaction(Effect.never), { startImmediately: true })
      const first = yield* register("first")
      yield* TestClock.adjust("9 seconds")
      const second = yield* register("second")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      const third = yield* register("third")
      yield* TestClock.adjust("2 seconds")
      for (const fiber of [first, second, third]) {
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "RegistryUnavailable")
        assert.match(error.message, /has not answered for 10 s/)
      }
      yield* Fiber.interrupt(silence)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* registry.register(T.registration("fourth", "192.0.2.4"))).outcome, "created")
      // The first had been refused: what it asked may have been asked elsewhere since. Nobody waits for it.
      const stored = (yield* registry.list({ limit: 10 })).map(({ hostname }) => String(hostname))
      assert.deepStrictEqual(stored, ["fourth"])
      assert.strictEqual((yield* Acknowledgements).size(), 1)
    }).pipe(Effect.provide(T.registry().pipe(Layer.provideMerge(T.sqlite()))))
  )
})

describe("a server that was taken for dead", () => {
  it.effect("carries out nothing that it was asked before, since the host has gone to another one meanwhile", () =>
    Effect.gen(function* () {
      // Stands still while it waits for a proof of life, and lives anew then; later it has none at all.
      let life = 0
      const proof = yield* Deferred.make<boolean>()
      const cluster = Layer.effect(
        Cluster,
        Effect.map(Cluster, (alone) => ({
          ...alone,
          life: () => life,
          proven: Effect.suspend(() => (life === 0 ? Deferred.await(proof) : Effect.succeed(life === 1)))
        }))
      ).pipe(Layer.provide(Cluster.layerAlone))
      const services = Registry.layer().pipe(
        Layer.provideMerge(Layer.mergeAll(Acknowledgements.layer, Leases.layer)),
        Layer.provide([Outbox.layer, SecureRandom.layerWebCrypto]),
        Layer.provide([Zones.layer(T.zones), cluster])
      )
      yield* Effect.gen(function* () {
        const registry = yield* Registry
        const ask = (hostname: string) =>
          Effect.forkChild(Effect.flip(registry.register(T.registration(hostname, "192.0.2.1"))), {
            startImmediately: true
          })
        const waiting = [yield* ask("one")]
        const word = {
          event: "retired" as const,
          fqdn: T.nameOf("one"),
          actor: { name: "x", peer: undefined },
          reason: "y"
        }
        yield* TestClock.adjust("100 millis")
        waiting.push(yield* ask("two"))
        const spoken = yield* Effect.forkChild(Effect.flip(registry.change(word)), { startImmediately: true })
        life = 1
        yield* Deferred.succeed(proof, true)
        for (const fiber of waiting) assert.match((yield* Fiber.join(fiber)).message, /out of touch/)
        assert.match((yield* Fiber.join(spoken)).message, /out of touch/)
        assert.strictEqual((yield* registry.list({ limit: 10 })).length, 0)
        // A request that came before, and gets here only now.
        const late = Effect.provideService(Asked, { life: 0, stands: Effect.succeed(false) })
        const looked = [registry.register(T.registration("one", "192.0.2.1")), registry.change(word)] as const
        for (const each of looked)
          assert.match((yield* Effect.flip(late<unknown, Error, never>(each))).message, /out of touch/)
        const { outcome } = yield* registry.register(T.registration("one", "192.0.2.2"))
        assert.strictEqual(outcome, "created")
        life = 2
        assert.match((yield* Fiber.join(yield* ask("three"))).message, /out of touch/)
      }).pipe(Effect.provide(services))
    }).pipe(Effect.provide(T.sqlite()))
  )
})
