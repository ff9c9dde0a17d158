/** The typed client of the API. Needs an `HttpClient`, for example `FetchHttpClient.layer`. */
import { Effect, Redacted } from "effect"
import { HttpClientRequest } from "effect/http"
import { HttpApiClient, HttpApiMiddleware } from "effect/http-api"
import { Api } from "./Api.ts"
import { Authorization } from "./Authentication.ts"

export type Client = HttpApiClient.ForApi<typeof Api>

/** The path of a request as the server knows it: `/identities::reset` of the contract is `/identities:reset`. */
const asCalled = HttpClientRequest.updateUrl((url) => url.replace(/(?<=\/[a-z]+)::(?=[a-z]+(?:[?#]|$))/, ":"))

/** Sends `token` with each request. */
export const withToken = (token: Redacted.Redacted) =>
  HttpApiMiddleware.layerClient(Authorization, ({ next, request }) =>
    next(HttpClientRequest.bearerToken(asCalled(request), token))
  )

/** A client of the server at `baseUrl`, such as `http://127.0.0.1:8081`. */
export const make = (options: { readonly baseUrl: string | URL; readonly token: Redacted.Redacted }) =>
  HttpApiClient.make(Api, { baseUrl: options.baseUrl }).pipe(Effect.provide(withToken(options.token)))
