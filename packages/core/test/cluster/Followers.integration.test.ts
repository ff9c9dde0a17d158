import { layer } from "@effect/vitest"
import { Context, Effect, Fiber, Latch, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { Identities } from "@prism-dns/core/auth/Identities"
import * as Audit from "@prism-dns/core/audit/Entries"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { type Revocation, Revocations } from "@prism-dns/core/auth/Revocations"
import { Roles } from "@prism-dns/core/auth/Roles"
import { type TokenHolder, TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Cluster } from "@prism-dns/core/cluster/Cluster"
import * as Versions from "@prism-dns/core/cluster/Versions"
import { Acknowledgements } from "@prism-dns/core/dns/Acknowledgements"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Ownership } from "@prism-dns/core/dns/Ownership"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { Leases } from "@prism-dns/core/registry/Leases"
import { ManagedZones } from "@prism-dns/core/registry/ManagedZones"
import { Registry } from "@prism-dns/core/registry/Registry"
import { expect } from "vitest"
import { actor, keyOf } from "../auth/AccessSuite.ts"
import * as Failovers from "../harness/Failovers.ts"
import { Postgres } from "../harness/Postgres.ts"
import { waitUntil } from "../harness/waitUntil.ts"
import * as T from "../layers.ts"
import * as Servers from "./servers.ts"

const parts = ManagedZones.layer().pipe(
  Layer.provideMerge(Identities.layer()),
  Layer.provideMerge(Tokens.layer([])),
  Layer.provideMerge(Roles.layer()),
  Layer.provideMerge(Revocations.layer),
  Layer.provideMerge(Registry.layer()),
  Layer.provideMerge(Layer.mergeAll(Acknowledgements.layer, Leases.layer, RecordSource.layer)),
  Layer.provideMerge(Outbox.layer),
  Layer.provideMerge(Ownership.layer),
  Layer.provideMerge(Zones.layerManaged(T.zones)),
  Layer.provide([SecureRandom.layerWebCrypto, Cluster.layerAlone]),
  Layer.orDie
)

const options = { actor, reason: "for a test", dryRun: false }
const unchecked = () => Effect.void

/** What the token's text is good for. */
const said = (holder: TokenHolder | TokenRefused) => (holder instanceof TokenRefused ? holder.code : holder.grant)

const seen = <A>(what: string, look: () => A, holds: (seen: A) => boolean) => waitUntil(what, Effect.sync(look), holds)

for (const ears of ["hearing", "deaf"] as const) {
  const how = ears === "hearing" ? "at once" : "by its own look, though nobody tells it"
  layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })(`a server that is ${ears}`, (it) => {
    it.effect(`takes over roles and tokens as another server has them, ${how}`, () =>
      Effect.gen(function* () {
        const { server } = yield* Servers.database
        const [a, b] = [yield* server(parts, ears), yield* server(parts, ears)]
        const [rolesA, rolesB] = [Context.get(a, Roles), Context.get(b, Roles)]
        const [tokensA, tokensB] = [Context.get(a, Tokens), Context.get(b, Tokens)]
        const heard: Array<Revocation> = []
        Context.get(b, Revocations).listen((revocation) => void heard.push(revocation))

        yield* rolesA.create({ name: "team", description: "one", permissions: [] }, options)
        yield* seen(
          "the role is there",
          () => rolesB.find("team")?.description,
          (text) => text === "one"
        )
        yield* rolesA.change("team", { description: "two" }, options, unchecked)
        yield* seen(
          "the role is changed",
          () => rolesB.find("team")?.description,
          (text) => text === "two"
        )
        yield* rolesB.remove("team", options, unchecked)
        yield* seen(
          "the role is gone",
          () => rolesA.find("team"),
          (role) => role === undefined
        )

        const { token } = yield* tokensA.issue(
          { name: "rack-7", role: "agent", allows: "both", grant: unlimited },
          actor,
          "for a test"
        )
        const text = Redacted.value(token)
        const now = () => said(tokensB.verify(text, "agent"))
        yield* seen("the token is good", now, (grant) => typeof grant !== "string")
        expect(heard).toEqual([])
        const grant = { ...unlimited, names: ["web-*"] }
        yield* tokensA.change("rack-7", { grant }, options, unchecked)
        yield* seen("the grant is another", now, (one) => typeof one !== "string" && one.names?.[0] === "web-*")
        yield* seen(
          "its sessions are told",
          () => heard.length,
          (n) => n === 1
        )
        yield* tokensA.revoke("rack-7", actor, "for a test")
        yield* seen("the token is revoked", now, (code) => code === "token-revoked")
        yield* seen(
          "its sessions are ended",
          () => heard.length,
          (n) => n === 2
        )
        expect(heard.map(({ code, principal }) => [principal, code])).toEqual([
          ["rack-7", "unavailable"],
          ["rack-7", "token-revoked"]
        ])
      }).pipe(Effect.scoped)
    )

    it.effect(`ends the sessions of an identity that another server has revoked, ${how}`, () =>
      Effect.gen(function* () {
        const { server } = yield* Servers.database
        const [a, b] = [yield* server(parts, ears), yield* server(parts, ears)]
        const heard: Array<Revocation> = []
        Context.get(b, Revocations).listen((revocation) => void heard.push(revocation))
        const tokens = Context.get(a, Tokens)
        const { token } = yield* tokens.issue(
          { name: "rack-7", role: "agent", allows: "enrol", grant: unlimited },
          actor,
          "for a test"
        )
        const holder = tokens.verify(Redacted.value(token), "agent", "enrol") as TokenHolder
        const { name } = yield* Context.get(b, Identities).enrol({
          publicKey: keyOf(1),
          token: holder,
          peer: "192.0.2.7"
        })
        yield* Context.get(a, Identities).revoke(name, actor, "for a test")
        yield* seen(
          "its sessions are ended",
          () => heard.map(({ principal }) => principal),
          (all) => all.includes(name)
        )
      }).pipe(Effect.scoped)
    )

    it.effect(`knows zones and patterns to leave alone as another server has them, ${how}`, () =>
      Effect.gen(function* () {
        const { server } = yield* Servers.database
        const [a, b] = [yield* server(parts, ears), yield* server(parts, ears)]
        const zones = Context.get(b, Zones)
        const lab = DomainName.make("lab.test")
        let told = 0
        yield* zones.changed(() => void (told += 1))
        yield* Context.get(a, ManagedZones).create(lab, {}, options)
        yield* seen(
          "the zone is there",
          () => zones.find(lab)?.name,
          (name) => name === lab
        )
        expect(told).toBe(1)

        const ownership = Context.get(b, Ownership)
        const sql = Context.get(a, SqlClient.SqlClient)
        const name = DomainName.make("x.lab.test")
        yield* sql.withTransaction(
          Effect.andThen(
            sql`INSERT INTO ignored (zone, pattern, actor, reason, at) VALUES (${lab}, '*', 'ops', 'for a test', 1)`,
            Effect.provide(Effect.flatten(Versions.bumpOf(sql, "ownership")), a)
          )
        )
        yield* seen(
          "the pattern is known",
          () => ownership.isIgnored(lab, name),
          (ignored) => ignored
        )
      }).pipe(Effect.scoped)
    )
  })
}

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("changes that meet", (it) => {
  it.effect("wait for each other in one order: a change that others follow holds nobody up before its end", () =>
    Effect.gen(function* () {
      const { server } = yield* Servers.database
      const [a, b] = [yield* server(parts), yield* server(parts)]
      const sql = Context.get(a, SqlClient.SqlClient)
      const bump = yield* Effect.provide(Versions.bumpOf(sql, "access"), a)
      const [isMidway, goOn] = [yield* Latch.make(), yield* Latch.make()]
      let attempts = 0
      // As the identities do it: others are to follow it, then comes more, and the entries are gathered.
      const first = yield* Effect.gen(function* () {
        attempts += 1
        yield* bump
        yield* Audit.write(sql, { atMillis: 1, actor, action: "identity.revoked", subject: "x", reason: "for a test" })
        yield* isMidway.open
        yield* goOn.await
      }).pipe(Audit.inTransaction(sql), Effect.forkScoped)
      yield* isMidway.await
      yield* Context.get(b, Roles).create({ name: "team", description: "one", permissions: [] }, options)
      yield* Context.get(b, Tokens).issue(
        { name: "rack-7", role: "agent", allows: "both", grant: unlimited },
        actor,
        "for a test"
      )
      yield* goOn.open
      yield* Fiber.join(first)
      expect(attempts).toBe(1)
      yield* sql`SELECT version FROM change_version WHERE topic = 'access'`.pipe(
        Effect.tap((rows) => Effect.sync(() => expect(rows.map(({ version }) => Number(version))).toEqual([3])))
      )
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })(
  "a database server that took over",
  (it) => {
    it.effect("without the last changes is followed as it is, also where memory has higher generations", () =>
      Effect.gen(function* () {
        const { server } = yield* Servers.database
        const failover = Failovers.make()
        const a = yield* server(parts.pipe(Layer.provide(failover.layer)))
        const [roles, tokens] = [Context.get(a, Roles), Context.get(a, Tokens)]
        const [sql, leases] = [Context.get(a, SqlClient.SqlClient), Context.get(a, Leases)]
        const revoked: Array<string> = []
        Context.get(a, Revocations).listen(({ principal }) => void revoked.push(principal))
        const issue = (name: string) =>
          Effect.map(
            tokens.issue({ name, role: "agent", allows: "both", grant: unlimited }, actor, "for a test"),
            ({ token }) => Redacted.value(token)
          )
        const [kept, lost] = [yield* issue("kept"), yield* issue("lost")]
        yield* roles.create({ name: "kept", description: "one", permissions: [] }, options)
        const before = yield* sql<{ readonly name: string; readonly generation: number }>`
        SELECT name, generation FROM access_role UNION ALL SELECT name, generation FROM access_token`
        const generation = (name: string) => Number(before.find((row) => row.name === name)?.generation)
        yield* roles.create({ name: "lost", description: "two", permissions: [] }, options)
        yield* roles.change("kept", { description: "changed" }, options, unchecked)
        yield* tokens.revoke("kept", actor, "for a test")
        yield* Context.get(a, Registry).register(T.registration("web", "192.0.2.1", "fleet"))
        const { addresses, fqdn, registrant } = T.registration("web", "192.0.2.1", "fleet")
        const renewed = () => leases.renew(fqdn, addresses, registrant, Date.now()) !== undefined
        expect(renewed()).toBe(true)
        // What a server has that took over before all of that was there.
        yield* sql`DELETE FROM access_role WHERE name = 'lost'`
        yield* sql`UPDATE access_role SET description = 'one', generation = ${generation("kept")} WHERE name = 'kept'`
        yield* sql`DELETE FROM access_token WHERE name = 'lost'`
        yield* sql`
        UPDATE access_token SET revoked_at = NULL, revoked_reason = NULL, generation = ${generation("kept")}
        WHERE name = 'kept'`
        failover.move()
        yield* seen(
          "roles are those of the database",
          () => [roles.find("kept")?.description, roles.find("lost")],
          ([one, two]) => one === "one" && two === undefined
        )
        yield* seen(
          "tokens are those of the database",
          () => [said(tokens.verify(kept, "agent")), said(tokens.verify(lost, "agent"))],
          ([one, two]) => typeof one !== "string" && two === "token-invalid"
        )
        expect(revoked).toContain("lost")
        expect(renewed()).toBe(false)
      }).pipe(Effect.scoped)
    )
  }
)

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("a database that is away", (it) => {
  it.effect("leaves what is in memory as it is; once it is back, what was changed meanwhile is taken over", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { server } = yield* Servers.database
      const [a, b] = [yield* server(parts), yield* server(parts)]
      yield* Context.get(a, Roles).create({ name: "team", description: "one", permissions: [] }, options)
      const now = () => Context.get(b, Roles).find("team")?.description
      yield* seen("the role is there", now, (text) => text === "one")
      yield* postgres.stop("fast")
      expect(now()).toBe("one")
      yield* postgres.start
      yield* waitUntil(
        "it can be changed again",
        Context.get(a, Roles).change("team", { description: "two" }, options, unchecked),
        () => true
      )
      yield* waitUntil("it is followed again", Effect.sync(now), (text) => text === "two", { within: "20 seconds" })
    }).pipe(Effect.scoped)
  )
})
