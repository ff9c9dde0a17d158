/**
 * What every request has in common: it is measured, and whatever goes wrong is
 * answered as problem+json, also where no handler was reached.
 *
 * Leaves to others: errors that an endpoint declares (`core/api/Problems`).
 */
import { RequestCheck } from "@prism-dns/core/api/RequestCheck"
import {
  type InvalidValue,
  type Problem,
  PowerDnsFailed,
  problems,
  RequestInvalid,
  type RequestPart,
  StorageUnavailable
} from "@prism-dns/core/api/Problems"
import * as Asked from "@prism-dns/core/cluster/Asked"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import { PowerDnsError } from "@prism-dns/core/powerdns/PowerDnsError"
import * as Loss from "@prism-dns/core/storage/Loss"
import { ByteSize, Cause, Clock, Context, Duration, Effect, Layer, Metric, type SchemaIssue } from "effect"
import {
  FindMyWay,
  HttpRouter,
  HttpServerError,
  HttpServerRequest,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import { HttpApiError, HttpApiMiddleware } from "effect/http-api"
import { SqlError } from "effect/sql"
import type { Duplex } from "node:stream"
import { Drain } from "../Drain.ts"
import * as Exchange from "./Exchange.ts"
import * as HttpMetrics from "./HttpMetrics.ts"
import { inTime } from "./InTime.ts"
import * as Idempotency from "./Idempotency.ts"
import { wrongs } from "./Issues.ts"
import * as RequestId from "./RequestId.ts"

/** Longest part of a path that may stand for a name: every character of 253 and a dot, escaped. */
export const routerConfig = { maxParamLength: 3 * 254 }

/** A problem that no endpoint declares. */
export const respond = (problem: Problem, detail: string): HttpServerResponse.HttpServerResponse =>
  ProblemDetails.toResponse({ ...problem, detail })

/** What Node's parser could make nothing of never reaches a route. */
const unparsed = (error: NodeJS.ErrnoException): { readonly problem: Problem; readonly detail: string } => {
  switch (error.code) {
    case "HPE_HEADER_OVERFLOW":
      return { problem: problems.headersTooLarge, detail: "The headers of the request are too large." }
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return { problem: problems.requestTimeout, detail: "The request did not arrive in time." }
    default:
      return { problem: problems.requestMalformed, detail: "What arrived is not an HTTP/1.1 request." }
  }
}

/** Whether an answer is being written on this connection, as Node's own handler asks. */
const isAnswering = (socket: Duplex): boolean =>
  "_httpMessage" in socket &&
  typeof socket._httpMessage === "object" &&
  socket._httpMessage !== null &&
  "headersSent" in socket._httpMessage &&
  socket._httpMessage.headersSent === true

/** Answers, as text on the wire, what Node's parser could make nothing of. For `clientError` of `node:http`. */
export const refuseUnparsed = (error: NodeJS.ErrnoException, socket: Duplex): void => {
  // A reset connection has no reader; a half-written answer cannot be mended.
  if (error.code === "ECONNRESET" || !socket.writable || isAnswering(socket)) {
    socket.destroy()
    return
  }
  const { detail, problem } = unparsed(error)
  const id = RequestId.make(Date.now())
  const body = JSON.stringify({ ...problem, detail, instance: RequestId.toUrn(id) })
  const head = [
    `HTTP/1.1 ${problem.status} ${problem.title}`,
    `content-type: ${ProblemDetails.contentType}`,
    ...Object.entries(Exchange.headersOf(id)).map(([name, value]) => `${name}: ${value}`),
    `content-length: ${Buffer.byteLength(body)}`,
    "connection: close"
  ]
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`)
}

/** The status Prism counts a request under whose client went away before the answer. */
export const clientGone = 499

/** The body of a request at the most, in bytes, unless its path is named below. */
export const bodyBytesMax = 65_536

/** Paths, as the contract calls them, whose bodies hold many things at once. */
const bodyBytesMaxByPath: ReadonlyMap<string, number> = new Map([
  ["/v1/hosts::batch", 8 * 1_048_576],
  ["/v1/zones/:zone/records::batch", 1_048_576],
  ["/v1/zones/:zone/import", 16 * 1_048_576]
])

export const largeBodyPaths: ReadonlyArray<string> = [...bodyBytesMaxByPath.keys()]

/** How large the body of a request to this path, as the contract calls it, may be. */
export const bodyBytesMaxOf = (path: string): number => bodyBytesMaxByPath.get(path) ?? bodyBytesMax

const bodyTooLarge = (bytesMax: number): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeader(
    respond(problems.bodyTooLarge, `The body of a request to this path has at most ${bytesMax} bytes.`),
    "connection",
    "close" // else the rest of it would have to be read
  )

/** What of a body's headers nothing here can read. */
const unreadable = ({ headers }: HttpServerRequest.HttpServerRequest): string | undefined => {
  const encoding = headers["content-encoding"]
  if (encoding !== undefined && encoding.toLowerCase() !== "identity") {
    return `The body is to be sent as it is, without 'content-encoding: ${encoding}'.`
  }
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(headers["content-type"] ?? "")?.[1]
  return charset === undefined || charset.toLowerCase() === "utf-8"
    ? undefined
    : `The body is to be UTF-8, not ${charset}.`
}

/** Answers that come from below the contract, in the words of ours. */
const inOurWords = (request: HttpServerRequest.HttpServerRequest, response: HttpServerResponse.HttpServerResponse) =>
  response.status === 415 && response.headers["content-type"] !== ProblemDetails.contentType
    ? respond(
        problems.mediaTypeUnsupported,
        `The body is to be JSON ('content-type: application/json'), not ${request.headers["content-type"] ?? "nothing"}.`
      )
    : response

/** A body that breaks off, or goes on for too long, is the caller's doing. */
const unread = (cause: Cause.Cause<unknown>, bytesMax: number): HttpServerResponse.HttpServerResponse | undefined => {
  const error = Cause.squash(cause)
  if (!HttpServerError.isHttpServerError(error) || error.reason._tag !== "RequestParseError") return undefined
  return error.reason.reason === "BodyTooLarge"
    ? bodyTooLarge(bytesMax)
    : respond(problems.requestMalformed, "The body of the request could not be read.")
}

/** A colon that stands for itself is doubled in a route, where a single one begins a parameter. */
const asCalled = (path: string): string => path.replaceAll("::", ":")

interface RouteFacts {
  /** As metrics and logs name it. */
  readonly called: string
  readonly bytesMax: number
  readonly maxBodySize: ByteSize.ByteSize
}

const factsOf = (path: string): RouteFacts => {
  const bytesMax = bodyBytesMaxOf(path)
  return { called: asCalled(path), bytesMax, maxBodySize: ByteSize.bytes(bytesMax) }
}

/** Around each route: it is known by its pattern, and takes bodies of bounded size, in a form that can be read. */
export const bounded = HttpRouter.middleware(
  Effect.map(Effect.all([Idempotency.Idempotency, Cluster]), ([{ toItsEnd }, cluster]) => {
    const routes = new Map<string, RouteFacts>()
    return (handler) =>
      Effect.withFiber((fiber) => {
        const { context } = fiber
        const request = Context.getUnsafe(context, HttpServerRequest.HttpServerRequest)
        const { path } = Context.getUnsafe(context, HttpRouter.RouteContext).route
        let facts = routes.get(path)
        if (facts === undefined) routes.set(path, (facts = factsOf(path)))
        const { bytesMax, called, maxBodySize } = facts
        fiber.getRef(Exchange.Current).route = called
        if (Number(request.headers["content-length"] ?? 0) > bytesMax) return Effect.succeed(bodyTooLarge(bytesMax))
        const detail = unreadable(request)
        if (detail !== undefined) return Effect.succeed(respond(problems.mediaTypeUnsupported, detail))
        // Nothing reads the body of what has none.
        if (request.method === "GET" || request.method === "HEAD") return handler
        const isKeyed = request.method === "POST" && request.headers[Idempotency.header] !== undefined
        return (isKeyed ? toItsEnd(handler) : handler).pipe(
          Effect.provideService(HttpServerRequest.MaxBodySize, maxBodySize),
          // What it changes it changes in this life of the server, or not at all.
          Effect.provideService(Asked.Asked, Asked.now(cluster)),
          Effect.catchCause((cause) => {
            const response = Cause.hasInterruptsOnly(cause) ? undefined : unread(cause, bytesMax)
            return response === undefined ? Effect.failCause(cause) : Effect.succeed(response)
          })
        )
      })
  })
)

export interface KnownPath {
  readonly path: `/${string}`
  readonly method: string
}

/** Where no route fits: 405 on a path that is known with other methods, else 404. */
const unmatched = (known: ReadonlyArray<KnownPath>) => {
  const methods = new Map<`/${string}`, ReadonlyArray<string>>()
  for (const { method, path } of known) methods.set(path, [...(methods.get(path) ?? []), method])
  const paths = FindMyWay.make<string>(routerConfig)
  for (const [path, allowed] of methods) {
    paths.on("GET", path, [...allowed, ...(allowed.includes("GET") ? ["HEAD"] : [])].join(", "))
  }
  return (request: HttpServerRequest.HttpServerRequest): HttpServerResponse.HttpServerResponse => {
    const allow = paths.find("GET", request.url)?.handler
    return allow === undefined
      ? respond(problems.pathNotFound, "There is nothing at this path; /openapi.json says what there is.")
      : HttpServerResponse.setHeader(
          respond(problems.methodNotAllowed, `${request.method} is not possible here, only ${allow}.`),
          "allow",
          allow
        )
  }
}

/** The time that answers of one kind take. */
export const measurement = (route: string, method: string, status: number) =>
  Metric.withAttributes(HttpMetrics.requestDurationSeconds, { route, method, status: String(status) })

/** The time each kind of answer took; a kind is looked up once, and there are only so many. */
const measurements = () => {
  const kinds = new Map<string, ReturnType<typeof measurement>>()
  return (route: string, method: string, status: number, seconds: number, context: Context.Context<never>): void => {
    const key = `${method} ${status} ${route}`
    const known = kinds.get(key)
    const metric = known ?? measurement(route, method, status)
    if (known === undefined) kinds.set(key, metric)
    metric.updateUnsafe(seconds, context)
  }
}

/** Around every request, whether a route fits or not: it has an id, is measured, and what fails is answered in words. */
export const observed = (known: ReadonlyArray<KnownPath>) =>
  HttpRouter.middleware(
    Effect.map(Drain, (drain) => {
      const nowhere = unmatched(known)
      const measure = measurements()

      const answerTo = (
        request: HttpServerRequest.HttpServerRequest,
        exchange: Exchange.Exchange,
        cause: Cause.Cause<unknown>
      ): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
        const error = Cause.squash(cause)
        if (HttpServerError.isHttpServerError(error) && error.reason._tag === "RouteNotFound") {
          return Effect.succeed(nowhere(error.request))
        }
        return Effect.as(
          Effect.logError("a request failed", cause).pipe(
            Effect.annotateLogs({
              method: request.method,
              route: exchange.route ?? "unmatched",
              ...Exchange.annotations(exchange.id, request.headers)
            })
          ),
          respond(problems.internalError, "This is a fault of the server. Its log says more.")
        )
      }

      return (handler) =>
        Effect.withFiber((fiber) => {
          const { context } = fiber
          const clock = fiber.getRef(Clock.Clock)
          const request = Context.getUnsafe(context, HttpServerRequest.HttpServerRequest)
          const exchange = new Exchange.Exchange(
            RequestId.given(request.headers[RequestId.header]) ?? RequestId.make(clock.currentTimeMillisUnsafe()),
            clock.monotonicTimeNanosUnsafe()
          )
          const counted = (status: number): void =>
            measure(
              exchange.route ?? "unmatched",
              request.method,
              status,
              Number(clock.monotonicTimeNanosUnsafe() - exchange.startNanos) / 1e9,
              context
            )
          const finished = (response: HttpServerResponse.HttpServerResponse) => {
            const answer = Exchange.finish(
              request,
              exchange,
              inOurWords(request, response),
              // Else a client that keeps its connection alive keeps coming here until the end.
              drain.isDraining() ? { connection: "close" } : undefined
            )
            counted(answer.status)
            return answer
          }
          return handler.pipe(
            Effect.provideService(Exchange.Current, exchange),
            Effect.matchCauseEffect({
              onSuccess: (response) => Effect.sync(() => finished(response)),
              onFailure: (cause) => {
                if (Cause.hasInterruptsOnly(cause)) {
                  counted(clientGone)
                  return Effect.failCause(cause)
                }
                return Effect.map(answerTo(request, exchange, cause), finished)
              }
            })
          )
        })
    }),
    { global: true }
  )

const parts: Readonly<Record<HttpApiError.HttpApiSchemaError["kind"], RequestPart | undefined>> = {
  Params: "path",
  Query: "query",
  Headers: "header",
  Payload: "body",
  Body: undefined,
  ResponseHeaders: undefined
}

const pointer = (path: ReadonlyArray<PropertyKey>): string =>
  path
    .map(String)
    .map((key) => `/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("")

/** What is wrong with values that do not fit the contract. */
export const invalidRequest = (part: RequestPart, issue: SchemaIssue.Issue): RequestInvalid => {
  const errors = wrongs(issue).map((each): InvalidValue => ({
    in: part,
    pointer: pointer(each.path),
    detail: each.message
  }))
  const detail = errors
    .map((each) => `${[each.in, each.pointer.slice(1)].filter((word) => word !== "").join(" ")}: ${each.detail}`)
    .join("; ")
  return new RequestInvalid({ detail, errors })
}

/** Refuses requests that do not fit the contract. An answer of ours that does not is a defect. */
export const requestCheck: Layer.Layer<RequestCheck> = HttpApiMiddleware.layerSchemaErrorTransform(
  RequestCheck,
  (error) => {
    const part = parts[error.kind]
    if (part === undefined) return Effect.die(error)
    return Effect.fail(invalidRequest(part, error.cause.issue))
  }
)

/** How long the database may take over a request. */
const storageTimeout: Duration.Input = "10 seconds"

/**
 * How long a request may take that reads a whole zone from PowerDNS, or writes as many changes as a zone has names. What
 * such a request has done by then stays done.
 */
const zoneTimeout: Duration.Input = "10 minutes"

const uncertain =
  "The connection to the registry's database was lost during the commit: it may have been done. Look, and try again where it was not."

const within =
  (duration: Duration.Input) =>
  <A, E, R>(effect: Effect.Effect<A, E | SqlError.SqlError, R>) => {
    const unavailable = (reason: string, detail = "The registry's database does not answer; try again.") =>
      Effect.andThen(
        Effect.logWarning("the registry could not be read").pipe(Effect.annotateLogs({ reason })),
        Effect.fail(new StorageUnavailable({ detail }))
      )
    return effect.pipe(
      inTime(duration, () => unavailable(`no answer within ${Duration.format(Duration.fromInputUnsafe(duration))}`)),
      Effect.catchIf(SqlError.isSqlError, (error) =>
        Loss.isUncertain(error)
          ? unavailable(error.message, uncertain)
          : error.isRetryable || Loss.isLost(error)
            ? unavailable(error.message)
            : Effect.die(error)
      )
    )
  }

/** A database that may answer later is the caller's to try again; any other failure of it is ours. */
export const orUnavailable = within(storageTimeout)

/** The same, for what takes longer the larger the zone is; and a failure of PowerDNS is said in its words. */
export const orUnavailableForZone = <A, E, R>(effect: Effect.Effect<A, E | SqlError.SqlError | PowerDnsError, R>) =>
  within(zoneTimeout)(effect).pipe(
    Effect.catchIf(
      (error): error is Extract<typeof error, PowerDnsError> => error instanceof PowerDnsError,
      (error) => Effect.fail(new PowerDnsFailed({ detail: error.message }))
    )
  )
