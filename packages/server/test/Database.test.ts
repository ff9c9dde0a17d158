import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
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
})
