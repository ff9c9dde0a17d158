/** The table of checks in the guide of `prism-dns doctor` is the program's own. */
import { assert, describe, it } from "@effect/vitest"
import * as Doctor from "@prism-dns/core/powerdns/Doctor"
import { read } from "./markdown.ts"

describe("the guide of doctor", () => {
  it("has every check with its reason, in order, and no other", () => {
    const { prose } = read("docs/guides/doctor.md")
    const rows = Array.from(
      prose.slice(prose.indexOf("## What it looks at")).matchAll(/^\| `([a-z0-9-]+)` \| (.+) \|$/gm),
      ([, check, why]) => [check, why]
    )
    assert.deepStrictEqual(rows, Object.entries(Doctor.checks))
  })
})
