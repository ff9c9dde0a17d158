import { assert, describe, it } from "@effect/vitest"
import { Revocations } from "@prism-dns/core/auth/Revocations"
import { TokenRefused, Tokens } from "@prism-dns/core/auth/Tokens"
import { Zones } from "@prism-dns/core/dns/Zones"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as Zone from "@prism-dns/core/domain/Zone"
import { Duration, Effect, Layer, Logger } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Bootstrap from "../src/Bootstrap.ts"
import * as Database from "../src/Database.ts"

const registry = Tokens.layer([]).pipe(
  Layer.provideMerge(Layer.merge(Revocations.layer, Zones.layer([Zone.make(DomainName.make("hosts.prism.test"))]))),
  Layer.provideMerge(Database.layer({ url: { _tag: "Sqlite", filename: ":memory:" }, connectionsMax: 1 })),
  Layer.provide(SecureRandom.layerWebCrypto),
  Layer.orDie
)

/** What a start prints, and all that it logs. */
const start = Effect.fnUntraced(function* (options: Partial<Bootstrap.BootstrapOptions> = {}) {
  const printed: Array<string> = []
  const logged: Array<unknown> = []
  const logger = Logger.make((entry) => void logged.push(entry))
  yield* Bootstrap.make({
    oidc: undefined,
    tokenFile: undefined,
    print: (text) => void printed.push(text),
    ...options
  }).pipe(Effect.provide(Logger.layer([logger])))
  const token = /prism_[A-Za-z0-9_-]{43}/.exec(printed.join(""))?.[0]
  if (token !== undefined) assert.notInclude(JSON.stringify(logged), token)
  return { token, printed, logged }
})

const roleOf = Effect.fnUntraced(function* (token: string) {
  const holder = (yield* Tokens).verifyAtApi(token)
  return holder instanceof TokenRefused ? holder.code : `${holder.name} ${holder.roles.join(",")}`
})

describe("the first administrator's token", () => {
  it.live("is made and printed once, not logged, and no second time at the next start", () =>
    Effect.gen(function* () {
      const first = yield* start()
      assert.strictEqual(yield* roleOf(first.token ?? ""), "first-admin admin")
      assert.include(first.printed.join(""), "first-admin")
      assert.strictEqual(first.logged.length, 1)
      assert.deepStrictEqual((yield* start()).printed, [])
      const audit = yield* (yield* SqlClient.SqlClient)`SELECT actor, action, subject FROM audit_entry`
      assert.deepStrictEqual(
        audit.map((row) => ({ ...row })),
        [{ actor: "prism", action: "token.issued", subject: "first-admin" }]
      )
    }).pipe(Effect.provide(registry))
  )

  it.live("is made anew, by another name, when nobody is left who could administer", () =>
    Effect.gen(function* () {
      const tokens = yield* Tokens
      yield* start()
      yield* tokens.revoke("first-admin", { name: "ann", peer: undefined }, "it leaked")
      const second = yield* start()
      assert.strictEqual(yield* roleOf(second.token ?? ""), "first-admin-2 admin")
    }).pipe(Effect.provide(registry))
  )

  it.live("is not made where an identity provider lets administrators in", () =>
    Effect.gen(function* () {
      const oidc = {
        issuer: "https://login.example.net",
        audience: "prism",
        nameClaim: "sub",
        rolesClaim: "groups",
        jwksUri: undefined,
        clockTolerance: Duration.seconds(30)
      }
      assert.deepStrictEqual(
        (yield* start({ oidc: { ...oidc, roles: [{ value: "dns", role: "admin" }] } })).printed,
        []
      )
      assert.isDefined((yield* start({ oidc: { ...oidc, roles: [{ value: "dns", role: "viewer" }] } })).token)
    }).pipe(Effect.provide(registry))
  )

  it.live("is in a file of its owner's alone where one is asked for, and printed all the same where that fails", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-bootstrap-"))),
        (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
      )
      const tokenFile = Path.join(folder, "admin-token")
      Fs.writeFileSync(tokenFile, "an old one", { mode: 0o644 })
      const { token } = yield* start({ tokenFile })
      assert.strictEqual(Fs.readFileSync(tokenFile, "utf8"), `${token}\n`)
      assert.strictEqual(Fs.statSync(tokenFile).mode & 0o777, 0o600)
      yield* (yield* Tokens).revoke("first-admin", { name: "ann", peer: undefined }, "x")
      const failed = yield* start({ tokenFile: Path.join(folder, "nowhere", "admin-token") })
      assert.isDefined(failed.token)
      assert.strictEqual(failed.logged.length, 2)
    }).pipe(Effect.scoped, Effect.provide(registry))
  )
})
