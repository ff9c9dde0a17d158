/** Doctor against real PowerDNS servers that are set up wrongly on purpose, and one that is set up well. */
import { assert, describe, it } from "@effect/vitest"
import { NodeHttpClient } from "@effect/platform-node"
import { NameServers } from "@prism-dns/core/dns/NameServers"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import * as Doctor from "@prism-dns/core/powerdns/Doctor"
import type { RegistryFacts } from "@prism-dns/core/powerdns/DoctorFacts"
import * as DoctorGather from "@prism-dns/core/powerdns/DoctorGather"
import { deleteRRsetSetting } from "@prism-dns/core/powerdns/pgsqlLock"
import { sqliteFile } from "@prism-dns/core/powerdns/PowerDnsSettings"
import type { NodeOptions } from "@prism-dns/core/powerdns/PowerDnsNodes"
import { Clock, Context, Effect, Layer, Redacted } from "effect"
import { DatabaseSync } from "node:sqlite"
import * as PowerDns from "../harness/PowerDns.ts"
import { freePorts } from "../harness/ports.ts"

const zones = ["hosts.test", "wrong.test", "missing.test", "0/26.2.0.192.in-addr.arpa"].map((name) =>
  Zone.make(DomainName.make(name))
)
const [hosts, wrong] = zones.map(({ name }) => name) as [DomainName.DomainName, DomainName.DomainName]
const registry: RegistryFacts = { storage: ":memory:", _tag: "None", detail: "none" }

const server = (backend: PowerDns.BackendName, extra: Readonly<Record<string, string>> = {}) =>
  Effect.map(Layer.build(PowerDns.layerServer(backend, { extra })), (context) =>
    Context.get(context, PowerDns.TestPowerDns)
  )

type Server = Effect.Success<ReturnType<typeof server>>

const nodeOf = ({ apiKey, apiUrl, dns }: Server, changes: Partial<NodeOptions> = {}): NodeOptions => ({
  name: "a",
  role: "primary",
  api: { url: apiUrl, key: apiKey },
  dns,
  ...changes
})

const request = ({ apiKey, apiUrl }: Server, method: string, path: string, body: unknown) =>
  Effect.promise(async () => {
    const response = await fetch(`${apiUrl}/api/v1/servers/localhost${path}`, {
      method,
      headers: { "X-API-Key": Redacted.value(apiKey) },
      body: JSON.stringify(body)
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  })

const create = (to: Server, name: string, more: object = {}) =>
  request(to, "POST", "/zones?rrsets=false", {
    name,
    kind: "Native",
    nameservers: [`ns1.${name.replace(/^.*\//, "x")}`],
    soa_edit_api: "INCREASE",
    api_rectify: false,
    ...more
  })

const diagnose = Effect.fnUntraced(
  function* (nodes: ReadonlyArray<NodeOptions>, options: Partial<DoctorGather.Options> = {}) {
    const seen = yield* DoctorGather.gather({ nodes, zones, serialPatience: "1 second", ...options })
    return Doctor.diagnose({ zones: options.zones ?? zones, nodes: seen, registry, batchNamesMax: 5000 })
  },
  Effect.provide([NodeHttpClient.layerNodeHttp, NameServers.layerWith({ timeoutMillis: 1000 })])
)

const words = (findings: ReadonlyArray<Doctor.Finding>, ...severities: ReadonlyArray<Doctor.Severity>) =>
  findings
    .filter(({ severity }) => severities.includes(severity))
    .map(({ check, node, severity, zone }) =>
      [severity, check, node, zone].filter((word) => word !== undefined).join(" ")
    )

describe("doctor", () => {
  it.live("names each fault of a server that is set up wrongly, and of its zones", () =>
    Effect.gen(function* () {
      const pdns = yield* server("sqlite", {
        "default-api-rectify": "yes",
        "enable-lua-records": "yes",
        "allow-axfr-ips": "0.0.0.0/0",
        "webserver-max-bodysize": "2",
        "webserver-address": "0.0.0.0",
        "webserver-allow-from": "0.0.0.0/0",
        "default-soa-content": "a.misconfigured.dns.server.invalid hostmaster.@ 0 10800 3600 604800 3600"
      })
      yield* create(pdns, hosts, { kind: "Slave", masters: ["192.0.2.1"] })
      yield* create(pdns, wrong, { soa_edit_api: "EPOCH", api_rectify: true })
      yield* request(pdns, "PUT", `/zones/${wrong}/metadata/ALLOW-AXFR-FROM`, { metadata: ["0.0.0.0/0"] })
      const database = new DatabaseSync(sqliteFile(pdns.directory))
      database.exec(`
        INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth)
        SELECT id, column1 || 'wrong.test', column2, column3, 60, 0, 0, 1 FROM domains, (VALUES
          ('a.', 'A', '192.0.2.1'), ('a.', 'A', '192.0.2.1'), ('b.', 'CNAME', 'a.wrong.test'), ('b.', 'A', '192.0.2.1'),
          ('', 'SOA', 'ns1.wrong.test h.wrong.test 5 1 1 1 1'))
        WHERE domains.name = 'wrong.test'`)
      database.close()

      const findings = yield* diagnose([nodeOf(pdns)])
      assert.sameMembers(words(findings, "error", "warning"), [
        "error zone-kind a hosts.test.",
        "error soa-edit-api a wrong.test.",
        "error soa a hosts.test.",
        "error soa a wrong.test.",
        "error duplicates a wrong.test.",
        "error cname a wrong.test.",
        "error zone a hosts.test.", // refused by DNS: a Slave without records
        "warning zone-rectify a wrong.test.",
        "warning soa a wrong.test.",
        "warning rectify-default a",
        "warning lua-records a",
        "warning axfr a",
        "warning axfr a wrong.test.",
        "warning body-size a",
        "warning webserver a",
        "warning metrics a"
      ])
      assert.includeMembers(words(findings, "info"), ["info zone a missing.test.", "info clock a", "info caches a"])
      assert.includeMembers(words(findings, "ok"), ["ok api a", "ok version a", "ok backend a", "ok same-server a"])
      assert.notInclude(JSON.stringify(findings), Redacted.value(pdns.apiKey))
    })
  )

  it.live("finds neither errors nor warnings at servers as Prism wants them, a secondary included", () =>
    Effect.gen(function* () {
      const secondary = yield* server("sqlite", { secondary: "yes" })
      const primary = yield* server("lmdb", {
        primary: "yes",
        "also-notify": `${secondary.dns.host}:${secondary.dns.port}`
      })
      for (const { name } of zones) {
        const path = name.replaceAll("/", "=2F")
        yield* create(primary, name, { kind: "Master" })
        yield* create(secondary, name, { kind: "Slave", masters: [`127.0.0.1:${primary.dns.port}`], nameservers: [] })
        yield* request(secondary, "PUT", `/zones/${path}/axfr-retrieve`, {})
      }
      const nodes = [nodeOf(primary), nodeOf(secondary, { name: "s", role: "secondary" })]
      const findings = yield* diagnose(nodes, { serialPatience: "10 seconds" })
      assert.deepStrictEqual(
        words(findings, "error", "warning").filter((each) => each !== "warning body-size a"),
        []
      )
      assert.includeMembers(words(findings, "ok"), [
        "ok notify a",
        "ok serial s hosts.test.",
        "ok secondary s wrong.test."
      ])
    })
  )

  it.live("says that a secondary is behind, is not notified, and that the zones are of the wrong kind for it", () =>
    Effect.gen(function* () {
      const primary = yield* server("sqlite")
      const behind = yield* server("sqlite")
      yield* create(primary, hosts)
      yield* create(behind, hosts)
      yield* request(primary, "PATCH", `/zones/${hosts}`, {
        rrsets: [{ name: `a.${hosts}`, type: "A", ttl: 5, changetype: "REPLACE", records: [{ content: "192.0.2.1" }] }]
      })
      const findings = yield* diagnose(
        [nodeOf(primary), nodeOf(behind, { name: "s", role: "secondary", api: undefined })],
        { zones: [Zone.make(hosts)] }
      )
      assert.sameMembers(words(findings, "error"), [
        "error notify a",
        "error zone-kind a hosts.test.",
        "error serial s hosts.test."
      ])
    })
  )

  it.live("looks for the lock on PostgreSQL, and how a zone is signed", () =>
    Effect.gen(function* () {
      const good = yield* server("pgsql")
      yield* create(good, hosts, { dnssec: true, nsec3param: "1 0 0 -", nsec3narrow: true })
      yield* create(good, wrong, { dnssec: true })
      const findings = yield* diagnose([nodeOf(good)])
      assert.includeMembers(words(findings, "ok"), ["ok pgsql-lock a", "ok zone a hosts.test."])
      assert.deepStrictEqual(words(findings, "error"), ["error zone-rectify a wrong.test."])

      const bad = yield* server("pgsql", {
        [deleteRRsetSetting.name]: "delete from records where domain_id=$1 and name=$2 and type=$3"
      })
      const nodes = [nodeOf(bad), nodeOf(bad, { name: "b" })]
      assert.includeMembers(words(yield* diagnose(nodes), "error"), ["error pgsql-lock a", "error pgsql-lock b"])
    })
  )

  it.live("tells that the DNS endpoint is another server than the API, and that a key is wrong", () =>
    Effect.gen(function* () {
      const one = yield* server("sqlite")
      const other = yield* server("sqlite")
      const key = Redacted.make("not-the-key-of-it")
      const findings = yield* diagnose([
        nodeOf(one, { dns: other.dns }),
        nodeOf(other, { name: "b", api: { url: other.apiUrl, key } })
      ])
      assert.includeMembers(words(findings, "error"), ["error same-server a", "error api-key b"])
      assert.notInclude(JSON.stringify(findings), Redacted.value(key))
    })
  )

  it.live("ends soon where nodes are away or stand still, and says so", () =>
    Effect.gen(function* () {
      const frozen = yield* server("sqlite")
      const [dnsPort = 0, apiPort = 0] = yield* freePorts(2)
      const away: NodeOptions = {
        name: "away",
        role: "primary",
        api: { url: `http://127.0.0.1:${apiPort}`, key: Redacted.make("k") },
        dns: { host: "127.0.0.1", port: dnsPort }
      }
      const begun = yield* Clock.currentTimeMillis
      yield* frozen.freeze
      const findings = yield* diagnose([nodeOf(frozen), away], { requestTimeout: "1 second" }).pipe(
        Effect.ensuring(frozen.thaw)
      )
      assert.isBelow((yield* Clock.currentTimeMillis) - begun, 8000)
      assert.deepStrictEqual(words(findings, "error"), [
        "error api a",
        "error api away",
        "error dns a",
        "error dns away"
      ])
    })
  )
})
