/** The handler of `/v1/whoami`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import { timestamp } from "@prism-dns/core/api/Values"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import { toPermission } from "./Roles.ts"
import { kindOf } from "./Tokens.ts"

export const layer = HttpApiBuilder.group(
  Api,
  "whoami",
  Effect.fnUntraced(function* (handlers) {
    const tokens = yield* Tokens
    return handlers.handleAll({
      get: Effect.fn("http.Whoami.get")(function* () {
        const { authority, expiresAtMillis, kind, name, peer, roles } = yield* Caller
        const token = kind === "token" ? yield* tokens.find(name) : undefined
        return {
          name,
          kind,
          roles,
          permissions: authority.permissions.map(toPermission),
          ...(authority.zones !== undefined && { zones: authority.zones }),
          ...(authority.names !== undefined && { names: authority.names }),
          ...(token !== undefined && { role: kindOf(token), origin: token.origin }),
          ...(expiresAtMillis !== undefined && { expiresAt: timestamp(expiresAtMillis) }),
          ...(peer !== undefined && { peer })
        }
      }, orUnavailable)
    })
  })
)
