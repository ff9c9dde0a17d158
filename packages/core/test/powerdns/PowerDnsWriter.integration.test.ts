import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Random, Schedule } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { PowerDnsWriter } from "@prism-dns/core/powerdns/PowerDnsWriter"
import { Postgres } from "../harness/Postgres.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import { replace } from "./PowerDnsSuite.ts"

const zone = DomainName.make("writer.test")

/** Two servers on one database, and the writer over them, all quicker to decide than in production. */
const pair = Effect.gen(function* () {
  const postgres = yield* Postgres
  const backend = yield* PowerDns.pgsqlBackend
  assert.strictEqual(backend._tag, "Pgsql")
  const nodes = yield* Effect.forEach(["a", "b"], (name) =>
    Effect.gen(function* () {
      const server = yield* PowerDns.startServer(backend)
      const api = yield* PowerDns.clientOf(server, { node: name, requestTimeout: "1 second" })
      return { name, role: "primary" as const, server, api, dns: server.dns }
    })
  )
  const context = yield* Layer.build(
    PowerDnsWriter.layer({
      probeMillis: 100,
      probeMillisMax: 300,
      awayMillis: 300,
      healthyMillis: 1000,
      lateMillis: 2000,
      readingMillis: 1000,
      waitMillisMax: 200
    }).pipe(Layer.provide(PowerDnsNodes.layerOf(nodes)))
  )
  const client = Context.get(context, PowerDnsClient)
  yield* client.createZone({ name: zone, kind: "Native", nameservers: [DomainName.make(`ns1.${zone}`)] })
  const [a, b] = nodes as [(typeof nodes)[number], (typeof nodes)[number]]
  const rows = Effect.suspend(() =>
    postgres.query(
      backend._tag === "Pgsql" ? backend.database : "",
      "SELECT name, type, count(*) FROM records GROUP BY name, type ORDER BY name, type"
    )
  ).pipe(Effect.map((text) => text.trim().split("\n")))
  /** Stops the first server while it holds the zone's lock, in the middle of a transaction. */
  const freezeInTransaction = Effect.gen(function* () {
    yield* a.server.freeze
    const locks = yield* postgres.query("postgres", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    if (locks.trim() !== "0") return
    yield* a.server.thaw
    yield* Effect.sleep(yield* Random.nextIntBetween(1, 20))
    return yield* Effect.fail("between two")
  }).pipe(Effect.retry({ times: 100 }), Effect.orDie)
  return { a, b, client, rows, freezeInTransaction }
})

/** Batches of names one after another, each until it is in, as the publisher does. */
const traffic = Effect.fnUntraced(function* (client: PowerDnsClient["Service"]) {
  let batches = 0
  let isEnding = false
  const publish = Effect.suspend(() => {
    const names = Array.from({ length: 50 }, (_, i) => `h${batches}-${i}.${zone}`)
    return client
      .patch(
        zone,
        names.map((name) => replace(name, "A", ["192.0.2.1"]))
      )
      .pipe(
        Effect.retry(Schedule.spaced("50 millis")),
        Effect.tap(() => Effect.sync(() => batches++))
      )
  })
  const fiber = yield* publish.pipe(Effect.repeat({ while: () => !isEnding }), Effect.forkScoped)
  const after = (count: number) =>
    Effect.suspend(() => {
      const wanted = batches + count
      return waitUntil(
        `${count} more batches are in`,
        Effect.sync(() => batches),
        (now) => now >= wanted,
        { within: "30 seconds" }
      )
    })
  const end = Effect.suspend(() => {
    isEnding = true
    return Effect.as(Fiber.join(fiber), undefined)
  }).pipe(Effect.map(() => batches))
  return { after, end }
})

const whole = (batches: number) =>
  [
    ...Array.from({ length: batches * 50 }, (_, i) => `h${Math.floor(i / 50)}-${i % 50}.writer.test|A|1`),
    "writer.test|NS|1",
    "writer.test|SOA|1"
  ].sort()

const options = { timeout: "90 seconds", excludeTestServices: true } as const

layer(Postgres.layer(), options)("two PowerDNS on one database, the first of which writes", (it) => {
  it.effect("when it is killed under traffic, the other goes on: nothing is lost, nothing is double", () =>
    Effect.gen(function* () {
      const { a, client, rows } = yield* pair
      const { after, end } = yield* traffic(client)
      yield* after(10)
      assert.strictEqual(client.node, "a")
      yield* a.server.kill
      yield* after(10)
      assert.strictEqual(client.node, "b")
      yield* a.server.start
      yield* waitUntil(
        "the first one writes again",
        Effect.sync(() => client.node),
        (node) => node === "a",
        { within: "20 seconds" }
      )
      yield* after(10)
      const batches = yield* end
      assert.deepStrictEqual((yield* rows).sort(), whole(batches))
    })
  )

  it.effect("when it stands still in a transaction, the other goes on, and what it does late breaks nothing", () =>
    Effect.gen(function* () {
      const { a, client, freezeInTransaction, rows } = yield* pair
      const { after, end } = yield* traffic(client)
      yield* after(10)
      yield* freezeInTransaction
      yield* after(10)
      assert.strictEqual(client.node, "b")
      yield* a.server.thaw
      yield* waitUntil(
        "the first one writes again",
        Effect.sync(() => client.node),
        (node) => node === "a",
        { within: "20 seconds" }
      )
      yield* after(10)
      const batches = yield* end
      assert.deepStrictEqual((yield* rows).sort(), whole(batches))
    })
  )
})
