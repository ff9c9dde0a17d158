/**
 * Pages of a list, by cursor. A cursor stands for the last item given, by its
 * name or its place; it holds while others come and go, and means nothing to
 * anyone but the server.
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

const placePrefix = "p1:"

/** The cursor of the page behind `place`: an id, or a number. */
export const cursorBehind = (place: string | number): string => Base64Url.encode(`${placePrefix}${place}`)

/** The place a cursor stands behind, or undefined if it is none of ours. */
export const placeBefore = (cursor: string): string | undefined => {
  const text = Result.getOrUndefined(Base64Url.decodeString(cursor))
  return text?.startsWith(placePrefix) === true ? text.slice(placePrefix.length) : undefined
}

/** The number a cursor stands behind, or undefined if it is none of ours. */
export const numberBefore = (cursor: string): number | undefined => {
  const place = placeBefore(cursor)
  return place !== undefined && /^\d{1,15}$/.test(place) ? Number(place) : undefined
}

const ours = (read: (cursor: string) => unknown) =>
  Schema.String.check(
    Schema.makeFilter((cursor: string) =>
      read(cursor) === undefined ? "the cursor is not one that this API gave out" : undefined
    )
  )

/** The cursor of a list by id. */
export const PlaceCursor = ours(placeBefore)

/** The cursor of a list by number. */
export const NumberCursor = ours(numberBefore)

/** The cursor of a list by name. */
export const Cursor = ours(nameBefore)
