import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import type { Cause } from "@prism-dns/core/dns/Cause"
import * as NonTerminals from "@prism-dns/core/dns/NonTerminals"
import * as Publication from "@prism-dns/core/dns/Publication"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import * as RRset from "@prism-dns/core/domain/RRset"
import * as Zone from "@prism-dns/core/domain/Zone"

const name = DomainName.make("web.hosts.test")
const a = (content: string) => RRset.make(name, "A", 60, [content])
const one = a("192.0.2.1")
const two = a("192.0.2.2")

const settled = (...rrsets: ReadonlyArray<RRset.RRset>): Publication.Published => ({
  rrsets,
  sent: undefined,
  quarantinedUntilMillis: undefined
})

const decide = (
  cause: Cause,
  desired: ReadonlyArray<RRset.RRset>,
  published: Publication.Published | undefined,
  quarantine: Duration.Input = "1 hour"
) =>
  Publication.decide(
    { name, cause },
    {
      types: ["A", "AAAA"],
      desired,
      published,
      policy: { quarantine: Duration.fromInputUnsafe(quarantine) },
      nowMillis: 1000
    }
  )

const changes = (decided: Publication.Decided) =>
  decided.changes.map(({ change }) =>
    change._tag === "Delete"
      ? `delete ${change.type}`
      : `${change.disabled === true ? "disable" : "replace"} ${change.rrset.type} ${change.rrset.contents.join()}`
  )

describe("a marked name", () => {
  it("that holds what it should gets no change", () => {
    const decided = decide("registered", [one], settled(one))
    assert.deepStrictEqual(changes(decided), [])
    assert.deepStrictEqual(decided.rrsets, [one])
    assert.strictEqual(decided.deletion, "none")
  })

  it("is replaced in place", () => {
    assert.deepStrictEqual(changes(decide("registered", [two], settled(one))), ["replace A 192.0.2.2"])
  })

  it("that is new is written, without a look at types it does not have", () => {
    assert.deepStrictEqual(changes(decide("registered", [one], undefined)), ["replace A 192.0.2.1"])
  })

  for (const cause of ["registered", "released"] as const) {
    it(`that goes by somebody's word (${cause}) is deleted at once`, () => {
      const decided = decide(cause, [], settled(one))
      assert.deepStrictEqual(changes(decided), ["delete A"])
      assert.deepStrictEqual(decided.rrsets, [])
      assert.strictEqual(decided.deletion, "by-word")
    })
  }

  for (const [cause, deletion] of [
    ["withdrawn", "inferred"],
    ["drift", "inferred"],
    ["plan:1", "by-plan"]
  ] as const) {
    it(`that goes by a conclusion (${cause}) is disabled first and kept`, () => {
      const decided = decide(cause, [], settled(one))
      assert.deepStrictEqual(changes(decided), ["disable A 192.0.2.1"])
      assert.deepStrictEqual(decided.rrsets, [one])
      assert.strictEqual(decided.quarantinedUntilMillis, 3_601_000)
      assert.strictEqual(decided.deletion, deletion)
    })
  }

  it("is deleted at once by a conclusion where the zone has no quarantine, and counts as that", () => {
    const decided = decide("withdrawn", [], settled(one), "0 seconds")
    assert.deepStrictEqual(changes(decided), ["delete A"])
    assert.strictEqual(decided.deletion, "inferred")
  })

  it("that keeps but a placeholder, for what stands below it, has lost its answers, and counts as that", () => {
    const placeholder = NonTerminals.placeholder(name, Zone.make(DomainName.make("hosts.test")))
    const decided = decide("withdrawn", [placeholder], settled(one))
    assert.sameMembers(changes(decided), ["delete A", `replace TXT ${placeholder.contents.join()}`])
    assert.deepStrictEqual(decided.rrsets, [placeholder])
    assert.strictEqual(decided.deletion, "inferred")
    assert.strictEqual(decide("registered", [placeholder], settled(one)).deletion, "by-word")
    assert.strictEqual(decide("registered", [one], settled(placeholder)).deletion, "none")
    // What nobody needs any more goes, whoever noticed.
    const needless = decide("drift", [], settled(placeholder))
    assert.deepStrictEqual(changes(needless), ["delete TXT"])
    assert.strictEqual(needless.deletion, "none")
  })
})

describe("a name that was deleted, and in doubt since", () => {
  const gone: Publication.Published = { rrsets: [], sent: [], quarantinedUntilMillis: undefined }

  it("loses nothing when it is deleted once more", () => {
    const decided = decide("doubt", [], gone)
    assert.deepStrictEqual(changes(decided), ["delete A", "delete AAAA"])
    assert.strictEqual(decided.deletion, "none")
  })

  it("may still get what was sent before", () => {
    const sent = Publication.sentWith({ ...gone, sent: [one] }, [])
    assert.deepStrictEqual(sent, [one])
    assert.deepStrictEqual(Publication.notOurs({ ...gone, sent }, [one]), [])
    assert.deepStrictEqual(Publication.sentWith({ ...gone, sent: [one] }, [two, one]), [one, two])
    assert.strictEqual(Publication.sentWith({ ...gone, sent: "anything" }, [two]), "anything")
  })
})

describe("a name in quarantine", () => {
  const kept: Publication.Published = { rrsets: [one], sent: undefined, quarantinedUntilMillis: 5000 }

  it("stays as it is when another conclusion says the same", () => {
    const decided = decide("withdrawn", [], kept)
    assert.deepStrictEqual(changes(decided), [])
    assert.strictEqual(decided.quarantinedUntilMillis, 5000)
    assert.strictEqual(decided.deletion, "none")
  })

  it("is removed when its time is over, and was counted before", () => {
    const decided = decide("quarantine", [], kept)
    assert.deepStrictEqual(changes(decided), ["delete A", "delete AAAA"])
    assert.deepStrictEqual(decided.rrsets, [])
    assert.strictEqual(decided.deletion, "none")
  })

  it("is enabled again by its host's return, even with the same records", () => {
    const decided = decide("registered", [one], kept)
    assert.deepStrictEqual(changes(decided), ["replace A 192.0.2.1", "delete AAAA"])
    assert.strictEqual(decided.quarantinedUntilMillis, undefined)
  })
})

describe("a name in doubt", () => {
  const doubted: Publication.Published = { rrsets: [one], sent: [two], quarantinedUntilMillis: undefined }

  it("is written whole, whatever we believe", () => {
    assert.deepStrictEqual(changes(decide("doubt", [two], doubted)), ["replace A 192.0.2.2", "delete AAAA"])
  })

  it("has what we knew and what we sent as ours, and all else as someone else's", () => {
    const other = a("203.0.113.9")
    assert.deepStrictEqual(Publication.notOurs(doubted, [one]), [])
    assert.deepStrictEqual(Publication.notOurs(doubted, [two]), [])
    assert.deepStrictEqual(Publication.notOurs(doubted, [other]), [other])
  })

  it("is ours whatever stands there, once someone else was seen to have written to it", () => {
    assert.deepStrictEqual(Publication.notOurs({ ...doubted, sent: "anything" }, [a("203.0.113.9")]), [])
  })
})
