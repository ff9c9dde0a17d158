/**
 * A frame's payload as a JSON object: what messages of every version begin
 * with.
 */
import { Result } from "effect"

/** Fields by name, in no shape yet. */
export type Fields = Readonly<Record<string, unknown>>

/** Why a payload is no object, or an object no message. `code` is stable, `message` for people. */
export interface Unreadable {
  readonly code: "empty" | "bad-utf8" | "bad-json" | "not-an-object" | "invalid"
  readonly message: string
  /** Of the request, where it could be read. */
  readonly id: number | undefined
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const unreadable = (code: Unreadable["code"], message: string): Result.Result<never, Unreadable> =>
  Result.fail({ code, message, id: undefined })

export const parseObject = (payload: Uint8Array): Result.Result<Fields, Unreadable> => {
  if (payload.length === 0) return unreadable("empty", "the message is empty")
  let text: string
  try {
    text = utf8.decode(payload)
  } catch {
    return unreadable("bad-utf8", "the message is not UTF-8")
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return unreadable("bad-json", "the message is not JSON")
  }
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? Result.succeed(value as Fields)
    : unreadable("not-an-object", "the message is not a JSON object")
}
