/** Two real PowerDNS, each with a database of its own, that Prism keeps alike, and secondaries that follow them. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import * as Copies from "@prism-dns/core/dns/Copies"
import { Debts } from "@prism-dns/core/dns/Debts"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner, type ProvisionerOptions } from "@prism-dns/core/dns/Provisioner"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import { Serving } from "@prism-dns/core/dns/Serving"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Serial from "@prism-dns/core/domain/Serial"
import type { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import * as PowerDnsProcess from "@prism-dns/core/powerdns/PowerDnsProcess"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Context, Effect, Exit, Layer, Random, Redacted, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import * as Path from "node:path"
import { Postgres } from "../harness/Postgres.ts"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward

interface Node {
  readonly name: string
  readonly role: "primary" | "secondary"
  readonly database: string | undefined
  readonly server: PowerDns.TestPowerDns["Service"]
  readonly api: PowerDnsClient["Service"]
  readonly dns: PowerDns.Dns
}

/** One that may have no API. */
type Follower = Omit<Node, "api"> & { readonly api: Node["api"] | undefined }

/** Each has an address of its own, from which it also sends: secondaries tell them apart by it. */
const startNode = Effect.fnUntraced(function* (
  name: string,
  role: Node["role"],
  backend: PowerDnsProcess.Backend,
  host: string
) {
  const server = yield* PowerDns.startServer(backend, {
    "local-address": host,
    "query-local-address": host,
    ...(role === "primary"
      ? { primary: "yes", "allow-axfr-ips": "127.0.0.0/8" }
      : { secondary: "yes", "allow-notify-from": "127.0.0.0/8" })
  })
  const api = yield* PowerDns.clientOf(server, { node: name, requestTimeout: "1 second" })
  const dns = { host, port: server.dns.port }
  return { name, role, database: role === "primary" ? name : undefined, server, api, dns }
})

/** One on LMDB and one on SQLite: they cannot have anything in common. */
const startNodes = Effect.forEach(
  [
    ["a", PowerDnsProcess.lmdb, "127.0.40.1"],
    ["b", PowerDnsProcess.sqlite, "127.0.40.2"]
  ] as const,
  ([name, backend, host]) => startNode(name, "primary", backend, host)
)

const startSecondary = startNode("s", "secondary", PowerDnsProcess.sqlite, "127.0.40.3")

/** A server of Prism with all that it needs for DNS, quicker to decide than in production. */
const layerOf = (
  nodes: ReadonlyArray<Follower>,
  registry: Layer.Layer<SqlClient.SqlClient>,
  transfer: ProvisionerOptions["transfer"]
) =>
  Layer.merge(Reconciler.layer(), Copies.layer({ pollMillis: 50, settleMillis: 500, refusedMillis: 500 })).pipe(
    Layer.provideMerge(DnsManager.layer({ pollMillis: 50, retryMillisMax: 200, batchesPerSecond: 100 })),
    Layer.provideMerge(Plans.layer),
    Layer.provideMerge(Serving.layer({ probeMillis: 200, notifyMillis: 300 })),
    Layer.provideMerge(NameServers.layer),
    Layer.provideMerge(Provisioner.layer({ transfer, retryMillisMax: 500 })),
    Layer.provideMerge(Debts.layer),
    Layer.provideMerge(
      PowerDnsDatabases.layer({
        probeMillis: 100,
        probeMillisMax: 500,
        awayMillis: 300,
        healthyMillis: 1000,
        lateMillis: 2000,
        readingMillis: 500,
        waitMillisMax: 200
      })
    ),
    Layer.provideMerge(PowerDnsNodes.layerOf(nodes)),
    Layer.provideMerge(T.registry({}, [zone])),
    Layer.provideMerge(registry),
    Layer.provide(SecureRandom.layerWebCrypto),
    Layer.orDie
  )

type Prism = Layer.Success<ReturnType<typeof layerOf>>

const onSqlite = Effect.map(PowerDns.temporaryFolder("prism-copies-"), (folder) =>
  T.sqlite(Path.join(folder, "prism.db"))
)
const onPostgres = Effect.flatMap(Postgres, (postgres) =>
  Effect.map(postgres.createDatabase(), ({ url }) => T.postgresAt(url))
)

const setUp = Effect.fnUntraced(function* (
  registry: Layer.Layer<SqlClient.SqlClient>,
  secondaries: ReadonlyArray<Follower> = [],
  transfer: ProvisionerOptions["transfer"] = { tsig: undefined, catalog: undefined }
) {
  const primaries = yield* startNodes
  const nodes = [...primaries, ...secondaries]
  const outer = yield* Effect.scope
  let scope: Scope.Closeable | undefined
  let context: Context.Context<Prism> | undefined
  const start = Effect.gen(function* () {
    scope = yield* Scope.fork(outer)
    context = yield* Layer.buildWithScope(Layer.fresh(layerOf(nodes, registry, transfer)), scope)
  })
  /** Ends Prism and starts it again on the same registry. */
  const restart = Effect.suspend(() => Effect.andThen(Scope.close(scope!, Exit.void), start))
  yield* start
  const inPrism = <A, E>(effect: Effect.Effect<A, E, Prism>) => Effect.suspend(() => Effect.provide(effect, context!))

  const register = (hostname: string, address: string) =>
    inPrism(Effect.flatMap(Registry, (registry) => registry.register(T.registration(hostname, address))))
  const release = (hostname: string) =>
    inPrism(
      Effect.flatMap(Registry, (registry) =>
        registry.release(T.nameOf(hostname), { name: "ann", peer: undefined }, "it is not needed")
      )
    )
  const until = (level: "applied" | "served", registered: Effect.Success<ReturnType<typeof register>>) =>
    inPrism(Effect.flatMap(Acknowledgements, ({ wait }) => wait(registered.ticket!, level)))
  /** What a node holds of hosts, name by name, by its API. */
  const held = ({ api }: Node) =>
    Effect.map(api.exportZone(zone.name), (rrsets) =>
      rrsets
        .filter(({ type }) => type !== "SOA" && type !== "NS")
        .map(({ contents, name, ttlSeconds, type }) => `${name} ${ttlSeconds} ${type} ${contents.join(" ")}`)
        .sort()
    )
  const [a, b] = primaries as [Node, Node]
  const untilHeld = (node: Node, hosts: Readonly<Record<string, string>>, within = "90 seconds" as const) => {
    const wanted = Object.entries(hosts)
      .map(([hostname, address]) => `${T.nameOf(hostname)} ${zone.policy.ttlSeconds} A ${address}`)
      .sort()
    return waitUntil(
      `${node.name} holds ${wanted.length} names as they should be`,
      held(node),
      (seen) => seen.join("\n") === wanted.join("\n"),
      { within }
    )
  }
  const leader = inPrism(Effect.map(PowerDnsDatabases, ({ leading }) => leading().name))
  const untilLeads = (name: string) =>
    waitUntil(`${name} takes the writes`, leader, (seen) => seen === name, { within: "90 seconds" })
  const unserved = inPrism(
    Effect.flatMap(Serving, ({ status }) =>
      Effect.map(status, (all) => all.flatMap(({ name, unserved }) => (unserved > 0 ? [name] : [])))
    )
  )
  const untilAllServed = waitUntil(
    "every node answers all names as published",
    unserved,
    (names) => names.length === 0,
    {
      within: "90 seconds"
    }
  )
  const debts = inPrism(
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.map(sql<{ readonly name: string }>`SELECT name FROM debt ORDER BY name`, (rows) =>
        rows.map(({ name }) => name)
      )
    )
  )
  return {
    a,
    b,
    restart,
    inPrism,
    register,
    release,
    until,
    held,
    untilHeld,
    untilLeads,
    unserved,
    untilAllServed,
    debts
  }
})

const hosts = (prefix: string, count: number, address = "192.0.2.1") =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${prefix}${i}`, address]))

describe("two primaries with databases of their own", () => {
  it.live(
    "get the same records, and a registration is served when both answer it",
    () =>
      Effect.gen(function* () {
        const { a, b, debts, register, release, until, untilHeld } = yield* setUp(yield* onSqlite)
        const one = yield* register("one", "192.0.2.1")
        assert.strictEqual((yield* until("served", one))._tag, "Served")
        for (const { dns } of [a, b]) {
          assert.deepStrictEqual((yield* PowerDns.resolve(dns, "one.hosts.test", "A")).data, ["192.0.2.1"])
        }
        const many = hosts("m", 300)
        yield* Effect.forEach(Object.entries(many), ([name, address]) => register(name, address), { concurrency: 50 })
        yield* until("served", yield* register("one", "192.0.2.2"))
        yield* release("m7")
        const { m7: _, ...left } = many
        for (const node of [a, b]) yield* untilHeld(node, { ...left, one: "192.0.2.2" })
        yield* waitUntil("nobody owes anything", debts, (names) => names.length === 0, { within: "90 seconds" })
      }),
    240_000
  )

  for (const which of ["a", "b"] as const) {
    it.live(
      `${which} is killed: registrations go on, and it is named; it comes back and has all of it, deletions too, without a name lost or raised from the dead`,
      () =>
        Effect.gen(function* () {
          const { a, b, register, release, until, untilAllServed, untilHeld, untilLeads, unserved } = yield* setUp(
            yield* onSqlite
          )
          const [dead, alive] = which === "a" ? [a, b] : [b, a]
          const before = hosts("m", 100)
          yield* Effect.forEach(Object.entries(before), ([name, address]) => register(name, address), {
            concurrency: 50
          })
          for (const node of [a, b]) yield* untilHeld(node, before)
          yield* untilAllServed

          yield* dead.server.kill
          const changed = yield* register("m1", "192.0.2.101")
          assert.strictEqual((yield* until("applied", changed))._tag, "Applied")
          const made = yield* register("new", "192.0.2.102")
          assert.strictEqual((yield* until("applied", made))._tag, "Applied")
          for (const name of ["m2", "m3", "m4"]) yield* release(name)
          // One that came and went while it was away, and one that went and came back.
          yield* register("brief", "192.0.2.103")
          yield* untilHeld(alive, {
            ...without(before, "m2", "m3", "m4"),
            m1: "192.0.2.101",
            new: "192.0.2.102",
            brief: "192.0.2.103"
          })
          yield* release("brief")
          yield* register("m3", "192.0.2.104")
          const after = {
            ...without(before, "m2", "m4"),
            m1: "192.0.2.101",
            m3: "192.0.2.104",
            new: "192.0.2.102"
          }
          yield* untilHeld(alive, after)
          yield* untilLeads(alive.name)
          yield* waitUntil("the dead one is named", unserved, (names) => names.join() === dead.name, {
            within: "90 seconds"
          })

          yield* dead.server.start
          yield* untilHeld(dead, after)
          yield* untilAllServed
          yield* untilLeads("a")
          yield* until("served", yield* register("new", "192.0.2.105"))
          for (const node of [a, b]) yield* untilHeld(node, { ...after, new: "192.0.2.105" })
        }),
      240_000
    )
  }

  for (const when of ["while one is away", "also right before that one comes back, and so leads at once"] as const) {
    it.live(
      `Prism is started anew ${when}: what that one lacks is not forgotten`,
      () =>
        Effect.gen(function* () {
          const { a, b, register, release, restart, until, untilAllServed, untilHeld, untilLeads, unserved } =
            yield* setUp(yield* onSqlite)
          const before = hosts("m", 50)
          yield* Effect.forEach(Object.entries(before), ([name, address]) => register(name, address), {
            concurrency: 50
          })
          for (const node of [a, b]) yield* untilHeld(node, before)

          yield* a.server.kill
          yield* untilLeads("b")
          yield* release("m1")
          yield* until("applied", yield* register("m2", "192.0.2.102"))
          yield* untilHeld(b, { ...without(before, "m1"), m2: "192.0.2.102" })
          yield* restart
          yield* untilLeads("b")
          yield* release("m3")
          yield* until("applied", yield* register("new", "192.0.2.103"))
          const after = { ...without(before, "m1", "m3"), m2: "192.0.2.102", new: "192.0.2.103" }
          yield* untilHeld(b, after)
          yield* waitUntil("the dead one is named", unserved, (names) => names.join() === "a", { within: "90 seconds" })
          if (when !== "while one is away") yield* restart
          yield* a.server.start
          yield* untilHeld(a, after)
          yield* untilAllServed
          yield* untilLeads("a")
        }),
      240_000
    )
  }

  it.live(
    "one that stands still with a change in hand, and runs again, does not keep the old one",
    () =>
      Effect.gen(function* () {
        const { a, b, register, until, untilAllServed, untilHeld, untilLeads } = yield* setUp(yield* onSqlite)
        yield* until("served", yield* register("one", "192.0.2.1"))
        for (const [node, address] of [
          [a, "192.0.2.10"],
          [b, "192.0.2.20"]
        ] as const) {
          yield* node.server.freeze
          const old = yield* register("one", address)
          yield* untilLeads(node === a ? "b" : "a")
          yield* until("applied", old)
          yield* until("applied", yield* register("one", `${address}1`))
          yield* node.server.thaw
          for (const each of [a, b]) yield* untilHeld(each, { one: `${address}1` })
          yield* untilAllServed
          yield* untilLeads("a")
          for (const each of [a, b]) yield* untilHeld(each, { one: `${address}1` })
        }
      }),
    240_000
  )

  it.live(
    "one that has lost its zone, or drifted, is mended; what is not ours there stays, and is named",
    () =>
      Effect.gen(function* () {
        const { a, b, inPrism, register, until, untilHeld } = yield* setUp(yield* onSqlite)
        const all = hosts("m", 40)
        yield* Effect.forEach(Object.entries(all), ([name, address]) => register(name, address), { concurrency: 50 })
        for (const node of [a, b]) yield* untilHeld(node, all)

        // By somebody's hand, in one of the two.
        yield* b.api.patch(zone.name, [
          { _tag: "Delete", name: T.nameOf("m1"), type: "A" },
          { _tag: "Replace", rrset: RRset.make(T.nameOf("m2"), "A", 60, ["203.0.113.1"]) }
        ])
        const { drift, plan } = yield* inPrism(
          Effect.flatMap(Reconciler, (reconciler) => reconciler.run(zone.name, { by: "ann", apply: true }))
        )
        assert.deepInclude(drift, { missing: 1, different: 1 })
        assert.include(plan.reason, "database b")
        yield* untilHeld(b, all)
        const again = yield* inPrism(
          Effect.flatMap(Reconciler, (reconciler) => reconciler.run(zone.name, { by: "ann", apply: true }))
        )
        assert.strictEqual(again.plan.counts.changes, 0)

        // A record that Prism did not make stands in one of the two at a name that comes.
        yield* b.api.patch(zone.name, [
          { _tag: "Replace", rrset: RRset.make(T.nameOf("theirs"), "A", 60, ["203.0.113.2"]) }
        ])
        yield* until("applied", yield* register("theirs", "192.0.2.50"))
        yield* untilHeld(a, { ...all, theirs: "192.0.2.50" })
        const problems = inPrism(Effect.flatMap(Provisioner, ({ problems }) => problems))
        yield* waitUntil("it is named", problems, (found) =>
          found.some(({ node, reason }) => node === "database b" && reason.includes("theirs.hosts.test"))
        )
        assert.include(
          (yield* b.api.rrsets(zone.name, [T.nameOf("theirs")])).flatMap(({ contents }) => contents),
          "203.0.113.2"
        )
        yield* b.api.patch(zone.name, [{ _tag: "Delete", name: T.nameOf("theirs"), type: "A" }])
        yield* untilHeld(b, { ...all, theirs: "192.0.2.50" })
        yield* waitUntil("and is well", problems, (found) => found.length === 0)

        yield* b.api.deleteZone(zone.name)
        yield* until("applied", yield* register("new", "192.0.2.51"))
        yield* untilHeld(b, { ...all, theirs: "192.0.2.50", new: "192.0.2.51" })
      }),
    240_000
  )
})

layer(Postgres.layer(), { timeout: "120 seconds", excludeTestServices: true })("and a registry on PostgreSQL", (it) => {
  for (const seed of [1]) {
    it.effect(
      `one after the other is away and comes back, with names that come, change and go all the time (${seed})`,
      () => Effect.flatMap(onPostgres, churn).pipe(Random.withSeed(seed), Effect.scoped),
      300_000
    )
  }
})

describe("and a registry on SQLite", () => {
  for (const seed of [3, 4]) {
    it.live(
      `one after the other is away and comes back, with names that come, change and go all the time (${seed})`,
      () => Effect.flatMap(onSqlite, churn).pipe(Random.withSeed(seed)),
      300_000
    )
  }
})

/** What hosts do while servers come and go; in the end both databases hold what was said last. */
const churn = Effect.fnUntraced(function* (registry: Layer.Layer<SqlClient.SqlClient>) {
  const { a, b, register, release, restart, untilAllServed, untilHeld, untilLeads } = yield* setUp(registry)
  const expected = new Map<string, string>()
  const traffic = Effect.gen(function* () {
    for (let i = 0; i < 80; i++) {
      const hostname = `h${yield* Random.nextIntBetween(0, 30)}`
      if (expected.has(hostname) && (yield* Random.nextIntBetween(0, 3)) === 0) {
        yield* release(hostname)
        expected.delete(hostname)
      } else {
        const address = `192.0.2.${yield* Random.nextIntBetween(1, 255)}`
        yield* register(hostname, address)
        expected.set(hostname, address)
      }
      if (i % 20 === 19) yield* Effect.sleep(yield* Random.nextIntBetween(1, 150))
    }
  })
  for (const event of [
    a.server.kill,
    a.server.start,
    b.server.freeze,
    restart,
    b.server.thaw,
    b.server.kill,
    b.server.start,
    a.server.freeze,
    a.server.thaw,
    restart
  ]) {
    yield* traffic
    yield* event
  }
  yield* traffic
  for (const node of [a, b]) yield* untilHeld(node, Object.fromEntries(expected))
  yield* untilAllServed
  yield* untilLeads("a")
  for (const node of [a, b]) yield* untilHeld(node, Object.fromEntries(expected))
})

/** What a server answers for a host's address. */
const untilAnswers = ({ dns, name }: Node, hostname: string, answer: string) =>
  waitUntil(
    `${name} answers ${answer} for ${hostname}`,
    Effect.map(PowerDns.resolve(dns, T.nameOf(hostname), "A"), ({ data, rcode }) => data.join(" ") || rcode),
    (seen) => seen === answer,
    { within: "60 seconds" }
  )

const serialAt = ({ api }: Node) =>
  Effect.map(api.rrsets(zone.name, [zone.name]), (rrsets) =>
    Serial.ofSoa(rrsets.find(({ type }) => type === "SOA")?.contents[0])
  )

/** As if a server had counted so many changes more. */
const countFurther = Effect.fnUntraced(function* ({ api }: Node, changes: number) {
  const soa = (yield* api.rrsets(zone.name, [zone.name])).find(({ type }) => type === "SOA")!
  const content = Serial.inSoa(soa.contents[0]!, Serial.ofSoa(soa.contents[0])! + changes)
  yield* api.patch(zone.name, [{ _tag: "Replace", rrset: RRset.make(zone.name, "SOA", soa.ttlSeconds, [content]) }])
})

const catalog = DomainName.make("catalog.test")
const tsig = {
  name: DomainName.make("xfr"),
  algorithm: "hmac-sha256",
  secret: Redacted.make("kp4/24gyYsEzbuTVJRUMoqGFmN3LYgVDzJ/3oRSP7ys=")
}

describe("a secondary of two primaries with databases of their own", () => {
  for (const how of [
    "that Prism sets up",
    "that learns of it by a catalog, and fetches it by a key",
    "without an API, that names both as its masters"
  ] as const) {
    it.live(
      `${how} answers what is published by whichever leads, and its serial never goes back`,
      () =>
        Effect.gen(function* () {
          const s = yield* startSecondary
          const isByHand = how === "without an API, that names both as its masters"
          const { a, b, inPrism, register, release, until, untilAllServed, untilLeads } = yield* setUp(
            yield* onSqlite,
            [isByHand ? { ...s, api: undefined } : s],
            how === "that learns of it by a catalog, and fetches it by a key" ? { catalog, tsig } : undefined
          )
          if (isByHand) {
            const masters = [a, b].map(({ dns }) => `${dns.host}:${dns.port}`)
            yield* s.api.createZone({ name: zone.name, kind: "Slave", nameservers: [], masters })
          }
          const first = yield* register("one", "192.0.2.1")
          yield* register("goes", "192.0.2.2")
          assert.strictEqual((yield* until("served", first))._tag, "Served")
          yield* untilAllServed
          // The first has counted much further than the other.
          yield* countFurther(a, 1000)
          yield* until("served", yield* register("one", "192.0.2.3"))
          yield* untilAnswers(s, "one", "192.0.2.3")
          const before = (yield* serialAt(s))!
          assert.isTrue(Serial.isUpToDate(before, (yield* serialAt(b))! + 900))

          yield* a.server.kill
          yield* untilLeads("b")
          yield* until("applied", yield* register("one", "192.0.2.4"))
          yield* release("goes")
          yield* register("comes", "192.0.2.5")
          yield* untilAnswers(s, "one", "192.0.2.4")
          yield* untilAnswers(s, "goes", "NXDOMAIN")
          yield* untilAnswers(s, "comes", "192.0.2.5")
          const during = (yield* serialAt(s))!
          assert.isTrue(during > before, `${during} after ${before}`)
          // As far as the first one would have to catch up to be taken for news.
          yield* countFurther(b, 1000)
          yield* until("applied", yield* register("comes", "192.0.2.6"))
          yield* untilAnswers(s, "comes", "192.0.2.6")

          // It is away itself while the first one comes back.
          yield* s.server.stop
          yield* a.server.start
          yield* untilLeads("a")
          yield* until("applied", yield* register("one", "192.0.2.7"))
          yield* s.server.start
          yield* untilAnswers(s, "one", "192.0.2.7")
          yield* until("served", yield* register("one", "192.0.2.8"))
          yield* untilAllServed
          for (const [name, answer] of [
            ["one", "192.0.2.8"],
            ["goes", "NXDOMAIN"],
            ["comes", "192.0.2.6"]
          ] as const) {
            yield* untilAnswers(s, name, answer)
          }
          const after = (yield* serialAt(s))!
          assert.isTrue(after > during + 1000, `${after} after ${during}`)
          yield* waitUntil(
            "nothing is wrong at any node",
            inPrism(Effect.flatMap(Provisioner, ({ problems }) => problems)),
            (found) => found.length === 0,
            { within: "60 seconds" }
          )
          // Only the one that leads tells it of changes by itself.
          const told = ({ api }: Node) => api.getMetadata(zone.name, "ALSO-NOTIFY")
          assert.deepStrictEqual(yield* told(a), [`${s.dns.host}:${s.dns.port}`])
          yield* waitUntil("the other one tells nobody", told(b), (found) => found.length === 0)
        }),
      240_000
    )
  }
})

const without = (all: Readonly<Record<string, string>>, ...names: ReadonlyArray<string>) =>
  Object.fromEntries(Object.entries(all).filter(([name]) => !names.includes(name)))
