/**
 * The id of the request that is being answered: in its answer
 * (`X-Request-Id`), in the log, and in the audit.
 *
 * Promises: a caller's own id is taken as it is where it is short and made of
 * harmless characters, so that it may stand in a log line, a header and a URN;
 * else one is made that sorts by time. Leaves to others: who puts it where
 * (`Exchange`).
 */
import { randomUUID } from "node:crypto"

export const header = "x-request-id"

/** Characters of an id at the most that a caller may give. */
export const charactersMax = 128

const wellFormed = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/

/** What a caller calls its request; undefined where it says nothing that can be used. */
export const given = (value: string | undefined): string | undefined =>
  value !== undefined && value.length <= charactersMax && wellFormed.test(value) ? value : undefined

/** A UUID of version 7 (RFC 9562 5.7): the time in milliseconds, then chance. */
export const make = (nowMillis: number): string => {
  const time = Math.trunc(nowMillis).toString(16).padStart(12, "0")
  return `${time.slice(0, 8)}-${time.slice(8, 12)}-7${randomUUID().slice(15)}`
}

/** As problems name it. */
export const toUrn = (id: string): string => `urn:prism-dns:request:${id}`
