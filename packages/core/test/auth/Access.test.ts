import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./AccessSuite.ts"

suite(it, T.sqlite())
