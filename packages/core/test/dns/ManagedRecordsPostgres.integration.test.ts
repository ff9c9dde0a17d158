import { layer } from "@effect/vitest"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { passForReal, suite } from "./ManagedRecordsSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("records of people", it, T.postgres, passForReal)
})
