/** The page of figures, and the results it is made of. */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import * as Report from "../../src/bench/Report.ts"
import { reported } from "../../src/bench/Reports.ts"

const docs = Path.resolve(import.meta.dirname, "../../../../docs")

const stored: Report.Stored = {
  bench: "connections",
  command: "./prism bench connections",
  date: "2026-11-27",
  quick: false,
  loadBefore: 0.25,
  machine: { cpu: "A | B", cores: 2, memoryBytes: 2 ** 34, system: "Linux", node: "v24.0.0", bind: null },
  figures: {
    each: { value: 2153.4, unit: "B", min: 2000, max: 2300 },
    slow: { value: 0.01234, unit: "s" }
  },
  ratios: { prism_over_bare: 1.75 },
  targets: {
    each: { want: 3000, got: 2153.4, met: true },
    prism_over_bare: { want: 0.5, got: 0.4, met: false, atLeast: true }
  }
}

describe("the page of figures", () => {
  it("says of each result what was typed, when, on what, each figure with its range and each aim", () => {
    const page = Report.render(new Map([["connections", stored]]))
    assert.include(
      page,
      "`./prism bench connections`, 2026-11-27, other work on the machine before it: a load of 0.25."
    )
    assert.include(page, "16.0 GiB; Linux; Node 24.0.0.")
    assert.include(page, "| `each` | 2,153 B | 2,000 to 2,300; want below 3,000: met |")
    assert.include(page, "| `slow` | 0.01234 s |  |")
    assert.include(page, "| `prism_over_bare` | **1.75** | want at least 0.5: **not met** |")
    assert.include(page, "1 of 2 aims are met; these are not:\n\n- [`connections`](#connections): `prism_over_bare`")
    assert.notInclude(page, "short form")
  })

  it("says which benchmarks were not taken, and which only in the short form", () => {
    const page = Report.render(new Map([["connections", { ...stored, quick: true }]]))
    assert.include(page, "Not taken yet by `./prism bench --report api`.")
    assert.include(page, "In its short form")
  })

  it("a result is read as it was written", () => {
    const folder = Fs.mkdtempSync(Path.join(tmpdir(), "prism-report-"))
    try {
      Fs.mkdirSync(Path.join(folder, Report.folder))
      Fs.writeFileSync(Path.join(folder, Report.folder, "connections.json"), Report.encode(stored))
      assert.deepStrictEqual([...Report.read(folder)], [["connections", stored]])
    } finally {
      Fs.rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe("what is reported", () => {
  it("each has a name of its own", () => {
    const ids = reported.map(({ id }) => id)
    assert.strictEqual(new Set(ids).size, ids.length)
  })

  it("every stored result is one of them", () => {
    const folder = Path.join(docs, Report.folder)
    const files = Fs.existsSync(folder) ? Fs.readdirSync(folder) : []
    const results = Report.read(docs)
    assert.deepStrictEqual(files.sort(), [...results.keys()].map((id) => `${id}.json`).sort())
  })
})
