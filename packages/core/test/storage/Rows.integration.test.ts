import { layer } from "@effect/vitest"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { suite } from "./RowsSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("many rows", it, T.postgres)
})
