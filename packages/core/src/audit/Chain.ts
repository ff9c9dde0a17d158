/**
 * The chain of the audit: what an entry is, the one text that stands for it, and
 * the hash that covers that text and the hash of the entry before. Pure.
 *
 * The text is JSON in the canonical form of RFC 8785: keys in order, no spaces.
 * It is what the API and exports show of an entry, without its hash, so that
 * whoever has those can compute the chain without Prism. Columns hold `before`
 * and `after` in this form too: a byte that is another there is seen, also where
 * the JSON means the same. docs/reference/audit.md describes all of it.
 */
import { hash } from "node:crypto"

/** An entry that is sealed. */
export interface LogEntry {
  /** 1, 2, 3 ... without gaps. */
  readonly position: number
  /** As it was written; rises along the entries of one subject, and has gaps. */
  readonly sequence: number
  readonly atMillis: number
  /** The principal's name; `prism` for what Prism does of itself. */
  readonly actor: string
  /** The address it spoke from. */
  readonly peer: string | undefined
  /** A word of `audit/Actions`. */
  readonly action: string
  readonly zone: string | undefined
  readonly subject: string
  readonly generation: number
  /** JSON, parsed. */
  readonly before: unknown
  readonly after: unknown
  readonly reason: string | undefined
  /** What led to it. */
  readonly cause: string | undefined
  /** The id of the API request it came by. */
  readonly request: string | undefined
  /** `done`, or a word for what became of it. */
  readonly result: string
  readonly hash: string
}

/** A row of `audit_log`, or of `audit_entry` with the position it is to have. */
export interface EntryRow {
  readonly position: number | bigint
  readonly sequence: number | bigint
  readonly at: number | bigint
  readonly actor: string
  readonly peer: string | null
  readonly action: string
  readonly zone: string | null
  readonly subject: string
  readonly generation: number | bigint
  readonly before: string | null
  readonly after: string | null
  readonly reason: string | null
  readonly cause: string | null
  readonly request: string | null
  readonly result: string
}

export interface LogRow extends EntryRow {
  readonly hash: string
}

/** What transactions write of an entry, in the order of the tables. */
export const entryColumns = {
  at: "bigint",
  actor: "text",
  peer: "text",
  action: "text",
  zone: "text",
  subject: "text",
  generation: "bigint",
  before: "text",
  after: "text",
  reason: "text",
  cause: "text",
  request: "text",
  result: "text"
} as const

/** The columns of `audit_log`, in the order of the table. */
export const logColumns = {
  position: "bigint",
  sequence: "bigint",
  ...entryColumns,
  hash: "text"
} as const

/** For a SELECT list. */
export const columns = Object.keys(logColumns).join(", ")

/** The hash before the first entry. */
export const genesis = ""

/** Whether all keys are in the order of the canonical form: then `JSON.stringify`, which is faster, writes just that. */
const isOrdered = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return true
  if (Array.isArray(value)) return value.every(isOrdered)
  if ("toJSON" in value) return false
  let former: string | undefined
  for (const key of Object.keys(value)) {
    if (former !== undefined && key <= former) return false
    if (!isOrdered(value[key as keyof typeof value])) return false
    former = key
  }
  return true
}

/** JSON in the canonical form of RFC 8785. */
export const canonicalJson = (value: unknown): string => (isOrdered(value) ? JSON.stringify(value) : ordered(value))

const ordered = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map((each) => ordered(each ?? null)).join(",")}]`
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  const fields: Array<string> = []
  for (const key of Object.keys(value).sort()) {
    const field: unknown = value[key as keyof typeof value]
    if (field !== undefined) fields.push(`${JSON.stringify(key)}:${ordered(field)}`)
  }
  return `{${fields.join(",")}}`
}

/** The canonical form of a column's text. Text that is no JSON, as entries had in early versions, becomes a string of it. */
export const canonicalText = (text: string): string => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = text
  }
  return canonicalJson(value)
}

const optional = (key: string, value: string | null): string =>
  value === null ? "" : `"${key}":${JSON.stringify(value)},`

const verbatim = (key: string, json: string | null): string => (json === null ? "" : `"${key}":${json},`)

/** Milliseconds as people read them; a number that is no time stays one. */
export const timeOf = (at: number | bigint): string => {
  const date = new Date(Number(at))
  return Number.isNaN(date.getTime()) ? `${at}` : date.toISOString()
}

/** The text that stands for an entry; its `before` and `after` are canonical. */
export const textOf = (row: EntryRow): string =>
  `{"action":${JSON.stringify(row.action)},"actor":${JSON.stringify(row.actor)},${verbatim("after", row.after)}` +
  `"at":"${timeOf(row.at)}",${verbatim("before", row.before)}${optional("cause", row.cause)}` +
  `"generation":${row.generation},${optional("peer", row.peer)}"position":${row.position},` +
  `${optional("reason", row.reason)}${optional("request", row.request)}"result":${JSON.stringify(row.result)},` +
  `"sequence":${row.sequence},"subject":${JSON.stringify(row.subject)}` +
  `${row.zone === null ? "" : `,"zone":${JSON.stringify(row.zone)}`}}`

/** The hash of an entry that follows on `former`. */
export const hashOf = (former: string, text: string): string => hash("sha256", `${former}\n${text}`, "base64url")

const parsed = (text: string | null): unknown => {
  if (text === null) return undefined
  try {
    return JSON.parse(text)
  } catch {
    // Of an entry that was changed: whoever looks at it is shown what stands there.
    return text
  }
}

export const toEntry = (row: LogRow): LogEntry => ({
  position: Number(row.position),
  sequence: Number(row.sequence),
  atMillis: Number(row.at),
  actor: row.actor,
  peer: row.peer ?? undefined,
  action: row.action,
  zone: row.zone ?? undefined,
  subject: row.subject,
  generation: Number(row.generation),
  before: parsed(row.before),
  after: parsed(row.after),
  reason: row.reason ?? undefined,
  cause: row.cause ?? undefined,
  request: row.request ?? undefined,
  result: row.result,
  hash: row.hash
})
