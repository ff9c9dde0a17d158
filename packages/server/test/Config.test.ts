import { assert, describe, it } from "@effect/vitest"
import { defaultLimits } from "@prism-dns/core/auth/Admission"
import { reservedNames } from "@prism-dns/core/auth/Policy"
import { unlimited } from "@prism-dns/core/auth/Principal"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Duration, Redacted, Result } from "effect"
import { IpNetwork } from "effect/net"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll } from "vitest"
import * as Config from "../src/Config.ts"
import * as Printing from "../src/config/Printing.ts"
import * as Reference from "../src/config/Reference.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-config-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const file = (name: string, text: string): string => {
  const path = Path.join(folder, name)
  Fs.writeFileSync(path, text)
  return path
}

/** What any configuration must say. */
const minimal = `zones: [hosts.prism.test]
powerdns:
  nodes:
    - { api: http://127.0.0.1:8053/, apiKey: secret, dns: 127.0.0.1:5300 }
`

const minimalValues = {
  zones: ["hosts.prism.test"],
  powerdns: { nodes: [{ api: "http://127.0.0.1:8053", apiKey: "secret", dns: "127.0.0.1:5300" }] }
}

/** The file's text is added to the minimal one. */
interface Sources {
  readonly text?: string
  readonly environment?: Record<string, string>
  readonly flags?: Record<string, string | ReadonlyArray<string>>
}

let files = 0
const load = ({ text, ...sources }: Sources) =>
  Config.loadResult({ file: file(`${++files}.yaml`, `${minimal}${text ?? ""}`), ...sources })

/** The problems, without the folder's name in front. */
const problemsOf = (result: Result.Result<unknown, Config.ConfigInvalid>): ReadonlyArray<string> =>
  Result.isSuccess(result)
    ? []
    : result.failure.problems.map((problem) => problem.replaceAll(`${folder}/`, "").replace(/^\d+\.yaml/, "prism.yaml"))

const good = (sources: Sources): Config.Loaded => {
  const result = load(sources)
  if (Result.isFailure(result)) throw result.failure
  return result.success
}

const originOf = (loaded: Config.Loaded, path: string): string | undefined => {
  const tree = JSON.parse(Printing.toJson(loaded.printed, { origin: true })) as Record<string, any>
  return path.split(".").reduce<any>((here, key) => here?.[key], tree)?.origin
}

describe("what is good", () => {
  it("a minimal file gives every default as a domain value", () => {
    const { config } = good({})
    assert.strictEqual(config.tcp.port, 8080)
    assert.strictEqual(config.tcp.frameBytesMax, 65_536)
    assert.strictEqual(Duration.toMillis(config.tcp.frameTimeout), 30_000)
    assert.strictEqual(config.server.instance, Os.hostname())
    assert.strictEqual(config.server.logLevel, "Info")
    assert.strictEqual(Duration.toSeconds(config.leases.duration), 150)
    assert.strictEqual(config.auth.mode, "required")
    assert.deepStrictEqual(config.storage.url, { _tag: "Sqlite", filename: "./prism.db" })
    assert.strictEqual(config.powerdns.primaries[0].name, "127.0.0.1:8053")
    assert.strictEqual(config.powerdns.primaries[0].api.url, "http://127.0.0.1:8053")
    assert.deepStrictEqual(config.powerdns.primaries[0].dns, { host: "127.0.0.1", port: 5300 })
    assert.strictEqual(Redacted.value(config.powerdns.primaries[0].api.key), "secret")
    const zone = config.zones[0]!
    assert.strictEqual<string>(zone.name, "hosts.prism.test.")
    assert.strictEqual(zone.policy.ttlSeconds, 60)
    assert.deepStrictEqual(zone.policy.whenOffline, { _tag: "Withdraw", after: Duration.hours(1) })
    assert.strictEqual(zone.createIfMissing, true)
    assert.deepStrictEqual<ReadonlyArray<string>>(zone.nameservers, ["ns1.hosts.prism.test."])
    assert.strictEqual(zone.network, undefined)
  })

  it("plain values, as a program writes them, are read like a file", () => {
    assert.strictEqual(Config.make({ ...minimalValues, tcp: { port: 0 } }).tcp.port, 0)
  })

  it("with a certificate there is a port with TLS, and one without only where it is set", () => {
    const files = { certificate: "/etc/prism/tls.crt", key: "/etc/prism/tls.key" }
    const { tcp, tls } = Config.make({ ...minimalValues, tls: files })
    assert.strictEqual(tcp.port, undefined)
    assert.deepInclude(tls, { ...files, host: "0.0.0.0", port: 8443, clientCertificates: "off", clientName: "cn" })
    assert.strictEqual(Config.make({ ...minimalValues, tls: files, tcp: { port: 8080 } }).tcp.port, 8080)
    assert.strictEqual(Config.make(minimalValues).tls, undefined)
    assert.isFalse(tcp.protocol1)
    assert.isTrue(Config.make({ ...minimalValues, tls: files, tcp: { protocol1: "on" } }).tcp.protocol1)
    assert.isTrue(Config.make(minimalValues).tcp.protocol1)
    assert.isFalse(Config.make({ ...minimalValues, tcp: { protocol1: "off" } }).tcp.protocol1)
  })

  it("load balancers are addresses and networks", () => {
    const { tcp } = Config.make({ ...minimalValues, tcp: { proxyFrom: ["192.0.2.5", "2001:db8::/64"] } })
    assert.deepStrictEqual(tcp.proxyFrom.map(IpNetwork.format), ["192.0.2.5/32", "2001:db8::/64"])
  })

  it("reverse zones are known by their names", () => {
    const config = Config.make({ ...minimalValues, zones: ["Hosts.Prism.Test.", "2.0.192.in-addr.arpa"] })
    assert.strictEqual(config.zones[0]!.name, "hosts.prism.test.")
    assert.isDefined(config.zones[1]!.network)
  })

  it("a zone that keeps its records says so", () => {
    const config = Config.make({
      ...minimalValues,
      zones: [
        { name: "a.test", ttl: "1h", whenOffline: "keep", create: false, nameservers: ["ns.a.test", "ns.b.test."] }
      ]
    })
    assert.strictEqual(config.zones[0]!.policy.ttlSeconds, 3600)
    assert.deepStrictEqual(config.zones[0]!.policy.whenOffline, { _tag: "Keep" })
    assert.deepStrictEqual<ReadonlyArray<string>>(config.zones[0]!.nameservers, ["ns.a.test.", "ns.b.test."])
    assert.strictEqual(config.zones[0]!.createIfMissing, false)
  })

  it("a zone says what its hosts may have, and a token what its holder may claim", () => {
    const config = Config.make({
      ...minimalValues,
      zones: [
        {
          name: "a.test",
          networks: ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"],
          labelsMax: 2,
          hostsMax: 5,
          ttlMin: "1s",
          ttlMax: "1d"
        }
      ],
      auth: {
        reservedNames: ["WWW", "ns#"],
        limits: { network: { ratePerSecond: 5 } },
        agentTokens: [
          { name: "wide", token: "w" },
          { name: "narrow", token: "n", zones: ["A.test"], names: ["web-*"], networks: ["10.1.0.0/16"], namesMax: 3 }
        ]
      }
    })
    const { policy } = config.zones[0]!
    assert.deepStrictEqual(policy.networks?.map(IpNetwork.format), ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"])
    assert.deepInclude(policy, { labelsMax: 2, hostsMax: 5, ttlSecondsMin: 1, ttlSecondsMax: 86_400 })
    assert.deepStrictEqual(config.auth.reservedNames, ["www", "ns#"])
    assert.deepStrictEqual(config.auth.limits.network, { ratePerSecond: 5, burst: defaultLimits.network.burst })
    const [wide, narrow] = config.auth.agentTokens.map(({ grant }) => grant)
    assert.deepStrictEqual(wide, unlimited)
    assert.deepStrictEqual(
      { ...narrow, networks: narrow?.networks.map(IpNetwork.format) },
      { zones: [DomainName.make("a.test")], names: ["web-*"], networks: ["10.1.0.0/16"], namesMax: 3 }
    )
  })

  it("a zone and the server that say nothing about it take what is usual", () => {
    const config = Config.make(minimalValues)
    assert.deepInclude(config.zones[0]!.policy, { networks: undefined, labelsMax: undefined, hostsMax: 1_000_000 })
    assert.deepStrictEqual(config.auth.reservedNames, reservedNames)
    assert.deepStrictEqual(config.auth.limits, defaultLimits)
  })

  it("the primary comes first among the nodes", () => {
    const node = minimalValues.powerdns.nodes[0]!
    const config = Config.make({
      ...minimalValues,
      powerdns: {
        nodes: [
          { ...node, name: "a" },
          { ...node, name: "b" }
        ],
        primary: "b"
      }
    })
    assert.deepStrictEqual(
      config.powerdns.nodes.map(({ name }) => name),
      ["b", "a"]
    )
    assert.strictEqual(config.powerdns.primaries[0].name, "b")
  })

  it("TOML and JSON are read by the file's ending", () => {
    const toml = file(
      "c.toml",
      `zones = ["a.test"]\n[tcp]\nport = 81\n[[powerdns.nodes]]\napi = "http://[::1]:1"\napiKey = "k"\ndns = "[::1]:53"\n`
    )
    const json = file("c.json", JSON.stringify({ ...minimalValues, tcp: { port: 81 } }))
    for (const path of [toml, json]) {
      assert.strictEqual(Result.getOrThrow(Config.loadResult({ file: path })).config.tcp.port, 81)
    }
    assert.deepStrictEqual(Result.getOrThrow(Config.loadResult({ file: toml })).config.powerdns.primaries[0].dns, {
      host: "::1",
      port: 53
    })
  })

  it("the environment alone is enough", () => {
    const loaded = Result.getOrThrow(
      Config.loadResult({
        environment: {
          PRISM_ZONES: "a.test, 10.in-addr.arpa",
          PRISM_ZONES_0_TTL: "7s",
          PRISM_POWERDNS_NODES_0_API: "http://127.0.0.1:8053/api/v1",
          PRISM_POWERDNS_NODES_0_API_KEY: "k",
          PRISM_POWERDNS_NODES_0_DNS: "127.0.0.1",
          PRISM_AUTH_AGENT_TOKENS: `[{"name": "fleet", "token": "t"}]`,
          PRISM_AUTH_ANONYMOUS_RATE_PER_SECOND: "5"
        }
      })
    ).config
    assert.deepStrictEqual(
      loaded.zones.map((zone) => [zone.name, zone.policy.ttlSeconds]),
      [
        ["a.test.", 7],
        ["10.in-addr.arpa.", 60]
      ]
    )
    assert.strictEqual(loaded.powerdns.primaries[0].api.url, "http://127.0.0.1:8053")
    assert.strictEqual(loaded.powerdns.primaries[0].dns.port, 53)
    assert.strictEqual(Redacted.value(loaded.auth.agentTokens[0]!.token), "t")
    assert.strictEqual(loaded.auth.anonymous.ratePerSecond, 5)
  })

  it("flags hide the environment, which hides the file, which hides the defaults; each value's origin is known", () => {
    const text = "tcp: { port: 1, host: 127.0.0.1 }\nhttp:\n  port: 5\n"
    const environment = { PRISM_TCP_PORT: "2", PRISM_HTTP_PORT: "6" }
    const loaded = good({ text, environment, flags: { "tcp-port": "3", zone: ["b.test"] } })
    assert.strictEqual(loaded.config.tcp.port, 3)
    assert.strictEqual(loaded.config.http.port, 6)
    assert.strictEqual(loaded.config.zones[0]!.name, "b.test.")
    assert.strictEqual(originOf(loaded, "tcp.port"), "--tcp-port")
    assert.strictEqual(originOf(loaded, "http.port"), "PRISM_HTTP_PORT")
    assert.match(originOf(loaded, "tcp.host") ?? "", /\.yaml:5$/)
    assert.strictEqual(originOf(loaded, "http.host"), "default")
    assert.strictEqual(originOf(loaded, "zones.0.name"), "--zone")
  })

  it("an empty variable is as good as none, and links to a Kubernetes Service are not ours", () => {
    const { config } = good({
      environment: {
        PRISM_TCP_PORT: "",
        PRISM_HTTP_PORT: "tcp://10.0.0.1:8081",
        PRISM_HTTP_SERVICE_HOST: "10.0.0.1",
        PRISM_HTTP_PORT_8081_TCP_ADDR: "10.0.0.1",
        PRISM_TOKEN: "for another command",
        PRISM_TEST_SOMETHING: "1"
      }
    })
    assert.strictEqual(config.tcp.port, 8080)
    assert.strictEqual(config.http.port, 8081)
  })

  it("secrets come from files, in the file and in the environment, and whichever is higher wins", () => {
    const key = file("key", "from-a-file\n")
    const node = (more: object) => ({
      zones: ["a.test"],
      powerdns: { nodes: [{ api: "http://127.0.0.1:1", dns: "127.0.0.1", ...more }] }
    })
    const keyOf = (values: unknown, environment?: Record<string, string>) =>
      Redacted.value(Result.getOrThrow(Config.loadResult({ values, environment })).config.powerdns.primaries[0].api.key)
    assert.strictEqual(keyOf(node({ apiKeyFile: key })), "from-a-file")
    assert.strictEqual(keyOf(node({ apiKey: "x" }), { PRISM_POWERDNS_NODES_0_API_KEY_FILE: key }), "from-a-file")
    assert.strictEqual(keyOf(node({ apiKeyFile: key }), { PRISM_POWERDNS_NODES_0_API_KEY: "y" }), "y")
  })

  it("the storage's URL may stand in a file too", () => {
    const url = file("url", "postgres://prism:pa%40ss@db.example.net/prism\n")
    const { storage } = good({ environment: { PRISM_STORAGE_URL_FILE: url } }).config
    assert.deepInclude(storage.url, { _tag: "Postgres", host: "db.example.net", port: 5432 })
  })

  it("the storage may have several servers, a way past a pool, and a replica", () => {
    const { storage } = good({
      text:
        "storage:\n  url: postgres://prism:secret@db1,db2:5433/prism\n  directUrl: postgres://prism:secret@db3/prism\n" +
        "  replica: { url: 'postgres://prism@db4/prism' }\n"
    }).config
    const hostsOf = (url: typeof storage.url | undefined) => (url?._tag === "Postgres" ? url.hosts : [])
    assert.deepStrictEqual(hostsOf(storage.url), [
      { host: "db1", port: 5432 },
      { host: "db2", port: 5433 }
    ])
    assert.deepStrictEqual(hostsOf(storage.directUrl), [{ host: "db3", port: 5432 }])
    assert.deepStrictEqual(hostsOf(storage.replica?.url), [{ host: "db4", port: 5432 }])
    assert.strictEqual(Duration.toMillis(storage.replica!.lagMax), 5000)
  })
})

describe("Redis", () => {
  it("is none unless one is named, by its address with a database and with TLS", () => {
    assert.isUndefined(good({}).config.redis)
    const { redis } = good({ text: 'redis: { url: "rediss://prism:s%40fe@cache.example.net/2", ca: ca.pem }\n' }).config
    assert.deepInclude(redis, { ca: "ca.pem", prefix: "prism-dns:" })
    assert.deepInclude(redis?.url, { name: "cache.example.net:6379", tls: true })
  })

  it.each([
    ["http://cache", "redis.url: is not the URL of a Redis server"],
    ["redis://cache/x", "redis.url: has something behind the host"],
    ["redis://:%zz@cache", "redis.url: has a password that cannot be read"]
  ])("at %s is none", (url, problem) => {
    assert.include(problemsOf(Config.loadResult({ values: { ...minimalValues, redis: { url } } })).join(), problem)
  })

  it("has authorities for TLS only", () => {
    const values = { ...minimalValues, redis: { url: "redis://cache", ca: "x" } }
    assert.include(problemsOf(Config.loadResult({ values })).join(), "redis.ca: has no effect")
  })
})

describe("what is wrong", () => {
  const cases: ReadonlyArray<readonly [what: string, sources: Sources, problem: string]> = [
    ["a key is misspelt", { text: "tcp:\n  prot: 1\n" }, "prism.yaml:6: tcp.prot: unknown key, did you mean port?"],
    ["letters are swapped", { text: "lesaes: {}\n" }, "prism.yaml:5: lesaes: unknown key, did you mean leases?"],
    [
      "a key is in the wrong place",
      { text: "port: 1\n" },
      "prism.yaml:5: port: unknown key, did you mean tcp.port or tls.port or http.port?"
    ],
    [
      "a key is like nothing known",
      { text: "http: { banana: 1 }\n" },
      "prism.yaml:5: http.banana: unknown key, known here: host, port, connectionsMax, headersTimeout, requestTimeout, rateLimit, idempotency, hostAnswers"
    ],
    [
      "a section has no keys yet",
      { text: "telemetry: { x: 1 }\n" },
      "prism.yaml:5: telemetry.x: unknown key, this section has no keys yet"
    ],
    [
      "a section is a value",
      { text: "http: 80\n" },
      "prism.yaml:5: http: must have keys: host, port, connectionsMax, headersTimeout, requestTimeout, rateLimit, idempotency, hostAnswers"
    ],
    [
      "a value is a section",
      { text: "http: { port: { a: 1 } }\n" },
      "prism.yaml:5: http.port: must be one value (port)"
    ],
    ["nothing stands after a key", { text: "http:\n  port:\n" }, "prism.yaml:6: http.port: has no value"],
    [
      "a port is too high",
      { text: "http: { port: 65536 }\n" },
      "prism.yaml:5: http.port: must be a whole number from 0 to 65535, not '65536'"
    ],
    [
      "a duration lacks its unit",
      { text: "leases: { grace: 30 }\n" },
      "prism.yaml:5: leases.grace: needs a unit, for example '30s'"
    ],
    [
      "a duration is none",
      { text: "leases: { grace: soon }\n" },
      "prism.yaml:5: leases.grace: must be a duration such as 500ms, 30s, 5m or 1h, not 'soon'"
    ],
    [
      "a duration is too long",
      { text: "leases: { ackTimeout: 1h }\n" },
      "prism.yaml:5: leases.ackTimeout: must be from 0s to 1m, not 1h"
    ],
    [
      "the frame's size is another",
      { text: "tcp: { frameBytesMax: 1MiB }\n" },
      "prism.yaml:5: tcp.frameBytesMax: must be 65536 bytes, not 1MiB"
    ],
    [
      "a word is not one of the words",
      { text: "auth: { mode: maybe }\n" },
      "prism.yaml:5: auth.mode: must be off, optional or required, not 'maybe'"
    ],
    [
      "the storage is of no kind",
      { text: "storage: { url: mysql://x }\n" },
      "prism.yaml:5: storage.url: must begin with sqlite: or postgres://, for example sqlite:./prism.db"
    ],
    [
      "a server of the storage has a port that is none",
      { text: "storage: { url: 'postgres://prism:secret@a:5432,b:x/prism' }\n" },
      "prism.yaml:5: storage.url: has a port that is none (a / or @ in the password is written %2F, %40)"
    ],
    [
      "a replica is of no kind",
      { text: "storage: { replica: { url: 'sqlite:./prism.db' } }\n" },
      "prism.yaml:5: storage.replica.url: must begin with postgres://, for example postgres://prism@db.example.net/prism"
    ],
    [
      "a variable is misspelt",
      { environment: { PRISM_TPC_PORT: "1" } },
      "PRISM_TPC_PORT: unknown variable, did you mean PRISM_TCP_PORT?"
    ],
    [
      "a variable's value is wrong",
      { environment: { PRISM_TCP_PORT: "x" } },
      "PRISM_TCP_PORT: tcp.port: must be a whole number from 0 to 65535, not 'x'"
    ],
    [
      "a flag's value is wrong",
      { flags: { "tcp-port": "x" } },
      "--tcp-port: tcp.port: must be a whole number from 0 to 65535, not 'x'"
    ],
    [
      "a secret is given twice",
      { environment: { PRISM_STORAGE_URL: "sqlite:a", PRISM_STORAGE_URL_FILE: "b" } },
      "PRISM_STORAGE_URL_FILE: PRISM_STORAGE_URL is set too; give one of the two"
    ],
    [
      "a secret's file is not there",
      { environment: { PRISM_STORAGE_URL_FILE: "/nowhere/x" } },
      "PRISM_STORAGE_URL_FILE: storage.urlFile: cannot read /nowhere/x: there is no such file"
    ],
    [
      "the anonymous zone is no zone of ours",
      { text: "auth: { anonymous: { zone: b.test } }\n" },
      "prism.yaml: auth.anonymous.zone: b.test. is not one of the zones for hosts: hosts.prism.test."
    ],
    [
      "a load balancer's network has bits behind its prefix",
      { text: "tcp: { proxyFrom: [10.0.0.5/8] }\n" },
      "prism.yaml:5: tcp.proxyFrom[0].network: must be a network such as 10.1.0.0/16 or 2001:db8::/32, with no bit behind the prefix, not '10.0.0.5/8'"
    ],
    [
      "a certificate has no key",
      { text: "tls: { certificate: tls.crt }\n" },
      "prism.yaml: tls.key: is missing; name the file with the key of tls.certificate"
    ],
    [
      "a key has no certificate",
      { text: "tls: { key: tls.key }\n" },
      "prism.yaml: tls.certificate: is missing; without it tls.key has no effect"
    ],
    [
      "clients are asked for certificates of nobody",
      { text: "tls: { certificate: tls.crt, key: tls.key, clientCertificates: required }\n" },
      "prism.yaml: tls.clientCa: is missing; name the file with the authorities that sign clients' certificates"
    ],
    [
      "an authority is named, and nobody is asked",
      { text: "tls: { certificate: tls.crt, key: tls.key, clientCa: ca.crt }\n" },
      "prism.yaml: tls.clientCertificates: is off, so that clientCa and clientCrl have no effect; optional or required?"
    ],
    [
      "no node has the primary's name",
      { environment: { PRISM_POWERDNS_PRIMARY: "x" } },
      "prism.yaml: powerdns.primary: no primary is called x; there are 127.0.0.1:8053"
    ],
    [
      "a token is called like hosts without one",
      { text: "auth: { agentTokens: [{ name: anonymous, token: t }] }\n" },
      "prism.yaml: auth.agentTokens: no token may be called anonymous, which is who has none"
    ],
    [
      "a token is called like Prism in the audit",
      { text: "auth: { adminTokens: [{ name: prism, token: t }] }\n" },
      "prism.yaml: auth.adminTokens: no token may be called prism, which is Prism itself in the audit"
    ],
    [
      "two holders have the same token",
      { text: "auth: { agentTokens: [{ name: a, token: t }, { name: b, token: t }] }\n" },
      "prism.yaml: auth.agentTokens: a and b have the same token"
    ],
    [
      "a key for transfers is no key",
      {
        environment: { PRISM_POWERDNS_TRANSFER_TSIG_NAME: "xfr.test", PRISM_POWERDNS_TRANSFER_TSIG_SECRET: "no-key" }
      },
      "prism.yaml: powerdns.transfer.tsigSecret: is not base64, as tsig-keygen and pdnsutil generate-tsig-key print it"
    ],
    [
      "the catalog is a zone for hosts",
      { environment: { PRISM_POWERDNS_TRANSFER_CATALOG: "hosts.prism.test" } },
      "prism.yaml: powerdns.transfer.catalog: hosts.prism.test. is one of the zones; a catalog is a zone of its own"
    ],
    ["a zone stands twice", { flags: { zone: ["a.test", "A.test."] } }, "prism.yaml: zones: a.test. stands twice"],
    [
      "a zone's name is none",
      { flags: { zone: ["a..test"] } },
      "--zone: zones[0].name: '' is not a label of a domain name"
    ],
    [
      "only reverse zones are there",
      { flags: { zone: ["10.in-addr.arpa"] } },
      "prism.yaml: zones: name at least one zone for hosts, for example hosts.example.net"
    ],
    [
      "a network is none",
      { environment: { PRISM_ZONES_0_NETWORKS: "[10.0.0.1/8]" } },
      "PRISM_ZONES_0_NETWORKS: zones[0].networks[0].network: must be a network such as 10.1.0.0/16 or 2001:db8::/32, with no bit behind the prefix, not '10.0.0.1/8'"
    ],
    [
      "a pattern is none",
      { text: "auth: { agentTokens: [{ name: a, token: t, names: [a b] }] }\n" },
      "prism.yaml:5: auth.agentTokens[0].names[0].name: must be labels of letters, digits, hyphens, * and # with dots between them, such as web-* or *.rack-7, not 'a b'"
    ],
    [
      "a token is for a zone that is not there",
      { text: "auth: { agentTokens: [{ name: a, token: t, zones: [b.test] }] }\n" },
      "prism.yaml: auth.agentTokens: a has the zone b.test., which is not one of those for hosts: hosts.prism.test."
    ],
    [
      "a reserved name has a dot",
      { text: "auth: { reservedNames: [a.b] }\n" },
      "prism.yaml: auth.reservedNames: a.b has a dot; a name is reserved by its first label"
    ],
    [
      "the bounds of the TTL are turned round",
      { environment: { PRISM_ZONES_0_TTL_MIN: "2h" } },
      "prism.yaml: zones: hosts.prism.test. has a ttlMin above its ttlMax"
    ],
    ["a key stands twice", { text: "http: {}\nhttp: {}\n" }, "prism.yaml:6: the same key stands twice"]
  ]
  for (const [what, sources, problem] of cases) {
    it(`${what}: ${problem}`, () => assert.deepStrictEqual(problemsOf(load(sources)), [problem]))
  }

  it("a TTL may be 1 s to 2147483647 s", () => {
    const withTtl = (ttl: string) =>
      Config.loadResult({ values: { ...minimalValues, zones: [{ name: "a.test", ttl }] } })
    for (const ttl of ["1s", "2147483647s"]) assert.isTrue(Result.isSuccess(withTtl(ttl)))
    for (const ttl of ["0s", "2147483648s", "1500ms", "-1s"]) assert.isTrue(Result.isFailure(withTtl(ttl)))
  })

  it("everything that is wrong is listed, in the file's order", () => {
    const path = file("many.yaml", "tcp:\n  prot: 1\nhttp:\n  port: x\nleases:\n  grace: 5\n")
    assert.deepStrictEqual(problemsOf(Config.loadResult({ file: path, environment: { PRISM_TPC_HOST: "1" } })), [
      "many.yaml:1: powerdns.nodes: name at least one PowerDNS server (api, apiKey or apiKeyFile, dns)",
      "many.yaml:1: zones: name at least one zone for hosts, for example hosts.example.net",
      "many.yaml:2: tcp.prot: unknown key, did you mean port?",
      "many.yaml:4: http.port: must be a whole number from 0 to 65535, not 'x'",
      "many.yaml:6: leases.grace: needs a unit, for example '5s'",
      "PRISM_TPC_HOST: unknown variable, did you mean PRISM_TCP_HOST?"
    ])
  })

  it("a file that is not there, or is no YAML, says so", () => {
    assert.deepStrictEqual(problemsOf(Config.loadResult({ file: `${folder}/none.yaml` })), [
      "cannot read none.yaml: there is no such file"
    ])
    assert.match(problemsOf(Config.loadResult({ file: file("bad.yaml", "a: [1\nb: 2") }))[0] ?? "", /^bad\.yaml:\d+: /)
    assert.match(problemsOf(Config.loadResult({ file: file("bad.toml", "a = \n") }))[0] ?? "", /^bad\.toml:1: /)
  })

  it("an alias that contains itself is refused", () => {
    const problems = problemsOf(Config.loadResult({ file: file("loop.yaml", "tcp: &a\n  host: *a\n") }))
    assert.match(problems[0] ?? "", /is nested deeper than 16 levels$/)
  })

  it("no problem ever shows a secret", () => {
    const result = Config.loadResult({
      values: {
        ...minimalValues,
        storage: { url: "postgres://prism:hunter2 @@:x/y" },
        redis: { url: "redis://:hunter2/x@cache:1" },
        auth: { agentTokens: [{ name: "a", token: "hunter2 hunter2" }] }
      }
    })
    assert.isTrue(Result.isFailure(result))
    assert.notInclude(problemsOf(result).join("\n"), "hunter2")
  })
})

describe("printing", () => {
  const text = `storage: { url: "postgres://prism:hunt@er2@db.example.net/prism" }
auth: { adminTokens: [{ name: ops, token: hunter2 }] }
redis: { url: "redis://:hunt@er2@cache.example.net:6380/1" }
`
  it("shows no secret, neither as YAML nor as JSON", () => {
    const { printed } = good({ text })
    for (const shown of [Printing.toYaml(printed, { origin: true }), Printing.toJson(printed, { origin: true })]) {
      assert.notMatch(shown, /hunt|er2/)
      assert.include(shown, "postgres://prism:<redacted>@db.example.net/prism")
      assert.include(shown, "redis://:<redacted>@cache.example.net:6380/1")
    }
  })

  it("gives a file that reads as the same configuration", () => {
    const before = good({ text: "tcp: { port: 0, frameTimeout: 5m }\nauth: { mode: optional }\n" })
    const printed = Printing.toYaml(before.printed, { origin: true }).replace("<redacted>", "secret")
    const after = Result.getOrThrow(Config.loadResult({ file: file("printed.yaml", printed) }))
    assert.deepStrictEqual(
      Printing.toYaml(after.printed, { origin: false }),
      Printing.toYaml(before.printed, { origin: false })
    )
  })
})

describe("databases of primaries", () => {
  const nodes = (zone: string, second: string) => ({
    file: file(
      `${++files}.yaml`,
      `zones: [${zone}]
powerdns:
  nodes:
    - { name: ns1, database: one, api: http://127.0.0.1:8053, apiKey: secret, dns: 127.0.0.1 }
    - { name: ns2, ${second}, dns: 127.0.0.2 }
`
    )
  })
  const two = "database: two, api: http://127.0.0.2:8053, apiKey: secret"

  it("have names", () => {
    const result = Config.loadResult(nodes("hosts.prism.test", two))
    assert.deepStrictEqual(problemsOf(result), [])
    assert.deepStrictEqual(
      Result.getOrThrow(result).config.powerdns.nodes.map(({ database }) => database),
      ["one", "two"]
    )
  })

  it("are not a secondary's", () => {
    assert.deepStrictEqual(problemsOf(Config.loadResult(nodes("hosts.prism.test", "role: secondary, database: two"))), [
      "prism.yaml: powerdns.nodes: ns2 is a secondary, whose database is its own: leave database out"
    ])
  })

  it("hold no signed zone, where there are several", () => {
    assert.deepStrictEqual(problemsOf(Config.loadResult(nodes("{ name: hosts.prism.test, dnssec: true }", two))), [
      "prism.yaml: zones: hosts.prism.test. has dnssec, and the primaries have several databases, each of which would make keys of its own: give them one"
    ])
  })
})

it("the reference page is up to date (npm run docs)", () => {
  const page = Path.resolve(import.meta.dirname, "../../../docs/reference/configuration.md")
  assert.strictEqual(Fs.readFileSync(page, "utf8"), Reference.page(Config.settings))
})
