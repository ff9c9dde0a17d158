import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import * as Database from "../src/Database.ts"
import * as PostgresUrl from "../src/database/PostgresUrl.ts"

layer(Postgres.layer(), { excludeTestServices: true })("a registry in PostgreSQL", (it) => {
  it.effect("is opened by several servers that start together, also where it is empty yet", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { url } = yield* postgres.createDatabase()
      const open = Layer.build(
        Layer.fresh(Database.layer({ url: Result.getOrThrow(PostgresUrl.parse(url)), connectionsMax: 2 }))
      )
      const opened = yield* Effect.all([open, open, open], { concurrency: "unbounded" })
      for (const context of opened) {
        const schema = yield* Effect.provide(Database.schemaOf, context)
        assert.strictEqual(schema, Database.schemaKnown)
        const sql = Context.get(context, SqlClient.SqlClient)
        assert.deepStrictEqual([...(yield* sql`SELECT id FROM instance`)], [])
      }
    }).pipe(Effect.scoped)
  )
})
