/**
 * The header of the PROXY protocol, versions 1 and 2, by which a load balancer
 * says for whom a connection is
 * (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
 *
 * Takes bytes as they come, split anywhere, and gives either nothing yet, or
 * the whole header and what came behind it, or why there is none. Promises:
 * nothing is said about the header before all of it is there and right; it is
 * known to be wrong at the first byte that no header can have; at most
 * `headerBytesMax` bytes are held. Leaves to others: whether its sender is to
 * be believed.
 */
import * as IpAddress from "@prism-dns/core/domain/IpAddress"
import { Result } from "effect"
import * as Net from "node:net"

/** What a header says about the other end. */
export type ProxyHeader =
  /** The connection is made for a client at this address. */
  | { readonly _tag: "Proxied"; readonly source: IpAddress.IpAddress }
  /** The connection is made for a client that the balancer cannot name. */
  | { readonly _tag: "Unknown" }
  /** The balancer speaks for itself: a health check. */
  | { readonly _tag: "Local" }

export type Reading =
  | { readonly _tag: "Incomplete" }
  /** `rest`: the bytes behind the header. */
  | { readonly _tag: "Complete"; readonly header: ProxyHeader; readonly rest: Uint8Array }
  /** The connection begins with something else. */
  | { readonly _tag: "Missing" }
  | { readonly _tag: "Invalid"; readonly reason: string }

/** Longest line of version 1, its CRLF included. */
export const lineBytesMax = 107

/** Bytes of version 2 before addresses and extensions. */
const fixedBytes = 16

/** Most that version 2 may announce behind those: addresses of 216 bytes at the most, the rest is extensions. */
export const extentBytesMax = 4096

/** Longest header of either version. */
export const headerBytesMax = fixedBytes + extentBytesMax

const lineStart = Buffer.from("PROXY ")
const signature = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a])

/** True when `bytes`, at least one, may be the beginning of a header of either version. */
export const mayBegin = (bytes: Uint8Array): boolean =>
  bytes.length > 0 && (beginsAlike(bytes, lineStart) || beginsAlike(bytes, signature))

const beginsAlike = (bytes: Uint8Array, start: Uint8Array): boolean => {
  const length = Math.min(bytes.length, start.length)
  for (let i = 0; i < length; i++) if (bytes[i] !== start[i]) return false
  return true
}

const incomplete: Reading = { _tag: "Incomplete" }
const missing: Reading = { _tag: "Missing" }
const invalid = (reason: string): Reading => ({ _tag: "Invalid", reason })

export class ProxyHeaderReader {
  #held = new Uint8Array(lineBytesMax)
  #filled = 0
  #settled: Reading | undefined

  /** Bytes held of a header that is not complete yet. */
  get heldBytes(): number {
    return this.#filled
  }

  /** What is known with `chunk`. Anything but `Incomplete` is the last word. */
  push(chunk: Uint8Array): Reading {
    if (this.#settled !== undefined) return this.#settled
    let at = 0
    while (at < chunk.length) {
      at += this.#take(chunk, at)
      const reading = this.#look()
      if (reading._tag === "Incomplete") continue
      this.#settled = reading._tag === "Complete" ? { ...reading, rest: chunk.subarray(at) } : reading
      this.#held = new Uint8Array(0)
      this.#filled = 0
      return this.#settled
    }
    return incomplete
  }

  /** Moves over what can be judged next, and never a byte behind the header: one byte, or the rest of version 2. */
  #take(chunk: Uint8Array, at: number): number {
    const announced = this.#announcedBytes()
    const wanted = announced === undefined ? 1 : fixedBytes + announced - this.#filled
    const count = Math.min(wanted, chunk.length - at)
    if (this.#filled + wanted > this.#held.length) {
      const grown = new Uint8Array(this.#filled + wanted)
      grown.set(this.#held.subarray(0, this.#filled))
      this.#held = grown
    }
    this.#held.set(chunk.subarray(at, at + count), this.#filled)
    this.#filled += count
    return count
  }

  /** Bytes behind the fixed part of version 2, once that is there. */
  #announcedBytes(): number | undefined {
    return this.#held[0] === signature[0] && this.#filled >= fixedBytes
      ? (this.#held[14]! << 8) | this.#held[15]!
      : undefined
  }

  #look(): Reading {
    const bytes = this.#held.subarray(0, this.#filled)
    if (!mayBegin(bytes)) return missing
    return bytes[0] === signature[0] ? this.#lookAtBinary(bytes) : lookAtLine(bytes)
  }

  #lookAtBinary(bytes: Uint8Array): Reading {
    const announced = this.#announcedBytes()
    if (announced === undefined) return incomplete
    if (announced > extentBytesMax) return invalid(`it announces ${announced} bytes; ${extentBytesMax} is the most`)
    return bytes.length < fixedBytes + announced ? incomplete : parseBinary(bytes)
  }
}

const complete = (header: ProxyHeader): Reading => ({ _tag: "Complete", header, rest: new Uint8Array(0) })

// --- Version 1: a line ------------------------------------------------------------------------------------------

const LF = 0x0a
const CR = 0x0d

const lookAtLine = (bytes: Uint8Array): Reading => {
  const last = bytes.at(-1)
  if (last === LF) {
    return bytes.at(-2) === CR
      ? parseLine(Buffer.from(bytes.subarray(0, -2)).toString("latin1"))
      : invalid("its line does not end in CRLF")
  }
  if (bytes.at(-2) === CR) return invalid("it has a CR within its line")
  return bytes.length >= lineBytesMax ? invalid(`its line is longer than ${lineBytesMax} bytes`) : incomplete
}

const parseLine = (line: string): Reading => {
  const [, family, ...words] = line.split(" ")
  // What follows UNKNOWN has no meaning.
  if (family === "UNKNOWN") return complete({ _tag: "Unknown" })
  if (family !== "TCP4" && family !== "TCP6") return invalid("its family is none of TCP4, TCP6 and UNKNOWN")
  const isAddress = family === "TCP4" ? Net.isIPv4 : isIPv6
  const [source, destination, ...ports] = words
  if (source === undefined || !isAddress(source)) return invalid(`its source is no ${family} address`)
  if (destination === undefined || !isAddress(destination)) return invalid(`its destination is no ${family} address`)
  if (ports.length !== 2 || !ports.every(isPort)) return invalid("it does not end in two ports")
  return proxied(source)
}

/** A scope (`%eth0`) names an interface of the balancer. */
const isIPv6 = (text: string): boolean => Net.isIPv6(text) && !text.includes("%")

const isPort = (text: string): boolean => /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535

const proxied = (source: string): Reading =>
  Result.match(IpAddress.parse(source), {
    onFailure: () => invalid("its source is no address"),
    onSuccess: (address) => complete({ _tag: "Proxied", source: address })
  })

// --- Version 2: binary ------------------------------------------------------------------------------------------

/** Bytes of both addresses and ports, by family and transport; no other pair is assigned. */
const addressBytes: ReadonlyMap<number, number> = new Map([
  [0x00, 0],
  [0x11, 12],
  [0x12, 12],
  [0x21, 36],
  [0x22, 36],
  [0x31, 216],
  [0x32, 216]
])

/** `bytes`: a whole header. */
const parseBinary = (bytes: Uint8Array): Reading => {
  const versionAndCommand = bytes[12]!
  if (versionAndCommand >>> 4 !== 2) return invalid(`its version is ${versionAndCommand >>> 4}, not 2`)
  const command = versionAndCommand & 0x0f
  if (command > 1) return invalid(`its command is ${command}, neither LOCAL nor PROXY`)
  // Of a connection of the balancer's own nothing else has a meaning, its checksum excepted.
  const family = bytes[13]!
  const length = addressBytes.get(family)
  const extensions = length === undefined ? undefined : bytes.subarray(Math.min(fixedBytes + length, bytes.length))
  if (command === 0) {
    return extensions !== undefined && !sumsUp(bytes, extensions)
      ? invalid("its checksum is wrong")
      : complete({ _tag: "Local" })
  }
  if (length === undefined) return invalid(`it has an unassigned family or transport (${family})`)
  if (bytes.length < fixedBytes + length) return invalid("it is too short for its addresses")
  const checksums = readExtensions(extensions!)
  if (checksums === undefined) return invalid("its extensions do not fit its length")
  if (!sumsUp(bytes, extensions!)) return invalid("its checksum is wrong")
  switch (family) {
    case 0x00:
      return complete({ _tag: "Unknown" })
    case 0x11:
      return proxied(bytes.subarray(16, 20).join("."))
    case 0x21: {
      const view = new DataView(bytes.buffer, bytes.byteOffset)
      return proxied(Array.from({ length: 8 }, (_, i) => view.getUint16(16 + i * 2).toString(16)).join(":"))
    }
    default:
      return invalid(family >= 0x31 ? "it is for a Unix socket, which has no address" : "it is for datagrams")
  }
}

/** The one extension that is looked at, and its length. */
const CRC32C = 0x03

/** Where the checksums stand in `extensions`; undefined when these are cut off. */
const readExtensions = (extensions: Uint8Array): ReadonlyArray<number> | undefined => {
  const checksums: Array<number> = []
  let at = 0
  while (at < extensions.length) {
    if (extensions.length - at < 3) return undefined
    const length = (extensions[at + 1]! << 8) | extensions[at + 2]!
    if (at + 3 + length > extensions.length) return undefined
    if (extensions[at] === CRC32C) {
      if (length !== 4) return undefined
      checksums.push(at + 3)
    }
    at += 3 + length
  }
  return checksums
}

/** False when `header` has a checksum that is not its own. `extensions` is its end. */
const sumsUp = (header: Uint8Array, extensions: Uint8Array): boolean => {
  const [at, ...more] = readExtensions(extensions) ?? []
  if (at === undefined) return true
  if (more.length > 0) return false
  const blank = header.slice()
  blank.fill(0, header.length - extensions.length + at, header.length - extensions.length + at + 4)
  return crc32c(blank) === new DataView(extensions.buffer, extensions.byteOffset).getUint32(at)
}

/** Castagnoli's CRC (RFC 3720, B.4), bit by bit: a header has one, and is short. */
export const crc32c = (bytes: Uint8Array): number => {
  let sum = 0xffff_ffff
  for (const byte of bytes) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f6_3b78 : 0)
  }
  return ~sum >>> 0
}
