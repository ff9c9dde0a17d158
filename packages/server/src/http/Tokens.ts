/** Handlers of `/v1/tokens`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import type { GrantRequest } from "@prism-dns/core/api/Grant"
import * as Page from "@prism-dns/core/api/Page"
import {
  RequestInvalid,
  StorageUnavailable,
  TokenConfigured,
  TokenNameTaken,
  TokenNotFound,
  TokenRevoked,
  TooManyTokens
} from "@prism-dns/core/api/Problems"
import type * as Contract from "@prism-dns/core/api/Tokens"
import { timestamp } from "@prism-dns/core/api/Values"
import * as Grants from "@prism-dns/core/auth/Grants"
import { allowsWithin } from "@prism-dns/core/auth/Permissions"
import type { Grant } from "@prism-dns/core/auth/Principal"
import { stateOf, type TokenRecord, Tokens } from "@prism-dns/core/auth/Tokens"
import { Clock, Effect, Redacted } from "effect"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import { IpNetwork } from "effect/net"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { narrowed, page } from "./Pages.ts"

const fromGrant = ({ names, namesMax, networks = [], zones }: GrantRequest): Grant => ({
  zones,
  names,
  networks: networks.map(IpNetwork.fromStringUnsafe),
  namesMax
})

const toToken = (record: TokenRecord, nowMillis: number): Contract.Token => ({
  ...(record.id !== undefined && { id: record.id }),
  name: record.name,
  role: record.role,
  allows: record.allows,
  grant: Grants.toPlain(record.grant),
  ...(record.host !== undefined && { host: record.host }),
  origin: record.origin,
  state: stateOf(record, nowMillis),
  uses: record.uses,
  ...(record.usesMax !== undefined && { usesMax: record.usesMax }),
  ...(record.createdAtMillis !== undefined && { createdAt: timestamp(record.createdAtMillis) }),
  ...(record.createdBy !== undefined && { createdBy: record.createdBy }),
  ...(record.expiresAtMillis !== undefined && { expiresAt: timestamp(record.expiresAtMillis) }),
  ...(record.lastUsedMillis !== undefined && { lastUsed: timestamp(record.lastUsedMillis) }),
  ...(record.revokedAtMillis !== undefined && {
    revoked: { at: timestamp(record.revokedAtMillis), reason: record.revokedReason ?? "" }
  })
})

const tokenNotFound = (reference: string) =>
  new TokenNotFound({ detail: `There is no token '${reference}'; a token is asked for by its name or its id.` })

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

export const layer = HttpApiBuilder.group(
  Api,
  "tokens",
  Effect.fnUntraced(function* (handlers) {
    const tokens = yield* Tokens

    const shown = (record: TokenRecord) =>
      Effect.map(Clock.currentTimeMillis, (nowMillis) => toToken(record, nowMillis))

    /** The token, unless the caller may not see all that it may: then it is as if it were not there. */
    const getToken = Effect.fnUntraced(function* (reference: string) {
      const record = yield* tokens.find(reference)
      return record === undefined || !(yield* Authorization.mayReadWithin("tokens", record.grant))
        ? yield* tokenNotFound(reference)
        : record
    })

    return handlers.handleAll({
      list: Effect.fn("http.Tokens.list")(function* ({ query, request }) {
        const limit = query.limit ?? Page.limitDefault
        const after = query.cursor === undefined ? undefined : Page.placeBefore(query.cursor)
        const { authority } = yield* Caller
        const { found, readTo } = yield* narrowed(limit, {
          after,
          fetch: (after, limit) => tokens.list({ after, limit }),
          placeOf: ({ name }) => name,
          keep: ({ grant }) => allowsWithin(authority, "read", "tokens", grant)
        })
        const nowMillis = yield* Clock.currentTimeMillis
        return page(request, found, limit, {
          item: (record) => toToken(record, nowMillis),
          cursor: ({ name }) => Page.cursorBehind(name),
          readTo
        })
      }, orUnavailable),

      issue: Effect.fn("http.Tokens.issue")(
        function* ({ payload }) {
          const { allows, expiresAt, grant = {}, host, name, reason, role = "agent", usesMax } = payload
          const spec = {
            name,
            role,
            allows,
            grant: fromGrant(grant),
            host,
            usesMax,
            expiresAtMillis: expiresAt === undefined ? undefined : Date.parse(expiresAt)
          }
          yield* Authorization.requireWithin("write", "tokens", spec.grant)
          const { record, token } = yield* tokens.issue(spec, yield* Caller, reason)
          return HttpApiSchema.withHeaders({
            body: { token: Redacted.value(token), ...(yield* shown(record)) },
            headers: { location: `/v1/tokens/${record.name}` }
          })
        },
        Effect.catchTags({
          TokenSpecInvalid: ({ field, message }) =>
            Effect.fail(
              new RequestInvalid({
                detail: `body ${field}: ${message}`,
                errors: [{ in: "body", pointer: `/${field}`, detail: message }]
              })
            ),
          TokenNameTaken: ({ message }) => Effect.fail(new TokenNameTaken({ detail: sentence(message) })),
          TooManyTokens: ({ message }) => Effect.fail(new TooManyTokens({ detail: sentence(message) })),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      ),

      get: Effect.fn("http.Tokens.get")(function* ({ params }) {
        return yield* shown(yield* getToken(params.token))
      }, orUnavailable),

      revoke: Effect.fn("http.Tokens.revoke")(
        function* ({ params, payload }) {
          yield* Authorization.requireWithin("delete", "tokens", (yield* getToken(params.token)).grant)
          return yield* shown(yield* tokens.revoke(params.token, yield* Caller, payload.reason))
        },
        Effect.catchTags({
          TokenUnknown: ({ reference }) => Effect.fail(tokenNotFound(reference)),
          TokenRevoked: ({ message }) => Effect.fail(new TokenRevoked({ detail: sentence(message) })),
          TokenConfigured: ({ message }) => Effect.fail(new TokenConfigured({ detail: sentence(message) })),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      )
    })
  })
)
