import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./PlansSuite.ts"

suite("plans on SQLite", it, T.sqlite())
