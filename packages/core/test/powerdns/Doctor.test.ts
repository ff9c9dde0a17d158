/** Each finding from the facts that it is about, and none from a setup in which all is well. */
import { assert, describe, it } from "@effect/vitest"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Doctor from "@prism-dns/core/powerdns/Doctor"
import type {
  ApiAnswers,
  DnsFacts,
  Facts,
  FoundZone,
  NodeFacts,
  RegistryFacts,
  RegistryState,
  SerialAnswer,
  ZoneContent,
  ZoneFacts
} from "@prism-dns/core/powerdns/DoctorFacts"
import { deleteRRsetSetting } from "@prism-dns/core/powerdns/pgsqlLock"

const name = DomainName.make("hosts.test")
const zone = Zone.make(name)
const reverse = Zone.make(DomainName.make("2.0.192.in-addr.arpa"))
const none = { count: 0, first: [] }

const content: ZoneContent = {
  records: 3,
  soaRecords: 1,
  hasPlaceholderSoa: false,
  duplicates: none,
  conflictingNames: none
}
const found: FoundZone = {
  kind: "Master",
  serial: 7,
  soaEditApi: "INCREASE",
  apiRectify: false,
  dnssec: false,
  nsec3Narrow: false,
  masters: [],
  alsoNotify: [],
  allowAxfrFrom: [],
  content
}
const goodSettings: Readonly<Record<string, string>> = {
  "allow-axfr-ips": "127.0.0.0/8,::1",
  "also-notify": "198.51.100.2",
  "cache-ttl": "20",
  "default-api-rectify": "no",
  "disable-axfr": "no",
  "enable-lua-records": "no",
  launch: "gsqlite3",
  "local-address": "0.0.0.0, ::",
  "local-port": "53",
  "negquery-cache-ttl": "60",
  primary: "yes",
  "query-cache-ttl": "20",
  secondary: "no",
  "webserver-address": "10.0.0.1",
  "webserver-allow-from": "10.0.0.0/24",
  "webserver-max-bodysize": "2",
  "zone-cache-refresh-interval": "300"
}

interface Changes {
  readonly zones?: ReadonlyArray<Zone.Zone>
  readonly settings?: Readonly<Record<string, string>>
  readonly api?: Partial<ApiAnswers> | NodeFacts["api"]
  readonly found?: Partial<FoundZone> | ZoneFacts
  readonly content?: Partial<ZoneContent>
  readonly dns?: Partial<DnsFacts>
  readonly others?: ReadonlyArray<NodeFacts>
  readonly registry?: RegistryFacts
  readonly state?: Partial<RegistryState>
  readonly batchNamesMax?: number
}

const dnsOf = (address: string, serial: SerialAnswer): DnsFacts => ({
  endpoint: `${address}:53`,
  port: 53,
  addresses: [address],
  serials: new Map([[name, serial]]),
  axfr: "refused"
})

const state: RegistryState = {
  _tag: "Read",
  parked: none,
  pending: 0,
  oldestPendingMillis: 0,
  plansOpen: none,
  guards: [],
  addresses: [IpAddress.make("192.0.2.1")],
  addressesCut: false
}

/** A primary whose setup is right, except for `changes`. */
const setup = (changes: Changes = {}): Facts => {
  const zoneFacts: ZoneFacts =
    changes.found !== undefined && "_tag" in changes.found
      ? changes.found
      : { _tag: "Found", ...found, ...changes.found, content: { ...content, ...changes.content } }
  const api: NodeFacts["api"] =
    changes.api !== undefined && "_tag" in changes.api
      ? changes.api
      : {
          url: "http://10.0.0.1:8081",
          _tag: "Answers",
          version: "4.7.3",
          clockAheadMillis: 0,
          settings: new Map(Object.entries({ ...goodSettings, ...changes.settings })),
          metricsOpen: false,
          sawOurQuestion: true,
          zones: new Map([[name, zoneFacts]]),
          ...changes.api
        }
  return {
    zones: changes.zones ?? [zone, reverse],
    nodes: [
      {
        name: "a",
        role: "primary",
        api,
        dns: { ...dnsOf("198.51.100.1", { _tag: "Serial", serial: 7 }), ...changes.dns }
      },
      ...(changes.others ?? [])
    ],
    registry: changes.registry ?? {
      storage: "prism.db",
      _tag: "Answers",
      migration: 1,
      migrationKnown: 1,
      clockAheadMillis: 0,
      state: { ...state, ...changes.state }
    },
    batchNamesMax: changes.batchNamesMax ?? 500
  }
}

const secondary = (serial: SerialAnswer, address = "198.51.100.2"): NodeFacts => ({
  name: "s",
  role: "secondary",
  api: undefined,
  dns: dnsOf(address, serial)
})
const upToDate = secondary({ _tag: "Serial", serial: 7 })
/** A secondary of PowerDNS with an API. */
const secondaryWithApi = (zoneFacts: ZoneFacts, settings: Readonly<Record<string, string>> = {}): NodeFacts => {
  const { api } = setup({ settings: { secondary: "yes", ...settings }, found: zoneFacts }).nodes[0]!
  return { ...upToDate, api }
}
const slave: ZoneFacts = { _tag: "Found", ...found, kind: "Slave", masters: ["198.51.100.1"], content: undefined }

type Row = readonly [
  title: string,
  changes: Changes,
  check: Doctor.Check,
  severity: Doctor.Severity,
  seen: RegExp,
  fix?: RegExp
]

const rows: ReadonlyArray<Row> = [
  [
    "a silent API",
    { api: { url: "http://x", _tag: "Silent", detail: "refused" } },
    "api",
    "error",
    /refused/,
    /api=yes/
  ],
  [
    "another server at the API's address",
    { api: { url: "http://x", _tag: "NotPowerDns", detail: "404" } },
    "api",
    "error",
    /404/,
    /webserver-port/
  ],
  [
    "a wrong key",
    { api: { url: "http://x", _tag: "KeyRefused" } },
    "api-key",
    "error",
    /refuses the key/,
    /apiKeyFile/
  ],
  ["an old version", { api: { version: "4.6.4" } }, "version", "error", /4\.6\.4/, /4\.7/],
  ["a version that was not tried", { api: { version: "6.0.0" } }, "version", "info", /newer than any/],
  ["a version that is no number", { api: { version: "git-abc" } }, "version", "warning", /git-abc/, /released/],
  ["settings that cannot be read", { api: { settings: undefined } }, "settings", "warning", /config/, /config/],
  ["a backend without an API", { settings: { launch: "bind" } }, "backend", "error", /bind/, /launch=lmdb/],
  [
    "two primaries on one SQLite",
    { others: [setup().nodes[0]!] },
    "backend",
    "warning",
    /2 primaries/,
    /role: replica/
  ],
  [
    "PostgreSQL without the lock",
    { settings: { launch: "gpgsql", [deleteRRsetSetting.name]: "delete from records" } },
    "pgsql-lock",
    "warning",
    /takes no lock/,
    /CREATE OR REPLACE FUNCTION pdns_delete_rrset.*gpgsql-delete-rrset-query=select pdns_delete_rrset/
  ],
  [
    "PostgreSQL without the lock, two primaries",
    { settings: { launch: "gpgsql" }, others: [setup().nodes[0]!] },
    "pgsql-lock",
    "error",
    /2 primaries may write/,
    /gpgsql-delete-rrset-query=/
  ],
  [
    "a small body limit",
    { batchNamesMax: 5000 },
    "body-size",
    "warning",
    /=2 \(MB\), and 5000 names/,
    /webserver-max-bodysize=16/
  ],
  [
    "rectify by default",
    { settings: { "default-api-rectify": "yes" } },
    "rectify-default",
    "warning",
    /=yes/,
    /default-api-rectify=no/
  ],
  ["caches", {}, "caches", "info", /cache-ttl=20, query-cache-ttl=20, negquery-cache-ttl=60/],
  [
    "a replica that cannot be flushed",
    { others: [{ ...upToDate, role: "replica" }] },
    "caches",
    "warning",
    /cannot be dropped/,
    /apiKey/
  ],
  [
    "LUA records",
    { settings: { "enable-lua-records": "yes" } },
    "lua-records",
    "warning",
    /=yes/,
    /enable-lua-records=no/
  ],
  [
    "a web server for everyone",
    { settings: { "webserver-allow-from": "0.0.0.0/0" } },
    "webserver",
    "warning",
    /0\.0\.0\.0\/0/,
    /webserver-allow-from/
  ],
  [
    "a web server on a public address",
    { settings: { "webserver-address": "198.51.100.1" } },
    "webserver",
    "warning",
    /public network/,
    /private network/
  ],
  ["metrics for others", { api: { metricsOpen: true } }, "metrics", "warning", /without a key to 10/, /PROMETHEUS/],
  [
    "metrics for this machine",
    { api: { metricsOpen: true }, settings: { "webserver-address": "127.0.0.1" } },
    "metrics",
    "info",
    /only to this machine/
  ],
  [
    "a silent DNS server",
    { dns: { serials: new Map([[name, { _tag: "Silent" }]]) } },
    "dns",
    "error",
    /no answer/,
    /dig -p 53 @198/
  ],
  ["a name without an address", { dns: { addresses: [] } }, "dns", "error", /no address/, /resolves/],
  [
    "DNS of another server",
    { api: { sawOurQuestion: false } },
    "same-server",
    "error",
    /not seen.*port 53/,
    /powerdns\.nodes\[\]\.dns/
  ],
  [
    "a server that does not tell",
    { api: { sawOurQuestion: undefined } },
    "same-server",
    "info",
    /cannot be told.*local-port is 53/
  ],
  [
    "transfers for everyone",
    { settings: { "allow-axfr-ips": "::/0 10.0.0.0/8" } },
    "axfr",
    "warning",
    /lets in ::\/0$/,
    /allow-axfr-ips=/
  ],
  ["a transfer to us", { dns: { axfr: "open" } }, "axfr", "warning", /gave a zone/, /TSIG/],
  [
    "a zone that is for everyone",
    { found: { allowAxfrFrom: ["0.0.0.0/0"] } },
    "axfr",
    "warning",
    /ALLOW-AXFR-FROM/,
    /set-meta/
  ],
  [
    "transfers of a node without an API",
    { others: [{ ...upToDate, dns: { ...upToDate.dns, axfr: "open" } }] },
    "axfr",
    "warning",
    /gave a zone/,
    /allow-transfer/
  ],
  ["no transfers at all", { settings: { "disable-axfr": "yes" } }, "axfr", "ok", /disable-axfr=yes/],
  ["a node's clock ahead", { api: { clockAheadMillis: 3000 } }, "clock", "warning", /3\.0 s ahead of/, /NTP/],
  ["a node's clock behind", { api: { clockAheadMillis: -2500 } }, "clock", "warning", /2\.5 s behind/, /NTP/],
  ["a clock that nobody tells", { api: { clockAheadMillis: undefined } }, "clock", "info", /cannot be told/],
  ["no NOTIFY", { settings: { primary: "no" }, others: [upToDate] }, "notify", "error", /primary=no/, /primary=yes/],
  [
    "a secondary that is not notified",
    { settings: { "also-notify": "203.0.113.1" }, others: [upToDate] },
    "notify",
    "warning",
    /does not name s/,
    /also-notify=203\.0\.113\.1,198\.51\.100\.2:53/
  ],
  [
    "a secondary that the zone notifies",
    { settings: { "also-notify": "" }, found: { alsoNotify: ["198.51.100.2:53"] }, others: [upToDate] },
    "notify",
    "ok",
    /is notified/
  ],
  [
    "a secondary that fetches nothing",
    { others: [secondaryWithApi(slave, { secondary: "no" })] },
    "secondary",
    "error",
    /fetches no zones/,
    /secondary=yes/
  ],
  [
    "a zone of the wrong kind on a secondary",
    { others: [secondaryWithApi({ ...slave, kind: "Native" })] },
    "secondary",
    "error",
    /kind Native/,
    /set-kind/
  ],
  [
    "a secondary's zone without masters",
    { others: [secondaryWithApi({ ...slave, masters: [] })] },
    "secondary",
    "error",
    /no primary/,
    /change-slave-zone-master/
  ],
  ["a zone that Prism will make", { found: { _tag: "Missing" } }, "zone", "info", /Prism makes it/],
  [
    "a zone that is not there",
    { found: { _tag: "Missing" }, zones: [Zone.make(name, { createIfMissing: false })] },
    "zone",
    "error",
    /not there/,
    /create-zone hosts\.test\./
  ],
  ["a zone that was not read", { found: { _tag: "Unread", detail: "no time" } }, "zone", "warning", /no time/, /again/],
  [
    "a zone that a secondary does not have",
    { others: [secondary({ _tag: "NoZone", rcode: "REFUSED" })] },
    "zone",
    "error",
    /REFUSED/,
    /retrieve/
  ],
  [
    "a Native zone with secondaries",
    { found: { kind: "Native" }, others: [upToDate] },
    "zone-kind",
    "error",
    /Native/,
    /"kind":"Master"/
  ],
  ["a Slave zone on a primary", { found: { kind: "Slave" } }, "zone-kind", "error", /overwrite/, /"kind":"Master"/],
  ...["", "OFF", "EPOCH"].map((value): Row => [
    `SOA-EDIT-API '${value}'`,
    { found: { soaEditApi: value } },
    "soa-edit-api",
    "error",
    /SOA-EDIT-API is/,
    /INCREASE/
  ]),
  [
    "SOA-EDIT-API by SOA-EDIT",
    { found: { soaEditApi: "SOA-EDIT" } },
    "soa-edit-api",
    "warning",
    /SOA-EDIT/,
    /INCREASE/
  ],
  ["API-RECTIFY on", { found: { apiRectify: true } }, "zone-rectify", "warning", /is on/, /"api_rectify":false/],
  ["NSEC without rectify", { found: { dnssec: true } }, "zone-rectify", "error", /denials are wrong/, /narrow/],
  ["NSEC with rectify", { found: { dnssec: true, apiRectify: true } }, "dnssec", "warning", /costs the zone/, /narrow/],
  [
    "NSEC3 narrow with secondaries",
    { found: { dnssec: true, nsec3Narrow: true }, others: [upToDate] },
    "dnssec",
    "error",
    /does not transfer/,
    /set-nsec3 \S+ '1 0 0 -' && .*"api_rectify":true/
  ],
  [
    "NSEC without rectify and with secondaries",
    { found: { dnssec: true }, others: [upToDate] },
    "zone-rectify",
    "error",
    /denials are wrong/,
    /"api_rectify":true/
  ],
  [
    "a zone that should be signed",
    { zones: [Zone.make(name, { dnssec: true })] },
    "dnssec",
    "error",
    /is not signed/,
    /secure-zone/
  ],
  ["two SOA", { content: { soaRecords: 2 } }, "soa", "error", /2 SOA/, /leave one/],
  ["no SOA", { content: { soaRecords: 0 } }, "soa", "error", /no SOA/, /add-record/],
  [
    "the placeholder SOA",
    { content: { hasPlaceholderSoa: true } },
    "soa",
    "warning",
    /misconfigured/,
    /default-soa-content/
  ],
  [
    "records that stand twice",
    { content: { duplicates: { count: 7, first: ["a A 1"] } } },
    "duplicates",
    "error",
    /7: a A 1; and 6 more/,
    /second writer/
  ],
  [
    "a CNAME beside other data",
    { content: { conflictingNames: { count: 1, first: ["a CNAME and A"] } } },
    "cname",
    "error",
    /1 name: a CNAME and A/,
    /edit-zone/
  ],
  [
    "a secondary that is behind",
    { others: [secondary({ _tag: "Serial", serial: 6 })] },
    "serial",
    "error",
    /serial 6, and the primary has 7/,
    /retrieve/
  ],
  [
    "a primary that is behind",
    { dns: { serials: new Map([[name, { _tag: "Serial", serial: 6 }]]) } },
    "serial",
    "warning",
    /serial 6/,
    /purge/
  ],
  [
    "a registry that is not there yet",
    { registry: { storage: "x", _tag: "None", detail: "is not there yet" } },
    "registry",
    "info",
    /not there yet/
  ],
  [
    "a registry that does not answer",
    { registry: { storage: "x", _tag: "Silent", detail: "refused" } },
    "registry",
    "error",
    /refused/,
    /storage\.url/
  ],
  [
    "a registry with other tables",
    {
      registry: {
        storage: "x",
        _tag: "Answers",
        migration: 1,
        migrationKnown: 1,
        clockAheadMillis: 0,
        state: { _tag: "Unread", detail: "no such table" }
      }
    },
    "registry",
    "error",
    /no such table/,
    /serve/
  ],
  [
    "an old schema",
    {
      registry: {
        storage: "x",
        _tag: "Answers",
        migration: 1,
        migrationKnown: 2,
        clockAheadMillis: 0,
        state: undefined
      }
    },
    "migrations",
    "warning",
    /1 of 2/,
    /restart/
  ],
  [
    "a newer schema",
    {
      registry: {
        storage: "x",
        _tag: "Answers",
        migration: 3,
        migrationKnown: 2,
        clockAheadMillis: 0,
        state: undefined
      }
    },
    "migrations",
    "error",
    /older than the server/,
    /newer/
  ],
  [
    "the database's clock",
    {
      registry: {
        storage: "x",
        _tag: "Answers",
        migration: 1,
        migrationKnown: 1,
        clockAheadMillis: 9000,
        state: undefined
      }
    },
    "clock",
    "warning",
    /9\.0 s ahead/,
    /NTP/
  ],
  [
    "parked names",
    { state: { parked: { count: 1, first: ["a.hosts.test. (foreign)"] } } },
    "parked",
    "warning",
    /1 name parked: a\.hosts\.test\. \(foreign\)/,
    /publications/
  ],
  [
    "names that wait long",
    { state: { pending: 3, oldestPendingMillis: 90_000 } },
    "pending",
    "warning",
    /3 names waiting, the oldest for 90 s/,
    /serve/
  ],
  ["open plans", { state: { plansOpen: { count: 1, first: ["p1 of hosts.test."] } } }, "plans", "info", /p1/, /apply/],
  [
    "a guard",
    { state: { guards: [{ kind: "mass-expiry", zone: "", detail: "40 %" }] } },
    "guards",
    "warning",
    /mass-expiry: 40 %/,
    /reason/
  ],
  [
    "addresses without a reverse zone",
    { state: { addresses: ["192.0.2.1", "10.1.2.3", "10.1.2.4", "2001:db8::1"].map((each) => IpAddress.make(each)) } },
    "reverse-zones",
    "warning",
    /: 3; in 2\.1\.10\.in-addr\.arpa \(2\), 0\.0\.0\.0\.0\.0\.0\.0\.8\.b\.d\.0\.1\.0\.0\.2\.ip6\.arpa \(1\)/,
    /add to zones: - 2\.1\.10\.in-addr\.arpa/
  ]
]

describe("a setup in which all is well", () => {
  it("has neither errors nor warnings, with a secondary too", () => {
    const findings = Doctor.diagnose(setup({ others: [upToDate, secondaryWithApi(slave)] }))
    assert.deepStrictEqual(
      findings.filter(({ severity }) => severity === "error" || severity === "warning"),
      []
    )
  })

  it("does not complain of a chain of denials where secondaries need it", () => {
    const findings = Doctor.diagnose(setup({ found: { dnssec: true, apiRectify: true }, others: [upToDate] }))
    assert.deepStrictEqual(
      findings.filter(({ severity }) => severity === "error" || severity === "warning"),
      []
    )
    assert.match(findings.find(({ check }) => check === "zone")?.seen ?? "", /chain of denials/)
  })

  it("says so of each part that was looked at", () => {
    const checks = Doctor.diagnose(setup()).flatMap(({ check, severity }) => (severity === "ok" ? [check] : []))
    const parts: ReadonlyArray<Doctor.Check> = [
      "api",
      "version",
      "backend",
      "dns",
      "same-server",
      "zone",
      "serial",
      "registry",
      "migrations"
    ]
    assert.includeMembers([...checks], [...parts])
  })
})

describe("a finding", () => {
  it.each(rows.map((row) => [row[0], row] as const))("%s", (_, [, changes, check, severity, seen, fix]) => {
    const findings = Doctor.diagnose(setup(changes))
    const finding = findings.find((each) => each.check === check && each.severity === severity && seen.test(each.seen))
    assert.isDefined(finding, JSON.stringify(findings, null, 1))
    assert.strictEqual(finding.why, Doctor.checks[check])
    if (fix !== undefined) assert.match(finding.fix ?? "", fix)
  })

  it("of each check is shown above", () => {
    assert.deepStrictEqual(
      Object.keys(Doctor.checks).filter((check) => !rows.some((row) => row[2] === check)),
      []
    )
  })

  it("that is an error or a warning says how to mend it, and worse ones come first", () => {
    for (const [title, changes] of rows) {
      const findings = Doctor.diagnose(setup(changes))
      for (const { fix, severity } of findings) {
        if (severity === "error" || severity === "warning") assert.isNotEmpty(fix, title)
      }
      const ranks = findings.map(({ severity }) => Doctor.severities.indexOf(severity))
      assert.deepStrictEqual(
        ranks,
        ranks.toSorted((a, b) => a - b)
      )
    }
  })
})

describe("primaries with databases of their own", () => {
  const own = (serial: number, changes: Changes = {}): NodeFacts => ({
    ...setup().nodes[0]!,
    name: "b",
    database: "b",
    dns: dnsOf("198.51.100.3", { _tag: "Serial", serial }),
    api: setup({ settings: { "also-notify": "" }, found: { serial }, ...changes }).nodes[0]!.api
  })
  const wrong = (facts: Facts) =>
    Doctor.diagnose(facts).flatMap(({ check, node, severity }) =>
      severity === "error" || severity === "warning" ? [`${check} ${node}`] : []
    )

  it("have serials of their own, and secondaries fetch from one of them", () => {
    assert.deepStrictEqual(wrong(setup({ others: [own(99), upToDate] })), [])
    // It fetches from the second: that one notifies it, and has the serial that it is to have.
    const follows = (serial: number): NodeFacts => ({
      ...upToDate,
      dns: dnsOf("198.51.100.2", { _tag: "Serial", serial }),
      api: setup({ settings: { secondary: "yes" }, found: { kind: "Slave", masters: ["198.51.100.3"] } }).nodes[0]!.api
    })
    const first = { settings: { "also-notify": "" } }
    const told = own(99, { settings: { "also-notify": "198.51.100.2" } })
    assert.deepStrictEqual(wrong(setup({ ...first, others: [told, follows(99)] })), [])
    assert.deepStrictEqual(wrong(setup({ ...first, others: [told, follows(7)] })), ["serial s"])
    assert.deepStrictEqual(wrong(setup({ ...first, others: [own(99), follows(99)] })), ["notify b"])
  })

  it("are each set up to be fetched from: any of them may come to lead", () => {
    const native = own(99, { found: { serial: 99, kind: "Native" }, settings: { primary: "no" } })
    assert.deepStrictEqual(wrong(setup({ others: [native, upToDate] })).sort(), ["notify b", "zone-kind b"])
  })

  it("sign no zone: each would have keys of its own", () => {
    const findings = Doctor.diagnose(setup({ found: { dnssec: true, nsec3Narrow: true }, others: [own(99)] }))
    assert.isTrue(
      findings.some(
        ({ check, seen, severity }) => check === "dnssec" && severity === "error" && /other keys/.test(seen)
      )
    )
  })
})

describe("networks that let in strangers", () => {
  it.each([
    ["127.0.0.0/8,::1", []],
    ["10.0.0.0/8, 192.168.0.0/16 fd00::/8", []],
    ["198.51.100.7; 2001:db8::1", []],
    ["198.51.100.0/24", []],
    ["0.0.0.0/0,::/0", ["0.0.0.0/0", "::/0"]],
    ["198.51.0.0/16", ["198.51.0.0/16"]],
    ["", []]
  ] as const)("in '%s' are %j", (list, wide) => {
    assert.deepStrictEqual(Doctor.wideNetworks(list), [...wide])
  })
})
