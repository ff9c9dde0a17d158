/**
 * Lets people in by tokens of an identity provider (OpenID Connect): JWTs that
 * it has signed, whose claims say who somebody is and which roles it has here.
 *
 * Promises: only what the provider signed, for us, by one of its asymmetric
 * keys, and while it is good; its keys are asked for once for all who wait, are
 * known for a while, and go on being so while it does not answer; whatever is
 * sent to us makes us ask it no more than once in a while, and what it answers
 * is bounded. Leaves to others: what a role allows (`auth/Roles`).
 */
import type { OidcCode } from "@prism-dns/core/auth/RefusalCode"
import { Clock, Context, Data, Duration, Effect, Layer, Option, Schema, Semaphore, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import * as Jose from "jose"
import { isSafeUrl, type OidcConfig, type RoleMapping } from "../OidcConfig.ts"

export interface OidcOptions {
  /** One request to the provider, in milliseconds. */
  readonly timeoutMillis: number
  /** Bytes of one answer at the most. */
  readonly answerBytesMax: number
  /** Keys that are taken from it at the most. */
  readonly keysMax: number
  /** How long keys are known before they are asked for anew, while the old ones still go. */
  readonly freshMillis: number
  /** How long they go on when the provider does not answer. */
  readonly goOnMillis: number
  /** Between two requests for keys, whatever is sent to us. */
  readonly pauseMillis: number
}

export const defaultOptions: OidcOptions = {
  timeoutMillis: 5000,
  answerBytesMax: 262_144,
  keysMax: 100,
  freshMillis: 600_000,
  goOnMillis: 86_400_000,
  pauseMillis: 15_000
}

/** Signatures that only the holder of a private key can make. None by a shared secret, and not `none`. */
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]

/** Somebody whom the provider has vouched for. */
export interface OidcHolder {
  /** `oidc:` and the claim that names it. */
  readonly name: string
  /** What its roles come to here; none: it has no role. */
  readonly mappings: ReadonlyArray<RoleMapping>
  readonly expiresAtMillis: number
}

export class OidcRefused extends Data.TaggedError("OidcRefused")<{
  readonly code: OidcCode
  readonly message: string
}> {}

export interface OidcService {
  readonly verify: (token: string) => Effect.Effect<OidcHolder, OidcRefused>
}

/** Undefined: nobody comes by an identity provider. */
export const Oidc = Context.Reference<OidcService | undefined>("@prism-dns/server/http/Oidc", {
  defaultValue: () => undefined
})

/** True for what may be a JWT; ours are none. */
export const isJwt = (token: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)

const refused = (code: OidcCode, message: string) => new OidcRefused({ code, message })

const invalid = (why: string) => refused("oidc-invalid", `the identity provider's token is not good here: ${why}`)

/** `groups`, or `realm_access.roles` of an object within; a name that has a dot goes first. */
const claimOf = (claims: Jose.JWTPayload, path: string): unknown => {
  if (Object.hasOwn(claims, path)) return claims[path]
  let at: unknown = claims
  for (const key of path.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return undefined
    at = (at as Readonly<Record<string, unknown>>)[key]
  }
  return at
}

/** A list, or words in a text as `scope` has them. */
const valuesOf = (claim: unknown): ReadonlySet<unknown> =>
  new Set(typeof claim === "string" ? claim.split(/\s+/) : Array.isArray(claim) ? claim : [])

const nameCharactersMax = 200

const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length <= nameCharactersMax && /^[^\p{C}\p{Z}]+$/u.test(value)

/** What a token says of itself before anything about it is believed. */
const read = (token: string) => {
  try {
    return { header: Jose.decodeProtectedHeader(token), issuer: Jose.decodeJwt(token).iss }
  } catch {
    return undefined
  }
}

const Discovery = Schema.Struct({ issuer: Schema.String, jwks_uri: Schema.String })
const KeySet = Schema.Struct({ keys: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)) })

interface Known {
  readonly find: ReturnType<typeof Jose.createLocalJWKSet>
  readonly atMillis: number
}

export const make = Effect.fnUntraced(function* (config: OidcConfig, given: Partial<OidcOptions> = {}) {
  const options = { ...defaultOptions, ...given }
  const client = yield* HttpClient.HttpClient
  const turn = yield* Semaphore.make(1)
  const clockTolerance = Duration.toSeconds(config.clockTolerance)
  let known: Known | undefined
  let askedAtMillis = Number.NEGATIVE_INFINITY

  const unreachable = (why: string) =>
    refused("oidc-unavailable", `the identity provider cannot be asked for its keys (${why}); try again`)

  /** One answer of the provider, within bounds. A redirect is none. */
  const get = <A>(url: string, schema: Schema.Codec<A, unknown>) =>
    client.execute(HttpClientRequest.get(url, { headers: { accept: "application/json" } })).pipe(
      Effect.flatMap((response) =>
        response.status === 200
          ? Stream.runFoldEffect(
              response.stream,
              () => ({ chunks: [] as Array<Uint8Array>, bytes: 0 }),
              ({ bytes, chunks }, chunk) => {
                if (bytes + chunk.length > options.answerBytesMax)
                  return Effect.fail(unreachable("its answer is too long"))
                chunks.push(chunk)
                return Effect.succeed({ chunks, bytes: bytes + chunk.length })
              }
            )
          : Effect.fail(unreachable(`it answered with ${response.status}`))
      ),
      Effect.flatMap(({ chunks }) =>
        Schema.decodeEffect(Schema.fromJsonString(schema))(Buffer.concat(chunks).toString("utf8"))
      ),
      Effect.timeoutOrElse({
        duration: options.timeoutMillis,
        orElse: () => Effect.fail(unreachable("it took too long"))
      }),
      Effect.mapError((error) =>
        error instanceof OidcRefused
          ? error
          : unreachable(error._tag === "SchemaError" ? "its answer is not as it should be" : "no connection")
      )
    )

  const findJwksUri = Effect.gen(function* () {
    if (config.jwksUri !== undefined) return config.jwksUri
    const found = yield* get(`${config.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, Discovery)
    if (found.issuer !== config.issuer) return yield* unreachable("its discovery document is of another issuer")
    if (!isSafeUrl(found.jwks_uri)) return yield* unreachable("its keys are at no https address")
    return found.jwks_uri
  })

  const load = Effect.gen(function* () {
    const { keys } = yield* get(yield* findJwksUri, KeySet)
    // A key that is no public one has no business there.
    const usable = keys.filter(({ d, k, kty }) => typeof kty === "string" && d === undefined && k === undefined)
    const nowMillis = yield* Clock.currentTimeMillis
    known = {
      find: Jose.createLocalJWKSet({ keys: usable.slice(0, options.keysMax) }),
      atMillis: nowMillis
    }
    return known
  })

  /** Asks for the keys anew, unless that was done just now; what is known stays where that fails. */
  const refresh = (seen: Known | undefined) =>
    turn.withPermits(1)(
      Effect.gen(function* () {
        if (known !== seen) return known
        const nowMillis = yield* Clock.currentTimeMillis
        if (nowMillis - askedAtMillis < options.pauseMillis) return known
        askedAtMillis = nowMillis
        return yield* load.pipe(
          Effect.tapError(({ message }) => Effect.logWarning(message)),
          Effect.catch((error) => (known === undefined ? Effect.fail(error) : Effect.succeed(known)))
        )
      })
    )

  const lookUp = (keys: Known, header: Jose.ProtectedHeaderParameters & Jose.JWTHeaderParameters) =>
    Effect.option(Effect.tryPromise(() => keys.find(header)))

  const keyFor = Effect.fnUntraced(function* (header: Jose.JWTHeaderParameters) {
    const nowMillis = yield* Clock.currentTimeMillis
    const isFresh = known !== undefined && nowMillis - known.atMillis < options.freshMillis
    const keys = isFresh ? known : yield* refresh(known)
    if (keys === undefined || nowMillis - keys.atMillis > options.goOnMillis) {
      return yield* unreachable("it did not answer the last time")
    }
    const found = yield* lookUp(keys, header)
    if (Option.isSome(found)) return found.value
    // The provider may have a new key since.
    const newer = yield* refresh(keys)
    const foundNow = newer === undefined || newer === keys ? Option.none() : yield* lookUp(newer, header)
    return Option.isSome(foundNow) ? foundNow.value : yield* invalid("it names no key that the provider has")
  })

  const verify: OidcService["verify"] = Effect.fn("Oidc.verify")(function* (token) {
    const said = read(token)
    const alg = said?.header.alg
    if (said === undefined || alg === undefined) return yield* invalid("it cannot be read")
    // Before the provider is asked for anything.
    if (!algorithms.includes(alg)) return yield* invalid("it is signed in a way that is not taken")
    if (said.issuer !== config.issuer) return yield* invalid("it is of another issuer")
    const key = yield* keyFor({ ...said.header, alg })
    const nowMillis = yield* Clock.currentTimeMillis
    const { payload } = yield* Effect.tryPromise({
      try: () =>
        Jose.jwtVerify(token, key, {
          algorithms,
          issuer: config.issuer,
          audience: config.audience,
          clockTolerance,
          currentDate: new Date(nowMillis),
          requiredClaims: ["exp"]
        }),
      catch: (error) => {
        if (error instanceof Jose.errors.JWTExpired) {
          return refused("oidc-expired", "the identity provider's token has run out; get another one")
        }
        if (error instanceof Jose.errors.JWTClaimValidationFailed) {
          const { claim } = error
          return invalid(
            claim === "aud" ? "it is made out to another audience" : `its claim ${claim} is not as it should be`
          )
        }
        return invalid("its signature is not good")
      }
    })
    const name = claimOf(payload, config.nameClaim)
    if (!isName(name)) return yield* invalid(`its claim ${config.nameClaim} is no name`)
    const values = valuesOf(claimOf(payload, config.rolesClaim))
    return {
      name: `oidc:${name}`,
      mappings: config.roles.filter(({ value }) => values.has(value)),
      expiresAtMillis: (payload.exp ?? 0) * 1000
    }
  })

  return { verify } satisfies OidcService
})

/** By the provider of the configuration; without one, nobody. */
export const layer = (config: OidcConfig | undefined, options: Partial<OidcOptions> = {}) =>
  config === undefined ? Layer.empty : Layer.effect(Oidc, make(config, options))
