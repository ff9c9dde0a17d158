import { assert, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { version } from "../src/Version.ts"

it("the version that is stated is the package's", () => {
  const file = Path.resolve(import.meta.dirname, "../package.json")
  assert.strictEqual(version, (JSON.parse(Fs.readFileSync(file, "utf8")) as { readonly version: string }).version)
})
