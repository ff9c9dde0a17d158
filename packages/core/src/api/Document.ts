/**
 * What the generated OpenAPI document does not say by itself: the meaning of
 * query parameters (a generated parameter loses the description and, being
 * text, the type of its value), that answers may gain fields, how a path with
 * a colon is called, which permission an operation requires
 * (`x-required-permission`), and what every operation has in common.
 */
import type { Requirement } from "./Authentication.ts"
import { labelFiltersMax } from "../registry/HostLists.ts"
import * as Page from "./Page.ts"

/** By name: a parameter means the same wherever it stands, unless its place is said. */
const parameters: Readonly<Record<string, object>> = {
  zone: { description: "A zone's name, in any case, with or without the trailing dot." },
  state: { description: "Only those in this state." },
  address: { description: "Only hosts that have this address, in any form it may be written in." },
  label: {
    description: "Only hosts with this label, as `key=value`. Several times: with all of them.",
    schema: { type: "array", items: { type: "string" }, maxItems: labelFiltersMax }
  },
  at: { description: "As it was at this time (RFC 3339).", schema: { type: "string", format: "date-time" } },
  from: { description: "The earlier time (RFC 3339).", schema: { type: "string", format: "date-time" } },
  to: { description: "The later time. Default: now.", schema: { type: "string", format: "date-time" } },
  about: { description: "Only differences of these." },
  q: { description: "Only hosts whose full name begins so, in any case." },
  limit: {
    description: "Items in the answer at the most.",
    schema: { type: "integer", minimum: 1, maximum: Page.limitMax, default: Page.limitDefault }
  },
  cursor: { description: "`nextCursor` of the page before, unchanged." },
  host: { description: "The host's id, or its full name in any case, with or without the trailing dot." },
  plan: { description: "The plan's id." },
  token: { description: "The token's name, or its id." },
  role: { description: "The role's name." },
  reason: { description: "Why, in a sentence; it is kept in the audit." },
  verb: { description: "What is to be done: `read`, `write`, `delete` or `apply`." },
  resource: { description: "What it is to be done with." },
  name: { description: "A full name within the zone." },
  identity: { description: "The identity's id." },
  enrolledBy: { description: "Only those that were enrolled with the token of this name." },
  guard: { description: "The guard's kind." },
  principal: {
    description:
      "Who claims: the id of an identity, the name of a token, `cert:` and the name of a client certificate, or `anonymous`."
  },
  hostname: { description: "The name that is claimed: the full one, or what stands before its zone." },
  addresses: { description: "The addresses that are claimed, with commas between them." },
  peer: { description: "The address it is said from. Default: the first of `addresses`." },
  protocol: { description: "Default: `2.0`." },
  ttlSeconds: { description: "The TTL that is wished for.", schema: { type: "integer", minimum: 1 } },
  format: {
    description: "`json` (the default), `text`, or `markdown`; of an export `zonefile` (the default), `json`, or `csv`."
  },
  release: {
    description: "`true`: the host is forgotten, in place of retired.",
    schema: { type: "boolean", default: false }
  },
  session: {
    description: "`true`: the answer also says which server the host's agent is connected to, where that is known.",
    schema: { type: "boolean", default: false }
  },
  dryRun: {
    description: "`true`: the answer says what would become of it, after the same checks; nothing is changed.",
    schema: { type: "boolean", default: false }
  },
  "if-match": {
    description: "The `ETag` of what the change starts from; something newer is left as it is, and answered with 412."
  },
  "if-none-match": { description: "`*`: only if there is nothing yet." },
  kind: {
    description:
      "Only events of these kinds: `host.created`, or a family of them: `host.*`. Several with commas, or given again."
  },
  "query:host": { description: "Only events about these full names. Several with commas, or given again." },
  since: {
    description:
      "Behind the event of this id; `0`: from the oldest one that is kept; or from a time (RFC 3339). Default: what happens from now on. `Last-Event-ID` wins."
  },
  "last-event-id": { description: "The id of the last event that was received: the stream goes on behind it." },
  webhook: { description: "The webhook's name, or its id." },
  "path:type": { description: "The record's type, such as `MX`." },
  waitFor: {
    description: "Answers once that level is reached, or after 10 s as far as it has come. Default: at once."
  },
  prune: {
    description: "`true`: managed record sets that are not among those to import are deleted.",
    schema: { type: "boolean", default: false }
  },
  foreign: {
    description: "`true`: what others have in PowerDNS is among it, SOA and name servers too.",
    schema: { type: "boolean", default: false }
  },
  ownership: { description: "Names that are Prism's (`managed`, the default), someone else's, or to be left alone." }
}

const position = { type: "integer", minimum: 0 }

/** By path and name, where a word means something of its own. */
const parametersAt: Readonly<Record<string, Readonly<Record<string, object>>>> = {
  "/v1/audit": {
    actor: { description: "Only what this principal did, by its name." },
    action: { description: "Only this action, such as `token.issued`, or a family of them: `host.*`." },
    subject: { description: "Only what was done to this: a full name, a plan's id, a token's name." },
    request: { description: "Only what this request did, by its id." },
    result: { description: "Only entries with this result, such as `done`." },
    since: { description: "Not before this time (RFC 3339).", schema: { type: "string", format: "date-time" } },
    until: { description: "Before this time (RFC 3339).", schema: { type: "string", format: "date-time" } }
  },
  "/v1/audit/verify": {
    from: { description: "The first position. Default: the oldest entry.", schema: position },
    to: { description: "The last position. Default: the newest entry.", schema: position },
    anchor: { description: "A head that was noted earlier: its position, a colon, and its hash." }
  },
  "/v1/audit/export": {
    from: { description: "The first position. Default: the oldest entry.", schema: position },
    to: { description: "The last position. Default: the newest entry.", schema: position }
  },
  "/v1/audit/{position}": { position: { description: "The entry's position in the log." } }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Says in `node` and below it what is missing. */
const improve = (node: unknown): unknown => {
  if (Array.isArray(node)) return node.map(improve)
  if (!isObject(node)) return node
  const improved: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(node)) {
    // "Additions are welcome": who reads an answer must not stumble over a new field.
    if (key === "additionalProperties" && value === false) continue
    // A choice of one is none.
    if (key === "anyOf" && Array.isArray(value) && value.length === 1) Object.assign(improved, improve(value[0]))
    else improved[key] = improve(value)
  }
  return "in" in node && "schema" in node && typeof node["name"] === "string"
    ? { ...improved, ...(parameters[`${String(node["in"])}:${node["name"]}`] ?? parameters[node["name"]]) }
    : improved
}

/** A colon that stands for itself is doubled in the contract, where a single one begins a parameter. */
const asCalled = (paths: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(paths).map(([path, item]) => [path.replaceAll("::", ":"), item]))

const problem = (description: string) => ({
  description,
  content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } }
})

/** What any request may be answered with, beside what its endpoint declares; by status. */
const answersToAll = { "500": problem("A fault of the server; its log says more.") }
const answersToBodies = {
  "413": problem("The body is larger than this path takes."),
  "415": problem("The body is not `application/json` in UTF-8.")
}
const answersToKeys = {
  "409": problem("The request with this `Idempotency-Key` is still being answered, or its answer is not kept."),
  "422": problem("This `Idempotency-Key` was sent with another request.")
}

/** A problem that no endpoint declares. */
const Problem = {
  type: "object",
  properties: {
    type: { type: "string", format: "uri", description: "Under which programs know it." },
    title: { type: "string" },
    status: { type: "integer", minimum: 400, maximum: 599 },
    detail: { type: "string", description: "A sentence for people." },
    instance: { type: "string", format: "uri", description: "The request it is about, as a URN." }
  },
  required: ["type", "title", "status", "detail"]
}

const idempotencyKey = {
  name: "idempotency-key",
  in: "header",
  required: false,
  description:
    "A text of its own for each request, such as a UUID: sent again, the request is not done again, and has the same answer.",
  schema: { type: "string", minLength: 1, maxLength: 255 }
}

const words = (required: Requirement | undefined): string =>
  required === undefined
    ? "Nobody may do this."
    : required === "anyone"
      ? "Any token that is good here will do."
      : `Requires the permission \`${required.verb} ${required.resource}\`.`

/** An operation's id is for good, whichever group of the contract its endpoint has moved to. */
const asReleased = (operationId: string): string => operationId.replace(/^hostChanges\./, "hosts.")

/** One operation, with what all have in common. */
const complete = (path: string, method: string, operation: Record<string, any>, required: Requirement | undefined) => {
  const own = (operation["parameters"] ?? []) as ReadonlyArray<{ readonly name: string }>
  const isPost = method === "post"
  const description = [operation["description"], words(required)].filter((text) => text !== undefined).join(" ")
  const responses = {
    ...answersToAll,
    ...("requestBody" in operation && answersToBodies),
    ...(isPost && answersToKeys),
    ...operation["responses"]
  }
  return {
    ...operation,
    operationId: asReleased(operation["operationId"]),
    description,
    "x-required-permission":
      required === undefined || required === "anyone" ? (required ?? "none") : `${required.verb} ${required.resource}`,
    parameters: [
      ...own.map((parameter) => ({ ...parameter, ...parametersAt[path]?.[parameter.name] })),
      ...(isPost ? [idempotencyKey] : [])
    ],
    responses: Object.fromEntries(Object.entries(responses).sort(([a], [b]) => Number(a) - Number(b)))
  }
}

/** `requirementOf`: what an operation requires, by its id. */
export const describe =
  (requirementOf: (operationId: string) => Requirement | undefined) =>
  (document: Record<string, any>): Record<string, any> => {
    const improved = improve(document) as Record<string, any>
    const paths = Object.entries<Record<string, any>>(improved["paths"]).map(([path, item]) => [
      path,
      Object.fromEntries(
        Object.entries<Record<string, any>>(item).map(([method, operation]) => [
          method,
          complete(path, method, operation, requirementOf(operation["operationId"]))
        ])
      )
    ])
    return {
      ...improved,
      info: { ...improved["info"], license: { name: "MIT", identifier: "MIT" } },
      servers: [{ url: "/", description: "The server that this document came from." }],
      paths: asCalled(Object.fromEntries(paths)),
      components: {
        ...improved["components"],
        schemas: { ...improved["components"]["schemas"], Problem }
      }
    }
  }
