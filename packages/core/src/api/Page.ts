/**
 * Pages of a list, by cursor. A cursor stands for the last name given; it holds
 * while hosts come and go, and means nothing to anyone but the server.
 */
import { Result, Schema } from "effect"
import { Base64Url } from "effect/encoding"
import * as DomainName from "../domain/DomainName.ts"

/** Items in an answer when the caller does not say. */
export const limitDefault = 100

/** Items in an answer at the most. */
export const limitMax = 1000

export const Limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: limitMax }))

/** Leaves room for cursors of another kind. */
const prefix = "n1:"

/** The cursor of the page behind `name`. */
export const cursorAfter = (name: DomainName.DomainName): string => Base64Url.encode(`${prefix}${name}`)

/** The name a cursor stands behind, or undefined if it is none of ours. */
export const nameBefore = (cursor: string): DomainName.DomainName | undefined => {
  const text = Result.getOrUndefined(Base64Url.decodeString(cursor))
  return text?.startsWith(prefix) === true
    ? Result.getOrUndefined(DomainName.parse(text.slice(prefix.length)))
    : undefined
}

export const Cursor = Schema.String.check(
  Schema.makeFilter((cursor: string) =>
    nameBefore(cursor) === undefined ? "the cursor is not one that this API gave out" : undefined
  )
)
