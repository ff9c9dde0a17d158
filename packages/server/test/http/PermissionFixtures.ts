/**
 * What `Permissions.test.ts` asks of each endpoint, and what is to come of it.
 *
 * A new endpoint needs two lines: one in `requests`, how to ask it about the
 * zone it is given, with whatever has to be there made first; and one in
 * `table`, which says for each role what the answer is. Whoever is asked about
 * `there` is not to learn anything of it: what is made there is called
 * `hidden`.
 */
import { assert } from "@effect/vitest"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { Identities } from "@prism-dns/core/auth/Identities"
import type { Permission, Role } from "@prism-dns/core/auth/Permissions"
import { type Grant, unlimited } from "@prism-dns/core/auth/Principal"
import { Roles } from "@prism-dns/core/auth/Roles"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import type * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect, type Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { ask, otherZone, register, type server, zone } from "./harness.ts"

/** Where a request is about: the zone that callers are bound to, or the other one. */
export interface Place {
  readonly zone: DomainName.DomainName
  /** How things in it are called. */
  readonly word: string
  readonly network: string
}

export const here: Place = { zone, word: "web", network: "192.0.2" }
export const there: Place = { zone: otherZone, word: "hidden", network: "198.51.100" }

export interface Request {
  readonly path: string
  readonly body?: unknown
  /** In place of `body`: a zone file. */
  readonly zoneFile?: string
  readonly headers?: Readonly<Record<string, string>>
  /** It is said item by item what became of it: that of the first one counts. */
  readonly isBatch?: boolean
  /** The answer does not end by itself: only its beginning is looked at. */
  readonly isStream?: boolean
}

const actor = { name: "ops", peer: "192.0.2.250" }
const because = { reason: "the test wants it" }

let count = 0
const next = (): number => (count += 1)

const host = Effect.fnUntraced(function* ({ network, word, zone }: Place) {
  const n = next()
  const { fqdn } = yield* register(`${word}-${n}`, `${network}.${1 + (n % 250)}`, zone, {
    registrant: { name: `${word}-owner`, anonymous: false }
  })
  return fqdn
})

const grantOf = ({ zone }: Place): Grant => ({ ...unlimited, zones: [zone] })

/** A token that is good for the place alone. */
const token = Effect.fnUntraced(function* (place: Place) {
  const { record, token } = yield* (yield* Tokens).issue(
    { name: `${place.word}-${next()}`, role: "agent", allows: "both", grant: grantOf(place) },
    actor,
    "x"
  )
  return { name: record.name, text: Redacted.value(token) }
})

const identity = Effect.fnUntraced(function* (place: Place) {
  const { text } = yield* token(place)
  const holder = (yield* Tokens).verify(text, "agent", "enrol")
  if (!("origin" in holder)) return assert.fail(holder.message)
  const publicKey = Buffer.alloc(32, next()).toString("base64url")
  return (yield* (yield* Identities).enrol({ publicKey, token: holder, peer: "192.0.2.7" })).name
})

/** A role that is about the place alone. */
const role = Effect.fnUntraced(function* ({ word, zone }: Place) {
  const name = `${word}-role-${next()}`
  const permissions: ReadonlyArray<Permission> = [{ verb: "read", resource: "hosts", zones: [zone] }]
  yield* (yield* Roles).create({ name, description: "x", permissions }, { actor, reason: "x", dryRun: false })
  return name
})

/** A webhook that is about the place alone. Nobody is there to take what it sends. */
const webhook = Effect.fnUntraced(function* ({ word, zone }: Place) {
  const sql = yield* SqlClient.SqlClient
  // There may be a hundred of them.
  yield* sql`DELETE FROM webhook WHERE name LIKE ${`${word}-%`}`
  const name = `${word}-hook-${next()}`
  const body = JSON.stringify({ name, url: `http://127.0.0.1:1/${word}`, zones: [zone], kinds: ["role.*"], ...because })
  const made = yield* ask("/v1/webhooks", { method: "POST", body, headers: { "content-type": "application/json" } })
  assert.strictEqual(made.status, 201, made.text)
  return name
})

const plan = Effect.fnUntraced(function* ({ word, zone }: Place) {
  const body = JSON.stringify({ kind: "ignore", pattern: `${word}-${next()}`, reason: `${word} is not ours` })
  const made = yield* ask(`/v1/zones/${zone}/plans`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json" }
  })
  assert.strictEqual(made.status, 201, made.text)
  return made.json.id as string
})

/** The path of a record set that people manage. */
const record = Effect.fnUntraced(function* ({ word, zone }: Place) {
  const path = `/v1/zones/${zone}/records/${word}-${next()}.${zone}/TXT`
  const made = yield* ask(path, {
    method: "PUT",
    body: JSON.stringify({ contents: [`"${word}-owner"`] }),
    headers: { "content-type": "application/json" }
  })
  assert.include([200, 201], made.status, made.text)
  return path
})

/** The `ETag` of what is at `path`, as who may everything sees it. */
const matching = Effect.fnUntraced(function* (path: string) {
  const { headers, status, text } = yield* ask(path)
  assert.strictEqual(status, 200, text)
  return { "if-match": headers.get("etag") ?? "" }
})

/** The position of an entry of the audit about a host there. */
const entry = (place: Place) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const fqdn = yield* host(place)
    yield* (yield* Sealer).drain
    const [row] = yield* sql<{ readonly position: number }>`
      SELECT position FROM audit_log WHERE subject = ${fqdn} ORDER BY position LIMIT 1`
    return row!.position
  })

const tripped = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`DELETE FROM guard`
  yield* sql`INSERT INTO guard (kind, zone, tripped_at, detail) VALUES ('mass-expiry', '', 1, 'hidden: 40 of 100 hosts')`
})

/** Of what is made in the other zone, so that lists have something to hide. */
export const seeded = Effect.gen(function* () {
  for (const place of [here, there]) {
    yield* host(place)
    yield* identity(place)
    yield* role(place)
    yield* plan(place)
    yield* webhook(place)
  }
  yield* tripped
})

/** All that stands around a server of the harness. */
type World = Layer.Success<ReturnType<typeof server>>

type Fixture = (place: Place) => Effect.Effect<Request, unknown, World>

const path =
  (of: (place: Place) => string): Fixture =>
  (place) =>
    Effect.succeed({ path: of(place) })

/** How each endpoint is asked about a place. */
export const requests: Readonly<Record<string, Fixture>> = {
  "hosts.list": path(({ zone }) => `/v1/hosts?zone=${zone}`),
  "hosts.get": (place) => Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}` })),
  "hostChanges.retire": (place) =>
    Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}/retire`, body: because })),
  "hostChanges.release": (place) =>
    Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}/release`, body: because })),
  "hostChanges.register": ({ word, zone }) =>
    Effect.succeed({ path: "/v1/hosts", body: { hostname: `${word}-${next()}`, zone, addresses: ["10.0.0.7"] } }),
  "hostChanges.batch": ({ word, zone }) =>
    Effect.succeed({
      path: "/v1/hosts:batch",
      isBatch: true,
      body: { items: [{ op: "register", hostname: `${word}-${next()}`, zone, addresses: ["10.0.0.7"] }] }
    }),
  "hostChanges.change": (place) =>
    Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}`, body: { labels: { a: "b" } } })),
  "hostChanges.remove": (place) => Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}` })),
  "hostChanges.transfer": (place) =>
    Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}/transfer`, body: { owner: "ann", ...because } })),
  "history.hostHistory": (place) => Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}/history` })),
  "history.explainHost": (place) => Effect.map(host(place), (fqdn) => ({ path: `/v1/hosts/${fqdn}/explain` })),
  "history.explainRecord": (place) =>
    Effect.map(host(place), (fqdn) => ({ path: `/v1/zones/${place.zone}/records/${fqdn}/A/explain` })),
  "history.diff": path(({ zone }) => `/v1/diff?from=2026-01-01T00:00:00Z&zone=${zone}`),
  "history.restoreHost": (place) =>
    Effect.map(host(place), (fqdn) => ({
      path: `/v1/hosts/${fqdn}/restore`,
      body: { at: new Date().toISOString(), ...because }
    })),
  "history.restoreZone": ({ zone }) =>
    Effect.succeed({ path: `/v1/zones/${zone}/restore`, body: { at: new Date().toISOString(), ...because } }),
  "zones.list": path(() => "/v1/zones"),
  "zones.get": path(({ zone }) => `/v1/zones/${zone}`),
  "zones.create": () => Effect.succeed({ path: "/v1/zones", body: { name: `new-${next()}.test`, ...because } }),
  "zones.change": ({ zone }) =>
    Effect.gen(function* () {
      const path = `/v1/zones/${zone}`
      return { path, headers: yield* matching(path), body: { policy: { ttlSeconds: 60 + (next() % 60) }, ...because } }
    }),
  "zones.remove": ({ zone }) =>
    Effect.map(matching(`/v1/zones/${zone}`), (headers) => ({ path: `/v1/zones/${zone}?reason=x`, headers })),
  "zones.history": path(({ zone }) => `/v1/zones/${zone}/history`),
  "zones.records": path(({ zone }) => `/v1/zones/${zone}/records`),
  "zones.dnssec": path(({ zone }) => `/v1/zones/${zone}/dnssec`),
  "records.get": (place) => Effect.map(record(place), (path) => ({ path })),
  "records.put": ({ word, zone }) =>
    Effect.succeed({
      path: `/v1/zones/${zone}/records/${word}-${next()}.${zone}/TXT`,
      body: { contents: ['"x"'], ...because }
    }),
  "records.remove": (place) =>
    Effect.gen(function* () {
      const path = yield* record(place)
      return { path: `${path}?reason=x`, headers: yield* matching(path) }
    }),
  "records.batch": ({ word, zone }) =>
    Effect.succeed({
      path: `/v1/zones/${zone}/records:batch`,
      body: { items: [{ name: `${word}-${next()}.${zone}`, type: "TXT", contents: ['"x"'] }] }
    }),
  "records.import": ({ word, zone }) =>
    Effect.succeed({ path: `/v1/zones/${zone}/import`, zoneFile: `${word}-${next()}.${zone} 60 IN TXT "x"\n` }),
  "records.export": path(({ zone }) => `/v1/zones/${zone}/export`),
  "plans.make": ({ word, zone }) =>
    Effect.succeed({
      path: `/v1/zones/${zone}/plans`,
      body: { kind: "ignore", pattern: `${word}-${next()}`, ...because }
    }),
  "plans.list": path(({ zone }) => `/v1/zones/${zone}/plans`),
  "plans.listAll": path(() => "/v1/plans"),
  "plans.get": (place) => Effect.map(plan(place), (id) => ({ path: `/v1/plans/${id}` })),
  "plans.changes": (place) => Effect.map(plan(place), (id) => ({ path: `/v1/plans/${id}/changes` })),
  "plans.apply": (place) => Effect.map(plan(place), (id) => ({ path: `/v1/plans/${id}/apply`, body: {} })),
  "plans.reject": (place) => Effect.map(plan(place), (id) => ({ path: `/v1/plans/${id}/reject`, body: because })),
  "publications.list": path(({ zone }) => `/v1/publications?zone=${zone}`),
  "publications.retry": ({ zone }) => Effect.succeed({ path: "/v1/publications/retry", body: { zone } }),
  "guards.list": path(() => "/v1/guards"),
  "guards.allow": () => Effect.as(tripped, { path: "/v1/guards/mass-expiry/allow", body: because }),
  "tokens.list": path(() => "/v1/tokens"),
  "tokens.issue": (place) =>
    Effect.succeed({
      path: "/v1/tokens",
      body: { name: `${place.word}-${next()}`, allows: "enrol", grant: { zones: [place.zone] }, ...because }
    }),
  "tokens.get": (place) => Effect.map(token(place), ({ name }) => ({ path: `/v1/tokens/${name}` })),
  "tokens.change": (place) =>
    Effect.gen(function* () {
      const path = `/v1/tokens/${(yield* token(place)).name}`
      return { path, headers: yield* matching(path), body: { expiresAt: "2999-01-01T00:00:00Z", ...because } }
    }),
  "tokens.revoke": (place) =>
    Effect.map(token(place), ({ name }) => ({ path: `/v1/tokens/${name}/revoke`, body: because })),
  "identities.list": path(() => "/v1/identities"),
  "identities.get": (place) => Effect.map(identity(place), (id) => ({ path: `/v1/identities/${id}` })),
  "identities.revoke": (place) =>
    Effect.map(identity(place), (id) => ({ path: `/v1/identities/${id}/revoke`, body: because })),
  "identities.reset": (place) =>
    Effect.map(host(place), (fqdn) => ({
      path: "/v1/identities:reset",
      body: { host: fqdn, ...because }
    })),
  "roles.list": path(() => "/v1/roles"),
  "roles.create": ({ word, zone }) =>
    Effect.succeed({
      path: "/v1/roles",
      body: {
        name: `${word}-role-${next()}`,
        description: "x",
        permissions: [{ verb: "read", resource: "hosts", zones: [zone] }],
        ...because
      }
    }),
  "roles.get": (place) => Effect.map(role(place), (name) => ({ path: `/v1/roles/${name}` })),
  "roles.change": (place) =>
    Effect.gen(function* () {
      const path = `/v1/roles/${yield* role(place)}`
      return { path, headers: yield* matching(path), body: { description: "y", ...because } }
    }),
  "roles.remove": (place) =>
    Effect.gen(function* () {
      const path = `/v1/roles/${yield* role(place)}`
      return { path: `${path}?reason=x`, headers: yield* matching(path) }
    }),
  "access.explain": path(
    ({ network, word, zone }) => `/v1/access:explain?principal=rack-7&hostname=${word}-1.${zone}&addresses=${network}.1`
  ),
  "access.explainRequest": (place) =>
    Effect.map(token(place), ({ name }) => ({
      path: "/v1/access:explain",
      body: { principal: name, verb: "read", resource: "hosts", zone: place.zone }
    })),
  "whoami.get": path(() => "/v1/whoami"),
  "status.get": path(() => "/v1/status"),
  "events.stream": ({ zone }) => Effect.succeed({ path: `/v1/events?since=0&zone=${zone}`, isStream: true }),
  "webhooks.list": path(() => "/v1/webhooks"),
  "webhooks.create": ({ word, zone }) =>
    Effect.succeed({
      path: "/v1/webhooks",
      body: { name: `${word}-hook-${next()}`, url: "http://127.0.0.1:1/", zones: [zone], ...because }
    }),
  "webhooks.get": (place) => Effect.map(webhook(place), (name) => ({ path: `/v1/webhooks/${name}` })),
  "webhooks.change": (place) =>
    Effect.gen(function* () {
      const path = `/v1/webhooks/${yield* webhook(place)}`
      return { path, headers: yield* matching(path), body: { state: "paused", ...because } }
    }),
  "webhooks.remove": (place) =>
    Effect.gen(function* () {
      const path = `/v1/webhooks/${yield* webhook(place)}`
      return { path: `${path}?reason=x`, headers: yield* matching(path) }
    }),
  "webhooks.test": (place) => Effect.map(webhook(place), (name) => ({ path: `/v1/webhooks/${name}/test` })),
  "webhooks.replay": (place) =>
    Effect.map(webhook(place), (name) => ({ path: `/v1/webhooks/${name}/replay`, body: { since: "0", ...because } })),
  "webhooks.deadLetters": (place) =>
    Effect.map(webhook(place), (name) => ({ path: `/v1/webhooks/${name}/dead-letters` })),
  "audit.list": path(({ zone }) => `/v1/audit?zone=${zone}`),
  "audit.verify": path(() => "/v1/audit/verify"),
  "audit.export": path(() => "/v1/audit/export"),
  "audit.get": (place) => Effect.map(entry(place), (position) => ({ path: `/v1/audit/${position}` }))
}

/** A role of one's own: it looks after the records and the web hosts of one zone. */
export const keeper: Role = {
  name: "keeper",
  description: "Looks after the records of one zone.",
  permissions: [
    { verb: "*", resource: "records", zones: [here.zone] },
    { verb: "read", resource: "zones", zones: [here.zone] },
    { verb: "read", resource: "hosts", zones: [here.zone], names: ["web-*"] }
  ]
}

export const columns = ["viewer", "operator", "admin", "auditor", "agent", "none", "keeper"] as const
export type Column = (typeof columns)[number]

/**
 * For each role three answers: to a token that is bound to a zone about that zone, to the same about the other zone, and to
 * a token that is bound to none about the other zone. `+`: it is done, or answered; of a list, as far as the caller may see.
 * `!`: 409,
 * it may, and what it is about stands in the way. `x`: 403. `0`: 404, as if it were not there.
 */
export const table = `
                        viewer  operator  admin  auditor  agent  none  keeper
hosts.list              +++     +++       +++    +++      +++    xxx   +++
hosts.get               +0+     +0+       +0+    +0+      +0+    xxx   +00
hostChanges.retire      xxx     +0+       +0+    xxx      xxx    xxx   xxx
hostChanges.release     xxx     +0+       +0+    xxx      xxx    xxx   xxx
history.hostHistory     +0+     +0+       +0+    +0+      +0+    xxx   +00
history.explainHost     +0+     +0+       +0+    +0+      +0+    xxx   +00
history.explainRecord   +0+     +0+       +0+    +0+      xxx    xxx   +00
history.diff            +++     +++       +++    +++      +++    xxx   +++
history.restoreHost     xxx     +0+       +0+    xxx      xxx    xxx   xxx
history.restoreZone     xxx     +0+       +0+    xxx      xxx    xxx   xxx
zones.list              +++     +++       +++    +++      xxx    xxx   +++
zones.get               +0+     +0+       +0+    +0+      xxx    xxx   +00
zones.records           +0+     +0+       +0+    +0+      xxx    xxx   +00
zones.dnssec            +0+     +0+       +0+    +0+      xxx    xxx   +00
plans.make              xxx     +0+       +0+    xxx      xxx    xxx   xxx
plans.list              +0+     +0+       +0+    +0+      xxx    xxx   xxx
plans.listAll           +++     +++       +++    +++      xxx    xxx   xxx
plans.get               +0+     +0+       +0+    +0+      xxx    xxx   xxx
plans.changes           +0+     +0+       +0+    +0+      xxx    xxx   xxx
plans.apply             xxx     +0+       +0+    xxx      xxx    xxx   xxx
plans.reject            xxx     +0+       +0+    xxx      xxx    xxx   xxx
publications.list       +++     +++       +++    +++      xxx    xxx   xxx
publications.retry      xxx     +x+       +x+    xxx      xxx    xxx   xxx
guards.list             +++     +++       +++    +++      xxx    xxx   xxx
guards.allow            xxx     xx+       xx+    xxx      xxx    xxx   xxx
tokens.list             xxx     xxx       +++    +++      xxx    xxx   xxx
tokens.issue            xxx     xxx       +x+    xxx      xxx    xxx   xxx
tokens.get              xxx     xxx       +0+    +0+      xxx    xxx   xxx
tokens.change           xxx     xxx       +0+    xxx      xxx    xxx   xxx
tokens.revoke           xxx     xxx       +0+    xxx      xxx    xxx   xxx
identities.list         xxx     xxx       +++    +++      xxx    xxx   xxx
identities.get          xxx     xxx       +0+    +0+      xxx    xxx   xxx
identities.revoke       xxx     xxx       +0+    xxx      xxx    xxx   xxx
identities.reset        xxx     xxx       +0+    xxx      xxx    xxx   xxx
roles.list              xxx     xxx       +++    +++      xxx    xxx   xxx
roles.create            xxx     xxx       +x+    xxx      xxx    xxx   xxx
roles.get               xxx     xxx       +0+    +0+      xxx    xxx   xxx
roles.change            xxx     xxx       +0+    xxx      xxx    xxx   xxx
roles.remove            xxx     xxx       +0+    xxx      xxx    xxx   xxx
access.explain          xxx     xxx       +x+    +x+      xxx    xxx   xxx
access.explainRequest   xxx     xxx       +0+    +0+      xxx    xxx   xxx
whoami.get              +++     +++       +++    +++      +++    +++   +++
status.get              +++     +++       +++    +++      xxx    xxx   xxx
hostChanges.register    xxx     +x+       +x+    xxx      +x+    xxx   xxx
hostChanges.batch       xxx     +x+       +x+    xxx      +x+    xxx   xxx
hostChanges.change      xxx     +0+       +0+    xxx      x0x    xxx   xxx
hostChanges.remove      xxx     +0+       +0+    xxx      xxx    xxx   xxx
hostChanges.transfer    xxx     +0+       +0+    xxx      x0x    xxx   xxx
zones.create            xxx     xxx       xx+    xxx      xxx    xxx   xxx
zones.change            xxx     xxx       +0+    xxx      xxx    xxx   xxx
zones.remove            xxx     xxx       !0!    xxx      xxx    xxx   xxx
zones.history           +0+     +0+       +0+    +0+      xxx    xxx   +00
audit.list              xxx     xxx       +++    +++      xxx    xxx   xxx
audit.verify            xxx     xxx       xx+    xx+      xxx    xxx   xxx
audit.export            xxx     xxx       xx+    xx+      xxx    xxx   xxx
audit.get               xxx     xxx       +0+    +0+      xxx    xxx   xxx
events.stream           +++     +++       +++    +++      xxx    xxx   xxx
webhooks.list           xxx     xxx       +++    +++      xxx    xxx   xxx
webhooks.create         xxx     xxx       +x+    xxx      xxx    xxx   xxx
webhooks.get            xxx     xxx       +0+    +0+      xxx    xxx   xxx
webhooks.change         xxx     xxx       +0+    xxx      xxx    xxx   xxx
webhooks.remove         xxx     xxx       +0+    xxx      xxx    xxx   xxx
webhooks.test           xxx     xxx       +0+    xxx      xxx    xxx   xxx
webhooks.replay         xxx     xxx       +0+    xxx      xxx    xxx   xxx
webhooks.deadLetters    xxx     xxx       +0+    +0+      xxx    xxx   xxx
records.get             +0+     +0+       +0+    +0+      xxx    xxx   +00
records.put             xxx     +0+       +0+    xxx      xxx    xxx   +00
records.remove          xxx     +0+       +0+    xxx      xxx    xxx   +00
records.batch           xxx     +0+       +0+    xxx      xxx    xxx   +00
records.import          xxx     +0+       +0+    xxx      xxx    xxx   +00
records.export          +0+     +0+       +0+    +0+      xxx    xxx   +00
`
