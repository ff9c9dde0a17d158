import { assert, it } from "@effect/vitest"
import * as Sqlite from "@prism-dns/core/storage/Sqlite"
import { migrations } from "@prism-dns/core/storage/Migrations"
import { Effect, Layer } from "effect"
import { Reactivity } from "effect/reactivity"
import { Migrator, SqlClient } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { DatabaseSync } from "node:sqlite"
import { reads } from "./ReadPlans.ts"

const large =
  /^SCAN (?:host|h|a|host_address|host_history|v|host_name|host_name_address|host_name_label|published|p|audit_log|l|record|r)$/

it.effect("on SQLite, too, whatever is asked of hosts is found by an index", () =>
  Effect.gen(function* () {
    const db = new DatabaseSync(":memory:")
    const plans: Array<{ readonly text: string; readonly steps: ReadonlyArray<string> }> = []
    const connection = Sqlite.makeConnection(db)
    const explaining: Connection = {
      ...connection,
      execute: (text, params, transform) => {
        if (/^\s*SELECT/.test(text)) {
          const steps = db.prepare(`EXPLAIN QUERY PLAN ${text}`).all(...(params as ReadonlyArray<string>))
          plans.push({ text, steps: steps.map(({ detail }) => String(detail)) })
        }
        return connection.execute(text, params, transform)
      }
    }
    const sql = yield* Sqlite.makeClient(db, explaining)
    yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations) }).pipe(
      Effect.provideService(SqlClient.SqlClient, sql)
    )
    for (const { name, read } of reads(1_700_000_000_000)) {
      plans.length = 0
      yield* Effect.provideService(read, SqlClient.SqlClient, sql)
      assert.isAbove(plans.length, 0, name)
      for (const { steps, text } of plans) {
        assert.deepStrictEqual(
          steps.filter((step) => large.test(step)),
          [],
          `${name}\n${text}\n${steps.join("\n")}`
        )
      }
    }
    db.close()
  }).pipe(Effect.scoped, Effect.provide(Layer.mergeAll(Reactivity.layer)))
)
