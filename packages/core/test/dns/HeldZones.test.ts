/** The publisher of one of several servers: what it does as it gets zones and loses them. */
import { assert, it } from "@effect/vitest"
import { Cluster, type Held, type LeaseName, LeaseLost, zoneLease } from "@prism-dns/core/cluster/Cluster"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as T from "../layers.ts"

interface Stander {
  readonly begin: (held: Held) => Fiber.Fiber<unknown, unknown>
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

interface Entry {
  held: Held | undefined
  /** Ends the validity of `held`. */
  end: () => void
  /** It has passed on, and this server does not know yet. */
  passed: boolean
  readonly standers: Set<Stander>
}

/** A cluster in which the test says what this server holds. */
const makeLeases = () => {
  const entries = new Map<LeaseName, Entry>()
  const entryOf = (name: LeaseName): Entry => {
    const entry = entries.get(name) ?? { held: undefined, end: () => undefined, passed: false, standers: new Set() }
    entries.set(name, entry)
    return entry
  }
  const whileHeld: Cluster["Service"]["whileHeld"] = <E, R>(
    name: LeaseName,
    work: (held: Held) => Effect.Effect<void, E, R>
  ) =>
    Effect.gen(function* () {
      const fork = Effect.runForkWith(yield* Effect.context<R>())
      const { held, standers } = entryOf(name)
      const stander: Stander = { begin: (held) => fork(work(held)), fiber: undefined }
      standers.add(stander)
      if (held !== undefined) stander.fiber = stander.begin(held)
      yield* Effect.addFinalizer(() => (stander.fiber === undefined ? Effect.void : Fiber.interrupt(stander.fiber)))
    })
  const cluster = Cluster.of({
    self: { id: "self", name: "self" },
    isAlone: () => false,
    instances: Effect.succeed([]),
    leases: Effect.succeed([]),
    held: (name) => entries.get(name)?.held,
    whileHeld,
    fence: (name) => {
      const { held, passed } = entryOf(name)
      return held === undefined || passed ? Effect.fail(new LeaseLost({ lease: name })) : Effect.void
    },
    endedMillis: () => 0,
    life: () => 0,
    proven: Effect.succeed(true),
    onNewLife: () => Effect.void,
    drain: Effect.void
  })
  const give = (name: LeaseName) =>
    Effect.sync(() => {
      const entry = entryOf(name)
      let valid = true
      const held: Held = { name, epoch: 1, isValid: () => valid, remainingMillis: () => (valid ? 3000 : 0) }
      Object.assign(entry, { held, passed: false, end: () => (valid = false) })
      for (const stander of entry.standers) stander.fiber = stander.begin(held)
    })
  /** Its time is over: the work is interrupted. */
  const take = (name: LeaseName) =>
    Effect.suspend(() => {
      const entry = entryOf(name)
      entry.end()
      entry.held = undefined
      return Effect.forEach(
        entry.standers,
        ({ fiber }) => (fiber === undefined ? Effect.void : Fiber.interrupt(fiber)),
        { discard: true }
      )
    })
  /** It is to be another's once the work has ended. */
  const hand = (name: LeaseName) =>
    Effect.suspend(() => {
      const entry = entryOf(name)
      return Effect.forEach(
        entry.standers,
        ({ fiber }) => (fiber === undefined ? Effect.void : Fiber.interrupt(fiber)),
        { discard: true }
      ).pipe(
        Effect.andThen(
          Effect.sync(() => {
            entry.end()
            entry.held = undefined
          })
        )
      )
    })
  const pass = (name: LeaseName) => Effect.sync(() => void (entryOf(name).passed = true))
  return { cluster, give, take, hand, pass }
}

type Services = DnsManager | Registry | Outbox | PowerDnsClient | PowerDnsMemory | SqlClient.SqlClient

const test = <E>(name: string, body: (leases: ReturnType<typeof makeLeases>) => Effect.Effect<void, E, Services>) =>
  it.effect(name, () => {
    const leases = makeLeases()
    return Effect.provide(
      body(leases),
      T.publisher({}, [T.forward], {}, Layer.succeed(Cluster, leases.cluster)).pipe(
        Layer.provideMerge(Layer.merge(PowerDnsMemory.layer(), T.sqlite()))
      )
    )
  })

const zone = T.forward
const lease = zoneLease(zone.name)
const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const register = (...args: Parameters<typeof T.registration>) =>
  Effect.flatMap(Registry, (registry) => registry.register(T.registration(...args)))

/** Addresses that PowerDNS has at a name. */
const served = (hostname: string) =>
  Effect.flatMap(PowerDnsClient, (client) =>
    Effect.map(client.rrsets(zone.name, [T.nameOf(hostname)]), (rrsets) =>
      rrsets.filter(({ type }) => type === "A").flatMap(({ contents }) => contents)
    )
  )

const pending = Effect.flatMap(Outbox, (outbox) =>
  Effect.map(outbox.list({ limit: 100 }), (list) => list.map(({ name }) => name))
)

const calls = Effect.flatMap(PowerDnsMemory, (memory) =>
  Effect.map(memory.calls, (all) => all.filter(({ operation }) => operation === "patch").length)
)

test(
  "a zone is written while this server has it, and not before or after",
  Effect.fnUntraced(function* (leases) {
    const { status } = yield* DnsManager
    yield* register("web", "192.0.2.1")
    yield* pass(5)
    assert.strictEqual(yield* calls, 0)
    assert.deepStrictEqual(
      (yield* status).map(({ writing }) => writing),
      [false]
    )
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    assert.deepStrictEqual(
      (yield* status).map(({ ready, writing }) => [ready, writing]),
      [[true, true]]
    )
    yield* leases.take(lease)
    yield* register("web", "192.0.2.2")
    yield* pass(60)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.2"])
  })
)

test(
  "what a lost zone's last write may have left is looked at again, by whoever writes the zone then",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    yield* leases.give(lease)
    yield* pass(5)
    yield* memory.delayNext("1 minute", "patch")
    yield* register("web", "192.0.2.1")
    yield* pass(1)
    yield* leases.take(lease)
    yield* pass(1)
    // It was claimed, and nobody knows what stands there.
    const [row] = yield* sql<{ readonly sent: string }>`SELECT sent FROM published WHERE name = ${T.nameOf("web")}`
    assert.match(row?.sent ?? "", /^\*/)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    // Another has settled it since: it is marked once more when the write can come no more.
    yield* sql`DELETE FROM outbox`
    yield* pass(20)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    yield* leases.give(lease)
    yield* pass(5)
    assert.deepStrictEqual(yield* served("web"), ["192.0.2.1"])
    yield* pass(30)
    assert.deepStrictEqual(yield* pending, [])
  })
)

test(
  "a write that is cut off as its zone is handed over is looked at again, by whoever writes the zone then",
  Effect.fnUntraced(function* (leases) {
    const memory = yield* PowerDnsMemory
    const sql = yield* SqlClient.SqlClient
    yield* leases.give(lease)
    yield* pass(5)
    yield* memory.delayNext("1 minute", "patch")
    yield* register("web", "192.0.2.1")
    yield* pass(1)
    const handing = yield* Effect.forkChild(leases.hand(lease))
    yield* pass(2)
    yield* Fiber.join(handing)
    yield* pass(1)
    const [row] = yield* sql<{ readonly sent: string }>`SELECT sent FROM published WHERE name = ${T.nameOf("web")}`
    assert.match(row?.sent ?? "", /^\*/)
    // Another has settled it since: it is marked once more when the write can come no more.
    yield* sql`DELETE FROM outbox`
    yield* pass(20)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
  })
)

test(
  "a name that was in doubt when its zone passed on is written once more, though nothing else is to be written",
  Effect.fnUntraced(function* (leases) {
    const outbox = yield* Outbox
    const sql = yield* SqlClient.SqlClient
    yield* leases.give(lease)
    yield* register("web", "192.0.2.1")
    yield* register("db", "192.0.2.2")
    yield* pass(5)
    yield* leases.take(lease)
    // Another has had it since: a write of web without an answer, one with an answer, and then nothing more.
    yield* sql`UPDATE published SET sent = content, doubt_until = 15000 WHERE name = ${T.nameOf("web")}`
    yield* outbox.mark([{ zone: zone.name, name: T.nameOf("db") }], 1000, 1, "transferred")
    const before = yield* calls
    yield* leases.give("job/elapsed")
    yield* leases.give(lease)
    yield* pass(5)
    assert.isAbove(yield* calls, before)
    assert.deepStrictEqual(yield* pending, [])
    const doubts = sql<{ readonly name: string }>`SELECT name FROM published WHERE doubt_until IS NOT NULL`
    assert.strictEqual((yield* doubts).length, 1)
    yield* pass(20)
    assert.deepStrictEqual(yield* doubts, [])
    assert.deepStrictEqual(yield* sql`SELECT name FROM published WHERE sent IS NOT NULL`, [])
    assert.deepStrictEqual(yield* pending, [])
  })
)

test(
  "what a writer notes after its lease has passed is refused, and is no failure",
  Effect.fnUntraced(function* (leases) {
    const { status } = yield* DnsManager
    yield* leases.give(lease)
    yield* register("web", "192.0.2.1")
    yield* pass(5)
    const before = yield* calls
    yield* leases.pass(lease)
    yield* register("web", "192.0.2.2")
    yield* pass(60)
    // The claim before the write is refused already.
    assert.strictEqual(yield* calls, before)
    assert.deepStrictEqual(yield* pending, [T.nameOf("web")])
    assert.deepStrictEqual(
      (yield* status).map(({ error }) => error),
      [undefined]
    )
  })
)
