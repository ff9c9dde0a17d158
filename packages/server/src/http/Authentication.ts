/** Lets callers in who hold an administrator's token. */
import { AdminToken } from "@prism-dns/core/api/Authentication"
import { TokenInvalid } from "@prism-dns/core/api/Problems"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, Layer, Metric, Redacted } from "effect"
import { authFailures } from "../AuthMetrics.ts"

export const layer: Layer.Layer<AdminToken, never, Tokens> = Layer.effect(
  AdminToken,
  Effect.map(Tokens, (tokens) =>
    AdminToken.of({
      bearer: (handler, { credential }) => {
        const token = Redacted.value(credential)
        if (tokens.verify(token, "admin") !== undefined) return handler
        const reason = token === "" ? "token-missing" : "token-invalid"
        return Metric.update(Metric.withAttributes(authFailures, { reason }), 1).pipe(
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
      }
    })
  )
)
