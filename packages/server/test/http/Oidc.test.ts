import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import * as Jose from "jose"
import * as Crypto from "node:crypto"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import type { OidcConfig } from "../../src/OidcConfig.ts"
import * as Oidc from "../../src/http/Oidc.ts"
import { ask, otherZone, register, server, zone } from "./harness.ts"

/** An identity provider on this machine, whose keys and ways can be changed. */
const provider = Effect.acquireRelease(
  Effect.promise(async () => {
    let keys: Array<Jose.JWK> = []
    let signing: { readonly kid: string; readonly key: Jose.CryptoKey } | undefined
    const asked = { discovery: 0, keys: 0 }
    const state: { isDown: boolean; answer: string | undefined; issuer: string | undefined } = {
      isDown: false,
      answer: undefined,
      issuer: undefined
    }
    const http = Http.createServer((request, response) => {
      const isDiscovery = request.url === "/.well-known/openid-configuration"
      asked[isDiscovery ? "discovery" : "keys"] += 1
      if (state.isDown) return void response.writeHead(503).end()
      response.setHeader("content-type", "application/json")
      response.end(
        isDiscovery
          ? JSON.stringify({ issuer: state.issuer ?? issuer, jwks_uri: `${issuer}/keys` })
          : (state.answer ?? JSON.stringify({ keys }))
      )
    })
    await new Promise<void>((done) => http.listen(0, "127.0.0.1", done))
    const issuer = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
    const rotate = async (alg = "ES256") => {
      const { privateKey, publicKey } = await Jose.generateKeyPair(alg)
      const kid = Crypto.randomUUID()
      const jwk = { ...(await Jose.exportJWK(publicKey)), kid, alg, use: "sig" }
      keys = [...keys, jwk]
      signing = { kid, key: privateKey }
      return jwk
    }
    await rotate()
    return {
      http,
      issuer,
      asked,
      state,
      rotate,
      forgetKeys: () => {
        keys = []
      },
      addKey: (jwk: Jose.JWK) => keys.push(jwk),
      /** A token such as the provider gives out, with these claims in place of the usual ones. */
      token: (claims: { readonly [claim: string]: unknown } = {}, header: Partial<Jose.JWTHeaderParameters> = {}) => {
        const now = Math.floor(Date.now() / 1000)
        const usual = { iss: issuer, aud: "prism", sub: "ann", groups: ["dns-team"], iat: now, exp: now + 300 }
        return new Jose.SignJWT({ ...usual, ...claims })
          .setProtectedHeader({ alg: "ES256", kid: signing!.kid, ...header })
          .sign(signing!.key)
      }
    }
  }),
  ({ http }) => Effect.sync(() => http.close().closeAllConnections())
)

const configOf = (issuer: string, more: Partial<OidcConfig> = {}): OidcConfig => ({
  issuer,
  audience: "prism",
  nameClaim: "sub",
  rolesClaim: "groups",
  roles: [
    { value: "dns-team", role: "operator", zones: [zone] },
    { value: "everybody", role: "viewer" }
  ],
  jwksUri: undefined,
  clockTolerance: Duration.seconds(5),
  ...more
})

const test = (
  name: string,
  body: (
    idp: Effect.Success<typeof provider>,
    verify: (token: string) => Effect.Effect<string>
  ) => Effect.Effect<void, unknown>,
  options: Partial<Oidc.OidcOptions> = {},
  more: Partial<OidcConfig> = {}
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const idp = yield* provider
      const { verify } = yield* Oidc.make(configOf(idp.issuer, more), { pauseMillis: 0, ...options })
      const outcome = (token: string) =>
        verify(token).pipe(
          Effect.map(({ mappings, name }) => `${name} ${mappings.map(({ role }) => role).join(",")}`),
          Effect.catchTag("OidcRefused", ({ code, message }) => Effect.succeed(`${code}: ${message}`))
        )
      yield* body(idp, outcome)
    }).pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerNodeHttp))
  )

const promise = <A>(make: () => Promise<A>) => Effect.promise(make)

describe("tokens of an identity provider", () => {
  test("name somebody, with the roles that its groups are mapped to", (idp, verify) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* verify(yield* promise(() => idp.token())), "oidc:ann operator")
      const both = yield* promise(() => idp.token({ sub: "bo@example.net", groups: ["everybody", "dns-team", 7] }))
      assert.strictEqual(yield* verify(both), "oidc:bo@example.net operator,viewer")
      assert.strictEqual(yield* verify(yield* promise(() => idp.token({ groups: "x everybody" }))), "oidc:ann viewer")
      for (const groups of [undefined, [], {}, "dns-team-2", ["DNS-TEAM"]]) {
        assert.strictEqual(yield* verify(yield* promise(() => idp.token({ groups }))), "oidc:ann ")
      }
      assert.strictEqual(idp.asked.keys, 1)
    }))

  test(
    "may say names and roles by other claims, also within objects",
    (idp, verify) =>
      Effect.gen(function* () {
        const claims = { preferred_username: "ann", realm: { access: { roles: ["everybody"] } } }
        assert.strictEqual(yield* verify(yield* promise(() => idp.token(claims))), "oidc:ann viewer")
        for (const preferred_username of ["", "an n", "a\nb", "x".repeat(201), 7, undefined]) {
          const token = yield* promise(() => idp.token({ ...claims, preferred_username }))
          assert.match(yield* verify(token), /^oidc-invalid: .*claim preferred_username is no name/)
        }
      }),
    {},
    { nameClaim: "preferred_username", rolesClaim: "realm.access.roles" }
  )

  test("are refused that are another's, for another, run out, not yet good or altered", (idp, verify) =>
    Effect.gen(function* () {
      const now = Math.floor(Date.now() / 1000)
      const cases: ReadonlyArray<readonly [{ readonly [claim: string]: unknown }, RegExp]> = [
        [{ iss: "https://elsewhere.example.net" }, /^oidc-invalid: .*another issuer/],
        [{ iss: `${idp.issuer}/` }, /^oidc-invalid: .*another issuer/],
        [{ aud: "grafana" }, /^oidc-invalid: .*another audience/],
        [{ aud: undefined }, /^oidc-invalid: /],
        [{ exp: now - 60 }, /^oidc-expired: /],
        [{ exp: undefined }, /^oidc-invalid: .*claim exp/],
        [{ nbf: now + 600 }, /^oidc-invalid: .*claim nbf/]
      ]
      for (const [claims, expected] of cases) {
        assert.match(yield* verify(yield* promise(() => idp.token(claims))), expected)
      }
      const [head, body, signature] = (yield* promise(() => idp.token())).split(".")
      const forged = Buffer.from(JSON.stringify({ ...Jose.decodeJwt(`${head}.${body}.`), sub: "root" }))
      assert.match(yield* verify(`${head}.${forged.toString("base64url")}.${signature}`), /^oidc-invalid: .*signature/)
      for (const text of ["a.b.c", `${head}.${body}.`, `${head}..${signature}`, ".."]) {
        assert.match(yield* verify(text), /^oidc-invalid: /)
      }
    }))

  test("are refused that are signed by nobody, or by a secret that everybody knows", (idp, verify) =>
    Effect.gen(function* () {
      const jwk = yield* promise(() => idp.rotate("RS256"))
      const payload = Jose.decodeJwt(yield* promise(() => idp.token({}, { alg: "RS256" })))
      const none = new Jose.UnsecuredJWT(payload).encode()
      assert.match(yield* verify(none), /^oidc-invalid: .*signed in a way that is not taken/)
      const pem = yield* promise(async () => Jose.exportSPKI((await Jose.importJWK(jwk, "RS256")) as Jose.CryptoKey))
      for (const secret of [pem, JSON.stringify(jwk)]) {
        const confused = yield* promise(() =>
          new Jose.SignJWT(payload).setProtectedHeader({ alg: "HS256", kid: jwk.kid }).sign(Buffer.from(secret))
        )
        assert.match(yield* verify(confused), /^oidc-invalid: .*signed in a way that is not taken/)
      }
      assert.deepStrictEqual(idp.asked, { discovery: 0, keys: 0 })
      // A secret among the keys is none of them.
      idp.addKey({ kty: "oct", k: Buffer.from("secret").toString("base64url"), kid: "shared", alg: "HS256" })
      const shared = yield* promise(() =>
        new Jose.SignJWT(payload)
          .setProtectedHeader({ alg: "RS256", kid: "shared" })
          .sign(Crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey)
      )
      assert.match(yield* verify(shared), /^oidc-invalid: .*no key that the provider has/)
      assert.strictEqual(yield* verify(yield* promise(() => idp.token({}, { alg: "RS256" }))), "oidc:ann operator")
    }))

  test("are taken by a new key as soon as one of it comes, and by an old one no more once it is gone", (idp, verify) =>
    Effect.gen(function* () {
      const old = yield* promise(() => idp.token())
      assert.strictEqual(yield* verify(old), "oidc:ann operator")
      yield* promise(() => idp.rotate())
      assert.strictEqual(yield* verify(yield* promise(() => idp.token())), "oidc:ann operator")
      assert.strictEqual(yield* verify(old), "oidc:ann operator")
      assert.strictEqual(idp.asked.keys, 2)
      idp.forgetKeys()
      yield* promise(() => idp.rotate())
      assert.strictEqual(yield* verify(yield* promise(() => idp.token())), "oidc:ann operator")
      assert.match(yield* verify(old), /^oidc-invalid: .*no key that the provider has/)
    }))

  test(
    "that name unknown keys, however many, make us ask the provider once in a while only",
    (idp, verify) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* verify(yield* promise(() => idp.token())), "oidc:ann operator")
        const flood = yield* Effect.forEach(
          Array.from({ length: 50 }, (_, i) => i),
          (i) =>
            Effect.flatMap(
              promise(() => idp.token({}, { kid: `guess-${i}` })),
              verify
            ),
          { concurrency: 10 }
        )
        for (const outcome of flood) assert.match(outcome, /^oidc-invalid: .*no key that the provider has/)
        assert.isAtMost(idp.asked.keys, 2)
        assert.strictEqual(yield* verify(yield* promise(() => idp.token())), "oidc:ann operator")
      }),
    { pauseMillis: 60_000 }
  )

  test(
    "go on while the provider is down by keys that are known, and others are told why they do not",
    (idp, verify) =>
      Effect.gen(function* () {
        idp.state.isDown = true
        const token = yield* promise(() => idp.token())
        assert.match(yield* verify(token), /^oidc-unavailable: .*it answered with 503/)
        idp.state.isDown = false
        assert.strictEqual(yield* verify(token), "oidc:ann operator")
        idp.state.isDown = true
        assert.strictEqual(yield* verify(token), "oidc:ann operator")
        yield* promise(() => idp.rotate())
        assert.match(yield* verify(yield* promise(() => idp.token())), /^oidc-invalid: .*no key that the provider has/)
        assert.strictEqual(yield* verify(token), "oidc:ann operator")
      }),
    { freshMillis: 0 }
  )

  test(
    "are not taken by keys that are too old to go on with",
    (idp, verify) =>
      Effect.gen(function* () {
        const token = yield* promise(() => idp.token())
        assert.strictEqual(yield* verify(token), "oidc:ann operator")
        idp.state.isDown = true
        assert.match(yield* verify(token), /^oidc-unavailable: /)
      }),
    { freshMillis: 0, goOnMillis: -1 }
  )

  test(
    "are not taken where the provider's answer is too long, no keys, or another's",
    (idp, verify) =>
      Effect.gen(function* () {
        const token = yield* promise(() => idp.token())
        for (const answer of [`{"keys":[${'{"kty":"x"},'.repeat(10_000)}{}]}`, "[]", "<html>", '{"keys":7}']) {
          idp.state.answer = answer
          assert.match(yield* verify(token), /^oidc-unavailable: /)
        }
        idp.state.answer = undefined
        idp.state.issuer = "https://elsewhere.example.net"
        assert.match(yield* verify(token), /^oidc-unavailable: .*of another issuer/)
        idp.state.issuer = undefined
        assert.strictEqual(yield* verify(token), "oidc:ann operator")
      }),
    { answerBytesMax: 65_536 }
  )
})

describe("the API for people of an identity provider", () => {
  it.live("answers by their roles within the zones that they are mapped to, and says who they are", () =>
    Effect.gen(function* () {
      const idp = yield* provider
      const oidc = Oidc.layer(configOf(idp.issuer)).pipe(Layer.provide(NodeHttpClient.layerNodeHttp))
      yield* Effect.gen(function* () {
        yield* register("web-1", "192.0.2.1")
        yield* register("hidden-1", "198.51.100.1", otherZone)
        const token = yield* promise(() => idp.token())
        const who = yield* ask("/v1/whoami", { token })
        assert.deepInclude(who.json, { name: "oidc:ann", kind: "oidc", roles: ["operator"] })
        assert.isTrue(
          who.json.permissions.every(({ zones }: { zones: unknown }) => JSON.stringify(zones) === `["${zone}"]`)
        )
        assert.isString(who.json.expiresAt)
        const hosts = yield* ask("/v1/hosts", { token })
        assert.deepStrictEqual(
          hosts.json.items.map(({ fqdn }: { fqdn: string }) => fqdn),
          [`web-1.${zone}`]
        )
        const retired = yield* ask(`/v1/hosts/web-1.${zone}/retire`, {
          token,
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ reason: "x" })
        })
        assert.strictEqual(retired.status, 200, retired.text)
        assert.strictEqual((yield* ask(`/v1/hosts/hidden-1.${otherZone}`, { token })).status, 404)
        assert.strictEqual((yield* ask("/v1/tokens", { token })).status, 403)
        const why = yield* ask("/v1/access:explain?verb=read&resource=tokens", { token })
        assert.deepStrictEqual([why.status, why.json.allowed], [200, false], "everyone may ask what it may itself")

        const stranger = yield* ask("/v1/whoami", { token: yield* promise(() => idp.token({ groups: ["sales"] })) })
        assert.strictEqual(stranger.status, 403)
        assert.include(stranger.json.detail, "oidc:ann")
        const wrong = yield* ask("/v1/whoami", { token: yield* promise(() => idp.token({ aud: "grafana" })) })
        assert.strictEqual(wrong.status, 401)
        assert.include(wrong.json.detail, "another audience")
        assert.strictEqual((yield* ask("/v1/whoami")).json.kind, "token")
      }).pipe(Effect.provide(server().pipe(Layer.provide(oidc))))
    }).pipe(Effect.scoped)
  )

  it.live("bounds how often somebody asks who has no role here, as those who prove nothing", () =>
    Effect.gen(function* () {
      const idp = yield* provider
      const oidc = Oidc.layer(configOf(idp.issuer)).pipe(Layer.provide(NodeHttpClient.layerNodeHttp))
      const limited = server({ rateLimit: { failures: { ratePerSecond: 0.01, burst: 2 } } })
      yield* Effect.gen(function* () {
        const token = yield* promise(() => idp.token({ groups: ["sales"] }))
        const answers = yield* Effect.forEach([1, 2, 3], () => ask("/v1/whoami", { token }))
        assert.deepStrictEqual(
          answers.map(({ status }) => status),
          [403, 403, 429]
        )
      }).pipe(Effect.provide(limited.pipe(Layer.provide(oidc))))
    }).pipe(Effect.scoped)
  )

  it.live("is not there where no provider is configured", () =>
    Effect.gen(function* () {
      const answer = yield* ask("/v1/whoami", { token: "eyJhbGciOiJub25lIn0.e30." })
      assert.deepInclude(answer.json, { status: 401, detail: "The token is not valid." })
    }).pipe(Effect.provide(server()))
  )
})
