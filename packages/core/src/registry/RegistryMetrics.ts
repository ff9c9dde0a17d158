/** Metrics of the registry. */
import { Metric } from "effect"

/** Registrations that shared a commit. */
export const commitSize = Metric.histogram("prism_registry_commit_size", {
  description: "Registrations that shared one commit of the registry.",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
})
