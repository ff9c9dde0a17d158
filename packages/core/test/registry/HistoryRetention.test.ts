import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./HistoryRetentionSuite.ts"

suite("the retention of history", it, T.sqlite())
