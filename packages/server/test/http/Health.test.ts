import { assert, describe, it } from "@effect/vitest"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { Drain } from "../../src/Drain.ts"
import { ask as askWith, server } from "./harness.ts"

/** Probes carry no token. */
const ask = (path: string) => askWith(path, { token: "" })

const migrationsTable = "schema_migrations"

describe("/livez", () => {
  it.live("says yes as long as the process answers, whatever else is down", () =>
    Effect.gen(function* () {
      yield* (yield* PowerDnsMemory).down
      const sql = yield* SqlClient.SqlClient
      yield* sql`DROP TABLE ${sql(migrationsTable)}`
      yield* (yield* Drain).start
      const answer = yield* ask("/livez")
      assert.deepStrictEqual([answer.status, answer.text], [200, "alive\n"])
    }).pipe(Effect.provide(server()))
  )
})

describe("/readyz", () => {
  it.live("says ready in one word, and lists its checks when asked", () =>
    Effect.gen(function* () {
      const short = yield* ask("/readyz")
      assert.deepStrictEqual([short.status, short.text], [200, "ready\n"])
      assert.match(short.headers.get("content-type")!, /^text\/plain/)
      const long = yield* ask("/readyz?verbose")
      assert.deepStrictEqual([long.status, long.text], [200, "storage: ok\ndrain: ok\npowerdns: ok\nready\n"])
    }).pipe(Effect.provide(server()))
  )

  it.live("is degraded, and still 200, while PowerDNS is away, and ready again after", () =>
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* memory.down
      const answer = yield* waitUntil("it is degraded", ask("/readyz?verbose"), ({ text }) =>
        text.endsWith("degraded\n")
      )
      assert.strictEqual(answer.status, 200)
      assert.match(answer.text, /^powerdns: degraded \(.+\)$/m)
      yield* memory.up
      yield* waitUntil("it is ready", ask("/readyz"), ({ text }) => text === "ready\n")
    }).pipe(Effect.provide(server()))
  )

  it.live("is 503 from the moment the server drains", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* ask("/readyz")).status, 200)
      yield* (yield* Drain).start
      const answer = yield* ask("/readyz?verbose")
      assert.strictEqual(answer.status, 503)
      assert.match(answer.text, /^drain: failed \(the server is draining\)$/m)
      assert.match(answer.text, /unready\n$/)
    }).pipe(Effect.provide(server()))
  )

  it.live("is 503 when the database does not answer, and does not say why to everyone", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`DROP TABLE ${sql(migrationsTable)}`
      const answer = yield* ask("/readyz?verbose")
      assert.strictEqual(answer.status, 503)
      assert.match(answer.text, /^storage: failed \(the registry's database does not answer\)$/m)
    }).pipe(Effect.provide(server()))
  )

  it.live("is 503 when the database takes too long", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const answer = yield* sql.withTransaction(ask("/readyz"))
      assert.strictEqual(answer.status, 503)
    }).pipe(Effect.provide(server({ health: { storageTimeout: "20 millis" } })))
  )

  it.live("is 503 while a migration has not run", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`DELETE FROM ${sql(migrationsTable)}`
      const answer = yield* ask("/readyz?verbose")
      assert.strictEqual(answer.status, 503)
      assert.match(answer.text, /^storage: failed \(migration 1 of \d+ has not run\)$/m)
    }).pipe(Effect.provide(server()))
  )
})
