/**
 * Text from elsewhere on its way to people: what would steer a terminal, turn
 * the direction of what is written, or end a line, is written as an escape. In
 * the escapes of where it is written; which characters those are is said here.
 */

// oxlint-disable-next-line no-control-regex -- those are what is looked for
const steering = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

const hex = (code: number, digits: number): string => code.toString(16).padStart(digits, "0")

const replaced = (text: string, escape: (code: number) => string): string =>
  text.replace(steering, (character) => escape(character.charCodeAt(0)))

/** For a terminal: `\x1b`, `\u202e`. */
export const forTerminal = (text: string): string =>
  replaced(text, (code) => (code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`))

/** For text that is JSON already, inside of whose strings this means the same: `\u001b`. */
export const forJson = (text: string): string => replaced(text, (code) => `\\u${hex(code, 4)}`)

/** For a record's content as zone files have it (RFC 1035 5.1): `\027`. */
export const forZoneFile = (text: string): string =>
  replaced(text, (code) =>
    Array.from(Buffer.from(String.fromCharCode(code)), (byte) => `\\${String(byte).padStart(3, "0")}`).join("")
  )
