/** Metrics of the registry. */
import { Metric } from "effect"

/** Registrations that shared a commit. */
export const commitSize = Metric.histogram("prism_registry_commit_size", {
  description: "Registrations that shared one commit of the registry.",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
})

export const auditEntries = Metric.counter("prism_audit_entries_total", {
  description: "Entries of the audit log, by action.",
  incremental: true
})
