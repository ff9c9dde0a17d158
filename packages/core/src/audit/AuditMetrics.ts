/** Metrics of the audit log. */
import { Metric } from "effect"

export const auditEntries = Metric.counter("prism_audit_entries_total", {
  description: "Entries of the audit log, by action.",
  incremental: true
})

export const position = Metric.gauge("prism_audit_position", {
  description: "Position of the newest entry of the audit log that is sealed."
})

/** Bounded by `Sealer.countedMax`. */
export const unsealed = Metric.gauge("prism_audit_unsealed", {
  description: "Entries that are written and not sealed yet, when it was last looked; at most 100000 are counted."
})

export const sealLag = Metric.gauge("prism_audit_seal_lag_seconds", {
  description: "For how long the oldest entry that is not sealed has waited, when it was last looked."
})

export const sealFailures = Metric.counter("prism_audit_seal_failures_total", {
  description: "Attempts to seal entries that failed; they wait and are tried again.",
  incremental: true
})

export const sealAlarms = Metric.counter("prism_audit_alarms_total", {
  description:
    "Times at which the end of the audit log was not as this server had left it. One is a reason to verify it.",
  incremental: true
})

export const pruned = Metric.counter("prism_audit_pruned_total", {
  description: "Entries that were taken out of the audit log because they were older than audit.retention.",
  incremental: true
})

export const exportLag = Metric.gauge("prism_audit_export_lag", {
  description: "Entries of the audit log that a target of audit.export has not been sent yet."
})

export const exportFailures = Metric.counter("prism_audit_export_failures_total", {
  description: "Attempts to send the audit log that failed, by target; it is sent later.",
  incremental: true
})
