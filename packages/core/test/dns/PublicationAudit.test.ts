/** What the audit says of publications. */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Parked } from "@prism-dns/core/dns/Parked"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

const layer = Parked.layer.pipe(
  Layer.provideMerge(T.publisher()),
  Layer.provideMerge(Layer.mergeAll(PowerDnsMemory.layer(), T.sqlite()))
)

const test = <E>(name: string, body: Effect.Effect<void, E, Layer.Success<typeof layer>>) =>
  it.effect(name, () => Effect.provide(body, Layer.fresh(layer)))

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

interface Row {
  readonly action: string
  readonly actor: string
  readonly peer: string | null
  readonly request: string | null
  readonly subject: string
  readonly zone: string
  readonly generation: number
  readonly before: string | null
  readonly after: string | null
  readonly reason: string | null
  readonly cause: string
  readonly result: string
}

const json = (text: string | null): unknown => (text === null ? undefined : JSON.parse(text))

/** Entries about `name`, in order. */
const entries = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<Row>`SELECT * FROM audit_entry WHERE subject = ${name} ORDER BY sequence`, (rows) =>
      rows.map((row) => ({ ...row, before: json(row.before), after: json(row.after) }))
    )
  )

const a = (...contents: ReadonlyArray<string>) => ({ type: "A", ttl: 60, contents })

test(
  "each name whose records changed has an entry with the records before and after, linked to what changed them",
  Effect.gen(function* () {
    const registry = yield* Registry
    yield* register("web", "192.0.2.7")
    yield* pass(1)
    yield* register("web", "192.0.2.8")
    yield* pass(1)
    yield* registry.release(T.nameOf("web"), { name: "ann", peer: undefined }, "gone")
    yield* pass(1)
    const found = yield* entries(T.nameOf("web"))
    assert.deepStrictEqual(
      found.map(({ action, after, before }) => (action.startsWith("host.") ? [action] : [action, before, after])),
      [
        ["host.created"],
        ["publication.applied", undefined, [a("192.0.2.7")]],
        ["host.changed"],
        ["publication.applied", [a("192.0.2.7")], [a("192.0.2.8")]],
        ["host.released"],
        ["publication.applied", [a("192.0.2.8")], undefined]
      ]
    )
    for (let i = 0; i < found.length; i += 2) {
      assert.strictEqual(found[i + 1]!.cause, `generation:${found[i]!.generation}`)
      assert.deepInclude(found[i + 1]!, { actor: "prism", zone: T.forward.name, result: "done" })
    }
    const pointers = yield* entries(T.pointerOf("192.0.2.8"))
    assert.deepStrictEqual(
      pointers.map(({ action, zone }) => [action, zone]),
      Array.from({ length: 2 }, () => ["publication.applied", T.reverse4.name])
    )
  })
)

test(
  "what changes nothing at PowerDNS has none",
  Effect.gen(function* () {
    const outbox = yield* Outbox
    yield* register("web", "192.0.2.7")
    yield* pass(1)
    const before = yield* entries(T.nameOf("web"))
    yield* outbox.mark([{ zone: T.forward.name, name: T.nameOf("web") }], 1_000, 1, "settings")
    yield* outbox.wake([T.forward.name])
    yield* pass(1)
    assert.deepStrictEqual(yield* outbox.list({ limit: 1 }), [])
    assert.deepStrictEqual(yield* entries(T.nameOf("web")), before)
  })
)

test(
  "a name that is parked has one with PowerDNS's own sentence, and one when a person has it tried again",
  Effect.gen(function* () {
    const memory = yield* PowerDnsMemory
    const parked = yield* Parked
    yield* memory.refuseName(T.nameOf("web"), "the name is not to our liking")
    const { host } = yield* register("web", "192.0.2.7")
    yield* pass(1)
    const actor = { name: "ann", peer: "192.0.2.1", request: "r-1" }
    assert.strictEqual(yield* parked.retry({ zone: T.forward.name, actor }), 1)
    yield* pass(1)
    const found = yield* entries(T.nameOf("web"))
    assert.deepStrictEqual(
      found.slice(1).map(({ action, cause, reason, result }) => ({ action, cause, reason, result })),
      [
        { action: "publication.parked", reason: "the name is not to our liking", result: "refused" },
        { action: "publication.retried", reason: null, result: "done" },
        { action: "publication.parked", reason: "the name is not to our liking", result: "refused" }
      ].map((each) => ({ ...each, cause: `generation:${host.generation}` }))
    )
    assert.deepInclude(found[2], { actor: "ann", peer: "192.0.2.1", request: "r-1" })
  })
)
