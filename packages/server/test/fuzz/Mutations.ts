/** Bytes and JSON that are almost right, by dice. */
import type { Dice } from "../../../core/test/simulation/Dice.ts"

/** Lengths and values at which programs tend to be wrong. */
const edges = [0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 107, 108, 127, 128, 255, 256, 4095, 4096, 65_535, 65_536, 65_537]

export const junk = (dice: Dice, bytesMax: number): Buffer => {
  const bytes = Buffer.alloc(dice.int(bytesMax + 1))
  for (let i = 0; i < bytes.length; i++) bytes[i] = dice.int(256)
  return bytes
}

/** One change of `bytes`. */
const change = (dice: Dice, bytes: Buffer): Buffer => {
  const at = dice.int(bytes.length + 1)
  switch (dice.int(8)) {
    case 0: {
      const flipped = Buffer.from(bytes)
      if (at < bytes.length) flipped[at] = flipped[at]! ^ (1 << dice.int(8))
      return flipped
    }
    case 1: {
      const set = Buffer.from(bytes)
      if (at < bytes.length)
        set[at] = dice.pick([0, 1, 0x0a, 0x0d, 0x16, 0x20, 0x22, 0x5c, 0x7b, 0x7f, 0x80, 0xc0, 0xff])
      return set
    }
    case 2:
      return bytes.subarray(0, at)
    case 3:
      return bytes.subarray(at)
    case 4:
      return Buffer.concat([bytes.subarray(0, at), junk(dice, 8), bytes.subarray(at)])
    case 5: {
      const end = at + dice.int(bytes.length - at + 1)
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)])
    }
    case 6: {
      const end = at + dice.int(bytes.length - at + 1)
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)])
    }
    default: {
      const number = Buffer.from(bytes)
      if (at + 2 <= bytes.length) number.writeUInt16BE(dice.pick(edges) & 0xffff, at)
      return number
    }
  }
}

/** `bytes` with a few changes, or none. */
export const mutate = (dice: Dice, bytes: Uint8Array): Buffer => {
  let changed = Buffer.from(bytes)
  for (let i = dice.int(4); i > 0; i--) changed = Buffer.from(change(dice, changed))
  return changed
}

/** `bytes` in pieces. */
export const split = (dice: Dice, bytes: Uint8Array): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + (dice.chance(0.3) ? 1 : 1 + dice.int(bytes.length - at)))
    pieces.push(bytes.subarray(at, end))
    at = end
  }
  return pieces
}

const words = [
  "",
  "registration",
  "1.0",
  "2.0",
  "web-1",
  "-",
  "a.b",
  "observed",
  "served",
  "\u0000",
  "\ud800",
  "K",
  "x".repeat(300)
]

/** Any value that JSON can hold, and some that it cannot. */
export const value = (dice: Dice, depth = 3): unknown => {
  switch (dice.int(depth > 0 ? 9 : 7)) {
    case 0:
      return null
    case 1:
      return dice.chance(0.5)
    case 2:
      return dice.pick([0, -0, -1, 1.5, 1e308, -1e308, 2 ** 31, 2 ** 53, 60])
    case 3:
    case 4:
      return dice.pick(words)
    case 5:
      return dice.pick(["192.0.2.1", "::1", "::ffff:1.2.3.4", "999.1.1.1", "fe80::1%x", "1.2.3", "0x7f.1"])
    case 6:
      return undefined
    case 7:
      return Array.from({ length: dice.int(20) }, () => value(dice, depth - 1))
    default:
      return fields(dice, depth - 1)
  }
}

const keys = [
  "type",
  "id",
  "version",
  "hostname",
  "zone",
  "addresses",
  "labels",
  "ttlSeconds",
  "ack",
  "auth",
  "method",
  "token",
  "publicKey",
  "signature",
  "proof",
  "host",
  "timestamp",
  "auth_token",
  "__proto__",
  "constructor",
  "toString"
]

const fields = (dice: Dice, depth: number): Record<string, unknown> =>
  Object.fromEntries(Array.from({ length: dice.int(8) }, () => [dice.pick(keys), value(dice, depth)]))

/** `message` with some of its values replaced, dropped or added. */
export const reshape = (dice: Dice, message: object): Record<string, unknown> => {
  const entries = Object.entries(message).flatMap(([key, old]): ReadonlyArray<readonly [string, unknown]> => {
    if (dice.chance(0.1)) return []
    if (dice.chance(0.2)) return [[key, value(dice)]]
    if (typeof old === "object" && old !== null && !Array.isArray(old) && dice.chance(0.5)) {
      return [[key, reshape(dice, old)]]
    }
    return [[key, old]]
  })
  return Object.fromEntries([...entries, ...(dice.chance(0.2) ? [[dice.pick(keys), value(dice)] as const] : [])])
}
