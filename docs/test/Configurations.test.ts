/** Every configuration in the documentation is accepted as it stands. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll } from "vitest"
import * as Config from "../../packages/server/src/Config.ts"
import { provideFiles } from "./examples.ts"
import { blocksOf } from "./markdown.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-docs-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

describe("configurations", () => {
  it("there are some", () => assert.isNotEmpty(blocksOf("yaml")))

  it.each(blocksOf("yaml").map(({ place, text }) => [place, text] as const))("%s is accepted", (_, text) => {
    const file = Path.join(folder, "prism.yaml")
    Fs.writeFileSync(file, provideFiles(text, folder, { "redis-url": "redis://:secret@cache.example.net:6379/0\n" }))
    const loaded = Config.loadResult({ file })
    assert.deepStrictEqual(Result.isFailure(loaded) ? loaded.failure.problems : [], [])
    const { http, powerdns } = Result.getOrThrow(loaded).config
    const ours = `http://${http.host}:${http.port}`
    assert.notInclude(
      powerdns.nodes.map(({ api }) => api?.url),
      ours,
      "PowerDNS's API is another than ours"
    )
  })
})
