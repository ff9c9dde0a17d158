/**
 * Reads from revocation lists (RFC 5280) and certificates who issued them and
 * which serial numbers they name.
 *
 * OpenSSL checks lists and their signatures at each handshake. This is for what
 * OpenSSL does not do: to find the sessions whose certificate is on a new list,
 * and to say when a list runs out. Pure; what is no such thing gives undefined.
 */

/** Whose certificate: its issuer's name in DER and the serial number, both in hexadecimal. */
export interface Holder {
  readonly issuer: string
  readonly serial: string
}

export interface Crl {
  readonly issuer: string
  readonly serials: ReadonlySet<string>
  /** When a newer one is due, after which OpenSSL takes this one no more; undefined: it does not say. */
  readonly nextUpdateMillis: number | undefined
}

/** One value in DER: its tag, its content, and where it stands. */
interface Value {
  readonly tag: number
  readonly content: Uint8Array
  /** With tag and length. */
  readonly whole: Uint8Array
  readonly end: number
}

const tags = { integer: 0x02, utcTime: 0x17, generalizedTime: 0x18, sequence: 0x30, version: 0xa0 } as const

/** The value at `at`; undefined when it is cut off or longer than 2^31 bytes. */
const valueAt = (bytes: Uint8Array, at: number): Value | undefined => {
  const tag = bytes[at]
  const first = bytes[at + 1]
  if (tag === undefined || first === undefined) return undefined
  let length = first
  let start = at + 2
  if (first >= 0x80) {
    const count = first & 0x7f
    if (count === 0 || count > 4 || start + count > bytes.length) return undefined
    length = 0
    for (let i = 0; i < count; i++) length = length * 256 + bytes[start + i]!
    start += count
  }
  const end = start + length
  return end > bytes.length
    ? undefined
    : { tag, content: bytes.subarray(start, end), whole: bytes.subarray(at, end), end }
}

/** The values that `bytes` consists of; undefined when they do not fill it. */
const valuesIn = (bytes: Uint8Array): ReadonlyArray<Value> | undefined => {
  const values: Array<Value> = []
  for (let at = 0; at < bytes.length;) {
    const value = valueAt(bytes, at)
    if (value === undefined) return undefined
    values.push(value)
    at = value.end
  }
  return values
}

/** What is signed: the first part of a certificate or a list. */
const signedPart = (der: Uint8Array): ReadonlyArray<Value> | undefined => {
  const whole = valueAt(der, 0)
  if (whole?.tag !== tags.sequence) return undefined
  const part = valueAt(whole.content, 0)
  return part?.tag === tags.sequence ? valuesIn(part.content) : undefined
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex")

/** Without the zero byte that keeps a number positive. */
const serialOf = (value: Value): string => hexOf(value.content).replace(/^(?:00)+(?=..)/, "")

/** The time of an ASN.1 text, which is in UTC. */
const timeOf = ({ content, tag }: Value): number | undefined => {
  const text = Buffer.from(content).toString("latin1")
  const parts = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text)
  if (parts === null || (parts[1]!.length === 4) !== (tag === tags.generalizedTime)) return undefined
  const [year, month, day, hour, minute, second] = parts.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number
  ]
  const century = tag === tags.generalizedTime ? 0 : year < 50 ? 2000 : 1900
  return Date.UTC(century + year, month - 1, day, hour, minute, second)
}

const isTime = (value: Value | undefined): value is Value =>
  value?.tag === tags.utcTime || value?.tag === tags.generalizedTime

/** Reads a list in DER. */
export const parse = (der: Uint8Array): Crl | undefined => {
  const fields = signedPart(der)
  if (fields === undefined) return undefined
  // version (optional), signature, issuer, thisUpdate, nextUpdate (optional), entries (optional), extensions (optional)
  const rest = fields[0]?.tag === tags.integer ? fields.slice(1) : fields
  const [signature, issuer, thisUpdate, ...further] = rest
  if (signature?.tag !== tags.sequence || issuer?.tag !== tags.sequence || !isTime(thisUpdate)) return undefined
  const nextUpdate = isTime(further[0]) ? further.shift() : undefined
  const entries = further[0]?.tag === tags.sequence ? valuesIn(further[0].content) : []
  if (entries === undefined) return undefined
  const serials = new Set<string>()
  for (const entry of entries) {
    const serial = valueAt(entry.content, 0)
    if (entry.tag !== tags.sequence || serial?.tag !== tags.integer) return undefined
    serials.add(serialOf(serial))
  }
  return {
    issuer: hexOf(issuer.whole),
    serials,
    nextUpdateMillis: nextUpdate === undefined ? undefined : timeOf(nextUpdate)
  }
}

/** The holder of a certificate in DER. */
export const holderOf = (der: Uint8Array): Holder | undefined => {
  const fields = signedPart(der)
  const [serial, signature, issuer] = fields?.[0]?.tag === tags.version ? fields.slice(1) : (fields ?? [])
  return serial?.tag === tags.integer && signature?.tag === tags.sequence && issuer?.tag === tags.sequence
    ? { issuer: hexOf(issuer.whole), serial: serialOf(serial) }
    : undefined
}

/** True when one of `lists` names the certificate. */
export const isRevoked = (holder: Holder, lists: ReadonlyArray<Crl>): boolean =>
  lists.some((list) => list.issuer === holder.issuer && list.serials.has(holder.serial))
