import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./AuditCheckSuite.ts"

suite("verifying on SQLite finds", it, T.sqlite())
