/** What is measured about the PostgreSQL servers of the registry. */
import { Metric } from "effect"

/** Attribute: `state` (`primary`, `replica`, `refused`, `silent`). */
export const servers = Metric.gauge("prism_storage_servers", {
  description: "PostgreSQL servers of storage.url by what they are: at most one is the primary that is written to."
})

export const failovers = Metric.counter("prism_storage_failovers_total", {
  description: "Times that another PostgreSQL server of storage.url took over the writes.",
  incremental: true
})
