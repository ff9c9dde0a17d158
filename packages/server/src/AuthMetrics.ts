/** What is refused for lack of a right, on whatever port. */
import { Metric } from "effect"

export const authFailures = Metric.counter("prism_auth_failures_total", {
  description: "Messages and requests refused for their token, by reason.",
  incremental: true
})
