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

export const replicas = Metric.gauge("prism_storage_replicas", {
  description: "Replicas of storage.replica.url that answer."
})

export const replicaLagSeconds = Metric.gauge("prism_storage_replica_lag_seconds", {
  description: "How far behind the newest replica of storage.replica.url was seen to be."
})

/** Attribute: `from` (`primary`, `replica`). */
export const listReads = Metric.counter("prism_storage_list_reads_total", {
  description: "Lists and reads of what was, by who answered them, where storage.replica.url is set.",
  incremental: true
})
