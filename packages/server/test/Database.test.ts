import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { temporaryFolder } from "../../core/test/harness/PowerDns.ts"
import * as Database from "../src/Database.ts"

describe("a registry in a SQLite file", () => {
  it.live("is one server's alone while it runs, and anyone's to read", () =>
    Effect.gen(function* () {
      const filename = `${yield* temporaryFolder("prism-database-")}/prism.db`
      const open = Layer.build(Layer.fresh(Database.layer({ url: { _tag: "Sqlite", filename }, connectionsMax: 1 })))
      yield* Effect.gen(function* () {
        yield* open
        const error = yield* Effect.flip(Effect.scoped(open))
        assert.strictEqual(
          error.message,
          `cannot open the registry in ${filename}: another server works on it, and SQLite is for one`
        )
        const reader = new DatabaseSync(filename, { readOnly: true })
        assert.deepInclude(reader.prepare("SELECT COUNT(*) AS n FROM host").get(), { n: 0 })
        reader.close()
      }).pipe(Effect.scoped)
      const sql = Context.get(yield* open, SqlClient.SqlClient)
      assert.strictEqual((yield* sql`SELECT * FROM host`).length, 0)
    }).pipe(Effect.scoped)
  )

  it.live("with a schema of a newer version it is refused, and left as it is", () =>
    Effect.gen(function* () {
      const filename = `${yield* temporaryFolder("prism-database-")}/prism.db`
      const storage = { url: { _tag: "Sqlite" as const, filename }, connectionsMax: 1 }
      const open = Effect.scoped(Layer.build(Layer.fresh(Database.layer(storage))))
      assert.strictEqual(yield* Database.schemaNow(storage), 0)
      assert.isFalse(Fs.existsSync(filename))
      yield* open
      assert.strictEqual(yield* Database.schemaNow(storage), Database.schemaKnown)
      const next = Database.schemaKnown + 1
      const db = new DatabaseSync(filename)
      db.exec(`INSERT INTO ${Database.migrationsTable} (migration_id, name) VALUES (${next}, 'of_tomorrow')`)
      db.close()
      const error = yield* Effect.flip(open)
      assert.include(error.message, `its schema is ${next}, made by a newer version of Prism DNS`)
      assert.include(error.message, "restore a backup")
      assert.strictEqual(yield* Database.schemaNow(storage), next)
    }).pipe(Effect.scoped)
  )
})
