import { layer } from "@effect/vitest"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { suite } from "./HistoryRetentionSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("the retention of history", it, T.postgres)
})
