/**
 * Signatures of webhooks, as the Standard Webhooks specification has them:
 * HMAC-SHA256 over id, time and body, by a secret that both sides hold. Pure.
 *
 * While a secret is being replaced a message carries a signature by each, so
 * that a receiver may take its time to change over.
 */
import { createHmac, timingSafeEqual } from "node:crypto"

export const secretPrefix = "whsec_"

/** Bytes of a secret that is made here. */
export const secretBytes = 32

/** How far the time of a message may lie from the receiver's clock, as the specification advises. */
export const toleranceMillis = 5 * 60_000

export const toSecret = (bytes: Uint8Array): string => `${secretPrefix}${Buffer.from(bytes).toString("base64")}`

const keyOf = (secret: string): Buffer =>
  Buffer.from(secret.startsWith(secretPrefix) ? secret.slice(secretPrefix.length) : secret, "base64")

export interface Message {
  /** The same each time the message is sent. */
  readonly id: string
  /** Of this attempt, in whole seconds since 1970. */
  readonly atSeconds: number
  readonly body: string
}

const signature = (secret: string, { atSeconds, body, id }: Message): string =>
  `v1,${createHmac("sha256", keyOf(secret)).update(`${id}.${atSeconds}.${body}`).digest("base64")}`

/** The headers of a message, with a signature by each of `secrets`. */
export const headersOf = (secrets: ReadonlyArray<string>, message: Message): Record<string, string> => ({
  "webhook-id": message.id,
  "webhook-timestamp": String(message.atSeconds),
  "webhook-signature": secrets.map((secret) => signature(secret, message)).join(" ")
})

/** For receivers: whether one of the signatures is by `secret`, and the message is not an old one that is sent again by another. */
export const verify = (
  secret: string,
  headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined },
  body: string,
  nowMillis: number
): boolean => {
  const { "webhook-id": id, "webhook-signature": signatures, "webhook-timestamp": timestamp } = headers
  if (typeof id !== "string" || typeof signatures !== "string" || typeof timestamp !== "string") return false
  if (!/^\d{1,12}$/.test(timestamp)) return false
  const atSeconds = Number(timestamp)
  if (Math.abs(nowMillis - atSeconds * 1000) > toleranceMillis) return false
  const expected = Buffer.from(signature(secret, { id, atSeconds, body }))
  return signatures.split(" ").some((each) => {
    const given = Buffer.from(each)
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
}
