import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Chain from "@prism-dns/core/audit/Chain"
import { chain } from "@prism-dns/core/audit/Sealer"
import * as Verification from "@prism-dns/core/audit/Verification"

type Row = { -readonly [Key in keyof Chain.LogRow]: Chain.LogRow[Key] }
type Seal = { -readonly [Key in keyof Verification.Seal]: Verification.Seal[Key] }

interface Log {
  readonly rows: Array<Row>
  readonly seals: Array<Seal>
}

/** A log of entries in batches of these sizes. */
const logOf = (...sizes: ReadonlyArray<number>): Log => {
  const rows: Array<Row> = []
  const seals: Array<Seal> = []
  let head = { position: 0, hash: Chain.genesis }
  for (const size of sizes) {
    const batch = chain(
      head,
      Array.from({ length: size }, (_, i) => {
        const n = rows.length + i + 1
        return {
          sequence: n * 2,
          at: 1_700_000_000_000 + n,
          actor: `actor-${n % 3}`,
          peer: n % 2 === 0 ? null : "192.0.2.1",
          action: "host.changed",
          zone: n % 5 === 0 ? null : "hosts.test.",
          subject: `h${n}.hosts.test.`,
          generation: n + 10,
          before: n % 4 === 0 ? null : `{"n":${n}}`,
          after: `{"n":${n + 1}}`,
          reason: n % 3 === 0 ? "a reason" : null,
          cause: "registered",
          request: n % 2 === 0 ? "r-1" : null,
          result: "done"
        }
      })
    )
    rows.push(...batch.map((row) => ({ ...row })))
    const last = batch.at(-1)!
    seals.push({ firstPosition: head.position + 1, lastPosition: last.position, atMillis: 1, hash: last.hash })
    head = { position: last.position, hash: last.hash }
  }
  return { rows, seals }
}

/** Verifies as whoever reads by position does. */
const verify = ({ rows, seals }: Log, noted: ReadonlyArray<Verification.Point> = []) => {
  const verifier = Verification.make({ position: 0, hash: Chain.genesis }, noted)
  const ordered = rows.toSorted((a, b) => Number(a.position) - Number(b.position))
  const left = seals.toSorted((a, b) => a.lastPosition - b.lastPosition)
  for (const row of ordered) {
    while (left[0] !== undefined && left[0].lastPosition < Number(row.position)) verifier.seal(left.shift()!)
    verifier.entry(row)
  }
  for (const seal of left) verifier.seal(seal)
  return verifier.end({ complete: true })
}

const places = (report: Verification.Report) =>
  report.findings.map(({ position, to, what }) =>
    to === undefined ? `${what} ${position}` : `${what} ${position}-${to}`
  )

/** What is found in a log of four batches of five once `tamper` has been at it. */
const found = (tamper: (log: Log) => void) => {
  const log = logOf(5, 5, 5, 5)
  tamper(log)
  return places(verify(log))
}

const at = (log: Log, position: number) => log.rows.find((row) => Number(row.position) === position)!

const renumber = (log: Log, from: number, by: number) => {
  for (const row of log.rows) if (Number(row.position) >= from) row.position = Number(row.position) + by
}

const swapPositions = (one: number, other: number) => (log: Log) => {
  const [a, b] = [at(log, one), at(log, other)]
  a.position = other
  b.position = one
}

/** All but the hashes. */
const swapContents = (one: number, other: number) => (log: Log) => {
  const [a, b] = [at(log, one), at(log, other)]
  const [first, second] = [{ ...a }, { ...b }]
  Object.assign(a, second, { position: one, hash: first.hash })
  Object.assign(b, first, { position: other, hash: second.hash })
}

const columns = [
  "sequence",
  "at",
  "actor",
  "peer",
  "action",
  "zone",
  "subject",
  "generation",
  "before",
  "after",
  "reason",
  "cause",
  "request",
  "result",
  "hash"
] as const

describe("a log", () => {
  it("as it was sealed is good, whatever its length", () => {
    for (const sizes of [[], [1], [1, 1], [7, 1, 3]]) {
      const log = logOf(...sizes)
      const report = verify(log)
      assert.deepStrictEqual(places(report), [])
      assert.strictEqual(report.entries, log.rows.length)
    }
  })

  for (const column of columns) {
    it(`with another byte in the column ${column} is found out, with the place`, () => {
      for (const position of [1, 3, 5, 6, 13, 19, 20]) {
        const findings = found((log) => {
          const row = at(log, position)
          const value = row[column]
          Object.assign(row, {
            [column]: typeof value === "string" ? `${value.slice(0, 2)}~${value.slice(3)}` : Number(value ?? 0) + 1
          })
        })
        assert.include(findings, `changed ${position}`)
      }
    })
  }

  it("with a space more in its JSON is found out, though the JSON means the same", () => {
    assert.deepStrictEqual(
      found((log) => void (at(log, 7).after = ` ${at(log, 7).after}`)),
      ["changed 7"]
    )
  })

  it("with an entry written anew, with a hash that fits, is found out where the next one follows", () => {
    const rewrite = (position: number) => (log: Log) => {
      const row = at(log, position)
      row.reason = "it was somebody else"
      const former = position === 1 ? Chain.genesis : at(log, position - 1).hash
      row.hash = Chain.hashOf(former, Chain.textOf(row))
    }
    assert.deepStrictEqual(found(rewrite(7)), ["changed 8"])
    assert.deepStrictEqual(found(rewrite(10)), ["changed 10"])
    assert.deepStrictEqual(found(rewrite(20)), ["seal-changed 20"])
  })

  it("without its first, a middle, or its last entry is found out", () => {
    const remove = (position: number) => (log: Log) => void log.rows.splice(position - 1, 1)
    for (const position of [1, 2, 5, 6, 13, 20])
      assert.deepStrictEqual(found(remove(position)), [`removed ${position}`])
    assert.deepStrictEqual(
      found((log) => void log.rows.splice(7, 6)),
      ["removed 8-13"]
    )
  })

  it("of which all entries are gone is found out", () => {
    assert.deepStrictEqual(
      found((log) => void log.rows.splice(0)),
      ["removed 1-20"]
    )
  })

  it("without some entries, and those behind numbered anew, is found out, once", () => {
    const take = (position: number, count: number) => (log: Log) => {
      log.rows.splice(position - 1, count)
      renumber(log, position, -count)
    }
    assert.deepStrictEqual(found(take(7, 1)), ["removed 7"])
    assert.deepStrictEqual(found(take(7, 2)), ["removed 7-8"])
    assert.include(found(take(1, 1)).join(), "removed 1")
    assert.isNotEmpty(found(take(19, 1)))
  })

  it("with entries put in, and those behind numbered anew, is found out, once", () => {
    const put = (position: number, isChained: boolean) => (log: Log) => {
      renumber(log, position, 1)
      const row = { ...log.rows[3]!, position, subject: "forged" }
      const former = position === 1 ? Chain.genesis : at(log, position - 1).hash
      if (isChained) row.hash = Chain.hashOf(former, Chain.textOf(row))
      log.rows.push(row)
    }
    for (const isChained of [false, true]) {
      assert.deepStrictEqual(found(put(7, isChained)), ["added 7"])
      assert.include(found(put(1, isChained)), "added 1")
    }
  })

  it("with an entry behind its end, which no seal covers, is found out", () => {
    const findings = found((log) => {
      const row = { ...log.rows[19]!, position: 21 }
      row.hash = Chain.hashOf(log.rows[19]!.hash, Chain.textOf(row))
      log.rows.push(row)
    })
    assert.deepStrictEqual(findings, ["seal-missing 21"])
  })

  it("two of whose entries have changed places is found out, with both", () => {
    for (const swap of [swapPositions, swapContents]) {
      for (const [one, other] of [
        [7, 8],
        [7, 9],
        [2, 18],
        [1, 2],
        [13, 14]
      ] as const) {
        assert.deepStrictEqual(found(swap(one, other)), [`swapped ${one}-${other}`])
      }
    }
    for (const [one, other] of [
      [5, 6],
      [10, 20],
      [19, 20]
    ] as const) {
      assert.include(found(swapContents(one, other)), `swapped ${one}-${other}`)
      assert.include(found(swapPositions(one, other)), `swapped ${one}-${other}`)
    }
  })

  it("without a seal, or with another one, is found out", () => {
    assert.deepStrictEqual(
      found((log) => void log.seals.splice(1, 1)),
      ["seal-missing 6-10"]
    )
    assert.deepStrictEqual(
      found((log) => void log.seals.splice(0, 1)),
      ["seal-missing 1-5"]
    )
    assert.deepStrictEqual(
      found((log) => void log.seals.splice(3, 1)),
      ["seal-missing 16-20"]
    )
    for (const index of [0, 1, 3]) {
      assert.deepStrictEqual(
        found((log) => void (log.seals[index]!.hash = `x${log.seals[index]!.hash.slice(1)}`)),
        [`seal-changed ${(index + 1) * 5}`]
      )
    }
    assert.include(
      found((log) => void (log.seals[1]!.firstPosition = 7)),
      "seal-missing 6"
    )
    assert.isNotEmpty(found((log) => void (log.seals[1]!.lastPosition = 9)))
    assert.isNotEmpty(found((log) => void (log.seals[1]!.lastPosition = 11)))
  })

  it("whose end was cut off with its seals is found out by a head that was noted, and by nothing else", () => {
    const log = logOf(5, 5)
    const head = { position: 10, hash: at(log, 10).hash }
    assert.deepStrictEqual(places(verify(log, [head])), [])
    log.rows.splice(5)
    log.seals.splice(1)
    assert.deepStrictEqual(places(verify(log)), [])
    assert.deepStrictEqual(places(verify(log, [head])), ["removed 6-10"])
  })

  it("that was written anew from some place on is found out by a head that was noted, and by nothing else", () => {
    const head = { position: 10, hash: at(logOf(5, 5), 10).hash }
    const log = logOf(5, 5)
    let hash = at(log, 6).hash
    at(log, 7).subject = "forged"
    for (const row of log.rows.slice(6)) {
      hash = Chain.hashOf(hash, Chain.textOf(row))
      row.hash = hash
    }
    log.seals[1]!.hash = hash
    assert.deepStrictEqual(places(verify(log)), [])
    assert.deepStrictEqual(places(verify(log, [head])), ["not-as-noted 10"])
  })

  it("that is wrong all over names so many places and says that there are more", () => {
    const log = logOf(50, 50, 50)
    for (const row of log.rows) row.reason = "forged"
    const report = verify(log)
    assert.isTrue(report.more)
    assert.strictEqual(report.findings.length, Verification.findingsMax)
  })

  it.effect.prop(
    "at which somebody has been, at any place and in any way, is never good, and the first place is named",
    {
      sizes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 }))).check(
        Schema.isMinLength(1),
        Schema.isMaxLength(6)
      ),
      place: Schema.Natural,
      other: Schema.Natural,
      how: Schema.Literals(["byte", "remove", "positions", "contents", "put", "seal", "seal-hash", "two"]),
      column: Schema.Literals(columns)
    },
    ({ column, how, other, place, sizes }) =>
      Effect.sync(() => {
        const log = logOf(...sizes)
        const count = log.rows.length
        const one = (place % count) + 1
        const two = (other % count) + 1
        const change = (row: Row) => {
          const value = row[column]
          Object.assign(row, { [column]: typeof value === "number" ? value + 1 : `${value ?? ""}x` })
        }
        let first = one
        switch (how) {
          case "byte":
            change(at(log, one))
            break
          case "two":
            change(at(log, one))
            if (two !== one) change(at(log, two))
            first = Math.min(one, two)
            break
          case "remove":
            log.rows.splice(one - 1, 1)
            break
          case "positions":
          case "contents":
            if (one === two) return
            if (how === "positions") swapPositions(one, two)(log)
            else swapContents(one, two)(log)
            first = Math.min(one, two)
            break
          case "put": {
            renumber(log, one, 1)
            log.rows.push({ ...log.rows[two - 1]!, position: one, subject: "forged" })
            break
          }
          case "seal":
            first = log.seals.splice(place % log.seals.length, 1)[0]!.firstPosition
            break
          case "seal-hash": {
            const seal = log.seals[place % log.seals.length]!
            seal.hash = `${seal.hash}x`
            first = seal.lastPosition
            break
          }
        }
        const { findings } = verify(log)
        assert.isNotEmpty(findings, how)
        assert.strictEqual(findings[0]!.position, first, `${how}: ${JSON.stringify(findings)}`)
      }),
    { arbitrary: { runs: 500 } }
  )
})
