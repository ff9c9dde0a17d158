/**
 * A server as it runs in production, small: `prism-dns serve` on SQLite and a
 * real PowerDNS beside it, each its own process to be stopped and killed.
 */
import * as PowerDns from "../../../core/test/harness/PowerDns.ts"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Context, Effect, Layer, Redacted } from "effect"
import * as PrismServer from "./PrismServer.ts"

export const zone = "hosts.prism.test"
/** Where the tests' agents speak from; every zone takes addresses there. */
const networks = ["127.0.0.0/8", "::1/128"]

const defaultZones = [{ name: zone }, { name: "127.in-addr.arpa" }, { name: "0.0.0.0.0.0.0.0.ip6.arpa" }]

export const adminToken = "admin-token-of-a-test"

/** The publications as `GET /v1/publications` shows them. */
export interface Publications {
  readonly zones: ReadonlyArray<{
    readonly zone: string
    readonly pending: number
    readonly parked: number
    readonly oldest?: string
    readonly error?: string
  }>
  readonly items: ReadonlyArray<{
    readonly zone: string
    readonly name: string
    readonly state: string
    readonly reason?: string
  }>
}

/** Starts both; gone with the scope. */
export const start = Effect.fnUntraced(function* (
  settings: Readonly<Record<string, unknown>> & {
    readonly zones?: ReadonlyArray<Readonly<Record<string, unknown>>>
  } = {},
  environment: Readonly<Record<string, string>> = {}
) {
  const powerdns = Context.get(yield* Layer.build(PowerDns.layerServer("sqlite")), PowerDns.TestPowerDns)
  const all = {
    powerdns: {
      nodes: [
        {
          name: "pdns",
          api: powerdns.apiUrl,
          apiKey: Redacted.value(powerdns.apiKey),
          dns: `${powerdns.dns.host}:${powerdns.dns.port}`
        }
      ]
    },
    auth: { mode: "off", adminTokens: [{ name: "test", token: adminToken }] },
    ...settings,
    zones: (settings.zones ?? defaultZones).map((each) => ({ networks, ...each }))
  }
  const prism = yield* PrismServer.serve(all, { environment })

  const get = (path: string): Effect.Effect<unknown> =>
    Effect.promise(async () => {
      const response = await fetch(`${prism.ready().http.url}${path}`, {
        headers: { authorization: `Bearer ${adminToken}` }
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${text}`)
      return response.headers.get("content-type")?.includes("json") === true ? JSON.parse(text) : text
    })

  /** The answers of PowerDNS, sorted; empty when there is none. */
  const dig = (name: string, type: "A" | "AAAA" | "PTR" | "SOA" | "CNAME" | "MX") =>
    Effect.map(PowerDns.resolve(powerdns.dns, name, type), (answer) => [...answer.data].sort())

  return {
    prism,
    /** What another server beside it has to be told as well. */
    shared: { powerdns: all.powerdns, auth: all.auth, zones: all.zones },
    powerdns,
    tcp: () => prism.ready().tcp,
    get,
    publications: Effect.map(get("/v1/publications"), (body) => body as Publications),
    metric: (name: string) =>
      Effect.map(get("/metrics"), (text) => {
        const line = String(text)
          .split("\n")
          .find((candidate) => candidate.startsWith(`${name} `))
        return line === undefined ? undefined : Number(line.slice(name.length + 1))
      }),
    dig,
    untilDig: (
      name: string,
      type: "A" | "AAAA" | "PTR" | "CNAME",
      expected: ReadonlyArray<string>,
      within = "1 second"
    ) =>
      waitUntil(
        `${name} ${type} is ${expected.join(" ") || "nothing"}`,
        dig(name, type),
        (data) => data.join() === expected.join(),
        { within: within as "1 second" }
      )
  }
})
