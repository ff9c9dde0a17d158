/** Pages of a list, as every handler gives them. */
import { HttpApiSchema } from "effect/http-api"
import type { HttpServerRequest } from "effect/http"

/** The same request, for what comes behind `cursor`. */
const nextLink = (url: string, cursor: string): string => {
  const { pathname, searchParams } = new URL(url, "http://localhost")
  searchParams.set("cursor", cursor)
  return `<${pathname}?${searchParams.toString()}>; rel="next"`
}

/** The first `limit` of what was found; one more than that tells that there is a next page. */
export const page = <A, B>(
  request: HttpServerRequest.HttpServerRequest,
  found: ReadonlyArray<A>,
  limit: number,
  options: { readonly item: (found: A, index: number) => B; readonly cursor: (last: A) => string }
) => {
  const shown = found.slice(0, limit)
  const items = shown.map(options.item)
  const last = found.length > limit ? shown.at(-1) : undefined
  if (last === undefined) return HttpApiSchema.withHeaders({ body: { items }, headers: {} })
  const nextCursor = options.cursor(last)
  return HttpApiSchema.withHeaders({
    body: { items, nextCursor },
    headers: { link: nextLink(request.originalUrl, nextCursor) }
  })
}
