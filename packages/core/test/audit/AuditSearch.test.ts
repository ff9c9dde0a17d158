import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./AuditSearchSuite.ts"

suite("a search of the audit on SQLite", it, T.sqlite())
