/**
 * Contents of the records that people manage, parsed once at the edge. Pure.
 *
 * What comes out is the one text of a content: names absolute and in lower
 * case, addresses as `IpAddress` writes them, numbers without leading zeros,
 * texts in quoted strings of at most 255 octets. It is the text that PowerDNS
 * gives back, so that what was written and what is read compare as strings.
 * What PowerDNS would refuse is refused here first, with what is wrong. Leaves to
 * others: what may stand at which name (`dns/RecordRules`).
 *
 * A RFC 1035 3.4.1 · AAAA RFC 3596 · CNAME, NS, PTR, MX, TXT RFC 1035 3.3 · SRV RFC
 * 2782 · CAA RFC 8659 · ALIAS and LUA are PowerDNS's own.
 */
import { Result, Schema } from "effect"
import * as DomainName from "./DomainName.ts"
import * as IpAddress from "./IpAddress.ts"
import * as RRset from "./RRset.ts"

/** The record types that people manage. Closed: SOA is PowerDNS's to raise, and what signs a zone is never written by hand. */
export const recordTypes = ["A", "AAAA", "PTR", "CNAME", "MX", "TXT", "SRV", "CAA", "NS", "ALIAS", "LUA"] as const
export type RecordType = (typeof recordTypes)[number]

const known: ReadonlySet<string> = new Set(recordTypes)

export const isRecordType = (type: string): type is RecordType => known.has(type)

/** Types whose answers PowerDNS computes when it is asked: there is no text to compare them with. */
export const isComputed = (type: string): boolean => type === "ALIAS" || type === "LUA"

/** Seconds at the most (RFC 2181, 8). */
export const ttlSecondsMax = 2_147_483_647

/** Records of one set at the most. */
export const contentsMax = 500

/** Characters of all contents of a set at the most: what is far larger answers nobody, not even over TCP. */
export const charactersMax = 32_768

/** Octets of the texts of one record at the most. */
export const textOctetsMax = 8192

/** What is wrong with a content. `reason` is a sentence for people. */
export class ContentInvalid extends Schema.TaggedError<ContentInvalid>()("ContentInvalid", {
  type: Schema.String,
  content: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.type} '${this.content}': ${this.reason}`
  }
}

type Parsed = Result.Result<string, string>

export interface ParseOptions {
  /** Where a name without a dot at its end belongs, as in a zone file; undefined: it is absolute all the same. */
  readonly origin?: DomainName.DomainName | undefined
}

/** Reads one content, in whatever form it was written, into its one text. */
export const parse = (
  type: RecordType,
  content: string,
  options: ParseOptions = {}
): Result.Result<string, ContentInvalid> =>
  Result.mapError(
    content.length > charactersMax
      ? Result.fail(`it is longer than ${charactersMax} characters`)
      : parsers[type](content.trim(), options),
    (reason) => new ContentInvalid({ type, content: content.slice(0, 128), reason })
  )

/** Reads a whole set. Records that are the same are one. */
export const parseSet = (
  name: DomainName.DomainName,
  type: RecordType,
  ttlSeconds: number,
  contents: ReadonlyArray<string>,
  options: ParseOptions = {}
): Result.Result<RRset.RRset, ContentInvalid> => {
  const fail = (reason: string, content = "") => Result.fail(new ContentInvalid({ type, content, reason }))
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 0 || ttlSeconds > ttlSecondsMax) {
    return fail(`a TTL is a whole number of seconds from 0 to ${ttlSecondsMax}`)
  }
  if (contents.length === 0) return fail("a record set has at least one record")
  if (contents.length > contentsMax) return fail(`a record set has at most ${contentsMax} records`)
  const texts: Array<string> = []
  let characters = 0
  for (const content of contents) {
    const parsed = parse(type, content, options)
    if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
    characters += parsed.success.length
    if (characters > charactersMax) return fail(`its contents are longer than ${charactersMax} characters together`)
    texts.push(parsed.success)
  }
  const rrset = RRset.make(name, type, ttlSeconds, texts)
  if ((type === "CNAME" || type === "ALIAS") && rrset.contents.length > 1) {
    return fail(`a name has one ${type} record, and ${rrset.contents.length} are given`)
  }
  return Result.succeed(rrset)
}

// ---------------------------------------------------------------------------------------------------------------------
// Parts
// ---------------------------------------------------------------------------------------------------------------------

const dottedQuad = /^(?:\d{1,3}\.){3}\d{1,3}\.?$/

const lost = (what: string) => Result.fail(what)

/** A name within a content. `of`: `host` for what has to be a machine's. */
const nameOf = (text: string, of: "host" | "any", { origin }: ParseOptions): Parsed => {
  if (text === ".") return Result.succeed(text)
  if (text === "") return lost("a name is missing")
  if (text === "@" && origin !== undefined) return Result.succeed(origin)
  if (/\s/.test(text)) return lost(`'${text.slice(0, 64)}' is more than one name`)
  if (dottedQuad.test(text)) return lost(`'${text}' is an address where a name belongs`)
  const full = text.endsWith(".") || origin === undefined ? text : origin === "." ? `${text}.` : `${text}.${origin}`
  return Result.flatMap(
    Result.mapError(DomainName.parse(full), ({ reason }) => reason),
    (name) => {
      if (name.includes("*")) return lost(`'${name}' has a wildcard, which no record points to`)
      return of === "host" && /[_/]/.test(name)
        ? lost(`'${name}' is not a host's name: letters, digits and hyphens`)
        : Result.succeed(name)
    }
  )
}

const single =
  (of: "host" | "any") =>
  (content: string, options: ParseOptions): Parsed =>
    content === "." ? lost("the root is no name to point to") : nameOf(content, of, options)

const numberOf = (text: string | undefined, what: string, max: number): Result.Result<number, string> =>
  text !== undefined && /^\d{1,10}$/.test(text) && Number(text) <= max
    ? Result.succeed(Number(text))
    : lost(`${what} is a number from 0 to ${max}${text === undefined ? ", and is missing" : ""}`)

const words = (content: string): ReadonlyArray<string> => content.split(/[ \t]+/)

/** Numbers in front, and a host's name behind them. */
const numbered =
  (...numbers: ReadonlyArray<string>) =>
  (content: string, options: ParseOptions): Parsed => {
    const parts = words(content)
    if (parts.length !== numbers.length + 1) return lost(`it consists of ${[...numbers, "and a name"].join(", ")}`)
    const read: Array<number> = []
    for (const [i, what] of numbers.entries()) {
      const number = numberOf(parts[i], what, 65_535)
      if (Result.isFailure(number)) return Result.fail(number.failure)
      read.push(number.success)
    }
    return Result.map(nameOf(parts.at(-1)!, "host", options), (name) => [...read, name].join(" "))
  }

const address =
  (type: "A" | "AAAA") =>
  (content: string): Parsed =>
    Result.flatMap(
      Result.mapError(IpAddress.parseClaimed(content), ({ message }) => message),
      (text) =>
        IpAddress.recordType(text) === type
          ? Result.succeed(text)
          : lost(
              type === "A" ? `'${text}' is an IPv6 address, which an AAAA record has` : `'${text}' is an IPv4 address`
            )
    )

/** The octets of character strings (RFC 1035, 5.1), quoted or bare; or what is wrong. */
export const parseStrings = (content: string): Result.Result<ReadonlyArray<Uint8Array>, string> => {
  const strings: Array<Uint8Array> = []
  let at = 0
  while (at < content.length) {
    if (content[at] === " " || content[at] === "\t") {
      at += 1
      continue
    }
    const isQuoted = content[at] === '"'
    if (isQuoted) at += 1
    const octets: Array<number> = []
    for (;;) {
      const code = content.codePointAt(at)
      if (code === undefined) {
        if (isQuoted) return lost("a quote is not closed")
        break
      }
      if (isQuoted ? code === 0x22 : code === 0x20 || code === 0x09) break
      if (code === 0x22) return lost('a quote stands in the middle of a word; write it as \\"')
      if (code !== 0x5c) {
        octets.push(...(code < 0x80 ? [code] : Buffer.from(String.fromCodePoint(code))))
        at += code > 0xffff ? 2 : 1
        continue
      }
      const decimal = /^\d{3}/.exec(content.slice(at + 1, at + 4))?.[0]
      if (decimal !== undefined) {
        if (Number(decimal) > 255) return lost(`\\${decimal} is more than an octet can be`)
        octets.push(Number(decimal))
        at += 4
      } else {
        const escaped = content.codePointAt(at + 1)
        if (escaped === undefined) return lost("a backslash ends the text")
        if (escaped >= 0x30 && escaped <= 0x39) return lost("a backslash and digits are three digits: \\065")
        octets.push(...Buffer.from(String.fromCodePoint(escaped)))
        at += escaped > 0xffff ? 3 : 2
      }
    }
    if (isQuoted) {
      at += 1
      const next = content[at]
      if (next !== undefined && next !== " " && next !== "\t") return lost("behind a closing quote comes a space")
    }
    strings.push(Uint8Array.from(octets))
  }
  return strings.length === 0 ? lost('it has no text; an empty one is written as ""') : Result.succeed(strings)
}

/** A character string, quoted. */
export const quote = (octets: Uint8Array): string => {
  let text = '"'
  for (const octet of octets) {
    if (octet === 0x22 || octet === 0x5c) text += `\\${String.fromCharCode(octet)}`
    else if (octet >= 0x20 && octet < 0x7f) text += String.fromCharCode(octet)
    else text += `\\${octet.toString().padStart(3, "0")}`
  }
  return `${text}"`
}

/** Pieces of at most 255 octets; an empty string stays one. */
const split = (octets: Uint8Array): ReadonlyArray<Uint8Array> =>
  octets.length <= 255
    ? [octets]
    : Array.from({ length: Math.ceil(octets.length / 255) }, (_, i) => octets.subarray(i * 255, (i + 1) * 255))

const quoteAll = (strings: ReadonlyArray<Uint8Array>): Parsed => {
  const octets = strings.reduce((sum, { length }) => sum + length, 0)
  return octets > textOctetsMax
    ? lost(`its text is longer than ${textOctetsMax} octets`)
    : Result.succeed(strings.flatMap(split).map(quote).join(" "))
}

/** What does not begin with a quote and comes from no zone file is taken as it is: nobody wants to quote an SPF record. */
const text = (content: string, { origin }: ParseOptions): Parsed =>
  Result.flatMap(
    content.startsWith('"') || origin !== undefined
      ? parseStrings(content)
      : content === ""
        ? lost('it has no text; an empty one is written as ""')
        : Result.succeed([Buffer.from(content)]),
    quoteAll
  )

const caa = (content: string): Parsed => {
  const match = /^(\S+)[ \t]+(\S+)[ \t]+(.+)$/s.exec(content)
  if (match === null) return lost('it consists of flags, a tag and a value, such as 0 issue "ca.example"')
  const [, flagsText, tag, valueText] = match
  const flags = numberOf(flagsText, "flags", 255)
  if (Result.isFailure(flags)) return Result.fail(flags.failure)
  if (!/^[a-z0-9]{1,15}$/i.test(tag!)) return lost(`'${tag!.slice(0, 32)}' is not a tag: up to 15 letters and digits`)
  return Result.flatMap(parseStrings(valueText!), (strings) => {
    if (strings.length !== 1) return lost("it has one value, in quotes")
    if (strings[0]!.some((octet) => octet < 0x20 || octet > 0x7e))
      return lost("its value is of printable ASCII (RFC 8659, 4.1)")
    if (strings[0]!.length > textOctetsMax) return lost(`its value is longer than ${textOctetsMax} octets`)
    return Result.succeed(`${flags.success} ${tag!.toLowerCase()} ${quote(strings[0]!)}`)
  })
}

/** Types that a LUA record may answer as. */
const luaTypes: ReadonlySet<string> = new Set(["A", "AAAA", "CNAME", "MX", "PTR", "SRV", "TXT", "CAA"])

const lua = (content: string): Parsed => {
  const match = /^(\S+)[ \t]+(.+)$/s.exec(content)
  if (match === null)
    return lost("it consists of a type and code in quotes, such as A \"ifportup(443, {'192.0.2.1'})\"")
  const type = match[1]!.toUpperCase()
  if (!luaTypes.has(type)) return lost(`'${match[1]!.slice(0, 32)}' is not a type that a LUA record answers as`)
  if (!match[2]!.startsWith('"')) return lost("its code stands in quotes")
  return Result.flatMap(parseStrings(match[2]!), (strings) =>
    Result.map(quoteAll(strings), (code) => `${type} ${code}`)
  )
}

/** The types of the answers that a computed record stands for. */
export const computedTypes = (type: string, content: string): ReadonlyArray<string> =>
  type === "ALIAS" ? ["A", "AAAA"] : type === "LUA" ? [content.slice(0, content.indexOf(" "))] : []

const parsers: Readonly<Record<RecordType, (content: string, options: ParseOptions) => Parsed>> = {
  A: address("A"),
  AAAA: address("AAAA"),
  PTR: single("any"),
  CNAME: single("any"),
  ALIAS: single("any"),
  NS: single("host"),
  MX: numbered("a preference"),
  SRV: numbered("a priority", "a weight", "a port"),
  TXT: text,
  CAA: caa,
  LUA: lua
}
