/** Metrics of the registry. */
import { Metric } from "effect"

/** Registrations that shared a commit. */
export const commitSize = Metric.histogram("prism_registry_commit_size", {
  description: "Registrations that shared one commit of the registry.",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
})

export const batchesRepeated = Metric.counter("prism_registry_batches_repeated_total", {
  description: "Times that registrations and changes were decided anew because the database was lost meanwhile.",
  incremental: true
})

export const namesDamped = Metric.gauge("prism_names_damped", {
  description: "Names that keep their addresses because several machines claim them in turn, by zone."
})

export const registrationsDamped = Metric.counter("prism_registrations_damped_total", {
  description: "Registrations refused because their name is claimed by several machines in turn, by zone.",
  incremental: true
})

export const guardTripped = Metric.gauge("prism_guard_tripped", {
  description: "1 while a guard holds something back and waits for a person's word, by guard."
})

export const historyDropped = Metric.counter("prism_history_partitions_dropped_total", {
  description:
    "Partitions of hosts' history in PostgreSQL that were dropped because they were older than history.retention.",
  incremental: true
})

/** Attributes: `from`. */
export const hostReads = Metric.counter("prism_host_reads_total", {
  description:
    "Hosts asked for by name over the API and answered from memory (kept) or by a look at the database (read).",
  incremental: true
})

/** Bounded by `http.hostAnswers.max`. */
export const hostReadsKept = Metric.gauge("prism_host_reads_kept", {
  description: "Answers about single hosts that are kept in memory."
})
