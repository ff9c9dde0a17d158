/** What the program says of itself in other forms: the manual page and completions. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import * as PrismServer from "../harness/PrismServer.ts"

const page = Path.resolve(import.meta.dirname, "../../man/prism-dns.1")

describe("the manual page", () => {
  it("is one that mandoc has nothing to say about", () => {
    const { status, stderr, stdout } = ChildProcess.spawnSync("mandoc", ["-T", "lint", page], { encoding: "utf8" })
    assert.deepStrictEqual({ status, said: `${stdout}${stderr}` }, { status: 0, said: "" })
  })

  it("shows flags as they are typed", () => {
    const { stdout } = ChildProcess.spawnSync("mandoc", ["-T", "ascii", "-O", "width=200", page], { encoding: "utf8" })
    // Overstrikes, a letter and a backspace before it, are how a terminal of old makes letters bold.
    const text = stdout
      .split("\b")
      .map((part, i, parts) => (i < parts.length - 1 ? part.slice(0, -1) : part))
      .join("")
    assert.include(text, "--dry-run")
    assert.include(text, "prism-dns backup [flags] <file>")
  })

  it("names every command of the program's help", () => {
    const text = Fs.readFileSync(page, "utf8")
    for (const name of ["hosts list", "zones list", "plan show", "migrate", "backup", "restore"]) {
      assert.include(text, `.SS ${name}\n`)
    }
  })
})

describe("completions", () => {
  it.live("are a script that bash takes, for each of its shells", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder("prism-completions-")
      for (const shell of ["bash", "zsh", "fish"]) {
        const { code, stdout } = yield* PrismServer.run(["--completions", shell], { folder })
        assert.strictEqual(code, 0)
        assert.include(stdout, "prism-dns")
        assert.include(stdout, "publications")
        if (shell !== "bash") continue
        const { status, stderr } = ChildProcess.spawnSync("bash", ["-n"], { input: stdout, encoding: "utf8" })
        assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
      }
    }).pipe(Effect.scoped)
  )
})
