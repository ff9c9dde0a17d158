/**
 * Lets callers in who hold a token, of Prism's or of an identity provider, says
 * who they are, and keeps them from what no permission of theirs is about.
 */
import { Authorization, Caller, Requires } from "@prism-dns/core/api/Authentication"
import { Forbidden, TokenInvalid } from "@prism-dns/core/api/Problems"
import { Refusals } from "@prism-dns/core/audit/Refusals"
import { allowsSomewhere, boundTo } from "@prism-dns/core/auth/Permissions"
import { type Grant, unlimited } from "@prism-dns/core/auth/Principal"
import type { OidcCode, TokenCode } from "@prism-dns/core/auth/RefusalCode"
import { Roles } from "@prism-dns/core/auth/Roles"
import { authorityOf } from "@prism-dns/core/auth/Standing"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Replicas } from "@prism-dns/core/storage/Reads"
import { Clock, Context, Effect, Layer, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"
import * as Exchange from "./Exchange.ts"
import { Gate } from "./Gate.ts"
import { isJwt, Oidc, type OidcService } from "./Oidc.ts"
import { sentence } from "./Sentence.ts"

export const layer: Layer.Layer<Authorization, never, Tokens | Refusals | Roles> = Layer.effect(
  Authorization,
  Effect.gen(function* () {
    const tokens = yield* Tokens
    const refusals = yield* Refusals
    const gate = yield* Gate
    const roles = yield* Roles
    const oidc = yield* Oidc
    const replicas = yield* Replicas

    /** What it reads then is not from before. */
    const wrote = (name: string) => Effect.map(Clock.currentTimeMillis, (nowMillis) => replicas?.wrote(name, nowMillis))

    const refuse = (code: TokenCode | OidcCode, message: string, peer: string | undefined) => {
      refusals.record({ code, message, actor: "unknown", peer, subject: "" })
      return Effect.andThen(gate.stumbled(peer), Effect.fail(new TokenInvalid({ detail: sentence(message) })))
    }

    const ofProvider = Effect.fnUntraced(function* (oidc: OidcService, token: string, peer: string | undefined) {
      const { expiresAtMillis, mappings, name } = yield* oidc
        .verify(token)
        .pipe(Effect.catchTag("OidcRefused", ({ code, message }) => refuse(code, message, peer)))
      if (mappings.length === 0) {
        const message = `the identity provider knows ${name}, and nothing that it says of it is a role here (auth.oidc.roles)`
        refusals.record({ code: "oidc-no-role", message, actor: name, peer, subject: "" })
        yield* gate.stumbled(peer)
        return yield* new Forbidden({ detail: sentence(message) })
      }
      const permissions = mappings.flatMap(({ names, role, zones }) =>
        boundTo(roles.permissionsOf([role]), { zones, names })
      )
      const grant: Grant = {
        ...unlimited,
        zones: mappings.some(({ zones }) => zones === undefined)
          ? undefined
          : [...new Set(mappings.flatMap(({ zones }) => zones ?? []))]
      }
      return {
        kind: "oidc" as const,
        name,
        roles: [...new Set(mappings.map(({ role }) => role))],
        authority: { permissions, zones: undefined, names: undefined },
        grant,
        expiresAtMillis
      }
    })

    /** Who holds `token`, and what it may. */
    const identify = Effect.fnUntraced(function* (token: string, peer: string | undefined) {
      const holder = tokens.verifyAtApi(token)
      if (!(holder instanceof TokenRefused)) {
        return { ...holder, kind: "token" as const, authority: authorityOf(roles, holder) }
      }
      return oidc !== undefined && holder.code === "token-invalid" && isJwt(token)
        ? yield* ofProvider(oidc, token, peer)
        : yield* refuse(holder.code, holder.message, peer)
    })

    return Authorization.of({
      bearer: Effect.fnUntraced(function* (handler, { credential, endpoint }) {
        const { remoteAddress } = yield* HttpServerRequest.HttpServerRequest
        const peer = Option.getOrUndefined(remoteAddress)
        const token = Redacted.value(credential)
        if (token === "") {
          return yield* refuse("token-missing", "send a token: 'Authorization: Bearer TOKEN'", peer)
        }
        const holder = yield* identify(token, peer)
        const { authority } = holder
        const required = Option.getOrUndefined(Context.getOption(endpoint.annotations, Requires))
        yield* gate.admit(holder.name, required)
        if (required === undefined) return yield* new Forbidden({ detail: "No role reaches this endpoint." })
        if (required !== "anyone" && !allowsSomewhere(authority, required.verb, required.resource)) {
          return yield* new Forbidden({ detail: `${holder.name} may not ${required.verb} ${required.resource}.` })
        }
        const reads = replicas === undefined || endpoint.method === "GET"
        const handled = reads ? handler : Effect.ensuring(handler, wrote(holder.name))
        return yield* Effect.provideService(gate.pass(holder, endpoint, handled), Caller, {
          name: holder.name,
          kind: holder.kind,
          peer,
          request: (yield* Exchange.Current).id,
          roles: holder.roles,
          authority,
          grant: holder.grant,
          expiresAtMillis: holder.expiresAtMillis
        })
      })
    })
  })
)
