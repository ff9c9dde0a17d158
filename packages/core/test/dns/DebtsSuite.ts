/** What databases lack, wherever the registry is kept. */
import { assert, type Vitest } from "@effect/vitest"
import { Debts } from "@prism-dns/core/dns/Debts"
import { type Database, PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Effect, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import * as T from "../layers.ts"

export const zone = T.forward.name
export const one = T.nameOf("one")
const two = T.nameOf("two")

const databases = (...names: ReadonlyArray<string>) =>
  Layer.effect(
    PowerDnsDatabases,
    Effect.map(PowerDnsClient, (client) => {
      const [first, ...rest] = names.map((name): Database => ({
        name,
        client,
        wellMillis: () => Infinity,
        failed: () => undefined,
        owing: new Set()
      }))
      return PowerDnsDatabases.of({ all: [first!, ...rest], leading: () => first!, onLead: () => Effect.void })
    })
  ).pipe(Layer.provide(PowerDnsMemory.layer()))

export const debts = (...names: ReadonlyArray<string>) =>
  Layer.fresh(Debts.layer.pipe(Layer.provide(databases(...names))))

export const owed = (debtor: string, after?: typeof one) =>
  Effect.flatMap(Debts, (debts) => debts.of(debtor, zone, after, 10))

export const suite = <R>(
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  registry: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  it.effect("is a name once, with all the types that may differ, and is cleared only as it was paid", () =>
    Effect.gen(function* () {
      const debts = yield* Debts
      yield* debts.owe(
        zone,
        ["b", "c"],
        [
          { name: one, generation: 1, types: ["A"], unseen: true },
          { name: two, generation: 1, types: ["TXT"], unseen: false }
        ]
      )
      yield* debts.owe(zone, ["b"], [{ name: one, generation: 2, types: ["AAAA", "A"], unseen: false }])
      assert.deepStrictEqual(yield* owed("b"), [
        { name: one, generation: 2, types: ["A", "AAAA"], unseen: true },
        { name: two, generation: 1, types: ["TXT"], unseen: false }
      ])
      assert.deepStrictEqual(yield* owed("b", one), [{ name: two, generation: 1, types: ["TXT"], unseen: false }])
      assert.deepStrictEqual(
        yield* debts.among("b", zone, [one, T.nameOf("none")]),
        new Map([[one, { name: one, generation: 2, types: ["A", "AAAA"], unseen: true }]])
      )
      assert.deepStrictEqual(yield* debts.zonesOf("b", [zone, T.reverse4.name]), [zone])

      // Paid as of the first change, the second is still owed.
      yield* debts.seen("b", zone, [one])
      yield* debts.clear("b", zone, [
        { name: one, generation: 1 },
        { name: two, generation: 1 }
      ])
      assert.deepStrictEqual(yield* owed("b"), [{ name: one, generation: 2, types: ["A", "AAAA"], unseen: false }])
      yield* debts.clear("b", zone, [{ name: one, generation: 2 }])
      assert.deepStrictEqual(yield* debts.zonesOf("b", [zone]), [])
      assert.lengthOf(yield* owed("c"), 2)
    }).pipe(Effect.provide(debts("a", "b", "c").pipe(Layer.provideMerge(registry))))
  )
}
