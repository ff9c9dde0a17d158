/**
 * What every request goes through whose caller is to be known: how often it may
 * ask, what its log lines say of it, and the key under which it is done once
 * only. Called by whoever proves callers (`Authentication`).
 *
 * Without a layer, as in tests of single handlers, nothing is limited.
 */
import type { Requirement } from "@prism-dns/core/api/Authentication"
import { RateLimited } from "@prism-dns/core/api/Problems"
import { Context, Effect, Layer, References } from "effect"
import { HttpServerRequest, type HttpServerResponse } from "effect/http"
import * as Exchange from "./Exchange.ts"
import { peerOf, type Policy, RateLimits } from "./RateLimits.ts"

export interface Gate {
  /** Counts a request of a caller that has proven who it is; fails where it asks too often. */
  readonly admit: (caller: string, required: Requirement | undefined) => Effect.Effect<void, RateLimited>
  /** Counts a request that proves nothing; fails where its address tries too often. */
  readonly stumbled: (peer: string | undefined) => Effect.Effect<void, RateLimited>
  /** Runs a handler for its caller. */
  readonly pass: <E, R>(
    caller: string,
    handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest>
}

/** Log lines of what runs within say which request it is for. */
const annotated = <A, E, R>(handler: Effect.Effect<A, E, R>) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    Effect.flatMap(Exchange.Current, ({ id }) =>
      Effect.updateService(handler, References.CurrentLogAnnotations, (before) => ({
        ...before,
        ...Exchange.annotations(id, headers)
      }))
    )
  )

export const Gate = Context.Reference<Gate>("@prism-dns/server/http/Gate", {
  defaultValue: () => ({
    admit: () => Effect.void,
    stumbled: () => Effect.void,
    pass: (_caller, handler) => annotated(handler)
  })
})

const detailOf: Readonly<Record<Policy, string>> = {
  reads: "Too many requests",
  changes: "Too many changes",
  failures: "Too many requests without a token that is good here"
}

export const layer = Layer.effect(
  Gate,
  Effect.gen(function* () {
    const limits = yield* RateLimits

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

    return {
      admit: (caller, required) =>
        take(required === undefined || required === "anyone" || required.verb === "read" ? "reads" : "changes", caller),
      stumbled: (peer) => take("failures", peerOf(peer)),
      pass: (_caller, handler) => annotated(handler)
    }
  })
)
