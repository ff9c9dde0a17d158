/**
 * What every request goes through whose caller is to be known: how often it may
 * ask, what its log lines say of it, and the key under which it is done once
 * only. Called by whoever proves callers (`Authentication`).
 *
 * Without a layer, as in tests of single handlers, nothing is limited.
 */
import { AnswersSecret, type Caller, type Requirement } from "@prism-dns/core/api/Authentication"
import { problems, RateLimited } from "@prism-dns/core/api/Problems"
import { Context, Effect, Layer, References } from "effect"
import { HttpServerRequest, type HttpServerResponse, ProblemDetails } from "effect/http"
import type { HttpApiEndpoint } from "effect/http-api"
import type { SqlError } from "effect/sql"
import { respond } from "./Answers.ts"
import * as Exchange from "./Exchange.ts"
import * as Idempotency from "./Idempotency.ts"
import { peerOf, type Policy, RateLimits } from "./RateLimits.ts"

/** Who asks, and what it may do. */
export type Holder = Pick<Caller["Service"], "name" | "authority" | "grant">

export interface Gate {
  /** Counts a request of a caller that has proven who it is; fails where it asks too often. */
  readonly admit: (caller: string, required: Requirement | undefined) => Effect.Effect<void, RateLimited>
  /** Counts a request that proves nothing; fails where its address tries too often. */
  readonly stumbled: (peer: string | undefined) => Effect.Effect<void, RateLimited>
  /** Runs a handler for its caller. */
  readonly pass: <E, R>(
    caller: Holder,
    endpoint: HttpApiEndpoint.Top,
    handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest>
}

/** Log lines of what runs within say which request it is for. */
const annotated = <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const { headers } = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    return Effect.provideService(handler, References.CurrentLogAnnotations, {
      ...fiber.getRef(References.CurrentLogAnnotations),
      ...Exchange.annotations(fiber.getRef(Exchange.Current).id, headers)
    })
  })

export const Gate = Context.Reference<Gate>("@prism-dns/server/http/Gate", {
  defaultValue: () => ({
    admit: () => Effect.void,
    stumbled: () => Effect.void,
    pass: (_caller, _endpoint, handler) => annotated(handler)
  })
})

/** False where an answer that goes on, such as a stream of events, asks again whether its caller may: it was counted when it began. */
export const IsCounted = Context.Reference<boolean>("@prism-dns/server/http/Gate/IsCounted", {
  defaultValue: () => true
})

const detailOf: Readonly<Record<Policy, string>> = {
  reads: "Too many requests",
  changes: "Too many changes",
  failures: "Too many requests without a token that is good here"
}

const isDryRun = (url: string): boolean => /[?&]dryRun=true(?:&|$)/.test(url)

const keyInvalid = ProblemDetails.toResponse({
  ...problems.requestInvalid,
  detail: `header ${Idempotency.header}: ${Idempotency.keyRule}`,
  errors: [{ in: "header", pointer: `/${Idempotency.header}`, detail: Idempotency.keyRule }]
})

const unavailable = (error: SqlError.SqlError) =>
  Effect.as(
    Effect.logWarning("an Idempotency-Key could not be looked up").pipe(Effect.annotateLogs({ reason: error.message })),
    {
      _tag: "Refuse" as const,
      problem: problems.storageUnavailable,
      detail: "The registry's database does not answer; try again."
    }
  )

export const layer = Layer.effect(
  Gate,
  Effect.gen(function* () {
    const limits = yield* RateLimits
    const idempotency = yield* Idempotency.Idempotency

    const take = (policy: Policy, whose: string) =>
      Effect.flatMap(Exchange.Current, (exchange) => {
        const { headers, waitSeconds } = limits.take(policy, whose)
        exchange.headers = headers
        if (waitSeconds === 0) return Effect.void
        const retryAfterSeconds = Math.ceil(waitSeconds)
        return Effect.fail(
          new RateLimited({ detail: `${detailOf[policy]}; try again in ${retryAfterSeconds} s.`, retryAfterSeconds })
        )
      })

    /** A request with a key is done once; a dry run does nothing, however often. */
    const once = <E, R>(
      { authority, grant, name }: Holder,
      endpoint: HttpApiEndpoint.Top,
      handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
    ) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        const value = request.headers[Idempotency.header]
        if (value === undefined || request.method !== "POST" || isDryRun(request.url)) return handler
        const key = Idempotency.keyOf(value)
        if (key === undefined) return Effect.succeed(keyInvalid)
        return Effect.gen(function* () {
          const body = yield* Effect.orDie(request.text)
          const claim = {
            caller: name,
            key,
            rights: Idempotency.rightsOf(authority, grant),
            secret: Context.get(endpoint.annotations, AnswersSecret)
          }
          const claimed = yield* idempotency
            .claim(claim, Idempotency.fingerprintOf(request.method, request.url, body))
            .pipe(Effect.catch(unavailable))
          switch (claimed._tag) {
            case "Do":
              ;(yield* Exchange.Current).claim = claim
              return yield* handler
            case "Replay":
              return claimed.response
            case "Refuse":
              return respond(claimed.problem, claimed.detail)
          }
        })
      })

    return {
      admit: (caller, required) =>
        Effect.flatMap(IsCounted, (isCounted) =>
          isCounted
            ? take(
                required === undefined || required === "anyone" || required.verb === "read" ? "reads" : "changes",
                caller
              )
            : Effect.void
        ),
      stumbled: (peer) => take("failures", peerOf(peer)),
      pass: (caller, endpoint, handler) => annotated(once(caller, endpoint, handler))
    }
  })
)
