import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./RowsSuite.ts"

suite("many rows on SQLite", it, T.sqlite())
