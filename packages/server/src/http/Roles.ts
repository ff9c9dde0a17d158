/** Handlers of `/v1/roles`. */
import { Api } from "@prism-dns/core/api/Api"
import { Caller } from "@prism-dns/core/api/Authentication"
import * as EntityTag from "@prism-dns/core/api/EntityTag"
import * as Page from "@prism-dns/core/api/Page"
import {
  RequestInvalid,
  RoleBuiltIn,
  RoleInUse,
  RoleNameTaken,
  RoleNotFound,
  TooManyRoles
} from "@prism-dns/core/api/Problems"
import type * as Contract from "@prism-dns/core/api/Roles"
import { timestamp } from "@prism-dns/core/api/Values"
import type { Permission, Role, Scope } from "@prism-dns/core/auth/Permissions"
import { Roles, type StoredRole } from "@prism-dns/core/auth/Roles"
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { orUnavailable } from "./Answers.ts"
import * as Authorization from "./Authorization.ts"
import { changedFields, requireMatch, withTag } from "./Conditional.ts"
import { page } from "./Pages.ts"
import { sentence } from "./Sentence.ts"

export const toPermission = ({ names, resource, verb, zones }: Permission): Contract.Permission => ({
  verb,
  resource,
  ...(zones !== undefined && { zones }),
  ...(names !== undefined && { names })
})

const toPlain = ({ description, permissions }: Pick<Role, "description" | "permissions">) => ({
  description,
  permissions: permissions.map(toPermission)
})

const toRole = (role: StoredRole, dryRun = false): Contract.Role => ({
  name: role.name,
  ...toPlain(role),
  builtIn: role.builtIn,
  ...(role.updatedAtMillis !== undefined && { updatedAt: timestamp(role.updatedAtMillis) }),
  ...(role.updatedBy !== undefined && { updatedBy: role.updatedBy }),
  ...(dryRun && { dryRun: true as const })
})

const roleNotFound = (name: string) => new RoleNotFound({ detail: `There is no role '${name}'.` })

const zoneUnknown = ({ message, permission }: { readonly message: string; readonly permission: number }) =>
  new RequestInvalid({
    detail: `body permissions: ${message}`,
    errors: [{ in: "body", pointer: `/permissions/${permission}/zones`, detail: message }]
  })

const tagOf = ({ generation }: StoredRole): string => EntityTag.make(generation)

/** A role that names zones of others is not shown to who is bound to its own. */
const isSeen = (scope: Scope, { permissions }: Role): boolean =>
  permissions.every(({ zones }) => zones === undefined || zones.every(scope.touches))

/** What it allows whoever has it, wherever its permissions say. */
const authorityOf = ({ permissions }: Role) => ({ permissions, zones: undefined, names: undefined })

export const layer = HttpApiBuilder.group(
  Api,
  "roles",
  Effect.fnUntraced(function* (handlers) {
    const roles = yield* Roles

    /** The role, unless the caller may not see it: then it is as if it were not there. */
    const getRole = Effect.fnUntraced(function* (name: string) {
      const role = roles.find(name)
      const scope = yield* Authorization.scope("read", "roles")
      return role === undefined || !isSeen(scope, role) ? yield* roleNotFound(name) : role
    })

    const matching = (request: Parameters<typeof requireMatch>[0], current: StoredRole) =>
      requireMatch(request, {
        version: current.generation,
        required: true,
        changesSince: (version) =>
          Effect.gen(function* () {
            const before = /^\d{1,15}$/.test(version) ? yield* roles.at(current.name, Number(version)) : undefined
            return {
              changes: before === undefined ? [] : changedFields(toPlain(before), toPlain(current)),
              changedBy: current.updatedBy,
              changedAt: current.updatedAtMillis === undefined ? undefined : timestamp(current.updatedAtMillis)
            }
          })
      })

    return handlers.handleAll({
      list: Effect.fn("http.Roles.list")(function* ({ query, request }) {
        const limit = query.limit ?? Page.limitDefault
        const after = query.cursor === undefined ? "" : Page.placeBefore(query.cursor)!
        const scope = yield* Authorization.scope("read", "roles")
        const found = roles.all().filter((role) => role.name > after && isSeen(scope, role))
        return page(request, found.slice(0, limit + 1), limit, {
          item: (role) => toRole(role),
          cursor: ({ name }) => Page.cursorBehind(name)
        })
      }),

      create: Effect.fn("http.Roles.create")(
        function* ({ payload, query: { dryRun = false } }) {
          const { reason, ...role } = payload
          yield* Authorization.requireToGive(`the role ${role.name}`, authorityOf(role))
          const made = yield* roles.create(role, { actor: yield* Caller, reason, dryRun })
          return withTag(toRole(made, dryRun), tagOf(made), { location: `/v1/roles/${made.name}` })
        },
        Effect.catchTags({
          RoleZoneUnknown: (error) => Effect.fail(zoneUnknown(error)),
          RoleNameTaken: ({ message }) => Effect.fail(new RoleNameTaken({ detail: sentence(message) })),
          TooManyRoles: ({ message }) => Effect.fail(new TooManyRoles({ detail: sentence(message) }))
        }),
        orUnavailable
      ),

      get: Effect.fn("http.Roles.get")(function* ({ params }) {
        const role = yield* getRole(params.role)
        return withTag(toRole(role), tagOf(role))
      }),

      change: Effect.fn("http.Roles.change")(
        function* ({ headers, params, payload, query: { dryRun = false } }) {
          const { name } = yield* getRole(params.role)
          const { reason, ...changes } = payload
          const changed = yield* roles.change(
            name,
            changes,
            { actor: yield* Caller, reason, dryRun },
            (before, after) =>
              Effect.gen(function* () {
                yield* Authorization.requireToGive(`the role ${name}`, authorityOf(before))
                yield* Authorization.requireToGive(`the role ${name}`, authorityOf(after))
                yield* matching({ headers }, before)
              })
          )
          return withTag(toRole(changed, dryRun), tagOf(changed))
        },
        Effect.catchTags({
          RoleZoneUnknown: (error) => Effect.fail(zoneUnknown(error)),
          RoleUnknown: ({ name }) => Effect.fail(roleNotFound(name)),
          RoleBuiltIn: ({ message }) => Effect.fail(new RoleBuiltIn({ detail: sentence(message) }))
        }),
        orUnavailable
      ),

      remove: Effect.fn("http.Roles.remove")(
        function* ({ headers, params, query: { dryRun = false, reason } }) {
          const { name } = yield* getRole(params.role)
          const removed = yield* roles.remove(name, { actor: yield* Caller, reason, dryRun }, (before) =>
            Effect.gen(function* () {
              yield* Authorization.requireToTake(`the role ${name}`, authorityOf(before))
              yield* matching({ headers }, before)
            })
          )
          return toRole(removed, dryRun)
        },
        Effect.catchTags({
          RoleUnknown: ({ name }) => Effect.fail(roleNotFound(name)),
          RoleBuiltIn: ({ message }) => Effect.fail(new RoleBuiltIn({ detail: sentence(message) })),
          RoleInUse: ({ message }) =>
            Effect.fail(new RoleInUse({ detail: `${sentence(message)} Give them other roles first.` }))
        }),
        orUnavailable
      )
    })
  })
)
