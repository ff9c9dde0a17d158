/**
 * Entries of the audit as syslog messages (RFC 5424), and their framing. Pure.
 *
 * What programs filter by stands in structured data; the message is the entry as
 * an export has it, with its hash, so that the chain can be verified from what a
 * collector holds. Over a stream each message has its length before it
 * (RFC 6587, octet counting): it may hold any character.
 */
import { Buffer } from "node:buffer"
import * as AuditExport from "./AuditExport.ts"
import { type LogRow, timeOf } from "./Chain.ts"

export const facilities = [
  "kern",
  "user",
  "mail",
  "daemon",
  "auth",
  "syslog",
  "lpr",
  "news",
  "uucp",
  "cron",
  "authpriv",
  "ftp",
  "ntp",
  "audit",
  "alert",
  "clock",
  "local0",
  "local1",
  "local2",
  "local3",
  "local4",
  "local5",
  "local6",
  "local7"
] as const
export type Facility = (typeof facilities)[number]

export interface SyslogOptions {
  readonly facility: Facility
  /** The name of the machine that speaks. */
  readonly host: string
}

/** Bytes of one datagram at the most; a longer message leaves the entry out, and keeps its structured data. */
export const datagramBytesMax = 8192

const severities = { warning: 4, notice: 5 } as const

/** The id of our structured data. The number is the one set aside for documents (RFC 5612); nobody else's is ours to use. */
const dataId = "prism@32473"

const quoted = (text: string): string => `"${text.replace(/["\\\]]/g, "\\$&")}"`

/** A header field: printable ASCII without spaces, or nothing. */
const field = (text: string, charactersMax: number): string => {
  const said = text.replace(/[^\x21-\x7e]/g, "_").slice(0, charactersMax)
  return said === "" ? "-" : said
}

const dataOf = (row: LogRow): string => {
  const parameters: ReadonlyArray<readonly [string, string | null]> = [
    ["position", String(row.position)],
    ["actor", row.actor],
    ["peer", row.peer],
    ["zone", row.zone],
    ["subject", row.subject],
    ["request", row.request],
    ["result", row.result],
    ["hash", row.hash]
  ]
  const said = parameters.flatMap(([name, value]) => (value === null ? [] : `${name}=${quoted(value)}`))
  return `[${dataId} ${said.join(" ")}]`
}

const headOf = (row: LogRow, { facility, host }: SyslogOptions): string => {
  const severity = row.result === "done" ? severities.notice : severities.warning
  const priority = facilities.indexOf(facility) * 8 + severity
  return `<${priority}>1 ${timeOf(row.at)} ${field(host, 255)} prism-dns - ${field(row.action, 32)} ${dataOf(row)}`
}

/** An entry as a message. */
export const message = (row: LogRow, options: SyslogOptions): string =>
  `${headOf(row, options)} ${AuditExport.toLine(row)}`

/** For a stream. */
export const frame = (text: string): string => `${Buffer.byteLength(text)} ${text}`

/** For a datagram. */
export const datagram = (row: LogRow, options: SyslogOptions): string => {
  const whole = message(row, options)
  return Buffer.byteLength(whole) <= datagramBytesMax ? whole : headOf(row, options)
}
