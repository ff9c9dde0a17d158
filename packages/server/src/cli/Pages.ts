/** Lists that come in pages, for commands that print all of it. */
import * as Page from "@prism-dns/core/api/Page"
import { Effect, Schema } from "effect"
import { Flag } from "effect/cli"
import * as Output from "./Output.ts"

interface Answer<A> {
  readonly body: { readonly items: ReadonlyArray<A>; readonly nextCursor?: string }
}

/** What a page is asked for with. */
export interface Asked {
  readonly limit: number
  readonly cursor?: string
}

/** Pages until `limit` items are there or there are no more; with `nextCursor` there are more. */
export const collect = Effect.fnUntraced(function* <A, E, R>(
  page: (asked: Asked) => Effect.Effect<Answer<A>, E, R>,
  limit: number
) {
  const items: Array<A> = []
  let cursor: string | undefined
  do {
    const size = Math.min(limit - items.length, Page.limitMax)
    const { body } = yield* page({ limit: size, ...(cursor !== undefined && { cursor }) })
    items.push(...body.items)
    cursor = body.nextCursor
  } while (cursor !== undefined && items.length < limit)
  return { items, ...(cursor !== undefined && { nextCursor: cursor }) }
})

/** Prints what `collect` has found: as JSON, or as rows with a word on what was left out. */
export const print = <A>(
  found: { readonly items: ReadonlyArray<A>; readonly nextCursor?: string },
  input: { readonly json: boolean; readonly limit: number },
  options: {
    readonly columns: ReadonlyArray<Output.Column<A>>
    /** What a person is told where there are none. */
    readonly none: string
    /** Of a list from the newest on. */
    readonly newestFirst?: boolean
  }
) => {
  if (input.json) return Output.json(found)
  const first = options.newestFirst === true ? "newest" : "first"
  return Output.rows(options.columns, found.items, options.none).pipe(
    Effect.andThen(
      found.nextCursor === undefined ? Effect.void : Output.note(`the ${first} ${input.limit}; --limit gives more`)
    )
  )
}

/** How many of `what` are printed at the most. */
export const limit = (what: string) =>
  Flag.Int("limit").pipe(
    Flag.withDescription(`${what} at the most. Default: 1000.`),
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))),
    Flag.withDefault(1000)
  )
