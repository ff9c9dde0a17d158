/**
 * Reads the text of `/zones/ZONE/export`: one record per line, five fields
 * between tabs, absolute names, no `$` directives.
 *
 * Promises: lines may be cut anywhere between two `push`es; a TXT record with
 * tabs or line ends inside stays one record. Leaves to others: anything a
 * person might write into a zone file; this reads PowerDNS's own only.
 * Records that are disabled, and empty non-terminals, are not in an export.
 */
import type { DomainName } from "../domain/DomainName.ts"
import * as RRset from "../domain/RRset.ts"

/** The text is not an export of a zone. */
export class ZoneFileInvalid extends Error {
  override readonly name = "ZoneFileInvalid"
}

/** One record, as the export has it: name in lower case, content as PowerDNS writes it. */
export interface RawRecord {
  readonly name: DomainName
  readonly type: string
  readonly ttlSeconds: number
  readonly content: string
}

interface Pending {
  readonly name: DomainName
  readonly type: string
  readonly ttlSeconds: number
  readonly contents: Array<string>
}

const recordPattern = /^([^\t]+)\t(\d+)\tIN\t([A-Z0-9]+)\t(.*)$/s

/** Records as they come. `names`: only these; undefined is all. */
export const makeRecordReader = (names?: ReadonlySet<DomainName>) => {
  let rest = ""
  let recordCount = 0
  let hasSoa = false
  /** The latest record: its text may go on. */
  let last: { name: DomainName; type: string; ttlSeconds: number; content: string } | undefined
  /** Part of a text that goes on, or nothing. */
  let blankLines = 0

  const line = (text: string, complete: Array<RawRecord>) => {
    const match = recordPattern.exec(text)
    if (match === null) {
      if (text === "") {
        blankLines++
        return
      }
      if (recordCount === 0) throw new ZoneFileInvalid("the export does not begin with a record")
      // SQL backends print a TXT's line ends as they are
      if (last !== undefined) last.content += `${"\n".repeat(blankLines + 1)}${text}`
      blankLines = 0
      return
    }
    recordCount++
    blankLines = 0
    if (last !== undefined) complete.push(last)
    last = undefined
    if (match[3] === "SOA") hasSoa = true
    // PowerDNS's names are taken as they are: it may hold names that Prism would not make
    const name = match[1]!.toLowerCase() as DomainName
    if (names !== undefined && !names.has(name)) return
    last = { name, type: match[3]!, ttlSeconds: Number(match[2]), content: match[4]! }
  }

  return {
    /** The records that are complete now. */
    push: (text: string): ReadonlyArray<RawRecord> => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()!
      const complete: Array<RawRecord> = []
      for (const each of lines) line(each, complete)
      return complete
    },
    /** The last records, how many there were in all, and whether an SOA was among them, as in any zone that is one. */
    end: (): {
      readonly records: ReadonlyArray<RawRecord>
      readonly recordCount: number
      readonly hasSoa: boolean
    } => {
      const records: Array<RawRecord> = []
      line(rest, records)
      rest = ""
      if (last !== undefined) records.push(last)
      last = undefined
      return { records, recordCount, hasSoa }
    }
  }
}

/** Whole RRsets, known only at the end. `names`: keep only these; undefined keeps all. */
export const makeReader = (names: ReadonlySet<DomainName> | undefined) => {
  const reader = makeRecordReader(names)
  const sets = new Map<string, Pending>()

  const add = ({ content, name, ttlSeconds, type }: RawRecord) => {
    const key = `${name} ${type}`
    const set = sets.get(key)
    if (set === undefined) sets.set(key, { name, type, ttlSeconds, contents: [content] })
    else set.contents.push(content)
  }

  return {
    push: (text: string): void => reader.push(text).forEach(add),
    /** The RRsets, in the order of the export, and how many records the zone has in all. */
    end: (): { readonly rrsets: ReadonlyArray<RRset.RRset>; readonly recordCount: number } => {
      const { recordCount, records } = reader.end()
      records.forEach(add)
      return {
        rrsets: Array.from(sets.values(), (set) => RRset.make(set.name, set.type, set.ttlSeconds, set.contents)),
        recordCount
      }
    }
  }
}
