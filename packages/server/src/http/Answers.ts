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
import { PowerDnsError } from "@prism-dns/core/powerdns/PowerDnsError"
import { ByteSize, Cause, Clock, Duration, Effect, Exit, Layer, Metric, SchemaIssue } from "effect"
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
import * as HttpMetrics from "./HttpMetrics.ts"

/** Longest part of a path that may stand for a name: every character of 253 and a dot, escaped. */
export const routerConfig = { maxParamLength: 3 * 254 }

const respond = (problem: Problem, detail: string): HttpServerResponse.HttpServerResponse =>
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

/** Answers, as text on the wire, what Node's parser could make nothing of. For `clientError` of `node:http`. */
export const refuseUnparsed = (error: NodeJS.ErrnoException, socket: Duplex): void => {
  // A reset connection has no reader; a half-written answer cannot be mended.
  if (error.code === "ECONNRESET" || !socket.writable || ("bytesWritten" in socket && socket.bytesWritten !== 0)) {
    socket.destroy()
    return
  }
  const { detail, problem } = unparsed(error)
  const body = JSON.stringify({ ...problem, detail })
  const head = [
    `HTTP/1.1 ${problem.status} ${problem.title}`,
    `content-type: ${ProblemDetails.contentType}`,
    `content-length: ${Buffer.byteLength(body)}`,
    "connection: close"
  ]
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`)
}

/** The status Prism counts a request under whose client went away before the answer. */
const clientGone = 499

const measure = (request: HttpServerRequest.HttpServerRequest, route: string, status: number, startNanos: bigint) =>
  Effect.flatMap(Clock.currentTimeNanos, (nowNanos) =>
    Metric.update(
      Metric.withAttributes(HttpMetrics.requestDurationSeconds, {
        route,
        method: request.method,
        status: String(status)
      }),
      Number(nowNanos - startNanos) / 1e9
    )
  )

/** The body of a request at the most, in bytes. The largest that the contract knows has a reason and a pattern. */
export const bodyBytesMax = 65_536

const bodyTooLarge = (): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeader(
    respond(problems.bodyTooLarge, `The body of a request has at most ${bodyBytesMax} bytes.`),
    "connection",
    "close" // else the rest of it would have to be read
  )

const isTooLong = (request: HttpServerRequest.HttpServerRequest): boolean =>
  Number(request.headers["content-length"] ?? 0) > bodyBytesMax

/** Answers that come from below the contract, in the words of ours. */
const inOurWords = (request: HttpServerRequest.HttpServerRequest, response: HttpServerResponse.HttpServerResponse) =>
  response.status === 415
    ? respond(
        problems.mediaTypeUnsupported,
        `The body is to be JSON ('content-type: application/json'), not ${request.headers["content-type"] ?? "nothing"}.`
      )
    : response

/** A body that breaks off, or goes on for too long, is the caller's doing. */
const unread = (cause: Cause.Cause<unknown>): HttpServerResponse.HttpServerResponse | undefined => {
  const error = Cause.squash(cause)
  if (!HttpServerError.isHttpServerError(error) || error.reason._tag !== "RequestParseError") return undefined
  return error.reason.reason === "BodyTooLarge"
    ? bodyTooLarge()
    : respond(problems.requestMalformed, "The body of the request could not be read.")
}

const internalError = Effect.fnUntraced(function* (
  request: HttpServerRequest.HttpServerRequest,
  route: string,
  cause: Cause.Cause<unknown>
) {
  yield* Effect.logError("a request failed", cause).pipe(Effect.annotateLogs({ method: request.method, route }))
  return respond(problems.internalError, "This is a fault of the server. Its log says more.")
})

/** A colon that stands for itself is doubled in a route, where a single one begins a parameter. */
const asCalled = (path: string): string => path.replaceAll("::", ":")

/** Around each route: measures it, and turns what it did not expect into an answer that says nothing about our insides. */
export const observed = HttpRouter.middleware(
  Effect.map(
    Drain,
    (drain) => (handler) =>
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const route = asCalled((yield* HttpRouter.RouteContext).route.path)
        const startNanos = yield* Clock.currentTimeNanos
        return yield* (isTooLong(request) ? Effect.succeed(bodyTooLarge()) : handler).pipe(
          Effect.provideService(HttpServerRequest.MaxBodySize, ByteSize.bytes(bodyBytesMax)),
          Effect.catchCause((cause) => {
            if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
            const response = unread(cause)
            return response === undefined ? internalError(request, route, cause) : Effect.succeed(response)
          }),
          Effect.map((response) => inOurWords(request, response)),
          // Else a client that keeps its connection alive keeps coming here until the end.
          Effect.map((response) =>
            drain.isDraining() ? HttpServerResponse.setHeader(response, "connection", "close") : response
          ),
          Effect.onExit((exit) =>
            measure(request, route, Exit.isSuccess(exit) ? exit.value.status : clientGone, startNanos)
          )
        )
      })
  )
)

export interface KnownPath {
  readonly path: `/${string}`
  readonly method: string
}

/** Where no route fits: 405 on a path that is known with other methods, else 404. */
export const unmatched = (known: ReadonlyArray<KnownPath>) => {
  const methods = new Map<`/${string}`, ReadonlyArray<string>>()
  for (const { method, path } of known) methods.set(path, [...(methods.get(path) ?? []), method])
  const paths = FindMyWay.make<string>(routerConfig)
  for (const [path, allowed] of methods) {
    paths.on("GET", path, [...allowed, ...(allowed.includes("GET") ? ["HEAD"] : [])].join(", "))
  }

  const answer = (request: HttpServerRequest.HttpServerRequest): HttpServerResponse.HttpServerResponse => {
    const allow = paths.find("GET", request.url)?.handler
    return allow === undefined
      ? respond(problems.pathNotFound, "There is nothing at this path; /openapi.json says what there is.")
      : HttpServerResponse.setHeader(
          respond(problems.methodNotAllowed, `${request.method} is not possible here, only ${allow}.`),
          "allow",
          allow
        )
  }

  return HttpRouter.middleware(
    (handler) =>
      Effect.gen(function* () {
        const startNanos = yield* Clock.currentTimeNanos
        return yield* Effect.catchCause(handler, (cause) => {
          const error = Cause.squash(cause)
          if (!HttpServerError.isHttpServerError(error) || error.reason._tag !== "RouteNotFound") {
            return Effect.failCause(cause)
          }
          const response = answer(error.request)
          return Effect.as(measure(error.request, "unmatched", response.status, startNanos), response)
        })
      }),
    { global: true }
  )
}

const parts: Readonly<Record<HttpApiError.HttpApiSchemaError["kind"], RequestPart | undefined>> = {
  Params: "path",
  Query: "query",
  Headers: "header",
  Payload: "body",
  Body: undefined,
  ResponseHeaders: undefined
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

const pointer = (path: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }>): string =>
  path
    .map((segment) => String(typeof segment === "object" ? segment.key : segment))
    .map((key) => `/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("")

/** Refuses requests that do not fit the contract. An answer of ours that does not is a defect. */
export const requestCheck: Layer.Layer<RequestCheck> = HttpApiMiddleware.layerSchemaErrorTransform(
  RequestCheck,
  (error) => {
    const part = parts[error.kind]
    if (part === undefined) return Effect.die(error)
    const errors = issuesOf(error.cause.issue).issues.map((issue): InvalidValue => ({
      in: part,
      pointer: pointer(issue.path ?? []),
      detail: issue.message
    }))
    const detail = errors.map((each) => `${each.in} ${each.pointer.slice(1)}: ${each.detail}`).join("; ")
    return Effect.fail(new RequestInvalid({ detail, errors }))
  }
)

/** How long the database may take over a request. */
const storageTimeout: Duration.Input = "10 seconds"

/**
 * How long a request may take that reads a whole zone from PowerDNS, or writes as many changes as a zone has names. What
 * such a request has done by then stays done.
 */
const zoneTimeout: Duration.Input = "10 minutes"

const within =
  (duration: Duration.Input) =>
  <A, E, R>(effect: Effect.Effect<A, E | SqlError.SqlError, R>) => {
    const unavailable = (reason: string) =>
      Effect.andThen(
        Effect.logWarning("the registry could not be read").pipe(Effect.annotateLogs({ reason })),
        Effect.fail(new StorageUnavailable({ detail: "The registry's database does not answer; try again." }))
      )
    return effect.pipe(
      Effect.timeoutOrElse({
        duration,
        orElse: () => unavailable(`no answer within ${Duration.format(Duration.fromInputUnsafe(duration))}`)
      }),
      Effect.catchIf(SqlError.isSqlError, (error) =>
        error.isRetryable ? unavailable(error.message) : Effect.die(error)
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
