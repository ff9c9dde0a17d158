/** Times of which the registry can say what was. */
import { RequestInvalid } from "@prism-dns/core/api/Problems"
import { timestamp } from "@prism-dns/core/api/Values"
import type { HostHistory } from "@prism-dns/core/registry/HostHistory"
import { Effect } from "effect"

/** Refuses a time of which retention has taken some: an answer would look as if there had been less. */
export const requireKnown = Effect.fnUntraced(function* (
  history: HostHistory["Service"],
  field: "at" | "from" | "to",
  time: string
) {
  const sinceMillis = yield* history.knownSince
  if (Date.parse(time) >= sinceMillis) return
  const detail = `not all is known of ${time} any more: what is kept of hosts begins at ${timestamp(sinceMillis)}.`
  return yield* new RequestInvalid({
    detail: `query ${field}: ${detail}`,
    errors: [{ in: "query", pointer: `/${field}`, detail }]
  })
})
