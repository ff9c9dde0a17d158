/** Metrics of the audit log. */
import { Metric } from "effect"

export const auditEntries = Metric.counter("prism_audit_entries_total", {
  description: "Entries of the audit log, by action.",
  incremental: true
})
