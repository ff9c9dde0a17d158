/** Two databases in memory, of which now one leads and now the other, before either has been given what it lacks. */
import { assert, describe, it } from "@effect/vitest"
import { Cluster, zoneLease } from "@prism-dns/core/cluster/Cluster"
import * as Copies from "@prism-dns/core/dns/Copies"
import { Debts } from "@prism-dns/core/dns/Debts"
import * as ForeignNames from "@prism-dns/core/dns/ForeignNames"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { Serving } from "@prism-dns/core/dns/Serving"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Context, Effect, Layer, Logger } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { makeLeases } from "../harness/leases.ts"
import * as T from "../layers.ts"

const zone = T.forward
const web = T.nameOf("web")

/** How long a database that was away waits to be given what it lacks: until then it may come to lead without. */
const longSeconds = 300

const startDatabase = (name: string) =>
  Effect.map(Layer.build(PowerDnsMemory.layer({ node: name })), (context) => ({
    name,
    role: "primary" as const,
    database: name,
    api: Context.get(context, PowerDnsClient),
    memory: Context.get(context, PowerDnsMemory),
    dns: { host: "127.0.0.1", port: 53 }
  }))

type Started = Effect.Success<ReturnType<typeof startDatabase>>

/** Lets time pass in steps in which everything that is due happens. */
const pass = (seconds: number) => Effect.repeat(TestClock.adjust(500), { times: seconds * 2 - 1 })

const setUp = Effect.fnUntraced(function* (
  settleSeconds = longSeconds,
  cluster: Layer.Layer<Cluster> = Cluster.layerAlone
) {
  const a = yield* startDatabase("a")
  const b = yield* startDatabase("b")
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => void lines.push(String(message)))
  const context = yield* Layer.build(
    Copies.layer({ settleMillis: settleSeconds * 1000 }).pipe(
      Layer.provideMerge(DnsManager.layer({})),
      Layer.provideMerge(Serving.layerNone),
      Layer.provideMerge(Plans.layer),
      Layer.provideMerge(Provisioner.layer()),
      Layer.provideMerge(Debts.layer),
      Layer.provideMerge(PowerDnsDatabases.layer()),
      Layer.provideMerge(PowerDnsNodes.layerOf([a, b])),
      Layer.provideMerge(T.registry({}, [zone], cluster)),
      Layer.provideMerge(T.sqlite()),
      Layer.provide(SecureRandom.layerWebCrypto),
      Layer.provide(Logger.layer([logger])),
      Layer.orDie
    )
  )
  const registry = Context.get(context, Registry)
  const databases = Context.get(context, PowerDnsDatabases)
  const registerAll = (hostnames: ReadonlyArray<string>, address: string) =>
    Effect.andThen(
      Effect.forEach(hostnames, (hostname) => registry.register(T.registration(hostname, address))),
      pass(3)
    )
  const register = (hostname: string, address: string) => registerAll([hostname], address)
  const releaseAll = (hostnames: ReadonlyArray<string>) =>
    Effect.andThen(
      Effect.forEach(hostnames, (hostname) =>
        registry.release(T.nameOf(hostname), { name: "ann", peer: undefined }, "it is not needed")
      ),
      pass(3)
    )
  const release = (hostname: string) => releaseAll([hostname])
  /** From now on it leads, whatever it lacks. */
  const lead = Effect.fnUntraced(function* (next: Started) {
    yield* next.memory.up
    yield* (next === a ? b : a).memory.down
    yield* pass(10)
    assert.strictEqual(databases.leading().name, next.name)
  })
  const bothWell = Effect.gen(function* () {
    yield* a.memory.up
    yield* b.memory.up
    yield* pass(settleSeconds + 30)
  })
  const held = ({ api }: Started, name: DomainName = web) =>
    Effect.map(api.rrsets(zone.name, [name]), (rrsets) =>
      rrsets.map(({ contents, type }) => `${type} ${contents.join(" ")}`)
    )
  const parked = Effect.map(Context.get(context, Outbox).list({ limit: 100 }), (all) =>
    all.flatMap(({ name, parkedReason }) => (parkedReason === undefined ? [] : [name]))
  )
  const complaints = () => lines.filter((line) => /parked|not copied|left alone/.test(line))
  yield* pass(10)
  return {
    a,
    b,
    sql: Context.get(context, SqlClient.SqlClient),
    register,
    registerAll,
    release,
    releaseAll,
    lead,
    bothWell,
    held,
    parked,
    complaints
  }
})

describe("a database that leads before it has been given what it lacks", () => {
  it.effect("a name that was deleted and comes again is written over what is left of it there", () =>
    Effect.gen(function* () {
      const { a, b, bothWell, complaints, held, lead, register, release } = yield* setUp()
      yield* register("web", "192.0.2.1")
      assert.deepStrictEqual(yield* held(b), ["A 192.0.2.1"])
      yield* b.memory.down
      yield* pass(5)
      yield* release("web")
      yield* lead(b)
      assert.deepStrictEqual(yield* held(b), ["A 192.0.2.1"])
      yield* register("web", "2001:db8::2")
      assert.deepStrictEqual(yield* held(b), ["AAAA 2001:db8::2"])
      yield* bothWell
      for (const each of [a, b]) assert.deepStrictEqual(yield* held(each), ["AAAA 2001:db8::2"])
      assert.deepStrictEqual(complaints(), [])
    })
  )

  it.effect("nor is it taken for somebody else's later, where the zone was read whole while it stood there", () =>
    Effect.gen(function* () {
      const { a, b, bothWell, complaints, held, lead, registerAll, releaseAll } = yield* setUp(15)
      const hostnames = Array.from({ length: 3 * ForeignNames.namesReadAnew }, (_, i) => `host-${i}`)
      yield* registerAll(hostnames, "192.0.2.1")
      yield* b.memory.down
      yield* pass(5)
      yield* releaseAll(hostnames)
      yield* lead(b)
      yield* b.memory.forgetCalls
      yield* registerAll(hostnames, "192.0.2.2")
      assert.include(
        (yield* b.memory.calls).map(({ operation }) => operation),
        "records"
      )
      // It is given what it lacked, and then lacks nothing of these names.
      yield* pass(15)
      yield* releaseAll(hostnames)
      yield* registerAll(hostnames, "192.0.2.3")
      for (const hostname of hostnames) {
        assert.deepStrictEqual(yield* held(b, T.nameOf(hostname)), ["A 192.0.2.3"])
      }
      yield* bothWell
      for (const each of [a, b]) assert.deepStrictEqual(yield* held(each, T.nameOf("host-0")), ["A 192.0.2.3"])
      assert.deepStrictEqual(complaints(), [])
    })
  )

  it.effect("what somebody else has put there stays, at a name of which it lacks nothing, or not that type", () =>
    Effect.gen(function* () {
      const { b, complaints, held, lead, parked, register, release } = yield* setUp()
      yield* register("web", "192.0.2.1")
      yield* b.memory.down
      yield* pass(5)
      yield* release("web")
      // Nobody has looked there for this one.
      yield* register("brief", "192.0.2.3")
      yield* release("brief")
      const theirs = ["web", "brief", "theirs"].map(T.nameOf)
      yield* b.memory.put(zone.name, RRset.make(web, "CNAME", 60, ["elsewhere.test"]))
      yield* b.memory.remove(zone.name, web, "A")
      for (const name of theirs.slice(1)) {
        yield* b.memory.put(zone.name, RRset.make(name, "A", 60, ["203.0.113.1"]))
      }
      yield* lead(b)
      for (const hostname of ["web", "brief", "theirs"]) yield* register(hostname, "192.0.2.4")
      assert.sameMembers([...(yield* parked)], theirs)
      assert.lengthOf(complaints(), 3)
      assert.deepStrictEqual(yield* held(b), ["CNAME elsewhere.test"])
      for (const name of theirs.slice(1)) assert.deepStrictEqual(yield* held(b, name), ["A 203.0.113.1"])
    })
  )

  it.effect("what somebody else has put there stays when it is given the rest, and is named", () =>
    Effect.gen(function* () {
      const { b, complaints, held, lead, register } = yield* setUp(15)
      yield* b.memory.down
      yield* pass(5)
      yield* register("web", "192.0.2.1")
      yield* register("db", "192.0.2.2")
      yield* b.memory.put(zone.name, RRset.make(web, "A", 60, ["203.0.113.1"]))
      yield* lead(b)
      yield* pass(30)
      assert.deepStrictEqual(yield* held(b), ["A 203.0.113.1"])
      assert.deepStrictEqual(yield* held(b, T.nameOf("db")), ["A 192.0.2.2"])
      assert.deepStrictEqual(complaints(), ["a name was not copied to a PowerDNS database"])
    })
  )

  it.effect("what is written there in the meantime is known to be ours when it follows again", () =>
    Effect.gen(function* () {
      const { a, b, bothWell, complaints, held, lead, register } = yield* setUp()
      yield* lead(b)
      yield* register("web", "192.0.2.1")
      yield* lead(a)
      assert.deepStrictEqual(yield* held(a), [])
      yield* register("web", "192.0.2.2")
      assert.deepStrictEqual(yield* held(a), ["A 192.0.2.2"])
      yield* lead(b)
      yield* register("web", "192.0.2.3")
      yield* bothWell
      for (const each of [a, b]) assert.deepStrictEqual(yield* held(each), ["A 192.0.2.3"])
      assert.deepStrictEqual(complaints(), [])
    })
  )

  it.effect("a name whose last write had no answer is deleted there too", () =>
    Effect.gen(function* () {
      const { a, b, bothWell, complaints, held, lead, register, release } = yield* setUp()
      yield* register("web", "192.0.2.1")
      yield* b.memory.down
      yield* pass(5)
      yield* register("web", "192.0.2.2")
      yield* a.memory.down
      yield* register("web", "192.0.2.3")
      yield* release("web")
      yield* lead(b)
      yield* pass(30)
      assert.deepStrictEqual(yield* held(b), [])
      yield* bothWell
      for (const each of [a, b]) assert.deepStrictEqual(yield* held(each), [])
      assert.deepStrictEqual(complaints(), [])
    })
  )
})

describe("a database that follows", () => {
  it.effect("is rid of a write of it that comes late, when another has deleted the name since", () =>
    Effect.gen(function* () {
      const leases = makeLeases()
      const { b, complaints, held, register, release, sql } = yield* setUp(5, Layer.succeed(Cluster, leases.cluster))
      const lease = zoneLease(zone.name)
      yield* leases.give(lease)
      yield* pass(10)
      yield* b.memory.delayNext("1 minute", "patch")
      yield* register("web", "192.0.2.1")
      assert.deepStrictEqual(yield* held(b), [])
      // This server stands still. Another copies the name, deletes it, and copies that.
      yield* release("web")
      yield* sql`DELETE FROM outbox`
      yield* sql`DELETE FROM published`
      yield* sql`DELETE FROM debt`
      yield* b.memory.put(zone.name, RRset.make(web, "A", 60, ["192.0.2.1"]))
      yield* leases.take(lease)
      yield* leases.give(lease)
      yield* pass(10)
      assert.deepStrictEqual(yield* held(b), [])
      // It may even come once more.
      yield* b.memory.put(zone.name, RRset.make(web, "A", 60, ["192.0.2.1"]))
      yield* pass(20)
      assert.deepStrictEqual(yield* held(b), [])
      assert.deepStrictEqual(yield* sql`SELECT name FROM debt`, [])
      assert.deepStrictEqual(complaints(), [])
    })
  )

  it.effect("has a name again that a late deletion took away, which another has copied since", () =>
    Effect.gen(function* () {
      const leases = makeLeases()
      const { b, complaints, held, register, release, sql } = yield* setUp(5, Layer.succeed(Cluster, leases.cluster))
      const lease = zoneLease(zone.name)
      yield* leases.give(lease)
      yield* pass(10)
      yield* register("web", "192.0.2.1")
      assert.deepStrictEqual(yield* held(b), ["A 192.0.2.1"])
      yield* b.memory.delayNext("1 minute", "patch")
      yield* release("web")
      // This server stands still. Another copies that, and that the host is back; then the deletion comes.
      yield* sql`DELETE FROM debt`
      yield* leases.take(lease)
      yield* leases.give(lease)
      yield* register("web", "192.0.2.1")
      yield* pass(10)
      assert.deepStrictEqual(yield* held(b), ["A 192.0.2.1"])
      yield* b.memory.remove(zone.name, web, "A")
      yield* pass(20)
      assert.deepStrictEqual(yield* held(b), ["A 192.0.2.1"])
      assert.deepStrictEqual(yield* sql`SELECT name FROM debt`, [])
      assert.deepStrictEqual(complaints(), [])
    })
  )

  it.effect("is asked once what stands at all the new names of a batch, and not name by name", () =>
    Effect.gen(function* () {
      const { b, bothWell, complaints, held, register } = yield* setUp()
      yield* b.memory.down
      yield* pass(5)
      const hostnames = Array.from({ length: 20 }, (_, i) => `host-${i}`)
      yield* Effect.forEach(hostnames, (hostname) => register(hostname, "192.0.2.1"))
      const theirs = T.nameOf(hostnames[0]!)
      const others = hostnames.slice(1).map((hostname) => T.nameOf(hostname))
      yield* b.memory.put(zone.name, RRset.make(theirs, "A", 60, ["203.0.113.1"]))
      yield* b.memory.forgetCalls
      yield* bothWell
      for (const name of others) assert.deepStrictEqual(yield* held(b, name), ["A 192.0.2.1"])
      assert.deepStrictEqual(yield* held(b, theirs), ["A 203.0.113.1"])
      assert.deepStrictEqual(complaints(), ["a name was not copied to a PowerDNS database"])
      const looks = (yield* b.memory.calls).filter(({ operation }) => operation === "rrsets")
      const first = looks.find(({ names = [] }) => names.includes(others[0]!))
      assert.lengthOf(first?.names ?? [], hostnames.length)
    })
  )
})
