/** The systemd unit, as systemd itself reads it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { temporaryFolder } from "../../../core/test/harness/PowerDns.ts"
import * as Settings from "../../src/cli/Settings.ts"

const file = Path.resolve(import.meta.dirname, "../../deploy/prism-agent.service")
const text = Fs.readFileSync(file, "utf8")

/** The unit with a program that is there. */
const installed = Effect.map(temporaryFolder("prism-unit-"), (folder) => {
  const path = Path.join(folder, "prism-agent.service")
  Fs.writeFileSync(path, text.replace("/usr/bin/prism-agent", process.execPath))
  return path
})

const analyze = (...args: ReadonlyArray<string>) => {
  const { error, status, stderr, stdout } = ChildProcess.spawnSync("systemd-analyze", args, { encoding: "utf8" })
  assert.isUndefined(error)
  return { status, stderr, stdout }
}

describe("the unit", () => {
  it.live("has nothing that systemd does not know", () =>
    Effect.gen(function* () {
      // A misspelt key is a word on stderr, and no failure.
      const path = yield* installed
      assert.deepStrictEqual(analyze("verify", "--man=no", path), { status: 0, stderr: "", stdout: "" })
      Fs.appendFileSync(path, "\n[Service]\nProtectSistem=strict\n")
      assert.include(analyze("verify", "--man=no", path).stderr, "ProtectSistem")
    }).pipe(Effect.scoped)
  )

  it.live("leaves the agent little that it could do to the machine", () =>
    Effect.gen(function* () {
      const { status, stdout } = analyze("security", "--offline=true", "--threshold=20", yield* installed)
      assert.strictEqual(status, 0, stdout)
    }).pipe(Effect.scoped)
  )

  it("sets variables that the agent reads", () => {
    const variables = new Set(Object.keys(Settings.settings).map((name) => Settings.variable(name as Settings.Name)))
    const set = Array.from(text.matchAll(/^Environment=(\w+)=/gm), ([, name]) => name)
    assert.isNotEmpty(set)
    for (const name of set) assert.include([...variables], name)
  })
})
