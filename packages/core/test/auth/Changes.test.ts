import { it } from "@effect/vitest"
import * as T from "../layers.ts"
import { suite } from "./ChangesSuite.ts"

suite({ effect: it.live }, T.sqlite())
