/**
 * Every place of the HTTP contract that takes a text, and a request that puts
 * one there. Read from the OpenAPI document, so that a new endpoint is walked
 * without anybody thinking of it.
 */

type Json = Readonly<Record<string, any>>

export interface Attempt {
  /** Such as `POST /v1/tokens body /name`. */
  readonly place: string
  readonly method: string
  /** With the query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
}

export interface Place {
  readonly place: string
  readonly attempt: (text: string) => Attempt
}

/** A value that fits a schema, as far as its words say; `known` are values by the name of a field. */
const sample = (document: Json, schema: Json, known: Json, name = "", depth = 0): unknown => {
  if (depth > 8) return null
  const ref: string | undefined = schema["$ref"]
  if (ref !== undefined) {
    const named = document["components"].schemas[ref.slice(ref.lastIndexOf("/") + 1)]
    return sample(document, named, known, name, depth + 1)
  }
  if (name in known && schema["properties"] === undefined && schema["items"] === undefined) return known[name]
  const choice: ReadonlyArray<Json> | undefined = schema["anyOf"] ?? schema["oneOf"] ?? schema["allOf"]
  if (choice !== undefined) {
    return sample(document, choice.find(({ type }) => type !== "null") ?? choice[0]!, known, name, depth + 1)
  }
  if (schema["enum"] !== undefined) return schema["enum"][0]
  switch (schema["type"]) {
    case "object":
      if (schema["properties"] === undefined) return { key: "value" }
      return Object.fromEntries(
        Object.entries<Json>(schema["properties"]).map(([field, each]) => [
          field,
          sample(document, each, known, field, depth + 1)
        ])
      )
    case "array":
      return [sample(document, schema["items"] ?? {}, known, name, depth + 1)]
    case "integer":
    case "number":
      return Math.max(1, schema["minimum"] ?? 1)
    case "boolean":
      return false
    case "string":
      return schema["format"] === "date-time" ? "2030-01-01T00:00:00Z" : "text"
    default:
      return "text"
  }
}

/** Paths to all texts within a value; keys of its objects too, by a path that ends in `#`. */
const texts = (value: unknown, at: ReadonlyArray<string> = []): ReadonlyArray<ReadonlyArray<string>> => {
  if (typeof value === "string") return [at]
  if (Array.isArray(value)) return value.flatMap((each, i) => texts(each, [...at, String(i)]))
  if (typeof value !== "object" || value === null) return []
  return [[...at, "#"], ...Object.entries(value).flatMap(([key, each]) => texts(each, [...at, key]))]
}

/** The same with `text` at that path. */
const placed = (value: unknown, [head, ...rest]: ReadonlyArray<string>, text: string): unknown => {
  if (head === undefined) return text
  // A key of its own making, `__proto__` among them, as JSON may have it.
  if (head === "#") return Object.defineProperty({ ...(value as object) }, text, { value: text, enumerable: true })
  if (Array.isArray(value)) return value.map((each, i) => (String(i) === head ? placed(each, rest, text) : each))
  const object = value as Json
  return { ...object, [head]: placed(object[head], rest, text) }
}

const commonHeaders = [
  "x-request-id",
  "traceparent",
  "idempotency-key",
  "if-match",
  "if-none-match",
  "user-agent",
  "accept",
  "last-event-id",
  "x-forwarded-for"
]

/** Lone halves of characters cannot be written in UTF-8; they are sent as they would be by whoever does not care. */
const escaped = (text: string): string => encodeURIComponent(text.toWellFormed())

/** All places; `known` are values of parameters and fields by name, which lead to nothing that is there. */
export const places = (document: Json, known: Json): ReadonlyArray<Place> =>
  Object.entries<Json>(document["paths"]).flatMap(([path, item]) =>
    Object.entries<Json>(item).flatMap(([verb, operation]) => {
      const method = verb.toUpperCase()
      const parameters: ReadonlyArray<Json> = operation["parameters"] ?? []
      const named = `${method} ${path}`
      const pathWith = (values: Json): string =>
        path.replaceAll(/\{(\w+)\}/g, (_, name: string) => escaped(String(values[name] ?? known[name] ?? "absent")))
      const [contentType, content] = Object.entries<Json>(operation["requestBody"]?.content ?? {})[0] ?? []
      const valid = content === undefined ? undefined : sample(document, content["schema"], known)
      const base = {
        method,
        headers: contentType === undefined ? {} : { "content-type": contentType },
        body: valid === undefined ? undefined : typeof valid === "string" ? valid : JSON.stringify(valid)
      }
      const ofParameters = parameters.flatMap(({ in: where, name }): ReadonlyArray<Place> => {
        const place = `${named} ${where} ${name}`
        if (where === "path") {
          return [{ place, attempt: (text) => ({ ...base, place, path: pathWith({ [name]: text }) }) }]
        }
        if (where === "query") {
          return [{ place, attempt: (text) => ({ ...base, place, path: `${pathWith({})}?${name}=${escaped(text)}` }) }]
        }
        return []
      })
      const unknownQuery = `${named} query of its own`
      const ofHeaders = commonHeaders.map((name): Place => {
        const place = `${named} header ${name}`
        return {
          place,
          attempt: (text) => ({ ...base, place, path: pathWith({}), headers: { ...base.headers, [name]: text } })
        }
      })
      const ofBody =
        valid === undefined
          ? []
          : texts(valid).map((at): Place => {
              const place = `${named} body /${at.join("/")}`
              return {
                place,
                attempt: (text) => {
                  const body = placed(valid, at, text)
                  return {
                    ...base,
                    place,
                    path: pathWith({}),
                    body: typeof body === "string" ? body : JSON.stringify(body)
                  }
                }
              }
            })
      return [
        ...ofParameters,
        {
          place: unknownQuery,
          attempt: (text) => ({
            ...base,
            place: unknownQuery,
            path: `${pathWith({})}?${escaped(text)}=${escaped(text)}`
          })
        },
        // Headers go the same way whatever the operation: once for each method of each path's first.
        ...(verb === Object.keys(item)[0] ? ofHeaders : []),
        ...ofBody
      ]
    })
  )
