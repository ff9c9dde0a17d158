/**
 * What tokens and identities promise, on whatever database: one suite for
 * SQLite and PostgreSQL. `database` gives each test a new, migrated database.
 */
import { assert, describe } from "@effect/vitest"
import type { Vitest } from "@effect/vitest"
import { Effect, Layer, Option, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { IpNetwork } from "effect/net"
import { SqlClient } from "effect/sql"
import { isDeepStrictEqual } from "node:util"
import { Identities, IdentityRefused, type IdentitiesOptions } from "@prism-dns/core/auth/Identities"
import { type Grant, type Principal, unlimited } from "@prism-dns/core/auth/Principal"
import { type Revocation, Revocations } from "@prism-dns/core/auth/Revocations"
import {
  type ConfiguredToken,
  stateOf,
  type TokenHolder,
  TokenRefused,
  Tokens,
  type TokensOptions,
  type TokenSpec
} from "@prism-dns/core/auth/Tokens"
import type * as Zone from "@prism-dns/core/domain/Zone"
import { RecordSource } from "@prism-dns/core/dns/RecordSource"
import { Leases } from "@prism-dns/core/registry/Leases"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as T from "../layers.ts"

export const configured: ReadonlyArray<ConfiguredToken> = [
  { name: "fleet", token: Redacted.make("fleet-secret"), role: "agent" },
  { name: "ops", token: Redacted.make("ops-secret"), role: "admin" }
]

export const actor = { name: "ops", peer: "192.0.2.250" }

/** A key as it stands on the wire; each `n` another one. */
export const keyOf = (n: number): string => Buffer.alloc(32, n).toString("base64url")

/** Tokens and identities with all they stand on, on the database around. */
export const access = (
  options: Partial<TokensOptions & IdentitiesOptions> = {},
  zones: ReadonlyArray<Zone.Zone> = T.zones
) =>
  Identities.layer(options).pipe(
    Layer.provideMerge(Tokens.layer(configured, options)),
    Layer.provideMerge(Revocations.layer),
    Layer.provideMerge(T.registry({}, zones)),
    Layer.provide(SecureRandom.layerWebCrypto),
    Layer.orDie
  )

export const spec = (given: Partial<TokenSpec> = {}): TokenSpec => ({
  name: "rack-7",
  role: "agent",
  allows: "enrol",
  grant: unlimited,
  ...given
})

const issue = Effect.fnUntraced(function* (given: Partial<TokenSpec> = {}) {
  const tokens = yield* Tokens
  const { record, token } = yield* tokens.issue(spec(given), actor, "for a test")
  return { record, text: Redacted.value(token) }
})

const codeOf = (result: TokenHolder | TokenRefused): string =>
  result instanceof TokenRefused ? result.code : result.name

/** The holder of a token that must be good. */
const holderOf = Effect.fnUntraced(function* (text: string, use: "bearer" | "enrol" = "enrol") {
  const holder = (yield* Tokens).verify(text, "agent", use)
  if (holder instanceof TokenRefused) return assert.fail(`${holder.code}: ${holder.message}`)
  return holder
})

const enrol = Effect.fnUntraced(function* (text: string, key: number) {
  const identities = yield* Identities
  return yield* identities.enrol({ publicKey: keyOf(key), token: yield* holderOf(text), peer: "192.0.2.7" })
})

const audit = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql<{
    readonly action: string
    readonly actor: string
    readonly peer: string | null
    readonly subject: string
    readonly reason: string | null
  }>`SELECT action, actor, peer, subject, reason FROM audit_entry ORDER BY sequence`.pipe(
    Effect.map((rows) => rows.map((row) => ({ ...row })))
  )
)

const actions = Effect.map(audit, (entries) => entries.map(({ action }) => action))

/** All that is kept, as text. */
const everything = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = ["access_token", "identity", "identity_former_key", "host", "host_history", "audit_entry"] as const
  const rows = yield* Effect.forEach(tables, (table) => sql`SELECT * FROM ${sql(table)} ORDER BY 1, 2`)
  return JSON.stringify(rows, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value))
})

/** What is announced from now on, each once: the look at what other servers have revoked may say it a second time. */
const announced = Effect.map(Revocations, ({ listen }) => {
  const heard: Array<Revocation> = []
  listen((revocation) => {
    if (!heard.some((each) => isDeepStrictEqual(each, revocation))) heard.push(revocation)
  })
  return heard
})

/** Registers a host as the holder of a key that was enrolled. */
const registerAs = Effect.fnUntraced(function* (principal: Principal, hostname: string, address: string) {
  const registry = yield* Registry
  return yield* registry.register({ ...T.registration(hostname, address), registrant: principal })
})

/** The addresses that should be in the DNS for a name. */
const published = Effect.fnUntraced(function* (hostname: string) {
  const source = yield* RecordSource
  const desired = yield* source.desired(T.forward, [T.nameOf(hostname)])
  return (desired.get(T.nameOf(hostname)) ?? []).flatMap(({ contents }) => contents)
})

const ownerOf = (hostname: string) =>
  Effect.flatMap(Registry, ({ findByName }) =>
    Effect.map(findByName(T.nameOf(hostname)), (found) => Option.getOrThrow(found).owner)
  )

type Services = RecordSource | Tokens | Identities | Revocations | Registry | Leases | SqlClient.SqlClient | T.Time

export const suite = <R>(
  it: Pick<Vitest.MethodsNonLive<R>, "effect">,
  database: Layer.Layer<SqlClient.SqlClient, never, R>
) => {
  const test = <E>(name: string, body: Effect.Effect<void, E, Services>) =>
    it.effect(name, () =>
      T.withTime(
        "still",
        Effect.gen(function* () {
          yield* (yield* T.Time).set(1_000_000)
          yield* Effect.provide(body, access().pipe(Layer.provideMerge(Layer.fresh(database))))
        })
      )
    )

  describe("tokens", () => {
    test(
      "those of the configuration and those made at run time are checked alike",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const { record, text } = yield* issue({ allows: "bearer" })
        assert.match(text, /^prism_[A-Za-z0-9_-]{43}$/)
        assert.deepStrictEqual(tokens.verify("fleet-secret", "agent"), {
          id: undefined,
          name: "fleet",
          role: "agent",
          roles: ["agent"],
          allows: "both",
          grant: unlimited,
          host: undefined,
          origin: "configuration",
          expiresAtMillis: undefined
        })
        assert.deepStrictEqual(tokens.verify(text, "agent"), {
          id: record.id,
          name: "rack-7",
          role: "agent",
          roles: ["agent"],
          allows: "bearer",
          grant: unlimited,
          host: undefined,
          origin: "registry",
          expiresAtMillis: undefined
        })
        assert.strictEqual(codeOf(tokens.verify("fleet-secret", "agent", "enrol")), "fleet")
        for (const wrong of ["", "fleet", "fleet-secret ", "FLEET-SECRET", "fleet-secret\0", `${text}x`]) {
          assert.strictEqual(codeOf(tokens.verify(wrong, "agent")), "token-invalid")
        }
        assert.strictEqual(codeOf(tokens.verify(text, "admin")), "token-not-allowed")
        assert.strictEqual(codeOf(tokens.verify("ops-secret", "agent")), "token-not-allowed")
        assert.strictEqual(codeOf(tokens.verify(text, "agent", "enrol")), "token-not-allowed")
      })
    )

    test(
      "the text of a token is kept nowhere",
      Effect.gen(function* () {
        const { record, text } = yield* issue()
        const kept = yield* everything
        for (const secret of [text, text.slice("prism_".length), "fleet-secret"]) assert.notInclude(kept, secret)
        assert.notInclude(JSON.stringify(record), text)
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql<{ readonly hash: string }>`SELECT hash FROM access_token`
        assert.strictEqual(row!.hash.length, 44)
      })
    )

    test(
      "a token is good until it runs out by the clock, and after that refused for it; who speaks by it is told",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const time = yield* T.Time
        const { text } = yield* issue({ allows: "both", expiresAtMillis: 1_060_000 })
        yield* time.set(1_059_999)
        assert.strictEqual(codeOf(tokens.verify(text, "agent")), "rack-7")
        const holder = yield* holderOf(text)
        yield* time.set(1_060_000)
        assert.strictEqual(codeOf(tokens.verify(text, "agent")), "token-expired")
        assert.strictEqual(codeOf(tokens.verify(text, "agent", "enrol")), "token-expired")
        const late = yield* Effect.flip(
          (yield* Identities).enrol({ publicKey: keyOf(1), token: holder, peer: undefined })
        )
        assert.strictEqual("code" in late && late.code, "token-expired")
        assert.strictEqual(stateOf((yield* tokens.find("rack-7"))!, 1_060_000), "expired")
      })
    )

    test(
      "a revoked token is refused at once, its holders are told, and the audit knows who did it and why",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const heard = yield* announced
        const { record, text } = yield* issue({ allows: "both" })
        const holder = yield* holderOf(text)
        const revoked = yield* tokens.revoke("rack-7", actor, "it leaked")
        assert.deepStrictEqual([revoked.revokedAtMillis, revoked.revokedReason], [1_000_000, "it leaked"])
        assert.strictEqual(codeOf(tokens.verify(text, "agent")), "token-revoked")
        assert.deepStrictEqual(
          heard.map(({ code, principal }) => [principal, code]),
          [["rack-7", "token-revoked"]]
        )
        // Whoever was let in a moment before does not get through either.
        const late = yield* Effect.flip(
          (yield* Identities).enrol({ publicKey: keyOf(1), token: holder, peer: undefined })
        )
        assert.strictEqual("code" in late && late.code, "token-revoked")
        assert.deepStrictEqual(yield* audit, [
          { action: "token.issued", actor: "ops", peer: "192.0.2.250", subject: "rack-7", reason: "for a test" },
          { action: "token.revoked", actor: "ops", peer: "192.0.2.250", subject: "rack-7", reason: "it leaked" }
        ])
        const before = yield* everything
        assert.strictEqual((yield* Effect.flip(tokens.revoke(record.id!, actor, "again")))._tag, "TokenRevoked")
        assert.strictEqual((yield* Effect.flip(tokens.revoke("nobody", actor, "x")))._tag, "TokenUnknown")
        assert.strictEqual((yield* Effect.flip(tokens.revoke("fleet", actor, "x")))._tag, "TokenConfigured")
        assert.strictEqual(yield* everything, before)
      })
    )

    test(
      "a name is given once, also after its token was revoked, and never one that another could pass for",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        yield* issue()
        yield* tokens.revoke("rack-7", actor, "done")
        for (const name of ["rack-7", "fleet", "ops"]) {
          assert.strictEqual((yield* Effect.flip(tokens.issue(spec({ name }), actor, "x")))._tag, "TokenNameTaken")
        }
        for (const name of ["anonymous", "prism", "unknown", "i-abcdefghijklmno7", "cert:web-1", "", " x", "a/b"]) {
          const error = yield* Effect.flip(tokens.issue(spec({ name }), actor, "x"))
          assert.strictEqual(error._tag, "TokenSpecInvalid", name)
        }
      })
    )

    test(
      "one that makes no sense is not made",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const wrong: ReadonlyArray<readonly [string, Partial<TokenSpec>]> = [
          ["allows", { role: "admin" }],
          ["host", { allows: "both", host: T.nameOf("web") }],
          ["host", { host: T.nameOf("web").replace("hosts", "elsewhere") as never }],
          ["host", { host: T.forward.name }],
          ["host", { host: T.reverse4.name }],
          ["grant/zones", { grant: { ...unlimited, zones: [T.nameOf("web")] } }],
          ["grant/zones", { grant: { ...unlimited, zones: [T.reverse4.name] } }],
          ["usesMax", { allows: "bearer", usesMax: 1 }],
          ["expiresAt", { expiresAtMillis: 1_000_000 }]
        ]
        for (const [field, given] of wrong) {
          const error = yield* Effect.flip(tokens.issue(spec(given), actor, "x"))
          assert.strictEqual(error._tag === "TokenSpecInvalid" && error.field, field)
        }
        assert.deepStrictEqual(yield* audit, [])
      })
    )

    test(
      "both kinds are listed in the order of their names, page by page, and found by name or id",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const made = yield* Effect.forEach(["Zeta", "alpha", "gamma"], (name) => issue({ name }))
        const all = yield* tokens.list({ limit: 10 })
        assert.deepStrictEqual(
          all.map(({ name, origin }) => `${name} ${origin}`),
          ["Zeta registry", "alpha registry", "fleet configuration", "gamma registry", "ops configuration"]
        )
        const page = yield* tokens.list({ after: "alpha", limit: 2 })
        assert.deepStrictEqual(
          page.map(({ name }) => name),
          ["fleet", "gamma"]
        )
        assert.strictEqual((yield* tokens.find("gamma"))?.id, made[2]!.record.id)
        assert.strictEqual((yield* tokens.find(made[1]!.record.id!))?.name, "alpha")
        assert.strictEqual((yield* tokens.find("ops"))?.role, "admin")
        assert.isUndefined(yield* tokens.find("nobody"))
      })
    )

    test(
      "its grant comes back as it was given",
      Effect.gen(function* () {
        const grant: Grant = {
          zones: [T.forward.name],
          names: ["web-*", "*.rack-7"],
          networks: ["192.0.2.0/25", "2001:db8::/48"].map(IpNetwork.fromStringUnsafe),
          namesMax: 3
        }
        const { text } = yield* issue({ grant })
        assert.deepStrictEqual((yield* holderOf(text)).grant, grant)
        assert.deepStrictEqual((yield* (yield* Tokens).find("rack-7"))?.grant, grant)
        const principal = yield* enrol(text, 1)
        assert.deepStrictEqual(principal.grant, grant)
        assert.deepStrictEqual((yield* (yield* Identities).authenticate(keyOf(1))).grant, grant)
      })
    )
  })

  it.effect("tokens and what is known of their use outlast the process", () =>
    T.withTime(
      "still",
      Effect.gen(function* () {
        const time = yield* T.Time
        yield* time.set(1_000_000)
        const inProcess = <A, E>(body: Effect.Effect<A, E, Tokens | Identities | Revocations>) =>
          Effect.provide(body, Layer.fresh(access()))
        const texts = yield* inProcess(
          Effect.gen(function* () {
            const tokens = yield* Tokens
            const bearer = yield* issue({ name: "bearer", allows: "bearer" })
            const counted = yield* issue({ name: "counted", usesMax: 1 })
            const revoked = yield* issue({ name: "revoked", allows: "bearer" })
            yield* tokens.revoke("revoked", actor, "x")
            yield* time.set(1_005_000)
            tokens.verify(bearer.text, "agent")
            yield* enrol(counted.text, 1)
            return { bearer: bearer.text, counted: counted.text, revoked: revoked.text }
          })
        )
        yield* inProcess(
          Effect.gen(function* () {
            const tokens = yield* Tokens
            assert.strictEqual(codeOf(tokens.verify(texts.bearer, "agent")), "bearer")
            assert.strictEqual(codeOf(tokens.verify(texts.revoked, "agent")), "token-revoked")
            assert.strictEqual((yield* tokens.find("bearer"))?.lastUsedMillis, 1_005_000)
            const counted = yield* tokens.find("counted")
            assert.deepStrictEqual([counted?.uses, counted?.lastUsedMillis], [1, 1_005_000])
            const principal = yield* enrol(texts.counted, 1)
            const identity = yield* (yield* Identities).get(principal.name)
            assert.strictEqual(identity.lastUsedMillis, 1_005_000)
            const error = yield* Effect.flip(enrol(texts.counted, 2))
            assert.strictEqual("code" in error && error.code, "token-used-up")
          })
        )
      }).pipe(Effect.provide(Layer.fresh(database)))
    )
  )

  describe("enrolment", () => {
    test(
      "makes an identity of a key, and audits it",
      Effect.gen(function* () {
        const identities = yield* Identities
        const { text } = yield* issue()
        const principal = yield* enrol(text, 1)
        assert.match(principal.name, /^i-[a-z2-7]{16}$/)
        assert.deepStrictEqual(principal, {
          name: principal.name,
          kind: "key",
          anonymous: false,
          actsFor: ["rack-7"],
          grant: unlimited
        })
        assert.deepStrictEqual(yield* identities.authenticate(keyOf(1)), principal)
        assert.deepStrictEqual((yield* audit).at(-1), {
          action: "identity.enrolled",
          actor: "rack-7",
          peer: "192.0.2.7",
          subject: principal.name,
          reason: null
        })
        const identity = yield* identities.get(principal.name)
        assert.deepInclude(identity, {
          publicKey: keyOf(1),
          enrolledBy: "rack-7",
          enrolledAtMillis: 1_000_000,
          revokedAtMillis: undefined
        })
      })
    )

    test(
      "with the same key again gives the same identity and counts nothing, however often the answer was lost",
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const { text } = yield* issue({ usesMax: 1 })
        const first = yield* enrol(text, 1)
        const before = yield* everything
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* enrol(text, 1), first)
        assert.strictEqual(yield* everything, before)
        assert.strictEqual((yield* tokens.find("rack-7"))?.uses, 1)
        const other = yield* issue({ name: "other" })
        assert.deepStrictEqual(yield* enrol(other.text, 1), first)
        assert.strictEqual((yield* tokens.find("other"))?.uses, 0)
      })
    )

    test(
      "twenty at once with a token for five make exactly five identities",
      Effect.gen(function* () {
        const identities = yield* Identities
        const { text } = yield* issue({ usesMax: 5 })
        const results = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i + 1),
          (key) => Effect.result(enrol(text, key)),
          { concurrency: "unbounded" }
        )
        const refused = results.flatMap((result) => (result._tag === "Failure" ? [result.failure] : []))
        assert.strictEqual(refused.length, 15)
        for (const error of refused) assert.strictEqual("code" in error && error.code, "token-used-up")
        assert.strictEqual((yield* identities.list({}, { limit: 100 })).length, 5)
        assert.strictEqual((yield* (yield* Tokens).find("rack-7"))?.uses, 5)
        assert.strictEqual((yield* actions).filter((action) => action === "identity.enrolled").length, 5)
      })
    )

    test(
      "of one key twenty times at once makes one identity and counts once",
      Effect.gen(function* () {
        const { text } = yield* issue({ usesMax: 5 })
        const results = yield* Effect.forEach(Array.from({ length: 20 }), () => enrol(text, 1), {
          concurrency: "unbounded"
        })
        assert.strictEqual(new Set(results.map(({ name }) => name)).size, 1)
        assert.strictEqual((yield* (yield* Tokens).find("rack-7"))?.uses, 1)
        assert.strictEqual((yield* actions).filter((action) => action === "identity.enrolled").length, 1)
      })
    )

    test(
      "of one key twenty times at once, with a token for one, is the same identity to all twenty",
      Effect.gen(function* () {
        const { text } = yield* issue({ usesMax: 1 })
        const results = yield* Effect.forEach(Array.from({ length: 20 }), () => enrol(text, 1), {
          concurrency: "unbounded"
        })
        assert.strictEqual(new Set(results.map(({ name }) => name)).size, 1)
        assert.strictEqual((yield* (yield* Tokens).find("rack-7"))?.uses, 1)
      })
    )

    test(
      "that is refused leaves nothing behind",
      Effect.gen(function* () {
        const { text } = yield* issue({ usesMax: 1 })
        yield* enrol(text, 1)
        const before = yield* everything
        const error = yield* Effect.flip(enrol(text, 2))
        assert.strictEqual("code" in error && error.code, "token-used-up")
        assert.strictEqual(yield* everything, before)
      })
    )
  })

  describe("a key", () => {
    test(
      "that nobody enrolled is unknown",
      Effect.gen(function* () {
        const error = yield* Effect.flip((yield* Identities).authenticate(keyOf(9)))
        assert.strictEqual(error instanceof IdentityRefused && error.code, "identity-unknown")
      })
    )

    test(
      "is replaced by another; the former one is refused, and can be neither enrolled nor taken again",
      Effect.gen(function* () {
        const identities = yield* Identities
        const principal = yield* enrol("fleet-secret", 1)
        const rotated = yield* identities.rotate(principal.name, keyOf(2), { name: principal.name, peer: undefined })
        assert.deepStrictEqual([rotated.publicKey, rotated.rotatedAtMillis], [keyOf(2), 1_000_000])
        assert.deepStrictEqual(yield* identities.authenticate(keyOf(2)), principal)
        assert.strictEqual((yield* actions).at(-1), "identity.rotated")

        const before = yield* everything
        const refused = [
          yield* Effect.flip(identities.authenticate(keyOf(1))),
          yield* Effect.flip(enrol("fleet-secret", 1)),
          yield* Effect.flip(identities.rotate(principal.name, keyOf(1), actor))
        ]
        for (const error of refused) assert.strictEqual("code" in error && error.code, "identity-revoked")
        // Asked again after a lost answer.
        assert.strictEqual((yield* identities.rotate(principal.name, keyOf(2), actor)).publicKey, keyOf(2))
        assert.strictEqual(yield* everything, before)
      })
    )

    test(
      "of another identity is not taken in a rotation",
      Effect.gen(function* () {
        const identities = yield* Identities
        const one = yield* enrol("fleet-secret", 1)
        const two = yield* enrol("fleet-secret", 2)
        const taken = yield* Effect.flip(identities.rotate(one.name, keyOf(2), actor))
        assert.strictEqual("code" in taken && taken.code, "proof-invalid")
        yield* identities.revoke(two.name, actor, "lost")
        const revoked = yield* Effect.flip(identities.rotate(one.name, keyOf(2), actor))
        assert.strictEqual("code" in revoked && revoked.code, "identity-revoked")
        const none = yield* Effect.flip(identities.rotate("i-aaaaaaaaaaaaaaaa", keyOf(3), actor))
        assert.strictEqual("code" in none && none.code, "identity-unknown")
      })
    )

    test(
      "that was revoked is refused from then on, also for enrolment, and its sessions are told",
      Effect.gen(function* () {
        const identities = yield* Identities
        const heard = yield* announced
        const { name } = yield* enrol("fleet-secret", 1)
        yield* identities.revoke(name, actor, "the machine was sold")
        assert.deepStrictEqual(
          heard.map(({ code, principal }) => [principal, code]),
          [[name, "identity-revoked"]]
        )
        assert.deepStrictEqual((yield* audit).at(-1), {
          action: "identity.revoked",
          actor: "ops",
          peer: "192.0.2.250",
          subject: name,
          reason: "the machine was sold"
        })
        const before = yield* everything
        const refused = [
          yield* Effect.flip(identities.authenticate(keyOf(1))),
          yield* Effect.flip(enrol("fleet-secret", 1)),
          yield* Effect.flip(identities.rotate(name, keyOf(2), actor))
        ]
        for (const error of refused) assert.strictEqual("code" in error && error.code, "identity-revoked")
        assert.strictEqual((yield* Effect.flip(identities.revoke(name, actor, "again")))._tag, "IdentityRevoked")
        const nobody = yield* Effect.flip(identities.revoke("i-aaaaaaaaaaaaaaaa", actor, "x"))
        assert.strictEqual(nobody._tag, "IdentityUnknown")
        assert.strictEqual(yield* everything, before)
        assert.strictEqual(heard.length, 1)
      })
    )
  })

  test(
    "identities are listed by state and by token, page by page",
    Effect.gen(function* () {
      const identities = yield* Identities
      const { text } = yield* issue()
      const names = (yield* Effect.forEach([1, 2, 3, 4], (key) => enrol(key < 4 ? "fleet-secret" : text, key))).map(
        ({ name }) => name
      )
      yield* identities.revoke(names[0]!, actor, "x")
      const sorted = names.toSorted()
      const idsOf = Effect.map((list: ReadonlyArray<{ readonly id: string }>) => list.map(({ id }) => id))
      assert.deepStrictEqual(yield* idsOf(identities.list({}, { limit: 10 })), sorted)
      assert.deepStrictEqual(yield* idsOf(identities.list({}, { after: sorted[1], limit: 1 })), [sorted[2]])
      assert.deepStrictEqual(yield* idsOf(identities.list({ state: "revoked" }, { limit: 10 })), [names[0]])
      assert.deepStrictEqual(yield* idsOf(identities.list({ enrolledBy: "rack-7" }, { limit: 10 })), [names[3]])
      const active = yield* idsOf(identities.list({ state: "active", enrolledBy: "fleet" }, { limit: 10 }))
      assert.sameMembers([...active], names.slice(1, 3))
    })
  )

  describe("a machine that was rebuilt", () => {
    test(
      "has another key, and does not get the name of a host that is online by that alone",
      Effect.gen(function* () {
        const before = yield* enrol("fleet-secret", 1)
        yield* registerAs(before, "web", "192.0.2.7")
        const rebuilt = yield* enrol("fleet-secret", 2)
        const error = yield* Effect.flip(registerAs(rebuilt, "web", "192.0.2.8"))
        assert.strictEqual(error._tag, "HostnameTaken")
      })
    )

    test(
      "gets it back by an operator's word: the name is free, published all the while, and the old key is refused",
      Effect.gen(function* () {
        const identities = yield* Identities
        const heard = yield* announced
        const before = yield* enrol("fleet-secret", 1)
        yield* registerAs(before, "web", "192.0.2.7")
        const { formerOwner, host, identity } = yield* identities.reset(T.nameOf("web"), actor, "its disk died")
        assert.deepStrictEqual([host.owner, formerOwner, identity?.id], ["anonymous", before.name, before.name])
        assert.strictEqual(identity?.revokedReason, "its disk died")
        assert.deepStrictEqual(yield* published("web"), ["192.0.2.7"])
        assert.deepStrictEqual(
          heard.map(({ code, principal }) => [principal, code]),
          [[before.name, "identity-revoked"]]
        )
        const old = yield* Effect.flip(identities.authenticate(keyOf(1)))
        assert.strictEqual("code" in old && old.code, "identity-revoked")

        const rebuilt = yield* enrol("fleet-secret", 2)
        yield* registerAs(rebuilt, "web", "192.0.2.8")
        assert.strictEqual(yield* ownerOf("web"), rebuilt.name)
        assert.deepStrictEqual(yield* published("web"), ["192.0.2.8"])
        assert.deepInclude(yield* audit, {
          action: "identity.reset",
          actor: "ops",
          peer: "192.0.2.250",
          subject: T.nameOf("web"),
          reason: "its disk died"
        })
      })
    )

    test(
      "gets it back by a token that is marked for the name: published all the while, and the old key is refused",
      Effect.gen(function* () {
        const identities = yield* Identities
        const heard = yield* announced
        const before = yield* enrol("fleet-secret", 1)
        yield* registerAs(before, "web", "192.0.2.7")
        const { record, text } = yield* issue({ name: "web-again", host: T.nameOf("web") })
        assert.deepStrictEqual([record.usesMax, record.host], [1, T.nameOf("web")])

        const rebuilt = yield* enrol(text, 2)
        assert.deepStrictEqual(rebuilt.grant, { zones: [T.forward.name], names: ["web"], networks: [], namesMax: 1 })
        assert.strictEqual(yield* ownerOf("web"), rebuilt.name)
        assert.deepStrictEqual(yield* published("web"), ["192.0.2.7"])
        const old = yield* Effect.flip(identities.authenticate(keyOf(1)))
        assert.strictEqual("code" in old && old.code, "identity-revoked")
        assert.deepStrictEqual(
          heard.map(({ principal }) => principal),
          [before.name]
        )
        const taken = yield* Effect.flip(registerAs(before, "web", "192.0.2.7"))
        assert.strictEqual(taken._tag, "HostnameTaken")
        assert.deepStrictEqual(yield* published("web"), ["192.0.2.7"])
        assert.strictEqual((yield* registerAs(rebuilt, "web", "192.0.2.8")).outcome, "changed")
        assert.deepStrictEqual(yield* published("web"), ["192.0.2.8"])

        // Whoever finds the token later has nothing of it, and the machine itself loses nothing by asking again.
        const kept = yield* everything
        const late = yield* Effect.flip(enrol(text, 3))
        assert.strictEqual("code" in late && late.code, "token-used-up")
        assert.deepStrictEqual(yield* enrol(text, 2), rebuilt)
        assert.strictEqual(yield* everything, kept)
      })
    )

    test(
      "keeps an identity that holds other names too",
      Effect.gen(function* () {
        const identities = yield* Identities
        const shared = yield* enrol("fleet-secret", 1)
        yield* registerAs(shared, "web", "192.0.2.7")
        yield* registerAs(shared, "api-1", "192.0.2.7")
        yield* registerAs(shared, "api-2", "192.0.2.7")
        yield* identities.reset(T.nameOf("web"), actor, "x")
        yield* enrol((yield* issue({ name: "one-again", host: T.nameOf("api-1") })).text, 2)
        assert.deepStrictEqual(yield* identities.authenticate(keyOf(1)), shared)
        assert.deepStrictEqual(yield* identities.hostsOf(shared.name, 10), [T.nameOf("api-2")])
        assert.deepStrictEqual(
          [...(yield* identities.countHosts([shared.name, "i-aaaaaaaaaaaaaaaa"]))],
          [[shared.name, 1]]
        )
        const last = yield* identities.reset(T.nameOf("api-2"), actor, "x")
        assert.strictEqual(last.identity?.revokedAtMillis, 1_000_000)
      })
    )

    test(
      "may be one that had a token and no key: its name is freed from that too",
      Effect.gen(function* () {
        const identities = yield* Identities
        yield* (yield* Registry).register(T.registration("web", "192.0.2.7", "fleet"))
        const { formerOwner, identity } = yield* identities.reset(T.nameOf("web"), actor, "x")
        assert.deepStrictEqual([formerOwner, identity], ["fleet", undefined])
        assert.strictEqual(yield* ownerOf("web"), "anonymous")
        const none = yield* Effect.flip(identities.reset(T.nameOf("nobody"), actor, "x"))
        assert.strictEqual(none._tag, "HostUnknown")
      })
    )

    test(
      "may ask before there is a host of its name, which is then there for it alone",
      Effect.gen(function* () {
        const { text } = yield* issue({ host: T.nameOf("web") })
        const principal = yield* enrol(text, 1)
        assert.strictEqual((yield* registerAs(principal, "web", "192.0.2.7")).outcome, "created")
        assert.strictEqual(yield* ownerOf("web"), principal.name)
      })
    )

    test(
      "brings a new key: a marked token gives nothing to one that is known",
      Effect.gen(function* () {
        yield* enrol("fleet-secret", 1)
        yield* (yield* Registry).register(T.registration("web", "192.0.2.7", "other"))
        const { text } = yield* issue({ host: T.nameOf("web") })
        const before = yield* everything
        const error = yield* Effect.flip(enrol(text, 1))
        assert.strictEqual("code" in error && error.code, "token-not-allowed")
        assert.strictEqual(yield* everything, before)
      })
    )

    test(
      "leaves nothing behind when the name cannot be taken over: neither identity nor use",
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* (yield* Registry).register(T.registration("web", "192.0.2.7", "other"))
        const { text } = yield* issue({ host: T.nameOf("web") })
        const before = yield* everything
        yield* sql`ALTER TABLE host_history RENAME TO gone`
        const error = yield* Effect.flip(enrol(text, 1))
        assert.strictEqual(error._tag, "RegistryUnavailable")
        yield* sql`ALTER TABLE gone RENAME TO host_history`
        assert.strictEqual(yield* everything, before)
        assert.strictEqual((yield* (yield* Tokens).find("rack-7"))?.uses, 0)
        yield* enrol(text, 1)
      })
    )
  })
}
