/** Metrics of identities. */
import { Metric } from "effect"

export const identities = Metric.gauge("prism_identities", {
  description: "Identities (keys that were enrolled), by state."
})

export const enrolments = Metric.counter("prism_enrolments_total", {
  description: "Enrolments asked for, by what became of them: enrolled, repeated, or the code of the refusal.",
  incremental: true
})
