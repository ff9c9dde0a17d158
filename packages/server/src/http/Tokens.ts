/** Handlers of `/v1/tokens`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
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
import { allowsWithin, type Bounds } from "@prism-dns/core/auth/Permissions"
import type { Grant } from "@prism-dns/core/auth/Principal"
import { Roles } from "@prism-dns/core/auth/Roles"
import { stateOf, type TokenRecord, Tokens } from "@prism-dns/core/auth/Tokens"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { Clock, Effect, Redacted } from "effect"
import { HttpApiBuilder, HttpApiSchema } from "effect/http-api"
import { IpNetwork } from "effect/net"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import { narrowed, page } from "./Pages.ts"
import { sentence } from "./Sentence.ts"

const fromGrant = ({ names, namesMax, networks = [], zones }: GrantRequest): Grant => ({
  zones,
  names,
  networks: networks.map(IpNetwork.fromStringUnsafe),
  namesMax
})

/** `api` is for the API alone without being an administrator's. */
export const kindOf = ({ role, roles }: TokenRecord): Contract.Token["role"] =>
  role === "admin" && !roles.includes("admin") ? "api" : role

const toToken = (record: TokenRecord, nowMillis: number): Contract.Token => ({
  ...(record.id !== undefined && { id: record.id }),
  name: record.name,
  role: kindOf(record),
  roles: record.roles,
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

/** What can be changed about it, as `TokenChange` has it. */
const toPlain = ({ expiresAtMillis, grant, roles }: TokenRecord): Readonly<Record<string, unknown>> => ({
  roles,
  grant: Grants.toPlain(grant),
  expiresAt: expiresAtMillis === undefined ? undefined : timestamp(expiresAtMillis)
})

/** What moves by itself stands behind the version. */
const tagOf = ({ generation, lastUsedMillis = 0, uses }: TokenRecord): string =>
  EntityTag.make(generation, `${uses}.${lastUsedMillis}`)

const tokenNotFound = (reference: string) =>
  new TokenNotFound({ detail: `There is no token '${reference}'; a token is asked for by its name or its id.` })

const invalid = (field: string, detail: string) =>
  new RequestInvalid({ detail: `body ${field}: ${detail}`, errors: [{ in: "body", pointer: `/${field}`, detail }] })

export const layer = HttpApiBuilder.group(
  Api,
  "tokens",
  Effect.fnUntraced(function* (handlers) {
    const tokens = yield* Tokens
    const roles = yield* Roles
    const zones = yield* Zones

    const rolesKnown = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
      const unknown = names.findIndex((name) => roles.find(name) === undefined)
      if (unknown !== -1) return yield* invalid(`roles/${unknown}`, `there is no role ${names[unknown]}`)
    })

    /** What a token may with these roles and this grant. */
    const authorityOf = (names: ReadonlyArray<string>, { names: patterns, zones }: Bounds) => ({
      permissions: roles.permissionsOf(names),
      zones,
      names: patterns
    })

    /** Where a token that is marked for `host` is good: for that name. */
    const boundsOf = (host: DomainName): Bounds => {
      const { zone } = Authorization.placeOf(zones.all, host)
      return zone === undefined ? {} : { zones: [zone], names: [host.slice(0, -zone.length - 1)] }
    }

    /** Whether the caller may make, or change, a token such as this. */
    const mayGive = Effect.fnUntraced(function* (name: string, given: ReadonlyArray<string>, bounds: Bounds) {
      yield* Authorization.requireWithin("write", "tokens", bounds)
      yield* Authorization.requireToGive(`the token ${name}`, authorityOf(given, bounds))
    })

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
        function* ({ payload, query: { dryRun = false } }) {
          const { allows, expiresAt, grant = {}, host, name, reason, role, usesMax } = payload
          if (role !== undefined && payload.roles !== undefined) {
            return yield* invalid("roles", "`roles` takes the place of `role`; say one of them")
          }
          const given = payload.roles ?? [role ?? "agent"]
          yield* rolesKnown(given)
          const spec = {
            name,
            role: given.includes("agent") ? ("agent" as const) : ("admin" as const),
            roles: given,
            allows,
            grant: fromGrant(grant),
            host,
            usesMax,
            expiresAtMillis: expiresAt === undefined ? undefined : Date.parse(expiresAt)
          }
          yield* mayGive(name, given, host === undefined ? spec.grant : boundsOf(host))
          const { record, token } = yield* tokens.issue(spec, yield* Caller, reason, { dryRun })
          const body = yield* shown(dryRun ? { ...record, id: undefined } : record)
          return HttpApiSchema.withHeaders({
            body: dryRun ? { ...body, dryRun: true as const } : { token: Redacted.value(token), ...body },
            headers: { location: `/v1/tokens/${record.name}` }
          })
        },
        Effect.catchTags({
          TokenSpecInvalid: ({ field, message }) => Effect.fail(invalid(field, message)),
          TokenNameTaken: ({ message }) => Effect.fail(new TokenNameTaken({ detail: sentence(message) })),
          TooManyTokens: ({ message }) => Effect.fail(new TooManyTokens({ detail: sentence(message) })),
          RegistryUnavailable: ({ message }) => Effect.fail(new StorageUnavailable({ detail: message }))
        }),
        orUnavailable
      ),

      get: Effect.fn("http.Tokens.get")(function* ({ params }) {
        const token = yield* getToken(params.token)
        return HttpApiSchema.withHeaders({
          body: yield* shown(token),
          headers: token.origin === "registry" ? { etag: tagOf(token) } : {}
        })
      }, orUnavailable),

      change: Effect.fn("http.Tokens.change")(
        function* ({ headers, params, payload, query: { dryRun = false } }) {
          const { name } = yield* getToken(params.token)
          const { expiresAt, grant, reason } = payload
          if (payload.roles !== undefined) yield* rolesKnown(payload.roles)
          const changes = {
            roles: payload.roles,
            grant: grant === undefined ? undefined : fromGrant(grant),
            expiresAtMillis: typeof expiresAt === "string" ? Date.parse(expiresAt) : expiresAt
          }
          const check = Effect.fnUntraced(function* (before: TokenRecord, after: TokenRecord) {
            yield* mayGive(name, before.roles, before.grant)
            yield* mayGive(name, after.roles, after.grant)
            yield* requireMatch(
              { headers },
              {
                version: before.generation,
                required: true,
                changesSince: Effect.fnUntraced(function* (version) {
                  const former = /^\d{1,15}$/.test(version) ? yield* tokens.at(name, Number(version)) : undefined
                  if (former === undefined) return { changes: [] }
                  const { expiresAt, grant, roles } = former
                  return { changes: changedFields({ expiresAt, grant, roles }, toPlain(before)) }
                })
              }
            )
          })
          const changed = yield* tokens.change(name, changes, { actor: yield* Caller, reason, dryRun }, check)
          return withTag({ ...(yield* shown(changed)), ...(dryRun && { dryRun: true as const }) }, tagOf(changed))
        },
        Effect.catchTags({
          TokenUnknown: ({ reference }) => Effect.fail(tokenNotFound(reference)),
          TokenRevoked: ({ message }) => Effect.fail(new TokenRevoked({ detail: sentence(message) })),
          TokenConfigured: ({ message }) => Effect.fail(new TokenConfigured({ detail: sentence(message) })),
          TokenSpecInvalid: ({ field, message }) => Effect.fail(invalid(field, message))
        }),
        orUnavailable
      ),

      revoke: Effect.fn("http.Tokens.revoke")(
        function* ({ params, payload, query: { dryRun = false } }) {
          yield* Authorization.requireWithin("delete", "tokens", (yield* getToken(params.token)).grant)
          const revoked = yield* tokens.revoke(params.token, yield* Caller, payload.reason, { dryRun })
          return { ...(yield* shown(revoked)), ...(dryRun && { dryRun: true as const }) }
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
