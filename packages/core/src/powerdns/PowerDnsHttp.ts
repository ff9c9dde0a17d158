/**
 * Requests to the API of one node, with everything that keeps a weak server
 * standing: few connections, a time limit, few and short repeats, and a
 * circuit that opens while the node does not answer.
 *
 * Promises: `send` ends, and so does each piece of a `stream`; both fail only with `PowerDnsError`; a write is not begun,
 * nor goes on, beyond its `WriteGuard`; the API key is in
 * the request and nowhere else. Leaves to others: paths, bodies and what an
 * answer means (`PowerDnsClient`), and trying again for longer (`DnsManager`).
 */
import {
  Cause,
  Clock,
  Duration,
  Effect,
  Exit,
  Metric,
  Option,
  Redacted,
  Schedule,
  Scope,
  Semaphore,
  Stream
} from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { CircuitBreaker } from "effect/persistence"
import * as Errors from "./PowerDnsError.ts"
import { PowerDnsError } from "./PowerDnsError.ts"
import * as Metrics from "./PowerDnsMetrics.ts"
import { awaitEnd, WriteGuard } from "./WriteGuard.ts"

export interface Options {
  /** Name of the node in logs, metrics and errors. */
  readonly node: string
  /** Base address, without `/api/v1`: `http://127.0.0.1:8053`. */
  readonly url: string
  readonly apiKey: Redacted.Redacted
  /** Limit of one request, from the connection to the last byte of the answer. Default 10 s. */
  readonly requestTimeout?: Duration.Input
  /** Simultaneous connections, 1 to 8. Default 4. PowerDNS queues 10, and drops what comes beyond. */
  readonly connectionsMax?: number
  /**
   * Requests that change zones under way at once. Default 1: the SQLite backend of 4.7 answers most of two writes at once
   * with 500 (database is locked), also of different zones, and LMDB takes one at a time anyway. PostgreSQL can do more.
   */
  readonly writesMax?: number
  /** Repeats of a request that failed in passing. */
  readonly retry?: {
    /** Attempts in all. Default 3. */
    readonly attemptsMax?: number
    /** Before the second attempt; doubles, with jitter. Default 50 ms. */
    readonly delay?: Duration.Input
    /** No attempt begins later than this after the first began. Default 1 s. */
    readonly within?: Duration.Input
  }
  readonly breaker?: {
    /** Calls that fail in a row until the circuit opens. Default 5. */
    readonly failuresMax?: number
    /** How long the circuit is open at first; doubles each time it opens again. Default 500 ms. */
    readonly openFor?: Duration.Input
    /** Default 2 s. */
    readonly openForMax?: Duration.Input
  }
}

/** Most connections to one node: its listen backlog is 10. */
export const connectionsLimit = 8

/**
 * What repeating a request may do.
 * - `read`: nothing; asking PowerDNS to forget or to notify counts as that.
 * - `write`: the same again, harmless once the first has ended. Not repeated here when the first may still run: on
 *   PostgreSQL two writes of a zone at once corrupt it.
 * - `once`: something else ("exists already"), so it is repeated only when it was not taken.
 */
export type Repeat = "read" | "write" | "once"

const mayRepeat: Record<Repeat, ReadonlySet<Errors.Reason["_tag"]>> = {
  read: new Set(["Unreachable", "Uncertain", "BackendFailed"]),
  write: new Set(["Unreachable", "BackendFailed"]),
  once: new Set(["Unreachable"])
}

export interface Request<A> {
  /** The method of `PowerDnsClient` that asks. */
  readonly operation: string
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  /** Below `/api/v1/servers/localhost`. */
  readonly path: string
  /** JSON text. */
  readonly body?: string
  readonly repeat: Repeat
  /** Reads a 2xx answer. */
  readonly read: (response: HttpClientResponse.HttpClientResponse) => Effect.Effect<A, unknown>
}

/** An answer that came, but is not what PowerDNS sends. */
export class Unreadable {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

export const make = Effect.fnUntraced(function* (options: Options) {
  const { node } = options
  const connectionsMax = Math.max(1, Math.min(options.connectionsMax ?? 4, connectionsLimit))
  const requestTimeout = Duration.fromInputUnsafe(options.requestTimeout ?? "10 seconds")
  const base = `${options.url.replace(/\/+$/, "")}/api/v1/servers/localhost`
  const http = HttpClient.withScope(yield* HttpClient.HttpClient)
  const connections = yield* Semaphore.make(connectionsMax)
  const writes = yield* Semaphore.make(Math.max(1, options.writesMax ?? 1))
  const breaker = yield* CircuitBreaker.make({
    tripPolicy: CircuitBreaker.consecutive(options.breaker?.failuresMax ?? 5),
    openDuration: Schedule.min([
      Schedule.exponential(options.breaker?.openFor ?? "500 millis"),
      Schedule.spaced(options.breaker?.openForMax ?? "2 seconds")
    ])
  })
  const backoff = Schedule.exponential(options.retry?.delay ?? "50 millis").pipe(
    Schedule.jittered,
    Schedule.upTo({
      times: (options.retry?.attemptsMax ?? 3) - 1,
      duration: options.retry?.within ?? "1 second"
    })
  )
  const up = Metric.withAttributes(Metrics.up, { node })
  /** Why the last attempt failed: while the circuit is open nothing is attempted, and this is still the reason. */
  let lastFailure = "it does not answer"
  const measure = (operation: string, status: string, startNanos: bigint) =>
    Effect.flatMap(Clock.currentTimeNanos, (now) =>
      Metric.update(
        Metric.withAttributes(Metrics.requestDurationSeconds, { node, operation, status }),
        Number(now - startNanos) / 1e9
      )
    )

  const noAnswer = new Errors.Uncertain({ detail: `no answer within ${Duration.format(requestTimeout)}` })
  const inTime = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Errors.Uncertain, R> =>
    Effect.timeoutOrElse(effect, { duration: requestTimeout, orElse: () => Effect.fail(noAnswer) })

  /** A write is begun only while it may be, and goes on no longer than that: its connection is closed then. */
  const guarded = <A, R>(request: Pick<Request<A>, "repeat">, effect: Effect.Effect<A, Errors.Reason, R>) =>
    request.repeat === "read"
      ? effect
      : Effect.flatMap(WriteGuard, (guard): Effect.Effect<A, Errors.Reason, R> => {
          if (guard === undefined) return effect
          if (!guard.isValid()) return Effect.fail(new Errors.Withheld({ detail: "another server writes there now" }))
          const cutOff = Effect.andThen(
            awaitEnd(guard),
            Effect.fail(new Errors.Uncertain({ detail: "another server may write there before this was answered" }))
          )
          return Effect.raceFirst(effect, cutOff)
        })

  /** One request over one connection, which is free again when the scope closes; `read` gets an answer that says yes. */
  const exchange = <A, R>(
    request: Omit<Request<A>, "read">,
    read: (response: HttpClientResponse.HttpClientResponse) => Effect.Effect<A, Errors.Reason, R>
  ): Effect.Effect<A, Errors.Reason, R | Scope.Scope> =>
    Effect.gen(function* () {
      const start = yield* Clock.currentTimeNanos
      let status: number | undefined
      return yield* Effect.gen(function* () {
        const response = yield* http
          .execute(
            HttpClientRequest.make(request.method)(`${base}${request.path}`).pipe(
              HttpClientRequest.setHeader("x-api-key", Redacted.value(options.apiKey)),
              request.body === undefined ? (same) => same : HttpClientRequest.bodyText(request.body, "application/json")
            )
          )
          .pipe(Effect.mapError(Errors.fromTransport))
        status = response.status
        if (response.status >= 200 && response.status < 300) return yield* read(response)
        const body = yield* Effect.mapError(response.text, Errors.fromTransport)
        return yield* Effect.fail(Errors.fromAnswer(response.status, response.headers["content-type"] ?? "", body))
      }).pipe(
        inTime,
        Effect.tapError((reason) =>
          measure(request.operation, status === undefined ? reason._tag.toLowerCase() : `${status}`, start)
        ),
        Effect.tap(() => measure(request.operation, `${status}`, start))
      )
    })

  const noFreeConnection = new Errors.Unreachable({
    detail: `no free connection within ${Duration.format(requestTimeout)} (connectionsMax is ${connectionsMax})`
  })

  /** Waits for a connection no longer than a request may take; a request that has begun has its own limit. */
  const queued = <A>(request: Request<A>): Effect.Effect<A, Errors.Reason> =>
    Effect.suspend(() => {
      let hasBegun = false
      const run = Effect.suspend(() => {
        hasBegun = true
        const exchanged = exchange(request, (response) =>
          Effect.mapError(request.read(response), (cause) =>
            cause instanceof Unreadable
              ? new Errors.Malformed({ status: response.status, detail: cause.detail })
              : Errors.fromTransport(cause)
          )
        ).pipe(Effect.scoped)
        return guarded(request, exchanged)
      })
      const turn =
        request.repeat === "read" ? connections.withPermit(run) : writes.withPermit(connections.withPermit(run))
      return turn.pipe(
        Effect.raceFirst(
          Effect.sleep(requestTimeout).pipe(
            Effect.flatMap(() => (hasBegun ? Effect.never : Effect.fail<Errors.Reason>(noFreeConnection)))
          )
        )
      )
    })

  /** Attempts at one request, as one call: repeated where that is harmless, counted by the circuit breaker. */
  const called = <A, R>(
    request: Pick<Request<A>, "operation" | "repeat">,
    attempt: Effect.Effect<A, Errors.Reason, R>
  ): Effect.Effect<A, PowerDnsError, R> =>
    attempt.pipe(
      Effect.tapError(({ detail }) => Effect.sync(() => void (lastFailure = detail))),
      Effect.retry({ schedule: backoff, while: (reason) => mayRepeat[request.repeat].has(reason._tag) }),
      breaker.execute({
        key: node,
        // An answer that says no is a sign of life.
        classify: Exit.match({
          onSuccess: () => CircuitBreaker.success,
          onFailure: (cause) => {
            const reason = Cause.findErrorOption(cause)
            if (Option.isSome(reason) && reason.value._tag === "Withheld") return CircuitBreaker.ignored
            return Option.isSome(reason) && !reason.value.retryable ? CircuitBreaker.success : CircuitBreaker.failure()
          }
        })
      }),
      Effect.catchTag("CircuitBreakerError", () =>
        Effect.sync(() => new Errors.Unreachable({ detail: `left alone for a moment, after: ${lastFailure}` })).pipe(
          Effect.flip
        )
      ),
      Effect.tap(() => Metric.update(up, 1)),
      Effect.tapError((reason) =>
        reason._tag === "Withheld"
          ? Effect.void
          : Metric.update(up, reason.retryable || reason._tag === "Unauthorized" ? 0 : 1)
      ),
      Effect.mapError((reason) => new PowerDnsError({ node, operation: request.operation, reason })),
      // The client's own span has headers and the full address, and its traceparent means nothing to PowerDNS.
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
      // fetch would follow a redirect with our key.
      Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" })
    )

  const send = <A>(request: Request<A>): Effect.Effect<A, PowerDnsError> => called(request, queued(request))

  /**
   * The body of an answer to a GET, piece by piece; the connection is held until the stream ends. The time limit is that
   * of the answer's beginning, and of each piece: how long its reader takes in between is not ours to limit, though
   * PowerDNS closes a connection from which nothing was read for 5 s. Repeated only while the answer has not begun.
   */
  const stream = (request: Pick<Request<never>, "operation" | "path">): Stream.Stream<Uint8Array, PowerDnsError> => {
    const whole = { ...request, method: "GET", repeat: "read" } as const
    const failed = (reason: Errors.Reason) => new PowerDnsError({ node, operation: request.operation, reason })
    return Stream.unwrap(
      Effect.gen(function* () {
        yield* connections
          .takeScoped(1)
          .pipe(Effect.timeoutOrElse({ duration: requestTimeout, orElse: () => Effect.fail(failed(noFreeConnection)) }))
        const outer = yield* Effect.scope
        // A scope for each attempt: one that failed gives its connection up before the next begins.
        const attempt = Effect.flatMap(Scope.fork(outer), (scope) =>
          exchange<HttpClientResponse.HttpClientResponse, never>(whole, Effect.succeed).pipe(
            Scope.provide(scope),
            Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
          )
        )
        const response = yield* called(whole, attempt)
        const pieces = Stream.mapError(response.stream, Errors.fromTransport)
        return Stream.mapError(
          Stream.transformPull(pieces, (pull) => Effect.succeed(inTime(pull))),
          failed
        )
      })
    )
  }

  return { send, stream, connectionsMax } as const
})
