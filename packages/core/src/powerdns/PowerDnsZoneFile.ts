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

interface Pending {
  readonly name: DomainName
  readonly type: string
  readonly ttlSeconds: number
  readonly contents: Array<string>
}

const recordPattern = /^([^\t]+)\t(\d+)\tIN\t([A-Z0-9]+)\t(.*)$/s

/** `names`: keep only these; undefined keeps all. */
export const makeReader = (names: ReadonlySet<DomainName> | undefined) => {
  const sets = new Map<string, Pending>()
  let rest = ""
  let recordCount = 0
  let last: Pending | undefined
  /** Part of a text that goes on, or nothing. */
  let blankLines = 0

  const line = (text: string) => {
    const match = recordPattern.exec(text)
    if (match === null) {
      if (text === "") {
        blankLines++
        return
      }
      if (recordCount === 0) throw new ZoneFileInvalid("the export does not begin with a record")
      // SQL backends print a TXT's line ends as they are
      if (last !== undefined) last.contents.push(`${last.contents.pop()}${"\n".repeat(blankLines + 1)}${text}`)
      blankLines = 0
      return
    }
    recordCount++
    blankLines = 0
    last = undefined
    // PowerDNS's names are taken as they are: it may hold names that Prism would not make
    const name = match[1]!.toLowerCase() as DomainName
    if (names !== undefined && !names.has(name)) return
    const key = `${name} ${match[3]}`
    last = sets.get(key)
    if (last === undefined) {
      last = { name, type: match[3]!, ttlSeconds: Number(match[2]), contents: [] }
      sets.set(key, last)
    }
    last.contents.push(match[4]!)
  }

  return {
    push: (text: string): void => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()!
      for (const each of lines) line(each)
    },
    /** The RRsets, in the order of the export, and how many records the zone has in all. */
    end: (): { readonly rrsets: ReadonlyArray<RRset.RRset>; readonly recordCount: number } => {
      line(rest)
      rest = ""
      return {
        rrsets: Array.from(sets.values(), (set) => RRset.make(set.name, set.type, set.ttlSeconds, set.contents)),
        recordCount
      }
    }
  }
}
