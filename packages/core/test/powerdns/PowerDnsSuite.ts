/**
 * What every implementation of `PowerDnsClient` does. The in-memory server
 * earns its place by passing what the real one passes, on each backend.
 */
import { assert, layer as withLayer } from "@effect/vitest"
import { Effect, type Layer, Option, Redacted, Stream } from "effect"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Serial from "@prism-dns/core/domain/Serial"
import { PowerDnsClient, type TsigKey, type ZoneSettings } from "@prism-dns/core/powerdns/PowerDnsClient"

type Change = RRset.RRsetChange

export const replace = (name: string, type: string, contents: ReadonlyArray<string>, ttlSeconds = 60): Change => ({
  _tag: "Replace",
  // not by RRset.make: it would mend what some tests get wrong on purpose
  rrset: { name: name as DomainName.DomainName, type, ttlSeconds, contents }
})

/** Kept in PowerDNS, and not answered. */
export const disable = (name: string, type: string, contents: ReadonlyArray<string>, ttlSeconds = 60): Change => ({
  _tag: "Replace",
  rrset: { name: name as DomainName.DomainName, type, ttlSeconds, contents },
  disabled: true
})

export const remove = (name: string, type: string): Change => ({
  _tag: "Delete",
  name: name as DomainName.DomainName,
  type
})

/** A key of this name; each has a secret of its own. */
export const tsigKey = (name: string): TsigKey => ({
  name: DomainName.make(`${name}.key`),
  algorithm: "hmac-sha256",
  secret: Redacted.make(btoa(name.padEnd(32, "*")))
})

let zoneCount = 0

/** A new zone for one test: tests of one server do not see each other. */
export const newZone = Effect.gen(function* () {
  const client = yield* PowerDnsClient
  const zone = DomainName.make(`z${++zoneCount}.suite.test`)
  yield* client.createZone({ name: zone, kind: "Native", nameservers: [DomainName.make(`ns1.${zone}`)] })
  const serial = Effect.map(client.findZone(zone), (found) => Option.getOrThrow(found).serial)
  return { zone, client, serial, at: (label: string) => DomainName.make(`${label}.${zone}`) }
})

/** What the zone holds, without what PowerDNS makes itself, in a fixed order. */
export const heldIn = (sets: ReadonlyArray<RRset.RRset>, zone: DomainName.DomainName): ReadonlyArray<string> =>
  sets
    .filter(({ name, type }) => name !== zone || (type !== "SOA" && type !== "NS"))
    .map(({ contents, name, ttlSeconds, type }) => `${name} ${ttlSeconds} ${type} ${contents.join(" | ")}`)
    .sort()

/** Each a PATCH that is refused, and a part of PowerDNS's sentence. */
const refusals: ReadonlyArray<readonly [string, (zone: string) => ReadonlyArray<Change>, RegExp]> = [
  ["an A that is no address", (z) => [replace(`bad.${z}`, "A", ["nonsense"])], /Record bad\..*\/A 'nonsense': /],
  ["an A with leading zeros", (z) => [replace(`bad.${z}`, "A", ["10.0.0.05"])], /Record bad\..*\/A '10\.0\.0\.05': /],
  ["an AAAA that is no address", (z) => [replace(`bad.${z}`, "AAAA", ["zz"])], /Invalid IPv6 address/],
  ["an IPv4 address as AAAA", (z) => [replace(`bad.${z}`, "AAAA", ["10.0.0.1"])], /Record bad\..*\/AAAA/],
  ["a PTR to a relative name", (z) => [replace(`bad.${z}`, "PTR", ["host"])], /Not in expected format/],
  ["a TXT without quotes", (z) => [replace(`bad.${z}`, "TXT", ["free"])], /Not in expected format/],
  ["an unknown type", (z) => [replace(`bad.${z}`, "NOPE", ["1"])], /IN NOPE: unknown type given/],
  [
    "a name of another zone",
    () => [replace("bad.elsewhere.test.", "A", ["192.0.2.1"])],
    /bad\.elsewhere\.test\. IN A: Name is out of zone/
  ],
  ["a name that only ends like the zone", (z) => [replace(`bad${z}`, "A", ["192.0.2.1"])], /Name is out of zone/],
  ["the deletion of a name of another zone", () => [remove("bad.elsewhere.test.", "A")], /Name is out of zone/],
  ["a name with a blank", (z) => [replace(`b d.${z}`, "A", ["192.0.2.1"])], /contains unsupported characters/],
  [
    "a label of 64 characters",
    (z) => [replace(`${"b".repeat(64)}.${z}`, "A", ["192.0.2.1"])],
    /Unable to parse DNS Name/
  ],
  ["a negative TTL", (z) => [replace(`bad.${z}`, "A", ["192.0.2.1"], -1)], /TTL -1 is not between/],
  [
    "a TTL beyond 31 bits",
    (z) => [replace(`bad.${z}`, "A", ["192.0.2.1"], 2_147_483_648)],
    /TTL 2147483648 is not between/
  ],
  [
    "a set twice",
    (z) => [replace(`bad.${z}`, "A", ["192.0.2.1"]), replace(`bad.${z}`, "A", ["192.0.2.2"])],
    /Duplicate RRset bad\./
  ],
  [
    "a record twice in a set",
    (z) => [replace(`bad.${z}`, "A", ["192.0.2.1", "192.0.2.1"])],
    /Duplicate record in RRset bad\./
  ],
  [
    "a CNAME beside addresses",
    (z) => [replace(`old.${z}`, "CNAME", [`x.${z}`])],
    /RRset old\..* IN CNAME: Conflicts with pre-existing RRset/
  ],
  [
    "an address beside a CNAME",
    (z) => [replace(`alias.${z}`, "A", ["192.0.2.1"])],
    /RRset alias\..* IN A: Conflicts with pre-existing RRset/
  ],
  ["a CNAME at the apex", (z) => [replace(z, "CNAME", [`x.${z}`])], /Conflicts with pre-existing RRset/]
]

export const suite = <E>(name: string, layer: Layer.Layer<PowerDnsClient, E>) =>
  withLayer(layer, { timeout: "60 seconds", excludeTestServices: true })(name, (it) => {
    it.effect("says its version", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        assert.match((yield* client.server).version, /^\d+\.\d+/)
      })
    )

    it.effect("a new zone raises its serial by itself and is not rectified at each change", () =>
      Effect.gen(function* () {
        const { client, zone } = yield* newZone
        const found = Option.getOrThrow(yield* client.findZone(zone))
        assert.deepInclude(found, {
          name: zone,
          kind: "Native",
          soaEditApi: "INCREASE",
          apiRectify: false,
          dnssec: false
        })
        const listed = (yield* client.listZones).find((each) => each.name === zone)
        assert.deepStrictEqual(listed, { name: zone, kind: "Native", serial: found.serial })
        const sets = yield* client.exportZone(zone)
        assert.deepStrictEqual(sets.map(({ type }) => type).sort(), ["NS", "SOA"])
        yield* client.configureZone(zone)
        assert.deepStrictEqual(Option.getOrThrow(yield* client.findZone(zone)), found)
      })
    )

    it.effect("a zone is made once and deleted once", () =>
      Effect.gen(function* () {
        const { client, zone } = yield* newZone
        const again = yield* Effect.flip(client.createZone({ name: zone, kind: "Native", nameservers: [] }))
        assert.strictEqual(again.reason._tag, "Conflict")
        assert.strictEqual(again.retryable, false)
        yield* client.deleteZone(zone)
        assert.deepStrictEqual(yield* client.findZone(zone), Option.none())
        assert.strictEqual((yield* Effect.flip(client.deleteZone(zone))).reason._tag, "NotFound")
      })
    )

    it.effect("a zone that is not there is NotFound, to each question", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const zone = DomainName.make("absent.suite.test")
        const names = ["a", "b", "c", "d", "e", "f"].map((label) => DomainName.make(`${label}.${zone}`))
        for (const call of [
          client.rrsets(zone, names.slice(0, 2)),
          client.rrsets(zone, names),
          client.exportZone(zone),
          Stream.runDrain(client.records(zone)),
          client.patch(zone, [replace(`a.${zone}`, "A", ["192.0.2.1"])]),
          client.configureZone(zone),
          client.notify(zone),
          client.rectify(zone),
          client.getMetadata(zone, "X-PRISM"),
          client.setMetadata(zone, "X-PRISM", ["x"]),
          client.axfrRetrieve(zone),
          client.zoneKeys(zone)
        ]) {
          const error = yield* Effect.flip<unknown, Error & { reason: { _tag: string } }, never>(call)
          assert.strictEqual(error.reason._tag, "NotFound", error.message)
        }
      })
    )

    it.effect("a new zone has an SOA of its own, with its first name server and a serial newer than any before", () =>
      Effect.gen(function* () {
        const { client, zone } = yield* newZone
        const [soa] = (yield* client.rrsets(zone, [zone])).filter(({ type }) => type === "SOA")
        const [primary, mailbox, serial, ...rest] = soa?.contents[0]?.split(" ") ?? []
        assert.deepStrictEqual(
          [primary, mailbox, ...rest],
          [`ns1.${zone}`, `hostmaster.${zone}`, "10800", "3600", "604800", "60"]
        )
        assert.isAbove(Number(serial), 1_700_000_000)
      })
    )

    it.effect("each change raises the serial by one, and of an SOA that is sent along the one in it", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        const serial = Effect.map(client.findZone(zone), (found) => Option.getOrThrow(found).serial)
        const before = yield* serial
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        assert.strictEqual(yield* serial, before + 1)
        const [soa] = (yield* client.rrsets(zone, [zone])).filter(({ type }) => type === "SOA")
        const sent = Serial.inSoa(soa!.contents[0]!, before + 1000)
        yield* client.patch(zone, [{ _tag: "Replace", rrset: RRset.make(zone, "SOA", soa!.ttlSeconds, [sent]) }])
        assert.strictEqual(yield* serial, before + 1001)
        const [raised] = (yield* client.rrsets(zone, [zone])).filter(({ type }) => type === "SOA")
        assert.deepStrictEqual(raised, { ...soa!, contents: [Serial.inSoa(sent, before + 1001)] })
      })
    )

    it.effect("a zone that others fetch belongs to its catalog and has the keys for transfers", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const catalog = DomainName.make("catalog.suite.test")
        yield* client.ensureTsigKey(tsigKey("member"))
        yield* client.ensureTsigKey(tsigKey("member2"))
        yield* client.createZone({
          name: catalog,
          kind: "Producer",
          nameservers: [],
          primaryKeys: [tsigKey("member").name]
        })
        const name = DomainName.make("member.suite.test")
        const settings: ZoneSettings = { kind: "Master", catalog, primaryKeys: [tsigKey("member").name] }
        yield* client.createZone({ name, kind: "Master", nameservers: [DomainName.make(`ns1.${name}`)], ...settings })
        const created = Option.getOrThrow(yield* client.findZone(name))
        assert.deepInclude(created, { kind: "Master", catalog, primaryKeys: settings.primaryKeys! })
        const { client: _, zone: native } = yield* newZone
        yield* client.configureZone(native, settings)
        const changed = Option.getOrThrow(yield* client.findZone(native))
        assert.deepInclude(changed, { kind: "Master", catalog, primaryKeys: settings.primaryKeys!, apiRectify: false })
        yield* client.configureZone(native, { primaryKeys: [tsigKey("member2").name] })
        const both = Option.getOrThrow(yield* client.findZone(native))
        assert.deepStrictEqual([...both.primaryKeys].sort(), [tsigKey("member").name, tsigKey("member2").name])
        yield* client.configureZone(native, settings)
        assert.deepStrictEqual(Option.getOrThrow(yield* client.findZone(native)), both)
        assert.strictEqual(Option.getOrThrow(yield* client.findZone(catalog)).kind, "Producer")
      })
    )

    it.effect("a secondary zone has masters and a key, which can change", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const name = DomainName.make("secondary.suite.test")
        const keys = [tsigKey("first").name]
        yield* client.ensureTsigKey(tsigKey("first"))
        yield* client.ensureTsigKey(tsigKey("second"))
        yield* client.createZone({
          name,
          kind: "Slave",
          nameservers: [],
          masters: ["127.0.0.1:1"],
          secondaryKeys: keys
        })
        const created = Option.getOrThrow(yield* client.findZone(name))
        assert.deepInclude(created, { kind: "Slave", masters: ["127.0.0.1:1"], secondaryKeys: keys })
        const wanted: ZoneSettings = { masters: ["127.0.0.1:2", "[::1]:3"], secondaryKeys: [tsigKey("second").name] }
        yield* client.configureZone(name, wanted)
        const changed = Option.getOrThrow(yield* client.findZone(name))
        assert.deepInclude(changed, { kind: "Slave", secondaryKeys: wanted.secondaryKeys! })
        assert.deepStrictEqual([...changed.masters].sort(), [...wanted.masters!].sort())
        yield* client.axfrRetrieve(name)
        const { zone } = yield* newZone
        assert.strictEqual((yield* Effect.flip(client.axfrRetrieve(zone))).reason._tag, "Refused")
      })
    )

    it.effect("a TSIG key is made once, and is not changed for another secret or algorithm", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const key = tsigKey("once")
        yield* client.ensureTsigKey(key)
        yield* client.ensureTsigKey(key)
        for (const other of [
          { ...key, secret: Redacted.make("b3RoZXIgc2VjcmV0IG9mIGEga2V5IQ==") },
          { ...key, algorithm: "hmac-sha512" }
        ]) {
          const error = yield* Effect.flip(client.ensureTsigKey(other))
          assert.strictEqual(error.reason._tag, "Conflict", error.message)
          assert.notInclude(`${error.message}${JSON.stringify(error)}`, Redacted.value(other.secret))
          assert.notInclude(`${error.message}${JSON.stringify(error)}`, Redacted.value(key.secret))
        }
        yield* client.ensureTsigKey(key)
        const error = yield* Effect.flip(
          client.createZone({
            name: DomainName.make("keyless.suite.test"),
            kind: "Master",
            nameservers: [],
            primaryKeys: [DomainName.make("no-such-key")]
          })
        )
        assert.strictEqual(error.reason._tag, "Refused", error.message)
      })
    )

    it.effect("a zone is signed when it is made, or later, and tells its key and the DS records of its parent", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        assert.deepStrictEqual(yield* client.zoneKeys(zone), [])
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        yield* client.configureZone(zone, { dnssec: "narrow" })
        const narrow = Option.getOrThrow(yield* client.findZone(zone))
        assert.deepInclude(narrow, { dnssec: true, nsec3Narrow: true, apiRectify: false })
        const keys = yield* client.zoneKeys(zone)
        assert.strictEqual(keys.length, 1)
        assert.deepInclude(keys[0], { type: "csk", active: true })
        assert.match(keys[0]!.dnskey, /^257 3 13 [A-Za-z0-9+/]{86}==$/)
        assert.isTrue(keys[0]!.ds.some((ds) => /^\d+ 13 2 [0-9a-f]{64}$/.test(ds)))

        yield* client.configureZone(zone, { dnssec: "chain" })
        const chain = Option.getOrThrow(yield* client.findZone(zone))
        assert.deepInclude(chain, { dnssec: true, nsec3Narrow: false, apiRectify: true })
        yield* client.configureZone(zone, { dnssec: "narrow" })
        assert.deepStrictEqual(Option.getOrThrow(yield* client.findZone(zone)), chain)
        assert.deepStrictEqual(yield* client.zoneKeys(zone), keys)
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 60 A 192.0.2.1`])

        for (const dnssec of ["narrow", "chain"] as const) {
          const name = DomainName.make(`${dnssec}.suite.test`)
          yield* client.createZone({ name, kind: "Native", nameservers: [DomainName.make(`ns1.${name}`)], dnssec })
          const created = Option.getOrThrow(yield* client.findZone(name))
          assert.deepInclude(created, {
            dnssec: true,
            nsec3Narrow: dnssec === "narrow",
            apiRectify: dnssec === "chain"
          })
          assert.strictEqual((yield* client.zoneKeys(name)).length, 1)
        }
      })
    )

    it.effect("tells its configuration", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        assert.strictEqual((yield* client.serverConfiguration).get("default-api-rectify"), "no")
      })
    )

    it.effect("what was written is read back, name by name and whole, in canonical text", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [
          replace(at("web"), "A", ["192.0.2.2", "192.0.2.10"]),
          replace(at("web"), "AAAA", ["2001:DB8:0:0::1"], 300),
          replace(at("_sip._tcp"), "SRV", [`10 5 5060 ${at("web")}`]),
          replace(at("text"), "TXT", ['"one two; \\"three\\"" "four"', '"five"']),
          replace(at("*.wild"), "CNAME", [at("web")]),
          replace(at("under_score"), "A", ["192.0.2.3"])
        ])
        const expected = [
          `${at("web")} 60 A 192.0.2.10 | 192.0.2.2`,
          `${at("web")} 300 AAAA 2001:db8::1`,
          `${at("_sip._tcp")} 60 SRV 10 5 5060 ${at("web")}`,
          `${at("text")} 60 TXT "five" | "one two; \\"three\\"" "four"`,
          `${at("*.wild")} 60 CNAME ${at("web")}`,
          `${at("under_score")} 60 A 192.0.2.3`
        ].sort()
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), expected)
        const names = ["web", "_sip._tcp", "text", "*.wild", "under_score", "none"].map(at)
        assert.deepStrictEqual(heldIn(yield* client.rrsets(zone, names), zone), expected)
        const few = yield* Effect.forEach(names, (name) => client.rrsets(zone, [name]))
        assert.deepStrictEqual(heldIn(few.flat(), zone), expected)
        assert.deepStrictEqual(yield* client.rrsets(zone, [at("none")]), [])
        assert.deepStrictEqual(yield* client.rrsets(zone, []), [])
      })
    )

    it.effect("all records come piece by piece, each once, a disabled one never, and one with line ends whole", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        const count = 3000
        const hosts = Array.from({ length: count }, (_, i) =>
          replace(at(`h${i}`), "A", [`10.0.${i >> 8}.${i & 255}`, `10.1.${i >> 8}.${i & 255}`])
        )
        for (let from = 0; from < count; from += 500) yield* client.patch(zone, hosts.slice(from, from + 500))
        yield* client.patch(zone, [
          replace(at("zz"), "TXT", ['"one two; \\"three\\""'], 300),
          disable(at("off"), "A", ["192.0.2.1"])
        ])
        const pieces = yield* Stream.runCollect(client.records(zone))
        assert.isAbove(pieces.length, 1)
        assert.isTrue(pieces.every((piece) => piece.length > 0))
        const lines = pieces
          .flat()
          .map(({ content, name, ttlSeconds, type }) => `${name} ${ttlSeconds} ${type} ${content}`)
        assert.strictEqual(lines.length, count * 2 + 3)
        assert.strictEqual(new Set(lines).size, lines.length)
        assert.include(lines, `${at("h2999")} 60 A 10.1.11.183`)
        assert.include(lines, `${at("zz")} 300 TXT "one two; \\"three\\""`)
        assert.strictEqual(lines.filter((line) => line.startsWith(`${zone} 3600 SOA `)).length, 1)
      })
    )

    it.effect("an export without an SOA is no zone", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"]), remove(zone, "SOA")])
        const error = yield* Effect.flip(Stream.runDrain(client.records(zone)))
        assert.strictEqual(error.reason._tag, "Malformed", error.message)
      })
    )

    it.effect("names asked for twice are answered once", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        assert.strictEqual((yield* client.rrsets(zone, [at("a"), at("a")])).length, 1)
      })
    )

    it.effect("a replaced set is the new one, a deleted one is gone, and deleting what is not there is fine", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [
          replace(at("a"), "A", ["192.0.2.1", "192.0.2.2"]),
          replace(at("a"), "AAAA", ["2001:db8::1"]),
          replace(at("b"), "A", ["192.0.2.3"])
        ])
        yield* client.patch(zone, [
          replace(at("a"), "A", ["192.0.2.9"], 30),
          remove(at("a"), "AAAA"),
          replace(at("b"), "A", []),
          remove(at("c"), "A")
        ])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 30 A 192.0.2.9`])
      })
    )

    it.effect("each change raises the serial by one, and no change leaves it", () =>
      Effect.gen(function* () {
        const { at, client, serial, zone } = yield* newZone
        const before = yield* serial
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.2"])])
        assert.strictEqual(yield* serial, before + 2)
        yield* client.patch(zone, [])
        assert.strictEqual(yield* serial, before + 2)
        const soa = (yield* client.rrsets(zone, [zone])).find(({ type }) => type === "SOA")
        assert.strictEqual(soa?.contents[0]?.split(" ")[2], `${before + 2}`)
      })
    )

    it.effect("a CNAME takes the place of addresses, and gives it back, in one change each", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        yield* client.patch(zone, [replace(at("a"), "CNAME", [at("b")]), remove(at("a"), "A")])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 60 CNAME ${at("b")}`])
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.2"]), remove(at("a"), "CNAME")])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 60 A 192.0.2.2`])
      })
    )

    it.effect("a disabled set is unseen until it is replaced again, and does not stand in the way of others", () =>
      Effect.gen(function* () {
        const { at, client, serial, zone } = yield* newZone
        const written = [replace(at("a"), "A", ["192.0.2.1"]), replace(at("a"), "AAAA", ["2001:db8::1"])]
        const names = ["a", "b", "c", "d", "e", "f"].map(at)
        yield* client.patch(zone, [...written, replace(at("b"), "A", ["192.0.2.2"])])
        const before = yield* serial
        yield* client.patch(zone, [disable(at("a"), "A", ["192.0.2.1"]), disable(at("b"), "A", ["192.0.2.2"])])
        assert.strictEqual(yield* serial, before + 1)
        const left = [`${at("a")} 60 AAAA 2001:db8::1`]
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), left)
        assert.deepStrictEqual(heldIn(yield* client.rrsets(zone, names), zone), left)
        assert.deepStrictEqual(heldIn(yield* client.rrsets(zone, [at("a")]), zone), left)
        assert.deepStrictEqual(yield* client.rrsets(zone, [at("b")]), [])

        yield* client.patch(zone, [written[0]!, disable(at("a"), "AAAA", ["2001:db8::1"]), remove(at("b"), "A")])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 60 A 192.0.2.1`])
        yield* client.patch(zone, [disable(at("a"), "A", ["192.0.2.1"])])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [])
        yield* client.patch(zone, written)
        assert.strictEqual(heldIn(yield* client.exportZone(zone), zone).length, 2)
      })
    )

    it.effect("a name with nothing but disabled sets takes a CNAME", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [replace(at("a"), "A", ["192.0.2.1"])])
        yield* client.patch(zone, [disable(at("a"), "A", ["192.0.2.1"])])
        yield* client.patch(zone, [replace(at("a"), "CNAME", [at("b")])])
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a")} 60 CNAME ${at("b")}`])
      })
    )

    for (const [what, changes, sentence] of refusals) {
      it.effect(`${what} is refused, and the rest of its change with it`, () =>
        Effect.gen(function* () {
          const { at, client, serial, zone } = yield* newZone
          yield* client.patch(zone, [
            replace(at("old"), "A", ["192.0.2.1"]),
            replace(at("alias"), "CNAME", [at("old")]),
            replace(at("gone"), "A", ["192.0.2.4"])
          ])
          const before = yield* serial
          const error = yield* Effect.flip(
            client.patch(zone, [
              replace(at("good"), "A", ["192.0.2.2"]),
              remove(at("gone"), "A"),
              ...changes(zone),
              replace(at("last"), "A", ["192.0.2.3"])
            ])
          )
          assert.strictEqual(error.reason._tag, "Refused", error.message)
          assert.match(error.reason.detail, sentence)
          assert.strictEqual(error.retryable, false)
          assert.strictEqual(yield* serial, before)
          assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [
            `${at("alias")} 60 CNAME ${at("old")}`,
            `${at("gone")} 60 A 192.0.2.4`,
            `${at("old")} 60 A 192.0.2.1`
          ])
        })
      )
    }

    it.effect("five hundred changes go in at once, and come back, however many names are asked for", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        const names = Array.from({ length: 500 }, (_, i) => at(`h${i}`))
        yield* client.patch(
          zone,
          names.map((name, i) => replace(name, "A", [`10.0.${i >> 8}.${i & 255}`]))
        )
        assert.strictEqual(heldIn(yield* client.exportZone(zone), zone).length, 500)
        for (const count of [1, 4, 5, 40]) {
          const sets = yield* client.rrsets(zone, names.slice(7, 7 + count))
          assert.deepStrictEqual(
            sets.map(({ name }) => name).sort(),
            names.slice(7, 7 + count).sort(),
            `${count} names`
          )
        }
      })
    )

    it.effect("a classless reverse zone works like any other", () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        const zone = DomainName.make("64/26.2.0.192.in-addr.arpa")
        const pointer = DomainName.make("65.64/26.2.0.192.in-addr.arpa")
        yield* client.createZone({ name: zone, kind: "Native", nameservers: [DomainName.make("ns1.suite.test")] })
        assert.isTrue(Option.isSome(yield* client.findZone(zone)))
        yield* client.patch(zone, [replace(pointer, "PTR", ["web.suite.test."])])
        const expected = [`${pointer} 60 PTR web.suite.test.`]
        assert.deepStrictEqual(heldIn(yield* client.rrsets(zone, [pointer]), zone), expected)
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), expected)
        yield* client.flush(zone)
        yield* client.deleteZone(zone)
      })
    )

    it.effect("metadata of our own kinds is kept, PowerDNS's own is refused", () =>
      Effect.gen(function* () {
        const { client, zone } = yield* newZone
        assert.deepStrictEqual(yield* client.getMetadata(zone, "X-PRISM"), [])
        yield* client.setMetadata(zone, "X-PRISM", ["a", "b"])
        assert.deepStrictEqual(yield* client.getMetadata(zone, "X-PRISM"), ["a", "b"])
        yield* client.setMetadata(zone, "X-PRISM", [])
        assert.deepStrictEqual(yield* client.getMetadata(zone, "X-PRISM"), [])
        const error = yield* Effect.flip(client.setMetadata(zone, "SOA-EDIT-API", ["EPOCH"]))
        assert.strictEqual(error.reason._tag, "Refused")
      })
    )

    it.effect("flush, notify and rectify are done, and change no record", () =>
      Effect.gen(function* () {
        const { at, client, zone } = yield* newZone
        yield* client.patch(zone, [replace(at("a.b"), "A", ["192.0.2.1"])])
        yield* client.flush(zone)
        yield* client.notify(zone)
        yield* client.rectify(zone)
        assert.deepStrictEqual(heldIn(yield* client.exportZone(zone), zone), [`${at("a.b")} 60 A 192.0.2.1`])
        assert.deepStrictEqual(yield* client.rrsets(zone, [at("b")]), [])
      })
    )
  })
