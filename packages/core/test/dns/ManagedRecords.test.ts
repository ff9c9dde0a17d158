import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { passByClock, suite } from "./ManagedRecordsSuite.ts"

suite("records of people on SQLite", it, T.sqlite(), passByClock)
