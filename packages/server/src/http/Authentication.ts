/** Lets callers in who hold an administrator's token, and says who they are. */
import { AdminToken, Caller } from "@prism-dns/core/api/Authentication"
import { TokenInvalid } from "@prism-dns/core/api/Problems"
import { authFailures } from "@prism-dns/core/auth/AuthMetrics"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, Layer, Metric, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"

const refuse = (token: string) =>
  Metric.update(
    Metric.withAttributes(authFailures, { reason: token === "" ? "token-missing" : "token-invalid" }),
    1
  ).pipe(
    Effect.andThen(
      Effect.fail(
        new TokenInvalid({
          detail:
            token === ""
              ? "Send an administrator's token: 'Authorization: Bearer TOKEN'."
              : "The token is not one of an administrator."
        })
      )
    )
  )

export const layer: Layer.Layer<AdminToken, never, Tokens> = Layer.effect(
  AdminToken,
  Effect.map(Tokens, (tokens) =>
    AdminToken.of({
      bearer: Effect.fnUntraced(function* (handler, { credential }) {
        const token = Redacted.value(credential)
        const holder = tokens.verify(token, "admin")
        if (holder === undefined) return yield* refuse(token)
        const { remoteAddress } = yield* HttpServerRequest.HttpServerRequest
        const caller = { name: holder.name, peer: Option.getOrUndefined(remoteAddress) }
        return yield* Effect.provideService(handler, Caller, caller)
      })
    })
  )
)
