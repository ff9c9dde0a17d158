/** Pages of a list, as every handler gives them. */
import { Effect } from "effect"
import { HttpApiSchema } from "effect/http-api"
import type { HttpServerRequest } from "effect/http"

/** The same request, for what comes behind `cursor`. */
const nextLink = (url: string, cursor: string): string => {
  const { pathname, searchParams } = new URL(url, "http://localhost")
  searchParams.set("cursor", cursor)
  return `<${pathname}?${searchParams.toString()}>; rel="next"`
}

/** Items as they are, and the cursor that goes on behind them. */
export const pageWith = <B>(
  request: HttpServerRequest.HttpServerRequest,
  items: ReadonlyArray<B>,
  nextCursor: string | undefined
) =>
  nextCursor === undefined
    ? HttpApiSchema.withHeaders({ body: { items }, headers: {} })
    : HttpApiSchema.withHeaders({
        body: { items, nextCursor },
        headers: { link: nextLink(request.originalUrl, nextCursor) }
      })

/**
 * The first `limit` of what was found; one more than that tells that there is a next page, and so does `readTo`, the last one
 * that was read (`narrowed`).
 */
export const page = <A, B>(
  request: HttpServerRequest.HttpServerRequest,
  found: ReadonlyArray<A>,
  limit: number,
  options: {
    readonly item: (found: A, index: number) => B
    readonly cursor: (last: A) => string
    readonly readTo?: A | undefined
  }
) => {
  const shown = found.slice(0, limit)
  const items = shown.map(options.item)
  const last = found.length > limit ? shown.at(-1) : options.readTo
  return pageWith(request, items, last === undefined ? undefined : options.cursor(last))
}

/** Items that are read for one page at the most, of which the caller may see few. */
const readMax = 20_000

/**
 * The first `limit + 1` of what `keep` lets through, where the database cannot tell: reads on until there are so many, the
 * list has ended, or much was read for it. Then the page is short, and still has a next one.
 */
export const narrowed = <A, K, E, R>(
  limit: number,
  options: {
    readonly after: K | undefined
    readonly fetch: (after: K | undefined, limit: number) => Effect.Effect<ReadonlyArray<A>, E, R>
    readonly placeOf: (item: A) => K
    readonly keep: (item: A) => boolean
  }
): Effect.Effect<{ readonly found: ReadonlyArray<A>; readonly readTo: A | undefined }, E, R> =>
  Effect.gen(function* () {
    const kept: Array<A> = []
    let after = options.after
    for (let read = 0; read < readMax;) {
      const batch = yield* options.fetch(after, limit + 1)
      kept.push(...batch.filter(options.keep))
      const last = batch.at(-1)
      if (kept.length > limit || last === undefined || batch.length <= limit) {
        return { found: kept.slice(0, limit + 1), readTo: undefined }
      }
      after = options.placeOf(last)
      read += batch.length
      if (read >= readMax) return { found: kept, readTo: last }
    }
    return { found: kept, readTo: undefined }
  })
