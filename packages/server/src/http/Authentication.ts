/** Lets callers in who hold a token, says who they are, and keeps them from what no permission of theirs is about. */
import { Authorization, Caller, Requires } from "@prism-dns/core/api/Authentication"
import { Forbidden, TokenInvalid } from "@prism-dns/core/api/Problems"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { allowsSomewhere } from "@prism-dns/core/auth/Permissions"
import type { TokenCode } from "@prism-dns/core/auth/RefusalCode"
import { Roles } from "@prism-dns/core/auth/Roles"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"
import { Gate } from "./Gate.ts"
import { RequestId } from "./RequestId.ts"

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

export const layer: Layer.Layer<Authorization, never, Tokens | Refusals | Roles> = Layer.effect(
  Authorization,
  Effect.gen(function* () {
    const tokens = yield* Tokens
    const refusals = yield* Refusals
    const gate = yield* Gate
    const roles = yield* Roles

    const refuse = (code: TokenCode, message: string, peer: string | undefined) => {
      refusals.record({ code, message, actor: "unknown", peer, subject: "" })
      return Effect.andThen(gate.stumbled(peer), Effect.fail(new TokenInvalid({ detail: sentence(message) })))
    }

    return Authorization.of({
      bearer: Effect.fnUntraced(function* (handler, { credential, endpoint }) {
        const { remoteAddress } = yield* HttpServerRequest.HttpServerRequest
        const peer = Option.getOrUndefined(remoteAddress)
        const token = Redacted.value(credential)
        if (token === "") {
          return yield* refuse("token-missing", "send a token: 'Authorization: Bearer TOKEN'", peer)
        }
        const holder = tokens.verifyAtApi(token)
        if (holder instanceof TokenRefused) return yield* refuse(holder.code, holder.message, peer)
        const authority = {
          permissions: roles.permissionsOf(holder.roles),
          zones: holder.grant.zones,
          names: holder.grant.names
        }
        const required = Option.getOrUndefined(Context.getOption(endpoint.annotations, Requires))
        yield* gate.admit(holder.name, required)
        if (required === undefined) return yield* new Forbidden({ detail: "No role reaches this endpoint." })
        if (required !== "anyone" && !allowsSomewhere(authority, required.verb, required.resource)) {
          return yield* new Forbidden({ detail: `${holder.name} may not ${required.verb} ${required.resource}.` })
        }
        return yield* Effect.provideService(gate.pass(holder.name, endpoint, handler), Caller, {
          name: holder.name,
          kind: "token",
          peer,
          request: yield* RequestId,
          roles: holder.roles,
          authority,
          grant: holder.grant,
          expiresAtMillis: holder.expiresAtMillis
        })
      })
    })
  })
)
