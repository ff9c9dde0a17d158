import { assert, it, layer } from "@effect/vitest"
import { Api } from "@prism-dns/core/api/Api"
import * as Client from "@prism-dns/core/api/Client"
import type { ExplainRequest } from "@prism-dns/core/api/Access"
import { Identities } from "@prism-dns/core/auth/Identities"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Effect, Layer, Redacted } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiTest } from "effect/http-api"
import { requestCheck, routerConfig } from "../../src/http/Answers.ts"
import * as Access from "../../src/http/Access.ts"
import * as Authentication from "../../src/http/Authentication.ts"
import { adminToken, ask, register, server, services, zone } from "./harness.ts"

const handlers = Access.layer().pipe(
  Layer.provideMerge(Authentication.layer),
  Layer.provideMerge(requestCheck),
  Layer.merge(HttpServer.layerServices),
  Layer.provideMerge(services)
)

const client = HttpApiTest.groups(Api, ["access"]).pipe(
  Effect.provideService(HttpRouter.RouterConfig, routerConfig),
  Effect.provide(Client.withToken(adminToken))
)

const request = (hostname: string, more: Partial<ExplainRequest> = {}): ExplainRequest => ({
  principal: "rack-7",
  hostname: DomainName.make(hostname),
  addresses: [IpAddress.make("10.0.0.1")],
  ...more
})

const explain = Effect.fnUntraced(function* (payload: ExplainRequest) {
  const { access } = yield* client
  const explained = yield* access.explainRequest({ payload })
  return "verb" in explained ? assert.fail("this was about a claim") : explained
})

const ops = { name: "ops", peer: undefined }

const decidedBy = (hostname: string, more: Partial<ExplainRequest> = {}) =>
  Effect.map(explain(request(hostname, more)), (explained) => explained.decidedBy ?? "allowed")

layer(handlers, { excludeTestServices: true })("POST /v1/access:explain", (it) => {
  it.effect("says who claims what, that it is allowed, and what every rule and rate and the registry say", () =>
    Effect.gen(function* () {
      const { rules, ...explained } = yield* explain(request("Web-9", { ttlSeconds: 5 }))
      assert.deepStrictEqual(explained, {
        principal: { name: "rack-7", kind: "token", grant: { networks: [] }, namesMax: 1_000_000 },
        host: DomainName.make(`web-9.${zone}`),
        zone,
        addresses: [IpAddress.make("10.0.0.1")],
        peer: IpAddress.make("10.0.0.1"),
        protocol: "2.0",
        allowed: true,
        detail: "the claim is allowed",
        ttlSeconds: 30
      })
      assert.deepStrictEqual(
        rules.map(({ outcome, rule }) => `${rule} ${outcome}`),
        [
          "zone passed",
          "apex passed",
          "labels passed",
          "depth passed",
          "reserved passed",
          "grant-names passed",
          "own-addresses passed",
          "special-addresses passed",
          "zone-networks not-applicable",
          "ttl passed",
          "rate-principal passed",
          "rate-name passed",
          "rate-network passed",
          "owner passed",
          "quota passed"
        ]
      )
    })
  )

  it.effect("names the first rule that refuses, with its code and what to do", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* explain(request("wpad")), {
        allowed: false,
        decidedBy: "reserved",
        code: "name-reserved",
        detail:
          "'wpad' is reserved (wpad), for it means something to others; register another name, or change auth.reservedNames"
      })
      assert.strictEqual(yield* decidedBy(zone), "apex")
      assert.strictEqual(yield* decidedBy("*"), "labels")
      assert.strictEqual(yield* decidedBy("a.b"), "depth")
      assert.strictEqual(yield* decidedBy("a.b", { protocol: "1.0" }), "allowed")
      assert.strictEqual(yield* decidedBy("a", { peer: IpAddress.make("10.9.9.9") }), "own-addresses")
      assert.strictEqual(yield* decidedBy("a", { addresses: [IpAddress.make("127.0.0.1")] }), "special-addresses")
      assert.strictEqual(yield* decidedBy("a", { zone: DomainName.make("other.test") }), "zone")
    })
  )

  it.effect("knows whose a name is, and who may take it", () =>
    Effect.gen(function* () {
      yield* register("held", "192.0.2.9")
      assert.strictEqual(yield* decidedBy("held"), "allowed")
      assert.deepInclude(yield* explain(request("held", { principal: "anonymous" })), {
        decidedBy: "owner",
        code: "hostname-taken"
      })
    })
  )

  it.effect("of an identity it takes the grant of the token that it was enrolled with", () =>
    Effect.gen(function* () {
      const tokens = yield* Tokens
      const grant = { zones: [zone], names: ["db-#"], networks: [], namesMax: 1 }
      const { token } = yield* tokens.issue({ name: "dbs", role: "agent", allows: "enrol", grant }, ops, "a new rack")
      const holder = tokens.verify(Redacted.value(token), "agent", "enrol")
      if (holder instanceof TokenRefused) return assert.fail(holder.message)
      const publicKey = Buffer.alloc(32, 7).toString("base64url")
      const identity = yield* (yield* Identities).enrol({ publicKey, token: holder, peer: undefined })
      const principal = identity.name
      assert.strictEqual(yield* decidedBy("db-1", { principal }), "allowed")
      assert.strictEqual(yield* decidedBy("web-1", { principal }), "grant-names")
      yield* register("db-2", "192.0.2.10", zone, { registrant: identity })
      assert.deepInclude(yield* explain(request("db-1", { principal })), {
        decidedBy: "quota",
        code: "quota-exceeded"
      })
    })
  )

  it.effect("of a client certificate it takes what its name may claim", () =>
    Effect.gen(function* () {
      const principal = `cert:web-1.${zone}`.slice(0, -1)
      assert.strictEqual(yield* decidedBy("web-1", { principal }), "allowed")
      assert.strictEqual(yield* decidedBy("web-2", { principal }), "grant-names")
    })
  )

  it.effect("of nobody it says so", () =>
    Effect.gen(function* () {
      for (const [principal, detail] of [
        ["nobody", "There is neither an identity nor a token 'nobody'; 'anonymous' is who proves nothing."],
        ["ops", "The token ops is for the API and claims nothing."]
      ] as const) {
        const failure = yield* Effect.flip(explain(request("a", { principal })))
        assert.deepInclude(failure, { _tag: "PrincipalNotFound", detail })
      }
    })
  )
})

it.live(
  "GET /v1/access:explain asks the same in a query, and is refused without a token or with what is no address",
  () =>
    Effect.gen(function* () {
      const path = `/v1/access:explain?principal=rack-7&hostname=web&addresses=10.0.0.1,fd00::1&peer=10.0.0.1&ttlSeconds=7200`
      const { json, status } = yield* ask(path)
      assert.strictEqual(status, 200)
      assert.deepInclude(json, {
        allowed: false,
        decidedBy: "own-addresses",
        code: "address-not-allowed",
        ttlSeconds: 3600
      })
      assert.strictEqual((yield* ask(path, { token: "" })).status, 401)
      const mapped = yield* ask("/v1/access:explain?principal=rack-7&hostname=web&addresses=::ffff:10.0.0.1")
      assert.strictEqual(mapped.status, 400)
      assert.include(mapped.json.detail, "claim it as 10.0.0.1")
      assert.strictEqual((yield* ask("/v1/access:explain?principal=nobody&hostname=web&addresses=::1")).status, 404)
    }).pipe(Effect.provide(server()))
)
