/** What is measured about Redis, where there is one. Labels are fixed words. */
import { Metric } from "effect"

export const connected = Metric.gauge("prism_redis_connected", {
  description: "1 while Redis answers; 0: it does not, and this server does without what it shares by it."
})

/** Attributes: `use` (`rates`, `presence`), `result` (`ok`, `failed`). */
export const requestsTotal = Metric.counter("prism_redis_requests_total", {
  description: "Requests to Redis, by what for (rates, presence) and by result (ok, failed).",
  incremental: true
})

export const requestDurationSeconds = Metric.histogram("prism_redis_request_duration_seconds", {
  description: "How long a request to Redis took that was answered.",
  boundaries: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5]
})

export const ratesTotal = Metric.counter("prism_redis_rates_exchanged_total", {
  description: "Rates of callers and of hosts that were exchanged with other servers.",
  incremental: true
})
