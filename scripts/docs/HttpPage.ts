/** The reference page of the HTTP API, made from its OpenAPI document and the table of its problems. */
import { problems } from "@prism-dns/core/api/Problems"

/** As much of OpenAPI 3.1 and JSON Schema as our document uses. */
interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly format?: string
  readonly enum?: ReadonlyArray<string | number>
  readonly anyOf?: ReadonlyArray<Schema>
  readonly allOf?: ReadonlyArray<Schema>
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema
  readonly required?: ReadonlyArray<string>
  readonly description?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly default?: string | number | boolean
}

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly description?: string
  readonly schema: Schema
}

interface Answer {
  readonly description: string
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>
  readonly headers?: Readonly<Record<string, unknown>>
}

interface Operation {
  readonly summary?: string
  readonly description?: string
  readonly parameters?: ReadonlyArray<Parameter>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
  readonly responses?: Readonly<Record<string, Answer>>
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> }
}

const code = (text: string) => `\`${text}\``
const cell = (text: string) => text.replaceAll("|", "\\|")

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map(() => "---"), ...rows.map((row) => row.map(cell))].map((row) => `| ${row.join(" | ")} |`).join("\n")

const nameOf = (ref: string): string => ref.slice(ref.lastIndexOf("/") + 1)
const linkTo = (name: string): string => `[${name}](#${name.toLowerCase()})`

const typeOf = (schema: Schema): string => {
  if (schema.$ref !== undefined) return linkTo(nameOf(schema.$ref))
  if (schema.enum !== undefined) return schema.enum.map((each) => code(String(each))).join(", ")
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`
  if (schema.additionalProperties !== undefined) return `object of ${typeOf(schema.additionalProperties)}`
  if (schema.format === "date-time") return "time"
  const { maxLength, maximum, minLength, minimum } = schema
  // The limits of what a number can hold exactly say nothing about the value.
  if (minimum !== undefined && maximum !== Number.MAX_SAFE_INTEGER) return `${schema.type}, ${minimum} to ${maximum}`
  if (minLength !== undefined) return `${schema.type}, ${minLength} to ${maxLength} characters`
  return schema.type ?? ""
}

/** Errors have one shape, told once. */
const isProblem = (answer: Answer): boolean => answer.content?.["application/problem+json"] !== undefined

const parameterRow = ({ description = "", in: place, name, required, schema }: Parameter) => [
  code(name),
  required ? `${place}, must be given` : place,
  typeOf(schema),
  description + (schema.default === undefined ? "" : ` Default: ${code(String(schema.default))}.`)
]

/** Whether a body may be left out: the contract then takes null for it. */
const mayBeAbsent = ({ anyOf = [] }: Schema): boolean => anyOf.some(({ type }) => type === "null")

const bodySection = ({ requestBody }: Operation): ReadonlyArray<string> => {
  const schema = requestBody?.content["application/json"]?.schema
  if (schema === undefined) return []
  const given = schema.anyOf?.find(({ type }) => type !== "null") ?? schema
  const intro = `Body${mayBeAbsent(schema) ? ", may be absent" : ""}: ${given.$ref === undefined ? "an object" : typeOf(given)}.`
  return given.properties === undefined ? [intro] : [intro, table(["field", "value", "", "meaning"], fieldRows(given))]
}

/** What an answer is made of, by its media types. */
const answerType = ({ content = {}, description }: Answer): string => {
  const types = Object.entries(content).map(([type, { schema }]) =>
    type === "application/json" ? typeOf(schema) : code(type)
  )
  return types.length === 0 ? description : types.join(", or ")
}

const answerRow = ([status, answer]: readonly [string, Answer]) => {
  const headers = Object.keys(answer.headers ?? {}).map((name) => code(name))
  return [status, isProblem(answer) ? "[problem](#problems)" : answerType(answer), headers.join(", ")]
}

const operationSection = (method: string, path: string, operation: Operation): string =>
  [
    `### ${method.toUpperCase()} ${path}`,
    `${operation.summary ?? ""}. ${operation.description ?? ""}`.trim(),
    ...(operation.parameters === undefined || operation.parameters.length === 0
      ? []
      : [table(["parameter", "in", "value", "meaning"], operation.parameters.map(parameterRow))]),
    ...bodySection(operation),
    table(["status", "answer", "headers"], Object.entries(operation.responses ?? {}).map(answerRow))
  ].join("\n\n")

/** The rows of an object's fields; those of an object within stand below it, by their path. */
const fieldRows = (schema: Schema, path = ""): ReadonlyArray<ReadonlyArray<string>> =>
  Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const here = `${path}${name}`
    const optional = schema.required?.includes(name) === true ? "" : "may be absent"
    const row = [code(here), typeOf(field), optional, field.description ?? ""]
    return field.properties === undefined ? [row] : [row, ...fieldRows(field, `${here}.`)]
  })

const schemaSection = ([name, schema]: readonly [string, Schema]): string =>
  `### ${name}\n\n${table(["field", "value", "", "meaning"], fieldRows(schema))}`

/** The whole page, in Markdown. */
export const page = (document_: object): string => {
  const document = document_ as Document
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => operationSection(method, path, operation))
  )
  const schemas = Object.entries(document.components.schemas)
    .filter(([, { properties }]) => !String(properties?.["type"]?.enum?.[0]).startsWith("urn:prism-dns:problem:"))
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return `<!-- Made from the HTTP contract in packages/core/src/api by \`npm run docs\`. -->

# HTTP API

On the port \`http.port\` (8081). The same as a program reads it: [openapi.json](openapi.json), also served at \`/openapi.json\`; as a page to
try it out: \`/docs\`. Every path below \`/v1\` wants a token: \`Authorization: Bearer TOKEN\`. [The guide](../guides/api.md) says what all paths have in common:
errors, pages, versions, dry runs, the same request twice, rates.
Times are RFC 3339 in UTC. Answers may gain fields; a parameter that is not named here is refused.

Beside it, without a token:

| path | answer |
| --- | --- |
| \`/livez\` | 200 while the process runs |
| \`/readyz\` | 200 \`ready\` when a registration would be accepted, 200 \`degraded\` when only PowerDNS is away, else 503 \`unready\`; \`?verbose\` lists the checks |
| \`/metrics\` | [metrics](metrics.md) for Prometheus |

## Paths

${operations.join("\n\n")}

## Objects

${schemas.map(schemaSection).join("\n\n")}

## Problems

Every error is \`application/problem+json\` (RFC 9457): \`type\` for programs, \`title\`, \`status\`, \`detail\` in a sentence for people, and
\`instance\`, the request it is about.
\`request-invalid\` has \`errors\` too: for each wrong value \`in\` (path, query, header, body), \`pointer\` and \`detail\`.

${table(
  ["type", "status", "title"],
  Object.values(problems).map(({ status, title, type }) => [code(type), String(status), title])
)}
`
}
