import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./HostHistorySuite.ts"

suite("hosts as they were, on SQLite", it, T.sqlite())
