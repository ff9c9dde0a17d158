import { assert, describe, it } from "@effect/vitest"
import * as Client from "@prism-dns/core/api/Client"
import * as AuditExport from "@prism-dns/core/audit/AuditExport"
import { Sealer } from "@prism-dns/core/audit/Sealer"
import { unlimited } from "@prism-dns/core/auth/Principal"
import { Tokens } from "@prism-dns/core/auth/Tokens"
import { Effect, type Redacted } from "effect"
import { FetchHttpClient } from "effect/http"
import { SqlClient } from "effect/sql"
import { HttpAddress } from "../../src/http/HttpAddress.ts"
import { adminToken, ask, otherZone, register, server, zone } from "./harness.ts"

const clientWith = (token: Redacted.Redacted) =>
  Effect.flatMap(HttpAddress, ({ url }) => Client.make({ baseUrl: url, token })).pipe(
    Effect.provide(FetchHttpClient.layer)
  )

/** A host in either zone, and a token, all of it sealed. */
const seeded = Effect.gen(function* () {
  yield* register("web-1", "192.0.2.1")
  yield* register("lab-1", "192.0.2.2", otherZone)
  const spec = { name: "lab-auditor", role: "admin", roles: ["auditor"], allows: "bearer" } as const
  const { token } = yield* (yield* Tokens).issue(
    { ...spec, grant: { ...unlimited, zones: [otherZone] } },
    { name: "ops", peer: "192.0.2.9", request: "r-1" },
    "an auditor of the lab"
  )
  yield* (yield* Sealer).drain
  return token
})

const test = <E, R>(name: string, body: Effect.Effect<void, E, R>) =>
  it.live(name, () => Effect.provide(body as Effect.Effect<void, E>, server()))

const exported = Effect.flatMap(ask("/v1/audit/export"), ({ headers, status, text }) => {
  assert.strictEqual(status, 200)
  assert.match(headers.get("content-type") ?? "", /^application\/jsonl/)
  return Effect.succeed(text.split("\n").filter((line) => line !== ""))
})

const read = (lines: ReadonlyArray<string>) => {
  const reader = AuditExport.reader()
  for (const line of lines) reader.line(line)
  return reader.end()
}

describe("the audit over the API", () => {
  test(
    "entries are found by what is known of them, each with who, what, when, before and after",
    Effect.gen(function* () {
      yield* seeded
      const client = yield* clientWith(adminToken)
      const { body } = yield* client.audit.list({ query: { action: "token.issued" } })
      assert.strictEqual(body.items.length, 1)
      const [entry] = body.items
      assert.deepInclude(entry, {
        actor: "ops",
        peer: "192.0.2.9",
        subject: "lab-auditor",
        reason: "an auditor of the lab",
        request: "r-1",
        result: "done"
      })
      assert.isFalse("before" in entry!)
      assert.deepStrictEqual(yield* client.audit.get({ params: { position: String(entry!.position) } }), entry)
      const hosts = yield* client.audit.list({ query: { action: "host.*", zone } })
      assert.deepStrictEqual(
        hosts.body.items.map(({ action, subject }) => [action, subject]),
        [["host.created", `web-1.${zone}`]]
      )
      const none = yield* client.audit.list({ query: { until: "2001-01-01T00:00:00Z" } })
      assert.deepStrictEqual(none.body.items, [])
      const error = yield* Effect.flip(client.audit.get({ params: { position: "100000" } }))
      assert.strictEqual(error._tag, "EntryNotFound")
      assert.strictEqual((yield* ask("/v1/audit?action=host.eaten")).status, 400)
    })
  )

  test(
    "whoever may read one zone's audit sees its entries and no others, and cannot verify or export the whole",
    Effect.gen(function* () {
      const client = yield* clientWith(yield* seeded)
      const { body } = yield* client.audit.list({ query: {} })
      assert.isNotEmpty(body.items)
      assert.deepStrictEqual([...new Set(body.items.map((entry) => entry.zone))], [otherZone])
      const everything = yield* (yield* clientWith(adminToken)).audit.list({ query: { zone } })
      const hidden = String(everything.body.items[0]!.position)
      assert.strictEqual((yield* Effect.flip(client.audit.get({ params: { position: hidden } })))._tag, "EntryNotFound")
      assert.strictEqual((yield* Effect.flip(client.audit.verify({ query: {} })))._tag, "Forbidden")
      assert.strictEqual((yield* Effect.flip(client.audit.export({ query: {} })))._tag, "Forbidden")
    })
  )

  test(
    "pages go on where the one before ended, the newest first",
    Effect.gen(function* () {
      yield* seeded
      const client = yield* clientWith(adminToken)
      const all = (yield* client.audit.list({ query: {} })).body.items.map(({ position }) => position)
      assert.deepStrictEqual(
        all,
        all.toSorted((a, b) => b - a)
      )
      const found: Array<number> = []
      let cursor: string | undefined
      do {
        const { body } = yield* client.audit.list({ query: { limit: 2, ...(cursor !== undefined && { cursor }) } })
        found.push(...body.items.map(({ position }) => position))
        cursor = body.nextCursor
      } while (cursor !== undefined)
      assert.deepStrictEqual(found.slice(-all.length), all)
    })
  )

  test(
    "verifying says that all is well, or each place at which it is not",
    Effect.gen(function* () {
      yield* seeded
      const sql = yield* SqlClient.SqlClient
      const client = yield* clientWith(adminToken)
      const good = yield* client.audit.verify({ query: {} })
      assert.isTrue(good.ok)
      assert.strictEqual(good.last!.position, good.newest)
      const anchor = `${good.last!.position}:${good.last!.hash}`
      assert.isTrue((yield* client.audit.verify({ query: { anchor } })).ok)
      yield* sql`UPDATE audit_log SET actor = 'nobody' WHERE position = 1`
      yield* sql`DELETE FROM audit_log WHERE position = 2`
      const bad = yield* client.audit.verify({ query: { anchor } })
      assert.isFalse(bad.ok)
      assert.deepStrictEqual(
        bad.findings.map(({ position, what }) => [what, position]),
        [
          ["changed", 1],
          ["removed", 2]
        ]
      )
      assert.strictEqual((yield* ask("/v1/audit/verify?anchor=7:x")).status, 400)
    })
  )

  test(
    "an export holds all that it takes to verify it, and is an entry itself",
    Effect.gen(function* () {
      yield* seeded
      const lines = yield* exported
      const report = read(lines)
      assert.deepStrictEqual([report.broken, report.findings], [undefined, []])
      assert.isAtLeast(report.entries, 3)
      yield* (yield* Sealer).drain
      const client = yield* clientWith(adminToken)
      assert.strictEqual((yield* client.audit.list({ query: { action: "audit.exported" } })).body.items.length, 1)

      const entry = lines.findIndex((line) => line.includes('"host.created"'))
      const changed = read(lines.with(entry, lines[entry]!.replace("192.0.2.1", "192.0.2.3")))
      assert.strictEqual(changed.findings[0]!.what, "changed")
      assert.strictEqual(read(lines.toSpliced(entry, 1)).findings[0]!.what, "removed")
      assert.match(read(lines.slice(0, -1)).broken ?? "", /no end/)
      assert.match(read(lines.slice(1)).broken ?? "", /begins with its start/)
      assert.match(read([...lines.slice(0, 2), "{"]).broken ?? "", /no JSON/)
    })
  )
})
