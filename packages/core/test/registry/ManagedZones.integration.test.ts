import { layer } from "@effect/vitest"
import { Postgres } from "../harness/Postgres.ts"
import { postgres } from "../layers.ts"
import { suite } from "./ManagedZonesSuite.ts"

layer(Postgres.layer(), { timeout: "60 seconds", excludeTestServices: true })("on PostgreSQL", (it) => {
  suite("zones of the API on PostgreSQL", it, postgres)
})
