import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./FeedSuite.ts"

suite("events on SQLite", { effect: it.live }, T.sqlite())
