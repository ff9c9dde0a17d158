/**
 * What is set up wrongly, by the facts that were gathered: the decisions of
 * `prism-dns doctor`, as a function of values.
 *
 * Promises: each finding is of a check in `checks`, says what was seen and why
 * it matters, and, unless all is well, how to mend it. Leaves to others:
 * gathering (`DoctorGather`, the command for the registry) and printing.
 */
import { Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import * as Zones from "../dns/Zones.ts"
import type { DomainName } from "../domain/DomainName.ts"
import * as IpAddress from "../domain/IpAddress.ts"
import * as Serial from "../domain/Serial.ts"
import type {
  ApiAnswers,
  DnsFacts,
  Facts,
  FoundZone,
  NodeFacts,
  RegistryFacts,
  RegistryState,
  Sample,
  SettingName
} from "./DoctorFacts.ts"
import { deleteRRsetSetting, pgsqlLock } from "./pgsqlLock.ts"
import { databaseOf } from "./PowerDnsNodes.ts"

export type Severity = "error" | "warning" | "info" | "ok"

/** Worst first. */
export const severities: ReadonlyArray<Severity> = ["error", "warning", "info", "ok"]

/** All that is looked at, by the names that `--json` has; `why` is the same each time. */
export const checks = {
  api: "Prism writes, flushes and notifies by the API of the node.",
  "api-key": "Without the key of the node every request is refused.",
  version: "Prism knows what 4.7 to 5.1 do; older ones lack what it needs.",
  settings: "What the node is set to can only be judged when it tells.",
  backend: "The backend decides what is safe at once and how fast.",
  "pgsql-lock":
    "On PostgreSQL two writes of a zone at once both succeed and leave the records of each (PowerDNS/pdns#7128); the function makes writers take turns.",
  "body-size": "A batch above the limit is refused as a whole.",
  "rectify-default": "A zone with API-RECTIFY is scanned whole at every change; zones that others make get it.",
  caches:
    "`served` means that each node answers with the new content; Prism drops cached answers by the node's API after each write.",
  "lua-records": "Whoever may write a LUA record runs code in PowerDNS.",
  webserver: "The API can change every zone; /metrics and the pages of the web server need no API key.",
  metrics: "/metrics is not protected by the API key and tells what the server does.",
  dns: "A node that does not answer DNS serves nobody, and `served` waits for it.",
  "same-server": "Flushing one server and asking another makes `served` a guess.",
  axfr: "Whoever may transfer a zone reads the name and address of every host.",
  clock: "Signatures (DNSSEC, TSIG) and leases go by the clock.",
  notify: "A secondary that hears nothing asks by itself only after the SOA's refresh time, hours by default.",
  secondary: "A secondary that is not set up for the zone never has its records.",
  zone: "A zone that a node does not have is answered by nobody there.",
  "zone-kind": "Only a zone of kind Master sends NOTIFY; one of kind Slave is overwritten by its masters.",
  "soa-edit-api":
    "Each change must raise the serial: else secondaries miss it. EPOCH gives all changes of one second the same serial, empty and OFF never raise it.",
  "zone-rectify":
    "With API-RECTIFY on every change scans the whole zone; NSEC and ordinary NSEC3 are wrong without it.",
  dnssec: "NSEC3 narrow is the one signed mode that is right and fast without rectify.",
  soa: "A zone has one SOA: with two, the serial is whichever comes first. PowerDNS's placeholder names a server that is none.",
  duplicates: "The same record twice is the trace of two writers at once.",
  cname: "A CNAME stands alone (RFC 2181): resolvers answer one or the other.",
  serial: "A node whose serial is behind answers with what was.",
  registry: "Without its database Prism accepts nothing.",
  migrations: "A program and a schema of different age do not fit.",
  parked: "A parked name waits until its host changes or a person looks.",
  pending: "Names that wait long are not in the DNS as they should be.",
  plans: "A plan that waits for approval holds back its changes.",
  guards: "A guard has stopped deletions and waits for a person's word.",
  "reverse-zones": "Addresses outside every configured reverse zone get no PTR record."
} as const
export type Check = keyof typeof checks

export interface Finding {
  readonly check: Check
  readonly severity: Severity
  /** Name of the node; absent where it is about none. */
  readonly node?: string
  readonly zone?: DomainName
  readonly seen: string
  readonly why: string
  /** The setting or command that mends it; absent where all is well. */
  readonly fix?: string
}

/** A clock this far off is a warning. */
const clockAheadMillisMax = 2000
/** A name that waits longer is a warning. */
const pendingMillisMax = 60_000
/** Body of one name in a PATCH that is longer than nearly all: a name of 100 characters with A and AAAA. */
const bytesPerName = 1000
/** Reverse zones that are suggested by name. */
const suggestionsMax = 5

/** Everything that there is to say, worst first, and in the order of `checks` within. */
export const diagnose = (facts: Facts): ReadonlyArray<Finding> => {
  const order = Object.keys(checks)
  const rank = ({ check, severity }: Finding) => severities.indexOf(severity) * order.length + order.indexOf(check)
  const found = [...facts.nodes.flatMap((node) => nodeFindings(facts, node)), ...registryFindings(facts)]
  return found.toSorted((a, b) => rank(a) - rank(b))
}

export const count = (findings: ReadonlyArray<Finding>, severity: Severity): number =>
  findings.filter((finding) => finding.severity === severity).length

type Place = { readonly node?: string; readonly zone?: DomainName }

/** A finding's words; `why` comes from the check. */
const say = (check: Check, severity: Severity, place: Place, seen: string, fix?: string): Finding => ({
  check,
  severity,
  ...place,
  seen,
  why: checks[check],
  ...(fix !== undefined && { fix })
})

const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

const listed = ({ count, first }: Sample): string =>
  `${first.join("; ")}${count > first.length ? `; and ${count - first.length} more` : ""}`

// ---------------------------------------------------------------------------------------------------------------------
// Nodes
// ---------------------------------------------------------------------------------------------------------------------

const nodeFindings = (facts: Facts, node: NodeFacts): ReadonlyArray<Finding> => [
  ...apiFindings(facts, node),
  ...dnsFindings(facts, node),
  ...facts.zones.flatMap(({ name }) => serialFindings(facts, node, name))
]

const apiFindings = (facts: Facts, node: NodeFacts): ReadonlyArray<Finding> => {
  const { api } = node
  const place = { node: node.name }
  if (api === undefined) {
    return node.role === "replica"
      ? [
          say(
            "caches",
            "warning",
            place,
            "has no API here, so its cached answers cannot be dropped: a change is `served` there 20 to 60 s later by PowerDNS's defaults",
            "name api and apiKey of the node in powerdns.nodes, or lower cache-ttl, query-cache-ttl and negquery-cache-ttl there"
          )
        ]
      : []
  }
  switch (api._tag) {
    case "Silent":
      return [
        say(
          "api",
          "error",
          place,
          `no answer from ${api.url}: ${api.detail}`,
          "start PowerDNS; in pdns.conf set api=yes, webserver=yes, webserver-address and webserver-port as in powerdns.nodes[].api, and webserver-allow-from so that it has this machine"
        )
      ]
    case "KeyRefused":
      return [
        say(
          "api-key",
          "error",
          place,
          `${api.url} refuses the key`,
          "set powerdns.nodes[].apiKey (or apiKeyFile) to the api-key of its pdns.conf"
        )
      ]
    case "NotPowerDns":
      return [
        say(
          "api",
          "error",
          place,
          `${api.url} does not answer as PowerDNS does: ${api.detail}`,
          "set powerdns.nodes[].api to http://HOST:PORT with webserver-port of its pdns.conf, and api=yes there"
        )
      ]
    case "Answers":
      return [
        say("api", "ok", place, `${api.url} answers, and takes the key`),
        versionFinding(place, api.version),
        ...clockFindings(place, api.clockAheadMillis, "the machine of the node"),
        ...sameServerFindings(node, api),
        ...settingsFindings(facts, node, api),
        ...facts.zones.flatMap(({ name }) => zoneFindings(facts, node, api, name))
      ]
  }
}

const versionFinding = (place: Place, version: string): Finding => {
  const [major = 0, minor = 0] = /^\d+\.\d+/.test(version)
    ? version.split(".").map((part) => Number.parseInt(part, 10))
    : []
  if (major === 0) {
    return say("version", "warning", place, `calls itself ${version}`, "use a released version, 4.7 to 5.1")
  }
  if (major < 4 || (major === 4 && minor < 7)) {
    return say("version", "error", place, version, "upgrade PowerDNS to 4.7 or newer (Debian 12 has 4.7.3)")
  }
  if (major > 5 || (major === 5 && minor > 1)) {
    return say("version", "info", place, `${version}, newer than any that Prism was tried with (4.7, 4.9, 5.1)`)
  }
  const can =
    major === 5
      ? "search on every backend; LUA records by the API only with enable-lua-record-updates=yes"
      : minor >= 9
        ? "changes of single records, primary and secondary in place of master and slave; no search on LMDB"
        : "whole record sets only; writes on SQLite one at a time; no search on LMDB"
  return say("version", "ok", place, `${version}: ${can}`)
}

const seconds = (millis: number): string => `${(Math.abs(millis) / 1000).toFixed(1)} s`

const clockFindings = (place: Place, aheadMillis: number | undefined, whose: string): ReadonlyArray<Finding> => {
  if (aheadMillis === undefined) {
    return [say("clock", "info", place, `cannot be told: the API's answers carry no Date (PowerDNS sends none itself)`)]
  }
  if (Math.abs(aheadMillis) <= clockAheadMillisMax) {
    return [say("clock", "ok", place, `within ${clockAheadMillisMax / 1000} s of ours`)]
  }
  const direction = aheadMillis > 0 ? "ahead of" : "behind"
  return [
    say(
      "clock",
      "warning",
      place,
      `${seconds(aheadMillis)} ${direction} the clock here`,
      `let NTP set the clock, here and on ${whose}: timedatectl set-ntp true`
    )
  ]
}

const sameServerFindings = (node: NodeFacts, api: ApiAnswers & { readonly url: string }): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  if (!hasAnswered(node.dns)) return []
  if (api.sawOurQuestion === true) {
    return [say("same-server", "ok", place, `a question to ${node.dns.endpoint} was seen by the server at ${api.url}`)]
  }
  if (api.sawOurQuestion === undefined) {
    const port = api.settings?.get("local-port")
    const hint = port === undefined ? "" : `; its local-port is ${port}`
    return [
      say(
        "same-server",
        "info",
        place,
        `cannot be told whether ${node.dns.endpoint} and ${api.url} are one server${hint}`
      )
    ]
  }
  const settings = api.settings
  const listens =
    settings === undefined
      ? ""
      : `, which listens on ${settings.get("local-address")} port ${settings.get("local-port")}`
  return [
    say(
      "same-server",
      "error",
      place,
      `a question to ${node.dns.endpoint} was not seen by the server at ${api.url}${listens}`,
      "set powerdns.nodes[].dns to where that server answers DNS; behind a load balancer name each server by itself"
    )
  ]
}

// ---------------------------------------------------------------------------------------------------------------------
// Settings of a node
// ---------------------------------------------------------------------------------------------------------------------

type Settings = (name: SettingName) => string

/** Networks of addresses that are nobody's on the internet. */
const privateNetworks = [
  "127.0.0.0/8",
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "169.254.0.0/16",
  "100.64.0.0/10",
  "::1/128",
  "fc00::/7",
  "fe80::/10"
].map((network) => IpNetwork.fromStringUnsafe(network))

const isInside = (inner: IpNetwork.IpNetwork, outer: IpNetwork.IpNetwork): boolean =>
  outer.prefixLength <= inner.prefixLength &&
  Result.match(IpAddress.parse(NetAddress.formatIp(inner.address)), {
    onFailure: () => false,
    onSuccess: (address) => IpAddress.isWithin(address, outer)
  })

const words = (list: string): ReadonlyArray<string> => list.split(/[,;\s]+/).filter((word) => word !== "")

const networksOf = (list: string): ReadonlyArray<IpNetwork.IpNetwork> =>
  words(list).flatMap((word) => {
    const text = word.includes("/") ? word : `${word}/${word.includes(":") ? 128 : 32}`
    const network = Result.getOrUndefined(IpNetwork.fromString(text))
    return network === undefined ? [] : [network]
  })

/** Networks of a list that let in strangers: not private, and larger than a /24 or a /48. */
export const wideNetworks = (list: string): ReadonlyArray<string> =>
  networksOf(list)
    .filter((network) => network.prefixLength < (IpNetwork.isIpv4Network(network) ? 24 : 48))
    .filter((network) => !privateNetworks.some((home) => isInside(network, home)))
    .map(IpNetwork.format)

const loopback = ["127.0.0.0/8", "::1/128"].map((network) => IpNetwork.fromStringUnsafe(network))

const isLoopbackOnly = (list: string): boolean =>
  networksOf(list).every((network) => loopback.some((home) => isInside(network, home)))

const isPublic = (address: string): boolean => {
  const [network] = networksOf(address)
  return network !== undefined && !privateNetworks.some((home) => isInside(network, home))
}

const secondariesOf = (facts: Facts): ReadonlyArray<NodeFacts> => facts.nodes.filter(({ role }) => role === "secondary")
const primariesOf = (facts: Facts): ReadonlyArray<NodeFacts> => facts.nodes.filter(({ role }) => role === "primary")
/** The secondaries that a node is to notify: of several databases those that fetch from its own, as far as that is known. */
const fetchersOf = (facts: Facts, node: NodeFacts): ReadonlyArray<NodeFacts> => {
  const nodes = facts.nodes.map(withEndpoint)
  return secondariesOf(facts).filter((secondary) => {
    const told = facts.zones.filter(({ name }) => foundAt(secondary, name) !== undefined)
    return (told.length > 0 ? told : facts.zones).some(
      ({ name }) => sourceOf(nodes, secondary, name) === databaseOf(node)
    )
  })
}

const settingsFindings = (
  facts: Facts,
  node: NodeFacts,
  api: ApiAnswers & { readonly url: string }
): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  const { settings } = api
  if (settings === undefined) {
    return [
      say(
        "settings",
        "warning",
        place,
        "GET /config gave nothing that can be read",
        "ask the node itself: curl -H 'X-API-Key: …' URL/api/v1/servers/localhost/config"
      )
    ]
  }
  const get: Settings = (name) => settings.get(name) ?? ""
  return [
    ...backendFindings(facts, node, get),
    ...bodySizeFindings(facts, node, get),
    ...(get("default-api-rectify") === "no"
      ? [say("rectify-default", "ok", place, "default-api-rectify=no")]
      : [
          say(
            "rectify-default",
            node.role === "primary" ? "warning" : "info",
            place,
            `default-api-rectify=${get("default-api-rectify") || "yes"}; zones that Prism makes are without it`,
            "default-api-rectify=no in pdns.conf"
          )
        ]),
    cachesFinding(node, get),
    ...(get("enable-lua-records") === "no" || get("enable-lua-records") === ""
      ? []
      : [
          say(
            "lua-records",
            "warning",
            place,
            `enable-lua-records=${get("enable-lua-records")}`,
            "enable-lua-records=no in pdns.conf, unless LUA records are wanted; then =shared, which is 25 times as fast as =yes"
          )
        ]),
    ...webserverFindings(node, api, get),
    ...axfrFindings(node, get, api),
    ...notifyFindings(facts, node, get, api),
    ...(node.role === "secondary" && get("secondary") !== "yes" && get("slave") !== "yes"
      ? [say("secondary", "error", place, "secondary=no: it fetches no zones", "secondary=yes in pdns.conf")]
      : [])
  ]
}

const backendFindings = (facts: Facts, node: NodeFacts, get: Settings): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  const backends = words(get("launch")).map((each) => each.split(":")[0]!)
  const notes: ReadonlyArray<string> = backends.map(
    (backend) =>
      ({
        gpgsql: "gpgsql: shared by several primaries; about 10 ms a write",
        gsqlite3: "gsqlite3: for one server; on 4.7 writes of several clients at once fail (database is locked)",
        lmdb: "lmdb: the fastest; several servers only by a replication of its own; no comments on 4.7",
        gmysql: "gmysql: Prism was not tried with it",
        bind: "bind: the API cannot change its zones"
      })[backend] ?? backend
  )
  const known = backends.some((backend) => ["gpgsql", "gsqlite3", "lmdb"].includes(backend))
  const findings = [
    known || node.role !== "primary"
      ? say("backend", "ok", place, notes.join("; ") || "none")
      : say(
          "backend",
          "error",
          place,
          notes.join("; ") || "launch is empty",
          "launch=gsqlite3, launch=lmdb or launch=gpgsql in pdns.conf"
        )
  ]
  if (node.role !== "primary") return findings
  const primaries = primariesOf(facts).filter((each) => databaseOf(each) === databaseOf(node)).length
  if (primaries > 1 && !backends.includes("gpgsql") && !backends.includes("gmysql")) {
    findings.push(
      say(
        "backend",
        "warning",
        place,
        `launch=${get("launch")} with ${primaries} primaries: they must hold the same data`,
        "give a node that copies the data role: replica; name the databases (database) of primaries that do not share one (launch=gpgsql)"
      )
    )
  }
  if (backends.includes("gpgsql")) {
    const isInstalled = /\bpdns_delete_rrset\s*\(/.test(get("gpgsql-delete-rrset-query"))
    findings.push(
      isInstalled
        ? say("pgsql-lock", "ok", place, `${deleteRRsetSetting.name} uses the lock of the zone`)
        : say(
            "pgsql-lock",
            primaries > 1 ? "error" : "warning",
            place,
            `${deleteRRsetSetting.name} takes no lock, and ${primaries > 1 ? `${primaries} primaries may write` : "whoever else writes (pdnsutil, another program) may do so at once with Prism"}`,
            `in PowerDNS's database: ${pgsqlLock.replace(/\s+/g, " ").trim()} then in pdns.conf: ${deleteRRsetSetting.name}=${deleteRRsetSetting.value}`
          )
    )
  }
  return findings
}

const bodySizeFindings = (facts: Facts, node: NodeFacts, get: Settings): ReadonlyArray<Finding> => {
  if (node.role !== "primary") return []
  const place = { node: node.name }
  const megabytes = Number(get("webserver-max-bodysize") || "2")
  const wanted = Math.ceil((facts.batchNamesMax * bytesPerName) / 1024 ** 2)
  return megabytes >= wanted
    ? [
        say(
          "body-size",
          "ok",
          place,
          `webserver-max-bodysize=${megabytes} (MB) holds ${facts.batchNamesMax} names, powerdns.batchMax`
        )
      ]
    : [
        say(
          "body-size",
          "warning",
          place,
          `webserver-max-bodysize=${megabytes} (MB), and ${facts.batchNamesMax} names (powerdns.batchMax) may take ${wanted} MB`,
          `webserver-max-bodysize=${Math.max(16, wanted)} in pdns.conf, or a smaller powerdns.batchMax`
        )
      ]
}

const cachesFinding = (node: NodeFacts, get: Settings): Finding => {
  const held = Math.max(Number(get("cache-ttl")), Number(get("query-cache-ttl")))
  const values = (["cache-ttl", "query-cache-ttl", "negquery-cache-ttl", "zone-cache-refresh-interval"] as const)
    .filter((name) => get(name) !== "")
    .map((name) => `${name}=${get(name)}`)
    .join(", ")
  return say(
    "caches",
    "info",
    { node: node.name },
    `${values}: a change that Prism does not flush (by SQL, pdnsutil or another server) shows after up to ${held} s, a new name after ${get("negquery-cache-ttl")} s, ` +
      `a new zone after ${get("zone-cache-refresh-interval")} s; Prism's own show at once`
  )
}

const webserverFindings = (
  node: NodeFacts,
  api: ApiAnswers & { readonly url: string },
  get: Settings
): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  const address = get("webserver-address")
  const allowed = get("webserver-allow-from")
  const wide = wideNetworks(allowed)
  const isAnywhere = networksOf(address).some(({ address }) => NetAddress.isUnspecified(address))
  const isLocal = !isAnywhere && isLoopbackOnly(address)
  const fix = "webserver-allow-from=THE ADDRESSES OF PRISM, and webserver-address on a private network, in pdns.conf"
  const findings: Array<Finding> = []
  if (wide.length > 0 && !isLocal) {
    findings.push(
      say("webserver", "warning", place, `webserver-allow-from lets in ${wide.join(", ")} at ${address}`, fix)
    )
  } else if (isPublic(address) && !isAnywhere && !isLoopbackOnly(allowed)) {
    findings.push(
      say(
        "webserver",
        "warning",
        place,
        `listens on ${address}, for ${allowed}: the key goes over a public network`,
        fix
      )
    )
  } else {
    findings.push(say("webserver", "ok", place, `${address}, for ${allowed}`))
  }
  if (api.metricsOpen === true) {
    const isExposed = !isLocal && (wide.length > 0 || !isLoopbackOnly(allowed))
    findings.push(
      say(
        "metrics",
        isExposed ? "warning" : "info",
        place,
        `/metrics answers without a key${isExposed ? ` to ${allowed}` : ", and only to this machine"}`,
        "webserver-allow-from=THE ADDRESSES OF PRISM AND PROMETHEUS in pdns.conf (webserver-password protects it too)"
      )
    )
  }
  return findings
}

const axfrFindings = (node: NodeFacts, get: Settings, api: ApiAnswers): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  const fix =
    "allow-axfr-ips= (empty) in pdns.conf and a TSIG key (powerdns.transfer), or only the secondaries' addresses"
  const list = get("allow-axfr-ips")
  if (get("disable-axfr") === "yes") return [say("axfr", "ok", place, "disable-axfr=yes")]
  const findings: Array<Finding> = []
  const wide = wideNetworks(list)
  if (wide.length > 0) {
    findings.push(say("axfr", "warning", place, `allow-axfr-ips lets in ${wide.join(", ")}`, fix))
  }
  for (const [zone, found] of api.zones) {
    if (found._tag !== "Found") continue
    const open = wideNetworks(found.allowAxfrFrom.join(","))
    if (open.length > 0) {
      findings.push(
        say(
          "axfr",
          "warning",
          { ...place, zone },
          `ALLOW-AXFR-FROM of the zone lets in ${open.join(", ")}`,
          `pdnsutil set-meta ${zone} ALLOW-AXFR-FROM`
        )
      )
    }
  }
  if (findings.length > 0) return findings
  if (node.dns.axfr === "open" && !isLoopbackOnly(node.dns.addresses.join(","))) {
    return [say("axfr", "warning", place, `gave a zone to this machine without a key (allow-axfr-ips=${list})`, fix)]
  }
  const answer = node.dns.axfr === undefined ? "" : `; asked from here: ${node.dns.axfr}`
  return [say("axfr", "ok", place, `allow-axfr-ips=${list}${answer}`)]
}

/** `192.0.2.1:5300`, `[2001:db8::1]:53`, or an address alone, which means port 53. */
const isAddressOf = (entry: string, { addresses, port }: DnsFacts): boolean => {
  const match = /^(?:\[([^\]]+)\]|([^:]+)|(.*:.*:.*))(?::(\d+))?$/.exec(entry)
  const host = match?.[1] ?? match?.[2] ?? match?.[3] ?? entry
  const address = Result.getOrUndefined(IpAddress.parse(host))
  return Number(match?.[4] ?? 53) === port && addresses.some((each) => each === address)
}

const notifyFindings = (facts: Facts, node: NodeFacts, get: Settings, api: ApiAnswers): ReadonlyArray<Finding> => {
  if (node.role !== "primary" || secondariesOf(facts).length === 0) return []
  const place = { node: node.name }
  if (get("primary") !== "yes" && get("master") !== "yes") {
    return [
      say(
        "notify",
        "error",
        place,
        `primary=no, and there are secondaries: no NOTIFY is sent`,
        "primary=yes in pdns.conf"
      )
    ]
  }
  const known = [
    ...words(get("also-notify")),
    ...[...api.zones.values()].flatMap((zone) => (zone._tag === "Found" ? zone.alsoNotify.flatMap(words) : []))
  ]
  return fetchersOf(facts, node).map(({ dns, name }) =>
    known.some((entry) => isAddressOf(entry, dns))
      ? say("notify", "ok", place, `primary=yes, and ${name} (${dns.endpoint}) is notified`)
      : say(
          "notify",
          "warning",
          place,
          `also-notify does not name ${name} (${dns.endpoint}): it hears of changes only if it is a name server (NS) of the zones on port 53`,
          `also-notify=${[...words(get("also-notify")), dns.addresses[0] === undefined ? dns.endpoint : `${dns.addresses[0].includes(":") ? `[${dns.addresses[0]}]` : dns.addresses[0]}:${dns.port}`].join(",")} in pdns.conf`
        )
  )
}

// ---------------------------------------------------------------------------------------------------------------------
// Zones
// ---------------------------------------------------------------------------------------------------------------------

const zoneFindings = (
  facts: Facts,
  node: NodeFacts,
  api: ApiAnswers & { readonly url: string },
  zone: DomainName
): ReadonlyArray<Finding> => {
  const place = { node: node.name, zone }
  const found = api.zones.get(zone)
  if (found === undefined) return []
  const isMadeByPrism = facts.zones.find(({ name }) => name === zone)?.createIfMissing === true
  switch (found._tag) {
    case "Unread":
      return [say("zone", "warning", place, `was not looked at: ${found.detail}`, "run doctor again")]
    case "Missing":
      if (node.role === "primary" && isMadeByPrism) {
        return [say("zone", "info", place, "is not there yet; Prism makes it when it first writes to it")]
      }
      return [
        say(
          "zone",
          "error",
          place,
          "is not there",
          node.role === "primary"
            ? `pdnsutil create-zone ${zone}, or zones[].create: true`
            : `pdnsutil create-slave-zone ${zone} ADDRESS OF A PRIMARY, or powerdns.transfer.catalog`
        )
      ]
    case "Found": {
      if (node.role === "secondary") return secondaryZoneFindings(node, zone, found)
      if (node.role !== "primary") return []
      const findings = primaryZoneFindings(facts, node, api, zone, found)
      return findings.length > 0
        ? findings
        : [
            say(
              "zone",
              "ok",
              place,
              `${found.kind}, SOA-EDIT-API ${found.soaEditApi}, ${signedHow(found)}` +
                (found.content === undefined ? "" : `, ${found.content.records} records looked at`)
            )
          ]
    }
  }
}

const signedHow = ({ dnssec, nsec3Narrow }: FoundZone): string => {
  if (!dnssec) return "not signed"
  return nsec3Narrow ? "NSEC3 narrow" : "signed with a chain of denials, as secondaries need it"
}

const isSlave = (kind: string) => /^(?:slave|secondary|consumer)$/i.test(kind)
const isMaster = (kind: string) => /^(?:master|primary|producer)$/i.test(kind)

const secondaryZoneFindings = (node: NodeFacts, zone: DomainName, found: FoundZone): ReadonlyArray<Finding> => {
  const place = { node: node.name, zone }
  if (!isSlave(found.kind)) {
    return [
      say(
        "secondary",
        "error",
        place,
        `is of kind ${found.kind} on a secondary, and fetched from nobody`,
        `pdnsutil set-kind ${zone} slave; pdnsutil change-slave-zone-master ${zone} ADDRESS OF A PRIMARY`
      )
    ]
  }
  return found.masters.length > 0
    ? [say("secondary", "ok", place, `is fetched from ${found.masters.join(", ")}`)]
    : [
        say(
          "secondary",
          "error",
          place,
          "names no primary to fetch it from",
          `pdnsutil change-slave-zone-master ${zone} ADDRESS OF A PRIMARY`
        )
      ]
}

const primaryZoneFindings = (
  facts: Facts,
  node: NodeFacts,
  api: { readonly url: string },
  zone: DomainName,
  found: FoundZone
): ReadonlyArray<Finding> => {
  const place = { node: node.name, zone }
  const put = (body: string) =>
    `curl -X PUT -H 'X-API-Key: …' ${api.url}/api/v1/servers/localhost/zones/${encodeURIComponent(zone)} -d '${body}'`
  const findings: Array<Finding> = []
  if (isSlave(found.kind)) {
    findings.push(
      say("zone-kind", "error", place, `is ${found.kind}: its masters overwrite it`, put('{"kind":"Master"}'))
    )
  } else if (secondariesOf(facts).length > 0 && !isMaster(found.kind)) {
    findings.push(
      say("zone-kind", "error", place, `is ${found.kind}, and there are secondaries`, put('{"kind":"Master"}'))
    )
  }
  if (!["INCREASE", "DEFAULT"].includes(found.soaEditApi)) {
    const isBad = ["", "OFF", "EPOCH"].includes(found.soaEditApi)
    findings.push(
      say(
        "soa-edit-api",
        isBad ? "error" : "warning",
        place,
        `SOA-EDIT-API is ${found.soaEditApi === "" ? "empty" : found.soaEditApi}`,
        put('{"soa_edit_api":"INCREASE"}')
      )
    )
  }
  if (found.apiRectify && (!found.dnssec || found.nsec3Narrow)) {
    findings.push(say("zone-rectify", "warning", place, "API-RECTIFY is on", put('{"api_rectify":false}')))
  }
  // PowerDNS refuses to transfer narrow zones: with secondaries the chain, and what it costs, is how it should be.
  const isTransferred = secondariesOf(facts).length > 0
  const narrow = `pdnsutil set-nsec3 ${zone} '1 0 0 -' narrow`
  const rectified = put('{"api_rectify":true}')
  const signing = isTransferred ? `pdnsutil set-nsec3 ${zone} '1 0 0 -' && ${rectified}` : narrow
  if (found.dnssec && found.nsec3Narrow && isTransferred) {
    findings.push(
      say(
        "dnssec",
        "error",
        place,
        "is signed with NSEC3 narrow, which PowerDNS does not transfer to secondaries",
        signing
      )
    )
  }
  if (found.dnssec && !found.nsec3Narrow && !found.apiRectify) {
    findings.push(
      say(
        "zone-rectify",
        "error",
        place,
        "is signed with NSEC or ordinary NSEC3, and API-RECTIFY is off: its denials are wrong",
        isTransferred ? rectified : narrow
      )
    )
  }
  if (found.dnssec && !found.nsec3Narrow && found.apiRectify && !isTransferred) {
    findings.push(
      say("dnssec", "warning", place, "is signed with NSEC or ordinary NSEC3: each change costs the zone", narrow)
    )
  }
  if (found.dnssec && new Set(primariesOf(facts).map(databaseOf)).size > 1) {
    findings.push(
      say(
        "dnssec",
        "error",
        place,
        "is signed, and primaries have databases of their own: each has other keys, and Prism does not write it",
        `leave it to primaries that share one database, or pdnsutil disable-dnssec ${zone} once its DS records are gone from the parent zone`
      )
    )
  }
  if (!found.dnssec && facts.zones.find(({ name }) => name === zone)?.dnssec === true) {
    findings.push(
      say(
        "dnssec",
        "error",
        place,
        "is not signed, and zones[].dnssec wants it",
        `pdnsutil secure-zone ${zone} && ${signing}`
      )
    )
  }
  if (found.content !== undefined) findings.push(...contentFindings(place, found.content))
  return findings
}

const contentFindings = (
  place: { readonly node: string; readonly zone: DomainName },
  content: NonNullable<FoundZone["content"]>
): ReadonlyArray<Finding> => {
  const edit = `pdnsutil edit-zone ${place.zone}`
  const findings: Array<Finding> = []
  if (content.soaRecords !== 1) {
    findings.push(
      say(
        "soa",
        "error",
        place,
        content.soaRecords === 0 ? "has no SOA" : `has ${content.soaRecords} SOA records`,
        content.soaRecords === 0
          ? `pdnsutil add-record ${place.zone} @ SOA 'ns1.${place.zone} hostmaster.${place.zone} 1 10800 3600 604800 60'`
          : `${edit}, and leave one; then look for the second writer`
      )
    )
  }
  if (content.hasPlaceholderSoa) {
    findings.push(
      say(
        "soa",
        "warning",
        place,
        "the SOA names a.misconfigured.dns.server.invalid",
        `${edit}, and name the first name server there; default-soa-content=ns1.@ hostmaster.@ 0 10800 3600 604800 60 in pdns.conf for the next zones`
      )
    )
  }
  if (content.duplicates.count > 0) {
    findings.push(
      say(
        "duplicates",
        "error",
        place,
        `standing twice, ${content.duplicates.count}: ${listed(content.duplicates)}`,
        `${edit}, and delete each second one; then look for the second writer`
      )
    )
  }
  if (content.conflictingNames.count > 0) {
    findings.push(
      say(
        "cname",
        "error",
        place,
        `${plural(content.conflictingNames.count, "name")}: ${listed(content.conflictingNames)}`,
        `${edit}, and leave one of the two`
      )
    )
  }
  return findings
}

// ---------------------------------------------------------------------------------------------------------------------
// DNS
// ---------------------------------------------------------------------------------------------------------------------

/** The node answered at least one question, with whatever. */
const hasAnswered = (dns: DnsFacts): boolean => [...dns.serials.values()].some(({ _tag }) => _tag !== "Silent")

const dnsFindings = (facts: Facts, node: NodeFacts): ReadonlyArray<Finding> => {
  const place = { node: node.name }
  const { dns } = node
  if (dns.addresses.length === 0) {
    return [
      say(
        "dns",
        "error",
        place,
        `${dns.endpoint} has no address`,
        "set powerdns.nodes[].dns to an address or a name that resolves"
      )
    ]
  }
  if (!hasAnswered(dns)) {
    return [
      say(
        "dns",
        "error",
        place,
        `no answer from ${dns.endpoint} over UDP`,
        `start the server, open UDP and TCP ${dns.port} to it, or correct powerdns.nodes[].dns; dig -p ${dns.port} @${dns.addresses[0]} SOA ${facts.zones[0]?.name ?? "."}`
      )
    ]
  }
  const isRemote = !isLoopbackOnly(dns.addresses.join(","))
  return [
    say("dns", "ok", place, `${dns.endpoint} answers`),
    // With an API its settings say more.
    ...(node.api?._tag !== "Answers" && dns.axfr === "open"
      ? [
          say(
            "axfr",
            isRemote ? "warning" : "info",
            place,
            `gave a zone to this machine without a key${isRemote ? "" : ", over loopback"}`,
            "allow transfers to secondaries only: allow-axfr-ips of PowerDNS, allow-transfer of BIND, acl of Knot"
          )
        ]
      : [])
  ]
}

/** What is known of a node before it was asked by DNS. */
export interface KnownNode extends Pick<NodeFacts, "role" | "api" | "database"> {
  /** Where it answers DNS: `192.0.2.53:53`. */
  readonly endpoint: string
}

const withEndpoint = (node: NodeFacts): KnownNode => ({ ...node, endpoint: node.dns.endpoint })

const foundAt = ({ api }: Pick<NodeFacts, "api">, zone: DomainName): FoundZone | undefined => {
  const found = api?._tag === "Answers" ? api.zones.get(zone) : undefined
  return found?._tag === "Found" ? found : undefined
}

/**
 * The database from which a secondary fetches a zone: that of its first master. Where it does not tell, or names none of
 * ours by its address, it is taken to be the first.
 */
const sourceOf = (nodes: ReadonlyArray<KnownNode>, secondary: Pick<NodeFacts, "api">, zone: DomainName) => {
  const primaries = nodes.filter(({ role }) => role === "primary")
  const [master] = foundAt(secondary, zone)?.masters ?? []
  // PowerDNS says nothing of port 53.
  const isNamed = ({ endpoint }: KnownNode) =>
    endpoint === master || endpoint === `${master}:53` || endpoint === `[${master}]:53`
  const source = primaries.find(isNamed) ?? primaries[0]
  return source === undefined ? undefined : databaseOf(source)
}

/**
 * The serial that the zone has at the preferred primary that tells, of the database that the node has or fetches from: each
 * counts its own.
 */
export const primarySerial = (
  nodes: ReadonlyArray<KnownNode>,
  node: Pick<NodeFacts, "role" | "database" | "api">,
  zone: DomainName
) => {
  const database = node.role === "secondary" ? sourceOf(nodes, node, zone) : databaseOf(node)
  for (const each of nodes) {
    const found = each.role === "primary" && databaseOf(each) === database ? foundAt(each, zone) : undefined
    if (found !== undefined) return found.serial
  }
  return undefined
}

const serialFindings = (facts: Facts, node: NodeFacts, zone: DomainName): ReadonlyArray<Finding> => {
  const place = { node: node.name, zone }
  const wanted = primarySerial(facts.nodes.map(withEndpoint), node, zone)
  const answer = node.dns.serials.get(zone)
  if (wanted === undefined || answer === undefined) return []
  const fix =
    node.role === "secondary"
      ? `at the secondary: pdns_control retrieve ${zone} (rndc retransfer ${zone} of BIND); check masters, TSIG key and the way to the primary`
      : node.role === "replica"
        ? "check the replication of its database"
        : "check that it has the database of the other primaries, or name its own (database); pdns_control purge"
  if (answer._tag === "Silent") {
    return hasAnswered(node.dns)
      ? [say("serial", "warning", place, "gave no answer to a question for its SOA", fix)]
      : []
  }
  if (answer._tag === "NoZone") {
    return [say("zone", "error", place, `is not served by ${node.dns.endpoint}: ${answer.rcode}`, fix)]
  }
  return Serial.isUpToDate(answer.serial, wanted)
    ? [say("serial", "ok", place, `${answer.serial}`)]
    : [
        say(
          "serial",
          node.role === "secondary" ? "error" : "warning",
          place,
          `answers with serial ${answer.serial}, and the primary has ${wanted}, for seconds now`,
          fix
        )
      ]
}

// ---------------------------------------------------------------------------------------------------------------------
// Registry
// ---------------------------------------------------------------------------------------------------------------------

const registryFindings = (facts: Facts): ReadonlyArray<Finding> => {
  const { registry } = facts
  switch (registry._tag) {
    case "Silent":
      return [
        say(
          "registry",
          "error",
          {},
          `${registry.storage}: ${registry.detail}`,
          "check storage.url (PRISM_STORAGE_URL), and that the database is up"
        )
      ]
    case "None":
      return [say("registry", "info", {}, `${registry.storage}: ${registry.detail}`)]
    case "Answers":
      return [
        say("registry", "ok", {}, `${registry.storage} answers`),
        ...(registry.clockAheadMillis === undefined
          ? []
          : clockFindings({}, registry.clockAheadMillis, "the database's machine")),
        migrationFinding(registry),
        ...(registry.state === undefined
          ? []
          : registry.state._tag === "Read"
            ? stateFindings(facts, registry.state)
            : [
                say(
                  "registry",
                  "error",
                  {},
                  `its tables cannot be read: ${registry.state.detail}`,
                  "start this version of prism-dns serve once, or run the doctor of the version that runs"
                )
              ])
      ]
  }
}

const migrationFinding = (registry: Extract<RegistryFacts, { readonly _tag: "Answers" }>): Finding => {
  const { migration, migrationKnown } = registry
  if (migration === migrationKnown) return say("migrations", "ok", {}, `migration ${migration} of ${migrationKnown}`)
  return migration < migrationKnown
    ? say(
        "migrations",
        "warning",
        {},
        `migration ${migration} of ${migrationKnown}: the server that runs is older than this program`,
        "restart prism-dns serve with this version; it migrates at its start"
      )
    : say(
        "migrations",
        "error",
        {},
        `migration ${migration}, and this program knows ${migrationKnown}: it is older than the server`,
        "run the newer prism-dns"
      )
}

const stateFindings = (facts: Facts, state: RegistryState): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  if (state.parked.count > 0) {
    findings.push(
      say(
        "parked",
        "warning",
        {},
        `${plural(state.parked.count, "name")} parked: ${listed(state.parked)}`,
        "correct what each reason names (GET /v1/publications); a name is tried again when its host changes"
      )
    )
  }
  findings.push(
    state.oldestPendingMillis > pendingMillisMax
      ? say(
          "pending",
          "warning",
          {},
          `${plural(state.pending, "name")} waiting, the oldest for ${Math.round(state.oldestPendingMillis / 1000)} s`,
          "start prism-dns serve, or mend what is said above of PowerDNS"
        )
      : say("pending", "ok", {}, `${plural(state.pending, "name")} waiting`)
  )
  if (state.plansOpen.count > 0) {
    findings.push(
      say(
        "plans",
        "info",
        {},
        `${plural(state.plansOpen.count, "plan")} undecided: ${listed(state.plansOpen)}`,
        "look at each, then apply or discard it (prism-dns plan)"
      )
    )
  }
  for (const { detail, kind, zone } of state.guards) {
    findings.push(
      say(
        "guards",
        "warning",
        {},
        `${kind}${zone === "" ? "" : ` of ${zone}`}: ${detail}`,
        "find out why; when it is right, allow it with a reason (prism-dns plan, prism-dns status)"
      )
    )
  }
  return [...findings, ...reverseFindings(facts, state)]
}

/** The zone that would take the address: of a /24 or a /64. */
export const suggestedReverseZone = (address: IpAddress.IpAddress): string => {
  const labels = IpAddress.reverseName(address).split(".")
  return labels.slice(address.includes(":") ? 16 : 1, -1).join(".")
}

const reverseFindings = (facts: Facts, state: RegistryState): ReadonlyArray<Finding> => {
  const zones = Zones.make(facts.zones)
  const missing = new Map<string, number>()
  let addresses = 0
  for (const address of state.addresses) {
    if (zones.placePointer(address) !== undefined) continue
    addresses++
    const zone = suggestedReverseZone(address)
    missing.set(zone, (missing.get(zone) ?? 0) + 1)
  }
  const among = state.addressesCut ? ` of the first ${state.addresses.length}` : ""
  if (addresses === 0) {
    return [say("reverse-zones", "ok", {}, `addresses${among} without one: 0`)]
  }
  const most = [...missing].toSorted(([, a], [, b]) => b - a).slice(0, suggestionsMax)
  const more = missing.size > most.length ? `, and ${missing.size - most.length} more` : ""
  return [
    say(
      "reverse-zones",
      "warning",
      {},
      `addresses${among} without a reverse zone: ${addresses}; in ${most.map(([zone, hosts]) => `${zone} (${hosts})`).join(", ")}${more}`,
      `add to zones: ${most.map(([zone]) => `- ${zone}`).join(" ")}; a shorter name takes a larger network`
    )
  ]
}
