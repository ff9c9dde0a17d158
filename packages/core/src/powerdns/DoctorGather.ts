/**
 * Asks each PowerDNS node, by its API and by DNS, what `Doctor` judges.
 *
 * Promises: only reads; ends within `timeLimit` and a request's limit also
 * where nodes are silent (what was not reached is said); a node that is down
 * is a fact like any other, and takes no longer than its first question; keeps
 * no setting that may be a secret. Leaves to others: judging (`Doctor`), the
 * registry.
 */
import { Clock, Duration, Effect, Schema, type Scope, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { CircuitBreaker } from "effect/persistence"
import type { NameServers } from "../dns/NameServers.ts"
import * as DomainName from "../domain/DomainName.ts"
import * as Serial from "../domain/Serial.ts"
import type { Zone } from "../domain/Zone.ts"
import { primarySerial } from "./Doctor.ts"
import * as DoctorDns from "./DoctorDns.ts"
import {
  type ApiAnswers,
  type ApiFacts,
  type DnsFacts,
  type NodeFacts,
  type SerialAnswer,
  settingsRead,
  type ZoneFacts
} from "./DoctorFacts.ts"
import * as DoctorZoneContent from "./DoctorZoneContent.ts"
import type { PowerDnsError } from "./PowerDnsError.ts"
import * as PowerDnsHttp from "./PowerDnsHttp.ts"
import type { NodeOptions } from "./PowerDnsNodes.ts"

export interface Options {
  /** The preferred primary first. */
  readonly nodes: ReadonlyArray<NodeOptions>
  readonly zones: ReadonlyArray<Zone>
  /** Of one request, except the reading of a whole zone. Default 3 s. */
  readonly requestTimeout?: Duration.Input
  /** Of the reading of a whole zone. Default 30 s. */
  readonly exportTimeout?: Duration.Input
  /** No node is asked about a further zone after this. Default 60 s. */
  readonly timeLimit?: Duration.Input
  /** How long a node's serial may take to reach the primary's. Default 4 s. */
  readonly serialPatience?: Duration.Input
}

/** Zones of one node that are looked at together. */
const zonesAtOnce = 4

// ---------------------------------------------------------------------------------------------------------------------
// Answers of the API
// ---------------------------------------------------------------------------------------------------------------------

const decodeText = <A>(schema: Schema.Decoder<A>) => {
  const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(schema))
  return (text: string): Effect.Effect<A, PowerDnsHttp.Unreadable> =>
    // The schema's own words would quote the answer.
    Effect.mapError(decode(text), () => new PowerDnsHttp.Unreadable("the answer is not the JSON that PowerDNS sends"))
}

const json = <A>(schema: Schema.Decoder<A>) => {
  const decode = decodeText(schema)
  return (response: HttpClientResponse.HttpClientResponse): Effect.Effect<A, unknown> =>
    Effect.flatMap(response.text, decode)
}

const Server = Schema.Struct({ version: Schema.String })
const readServer = json(Server)
const readSettings = json(Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })))
const readZone = json(
  Schema.Struct({
    kind: Schema.String,
    serial: Schema.Finite,
    edited_serial: Schema.optionalKey(Schema.Finite),
    dnssec: Schema.Boolean,
    nsec3narrow: Schema.Boolean,
    soa_edit_api: Schema.String,
    api_rectify: Schema.Boolean,
    masters: Schema.optionalKey(Schema.Array(Schema.String))
  })
)
const readMetadata = json(Schema.Array(Schema.Struct({ kind: Schema.String, metadata: Schema.Array(Schema.String) })))
const readStatistics = json(
  Schema.Array(
    Schema.Struct({
      name: Schema.String,
      value: Schema.Union([Schema.String, Schema.Array(Schema.Struct({ name: Schema.String }))])
    })
  )
)

const readContent = (response: HttpClientResponse.HttpClientResponse) => {
  const reader = DoctorZoneContent.makeReader()
  return response.stream.pipe(
    Stream.decodeText,
    Stream.runForEach((text) => Effect.sync(() => reader.push(text))),
    Effect.map(() => reader.end())
  )
}

/** The server's clock less ours, from a Date header, which has whole seconds: 0 while the two may be the same. */
const clockAhead = (date: string | undefined, sentMillis: number, receivedMillis: number): number | undefined => {
  const stated = date === undefined ? Number.NaN : Date.parse(date)
  if (Number.isNaN(stated)) return undefined
  if (stated > receivedMillis) return stated - receivedMillis
  return Math.min(0, stated + 1000 - sentMillis)
}

// ---------------------------------------------------------------------------------------------------------------------
// One node by its API
// ---------------------------------------------------------------------------------------------------------------------

type Api = NonNullable<NodeOptions["api"]>

const isSilence = ({ reason }: PowerDnsError): boolean => reason._tag === "Unreachable" || reason._tag === "Uncertain"

/** True when /metrics gives its figures to whoever has no key. */
const metricsOpen = Effect.fnUntraced(function* (url: string, timeout: Duration.Input) {
  const http = HttpClient.withScope(yield* HttpClient.HttpClient)
  return yield* http.execute(HttpClientRequest.get(`${url}/metrics`)).pipe(
    Effect.map(({ status }) => status === 200),
    Effect.scoped,
    Effect.timeout(timeout),
    Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
    Effect.orElseSucceed(() => undefined)
  )
})

const connect = Effect.fnUntraced(function* (node: string, api: Api, options: Options) {
  const common = { node, url: api.url, apiKey: api.key, retry: { attemptsMax: 1 }, breaker: { failuresMax: 1_000_000 } }
  const quick = yield* PowerDnsHttp.make({ ...common, requestTimeout: options.requestTimeout ?? "3 seconds" })
  const patient = yield* PowerDnsHttp.make({ ...common, requestTimeout: options.exportTimeout ?? "30 seconds" })
  const get =
    ({ send }: typeof quick) =>
    <A>(path: string, read: PowerDnsHttp.Request<A>["read"]) =>
      send({ operation: "doctor", method: "GET", path, repeat: "read", read })
  return { get: get(quick), getWhole: get(patient) }
})
type Connection = Effect.Success<ReturnType<typeof connect>>

/** PowerDNS's own way to write a zone's name into a path. */
const zonePath = (zone: DomainName.DomainName): string =>
  `/zones/${zone.replace(/[^a-z0-9._-]/g, (c) => `=${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`)}`

const zoneFacts = Effect.fnUntraced(function* (
  { get, getWhole }: Connection,
  zone: DomainName.DomainName,
  withContent: boolean
): Effect.fn.Return<ZoneFacts, PowerDnsError, HttpClient.HttpClient> {
  const path = zonePath(zone)
  const found = yield* Effect.result(get(`${path}?rrsets=false`, readZone))
  if (found._tag === "Failure") {
    if (found.failure.reason._tag === "NotFound") return { _tag: "Missing" }
    return yield* found.failure
  }
  const metadata = new Map((yield* get(`${path}/metadata`, readMetadata)).map((each) => [each.kind, each.metadata]))
  const { success: zoneFound } = found
  return {
    _tag: "Found",
    kind: zoneFound.kind,
    serial: zoneFound.edited_serial ?? zoneFound.serial,
    soaEditApi: zoneFound.soa_edit_api,
    apiRectify: zoneFound.api_rectify,
    dnssec: zoneFound.dnssec,
    nsec3Narrow: zoneFound.nsec3narrow,
    masters: zoneFound.masters ?? [],
    alsoNotify: metadata.get("ALSO-NOTIFY") ?? [],
    allowAxfrFrom: metadata.get("ALLOW-AXFR-FROM") ?? [],
    content: withContent ? yield* getWhole(`${path}/export`, readContent) : undefined
  }
})

const askApi = Effect.fnUntraced(
  function* (
    node: NodeOptions,
    api: Api,
    options: Options
  ): Effect.fn.Return<
    ApiFacts,
    never,
    HttpClient.HttpClient | NameServers | CircuitBreaker.CircuitBreakerStore | Scope.Scope
  > {
    const { url } = api
    const connection = yield* connect(node.name, api, options)
    const { get } = connection
    const beganMillis = yield* Clock.currentTimeMillis
    const deadlineMillis = beganMillis + Duration.toMillis(Duration.fromInputUnsafe(options.timeLimit ?? "60 seconds"))
    const server = yield* Effect.result(
      get("", (response) =>
        Effect.map(readServer(response), ({ version }) => ({ version, date: response.headers["date"] }))
      )
    )
    if (server._tag === "Failure") {
      const { reason } = server.failure
      if (reason._tag === "Unauthorized") return { url, _tag: "KeyRefused" }
      return isSilence(server.failure) || reason._tag === "BackendFailed"
        ? { url, _tag: "Silent", detail: reason.detail }
        : { url, _tag: "NotPowerDns", detail: reason.detail }
    }
    const { date, version } = server.success
    const clockAheadMillis = clockAhead(date, beganMillis, yield* Clock.currentTimeMillis)
    const wanted = new Set<string>(settingsRead)
    const settings = yield* get("/config", readSettings).pipe(
      Effect.map(
        (all) => new Map(all.flatMap(({ name, value }) => (wanted.has(name) ? [[name, value] as const] : [])))
      ),
      Effect.orElseSucceed(() => undefined)
    )
    let silence: string | undefined
    const zones = yield* Effect.forEach(
      options.zones,
      Effect.fnUntraced(function* ({
        name
      }): Effect.fn.Return<readonly [DomainName.DomainName, ZoneFacts], never, HttpClient.HttpClient> {
        if (silence === undefined && (yield* Clock.currentTimeMillis) > deadlineMillis) {
          silence = "the other zones took all the time there is for a node"
        }
        if (silence !== undefined) return [name, { _tag: "Unread", detail: silence }] as const
        return yield* zoneFacts(connection, name, node.role === "primary").pipe(
          Effect.map((facts) => [name, facts] as const),
          Effect.catch((error) => {
            if (isSilence(error)) silence = `the node has stopped answering: ${error.reason.detail}`
            return Effect.succeed([name, { _tag: "Unread", detail: error.reason.detail }] as const)
          })
        )
      }),
      { concurrency: zonesAtOnce }
    )
    return {
      url,
      _tag: "Answers",
      version,
      clockAheadMillis,
      settings,
      metricsOpen: yield* metricsOpen(url, options.requestTimeout ?? "3 seconds"),
      sawOurQuestion: silence === undefined ? yield* sawOurQuestion(node, connection, options.zones) : undefined,
      zones: new Map(zones)
    } satisfies ApiFacts & ApiAnswers
  },
  Effect.scoped,
  Effect.provide(CircuitBreaker.layerStoreMemory())
)

/**
 * Asks the DNS endpoint for a name that nobody else asks for, and the API for the questions it has seen last. Undefined
 * when one of them does not answer.
 */
const sawOurQuestion = Effect.fnUntraced(function* (
  { dns }: NodeOptions,
  { get }: Connection,
  zones: ReadonlyArray<Zone>
) {
  const [host] = yield* DoctorDns.addressesOf(dns.host)
  if (host === undefined) return undefined
  // Below a name so long that ours still fits.
  const below = zones.find(({ name }) => name.length < 200)?.name ?? "invalid."
  const name = `prism-doctor-${crypto.randomUUID()}.${below}`
  const answer = yield* DoctorDns.serial({ host, port: dns.port }, DomainName.make(name))
  if (answer._tag === "Silent") return undefined
  const asked = `${name.slice(0, -1)}/SOA`
  return yield* get("/statistics", readStatistics).pipe(
    Effect.map((statistics) =>
      statistics.some(({ value }) => typeof value !== "string" && value.some((entry) => entry.name === asked))
    ),
    Effect.orElseSucceed(() => undefined)
  )
})

// ---------------------------------------------------------------------------------------------------------------------
// One node by DNS
// ---------------------------------------------------------------------------------------------------------------------

const endpointOf = ({ host, port }: NodeOptions["dns"]) => `${host.includes(":") ? `[${host}]` : host}:${port}`

const askDns = Effect.fnUntraced(function* (
  node: NodeOptions,
  options: Options,
  wanted: (zone: DomainName.DomainName) => number | undefined
): Effect.fn.Return<DnsFacts, never, NameServers> {
  const { host, port } = node.dns
  const endpoint = endpointOf(node.dns)
  const addresses = yield* DoctorDns.addressesOf(host)
  const [address] = addresses
  const serials = new Map<DomainName.DomainName, SerialAnswer>()
  const facts = { endpoint, port, addresses, serials }
  const [first, ...others] = options.zones.map(({ name }) => name)
  if (address === undefined || first === undefined) return { ...facts, axfr: undefined }
  const server = { host: address, port }
  const ask = (zone: DomainName.DomainName) =>
    Effect.map(DoctorDns.serial(server, zone), (answer) => void serials.set(zone, answer))

  yield* ask(first)
  if (serials.get(first)?._tag === "Silent") return { ...facts, axfr: undefined }
  yield* Effect.forEach(others, ask, { concurrency: zonesAtOnce, discard: true })

  const behind = () =>
    options.zones.flatMap(({ name }) => {
      const serial = wanted(name)
      const answer = serials.get(name)
      return serial !== undefined && answer?._tag === "Serial" && !Serial.isUpToDate(answer.serial, serial)
        ? [name]
        : []
    })
  const until =
    (yield* Clock.currentTimeMillis) +
    Duration.toMillis(Duration.fromInputUnsafe(options.serialPatience ?? "4 seconds"))
  while (behind().length > 0 && (yield* Clock.currentTimeMillis) < until) {
    yield* Effect.sleep("500 millis")
    yield* Effect.forEach(behind(), ask, { concurrency: zonesAtOnce, discard: true })
  }
  const served = options.zones.find(({ name }) => serials.get(name)?._tag === "Serial")
  return { ...facts, axfr: served === undefined ? undefined : yield* DoctorDns.transfer(server, served.name) }
})

/** Asks all nodes, at once. */
export const gather = Effect.fn("DoctorGather.gather")(function* (
  options: Options
): Effect.fn.Return<ReadonlyArray<NodeFacts>, never, HttpClient.HttpClient | NameServers> {
  const apis = yield* Effect.forEach(
    options.nodes,
    (node) => (node.api === undefined ? Effect.succeed(undefined) : askApi(node, node.api, options)),
    { concurrency: "unbounded" }
  )
  const nodes = options.nodes.map(({ database, name, role }, i) => ({ name, role, database, api: apis[i] }))
  const known = nodes.map((node, i) => ({ ...node, endpoint: endpointOf(options.nodes[i]!.dns) }))
  const dns = yield* Effect.forEach(
    options.nodes,
    (node, i) => askDns(node, options, (zone) => primarySerial(known, known[i]!, zone)),
    { concurrency: "unbounded" }
  )
  return nodes.map((node, i) => ({ ...node, dns: dns[i]! }))
})
