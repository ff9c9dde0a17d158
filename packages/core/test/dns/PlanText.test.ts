import { assert, describe, it } from "@effect/vitest"
import * as PlanRepo from "@prism-dns/core/dns/PlanRepo"
import type { NewChange, Plan, PlanChange } from "@prism-dns/core/dns/Plans"
import * as PlanText from "@prism-dns/core/dns/PlanText"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as T from "../layers.ts"

const a = (hostname: string, ...contents: ReadonlyArray<string>) => RRset.make(T.nameOf(hostname), "A", 60, contents)

const change = (fields: Partial<NewChange> & Pick<NewChange, "action">, outcome?: string): PlanChange => ({
  ordinal: 1,
  name: T.nameOf("web"),
  type: "A",
  before: undefined,
  after: undefined,
  reason: "a reason",
  cause: "drift",
  outcome,
  ...fields
})

const changes: ReadonlyArray<PlanChange> = [
  change({ action: "delete", before: a("old", "192.0.2.1"), reason: "nothing wants it" }),
  change({ action: "create", after: a("web", "192.0.2.2", "192.0.2.3"), reason: "it is missing" }, "applied"),
  change({ action: "update", before: a("db", "192.0.2.4"), after: a("db", "192.0.2.5") }, "it has changed since"),
  change({ action: "adopt", before: a("printer", "192.0.2.6"), after: a("printer", "192.0.2.6") })
]

const plan = (fields: Partial<Plan> = {}): Plan => ({
  id: "0193b5a0-0000-7000-8000-000000000000",
  zone: T.forward.name,
  kind: "reconcile",
  state: "open",
  madeAtMillis: Date.UTC(2026, 10, 23, 14),
  madeBy: "prism",
  generation: 42,
  hash: PlanRepo.extendHash(PlanRepo.emptyHash, changes),
  reason: "PowerDNS holds something else than it should",
  counts: PlanRepo.addCounts(PlanRepo.noCounts, changes),
  decidedAtMillis: undefined,
  decidedBy: undefined,
  decidedReason: undefined,
  ...fields
})

describe("a plan in words", () => {
  it("as text has counts first, then the changes by action, each with its records and reason", () => {
    assert.deepStrictEqual(PlanText.toText(plan(), changes).split("\n"), [
      "plan 0193b5a0-0000-7000-8000-000000000000  reconcile hosts.test.  open",
      "made 2026-11-23T14:00:00Z by prism, at generation 42",
      "PowerDNS holds something else than it should",
      "4 changes of 1 name: 1 to create, 1 to update, 1 to delete, 1 to adopt; 1 name loses all its records",
      plan().hash,
      "",
      "to create:",
      "  + web.hosts.test. 60 A 192.0.2.2",
      "  + web.hosts.test. 60 A 192.0.2.3",
      "    it is missing (applied)",
      "",
      "to update:",
      "  - db.hosts.test. 60 A 192.0.2.4",
      "  + db.hosts.test. 60 A 192.0.2.5",
      "    a reason (not applied: it has changed since)",
      "",
      "to delete:",
      "  - old.hosts.test. 60 A 192.0.2.1",
      "    nothing wants it",
      "",
      "to adopt:",
      "  = printer.hosts.test. 60 A 192.0.2.6",
      "    a reason",
      ""
    ])
  })

  it("says how many changes it does not show, and what was decided", () => {
    const applied = plan({ state: "applied", decidedAtMillis: 0, decidedBy: "ann", decidedReason: "it is right" })
    const text = PlanText.toText(applied, changes.slice(0, 1))
    assert.include(text, "… and 3 more changes")
    assert.include(text, "applied 1970-01-01T00:00:00Z by ann: it is right")
  })

  it("as Markdown has a block of `diff` that no content can close, and no content that is read as Markdown", () => {
    const evil = change({
      action: "delete",
      before: { name: T.nameOf("x"), type: "TXT", ttlSeconds: 60, contents: ['"```\n# title"'] }
    })
    const text = PlanText.toMarkdown(plan({ reason: "*bold* <b>" }), [evil])
    assert.include(text, "````diff")
    assert.isTrue(text.split("\n").includes("````"))
    assert.include(text, '- x.hosts.test. 60 TXT "```\\010# title"')
    assert.include(text, "\\*bold\\* \\<b\\>")
  })

  it("as values goes through JSON unchanged", () => {
    const value = PlanText.toValue(plan(), changes)
    const read = JSON.parse(JSON.stringify(value)) as typeof value
    assert.deepStrictEqual(read.changes[1], {
      ordinal: 1,
      name: T.nameOf("web"),
      type: "A",
      action: "create",
      after: { ttlSeconds: 60, contents: ["192.0.2.2", "192.0.2.3"] },
      reason: "it is missing",
      cause: "drift",
      outcome: "applied"
    } as never)
    assert.deepStrictEqual(read.counts, plan().counts)
  })

  it("without changes says so", () => {
    assert.strictEqual(PlanText.summary(plan({ counts: PlanRepo.noCounts })), "no changes")
  })
})
