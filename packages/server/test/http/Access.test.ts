import { assert, describe, it } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import * as Client from "@prism-dns/core/api/Client"
import { Identities } from "@prism-dns/core/auth/Identities"
import { TokenRefused, Tokens as TokenService } from "@prism-dns/core/auth/Tokens"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect, Layer, Redacted } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiTest } from "effect/http-api"
import { SqlClient } from "effect/sql"
import { requestCheck, routerConfig } from "../../src/http/Answers.ts"
import * as Authentication from "../../src/http/Authentication.ts"
import * as IdentityHandlers from "../../src/http/Identities.ts"
import * as Tokens from "../../src/http/Tokens.ts"
import * as Whoami from "../../src/http/Whoami.ts"
import { adminToken, ask, register, server, services, zone } from "./harness.ts"
import { audit as auditTable } from "../../../core/test/harness/audit.ts"

const handlers = Layer.mergeAll(Tokens.layer, IdentityHandlers.layer, Whoami.layer).pipe(
  Layer.provideMerge(Authentication.layer),
  Layer.provideMerge(requestCheck),
  Layer.merge(HttpServer.layerServices)
)

const testLayer = handlers.pipe(Layer.provideMerge(services))

const clientWith = (token: Redacted.Redacted) =>
  HttpApiTest.groups(Api, ["tokens", "identities", "whoami"]).pipe(
    Effect.provideService(HttpRouter.RouterConfig, routerConfig),
    Effect.provide(Client.withToken(token))
  )

const client = clientWith(adminToken)

const nameOf = (label: string) => DomainName.make(`${label}.${zone}`)

const keyOf = (n: number): string => Buffer.alloc(32, n).toString("base64url")

/** Enrols a key as the agents' port does. */
const enrol = Effect.fnUntraced(function* (text: string, key: number) {
  const token = (yield* TokenService).verify(text, "agent", "enrol")
  if (token instanceof TokenRefused) return assert.fail(token.message)
  return yield* (yield* Identities).enrol({ publicKey: keyOf(key), token, peer: "192.0.2.7" })
})

describe("/v1/tokens", () => {
  it.live("a token is made, its text shown once, listed, found by name and id, and revoked", () =>
    Effect.gen(function* () {
      const { tokens } = yield* client
      const { body: issued, headers } = yield* tokens.issue({
        query: {},
        payload: {
          name: "rack-8",
          allows: "enrol",
          grant: { zones: [zone], names: ["web-*"], networks: ["192.0.2.0/24"], namesMax: 2 },
          usesMax: 5,
          expiresAt: "2999-01-01T00:00:00+01:00",
          reason: "rack 8 is built"
        }
      })
      assert.match(issued.token ?? "", /^prism_[A-Za-z0-9_-]{43}$/)
      assert.strictEqual(headers.location, "/v1/tokens/rack-8")
      const { token = "", ...record } = issued
      assert.deepInclude(record, {
        name: "rack-8",
        role: "agent",
        allows: "enrol",
        grant: { zones: [zone], names: ["web-*"], networks: ["192.0.2.0/24"], namesMax: 2 },
        origin: "registry",
        state: "active",
        uses: 0,
        usesMax: 5,
        createdBy: "ops",
        expiresAt: "2998-12-31T23:00:00.000Z"
      })
      yield* enrol(token, 1)

      const { body: shown } = yield* tokens.get({ params: { token: "rack-8" } })
      assert.strictEqual(shown.uses, 1)
      assert.notInclude(JSON.stringify(shown), token)
      assert.deepStrictEqual((yield* tokens.get({ params: { token: issued.id! } })).body, shown)
      const { body: list } = yield* tokens.list({ query: {} })
      assert.deepStrictEqual(
        list.items.map(({ name, origin }) => `${name} ${origin}`),
        ["ops configuration", "rack-7 configuration", "rack-8 registry"]
      )
      const first = yield* tokens.list({ query: { limit: 2 } })
      const second = yield* tokens.list({ query: { limit: 2, cursor: first.body.nextCursor! } })
      assert.deepStrictEqual(
        second.body.items.map(({ name }) => name),
        ["rack-8"]
      )

      const params = { token: "rack-8" }
      const revoked = yield* tokens.revoke({ params, query: {}, payload: { reason: "it leaked" } })
      assert.deepStrictEqual([revoked.state, revoked.revoked?.reason], ["revoked", "it leaked"])
      const again = yield* Effect.flip(tokens.revoke({ params, query: {}, payload: { reason: "again" } }))
      assert.strictEqual(again._tag, "TokenRevoked")
      const sql = yield* SqlClient.SqlClient
      const audit = yield* sql`
        SELECT action, actor, reason FROM ${sql.literal(auditTable)} WHERE subject = 'rack-8' ORDER BY sequence`
      assert.deepStrictEqual(
        audit.map((row) => ({ ...row })),
        [
          { action: "token.issued", actor: "ops", reason: "rack 8 is built" },
          { action: "token.revoked", actor: "ops", reason: "it leaked" }
        ]
      )
    }).pipe(Effect.provide(testLayer))
  )

  it.live("what cannot be is refused in words", () =>
    Effect.gen(function* () {
      const { tokens } = yield* client
      const issue = (payload: object) =>
        Effect.flip(tokens.issue({ query: {}, payload: { name: "new", allows: "enrol", reason: "x", ...payload } }))
      const pointers = Effect.fnUntraced(function* (payload: object) {
        const error = yield* issue(payload)
        return error._tag === "RequestInvalid" ? error.errors.map(({ pointer }) => pointer) : error._tag
      })
      assert.strictEqual((yield* issue({ name: "rack-7" }))._tag, "TokenNameTaken")
      assert.deepStrictEqual(yield* pointers({ name: "anonymous" }), ["/name"])
      assert.deepStrictEqual(yield* pointers({ host: nameOf("web"), allows: "both" }), ["/host"])
      assert.deepStrictEqual(yield* pointers({ host: "web.elsewhere.test" }), ["/host"])
      assert.deepStrictEqual(yield* pointers({ expiresAt: "2001-01-01T00:00:00Z" }), ["/expiresAt"])
      assert.deepStrictEqual(yield* pointers({ grant: { zones: ["elsewhere.test"] } }), ["/grant/zones"])
      const missing = yield* Effect.flip(tokens.get({ params: { token: "nobody" } }))
      assert.strictEqual(missing._tag, "TokenNotFound")
      const params = { token: "rack-7" }
      const configured = yield* Effect.flip(tokens.revoke({ params, query: {}, payload: { reason: "x" } }))
      assert.strictEqual(configured._tag, "TokenConfigured")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("a token of an administrator that was made is one until it is revoked", () =>
    Effect.gen(function* () {
      const { tokens } = yield* client
      const { body } = yield* tokens.issue({
        query: {},
        payload: { name: "ann", role: "admin", allows: "bearer", reason: "she is on call" }
      })
      const { tokens: asAnn, whoami } = yield* clientWith(Redacted.make(body.token ?? ""))
      const { peer: _, ...who } = yield* whoami.get()
      assert.deepStrictEqual(who, {
        name: "ann",
        kind: "token",
        roles: ["admin"],
        permissions: [{ verb: "*", resource: "*" }],
        role: "admin",
        origin: "registry"
      })
      yield* tokens.revoke({ params: { token: "ann" }, query: {}, payload: { reason: "her week is over" } })
      const error = yield* Effect.flip(asAnn.list({ query: {} }))
      assert.strictEqual(error._tag === "TokenInvalid" && error.detail, "The token ann was revoked.")
    }).pipe(Effect.provide(testLayer))
  )
})

describe("/v1/identities", () => {
  it.live("are listed and shown with the names they hold, and revoked for good", () =>
    Effect.gen(function* () {
      const { identities } = yield* client
      const one = yield* enrol("agent-token", 1)
      const two = yield* enrol("agent-token", 2)
      const { body } = yield* identities.list({ query: { enrolledBy: "rack-7", state: "active" } })
      assert.sameMembers(
        body.items.map(({ id }) => id),
        [one.name, two.name]
      )
      const shown = yield* identities.get({ params: { identity: one.name } })
      assert.deepInclude(shown, {
        id: one.name,
        state: "active",
        publicKey: keyOf(1),
        grant: { networks: [] },
        enrolledBy: "rack-7",
        hosts: 0,
        names: []
      })
      assert.match(shown.fingerprint, /^[0-9a-f]{16}$/)

      const params = { identity: one.name }
      const dry = { dryRun: true }
      const tried = yield* identities.revoke({ params, query: dry, payload: { reason: "it was sold" } })
      assert.deepStrictEqual([tried.dryRun, tried.state, tried.revoked?.reason], [true, "revoked", "it was sold"])
      assert.strictEqual((yield* identities.get({ params })).state, "active")
      const revoked = yield* identities.revoke({ params, query: {}, payload: { reason: "it was sold" } })
      assert.deepStrictEqual([revoked.state, revoked.revoked?.reason], ["revoked", "it was sold"])
      const again = yield* Effect.flip(identities.revoke({ params, query: {}, payload: { reason: "again" } }))
      assert.strictEqual(again._tag, "IdentityRevoked")
      const triedAgain = yield* Effect.flip(identities.revoke({ params, query: dry, payload: { reason: "again" } }))
      assert.strictEqual(triedAgain._tag, "IdentityRevoked")
      const nobody = { identity: "i-aaaaaaaaaaaaaaaa" }
      const unknown = yield* Effect.flip(identities.revoke({ params: nobody, query: {}, payload: { reason: "x" } }))
      assert.strictEqual(unknown._tag, "IdentityNotFound")
      assert.strictEqual((yield* Effect.flip(identities.get({ params: nobody })))._tag, "IdentityNotFound")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("a name is freed from its owner, with whose it was", () =>
    Effect.gen(function* () {
      const { identities } = yield* client
      yield* register("web-1", "192.0.2.1")
      const payload = { host: nameOf("web-1"), reason: "its disk died" }
      const tried = yield* identities.reset({ query: { dryRun: true }, payload })
      assert.deepStrictEqual(tried, { host: nameOf("web-1"), formerOwner: "rack-7", dryRun: true })
      const nobody = { host: nameOf("web-2"), reason: "x" }
      const notTried = yield* Effect.flip(identities.reset({ query: { dryRun: true }, payload: nobody }))
      assert.strictEqual(notTried._tag, "HostNotFound")
      const reset = yield* identities.reset({ query: {}, payload: { host: nameOf("web-1"), reason: "its disk died" } })
      assert.deepStrictEqual(reset, { host: nameOf("web-1"), formerOwner: "rack-7" })
      const error = yield* Effect.flip(identities.reset({ query: {}, payload: { host: nameOf("web-2"), reason: "x" } }))
      assert.strictEqual(error._tag, "HostNotFound")
    }).pipe(Effect.provide(testLayer))
  )

  it.live("are reset at a path with one colon, also as the contract says it and for the typed client", () =>
    Effect.gen(function* () {
      const { json: contract } = yield* ask("/openapi.json", { token: "" })
      assert.isDefined(contract.paths["/v1/identities:reset"])
      const post = (path: string) =>
        ask(path, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ host: "web-9.hosts.prism.test", reason: "x" })
        })
      const answer = yield* post("/v1/identities:reset")
      assert.deepStrictEqual([answer.status, answer.json.type], [404, "urn:prism-dns:problem:host-not-found"])
      assert.strictEqual((yield* post("/v1/identities::reset")).json.type, "urn:prism-dns:problem:path-not-found")
      assert.strictEqual((yield* ask("/v1/identities:reset")).status, 405)
      const metrics = yield* ask("/metrics", { token: "" })
      assert.include(metrics.text, 'route="/v1/identities:reset"')
    }).pipe(Effect.provide(server()))
  )
})
