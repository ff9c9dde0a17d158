import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./RetentionSuite.ts"

suite("the retention of the audit on SQLite", it, T.sqlite())
