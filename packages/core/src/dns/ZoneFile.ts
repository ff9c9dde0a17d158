/**
 * Zone files (RFC 1035, 5; RFC 2308, 4) as people and other servers write them:
 * read into record sets, and written from them. Pure.
 *
 * Reads $ORIGIN and $TTL, relative names, `@`, an owner left out, TTL and class
 * in either order, TTLs such as `1h30m`, parentheses over several lines,
 * comments, quoted strings, and `\DDD` and `\X`. Promises: time and memory by
 * the length of the text; the first thing that is wrong is said with its line;
 * nothing is fetched and nothing made up: $INCLUDE and $GENERATE are refused, and
 * so is every class but IN. Contents of types that people manage are in their
 * one form (`domain/RecordContent`); of others only that they are there is told.
 */
import { Result, Schema } from "effect"
import * as DomainName from "../domain/DomainName.ts"
import * as RecordContent from "../domain/RecordContent.ts"
import * as RRset from "../domain/RRset.ts"

/** Records of one file at the most. */
export const recordsMax = 500_000

/** Words of one record at the most, and characters of a word. */
const wordsMax = 512
const wordCharactersMax = 16_384

/** The text is not a zone file that can be taken. */
export class ZoneFileWrong extends Schema.TaggedError<ZoneFileWrong>()("ZoneFileWrong", {
  line: Schema.Int,
  reason: Schema.String
}) {
  override get message(): string {
    return `line ${this.line}: ${this.reason}`
  }
}

/** What a file has: sets of types that people manage, and the names and types of all others. */
export interface ZoneContents {
  readonly rrsets: ReadonlyArray<RRset.RRset>
  readonly others: ReadonlyArray<{ readonly name: DomainName.DomainName; readonly type: string }>
}

/** Gathers records into sets, from wherever they come. Fails by throwing a sentence. */
export const gather = () => {
  const sets = new Map<string, { name: DomainName.DomainName; type: string; ttl: number; contents: Set<string> }>()
  const others = new Map<string, { readonly name: DomainName.DomainName; readonly type: string }>()
  let records = 0
  const count = (): string | undefined =>
    ++records > recordsMax ? `it has more than ${recordsMax} records` : undefined
  return {
    /** A record of a type that people manage, with its content in its one form. Undefined, or what is wrong. */
    add: (name: DomainName.DomainName, type: RecordContent.RecordType, ttl: number, content: string) => {
      const key = `${name} ${type}`
      const known = sets.get(key)
      if (known === undefined) sets.set(key, { name, type, ttl, contents: new Set([content]) })
      else {
        // A set has one TTL (RFC 2181, 5.2): the lowest that is given.
        known.ttl = Math.min(known.ttl, ttl)
        if (known.contents.size >= RecordContent.contentsMax) {
          return `${name} has more than ${RecordContent.contentsMax} ${type} records`
        }
        known.contents.add(content)
      }
      return count()
    },
    other: (name: DomainName.DomainName, type: string) => {
      others.set(`${name} ${type}`, { name, type })
      return count()
    },
    end: (): Result.Result<ZoneContents, string> => {
      const rrsets: Array<RRset.RRset> = []
      for (const { contents, name, ttl, type } of sets.values()) {
        const parsed = RecordContent.parseSet(name, type as RecordContent.RecordType, ttl, [...contents])
        if (Result.isFailure(parsed)) return Result.fail(`${name}: ${parsed.failure.message}`)
        rrsets.push(parsed.success)
      }
      return Result.succeed({ rrsets: rrsets.sort(byNameAndType), others: [...others.values()].sort(byNameAndType) })
    }
  }
}

/** The order of sets in whatever is written or planned. */
export const byNameAndType = (
  a: { readonly name: string; readonly type: string },
  b: { readonly name: string; readonly type: string }
): number => (a.name !== b.name ? (a.name < b.name ? -1 : 1) : a.type < b.type ? -1 : a.type > b.type ? 1 : 0)

interface Word {
  readonly text: string
  readonly quoted: boolean
}

/** A line, or several within parentheses. */
interface Entry {
  readonly line: number
  /** It begins with a blank: the owner is the one before. */
  readonly indented: boolean
  readonly words: ReadonlyArray<Word>
}

class Wrong extends Error {
  readonly line: number
  constructor(line: number, reason: string) {
    super(reason)
    this.line = line
  }
}

/** The entries of a text. Words keep their escapes; quoted ones their quotes. */
function* entriesOf(text: string): Generator<Entry> {
  let line = 1
  let at = 0
  const { length } = text
  while (at < length) {
    const begin = line
    const indented = text[at] === " " || text[at] === "\t"
    const words: Array<Word> = []
    let depth = 0
    for (;;) {
      const c = text[at]
      if (c === undefined) {
        if (depth > 0) throw new Wrong(begin, "a parenthesis is not closed")
        break
      }
      if (c === "\n") {
        at += 1
        line += 1
        if (depth === 0) break
      } else if (c === " " || c === "\t" || c === "\r") at += 1
      else if (c === ";") {
        const end = text.indexOf("\n", at)
        at = end === -1 ? length : end
      } else if (c === "(") {
        depth += 1
        at += 1
        if (depth > 1) throw new Wrong(line, "a parenthesis within another")
      } else if (c === ")") {
        depth -= 1
        at += 1
        if (depth < 0) throw new Wrong(line, "a parenthesis is closed that was not opened")
      } else {
        const start = at
        const quoted = c === '"'
        if (quoted) at += 1
        for (;;) {
          const d = text[at]
          if (d === undefined) {
            if (quoted) throw new Wrong(line, "a quote is not closed")
            break
          }
          if (d === "\\") {
            if (text[at + 1] === undefined || text[at + 1] === "\n") throw new Wrong(line, "a backslash ends the line")
            at += 2
          } else if (quoted) {
            if (d === "\n") throw new Wrong(line, "a quote is not closed on its line")
            at += 1
            if (d === '"') break
          } else if (
            d === '"' ||
            d === "(" ||
            d === ")" ||
            d === ";" ||
            d === " " ||
            d === "\t" ||
            d === "\n" ||
            d === "\r"
          ) {
            break
          } else at += 1
        }
        if (at - start > wordCharactersMax)
          throw new Wrong(line, `a word is longer than ${wordCharactersMax} characters`)
        if (words.length >= wordsMax) throw new Wrong(begin, `it has more than ${wordsMax} words`)
        words.push({ text: text.slice(start, at), quoted })
      }
    }
    if (words.length > 0) yield { line: begin, indented, words }
  }
}

const ttlPattern = /^(?:\d+|(?:\d+[wdhms])+)$/i
const units: Readonly<Record<string, number>> = { w: 604_800, d: 86_400, h: 3600, m: 60, s: 1 }

/** Seconds, or `1h30m`; undefined: it is no TTL. */
const ttlOf = (text: string): number | undefined => {
  if (!ttlPattern.test(text) || text.length > 32) return undefined
  if (/^\d+$/.test(text)) return Number(text)
  let seconds = 0
  for (const [, number, unit] of text.toLowerCase().matchAll(/(\d+)([wdhms])/g))
    seconds += Number(number) * units[unit!]!
  return seconds
}

const classes: ReadonlySet<string> = new Set(["IN", "CH", "HS", "CS", "ANY", "NONE"])

/** Types of others are words of letters, digits and hyphens: `NSEC3PARAM`, `TYPE65534`. */
const typePattern = /^[A-Z][A-Z0-9-]{0,31}$/

const nameIn = (line: number, word: Word, origin: DomainName.DomainName | "."): DomainName.DomainName => {
  if (word.quoted) throw new Wrong(line, "a name stands in quotes")
  const { text } = word
  if (text === "@") {
    if (origin === ".") throw new Wrong(line, "the root is no name of a zone here")
    return origin
  }
  const full = text.endsWith(".") ? text : origin === "." ? `${text}.` : `${text}.${origin}`
  const parsed = DomainName.parse(full)
  if (Result.isFailure(parsed)) throw new Wrong(line, `'${text.slice(0, 64)}': ${parsed.failure.reason}`)
  return parsed.success
}

/** Reads a zone file. `defaultTtl`: of records before any TTL is said. */
export const parse = (
  text: string,
  options: { readonly origin: DomainName.DomainName; readonly defaultTtlSeconds: number }
): Result.Result<ZoneContents, ZoneFileWrong> => {
  const gathered = gather()
  let origin: DomainName.DomainName | "." = options.origin
  let defaultTtl: number | undefined
  let lastTtl: number | undefined
  let owner: DomainName.DomainName | undefined
  let line = 1

  const directive = ({ words }: Entry) => {
    const name = words[0]!.text.toUpperCase()
    if (name === "$ORIGIN") {
      if (words.length !== 2) throw new Wrong(line, "$ORIGIN has one name")
      if (words[1]!.text === ".") origin = "."
      else origin = nameIn(line, words[1]!, origin)
      return
    }
    if (name === "$TTL") {
      const ttl = words.length === 2 ? ttlOf(words[1]!.text) : undefined
      if (ttl === undefined || ttl > RecordContent.ttlSecondsMax)
        throw new Wrong(line, "$TTL has one time, such as 3600")
      defaultTtl = ttl
      return
    }
    if (name === "$GENERATE" || name === "$INCLUDE") {
      throw new Wrong(line, `${name} is not taken: write out what it stands for`)
    }
    throw new Wrong(line, `'${words[0]!.text.slice(0, 32)}' is no directive that is known`)
  }

  const record = (entry: Entry) => {
    const words = [...entry.words]
    if (!entry.indented) owner = nameIn(line, words.shift()!, origin)
    if (owner === undefined) throw new Wrong(line, "the first record has no name")
    let ttl: number | undefined
    let hasClass = false
    for (;;) {
      const [word] = words
      if (word === undefined || word.quoted) throw new Wrong(line, "a record has a type")
      const upper = word.text.toUpperCase()
      const asTtl = ttl === undefined ? ttlOf(word.text) : undefined
      if (asTtl !== undefined) ttl = asTtl
      else if (!hasClass && classes.has(upper)) {
        if (upper !== "IN") throw new Wrong(line, `the class ${upper} is not taken, only IN`)
        hasClass = true
      } else break
      words.shift()
    }
    const type = words.shift()!.text.toUpperCase()
    if (!typePattern.test(type)) throw new Wrong(line, `'${type.slice(0, 32)}' is not a record type`)
    if (ttl !== undefined && ttl > RecordContent.ttlSecondsMax) {
      throw new Wrong(line, `a TTL is at most ${RecordContent.ttlSecondsMax} seconds`)
    }
    lastTtl = ttl ?? defaultTtl ?? lastTtl
    const said = RecordContent.isRecordType(type)
      ? content(type, words, lastTtl ?? options.defaultTtlSeconds)
      : gathered.other(owner, type)
    if (said !== undefined) throw new Wrong(line, said)
  }

  const content = (type: RecordContent.RecordType, words: ReadonlyArray<Word>, ttl: number) => {
    if (words.length === 0) throw new Wrong(line, `the ${type} record has no content`)
    const written = words.map((word) => word.text).join(" ")
    const parsed = RecordContent.parse(type, written, { origin: origin as DomainName.DomainName })
    if (Result.isFailure(parsed)) throw new Wrong(line, parsed.failure.message)
    return gathered.add(owner!, type, ttl, parsed.success)
  }

  try {
    for (const entry of entriesOf(text)) {
      line = entry.line
      if (!entry.indented && !entry.words[0]!.quoted && entry.words[0]!.text.startsWith("$")) directive(entry)
      else record(entry)
    }
  } catch (error) {
    if (!(error instanceof Wrong)) throw error
    return Result.fail(new ZoneFileWrong({ line: error.line, reason: error.message }))
  }
  return Result.mapError(gathered.end(), (reason) => new ZoneFileWrong({ line, reason }))
}

/** One set as lines of a zone file: absolute names, every field written out. */
export const toLines = ({ contents, name, ttlSeconds, type }: RRset.RRset): string =>
  contents.map((content) => `${name}\t${ttlSeconds}\tIN\t${type}\t${content}\n`).join("")
