import { it } from "@effect/vitest"
import { sqlite } from "../layers.ts"
import { suite } from "./RegistrySuite.ts"

suite("the registry on SQLite", it, sqlite())
