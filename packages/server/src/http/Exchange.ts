/**
 * One request and its answer: what is known of it beside what it is about, and
 * what every answer has.
 *
 * Promises: every answer says the request's id, is kept by no cache and taken
 * for nothing but what it says it is; a GET whose caller has the answer already
 * is 304; a problem names the request it is about. Leaves to others: the answer
 * itself.
 */
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import { Context } from "effect"
import { HttpServerResponse, type HttpServerRequest, ProblemDetails } from "effect/http"
import type { Claim } from "./Idempotency.ts"
import * as RequestId from "./RequestId.ts"
import * as TraceParent from "./TraceParent.ts"

/** One per request; who comes to know something about it writes it down here. */
export class Exchange {
  readonly id: string
  readonly startNanos: bigint
  /** The pattern of its path, as a metric's label; undefined: no route fits. */
  route: string | undefined = undefined
  /** Headers that its answer is to have, whatever the answer is. */
  headers: Readonly<Record<string, string>> | undefined = undefined

  /** The key under which it is done once only. */
  claim: Claim | undefined = undefined

  constructor(id: string, startNanos: bigint) {
    this.id = id
    this.startNanos = startNanos
  }
}

/** The exchange that is under way; outside of one, a thing that nobody reads. */
export const Current = Context.Reference<Exchange>("@prism-dns/server/http/Exchange", {
  defaultValue: () => new Exchange("", 0n)
})

/** What a log line about a request says of it. */
export const annotations = (
  id: string,
  headers: HttpServerRequest.HttpServerRequest["headers"]
): Readonly<Record<string, string>> => {
  const trace = TraceParent.parse(headers["traceparent"])
  return trace === undefined ? { request_id: id } : { request_id: id, trace_id: trace.traceId, span_id: trace.spanId }
}

/** What goes for every answer, also those that come from below the routes. */
export const headersOf = (id: string) => ({
  [RequestId.header]: id,
  "cache-control": "no-store",
  "x-content-type-options": "nosniff"
})

/** The same problem, with the request it is about. */
const withInstance = (
  response: HttpServerResponse.HttpServerResponse,
  id: string
): HttpServerResponse.HttpServerResponse => {
  const { body } = response
  if (body._tag !== "Uint8Array" || body.contentType !== ProblemDetails.contentType) return response
  const text = body.text ?? new TextDecoder().decode(body.body)
  return HttpServerResponse.setHeaders(
    HttpServerResponse.text(JSON.stringify({ ...JSON.parse(text), instance: RequestId.toUrn(id) }), {
      status: response.status,
      contentType: ProblemDetails.contentType
    }),
    withoutBodyHeaders(response.headers)
  )
}

const withoutBodyHeaders = ({
  "content-length": _length,
  "content-type": _type,
  ...rest
}: Readonly<Record<string, string>>): Readonly<Record<string, string>> => rest

const notModified = (response: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.empty({ status: 304, headers: withoutBodyHeaders(response.headers) })

/** The answer as it goes out. */
export const finish = (
  request: HttpServerRequest.HttpServerRequest,
  exchange: Exchange,
  response: HttpServerResponse.HttpServerResponse,
  more?: Readonly<Record<string, string>>
): HttpServerResponse.HttpServerResponse => {
  const { etag } = response.headers
  const ifNoneMatch = etag === undefined ? undefined : request.headers["if-none-match"]
  const isRead = request.method === "GET" || request.method === "HEAD"
  const answer =
    ifNoneMatch !== undefined && isRead && response.status === 200 && EntityTag.isKnown(ifNoneMatch, etag!)
      ? notModified(response)
      : response.status >= 400
        ? withInstance(response, exchange.id)
        : response
  const headers: Record<string, string> = { ...headersOf(exchange.id), ...exchange.headers, ...more }
  // What an answer says itself about being kept is meant.
  const own = response.headers["cache-control"]
  if (own !== undefined) headers["cache-control"] = own
  return HttpServerResponse.setHeaders(answer, headers)
}
