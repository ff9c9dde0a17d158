/**
 * A program that somebody else might have written: it knows the API only by the
 * types that `openapi-typescript` makes of `openapi.json`. The test beside it
 * makes them, compiles this and runs it.
 */
import createClient from "openapi-fetch"
import type { paths } from "./prism"

const [url = "", token = "", fqdn = ""] = process.argv.slice(2)
const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${token}` } })

const failed = (what: string, problem: unknown): never => {
  throw new Error(`${what}: ${JSON.stringify(problem)}`)
}

// Registered under a key, so that a lost answer does no harm; then one field of it changed, from what was answered.
const registered = await client.POST("/v1/hosts", {
  params: { header: { "idempotency-key": "register-once" } },
  body: { hostname: "made", zone: fqdn.replace(/^[^.]+\./, ""), addresses: ["10.0.0.9"], labels: { role: "web" } }
})
const patched = await client.PATCH("/v1/hosts/{host}", {
  params: {
    path: { host: registered.data?.fqdn ?? "" },
    header: { "if-match": registered.response.headers.get("etag") ?? "" }
  },
  body: { labels: { site: "a" }, reason: "it has moved in" }
})
if (registered.data === undefined) failed("register", registered.error)
if (patched.data === undefined) failed("patch", patched.error)

const whoami = await client.GET("/v1/whoami")
const host = await client.GET("/v1/hosts/{host}", { params: { path: { host: fqdn } } })
const page = await client.GET("/v1/hosts", { params: { query: { limit: 10, q: fqdn } } })
if (whoami.data === undefined) failed("whoami", whoami.error)
if (host.data === undefined) failed("host", host.error)

// Sent twice under one key, it is done once.
const retire = () =>
  client.POST("/v1/hosts/{host}/retire", {
    params: { path: { host: fqdn }, header: { "idempotency-key": "retire-once" } },
    body: { reason: "it moves" }
  })
const first = await retire()
const second = await retire()

// Made, looked at, and changed from what was looked at: a change that starts from something older is refused.
const token_ = { params: { path: { token: "pipeline" } } }
const made = await client.POST("/v1/tokens", {
  body: { name: "pipeline", allows: "enrol", reason: "for the pipeline" }
})
const seen = await client.GET("/v1/tokens/{token}", token_)
const tag = seen.response.headers.get("etag") ?? ""
const change = (tried: boolean) =>
  client.PATCH("/v1/tokens/{token}", {
    params: { ...token_.params, header: { "if-match": tag }, query: { dryRun: tried } },
    body: { expiresAt: "2030-01-01T00:00:00.000Z", reason: "not for ever" }
  })
const tried = await change(true)
const changed = await change(false)
const stale = await change(false)

const missing = await client.GET("/v1/hosts/{host}", { params: { path: { host: `no-${fqdn}` } } })

console.log(
  JSON.stringify({
    registered: registered.response.status,
    labels: patched.data?.labels,
    name: whoami.data?.name,
    addresses: host.data?.addresses,
    found: page.data?.items.map((each) => each.fqdn),
    state: first.data?.state,
    again: second.response.headers.get("idempotent-replayed"),
    made: made.response.status,
    tried: tried.data?.dryRun,
    expiresAt: changed.data?.expiresAt,
    stale: stale.error?.type,
    missing: missing.error?.type,
    status: missing.response.status
  })
)
