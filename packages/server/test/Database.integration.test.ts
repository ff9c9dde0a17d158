import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { Postgres } from "../../core/test/harness/Postgres.ts"
import * as Database from "../src/Database.ts"
import * as PostgresUrl from "../src/database/PostgresUrl.ts"

layer(Postgres.layer(), { excludeTestServices: true })("a registry in PostgreSQL", (it) => {
  it.effect("is one server's alone while it runs, and another's when that one has ended", () =>
    Effect.gen(function* () {
      const postgres = yield* Postgres
      const { url } = yield* postgres.createDatabase()
      const open = Layer.build(
        Layer.fresh(
          Database.layer({
            url: Result.getOrThrow(PostgresUrl.parse(url)),
            connectionsMax: 2
          })
        )
      )
      yield* Effect.gen(function* () {
        yield* open
        const error = yield* Effect.flip(Effect.scoped(open))
        assert.match(error.message, /another server works on it; stop that one first/)
      }).pipe(Effect.scoped)
      yield* Effect.scoped(open)
    })
  )
})
