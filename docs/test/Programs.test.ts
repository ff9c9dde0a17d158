/** Every TypeScript program in the documentation type-checks, as strictly as our own code. */
import { assert, describe, it } from "@effect/vitest"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll } from "vitest"
import { makeProject } from "./examples.ts"
import { blocksOf, root } from "./markdown.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-docs-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

describe("programs", () => {
  it("type-check", () => {
    const programs = blocksOf("ts")
    assert.isNotEmpty(programs)
    const nameOf = (place: string) => `${place.replaceAll(/[/:]/g, "_")}.ts`
    makeProject(folder, {
      ...Object.fromEntries(programs.map(({ place, text }) => [nameOf(place), text])),
      "tsconfig.json": JSON.stringify({
        extends: Path.join(root, "tsconfig.base.json"),
        compilerOptions: {
          composite: false,
          declaration: false,
          declarationMap: false,
          sourceMap: false,
          noEmit: true,
          rewriteRelativeImportExtensions: false,
          allowImportingTsExtensions: true
        },
        include: ["*.ts"]
      })
    })
    const { error, status, stderr, stdout } = ChildProcess.spawnSync(
      process.execPath,
      [Path.join(root, "node_modules/typescript/bin/tsc"), "-p", "."],
      { cwd: folder, encoding: "utf8" }
    )
    assert.isUndefined(error)
    assert.strictEqual(`${stdout}${stderr}`, "")
    assert.strictEqual(status, 0)
  })
})
