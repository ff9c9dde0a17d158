/**
 * Record contents as text, so that what was published and what a server answers
 * compare as strings. Pure.
 *
 * The form is that of PowerDNS: names in lower case with the dot at the end,
 * addresses as `IpAddress` writes them, texts in quotes. Types without a known
 * form are named by `isSupported`, and are compared by nobody.
 */
import type dnsPacket from "dns-packet"
import { Result } from "effect"
import * as IpAddress from "../domain/IpAddress.ts"

const supported: ReadonlySet<string> = new Set([
  "A",
  "AAAA",
  "CAA",
  "CNAME",
  "DNAME",
  "MX",
  "NS",
  "PTR",
  "SOA",
  "SRV",
  "TXT"
])

/** True when contents of `type` can be compared. */
export const isSupported = (type: string): boolean => supported.has(type)

/** The contents of one record as a server answered it. */
export const fromAnswer = (answer: dnsPacket.Answer): string => {
  switch (answer.type) {
    case "A":
      return answer.data
    case "AAAA":
      return canonicalAddress(answer.data)
    case "CAA":
      return `${answer.data.flags ?? 0} ${answer.data.tag.toLowerCase()} ${quoted(Buffer.from(answer.data.value))}`
    case "CNAME":
    case "DNAME":
    case "NS":
    case "PTR":
      return fullName(answer.data)
    case "MX":
      return `${answer.data.preference ?? 0} ${fullName(answer.data.exchange)}`
    case "SRV":
      return `${answer.data.priority ?? 0} ${answer.data.weight ?? 0} ${answer.data.port} ${fullName(answer.data.target)}`
    case "SOA": {
      const { expire, minimum, mname, refresh, retry, rname, serial } = answer.data
      return [fullName(mname), fullName(rname), serial, refresh, retry, expire, minimum]
        .map((part) => part ?? 0)
        .join(" ")
    }
    case "TXT": {
      const parts = Array.isArray(answer.data) ? answer.data : [answer.data]
      return parts.map((part) => quoted(typeof part === "string" ? Buffer.from(part) : part)).join(" ")
    }
    default:
      return ""
  }
}

/** The same form of contents that someone wrote down, for example in PowerDNS. */
export const canonical = (type: string, content: string): string => {
  switch (type) {
    case "A":
      return content
    case "AAAA":
      return canonicalAddress(content)
    case "TXT":
      return unquoted(content).map(quoted).join(" ")
    case "CAA": {
      const [flags, tag, ...value] = content.split(" ")
      return [Number(flags), tag?.toLowerCase(), ...unquoted(value.join(" ")).map(quoted)].join(" ")
    }
    default:
      // Numbers and names, separated by spaces.
      return content.trim().toLowerCase().replace(/\s+/g, " ")
  }
}

const fullName = (name: string): string => (name === "." ? name : `${name.toLowerCase()}.`)

const canonicalAddress = (text: string): string => Result.getOrElse(IpAddress.parse(text), () => text)

/** A character string of RFC 1035, 5.1. */
const quoted = (bytes: Uint8Array): string => {
  let text = '"'
  for (const byte of bytes) {
    if (byte === 0x22 || byte === 0x5c) text += `\\${String.fromCharCode(byte)}`
    else if (byte >= 0x20 && byte < 0x7f) text += String.fromCharCode(byte)
    else text += `\\${byte.toString().padStart(3, "0")}`
  }
  return `${text}"`
}

const unquoted = (content: string): ReadonlyArray<Uint8Array> => {
  const strings: Array<Uint8Array> = []
  for (const [, inner = "", bare = ""] of content.matchAll(/"((?:[^"\\]|\\[\s\S])*)"|([^\s"]+)/g)) {
    const bytes: Array<number> = []
    for (const [, decimal, escaped, plain] of (inner || bare).matchAll(/\\(\d{3})|\\([\s\S])|([^\\]+)/g)) {
      if (decimal !== undefined) bytes.push(Number(decimal) & 0xff)
      else bytes.push(...Buffer.from(escaped ?? plain ?? ""))
    }
    strings.push(Uint8Array.from(bytes))
  }
  return strings
}
