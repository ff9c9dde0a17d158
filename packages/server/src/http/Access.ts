/** Handlers of `/v1/access:explain`: of claims by `auth/Explainer`, of what the API lets somebody do by `auth/Rights`. */
import { Api } from "@prism-dns/core/api/Api"
import type * as Contract from "@prism-dns/core/api/Access"
import { Caller } from "@prism-dns/core/api/Authentication"
import { Forbidden, PrincipalNotFound, RequestInvalid } from "@prism-dns/core/api/Problems"
import { type CertificateGrant, ownNameOnly } from "@prism-dns/core/auth/Certificates"
import * as Explainer from "@prism-dns/core/auth/Explainer"
import * as Grants from "@prism-dns/core/auth/Grants"
import {
  allowsSomewhere,
  type Bounds,
  type Permission,
  type Resource,
  type Verb
} from "@prism-dns/core/auth/Permissions"
import { clampedTtl } from "@prism-dns/core/auth/Policy"
import * as Rights from "@prism-dns/core/auth/Rights"
import { Roles } from "@prism-dns/core/auth/Roles"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { SqlError } from "effect/sql"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { toPermission } from "./Roles.ts"
import { sentence } from "./Sentence.ts"

export interface AccessOptions {
  /** What client certificates may claim. Default: their own name. */
  readonly certificates?: CertificateGrant | undefined
}

const rolePrefix = "role:"

const invalid = (missing: ReadonlyArray<string>, detail: string) =>
  new RequestInvalid({
    detail: `${missing.join(", ")}: ${detail}`,
    errors: missing.map((field) => ({ in: "body", pointer: `/${field}`, detail }))
  })

const principalNotFound = (message: string) => Effect.fail(new PrincipalNotFound({ detail: sentence(message) }))

export const layer = ({ certificates = ownNameOnly }: AccessOptions = {}) =>
  HttpApiBuilder.group(
    Api,
    "access",
    Effect.fnUntraced(function* (handlers) {
      const explainer = yield* Explainer.make(certificates)
      const zones = yield* Zones
      const tokens = yield* Tokens
      const roles = yield* Roles

      const toExplained = ({ claim, decidedBy, namesMax, principal, rules }: Explainer.Answer): Contract.Explained => {
        const ttlSeconds = clampedTtl(claim, zones.find(claim.zone))
        return {
          principal: {
            name: principal.name,
            kind: principal.kind,
            grant: Grants.toPlain(principal.grant),
            ...(namesMax !== undefined && { namesMax })
          },
          host: claim.fqdn,
          zone: claim.zone,
          addresses: claim.addresses,
          ...(claim.peer !== undefined && { peer: claim.peer }),
          protocol: claim.protocol,
          allowed: decidedBy === undefined,
          ...(decidedBy !== undefined && { decidedBy: decidedBy.rule }),
          ...(decidedBy?.code !== undefined && { code: decidedBy.code }),
          detail: decidedBy?.detail ?? "the claim is allowed",
          ...(ttlSeconds !== undefined && { ttlSeconds }),
          rules
        }
      }

      /** Which rule decides a claim. Who is bound to zones is told about claims in them, and of nobody who is only elsewhere. */
      const explainClaim = Effect.fnUntraced(function* (asked: Contract.ExplainRequest) {
        const { addresses, hostname, principal } = asked
        if (principal === undefined || hostname === undefined || addresses === undefined) {
          const missing = Object.entries({ principal, hostname, addresses }).flatMap(([field, value]) =>
            value === undefined ? [field] : []
          )
          return yield* invalid(missing, "a claim has these; what the API lets somebody do has verb and resource")
        }
        if (asked.name !== undefined)
          return yield* invalid(["name"], "goes with verb and resource; a claim has hostname")
        const scope = yield* Authorization.scope("read", "access")
        const absent = () => principalNotFound(`there is neither an identity nor a token '${principal}'`)
        // The place first: who may not ask about it is told nothing of anybody.
        const said = asked.zone ?? zones.zoneOf(hostname)?.name
        if (said !== undefined) {
          const fqdn = DomainName.isWithin(hostname, said) ? hostname : (`${hostname}${said}` as DomainName.DomainName)
          yield* Authorization.require("read", "access", { zone: zones.zoneOf(fqdn)?.name ?? said, name: fqdn })
        }
        const asking = explainer.explain({
          principal,
          name: hostname,
          zone: asked.zone,
          addresses,
          peer: asked.peer,
          protocol: asked.protocol ?? "2.0",
          ttlSeconds: asked.ttlSeconds
        })
        // Who is bound does not tell those who are elsewhere from those who are nowhere.
        const answer = yield* scope.everything ? asking : Effect.catchTag(asking, "PrincipalUnknown", absent)
        const place = { zone: answer.claim.zone, name: answer.claim.fqdn }
        if (!scope.has(place)) return yield* absent()
        const grant = answer.principal.grant
        if (grant.zones === undefined || scope.zones === undefined) return toExplained(answer)
        const seen = grant.zones.filter(scope.touches)
        if (seen.length === 0) return yield* absent()
        return toExplained({ ...answer, principal: { ...answer.principal, grant: { ...grant, zones: seen } } })
      })

      interface Holder {
        readonly principal: { readonly name: string; readonly kind: "token" | "oidc" | "role" }
        readonly roles: ReadonlyArray<string>
        readonly bounds: Bounds
        /** In place of what the roles allow: of somebody whose roles are bound each for itself. */
        readonly permissions?: ReadonlyArray<Permission>
      }

      /** Whose right is asked for; default: the caller's. */
      const holderOf = Effect.fnUntraced(function* (
        reference: string | undefined
      ): Effect.fn.Return<Holder, PrincipalNotFound | SqlError.SqlError, Caller> {
        const caller = yield* Caller
        if (reference === undefined || reference === caller.name) {
          const { authority, kind, name, roles } = caller
          const holder: Holder = { principal: { name, kind }, roles, bounds: authority }
          return kind === "oidc" ? { ...holder, permissions: authority.permissions } : holder
        }
        const scope = yield* Authorization.scope("read", "access")
        if (reference.startsWith(rolePrefix)) {
          const name = reference.slice(rolePrefix.length)
          const role = roles.find(name)
          if (role === undefined || !role.permissions.every(({ zones }) => zones?.every(scope.touches) ?? true)) {
            return yield* principalNotFound(`there is no role '${name}'`)
          }
          return { principal: { name, kind: "role" }, roles: [name], bounds: {} }
        }
        const token = yield* tokens.find(reference)
        if (token === undefined || !(yield* Authorization.mayReadWithin("access", token.grant))) {
          return yield* principalNotFound(
            `there is no token '${reference}'; a role is asked for as '${rolePrefix}NAME'`
          )
        }
        if (token.revokedAtMillis !== undefined) return yield* principalNotFound(`the token ${token.name} is revoked`)
        const { grant, name } = token
        return { principal: { name, kind: "token" }, roles: token.roles, bounds: grant }
      })

      /** By which role somebody may do something, or why not. */
      const explainRight = Effect.fnUntraced(function* (
        asked: Contract.ExplainRequest,
        verb: Verb,
        resource: Resource
      ): Effect.fn.Return<
        Contract.ExplainedRight,
        PrincipalNotFound | RequestInvalid | Effect.Error<ReturnType<typeof tokens.find>>,
        Caller
      > {
        const ofClaims = (["hostname", "addresses", "peer", "protocol", "ttlSeconds"] as const).filter(
          (field) => asked[field] !== undefined
        )
        if (ofClaims.length > 0) return yield* invalid(ofClaims, "is of a claim, which has neither verb nor resource")
        const { name, zone = name === undefined ? undefined : Authorization.placeOf(zones.all, name).zone } = asked
        const { bounds, permissions, principal, roles: names } = yield* holderOf(asked.principal)
        const right = Rights.explain({
          verb,
          resource,
          place: { zone, name },
          roles:
            permissions === undefined
              ? names.map((each) => ({ name: each, role: roles.find(each) }))
              : [{ name: names.join("+"), role: { permissions } }],
          bounds: { zones: bounds.zones, names: bounds.names }
        })
        return {
          principal: {
            ...principal,
            roles: names,
            ...(bounds.zones !== undefined && { zones: bounds.zones }),
            ...(bounds.names !== undefined && { names: bounds.names })
          },
          verb,
          resource,
          ...(zone !== undefined && { zone }),
          ...(name !== undefined && { name }),
          allowed: right.allowed,
          ...(right.by !== undefined && { by: { role: right.by.role, permission: toPermission(right.by.permission) } }),
          detail: right.detail,
          rules: right.rules
        }
      })

      /** What somebody may do itself is no secret to it; about others, and about hosts, it takes a permission. */
      const requireToAsk = Effect.fnUntraced(function* ({ principal, resource, verb }: Contract.ExplainRequest) {
        const caller = yield* Caller
        const isOwnRight = (verb ?? resource) !== undefined && (principal ?? caller.name) === caller.name
        if (isOwnRight || allowsSomewhere(caller.authority, "read", "access")) return
        return yield* new Forbidden({ detail: `${caller.name} may not read access.` })
      })

      const explain = Effect.fnUntraced(
        function* (asked: Contract.ExplainRequest) {
          const { resource, verb } = asked
          yield* requireToAsk(asked)
          if (verb === undefined && resource === undefined) return yield* explainClaim(asked)
          if (verb === undefined) return yield* invalid(["verb"], "is missing beside resource")
          if (resource === undefined) return yield* invalid(["resource"], "is missing beside verb")
          return yield* explainRight(asked, verb, resource)
        },
        Effect.catchTag("PrincipalUnknown", ({ message }) => principalNotFound(message)),
        orUnavailable
      )

      return handlers.handleAll({
        explain: Effect.fn("http.Access.explain")(({ query }) =>
          explain(query).pipe(
            Effect.catchTag("RequestInvalid", ({ detail, errors }) =>
              Effect.fail(new RequestInvalid({ detail, errors: errors.map((each) => ({ ...each, in: "query" })) }))
            )
          )
        ),
        explainRequest: Effect.fn("http.Access.explain")(({ payload }) => explain(payload))
      })
    })
  )
