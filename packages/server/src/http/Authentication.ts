/** Lets callers in who hold an administrator's token, and says who they are. */
import { AdminToken, Caller } from "@prism-dns/core/api/Authentication"
import { TokenInvalid } from "@prism-dns/core/api/Problems"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import type { TokenCode } from "@prism-dns/core/auth/RefusalCode"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, Layer, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

export const layer: Layer.Layer<AdminToken, never, Tokens | Refusals> = Layer.effect(
  AdminToken,
  Effect.gen(function* () {
    const tokens = yield* Tokens
    const refusals = yield* Refusals

    const refuse = (code: TokenCode, message: string, peer: string | undefined) => {
      refusals.record({ code, message, actor: "unknown", peer, subject: "" })
      return Effect.fail(new TokenInvalid({ detail: sentence(message) }))
    }

    return AdminToken.of({
      bearer: Effect.fnUntraced(function* (handler, { credential }) {
        const { remoteAddress } = yield* HttpServerRequest.HttpServerRequest
        const peer = Option.getOrUndefined(remoteAddress)
        const token = Redacted.value(credential)
        if (token === "") {
          return yield* refuse("token-missing", "send an administrator's token: 'Authorization: Bearer TOKEN'", peer)
        }
        const holder = tokens.verify(token, "admin")
        if (holder instanceof TokenRefused) {
          const isGuess = holder.code === "token-invalid"
          return yield* refuse(holder.code, isGuess ? "the token is not one of an administrator" : holder.message, peer)
        }
        return yield* Effect.provideService(handler, Caller, { name: holder.name, peer })
      })
    })
  })
)
