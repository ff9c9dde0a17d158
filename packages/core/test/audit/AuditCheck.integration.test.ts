import { layer } from "@effect/vitest"
import { Postgres } from "../harness/Postgres.ts"
import * as T from "../layers.ts"
import { suite } from "./AuditCheckSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("verifying finds", it, T.postgres)
})
