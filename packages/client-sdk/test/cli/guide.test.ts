/** What the agent's page says of flags, reasons and exit codes is so. */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { details } from "../../src/addresses/Selection.ts"
import * as Failure from "../../src/cli/Failure.ts"
import * as Settings from "../../src/cli/Settings.ts"

const page = Fs.readFileSync(Path.resolve(import.meta.dirname, "../../../../docs/guides/agent.md"), "utf8")
const prose = page.replaceAll(/^```sh\n[^]*?^```$/gm, "")

const all = (text: string, pattern: RegExp) => Array.from(text.matchAll(pattern), ([, found]) => found!)

describe("the agent's page", () => {
  it("names flags that are there", () => {
    const known = [...Object.keys(Settings.settings), "json", "timeout", "help", "version", "completions"]
    const named = new Set(
      all(prose, /`(?:[^`]* )?--([a-z][a-z-]+)/g).filter((flag) => !["global", "sign"].includes(flag))
    )
    assert.isAbove(named.size, 15)
    for (const flag of named) assert.include(known, flag)
  })

  it("explains every reason for which an address is left out", () => {
    const [table = ""] = all(page, /(\| left out \| because \|\n(?:\|.*\n)+)/g)
    assert.sameMembers(
      all(table, /`([a-z-]+)`(?=[^|\n]*\|[^|\n]*\|$|,)/gm).filter((word) => word in details),
      Object.keys(details).filter((word) => word !== "unusable")
    )
  })

  it("explains every exit code and every way of proving", () => {
    assert.sameMembers(all(page, /^\| (\d+) \|/gm).map(Number), Object.values(Failure.exitCodes))
    for (const method of Settings.authMethods) assert.match(page, new RegExp(`^\\| \`${method}\``, "m"))
  })
})
