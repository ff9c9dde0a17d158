import { it } from "@effect/vitest"
import { sqlite } from "../layers.ts"
import { suite } from "./ManagedZonesSuite.ts"

suite("zones of the API on SQLite", { effect: it.live }, sqlite())
