import { assert, describe, it } from "@effect/vitest"
import { DeleteBudgetExceeded, HostNotFound, TokenInvalid } from "@prism-dns/core/api/Problems"
import * as Connection from "../../src/cli/Connection.ts"
import * as Failure from "../../src/cli/Failure.ts"
import * as Output from "../../src/cli/Output.ts"

interface Row {
  readonly name: string
  readonly count: number | undefined
}

const columns: ReadonlyArray<Output.Column<Row>> = [
  { head: "NAME", cell: ({ name }) => name },
  { head: "COUNT", cell: ({ count }) => count }
]

const rows: ReadonlyArray<Row> = [
  { name: "web-1.hosts.test.", count: 1 },
  { name: "b.", count: undefined }
]

describe("what commands print", () => {
  it("is aligned below heads for a terminal, and lines with tabs for a pipe", () => {
    assert.strictEqual(
      Output.toTable(columns, rows),
      ["NAME               COUNT", "web-1.hosts.test.  1", "b.                 -"].join("\n")
    )
    const empty = [...columns, { head: "ERROR", cell: () => undefined }]
    assert.strictEqual(Output.toTable(empty, rows), Output.toTable(columns, rows))
    assert.strictEqual(Output.toLines(columns, rows), "web-1.hosts.test.\t1\nb.\t")
  })

  it("does not let what came from elsewhere steer the terminal, nor add columns and lines", () => {
    const hostile = "a\u001b[2Jb\nc\td\u009b\u202e"
    assert.strictEqual(Output.harmless(hostile), "a\\x1b[2Jb\\x0ac\\x09d\\x9b\\u202e")
    assert.strictEqual(Output.toLines(columns, [{ name: hostile, count: 1 }]).split("\t").length, 2)
    assert.strictEqual(Output.harmlessLines("a\nb\u0007"), "a\nb\\x07")
  })

  it("says durations as people do", () => {
    assert.deepStrictEqual([0, 59, 60, 3661, 86_400, 90_061].map(Output.seconds), [
      "0s",
      "59s",
      "1m",
      "1h 1m 1s",
      "1d",
      "1d 1h 1m 1s"
    ])
  })
})

describe("what people are told of a failed request", () => {
  const server = "http://prism.example.net:8081"

  it("is the server's sentence, with the next step where the command line has one", () => {
    assert.strictEqual(
      Connection.explain(new HostNotFound({ detail: "There is no host 'x'." }), server).detail,
      "There is no host 'x'."
    )
    assert.include(Connection.explain(new TokenInvalid({ detail: "no" }), server).detail, "Set PRISM_TOKEN")
    const exceeded = new DeleteBudgetExceeded({
      detail: "11 of 30 published names would lose their records.",
      plan: "p",
      zone: "hosts.test.",
      wanted: 11,
      remaining: 10,
      published: 30,
      deleted: 0,
      windowSeconds: 3600
    })
    const { detail } = Connection.explain(exceeded, server)
    assert.match(detail, /^11 of 30 .*--override-budget REASON/)
  })

  it("says where it looked when what answers is no Prism server", () => {
    const report = Failure.describe(Connection.explain(new Error("some other shape"), server))
    assert.strictEqual(report?.exitCode, 1)
    assert.match(report!.text, /^prism-dns: http:\/\/prism\.example\.net:8081 answered in a way/)
  })
})
