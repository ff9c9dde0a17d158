/**
 * What a change of the OpenAPI document takes away from programs that were
 * written against an older one.
 *
 * A path, an operation, a parameter, a field of an answer or a value that is
 * gone breaks them; so does something in a request that must be given now and
 * need not have been, or a value of a request that is no longer taken. What is
 * added to answers breaks nobody. Only names and kinds are looked at: bounds of
 * numbers and lengths are left to people.
 */

type Json = Readonly<Record<string, any>>

interface Side {
  readonly document: Json
  readonly schema: Json
}

const empty: Json = {}

/** A schema by its name, or as it stands. */
const resolve = ({ document, schema }: Side): Side => {
  const ref: string | undefined = schema["$ref"]
  return ref === undefined
    ? { document, schema }
    : resolve({ document, schema: document["components"].schemas[ref.slice(ref.lastIndexOf("/") + 1)] ?? empty })
}

/** What a schema may be, one by one. */
const alternatives = (side: Side): ReadonlyArray<Side> => {
  const { document, schema } = resolve(side)
  const choice: ReadonlyArray<Json> | undefined = schema["anyOf"] ?? schema["oneOf"]
  return choice === undefined
    ? [{ document, schema }]
    : choice.flatMap((each) => alternatives({ document, schema: each }))
}

type Value = string | number | boolean

const valuesOf = (sides: ReadonlyArray<Side>): ReadonlyArray<Value> =>
  sides.flatMap(({ schema }): ReadonlyArray<Value> => schema["enum"] ?? ("const" in schema ? [schema["const"]] : []))

/** Properties of all alternatives together; one is required where all that are objects require it. */
const fieldsOf = (sides: ReadonlyArray<Side>) => {
  const objects = sides.filter(({ schema }) => schema["properties"] !== undefined)
  const fields = new Map<string, { readonly sides: Array<Side>; required: boolean }>()
  for (const { document, schema } of objects) {
    for (const [name, field] of Object.entries<Json>(schema["properties"])) {
      const known = fields.get(name) ?? { sides: [], required: true }
      known.sides.push({ document, schema: field })
      fields.set(name, known)
    }
  }
  for (const [name, field] of fields) {
    field.required = objects.every(({ schema }) => (schema["required"] ?? []).includes(name))
  }
  return fields
}

/** Which way the value goes: what is added to a request, or taken from an answer, may break. */
type Way = "request" | "answer"

/** Schemas refer to themselves; deeper than this nothing new comes. */
const depthMax = 12

const compareSchemas = (
  before: ReadonlyArray<Side>,
  after: ReadonlyArray<Side>,
  way: Way,
  place: string,
  depth = 0
): ReadonlyArray<string> => {
  if (depth > depthMax) return []
  const [old, now] = [before.flatMap(alternatives), after.flatMap(alternatives)]
  const broken: Array<string> = []
  const [oldValues, nowValues] = [valuesOf(old), valuesOf(now)]
  // Where values were named, one that is gone is missed; where any was taken, naming them takes the others away.
  for (const value of oldValues) {
    if (nowValues.length > 0 && !nowValues.includes(value)) broken.push(`${place}: the value ${value} is gone`)
  }
  if (way === "request" && old.length > 0 && oldValues.length === 0 && nowValues.length > 0) {
    broken.push(`${place}: takes only certain values now`)
  }
  const kinds = (sides: ReadonlyArray<Side>) => new Set(sides.flatMap(({ schema }) => schema["type"] ?? []))
  for (const kind of kinds(old)) {
    const isSame = kinds(now).size === 0 || kinds(now).has(kind) || (kind === "number" && kinds(now).has("integer"))
    if (!isSame) broken.push(`${place}: is no longer of type ${kind}`)
  }
  const [oldFields, nowFields] = [fieldsOf(old), fieldsOf(now)]
  for (const [name, field] of oldFields) {
    const here = `${place}.${name}`
    const found = nowFields.get(name)
    if (found === undefined) {
      if (nowFields.size > 0 || kinds(now).has("object")) broken.push(`${here}: is gone`)
      continue
    }
    if (way === "answer" && field.required && !found.required) broken.push(`${here}: may be absent now`)
    broken.push(...compareSchemas(field.sides, found.sides, way, here, depth + 1))
  }
  if (way === "request") {
    for (const [name, { required }] of nowFields) {
      if (required && old.length > 0 && oldFields.get(name)?.required !== true) {
        broken.push(`${place}.${name}: must be given now`)
      }
    }
  }
  const itemsOf = (sides: ReadonlyArray<Side>) =>
    sides.flatMap(({ document, schema }) =>
      schema["items"] === undefined ? [] : [{ document, schema: schema["items"] }]
    )
  if (itemsOf(old).length > 0 && itemsOf(now).length > 0) {
    broken.push(...compareSchemas(itemsOf(old), itemsOf(now), way, `${place}[]`, depth + 1))
  }
  return broken
}

/** The schemas of a body, or none. */
const bodies = (document: Json, content: Json | undefined): ReadonlyArray<Side> =>
  Object.values<Json>(content ?? empty).flatMap(({ schema }) => (schema === undefined ? [] : [{ document, schema }]))

const isOptional = (sides: ReadonlyArray<Side>): boolean =>
  sides.length === 0 || sides.flatMap(alternatives).some(({ schema }) => schema["type"] === "null")

const compareOperations = (before: Json, after: Json, old: Json, now: Json, place: string): ReadonlyArray<string> => {
  const broken: Array<string> = []
  if (old["operationId"] !== now["operationId"]) broken.push(`${place}: is called ${now["operationId"]} now`)
  const find = (parameters: ReadonlyArray<Json> = [], { in: where, name }: Json) =>
    parameters.find((each) => each["name"] === name && each["in"] === where)
  for (const parameter of old["parameters"] ?? []) {
    const here = `${place} ${parameter.in} ${parameter.name}`
    const found = find(now["parameters"], parameter)
    if (found === undefined) broken.push(`${here}: is gone`)
    else {
      const sides = [
        { document: before, schema: parameter.schema },
        { document: after, schema: found["schema"] }
      ] as const
      broken.push(...compareSchemas([sides[0]], [sides[1]], "request", here))
    }
  }
  for (const parameter of now["parameters"] ?? []) {
    const was = find(old["parameters"], parameter)
    if (parameter.required === true && was?.["required"] !== true) {
      broken.push(`${place} ${parameter.in} ${parameter.name}: must be given now`)
    }
  }
  const oldBody = bodies(before, old["requestBody"]?.content)
  const nowBody = bodies(after, now["requestBody"]?.content)
  if (isOptional(oldBody) && !isOptional(nowBody)) broken.push(`${place} body: must be given now`)
  if (oldBody.length > 0 && nowBody.length > 0) {
    broken.push(...compareSchemas(oldBody, nowBody, "request", `${place} body`))
  }
  for (const [status, answer] of Object.entries<Json>(old["responses"])) {
    const found = now["responses"][status]
    if (found === undefined) {
      // Errors come and go with what an operation does; each is known by its type.
      if (Number(status) < 400) broken.push(`${place} ${status}: is gone`)
      continue
    }
    if (Number(status) >= 400) continue
    for (const [media, { schema }] of Object.entries<Json>(answer["content"] ?? empty)) {
      const after_ = found.content?.[media]
      if (after_ === undefined) broken.push(`${place} ${status}: is no longer ${media}`)
      else {
        broken.push(
          ...compareSchemas(
            [{ document: before, schema }],
            [{ document: after, schema: after_.schema }],
            "answer",
            `${place} ${status}`
          )
        )
      }
    }
  }
  return broken
}

/** All that is taken away, each by its place, in the order of the older document. */
export const breaks = (before: Json, after: Json): ReadonlyArray<string> =>
  Object.entries<Json>(before["paths"]).flatMap(([path, item]) =>
    Object.entries<Json>(item).flatMap(([method, operation]) => {
      const place = `${method.toUpperCase()} ${path}`
      const found = after["paths"][path]?.[method]
      return found === undefined ? [`${place}: is gone`] : compareOperations(before, after, operation, found, place)
    })
  )
