/** Roles in the HTTP API: what people and programs may do. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { resources, verbs } from "../auth/Permissions.ts"
import { isName } from "../auth/Roles.ts"
import { Authorization, Requires } from "./Authentication.ts"
import { entriesMax, NamePattern } from "./Grant.ts"
import * as Page from "./Page.ts"
import {
  PreconditionFailedProblem,
  PreconditionRequiredProblem,
  RoleBuiltInProblem,
  RoleInUseProblem,
  RoleNameTakenProblem,
  RoleNotFoundProblem,
  StorageUnavailableProblem,
  TooManyRolesProblem
} from "./Problems.ts"
import * as Values from "./Values.ts"

/** Permissions of one role at the most. */
export const permissionsMax = 100

export const Verb = Schema.Literals([...verbs, "*"]).annotate({
  description: "`*`: all of them. `apply`: to carry out what was proposed, or to let a guard's alarm pass."
})
export const Resource = Schema.Literals([...resources, "*"]).annotate({
  description: "`*`: all but `lua`, the LUA records, which PowerDNS runs as a program."
})

const few = <S extends Schema.Top>(item: S) => Schema.Array(item).check(Schema.isBetweenLength(1, entriesMax))

export const Permission = Schema.Struct({
  verb: Verb,
  resource: Resource,
  zones: Schema.optionalKey(Schema.Array(Values.Name).annotate({ description: "Absent: everywhere." })),
  names: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({
      description:
        "Patterns of names below their zone, one of which must fit. Absent: any name, and the zone as a whole."
    })
  )
}).annotate({ identifier: "Permission" })
export type Permission = typeof Permission.Type

export const PermissionRequest = Schema.Struct({
  verb: Verb,
  resource: Resource,
  zones: Schema.optionalKey(few(Values.NameInput).annotate({ description: "Default: everywhere." })),
  names: Schema.optionalKey(
    few(NamePattern).annotate({
      description: "Patterns of names below their zone. Default: any name, and the zone as a whole."
    })
  )
}).annotate({ identifier: "PermissionRequest" })

const roleFields = {
  name: Schema.String,
  description: Schema.String,
  permissions: Schema.Array(Permission).annotate({ description: "What none of them allows is denied." }),
  builtIn: Schema.Boolean.annotate({ description: "Always there, and never changed." }),
  updatedAt: Schema.optionalKey(Values.Timestamp),
  updatedBy: Schema.optionalKey(Schema.String)
}

export const Role = Schema.Struct({ ...roleFields, ...Values.dryRunMark }).annotate({ identifier: "Role" })
export type Role = typeof Role.Type

export const RolePage = Schema.Struct({
  items: Schema.Array(Schema.Struct(roleFields)),
  nextCursor: Schema.optionalKey(Schema.String.annotate({ description: "Absent on the last page." }))
}).annotate({ identifier: "RolePage" })
export type RolePage = typeof RolePage.Type

const Description = Schema.String.check(Schema.isTrimmed(), Schema.isBetweenLength(1, 500)).annotate({
  description: "What it is for, in a sentence."
})
const Permissions = Schema.Array(PermissionRequest).check(Schema.isMaxLength(permissionsMax))

export const RoleRequest = Schema.Struct({
  name: Schema.String.check(
    Schema.makeFilter((name: string) =>
      isName(name) ? undefined : "is to be 1 to 63 lower-case letters, digits and hyphens, a letter first"
    )
  ),
  description: Description,
  permissions: Permissions,
  reason: Values.Reason
}).annotate({ identifier: "RoleRequest" })
export type RoleRequest = typeof RoleRequest.Type

export const RoleChange = Schema.Struct({
  description: Schema.optionalKey(Description),
  permissions: Schema.optionalKey(Permissions.annotate({ description: "They take the place of those there are." })),
  reason: Values.Reason
}).annotate({ identifier: "RoleChange" })
export type RoleChange = typeof RoleChange.Type

const role = { role: Schema.String }
const dryRun = { dryRun: Schema.optionalKey(Values.DryRun) }

export class Roles extends HttpApiGroup.make("roles")
  .add(
    HttpApiEndpoint.get("list", "/roles", {
      query: { limit: Schema.optionalKey(Page.Limit), cursor: Schema.optionalKey(Page.PlaceCursor) },
      success: HttpApiSchema.WithHeaders(RolePage, { link: Schema.optionalKey(Schema.String) }),
      error: StorageUnavailableProblem
    })
      .annotate(Requires, { verb: "read", resource: "roles" })
      .annotateMerge(OpenApi.annotations({ summary: "Roles, by name" })),
    HttpApiEndpoint.post("create", "/roles", {
      query: dryRun,
      payload: RoleRequest,
      success: HttpApiSchema.WithHeaders(Role.pipe(HttpApiSchema.status(201)), {
        location: Schema.String,
        ...Values.etag
      }),
      error: [RoleNameTakenProblem, TooManyRolesProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "write", resource: "roles" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Makes a role",
          description:
            "Who may not write every role gives no more than it has: a role that allows more than its maker is answered with 403."
        })
      ),
    HttpApiEndpoint.get("get", "/roles/:role", {
      params: role,
      success: HttpApiSchema.WithHeaders(Role, Values.etag),
      error: [RoleNotFoundProblem, StorageUnavailableProblem]
    })
      .annotate(Requires, { verb: "read", resource: "roles" })
      .annotateMerge(OpenApi.annotations({ summary: "One role" })),
    HttpApiEndpoint.patch("change", "/roles/:role", {
      params: role,
      query: dryRun,
      headers: Values.ifMatch,
      payload: RoleChange,
      success: HttpApiSchema.WithHeaders(Role, Values.etag),
      error: [
        RoleNotFoundProblem,
        RoleBuiltInProblem,
        PreconditionFailedProblem,
        PreconditionRequiredProblem,
        StorageUnavailableProblem
      ]
    })
      .annotate(Requires, { verb: "write", resource: "roles" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Changes a role",
          description: "It goes for every live token that has it, at once."
        })
      ),
    HttpApiEndpoint.delete("remove", "/roles/:role", {
      params: role,
      query: { ...dryRun, reason: Values.Reason },
      headers: Values.ifMatch,
      success: Role,
      error: [
        RoleNotFoundProblem,
        RoleBuiltInProblem,
        RoleInUseProblem,
        PreconditionFailedProblem,
        PreconditionRequiredProblem,
        StorageUnavailableProblem
      ]
    })
      .annotate(Requires, { verb: "delete", resource: "roles" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Deletes a role",
          description: "Not one that somebody has. The answer is the role as it was."
        })
      )
  )
  .middleware(Authorization)
  .prefix("/v1")
  .annotateMerge(OpenApi.annotations({ title: "Roles", description: "What people and programs may do." })) {}
