/**
 * What the generated OpenAPI document does not say by itself: the meaning of
 * query parameters (a generated parameter loses the description and, being
 * text, the type of its value), that answers may gain fields, and how a path with
a colon is called.
 */
import { labelFiltersMax } from "../registry/HostLists.ts"
import * as Page from "./Page.ts"

/** By name: a parameter means the same wherever it stands. */
const parameters: Readonly<Record<string, object>> = {
  zone: { description: "A zone's name, in any case, with or without the trailing dot." },
  state: { description: "Only those in this state." },
  address: { description: "Only hosts that have this address, in any form it may be written in." },
  label: {
    description: "Only hosts with this label, as `key=value`. Several times: with all of them.",
    schema: { type: "array", items: { type: "string" }, maxItems: labelFiltersMax }
  },
  at: { description: "As it was at this time (RFC 3339).", schema: { type: "string", format: "date-time" } },
  q: { description: "Only hosts whose full name begins so, in any case." },
  limit: {
    description: "Items in the answer at the most.",
    schema: { type: "integer", minimum: 1, maximum: Page.limitMax, default: Page.limitDefault }
  },
  cursor: { description: "`nextCursor` of the page before, unchanged." },
  host: { description: "The host's id, or its full name in any case, with or without the trailing dot." },
  plan: { description: "The plan's id." },
  token: { description: "The token's name, or its id." },
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
  format: { description: "`json` (the default), `text`, or `markdown`." },
  dryRun: {
    description: "`true`: the answer says what would become of it, after the same checks; nothing is changed.",
    schema: { type: "boolean", default: false }
  },
  "if-match": {
    description: "The `ETag` of what the change starts from; something newer is left as it is, and answered with 412."
  },
  "if-none-match": { description: "`*`: only if there is nothing yet." },
  ownership: { description: "Names that are Prism's (`managed`, the default), someone else's, or to be left alone." }
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
    improved[key] = improve(value)
  }
  return "in" in node && "schema" in node && typeof node["name"] === "string"
    ? { ...improved, ...parameters[node["name"]] }
    : improved
}

/** A colon that stands for itself is doubled in the contract, where a single one begins a parameter. */
const asCalled = (paths: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(paths).map(([path, item]) => [path.replaceAll("::", ":"), item]))

export const describe = (document: Record<string, any>): Record<string, any> => {
  const improved = improve(document) as Record<string, any>
  return { ...improved, paths: asCalled(improved["paths"]) }
}
