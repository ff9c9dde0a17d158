import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Metric, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { BackendFailed, PowerDnsError, Uncertain, Unauthorized } from "@prism-dns/core/powerdns/PowerDnsError"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import * as Metrics from "@prism-dns/core/powerdns/PowerDnsMetrics"
import { PowerDnsNodes, type Role } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter, type PowerDnsWriterOptions } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { replace, suite } from "./PowerDnsSuite.ts"

const zone = DomainName.make("ex.test")
const change = (label: string) => [replace(`${label}.${zone}`, "A", ["192.0.2.1"])]

/** Servers in memory, each with the zone. They do not share a database: so it shows who was written. */
const servers = Effect.fnUntraced(function* (roles: Readonly<Record<string, Role>>) {
  const contexts = yield* Effect.forEach(Object.entries(roles), ([node, role]) =>
    Effect.map(Layer.build(PowerDnsMemory.layer({ node })), (context) => ({
      name: node,
      role,
      api: Context.get(context, PowerDnsClient),
      memory: Context.get(context, PowerDnsMemory),
      dns: { host: "127.0.0.1", port: 53 }
    }))
  )
  for (const { api, memory } of contexts) {
    yield* api.createZone({ name: zone, kind: "Native", nameservers: [] })
    yield* memory.forgetCalls
  }
  return contexts
})

type Server = Effect.Success<ReturnType<typeof servers>>[number]

const writerOver = (nodes: ReadonlyArray<Server>, options?: Partial<PowerDnsWriterOptions>) =>
  Effect.map(
    Layer.build(PowerDnsWriter.layer(options).pipe(Layer.provide(PowerDnsNodes.layerOf(nodes)))),
    (context) => ({ client: Context.get(context, PowerDnsClient), writer: Context.get(context, PowerDnsWriter) })
  )

/** The names that each server was asked to write, by the server's name. */
const written = (nodes: ReadonlyArray<Server>) =>
  Effect.map(
    Effect.forEach(nodes, ({ memory }) => memory.calls),
    (calls) =>
      Object.fromEntries(
        nodes.map(({ name }, i) => [
          name,
          calls[i]!.filter(({ operation }) => operation === "patch").flatMap(({ changes }) =>
            (changes ?? []).map((each) => (each._tag === "Replace" ? each.rrset.name : each.name).split(".")[0])
          )
        ])
      )
  )

/** Lets time pass in steps in which everything that is due happens. */
const pass = (seconds: number) => Effect.repeat(TestClock.adjust(100), { times: seconds * 10 - 1 })

/** Tries until it is written, as the publisher does, one try each half second. */
const publish = (client: PowerDnsClient["Service"], label: string) =>
  client.patch(zone, change(label)).pipe(
    Effect.catch(() => Effect.andThen(Effect.sleep(500), Effect.fail("again"))),
    Effect.retry({ times: 1000 }),
    Effect.orDie,
    Effect.forkChild
  )

suite(
  "a writer over one PowerDNS in memory",
  PowerDnsWriter.layer().pipe(
    Layer.provide(PowerDnsNodes.layerSingle({ host: "127.0.0.1", port: 53 })),
    Layer.provide(PowerDnsMemory.layer())
  )
)

describe("the writer", () => {
  it.effect("is the first primary; replicas and secondaries are never written or read", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ r: "replica", s: "secondary", a: "primary", b: "primary" })
      const { client, writer } = yield* writerOver(nodes)
      yield* client.patch(zone, change("one"))
      yield* client.exportZone(zone)
      yield* pass(120)
      assert.deepStrictEqual(yield* written(nodes), { r: [], s: [], a: ["one"], b: [] })
      assert.deepStrictEqual(yield* nodes[0]!.memory.calls, [])
      assert.deepStrictEqual(yield* nodes[1]!.memory.calls, [])
      assert.strictEqual(client.node, "a")
      assert.deepStrictEqual(yield* writer.status, {
        writer: "a",
        preferred: "a",
        sinceMillis: undefined,
        heldUntilMillis: undefined
      })
    })
  )

  it.effect("changes when it is away, in a few seconds, and back when the preferred one is well for long enough", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary", c: "primary" })
      const [a, b] = nodes as [Server, Server, Server]
      const { client, writer } = yield* writerOver(nodes)
      yield* pass(3)
      yield* a.memory.down
      const two = yield* publish(client, "two")
      yield* pass(2)
      assert.strictEqual((yield* writer.status).writer, "a", "not at the first failure")
      yield* pass(3)
      yield* Fiber.join(two)
      assert.strictEqual(client.node, "b")
      const { b: atB, c: atC } = yield* written(nodes)
      assert.deepStrictEqual([atB, atC], [["two"], []])
      const gauge = (node: string) =>
        Effect.map(Metric.value(Metric.withAttributes(Metrics.writer, { node })), ({ value }) => value)
      assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "c"], gauge), [0, 1, 0])

      yield* a.memory.up
      yield* pass(20)
      yield* a.memory.down // not well for long enough
      yield* pass(2)
      yield* a.memory.up
      yield* pass(28)
      assert.strictEqual(client.node, "b")
      yield* pass(5)
      assert.strictEqual(client.node, "a")
      yield* b.memory.forgetCalls
      yield* client.patch(zone, change("three"))
      assert.deepStrictEqual((yield* written(nodes))["b"], [])
    })
  )

  it.effect("stays where it is while nobody else is there, and when it says no, or its database is broken", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary" })
      const [a, b] = nodes as [Server, Server]
      const { client } = yield* writerOver(nodes)
      yield* b.memory.down
      yield* pass(3)
      yield* a.memory.down
      yield* pass(20)
      assert.strictEqual(client.node, "a")
      yield* a.memory.up
      yield* b.memory.up
      yield* pass(3)
      for (const reason of [
        new BackendFailed({ status: 500, detail: "broken" }),
        new Unauthorized({ detail: "the API key is wrong" })
      ]) {
        for (let i = 0; i < 30; i++) yield* a.memory.failNext(reason)
        yield* pass(20)
      }
      assert.strictEqual(client.node, "a")
    })
  )

  it.effect("is not followed by another before nothing can come of its last write any more", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary" })
      const [a] = nodes as [Server, Server]
      const { client, writer } = yield* writerOver(nodes, { lateMillis: 15_000 })
      yield* pass(3)
      // As a frozen server: nothing is answered, and each request is given up after 10 s.
      const silent = new PowerDnsError({
        node: "a",
        operation: "patch",
        reason: new Uncertain({ detail: "no answer within 10s" })
      })
      Object.assign(a.api, { patch: () => Effect.delay(Effect.fail(silent), "10 seconds") })
      const lost = yield* Effect.forkChild(Effect.exit(client.patch(zone, change("lost"))))
      yield* a.memory.down
      const next = yield* publish(client, "next")
      yield* pass(6)
      assert.strictEqual((yield* writer.status).writer, "b")
      const error = yield* client.patch(zone, change("early")).pipe(Effect.flip, Effect.forkChild)
      yield* pass(2)
      const { message, reason } = yield* Fiber.join(error)
      assert.strictEqual(reason._tag, "Unreachable")
      assert.match(message, /takes the writes from a, but not before .* once its requests have ended/)
      yield* pass(3)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(lost)))
      assert.deepStrictEqual((yield* written(nodes))["b"], [], "its request has ended, but not been answered")
      assert.isAbove((yield* writer.status).heldUntilMillis ?? 0, 0)
      yield* pass(3)
      assert.deepStrictEqual((yield* written(nodes))["b"], [])
      yield* pass(3)
      yield* Fiber.join(next)
      assert.deepStrictEqual((yield* written(nodes))["b"], ["next"])
      assert.isUndefined((yield* writer.status).heldUntilMillis)
    })
  )

  it.effect("that was never asked is followed at once, and one that was interrupted is not", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary" })
      const [a] = nodes as [Server, Server]
      const { client, writer } = yield* writerOver(nodes)
      yield* pass(3)
      yield* a.memory.delayNext("1 hour", "patch")
      const stopped = yield* Effect.forkChild(client.patch(zone, change("stopped")))
      yield* pass(1)
      yield* Fiber.interrupt(stopped)
      yield* a.memory.down
      const next = yield* publish(client, "next")
      yield* pass(6)
      assert.strictEqual((yield* writer.status).writer, "b")
      assert.deepStrictEqual((yield* written(nodes))["b"], [])
      yield* pass(12)
      yield* Fiber.join(next)
    })
  )

  it.effect("that is back tells what may have come late of its writes without an answer", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary" })
      const [a] = nodes as [Server, Server]
      const { client, writer } = yield* writerOver(nodes)
      const told = yield* Effect.forkChild(Stream.runHead(writer.lateWrites))
      yield* pass(3)
      yield* a.memory.failNext(new Uncertain({ detail: "no answer within 10s" }), "patch")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(client.patch(zone, [...change("x"), ...change("y")]))))
      yield* a.memory.down
      yield* pass(3600)
      assert.isUndefined(told.pollUnsafe())
      yield* a.memory.up
      yield* pass(10)
      const late = Option.getOrThrow(yield* Fiber.join(told))
      assert.deepStrictEqual(
        { ...late, names: [...late.names].sort() },
        { node: "a", zone, names: [`x.${zone}`, `y.${zone}`].map((name) => DomainName.make(name)) }
      )
    })
  )

  it.effect("changes under many writes at once: none is lost, and never two servers are written at a time", () =>
    Effect.gen(function* () {
      const nodes = yield* servers({ a: "primary", b: "primary" })
      const [a, b] = nodes as [Server, Server]
      const { client } = yield* writerOver(nodes, { healthyMillis: 5000 })
      let under: ReadonlyArray<string> = []
      let together = 0
      for (const { api, name } of nodes) {
        const { patch } = api
        Object.assign(api, {
          patch: (...args: Parameters<typeof patch>) =>
            Effect.suspend(() => {
              under = [...under, name]
              together = Math.max(together, new Set(under).size)
              return Effect.sleep(300).pipe(Effect.andThen(patch(...args)))
            }).pipe(Effect.ensuring(Effect.sync(() => void (under = under.toSpliced(under.indexOf(name), 1)))))
        })
      }
      yield* pass(3)
      const fibers: Array<Fiber.Fiber<void>> = []
      for (let i = 0; i < 60; i++) {
        fibers.push(yield* publish(client, `h${i}`))
        if (i === 10) yield* a.memory.down
        if (i === 30) yield* a.memory.up
        yield* pass(1)
      }
      yield* pass(30)
      for (const fiber of fibers) yield* Fiber.join(fiber)
      const sets = (yield* Effect.forEach([a, b], ({ api }) => api.exportZone(zone))).flat()
      assert.strictEqual(new Set(sets.filter(({ type }) => type === "A").map(({ name }) => name)).size, 60)
      assert.strictEqual(together, 1)
      assert.isAbove((yield* written(nodes))["b"]!.length, 5)
    })
  )
})
