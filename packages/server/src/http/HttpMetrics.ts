/** Metrics of the HTTP side. Labels are bounded: the route is the pattern, never the path that was asked for. */
import { Metric } from "effect"

/** Attributes: `route` (a pattern, or `unmatched`), `method`, `status`. */
export const requestDurationSeconds = Metric.histogram("prism_http_request_duration_seconds", {
  description: "Time from a request's head read to its answer made, by route pattern.",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})

/** Attributes: `policy`. */
export const rateLimited = Metric.counter("prism_http_rate_limited_total", {
  description: "Requests answered with 429, by the rate that they went beyond: reads, changes, failures.",
  incremental: true
})

/** Attributes: `policy`. Bounded by `http.rateLimit.callersMax`. */
export const callers = Metric.gauge("prism_http_rate_callers", {
  description: "Callers, or addresses, whose requests are counted in memory, by rate."
})

/** Bounded by `http.connectionsMax`. */
export const connections = Metric.gauge("prism_http_connections", {
  description: "Open connections to the HTTP port."
})

export const connectionsRefused = Metric.counter("prism_http_connections_refused_total", {
  description: "Connections to the HTTP port closed at once, because there were too many.",
  incremental: true
})

export const idempotencyKeys = Metric.counter("prism_http_idempotency_keys_total", {
  description:
    "Requests with an Idempotency-Key, by what became of them: done, replayed, reused, in-progress, gone, rights-changed.",
  incremental: true
})
