/** Records of people on a real PowerDNS: what is taken here it takes, gives back, and answers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import * as ChildProcess from "node:child_process"
import { promisify } from "node:util"
import { Debts } from "@prism-dns/core/dns/Debts"
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { ManagedRecords } from "@prism-dns/core/dns/ManagedRecords"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Plans } from "@prism-dns/core/dns/Plans"
import { Provisioner } from "@prism-dns/core/dns/Provisioner"
import { Reconciler } from "@prism-dns/core/dns/Reconciler"
import { Serving } from "@prism-dns/core/dns/Serving"
import * as ZoneFile from "@prism-dns/core/dns/ZoneFile"
import { ZoneExport } from "@prism-dns/core/dns/ZoneExport"
import { ZoneImport } from "@prism-dns/core/dns/ZoneImport"
import * as ZoneTransfer from "@prism-dns/core/dns/ZoneTransfer"
import * as Names from "@prism-dns/core/domain/DomainName"
import * as RecordContent from "@prism-dns/core/domain/RecordContent"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"
import { PowerDnsClient } from "@prism-dns/core/powerdns/PowerDnsClient"
import { PowerDnsDatabases } from "@prism-dns/core/powerdns/PowerDnsDatabases"
import { PowerDnsNodes } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as PowerDns from "../harness/PowerDns.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"

const zone = T.forward
const signed = Zone.make(Names.make("signed.test"), { dnssec: true })
const copy = Zone.make(Names.make("copy.test"))
const actor = { name: "ann", peer: undefined }

const execFile = promisify(ChildProcess.execFile)

const node = Layer.unwrap(
  Effect.gen(function* () {
    const { dns } = yield* PowerDns.TestPowerDns
    const api = yield* PowerDnsClient
    return PowerDnsNodes.layerOf([{ name: api.node, role: "primary", api, dns }])
  })
)

const layer = (zones: ReadonlyArray<Zone.Zone>) =>
  Layer.mergeAll(ManagedRecords.layer, Reconciler.layer(), ZoneImport.layer, ZoneExport.layer).pipe(
    Layer.provideMerge(DnsManager.layer({ pollMillis: 100 })),
    Layer.provideMerge(Serving.layer()),
    Layer.provideMerge(NameServers.layer),
    Layer.provideMerge(Plans.layer),
    Layer.provideMerge(Provisioner.layer()),
    Layer.provideMerge(Debts.layer.pipe(Layer.orDie, Layer.provideMerge(PowerDnsDatabases.layerOne))),
    Layer.provideMerge(node),
    Layer.provideMerge(T.registry({}, zones)),
    Layer.provideMerge(T.sqlite()),
    Layer.provideMerge(
      PowerDns.layer("sqlite", { extra: { "enable-lua-records": "yes", "allow-axfr-ips": "127.0.0.0/8" } })
    ),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

const at = (name: string, inZone: Zone.Zone = zone) =>
  name === "@" ? inZone.name : Names.make(`${name}.${inZone.name}`)

const put = (name: string, type: RecordContent.RecordType, contents: ReadonlyArray<string>, inZone = zone) =>
  Effect.flatMap(ManagedRecords, (records) =>
    records.put(inZone.name, { name: at(name, inZone), type, after: { ttlSeconds: 300, contents } }, { actor })
  )

/** What a dig says, without what it asked. */
const dig = Effect.fnUntraced(function* (name: string, type: string, ...more: ReadonlyArray<string>) {
  const { dns } = yield* PowerDns.TestPowerDns
  return yield* Effect.promise(async () => {
    const args = [`@${dns.host}`, "-p", `${dns.port}`, "+norec", "+noall", "+answer", ...more, name, type]
    const { stdout } = await execFile("dig", args)
    return stdout
      .split("\n")
      .flatMap((line) => (line === "" || line.startsWith(";") ? [] : [line.split(/\s+/).slice(3).join(" ")]))
      .sort()
  })
})

/** Nothing waits, and every name server was seen to answer so. */
const settled = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  waitUntil(
    "all is served",
    Effect.orDie(sql<{ name: string }>`
      SELECT name FROM outbox WHERE parked_at IS NULL UNION ALL SELECT name FROM unserved`),
    (rows) => rows.length === 0,
    { within: "20 seconds" }
  )
)

const parked = Effect.flatMap(Outbox, (outbox) =>
  Effect.map(outbox.list({ limit: 50 }), (all) => all.map(({ name, parkedReason }) => `${name} ${parkedReason}`))
)

const long = "x".repeat(700)

/** Names, types and contents as somebody may write them, with what dig prints where that is not the content. */
const everyType: ReadonlyArray<readonly [string, RecordContent.RecordType, ReadonlyArray<string>]> = [
  ["a", "A", ["192.0.2.1", "192.0.2.2"]],
  ["aaaa", "AAAA", ["2001:DB8:0::1", "64:ff9b::c000:201"]],
  ["ptr", "PTR", ["Host.Example."]],
  ["cname", "CNAME", ["a.hosts.test."]],
  ["@", "MX", ["10 Mail.Example.", "0 ."]],
  ["@", "TXT", ["v=spf1 -all", '"quo\\"ted" "two"', "ünïcode; semicolon", '""', long]],
  ["_sip._tcp", "SRV", ["0 5 5060 sip.example.", "10 0 0 ."]],
  ["@", "CAA", ['0 issue "ca.example; policy=ev"', '128 IODEF "mailto:a@b.example"']],
  ["lab", "NS", ["ns1.lab.hosts.test.", "ns.example."]],
  ["ns1.lab", "A", ["192.0.2.53"]],
  ["alias", "ALIAS", ["www.example.net."]],
  ["lua", "LUA", [`A "pickrandom({'192.0.2.7'})"`, `TXT ";return 'it\\"s'"`]],
  ["*.wild", "A", ["192.0.2.99"]],
  ["a_b/c", "TXT", ["odd"]]
]

describe("records of people in a real PowerDNS", () => {
  for (const backend of ["sqlite", "lmdb"] as const) {
    it.live(`of every type are taken, and given back in the same form (${backend})`, () =>
      Effect.gen(function* () {
        const client = yield* PowerDnsClient
        yield* client.createZone({ name: zone.name, kind: "Native", nameservers: [at("ns1")] })
        const wanted = everyType.map(([name, type, contents]) =>
          Result.getOrThrow(RecordContent.parseSet(at(name), type, 300, contents))
        )
        yield* client.patch(
          zone.name,
          wanted.map((rrset) => ({ _tag: "Replace", rrset }))
        )
        const found = yield* client.exportZone(zone.name)
        for (const rrset of wanted) {
          const standing = found.find(({ name, type }) => name === rrset.name && type === rrset.type)
          assert.deepStrictEqual(standing, rrset)
          const [again] = (yield* client.rrsets(zone.name, [rrset.name])).filter(({ type }) => type === rrset.type)
          assert.deepStrictEqual(again, rrset)
          assert.isTrue(
            RRset.equals(
              Result.getOrThrow(
                RecordContent.parseSet(rrset.name, rrset.type as RecordContent.RecordType, 300, rrset.contents)
              ),
              rrset
            )
          )
        }
      }).pipe(Effect.scoped, Effect.provide(PowerDns.layer(backend)))
    )
  }

  it.live(
    "of every type are answered, and known to be; nothing drifts; and all of it goes again",
    () =>
      Effect.gen(function* () {
        const records = yield* ManagedRecords
        const registry = yield* Registry
        const reconciler = yield* Reconciler
        yield* registry.register(T.registration("web", "192.0.2.80"))
        for (const [name, type, contents] of everyType) yield* put(name, type, contents)
        yield* put("web", "TXT", ["beside a host"])
        yield* settled
        assert.deepStrictEqual(yield* parked, [])
        assert.deepStrictEqual(yield* dig("a.hosts.test", "A"), ["A 192.0.2.1", "A 192.0.2.2"])
        assert.deepStrictEqual(yield* dig("aaaa.hosts.test", "AAAA"), ["AAAA 2001:db8::1", "AAAA 64:ff9b::c000:201"])
        assert.deepStrictEqual(yield* dig("ptr.hosts.test", "PTR"), ["PTR host.example."])
        assert.deepStrictEqual(yield* dig("cname.hosts.test", "CNAME"), ["CNAME a.hosts.test."])
        assert.deepStrictEqual(yield* dig("hosts.test", "MX"), ["MX 0 .", "MX 10 mail.example."])
        assert.deepStrictEqual(yield* dig("hosts.test", "CAA"), [
          'CAA 0 issue "ca.example; policy=ev"',
          'CAA 128 iodef "mailto:a@b.example"'
        ])
        const texts = yield* dig("hosts.test", "TXT", "+tcp")
        assert.includeMembers(texts, ['TXT ""', 'TXT "quo\\"ted" "two"', 'TXT "v=spf1 -all"'])
        assert.include(texts, `TXT "${long.slice(0, 255)}" "${long.slice(0, 255)}" "${long.slice(0, 190)}"`)
        assert.deepStrictEqual(yield* dig("_sip._tcp.hosts.test", "SRV"), ["SRV 0 5 5060 sip.example.", "SRV 10 0 0 ."])
        assert.deepStrictEqual(yield* dig("host.lab.hosts.test", "A", "+authority", "+additional"), [
          "A 192.0.2.53",
          "NS ns.example.",
          "NS ns1.lab.hosts.test."
        ])
        assert.deepStrictEqual(yield* dig("lua.hosts.test", "A"), ["A 192.0.2.7"])
        assert.deepStrictEqual(yield* dig("any.wild.hosts.test", "A"), ["A 192.0.2.99"])
        assert.deepStrictEqual(yield* dig("web.hosts.test", "TXT"), ['TXT "beside a host"'])
        assert.deepStrictEqual(yield* dig("web.hosts.test", "A"), ["A 192.0.2.80"])
        const { drift, plan } = yield* reconciler.run(zone.name, { by: "ann" })
        assert.deepStrictEqual([plan.counts.changes, drift.different, drift.missing, drift.unexpected], [0, 0, 0, 0])
        const all = yield* records.list(zone.name, { limit: 100 })
        assert.strictEqual(all.length, everyType.length + 1)
        const levels = yield* records.publications(all)
        for (const [i, { type }] of all.entries()) {
          assert.strictEqual(levels[i]!.level, RecordContent.isComputed(type) ? "applied" : "served", type)
        }
        yield* records.change(
          zone.name,
          all.map(({ name, type }) => ({ name, type: type as RecordContent.RecordType, after: undefined })),
          { actor }
        )
        yield* settled
        assert.deepStrictEqual(yield* dig("web.hosts.test", "A"), ["A 192.0.2.80"])
        for (const [name, type] of everyType) {
          const full = at(name).slice(0, -1)
          assert.deepStrictEqual(yield* dig(full, type), [])
        }
        const left = yield* (yield* PowerDnsClient).exportZone(zone.name)
        assert.deepStrictEqual(
          left.filter(({ type }) => type !== "SOA").map(({ name, type }) => `${name} ${type}`),
          [`${zone.name} NS`, `${at("web")} A`]
        )
      }).pipe(Effect.provide(layer([zone]))),
    60_000
  )

  it.live(
    "go out as a file, into another zone, and are answered there as here; a transfer says the same",
    () =>
      Effect.gen(function* () {
        const exports = yield* ZoneExport
        const imports = yield* ZoneImport
        const plans = yield* Plans
        const registry = yield* Registry
        const { dns } = yield* PowerDns.TestPowerDns
        yield* registry.register(T.registration("web", "192.0.2.80"))
        for (const [name, type, contents] of everyType) yield* put(name, type, contents)
        yield* settled
        const pages = yield* Stream.runCollect(exports.sets(zone, []))
        const sets = pages.flat().map(ZoneFile.toLines).join("")
        const moved = sets.replaceAll(zone.name, copy.name)
        const contents = Result.getOrThrow(ZoneFile.parse(moved, { origin: copy.name, defaultTtlSeconds: 60 }))
        const made = yield* imports.plan(copy.name, contents, { by: "ann", reason: "copy", mayLua: true })
        assert.deepStrictEqual(made.leftOut, [])
        const applied = yield* plans.apply(made.plan.id, { by: "ann" })
        assert.deepStrictEqual([applied.applied, applied.refused], [everyType.length + 1, 0])
        yield* settled
        const askable = [
          ...everyType.filter(([, type]) => !["ALIAS", "LUA", "NS"].includes(type)),
          ["web", "A", []] as const
        ]
        for (const [name, type] of askable) {
          if (name.includes(".lab")) continue
          const here = yield* dig(at(name).slice(0, -1), type, "+tcp")
          const there = yield* dig(at(name, copy).slice(0, -1), type, "+tcp")
          assert.isNotEmpty(here, `${name} ${type}`)
          assert.deepStrictEqual(
            there.map((line) => line.replaceAll(copy.name, zone.name)),
            here
          )
        }
        const fetched = yield* ZoneTransfer.fetch(zone.name, dns)
        const again = yield* imports.plan(zone.name, fetched, { by: "ann", reason: "again", mayLua: true })
        assert.strictEqual(again.plan.counts.changes, 0)
        assert.includeMembers(
          again.leftOut.map(({ name, type }) => `${name} ${type}`),
          [`${zone.name} SOA`.replace(" SOA", " NS"), `${at("web")} A`]
        )
        const refused = yield* Effect.flip(ZoneTransfer.fetch(Names.make("nowhere.test"), dns))
        assert.match(refused.message, /may not let this server transfer|closed the connection/)
      }).pipe(Effect.provide(layer([zone, copy]))),
    60_000
  )

  it.live(
    "in a signed zone are signed, and a delegation is not",
    () =>
      Effect.gen(function* () {
        yield* put("www", "CNAME", ["web.example."], signed)
        yield* put("@", "MX", ["10 mail.example."], signed)
        yield* put("lab", "NS", ["ns1.lab.signed.test."], signed)
        yield* put("ns1.lab", "A", ["192.0.2.53"], signed)
        yield* settled
        const isSigned = (lines: ReadonlyArray<string>) => lines.some((line) => line.startsWith("RRSIG"))
        assert.isTrue(isSigned(yield* dig("www.signed.test", "CNAME", "+dnssec")))
        assert.isTrue(isSigned(yield* dig("signed.test", "MX", "+dnssec")))
        const referral = yield* dig("x.lab.signed.test", "A", "+dnssec", "+authority")
        assert.isFalse(
          referral.some((line) => line.startsWith("RRSIG NS ")),
          referral.join("\n")
        )
        assert.include(referral, "NS ns1.lab.signed.test.")
      }).pipe(Effect.provide(layer([signed]))),
    60_000
  )
})
