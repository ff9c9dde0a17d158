/**
 * Roles: the built-in ones, and those that an installation makes of its own.
 *
 * Promises: what a role allows is answered from memory, which is read at start
 * and follows each change after its commit, in whatever order it hears of them,
 * and the database as it is where another server of it took over, so that a
 * change goes for every live token at once; a zone that a role comes to name is
 * there; built-in roles cannot be changed; a role that tokens, the configuration
 * or an identity provider name is not deleted. A name that no role has allows
 * nothing. Leaves to others: the decision (`Permissions`), and whether whoever
 * changes a role may give what it allows.
 */
import { Clock, Context, Effect, Layer, Schema } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import * as Audit from "../audit/Entries.ts"
import * as Versions from "../cluster/Versions.ts"
import type { DomainName } from "../domain/DomainName.ts"
import { Zones } from "../dns/Zones.ts"
import { Durability } from "../storage/Durability.ts"
import * as Generation from "../storage/Generation.ts"
import { againOnCollision } from "../storage/SqlFailure.ts"
import * as NamedZones from "./NamedZones.ts"
import { builtInRoles, type Permission, type Role } from "./Permissions.ts"

/** Roles of one's own at the most. */
export const rolesMax = 1000

const namePattern = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** True when a role may be called so. */
export const isName = (name: string): boolean => namePattern.test(name)

/** A role with what is kept beside it. */
export interface StoredRole extends Role {
  readonly builtIn: boolean
  /** 0 for a built-in one. */
  readonly generation: number
  readonly updatedAtMillis: number | undefined
  readonly updatedBy: string | undefined
}

/** There is no role of this name. */
export class RoleUnknown extends Schema.TaggedError<RoleUnknown>()("RoleUnknown", { name: Schema.String }) {
  override get message(): string {
    return `there is no role ${this.name}`
  }
}

/** There is a role of this name. */
export class RoleNameTaken extends Schema.TaggedError<RoleNameTaken>()("RoleNameTaken", { name: Schema.String }) {
  override get message(): string {
    return `there is a role ${this.name} already`
  }
}

/** The role is a built-in one, and stays as it is. */
export class RoleBuiltIn extends Schema.TaggedError<RoleBuiltIn>()("RoleBuiltIn", { name: Schema.String }) {
  override get message(): string {
    return `the role ${this.name} is built in and stays as it is; make one of your own`
  }
}

/** Somebody has the role. */
export class RoleInUse extends Schema.TaggedError<RoleInUse>()("RoleInUse", {
  name: Schema.String,
  users: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `the role ${this.name} is in use by ${this.users.join(", ")}`
  }
}

/** There are as many roles as there may be. */
export class TooManyRoles extends Schema.TaggedError<TooManyRoles>()("TooManyRoles", { max: Schema.Int }) {
  override get message(): string {
    return `there are ${this.max} roles of your own already, which is the most`
  }
}

/** The role is to name a zone that is not there. */
export class RoleZoneUnknown extends Schema.TaggedError<RoleZoneUnknown>()("RoleZoneUnknown", {
  zone: Schema.String,
  /** Which of the permissions names it. */
  permission: Schema.Int
}) {
  override get message(): string {
    return `${this.zone} is not one of the zones`
  }
}

/** A change that may also be tried only: all is checked, nothing is written. */
export interface ChangeOptions {
  readonly actor: Audit.Actor
  readonly reason?: string | undefined
  readonly dryRun: boolean
}

export class Roles extends Context.Service<
  Roles,
  {
    readonly find: (name: string) => StoredRole | undefined
    /** In the order of their names. */
    readonly all: () => ReadonlyArray<StoredRole>
    /** All that these roles allow; a name that no role has allows nothing. */
    readonly permissionsOf: (names: ReadonlyArray<string>) => ReadonlyArray<Permission>
    readonly create: (
      role: Role,
      options: ChangeOptions
    ) => Effect.Effect<StoredRole, RoleNameTaken | TooManyRoles | RoleZoneUnknown | SqlError.SqlError>
    /** `check` is asked with what is there, in the transaction of the change. */
    readonly change: <E, R>(
      name: string,
      change: Partial<Pick<Role, "description" | "permissions">>,
      options: ChangeOptions,
      check: (current: StoredRole, after: Role) => Effect.Effect<void, E, R>
    ) => Effect.Effect<StoredRole, RoleUnknown | RoleBuiltIn | RoleZoneUnknown | SqlError.SqlError | E, R>
    readonly remove: <E, R>(
      name: string,
      options: ChangeOptions,
      check: (current: StoredRole) => Effect.Effect<void, E, R>
    ) => Effect.Effect<StoredRole, RoleUnknown | RoleBuiltIn | RoleInUse | SqlError.SqlError | E, R>
    /** The role as a change of this generation left it, where the audit still knows. */
    readonly at: (
      name: string,
      generation: number
    ) => Effect.Effect<Pick<Role, "description" | "permissions"> | undefined, SqlError.SqlError>
  }
>()("@prism-dns/core/auth/Roles") {
  /** The built-in ones, and those of the database around. `users`: who in the configuration has which role. */
  static readonly layer = (users: ReadonlyArray<RoleUser> = []) => Layer.effect(Roles, make(users))

  /** The built-in ones and those given, without a database: none can be made or changed. */
  static readonly layerStatic = (own: ReadonlyArray<Role> = []): Layer.Layer<Roles> =>
    Layer.sync(Roles, () => {
      const memory = makeMemory()
      for (const role of own) memory.put(stored(role))
      const nobody = () => Effect.die(new Error("these roles have no database"))
      return Roles.of({ ...memory, create: nobody, change: nobody, remove: nobody, at: nobody })
    })
}

/** Somebody beyond the database who has a role. */
export interface RoleUser {
  readonly role: string
  /** For people: `the token ops of the configuration`. */
  readonly user: string
}

const stored = (role: Role): StoredRole => ({
  ...role,
  builtIn: false,
  generation: 0,
  updatedAtMillis: undefined,
  updatedBy: undefined
})

const builtIn: ReadonlyMap<string, StoredRole> = new Map(
  builtInRoles.map((role) => [role.name, { ...stored(role), builtIn: true }])
)

/** Removed roles that are remembered, far longer than a commit takes to be heard of. */
const removedMax = 1000

const makeMemory = () => {
  const own = new Map<string, StoredRole>()
  /** Roles that were removed lately, and when: what was changed before and is heard of later does not bring them back. */
  const removed = new Map<string, number>()
  const find = (name: string) => builtIn.get(name) ?? own.get(name)
  return {
    find,
    all: () => [...builtIn.values(), ...own.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
    permissionsOf: (names: ReadonlyArray<string>) => names.flatMap((name) => find(name)?.permissions ?? []),
    /** What a change has made of it; what is newer is known already where changes are heard of in another order. */
    put: (role: StoredRole) => {
      const known = own.get(role.name)?.generation ?? removed.get(role.name) ?? -1
      if (known > role.generation) return
      removed.delete(role.name)
      own.set(role.name, role)
    },
    forget: (name: string, generation: number) => {
      if ((own.get(name)?.generation ?? -1) > generation) return
      own.delete(name)
      removed.delete(name)
      removed.set(name, generation)
      if (removed.size > removedMax) removed.delete(removed.keys().next().value!)
    },
    /** These and no others, whatever was known. */
    reset: (roles: ReadonlyArray<StoredRole>) => {
      own.clear()
      removed.clear()
      for (const role of roles) own.set(role.name, role)
    },
    own: (): ReadonlyArray<StoredRole> => [...own.values()],
    size: () => own.size
  }
}

interface RoleRow {
  readonly name: string
  readonly description: string
  readonly permissions: string
  readonly generation: number | bigint
  readonly updated_at: number | bigint
  readonly updated_by: string
}

const toRole = (row: RoleRow): StoredRole => ({
  name: row.name,
  description: row.description,
  permissions: JSON.parse(row.permissions),
  builtIn: false,
  generation: Number(row.generation),
  updatedAtMillis: Number(row.updated_at),
  updatedBy: row.updated_by
})

const zonesOf = (role: Role | undefined): ReadonlyArray<DomainName> =>
  role === undefined ? [] : [...new Set(role.permissions.flatMap(({ zones = [] }) => zones))]

/** What the audit says of a role. */
const auditView = ({ description, permissions }: Role) => ({ description, permissions })

/** Tokens that are named when a role is in use. */
const usersShown = 20

const make = Effect.fnUntraced(function* (users: ReadonlyArray<RoleUser>) {
  const sql = yield* SqlClient.SqlClient
  const zones = yield* Zones
  const bump = yield* Versions.bumpOf(sql, "access")
  const durability = yield* Durability
  const memory = makeMemory()
  const columns = sql.literal("name, description, permissions, generation, updated_at, updated_by")
  const forUpdate = sql.literal(sql.onDialectOrElse({ pg: () => "FOR UPDATE", orElse: () => "" }))

  const reload = Effect.gen(function* () {
    const before = memory.own()
    const rows = yield* sql<RoleRow>`SELECT ${columns} FROM access_role`
    for (const row of rows) memory.put(toRole(row))
    const names = new Set(rows.map(({ name }) => name))
    for (const { generation, name } of before) if (!names.has(name)) memory.forget(name, generation)
  })
  yield* reload
  const anew = Effect.map(sql<RoleRow>`SELECT ${columns} FROM access_role`, (rows) => memory.reset(rows.map(toRole)))
  yield* Versions.follow(sql, { topic: "access", reload, anew })

  const lock = (name: string) =>
    Effect.map(sql<RoleRow>`SELECT ${columns} FROM access_role WHERE name = ${name} ${forUpdate}`, (rows) =>
      rows[0] === undefined ? undefined : toRole(rows[0])
    )

  /** The first permission that comes to name a zone that `isThere` does not know. */
  const unknownZone = (role: Role, before: Role | undefined, isThere: (zone: DomainName) => boolean) => {
    const named = new Set(zonesOf(before))
    for (const [permission, { zones: names = [] }] of role.permissions.entries()) {
      const zone = names.find((name) => !named.has(name) && !isThere(name))
      if (zone !== undefined) return new RoleZoneUnknown({ zone, permission })
    }
    return undefined
  }
  const checkZones = (role: Role, before?: Role) =>
    unknownZone(role, before, (zone) => zones.find(zone) !== undefined) ?? Effect.void
  /** The same for the transaction that writes it: a zone may go at this moment. */
  const requireZones = Effect.fnUntraced(function* (role: Role, before?: Role) {
    yield* NamedZones.hold(sql, zones, zonesOf(role))
    yield* checkZones(role, before)
  })

  const create: Roles["Service"]["create"] = Effect.fn("Roles.create")(function* (role, { actor, dryRun, reason }) {
    if (memory.find(role.name) !== undefined) return yield* new RoleNameTaken({ name: role.name })
    if (memory.size() >= rolesMax) return yield* new TooManyRoles({ max: rolesMax })
    yield* checkZones(role)
    const nowMillis = yield* Clock.currentTimeMillis
    const made = (generation: number): StoredRole => ({
      ...role,
      builtIn: false,
      generation,
      updatedAtMillis: nowMillis,
      updatedBy: actor.name
    })
    if (dryRun) return made(0)
    const after = yield* Effect.gen(function* () {
      const after = made(yield* Generation.next(sql))
      yield* sql`
          INSERT INTO access_role (
            name, description, permissions, generation, created_at, created_by, updated_at, updated_by)
          VALUES (${role.name}, ${role.description}, ${JSON.stringify(role.permissions)}, ${after.generation},
            ${nowMillis}, ${actor.name}, ${nowMillis}, ${actor.name})`
      yield* requireZones(role)
      const entry = { actor, action: "role.created" as const, subject: role.name, after: auditView(role), reason }
      yield* Audit.writeAll(sql, [{ ...entry, generation: after.generation }], nowMillis)
      yield* sql.afterCommit(Effect.sync(() => memory.put(after)))
      yield* bump
      return after
    }).pipe(
      sql.withTransaction,
      Effect.catchReason("SqlError", "UniqueViolation", () => Effect.fail(new RoleNameTaken({ name: role.name }))),
      againOnCollision
    )
    yield* durability.flush
    return after
  })

  /** The role of one's own that is to be changed. */
  const lockOwn = Effect.fnUntraced(function* (name: string) {
    if (builtIn.has(name)) return yield* new RoleBuiltIn({ name })
    return (yield* lock(name)) ?? (yield* new RoleUnknown({ name }))
  })

  const change: Roles["Service"]["change"] = (name, changes, { actor, dryRun, reason }, check) =>
    Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const after = yield* Effect.gen(function* () {
        const before = yield* lockOwn(name)
        const changed = {
          ...before,
          description: changes.description ?? before.description,
          permissions: changes.permissions ?? before.permissions,
          updatedAtMillis: nowMillis,
          updatedBy: actor.name
        }
        yield* check(before, changed)
        yield* checkZones(changed, before)
        if (JSON.stringify(auditView(before)) === JSON.stringify(auditView(changed))) return before
        if (dryRun) return { ...changed, generation: before.generation }
        const after = { ...changed, generation: yield* Generation.next(sql) }
        yield* sql`
          UPDATE access_role SET description = ${after.description}, permissions = ${JSON.stringify(after.permissions)},
            generation = ${after.generation}, updated_at = ${nowMillis}, updated_by = ${actor.name}
          WHERE name = ${name}`
        yield* requireZones(after, before)
        const entry = { actor, action: "role.changed" as const, subject: name, before: auditView(before), reason }
        const { generation } = after
        yield* Audit.writeAll(sql, [{ ...entry, after: auditView(after), generation }], nowMillis)
        yield* sql.afterCommit(Effect.sync(() => memory.put(after)))
        yield* bump
        return after
      }).pipe(sql.withTransaction, againOnCollision)
      yield* durability.flush
      return after
    }).pipe(Effect.withSpan("Roles.change"))

  /** Who has the role: tokens that are good, and whoever the configuration names. */
  const usersOf = Effect.fnUntraced(function* (role: string, nowMillis: number) {
    const rows = yield* sql<{ readonly name: string; readonly roles: string }>`
      SELECT name, roles FROM access_token
      WHERE roles LIKE ${`%"${role}"%`} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ${nowMillis})
      ORDER BY name LIMIT ${usersShown}`
    return [
      ...users.filter((each) => each.role === role).map(({ user }) => user),
      ...rows.map(({ name }) => `the token ${name}`)
    ]
  })

  const remove: Roles["Service"]["remove"] = (name, { actor, dryRun, reason }, check) =>
    Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const before = yield* Effect.gen(function* () {
        const before = yield* lockOwn(name)
        yield* check(before)
        const users = yield* usersOf(name, nowMillis)
        if (users.length > 0) return yield* new RoleInUse({ name, users })
        if (dryRun) return before
        const generation = yield* Generation.next(sql)
        yield* sql`DELETE FROM access_role WHERE name = ${name}`
        const entry = { actor, action: "role.deleted" as const, subject: name, before: auditView(before), reason }
        yield* Audit.writeAll(sql, [{ ...entry, generation }], nowMillis)
        yield* sql.afterCommit(Effect.sync(() => memory.forget(name, generation)))
        yield* bump
        return before
      }).pipe(sql.withTransaction, againOnCollision)
      yield* durability.flush
      return before
    }).pipe(Effect.withSpan("Roles.remove"))

  const at: Roles["Service"]["at"] = Effect.fn("Roles.at")(function* (name, generation) {
    const rows = yield* sql<{ readonly after: string | null }>`
      SELECT after FROM audit_log WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'role.%'
      UNION ALL
      SELECT after FROM audit_entry WHERE subject = ${name} AND generation = ${generation} AND action LIKE 'role.%'`
    const after = rows[0]?.after
    return after === null || after === undefined ? undefined : JSON.parse(after)
  })

  return Roles.of({
    find: memory.find,
    all: memory.all,
    permissionsOf: memory.permissionsOf,
    create,
    change,
    remove,
    at
  })
})
