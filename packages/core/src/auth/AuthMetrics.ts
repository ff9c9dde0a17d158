/** What is refused for lack of a right, on whatever port. */
import { Metric } from "effect"

export const authFailures = Metric.counter("prism_auth_failures_total", {
  description: "Messages and requests refused for what they proved or claimed, by reason.",
  incremental: true
})

/** Bounded by `auth.limits.bucketsMax`. */
export const buckets = Metric.gauge("prism_rate_buckets", {
  description: "Rates that are counted in memory, by what they are counted for: principal, name, network."
})

export const refusalsLeftOut = Metric.counter("prism_audit_refusals_left_out_total", {
  description: "Refusals that the audit holds only as a number, because there were too many at once.",
  incremental: true
})
