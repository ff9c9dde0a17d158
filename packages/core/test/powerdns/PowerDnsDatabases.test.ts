import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Metrics from "@prism-dns/core/powerdns/PowerDnsMetrics"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { Context, Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { replace, suite } from "./PowerDnsSuite.ts"

const zone = DomainName.make("ex.test")

/** Servers in memory; what they are called begins with the name of their database. */
const servers = (names: ReadonlyArray<string>) =>
  Effect.forEach(names, (name) =>
    Effect.map(Layer.build(PowerDnsMemory.layer({ node: name })), (context) => ({
      name,
      role: "primary" as const,
      database: name[0],
      api: Context.get(context, PowerDnsClient),
      memory: Context.get(context, PowerDnsMemory),
      dns: { host: "127.0.0.1", port: 53 }
    }))
  )

type Server = Effect.Success<ReturnType<typeof servers>>[number]

const over = Effect.fnUntraced(function* (nodes: ReadonlyArray<Server>) {
  for (const { api } of nodes) yield* api.createZone({ name: zone, kind: "Native", nameservers: [] })
  const context = yield* Layer.build(PowerDnsDatabases.layer().pipe(Layer.provide(PowerDnsNodes.layerOf(nodes))))
  return {
    client: Context.get(context, PowerDnsClient),
    writer: Context.get(context, PowerDnsWriter),
    databases: Context.get(context, PowerDnsDatabases)
  }
})

/** Lets time pass in steps in which everything that is due happens. */
const pass = (seconds: number) => Effect.repeat(TestClock.adjust(100), { times: seconds * 10 - 1 })

const gauges = (names: ReadonlyArray<string>) =>
  Effect.forEach(names, (node) =>
    Effect.map(Metric.value(Metric.withAttributes(Metrics.writer, { node })), ({ value }) => value)
  )

suite(
  "the client over two databases in memory",
  Layer.unwrap(
    Effect.map(servers(["a", "b"]), (nodes) =>
      PowerDnsDatabases.layer().pipe(Layer.provide(PowerDnsNodes.layerOf(nodes)))
    )
  )
)

describe("of several databases", () => {
  it.effect("the first leads; when it is away the next does at once, also after a write without an answer", () =>
    Effect.gen(function* () {
      const nodes = yield* servers(["a", "b"])
      const [a] = nodes as [Server, Server]
      const { client, databases, writer } = yield* over(nodes)
      assert.deepStrictEqual(
        databases.all.map(({ name }) => name),
        ["a", "b"]
      )
      yield* pass(3)
      assert.strictEqual(client.node, "a")
      assert.strictEqual(databases.all[0].wellMillis(5000), Infinity)
      assert.deepStrictEqual(yield* gauges(["a", "b"]), [1, 0])

      yield* a.memory.down
      yield* Effect.ignore(client.patch(zone, [replace(`one.${zone}`, "A", ["192.0.2.1"])]))
      assert.strictEqual(databases.leading().name, "a")
      yield* pass(5)
      assert.strictEqual(databases.leading().name, "b")
      assert.strictEqual(client.node, "b")
      assert.strictEqual(databases.all[0].wellMillis(10_000), 0)
      yield* client.patch(zone, [replace(`one.${zone}`, "A", ["192.0.2.1"])])
      assert.deepStrictEqual(yield* gauges(["a", "b"]), [0, 1])
      const status = yield* writer.status
      assert.deepInclude(status, { writer: "b", preferred: "a", heldUntilMillis: undefined })
      assert.isDefined(status.sinceMillis)
    })
  )

  it.effect("the first leads again when it has been well for a while and lacks nothing", () =>
    Effect.gen(function* () {
      const nodes = yield* servers(["a", "b"])
      const [a] = nodes as [Server, Server]
      const { databases } = yield* over(nodes)
      const [first] = databases.all
      yield* a.memory.down
      yield* pass(6)
      assert.strictEqual(databases.leading().name, "b")
      first.owing.add(zone)
      yield* a.memory.up
      yield* pass(60)
      assert.strictEqual(databases.leading().name, "b", "it lacks something")
      first.owing.delete(zone)
      yield* pass(2)
      assert.strictEqual(databases.leading().name, "a")
    })
  )

  it.effect(
    "one of two primaries is away: the other of the same database writes, and the database goes on to lead",
    () =>
      Effect.gen(function* () {
        const nodes = yield* servers(["a1", "a2", "b1"])
        const [a1, a2] = nodes as [Server, Server]
        const { client, databases } = yield* over(nodes)
        yield* pass(3)
        yield* a1.memory.down
        yield* pass(20)
        assert.strictEqual(databases.leading().name, "a")
        assert.strictEqual(client.node, "a2")
        yield* a2.memory.down
        yield* pass(20)
        assert.strictEqual(databases.leading().name, "b")
      })
  )

  it.effect("with all away none is given up for another that is no better", () =>
    Effect.gen(function* () {
      const nodes = yield* servers(["a", "b"])
      const { databases } = yield* over(nodes)
      yield* pass(3)
      for (const { memory } of nodes) yield* memory.down
      yield* pass(60)
      assert.strictEqual(databases.leading().name, "a")
    })
  )

  it.effect("secondaries are notified by the one that leads, and whoever asks is told when that is another", () =>
    Effect.gen(function* () {
      const nodes = yield* servers(["a", "b"])
      const [a, b] = nodes as [Server, Server]
      const { client, databases } = yield* over(nodes)
      const led: Array<string> = []
      yield* databases.onLead(() => void led.push(databases.leading().name))
      const notified = (server: Server) =>
        Effect.map(server.memory.calls, (calls) => calls.filter(({ operation }) => operation === "notify").length)
      yield* pass(1)
      yield* client.notify(zone)
      assert.deepStrictEqual([yield* notified(a), yield* notified(b)], [1, 0])
      yield* a.memory.down
      yield* pass(20)
      yield* client.notify(zone)
      assert.deepStrictEqual([yield* notified(a), yield* notified(b)], [1, 1])
      yield* a.memory.up
      yield* pass(40)
      yield* client.notify(zone)
      assert.deepStrictEqual([yield* notified(a), yield* notified(b)], [2, 1])
      assert.deepStrictEqual(led, ["b", "a"])
    })
  )
})
