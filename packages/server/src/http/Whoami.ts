/** The handler of `/v1/whoami`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import { timestamp } from "@prism-dns/core/api/Values"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"

export const layer = HttpApiBuilder.group(
  Api,
  "whoami",
  Effect.fnUntraced(function* (handlers) {
    const tokens = yield* Tokens
    return handlers.handleAll({
      get: Effect.fn("http.Whoami.get")(function* () {
        const { name, peer } = yield* Caller
        const token = yield* tokens.find(name)
        return {
          name,
          kind: "token" as const,
          role: token?.role ?? "admin",
          origin: token?.origin ?? "registry",
          ...(token?.expiresAtMillis !== undefined && { expiresAt: timestamp(token.expiresAtMillis) }),
          ...(peer !== undefined && { peer })
        }
      }, orUnavailable)
    })
  })
)
