/** Metrics of the reconciler. Labels are zones and fixed words, never names of hosts. */
import { Metric } from "effect"

/** As of the last run that ended well. */
export const drift = Metric.gauge("prism_reconcile_drift", {
  description:
    "Names that differ from what they should be, as of the last whole look at the zone, by kind (missing, different, unexpected, duplicate, foreign)."
})

export const lastSuccess = Metric.gauge("prism_reconcile_last_success_timestamp_seconds", {
  description: "When a zone was last compared as a whole with what PowerDNS holds."
})

export const duration = Metric.gauge("prism_reconcile_duration_seconds", {
  description: "How long the last whole look at the zone took."
})

export const failuresTotal = Metric.counter("prism_reconcile_failures_total", {
  description: "Whole looks at a zone that failed, by zone.",
  incremental: true
})

export const guard = Metric.gauge("prism_reconcile_guard", {
  description:
    "1 while a guard of the reconciler holds something back or sounds an alarm, by zone and guard (delete-budget, registry-empty, powerdns-shrunk)."
})
