import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { Provisioner, type ProvisionerOptions } from "@prism-dns/core/dns/Provisioner"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Serial from "@prism-dns/core/domain/Serial"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient, type TsigKey } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { PowerDnsNodes, type Role } from "@prism-dns/core/powerdns/PowerDnsNodes"

const zone = Zone.make(DomainName.make("hosts.test"))
const catalog = DomainName.make("catalog.test")
const tsig: TsigKey = {
  name: DomainName.make("xfr"),
  algorithm: "hmac-sha256",
  secret: Redacted.make("c2VjcmV0IG9mIHRoaXMgdGVzdCAqKioqKioqKioqKio=")
}

const servers = Effect.fnUntraced(function* (
  roles: Readonly<Record<string, Role>>,
  transfer: Partial<ProvisionerOptions["transfer"]> = {},
  databases: Readonly<Record<string, string>> = {}
) {
  const nodes = yield* Effect.forEach(Object.entries(roles), ([name, role], i) =>
    Effect.map(Layer.build(PowerDnsMemory.layer({ node: name })), (context) => ({
      name,
      role,
      database: databases[name],
      api: Context.get(context, PowerDnsClient),
      memory: Context.get(context, PowerDnsMemory),
      dns: { host: `192.0.2.${i + 1}`, port: 5300 + i }
    }))
  )
  const primary = nodes.find(({ role }) => role === "primary")!
  let leader = primary.api
  /** Whichever leads at each call. */
  const leading = new Proxy(primary.api, { get: (_, key: keyof PowerDnsClient["Service"]) => leader[key] })
  const context = yield* Layer.build(
    Provisioner.layer({ transfer: { tsig: undefined, catalog: undefined, ...transfer } }).pipe(
      Layer.provide(PowerDnsNodes.layerOf(nodes)),
      Layer.provide(Layer.succeed(PowerDnsClient, leading))
    )
  )
  const node = (name: string) => nodes.find((each) => each.name === name)!
  const lead = (name: string) => void (leader = node(name).api)
  return { provisioner: Context.get(context, Provisioner), primary, node, lead }
})

const find = (api: PowerDnsClient["Service"], name: DomainName.DomainName) =>
  Effect.map(api.findZone(name), Option.getOrThrow)

const pass = (seconds: number) => Effect.repeat(TestClock.adjust(100), { times: seconds * 10 - 1 })

describe("a zone at the primary", () => {
  it.effect("is created Native when nobody fetches it, and nothing is changed when it is as it should be", () =>
    Effect.gen(function* () {
      const { primary, provisioner } = yield* servers({ a: "primary", b: "replica" }, { tsig, catalog })
      yield* provisioner.ensure(zone)
      const made = yield* find(primary.api, zone.name)
      assert.deepInclude(made, { kind: "Native", soaEditApi: "INCREASE", dnssec: false, catalog: undefined })
      assert.deepStrictEqual(made.primaryKeys, [])
      assert.isFalse(provisioner.notifyNeeded(zone))
      yield* provisioner.ensure(zone)
      assert.deepStrictEqual(yield* find(primary.api, zone.name), made)
    })
  )

  it.effect("that is not ours to create is missed by name", () =>
    Effect.gen(function* () {
      const { provisioner } = yield* servers({ a: "primary" })
      const error = yield* Effect.flip(provisioner.ensure(Zone.make(zone.name, { createIfMissing: false })))
      assert.strictEqual(error.reason._tag, "NotFound")
      assert.match(error.message, /zone hosts\.test\. does not exist there; create it, or set 'create: true'/)
    })
  )

  it.effect("that is fetched is Master, in the catalog, with the key, and notifies the secondaries", () =>
    Effect.gen(function* () {
      for (const isThere of [false, true]) {
        const { primary, provisioner } = yield* servers({ a: "primary", s: "secondary" }, { tsig, catalog })
        if (isThere) {
          yield* primary.api.createZone({ name: zone.name, kind: "Native", nameservers: [] })
          yield* primary.api.setMetadata(zone.name, "ALSO-NOTIFY", ["198.51.100.1:53"])
        }
        yield* provisioner.ensure(zone)
        assert.deepInclude(yield* find(primary.api, zone.name), {
          kind: "Master",
          catalog,
          primaryKeys: [tsig.name],
          soaEditApi: "INCREASE"
        })
        assert.deepInclude(yield* find(primary.api, catalog), { kind: "Producer", primaryKeys: [tsig.name] })
        const notified = isThere ? ["198.51.100.1:53", "192.0.2.2:5301"] : ["192.0.2.2:5301"]
        assert.deepStrictEqual(yield* primary.api.getMetadata(zone.name, "ALSO-NOTIFY"), notified)
        assert.isTrue(provisioner.notifyNeeded(zone))
      }
    })
  )

  it.effect("is signed when asked for, in a way that its secondaries can have", () =>
    Effect.gen(function* () {
      const signed = Zone.make(zone.name, { dnssec: true })
      const alone = yield* servers({ a: "primary" })
      yield* alone.provisioner.ensure(zone)
      assert.deepStrictEqual(yield* alone.provisioner.dnssec(zone.name), { signed: false, keys: [] })
      yield* alone.provisioner.ensure(signed)
      assert.deepInclude(yield* find(alone.primary.api, zone.name), {
        dnssec: true,
        nsec3Narrow: true,
        apiRectify: false
      })
      const told = yield* alone.provisioner.dnssec(zone.name)
      assert.isTrue(told.signed)
      assert.strictEqual(told.keys.length, 1)

      const fetched = yield* servers({ a: "primary", s: "secondary" })
      yield* fetched.provisioner.ensure(signed)
      const chain = { dnssec: true, nsec3Narrow: false, apiRectify: true }
      assert.deepInclude(yield* find(fetched.primary.api, zone.name), chain)

      const narrowed = yield* servers({ a: "primary", s: "secondary" })
      yield* narrowed.primary.api.createZone({ name: zone.name, kind: "Native", nameservers: [], dnssec: "narrow" })
      yield* narrowed.provisioner.ensure(zone)
      assert.deepInclude(yield* find(narrowed.primary.api, zone.name), chain)
    })
  )

  it.effect("gets a proper SOA in place of PowerDNS's placeholder, and keeps any other", () =>
    Effect.gen(function* () {
      const { primary, provisioner } = yield* servers({ a: "primary" })
      const soa = Effect.map(primary.api.rrsets(zone.name, [zone.name]), (sets) =>
        sets.flatMap(({ contents, type }) => (type === "SOA" ? contents : []))
      )
      const put = (content: string) => primary.memory.put(zone.name, RRset.make(zone.name, "SOA", 3600, [content]))
      yield* primary.api.createZone({ name: zone.name, kind: "Native", nameservers: [] })
      yield* put("a.misconfigured.dns.server.invalid. hostmaster.hosts.test. 7 10800 3600 604800 3600")
      yield* provisioner.ensure(zone)
      assert.match((yield* soa).join(), /^ns1\.hosts\.test\. hostmaster\.hosts\.test\. \d+ 10800 3600 604800 60$/)
      const own = "dns.example. me.example. 9 1 2 3 4"
      yield* put(own)
      yield* provisioner.ensure(zone)
      assert.deepStrictEqual(yield* soa, [own])
    })
  )

  it.effect("may be written before the rest is seen to only when publishing lacks nothing there", () =>
    Effect.gen(function* () {
      const signed = Zone.make(zone.name, { dnssec: true })
      const alone = yield* servers({ a: "primary" })
      assert.isFalse(yield* alone.provisioner.isWritable(zone))
      yield* alone.provisioner.ensure(zone)
      assert.isTrue(yield* alone.provisioner.isWritable(zone))
      assert.isFalse(yield* alone.provisioner.isWritable(signed))

      for (const [kind, expected] of [
        ["Native", false],
        ["Master", true],
        ["Slave", false]
      ] as const) {
        const fetched = yield* servers({ a: "primary", s: "secondary" }, { tsig, catalog })
        yield* fetched.primary.api.createZone({ name: zone.name, kind, nameservers: [], masters: ["192.0.2.9:53"] })
        assert.strictEqual(yield* fetched.provisioner.isWritable(zone), expected, kind)
      }

      const two = yield* servers({ a: "primary", b: "primary" }, {}, { a: "one", b: "two" })
      yield* two.primary.api.createZone({ name: zone.name, kind: "Native", nameservers: [], dnssec: "narrow" })
      assert.isFalse(yield* two.provisioner.isWritable(zone))
    })
  )

  it.effect("that is fetched from elsewhere is not written", () =>
    Effect.gen(function* () {
      const { primary, provisioner } = yield* servers({ a: "primary" })
      yield* primary.api.createZone({ name: zone.name, kind: "Slave", nameservers: [], masters: ["192.0.2.9:53"] })
      const error = yield* Effect.flip(provisioner.ensure(zone))
      assert.strictEqual(error.reason._tag, "Refused")
      assert.match(error.message, /hosts\.test\. is not written there: its kind is Slave/)
    })
  )

  it.effect("is published though its key or its catalog is not to be had; the problem is told until it is gone", () =>
    Effect.gen(function* () {
      const { primary, provisioner } = yield* servers({ a: "primary", s: "secondary" }, { tsig, catalog })
      yield* primary.api.ensureTsigKey({ ...tsig, algorithm: "hmac-sha512" })
      yield* provisioner.ensure(zone)
      assert.strictEqual((yield* find(primary.api, zone.name)).kind, "Master")
      const [problem] = yield* provisioner.problems
      assert.deepInclude(problem, { zone: catalog, node: "a" })
      assert.match(problem!.reason, /TSIG key xfr\. with another secret or algorithm/)

      const other = yield* servers({ a: "primary", s: "secondary" }, { catalog })
      yield* other.primary.api.createZone({ name: catalog, kind: "Native", nameservers: [] })
      yield* other.provisioner.ensure(zone)
      assert.match((yield* other.provisioner.problems)[0]!.reason, /catalog\.test\. exists there and is no catalog/)
      yield* other.primary.api.deleteZone(catalog)
      yield* other.provisioner.ensure(zone)
      assert.deepStrictEqual(yield* other.provisioner.problems, [])
      assert.strictEqual((yield* find(other.primary.api, zone.name)).catalog, catalog)
    })
  )

  it.effect("that is new is made known to the servers that share its database", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers({ a: "primary", b: "primary", r: "replica", s: "secondary" })
      yield* provisioner.ensure(zone)
      yield* pass(1)
      const flushes = (name: string) =>
        Effect.map(node(name).memory.calls, (calls) => calls.filter(({ operation }) => operation === "flush").length)
      assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "r", "s"], flushes), [2, 2, 2, 0])
    })
  )
})

describe("a zone at a secondary", () => {
  it.effect("is made with all primaries as masters and the key, and fetched", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers({ a: "primary", b: "primary", s: "secondary" }, { tsig })
      const { api, memory } = node("s")
      yield* provisioner.ensure(zone)
      yield* pass(1)
      assert.deepInclude(yield* find(api, zone.name), {
        kind: "Slave",
        masters: ["192.0.2.1:5300", "192.0.2.2:5301"],
        secondaryKeys: [tsig.name]
      })
      assert.strictEqual((yield* memory.calls).filter(({ operation }) => operation === "axfrRetrieve").length, 1)
      assert.deepStrictEqual(yield* provisioner.problems, [])
    })
  )

  it.effect("that is away holds up nobody, is told of, and is seen to when it is back", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers({ a: "primary", s: "secondary", t: "secondary" })
      yield* node("s").memory.down
      yield* provisioner.ensure(zone)
      yield* pass(60)
      const told = yield* provisioner.problems
      assert.deepStrictEqual(
        told.map(({ node, zone }) => ({ node, zone })),
        [{ node: "s", zone: zone.name }]
      )
      assert.strictEqual((yield* find(node("t").api, zone.name)).kind, "Slave")
      yield* node("s").memory.up
      yield* pass(60)
      assert.strictEqual((yield* find(node("s").api, zone.name)).kind, "Slave")
      assert.deepStrictEqual(yield* provisioner.problems, [])
    })
  )

  it.effect("that is no secondary zone there stays as it is, and is told of", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers({ a: "primary", s: "secondary" })
      yield* node("s").api.createZone({ name: zone.name, kind: "Native", nameservers: [] })
      yield* provisioner.ensure(zone)
      yield* pass(3)
      assert.strictEqual((yield* find(node("s").api, zone.name)).kind, "Native")
      assert.match((yield* provisioner.problems)[0]!.reason, /its kind is Native instead of Slave/)
    })
  )

  it.effect("comes by the catalog, and then gets the key that the catalog does not bring", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers({ a: "primary", s: "secondary" }, { tsig, catalog })
      const { api } = node("s")
      yield* provisioner.ensure(zone)
      yield* pass(5)
      assert.deepInclude(yield* find(api, catalog), {
        kind: "Consumer",
        masters: ["192.0.2.1:5300"],
        secondaryKeys: [tsig.name]
      })
      assert.isTrue(Option.isNone(yield* api.findZone(zone.name)))
      assert.deepStrictEqual(yield* provisioner.problems, [], "it is on its way")
      yield* pass(60)
      assert.match((yield* provisioner.problems)[0]!.reason, /has not brought the zone hosts\.test\. there yet/)
      // as PowerDNS makes it from the catalog
      yield* api.createZone({ name: zone.name, kind: "Slave", nameservers: [], masters: ["192.0.2.1:5300"], catalog })
      yield* pass(60)
      assert.deepInclude(yield* find(api, zone.name), { kind: "Slave", secondaryKeys: [tsig.name], catalog })
      assert.deepStrictEqual(yield* provisioner.problems, [])
    })
  )
})

describe("a zone of primaries with databases of their own", () => {
  const own = { a: "one", b: "two" }
  const roles = { a: "primary", b: "primary", s: "secondary" } as const
  const notified = (api: PowerDnsClient["Service"]) => api.getMetadata(zone.name, "ALSO-NOTIFY")
  const retrieved = ({ memory }: { readonly memory: PowerDnsMemory["Service"] }) =>
    Effect.map(memory.calls, (calls) => calls.filter(({ operation }) => operation === "axfrRetrieve").length)

  it.effect("may be fetched from each, and is from the one that leads, which alone notifies", () =>
    Effect.gen(function* () {
      const { lead, node, provisioner } = yield* servers(roles, { tsig }, own)
      const both = Effect.gen(function* () {
        yield* provisioner.ensure(zone)
        for (const name of ["a", "b"]) yield* provisioner.ensureCopy(zone, node(name).api)
        yield* pass(3)
      })
      yield* both
      for (const name of ["a", "b"]) {
        assert.deepInclude(yield* find(node(name).api, zone.name), { kind: "Master", primaryKeys: [tsig.name] })
      }
      assert.deepStrictEqual((yield* find(node("s").api, zone.name)).masters, ["192.0.2.1:5300"])
      assert.deepStrictEqual([yield* notified(node("a").api), yield* notified(node("b").api)], [["192.0.2.3:5302"], []])
      yield* node("s").memory.forgetCalls
      yield* node("a").api.setMetadata(zone.name, "ALSO-NOTIFY", ["198.51.100.1:53", "192.0.2.3:5302"])
      lead("b")
      yield* both
      assert.deepStrictEqual((yield* find(node("s").api, zone.name)).masters, ["192.0.2.2:5301"])
      assert.isAtLeast(yield* retrieved(node("s")), 1)
      assert.deepStrictEqual(
        [yield* notified(node("a").api), yield* notified(node("b").api)],
        [["198.51.100.1:53"], ["192.0.2.3:5302"]]
      )
      assert.deepStrictEqual(yield* provisioner.problems, [])
    })
  )

  it.effect("has its serial raised above what secondaries have, where they would not take it for newer", () =>
    Effect.gen(function* () {
      const { node, provisioner } = yield* servers(roles, {}, own)
      yield* provisioner.ensure(zone)
      const serial = Effect.map(find(node("a").api, zone.name), (found) => found.serial)
      const first = yield* serial
      yield* provisioner.ensure(zone, { serial: first, isForeign: false })
      yield* provisioner.ensure(zone, { serial: first - 1, isForeign: true })
      assert.strictEqual(yield* serial, first)
      yield* node("a").memory.forgetCalls
      yield* provisioner.ensure(zone, { serial: first, isForeign: true })
      assert.strictEqual(yield* serial, first + 1)
      yield* provisioner.ensure(zone, { serial: first + 1000, isForeign: false })
      assert.strictEqual(yield* serial, first + 1001)
      yield* pass(1)
      const calls = yield* node("a").memory.calls
      assert.strictEqual(calls.filter(({ operation }) => operation === "notify").length, 2)
    })
  )

  it.effect("is not fetched by force where that would take a secondary's serial back", () =>
    Effect.gen(function* () {
      const { lead, node, provisioner } = yield* servers(roles, {}, own)
      yield* provisioner.ensure(zone)
      yield* provisioner.ensureCopy(zone, node("b").api)
      yield* pass(3)
      const before = yield* retrieved(node("s"))
      // What it fetched of the first one, which has counted further.
      const [soa] = (yield* node("b").api.rrsets(zone.name, [zone.name])).filter(({ type }) => type === "SOA")
      const { serial } = yield* find(node("b").api, zone.name)
      yield* node("s").api.patch(zone.name, [
        { _tag: "Replace", rrset: RRset.make(zone.name, "SOA", 60, [Serial.inSoa(soa!.contents[0]!, serial + 100)]) }
      ])
      lead("b")
      yield* provisioner.ensure(zone)
      yield* pass(3)
      assert.deepStrictEqual((yield* find(node("s").api, zone.name)).masters, ["192.0.2.2:5301"])
      assert.strictEqual(yield* retrieved(node("s")), before)
    })
  )

  it.effect("has its catalog in the first one only, whose members are fetched from the one that leads", () =>
    Effect.gen(function* () {
      const { lead, node, provisioner } = yield* servers(roles, { tsig, catalog }, own)
      yield* provisioner.ensure(zone)
      yield* provisioner.ensureCopy(zone, node("b").api)
      assert.strictEqual((yield* find(node("a").api, zone.name)).catalog, catalog)
      assert.isUndefined((yield* find(node("b").api, zone.name)).catalog)
      assert.isTrue(Option.isNone(yield* node("b").api.findZone(catalog)))
      const { api } = node("s")
      yield* pass(5)
      // as PowerDNS makes it from the catalog
      yield* api.createZone({ name: zone.name, kind: "Slave", nameservers: [], masters: ["192.0.2.1:5300"], catalog })
      lead("b")
      yield* provisioner.ensure(zone)
      yield* pass(5)
      assert.deepInclude(yield* find(api, zone.name), { masters: ["192.0.2.2:5301"], secondaryKeys: [tsig.name] })
      assert.deepStrictEqual((yield* find(api, catalog)).masters, ["192.0.2.1:5300"])
    })
  )
})
