/**
 * What of roles and tokens is known in memory, when changes come at once: one
 * suite for SQLite and PostgreSQL.
 */
import { assert, describe, type Vitest } from "@effect/vitest"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { Roles } from "@prism-dns/core/auth/Roles"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { unlimited } from "@prism-dns/core/auth/Principal"
import * as ZoneRepo from "@prism-dns/core/dns/ZoneRepo"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Deferred, Effect, Fiber, Layer, Redacted, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import { spec } from "./AccessSuite.ts"

const lab = DomainName.make("lab.test")
const actor = { name: "ops", peer: undefined }
const options = { actor, reason: "a test", dryRun: false }
const reading = (verb: "read" | "write") => [{ verb, resource: "hosts" as const }]
const unchecked = () => Effect.void

/** One server's roles and tokens, on the database around. */
const server = Layer.mergeAll(Tokens.layer([]), Roles.layer()).pipe(
  Layer.provideMerge(Layer.merge(Revocations.layer, Zones.layerManaged(T.zones))),
  Layer.provide(SecureRandom.layerWebCrypto),
  Layer.orDie
)

/** When it is heard here of what has committed. */
class News {
  /** Of what is changed from now on: not before `release`. */
  held = false
  readonly released = Deferred.makeUnsafe<void>()
  get release() {
    return Deferred.succeed(this.released, undefined)
  }
}

/** The database around, whose commits are heard of as `news` says. */
const heardBy = (news: News) =>
  Layer.effect(
    SqlClient.SqlClient,
    Effect.map(SqlClient.SqlClient, (sql) => {
      const afterCommit: SqlClient.SqlClient["afterCommit"] = (effect) =>
        sql.afterCommit(news.held ? Effect.andThen(Deferred.await(news.released), effect) : effect)
      return new Proxy(sql, { get: (target, key) => (key === "afterCommit" ? afterCommit : Reflect.get(target, key)) })
    })
  )

/** Does `first` and then `second`; what comes of the first is heard of after the second. */
const overtaken = Effect.fnUntraced(function* (
  news: News,
  first: Effect.Effect<unknown, unknown>,
  hasCommitted: Effect.Effect<boolean, unknown>,
  second: Effect.Effect<unknown, unknown>
) {
  news.held = true
  const waiting = yield* Effect.forkChild(first)
  yield* waitUntil("the first has committed", hasCommitted, (yes) => yes)
  news.held = false
  yield* second
  yield* news.release
  yield* Fiber.join(waiting)
})

export const suite = <R>(
  it: { readonly effect: Vitest.Tester<R | Scope.Scope> },
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = (
    title: string,
    body: (news: News) => Effect.Effect<void, unknown, Roles | Tokens | Zones | SqlClient.SqlClient>
  ) =>
    it.effect(title, () => {
      const news = new News()
      return body(news).pipe(Effect.provide(server.pipe(Layer.provideMerge(heardBy(news)), Layer.provide(database))))
    })

  const isThere = (statement: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<unknown>, unknown>) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.map(statement(sql), (rows) => rows.length > 0))

  describe("changes that are heard of in another order than that of their commits", () => {
    test("leave a role as the last one made it", (news) =>
      Effect.gen(function* () {
        const roles = yield* Roles
        const sql = yield* SqlClient.SqlClient
        yield* roles.create({ name: "team", description: "a", permissions: [] }, options)
        yield* overtaken(
          news,
          roles.change("team", { permissions: reading("write"), description: "b" }, options, unchecked),
          isThere((sql) => sql`SELECT 1 AS one FROM access_role WHERE description = 'b'`).pipe(
            Effect.provideService(SqlClient.SqlClient, sql)
          ),
          roles.change("team", { permissions: reading("read"), description: "c" }, options, unchecked)
        )
        assert.strictEqual(roles.find("team")?.description, "c")
        assert.deepStrictEqual(roles.permissionsOf(["team"]), reading("read"))
      }))

    test("do not bring a role back that was deleted, and let one of its name come", (news) =>
      Effect.gen(function* () {
        const roles = yield* Roles
        const sql = yield* SqlClient.SqlClient
        yield* roles.create({ name: "team", description: "a", permissions: [] }, options)
        yield* overtaken(
          news,
          roles.change("team", { permissions: reading("write"), description: "b" }, options, unchecked),
          isThere((sql) => sql`SELECT 1 AS one FROM access_role WHERE description = 'b'`).pipe(
            Effect.provideService(SqlClient.SqlClient, sql)
          ),
          roles.remove("team", options, unchecked)
        )
        assert.isUndefined(roles.find("team"))
        yield* roles.create({ name: "team", description: "d", permissions: [] }, options)
        assert.strictEqual(roles.find("team")?.description, "d")
      }))

    test("do not make a token good that was revoked, and leave its grant as the last one made it", (news) =>
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const sql = yield* SqlClient.SqlClient
        const { token } = yield* tokens.issue(spec({ allows: "bearer" }), actor, "a test")
        const grant = { ...unlimited, names: ["web-*"] }
        yield* overtaken(
          news,
          tokens.change("rack-7", { grant }, options, unchecked),
          isThere((sql) => sql`SELECT 1 AS one FROM access_token WHERE grants LIKE '%web-%'`).pipe(
            Effect.provideService(SqlClient.SqlClient, sql)
          ),
          tokens.revoke("rack-7", actor, "gone")
        )
        const found = tokens.verify(Redacted.value(token), "agent", "bearer")
        assert.strictEqual(found instanceof TokenRefused && found.code, "token-revoked")
      }))

    test("do not make a token good that was revoked as soon as it was made", (news) =>
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const sql = yield* SqlClient.SqlClient
        let text = ""
        yield* overtaken(
          news,
          Effect.map(tokens.issue(spec({ allows: "bearer" }), actor, "a test"), ({ token }) => {
            text = Redacted.value(token)
          }),
          isThere((sql) => sql`SELECT 1 AS one FROM access_token`).pipe(
            Effect.provideService(SqlClient.SqlClient, sql)
          ),
          tokens.revoke("rack-7", actor, "gone")
        )
        const found = tokens.verify(text, "agent", "bearer")
        assert.strictEqual(found instanceof TokenRefused && found.code, "token-revoked")
      }))
  })

  describe("a zone that has gone and is still known here", () => {
    const goes = Effect.gen(function* () {
      const zones = yield* Zones
      const sql = yield* SqlClient.SqlClient
      const repo = ZoneRepo.make(sql, zones.configured)
      const by = { actor: "ops", nowMillis: 0 }
      yield* repo.writeSetting({ name: lab, origin: "api", overlay: {} }, { ...by, generation: 1 })
      const settings = ZoneRepo.recordedOf(repo.zoneWith(lab, {}, 1))
      yield* repo.record({ name: lab, event: "created", settings }, { ...by, generation: 1 })
      yield* zones.reload
      // By another server, or a moment ago.
      yield* repo.removeSetting(lab)
      yield* repo.record({ name: lab, event: "deleted", settings }, { ...by, generation: 2 })
      assert.isDefined(zones.find(lab))
    })

    test("gets no token and no role, and the zone is known to have gone", () =>
      Effect.gen(function* () {
        yield* goes
        const tokens = yield* Tokens
        const roles = yield* Roles
        const given = spec({ grant: { ...unlimited, zones: [lab] } })
        const refused = yield* Effect.flip(tokens.issue(given, actor, "a test"))
        assert.deepInclude(refused, { _tag: "TokenSpecInvalid", field: "grant/zones" })
        const { record } = yield* tokens.issue(spec(), actor, "a test")
        assert.strictEqual(record.name, "rack-7")
        assert.isUndefined((yield* Zones).find(lab))
        const permissions = reading("read").map((each) => ({ ...each, zones: [lab] }))
        const role = { name: "lab", description: "", permissions }
        assert.deepInclude(yield* Effect.flip(roles.create(role, options)), { _tag: "RoleZoneUnknown", zone: lab })
      }))

    test("gets no role either", () =>
      Effect.gen(function* () {
        yield* goes
        const roles = yield* Roles
        const permissions = reading("read").map((each) => ({ ...each, zones: [lab] }))
        const role = { name: "lab", description: "", permissions }
        assert.deepInclude(yield* Effect.flip(roles.create(role, options)), { _tag: "RoleZoneUnknown", zone: lab })
        assert.isUndefined(roles.find("lab"))
        yield* roles.create({ ...role, permissions: reading("read") }, options)
      }))
  })
}
