import { assert, describe, it } from "@effect/vitest"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { Acknowledgements, type Ticket } from "@prism-dns/core/dns/Acknowledgements"
import { type Publication, Serving, type ServingOptions } from "@prism-dns/core/dns/Serving"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import type { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as T from "../layers.ts"
import * as FakeNodes from "./FakeNodes.ts"
import * as Unserved from "./unserved.ts"

type Services = Serving | Acknowledgements | FakeNodes.FakeNodes | SqlClient.SqlClient | PowerDnsClient

const two: ReadonlyArray<FakeNodes.NodeSpec> = [{ name: "one" }, { name: "two" }]

const layer = (
  nodes: ReadonlyArray<FakeNodes.NodeSpec>,
  options: Partial<ServingOptions> = {},
  before: Effect.Effect<void, unknown, SqlClient.SqlClient> = Effect.void
) =>
  Serving.layer(options).pipe(
    Layer.provideMerge(Layer.effectDiscard(Effect.orDie(before))),
    Layer.provideMerge(
      Layer.mergeAll(
        FakeNodes.layer(nodes),
        Acknowledgements.layer,
        Cluster.layerAlone,
        Zones.layer(T.zones),
        T.sqlite()
      )
    )
  )

const test = (
  name: string,
  body: Effect.Effect<void, unknown, Services>,
  nodes: ReadonlyArray<FakeNodes.NodeSpec> = two,
  options: Partial<ServingOptions> = {}
) => it.effect(name, () => Effect.provide(body, layer(nodes, options)))

const zone = T.forward.name
const web = T.nameOf("web")
const a = (name: DomainName, ...contents: ReadonlyArray<string>) => RRset.make(name, "A", 60, contents)

const insert = (publications: ReadonlyArray<Publication>) => Unserved.insert(zone, publications)

const publish = (publications: ReadonlyArray<Publication>) => Unserved.publish(zone, publications, "one")

const unserved = Unserved.names

const servedAt = (name: DomainName) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly served_at: number | null }>`SELECT served_at FROM published WHERE name = ${name}`,
      ([row]) => row?.served_at ?? undefined
    )
  )

/** When each node was seen to answer, as it is kept for who asks later. */
const servedNodes = (name: DomainName) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly served_nodes: string | null }>`SELECT served_nodes FROM published WHERE name = ${name}`,
      ([row]) => JSON.parse(row?.served_nodes ?? "[]") as ReadonlyArray<readonly [string, number]>
    )
  )

const isServed = (ticket: Ticket | undefined) => ticket!.end?._tag === "Served"

/** Lets `millis` pass in small steps, since what happens in them starts what comes next. */
const pass = Effect.fnUntraced(function* (millis: number) {
  for (let passed = 0; passed < millis; passed += 5) yield* TestClock.adjust(5)
})

describe("a name", () => {
  test(
    "is served once every node answers as published, and says when each did",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      nodes[0]!.put(a(web, "192.0.2.1"))
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(300)
      assert.isFalse(isServed(ticket))
      assert.deepStrictEqual(yield* unserved, [web])
      assert.isUndefined(yield* servedAt(web))
      nodes[1]!.put(a(web, "192.0.2.1"))
      yield* pass(1200)
      const end = ticket!.end
      assert(end?._tag === "Served")
      assert.deepStrictEqual(
        end.nodes.map(({ node }) => node),
        ["one", "two"]
      )
      assert.isBelow(end.nodes[0]!.atMillis, 20)
      assert.isAbove(end.nodes[1]!.atMillis, 300)
      assert.deepStrictEqual(yield* unserved, [])
      assert.strictEqual(yield* servedAt(web), end.atMillis)
      assert.deepStrictEqual(
        yield* servedNodes(web),
        end.nodes.map(({ atMillis, node }) => [node, atMillis])
      )
      const status = yield* (yield* Serving).status
      assert.deepStrictEqual(
        status.map(({ oldest, unserved, up }) => ({ oldest, unserved, up })),
        [0, 1].map(() => ({ oldest: undefined, unserved: 0, up: true }))
      )
    })
  )

  test(
    "is not asked for while the process has more to do than it can, and all the same after a while",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(450)
      assert.isFalse(isServed(ticket))
      yield* pass(150)
      assert.isTrue(isServed(ticket))
    }),
    two,
    { isCrowded: () => true, crowdedMillisMax: 500 }
  )

  test(
    "that a node has cached as missing is asked after its cache was dropped",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      // Somebody asked too early: it is not there, and stays so until the flush.
      assert.strictEqual(nodes[1]!.answer(web, "A").rcode, "NXDOMAIN")
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(50)
      assert.isTrue(isServed(ticket))
      assert.isAbove(nodes[1]!.flushes.length, 0)
    })
  )

  test(
    "that a node has cached with its old address is served only with the new one, and told what it said",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      nodes[0]!.put(a(web, "192.0.2.2"))
      // This one's database comes later: it caches what is old at every question.
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.2")] }])
      yield* pass(500)
      assert.isFalse(isServed(ticket))
      const [, status] = yield* (yield* Serving).status
      assert.strictEqual(status!.unserved, 1)
      assert.strictEqual(status!.oldest?.answered, "A 192.0.2.1 (TTL 60 s)")
      nodes[1]!.put(a(web, "192.0.2.2"))
      yield* pass(1100)
      assert.isTrue(isServed(ticket))
    })
  )

  test(
    "that was deleted is served when no node has a record of it, whatever the type",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      nodes[1]!.put(RRset.make(web, "AAAA", 60, ["2001:db8::1"]))
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [] }])
      yield* pass(300)
      assert.isFalse(isServed(ticket))
      nodes[1]!.remove(web, "AAAA")
      yield* pass(1100)
      assert.isTrue(isServed(ticket))
    })
  )

  test(
    "that was deleted is served when a wildcard of someone else's answers in its place, and not while it does itself",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const deep = T.nameOf("web.rack")
      for (const node of nodes) {
        node.put(a(T.nameOf("*"), "192.0.2.99"))
        // As a server with the wildcard answers it.
        node.put(a(deep, "192.0.2.99"))
      }
      nodes[1]!.put(a(deep, "192.0.2.1"))
      const [ticket] = yield* publish([{ name: deep, generation: 5, rrsets: [], types: ["A"] }])
      yield* pass(1500)
      assert.isFalse(isServed(ticket))
      assert.strictEqual((yield* (yield* Serving).status)[0]!.unserved, 0)
      nodes[1]!.put(a(deep, "192.0.2.99"))
      yield* pass(1500)
      assert.isTrue(isServed(ticket))
    })
  )

  test(
    "with another TTL, or from a server without authority, is not served",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const [node] = nodes
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      const seen = Effect.gen(function* () {
        yield* pass(1100)
        assert.isFalse(isServed(ticket))
        return (yield* (yield* Serving).status)[0]!.oldest?.answered
      })
      node!.put(RRset.make(web, "A", 61, ["192.0.2.1"]))
      assert.strictEqual(yield* seen, "A 192.0.2.1 (TTL 61 s)")
      node!.put(a(web, "192.0.2.1"))
      node!.authoritative = false
      assert.strictEqual(yield* seen, "A 192.0.2.1 (TTL 60 s), not authoritative")
      node!.authoritative = true
      yield* pass(1100)
      assert.isTrue(isServed(ticket))
    }),
    [{ name: "one" }]
  )

  test(
    "published anew is served at its new contents, which serves the older changes too",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      nodes[0]!.put(a(web, "192.0.2.1"))
      const [older] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(20)
      nodes[0]!.put(a(web, "192.0.2.2"))
      const [newer] = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.2")] }])
      nodes[1]!.put(a(web, "192.0.2.1"))
      yield* pass(1100)
      assert.isFalse(isServed(older))
      nodes[1]!.put(a(web, "192.0.2.2"))
      yield* pass(1100)
      assert.isTrue(isServed(older))
      assert.isTrue(isServed(newer))
      assert.deepStrictEqual(yield* unserved, [])
    })
  )

  test(
    "whose records changed back and forth is not served by an answer from before the last change",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      // The questions are under way now; their answers are of before.
      for (const node of nodes) node.put(a(web, "192.0.2.2"))
      nodes[1]!.authoritative = false
      const [ticket] = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(200)
      assert.isFalse(isServed(ticket))
    })
  )
})

describe("of two publications of a name", () => {
  test(
    "the later one counts, also when its generation is lower",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.7"))
      yield* publish([{ name: web, generation: 7, rrsets: [a(web, "192.0.2.7")] }])
      const [ticket] = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.6")] }])
      yield* pass(300)
      assert.deepStrictEqual(yield* unserved, [web])
      for (const node of nodes) node.put(a(web, "192.0.2.6"))
      yield* pass(1200)
      assert.isTrue(isServed(ticket))
      assert.deepStrictEqual(yield* unserved, [])
    })
  )
})

describe("the caches of a zone", () => {
  test(
    "are dropped once more a moment after the last of writes in a row, also where the write was taken",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const flushes = () => nodes.map((node) => node.flushes.length)
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      for (let i = 0; i < 10; i++) {
        yield* publish([{ name: web, generation: 5 + i, rrsets: [a(web, "192.0.2.1")] }])
        yield* pass(30)
      }
      assert.deepStrictEqual(flushes(), [0, 10])
      yield* pass(60)
      assert.deepStrictEqual(flushes(), [1, 11])
      yield* pass(1000)
      assert.deepStrictEqual(flushes(), [1, 11])
    })
  )

  test(
    "that cannot be dropped keep nobody from being asked",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      const [, two] = nodes
      two!.flushable = false
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(1200)
      assert.isTrue(isServed(ticket))
      assert.deepStrictEqual(two!.flushes, [])
    })
  )
})

describe("the clock of the machine", () => {
  it.effect("set back an hour keeps nothing from being served", () =>
    T.withTime(
      "on",
      Effect.gen(function* () {
        const { nodes } = yield* FakeNodes.FakeNodes
        for (const node of nodes) node.put(a(web, "192.0.2.1"))
        const first = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
        yield* pass(100)
        yield* (yield* T.Time).jump(-3_600_000)
        nodes[0]!.put(a(web, "192.0.2.2"))
        const second = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.2")] }])
        yield* pass(100)
        yield* (yield* T.Time).jump(-3_600_000)
        nodes[1]!.put(a(web, "192.0.2.2"))
        yield* pass(1200)
        assert.isTrue([...first, ...second].every(isServed))
        assert.deepStrictEqual(yield* unserved, [])
      }).pipe(Effect.provide(layer(two)))
    )
  )
})

describe("a node that does not answer", () => {
  test(
    "delays no other, is asked one question a second, and is served the rest when it is back",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const [one, away] = nodes
      away!.up = false
      const names = Array.from({ length: 500 }, (_, i) => T.nameOf(`h${i}`))
      const tickets = yield* publish(
        names.map((name, i) => {
          for (const node of nodes) node.put(a(name, `192.0.2.${i % 256}`))
          return { name, generation: 5, rrsets: [a(name, `192.0.2.${i % 256}`)] }
        })
      )
      yield* pass(5000)
      const [up, down] = yield* (yield* Serving).status
      assert.deepInclude(up, { up: true, unserved: 0 })
      assert.deepInclude(down, { up: false, unserved: 500 })
      assert.strictEqual((yield* unserved).length, 500)
      assert.strictEqual(one!.asked.length, 500 * 2)
      assert.isFalse(tickets.some(isServed))
      // What it has cached is of before its absence.
      away!.cache.set(`${names[0]!} A`, { rcode: "NXDOMAIN", authoritative: true, ttlSeconds: undefined, contents: [] })
      away!.up = true
      yield* pass(3000)
      assert.isTrue(tickets.every(isServed))
      assert.deepStrictEqual(yield* unserved, [])
      assert.isBelow(away!.asked.length, 500 * 2 + 50)
    })
  )

  test(
    "is not asked faster while it is behind with everything, and catches up quickly",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const behind = nodes[1]!
      const names = Array.from({ length: 1000 }, (_, i) => T.nameOf(`h${i}`))
      for (const name of names) nodes[0]!.put(a(name, "192.0.2.1"))
      const tickets = yield* publish(names.map((name) => ({ name, generation: 5, rrsets: [a(name, "192.0.2.1")] })))
      yield* pass(5000)
      const before = behind.asked.length
      yield* pass(2000)
      assert.isAtMost(behind.asked.length - before, 2 * 200 + 50)
      for (const name of names) behind.put(a(name, "192.0.2.1"))
      yield* pass(5000)
      assert.isTrue(tickets.every(isServed))
    }),
    two,
    { retriesPerSecond: 200 }
  )
})

describe("secondaries", () => {
  test(
    "are notified at most once a second per zone, and again while they do not have it",
    Effect.gen(function* () {
      const { nodes, notified } = yield* FakeNodes.FakeNodes
      nodes[0]!.put(a(web, "192.0.2.1"))
      for (let i = 0; i < 20; i++) {
        yield* publish([{ name: web, generation: 5 + i, rrsets: [a(web, "192.0.2.1")] }])
        yield* pass(100)
      }
      assert.isAtLeast(notified.length, 2)
      assert.isAtMost(notified.length, 3)
      const before = notified.length
      yield* pass(10_000)
      assert.isAbove(notified.length, before)
      assert.isBelow(notified.length, before + 5)
      // A transfer drops what was cached.
      nodes[1]!.put(a(web, "192.0.2.1"))
      nodes[1]!.cache.clear()
      yield* pass(1100)
      assert.deepStrictEqual(yield* unserved, [])
      const after = notified.length
      yield* pass(30_000)
      assert.strictEqual(notified.length, after)
    }),
    [{ name: "one" }, { name: "two", role: "secondary", api: false }]
  )
})

describe("a secondary", () => {
  test(
    "that lacks something after it was told is named again and again, and its serial is known",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const [one, two] = nodes as [FakeNodes.FakeNode, FakeNodes.FakeNode]
      const serving = yield* Serving
      const unheard: Array<readonly [DomainName, boolean]> = []
      yield* serving.onUnheard((zone, isLong) => void unheard.push([zone, isLong]))
      yield* pass(500)
      one.put(a(web, "192.0.2.1"))
      yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(900)
      assert.deepStrictEqual(unheard, [])
      yield* pass(4000)
      assert.isAtLeast(unheard.length, 1)
      assert.isTrue(unheard.every(([name, isLong]) => name === zone && !isLong))
      yield* pass(10_000)
      assert.isTrue(unheard.at(-1)![1])

      const serial = Effect.gen(function* () {
        const asked = yield* Effect.forkChild(serving.secondarySerial(zone))
        yield* pass(1500)
        return yield* Fiber.join(asked)
      })
      assert.isUndefined(yield* serial, "it has no zone")
      two.cache.clear()
      two.put(RRset.make(zone, "SOA", 60, ["ns1.hosts.test. hostmaster.hosts.test. 77 10800 3600 604800 60"]))
      one.put(RRset.make(zone, "SOA", 60, ["ns1.hosts.test. hostmaster.hosts.test. 99 10800 3600 604800 60"]))
      assert.strictEqual(yield* serial, 77)
      two.put(a(web, "192.0.2.1"))
      two.cache.clear()
      yield* pass(2000)
      const count = unheard.length
      yield* pass(20_000)
      assert.strictEqual(unheard.length, count)
      two.up = false
      assert.isUndefined(yield* serial, "it is silent")
    }).pipe(Effect.scoped),
    [{ name: "one" }, { name: "two", role: "secondary", api: false }],
    { notifyMillisMax: 4000 }
  )
})

const missing = { rcode: "NXDOMAIN", authoritative: true, ttlSeconds: undefined, contents: [] } as const

describe("a name in doubt", () => {
  test(
    "is brought to all nodes as ever, and is served by the publication that follows the doubt, of every generation until then",
    Effect.gen(function* () {
      const { nodes, notified } = yield* FakeNodes.FakeNodes
      const serving = yield* Serving
      const publication = { name: web, rrsets: [a(web, "192.0.2.1")] }
      yield* pass(100)
      nodes[1]!.cache.set(`${web} A`, missing)
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      const tickets = yield* publish([{ ...publication, generation: 5, inDoubt: true }])
      yield* pass(2000)
      for (const node of nodes) {
        assert.deepStrictEqual(node.asked, [`${web} A`, `${web} AAAA`], node.node.name)
        assert.isAbove(node.flushes.length, 0, node.node.name)
      }
      assert.deepStrictEqual(notified, [zone])
      // No node is to blame, and nothing is left in memory.
      assert.deepStrictEqual(
        (yield* serving.status).map(({ oldest, unserved }) => ({ oldest, unserved })),
        [0, 1].map(() => ({ oldest: undefined, unserved: 0 }))
      )
      assert.isFalse(isServed(tickets[0]))
      assert.deepStrictEqual(yield* unserved, [web])
      assert.isUndefined(yield* servedAt(web))
      tickets.push(...(yield* publish([{ ...publication, generation: 6 }])))
      yield* pass(200)
      assert.deepStrictEqual(tickets.map(isServed), [true, true])
      assert.deepStrictEqual(yield* unserved, [])
    }),
    [{ name: "one" }, { name: "two", role: "secondary" }]
  )

  test(
    "that was not seen everywhere when the doubt is over is served when it is",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      nodes[0]!.put(a(web, "192.0.2.1"))
      const [first] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")], inDoubt: true }])
      yield* pass(100)
      const [second] = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(100)
      assert.isFalse(isServed(second))
      nodes[1]!.put(a(web, "192.0.2.1"))
      yield* pass(1200)
      assert.deepStrictEqual([first, second].map(isServed), [true, true])
    })
  )

  test(
    "that was about to be served is not, when the doubt comes before that is written down",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(20)
      const [second] = yield* publish([{ name: web, generation: 6, rrsets: [a(web, "192.0.2.1")], inDoubt: true }])
      yield* pass(2000)
      assert.isFalse(isServed(second))
      assert.deepStrictEqual(yield* unserved, [web])
      assert.isUndefined(yield* servedAt(web))
    })
  )

  it.effect("is asked for after a restart too, and not served before the doubt is over", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      yield* pass(2000)
      for (const node of nodes) assert.deepStrictEqual(node.asked, [`${web} A`, `${web} AAAA`])
      assert.deepStrictEqual(yield* unserved, [web])
      assert.isUndefined(yield* servedAt(web))
      yield* sql`UPDATE published SET doubt_until = NULL`
      yield* pass(1500)
      assert.deepStrictEqual(yield* unserved, [])
      assert.isDefined(yield* servedAt(web))
    }).pipe(
      Effect.provide(
        layer(
          two,
          { rescanMillis: 3000 },
          insert([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")], inDoubt: true }])
        )
      )
    )
  )
})

describe("what is not served yet", () => {
  it.effect("is asked on after a restart, and deleted only at its generation", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { nodes } = yield* FakeNodes.FakeNodes
      const gone = T.nameOf("gone")
      for (const node of nodes) node.put(a(gone, "192.0.2.9"))
      yield* pass(100)
      assert.deepStrictEqual(yield* unserved, [gone, web].sort())
      for (const node of nodes) {
        node.put(a(web, "192.0.2.1"))
        node.remove(gone, "A")
      }
      // Settled in the database, not yet told to us.
      yield* sql`UPDATE unserved SET generation = 6 WHERE name = ${web}`
      yield* pass(1200)
      assert.deepStrictEqual(yield* unserved, [web])
      ;(yield* Serving).published(zone, [{ name: web, generation: 6, rrsets: [a(web, "192.0.2.1")] }], "one")
      yield* pass(1200)
      assert.deepStrictEqual(yield* unserved, [])
    }).pipe(
      Effect.provide(
        layer(
          two,
          {},
          insert([
            { name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] },
            { name: T.nameOf("gone"), generation: 5, rrsets: [a(T.nameOf("gone"), "192.0.2.9")] }
          ]).pipe(
            Effect.andThen(
              Effect.flatMap(
                SqlClient.SqlClient,
                (sql) => sql`UPDATE unserved SET content = '[]' WHERE name = ${T.nameOf("gone")}`
              )
            )
          )
        )
      )
    )
  )

  test(
    "and has no room in memory waits in the database, and is served when there is room",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      const names = Array.from({ length: 100 }, (_, i) => T.nameOf(`h${i}`))
      const tickets = yield* publish(names.map((name) => ({ name, generation: 5, rrsets: [a(name, "192.0.2.1")] })))
      yield* pass(100)
      assert.strictEqual((yield* (yield* Serving).status)[0]!.unserved, 10)
      for (const node of nodes) for (const name of names) node.put(a(name, "192.0.2.1"))
      yield* pass(5000)
      assert.deepStrictEqual(yield* unserved, [])
      assert.isTrue(tickets.every(isServed))
    }),
    two,
    { namesMax: 10 }
  )

  test(
    "and of which nobody told us is found in the database",
    Effect.gen(function* () {
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      yield* pass(100)
      yield* insert([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* pass(1000)
      assert.deepStrictEqual(yield* unserved, [])
    }),
    two,
    { rescanMillis: 500 }
  )

  test(
    "is written down when the database is back",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { nodes } = yield* FakeNodes.FakeNodes
      for (const node of nodes) node.put(a(web, "192.0.2.1"))
      const [ticket] = yield* publish([{ name: web, generation: 5, rrsets: [a(web, "192.0.2.1")] }])
      yield* sql`ALTER TABLE published RENAME TO elsewhere`
      yield* pass(3000)
      assert.isFalse(isServed(ticket))
      assert.deepStrictEqual(yield* unserved, [web])
      yield* sql`ALTER TABLE elsewhere RENAME TO published`
      yield* pass(3000)
      assert.isTrue(isServed(ticket))
      assert.deepStrictEqual(yield* unserved, [])
    })
  )
})
