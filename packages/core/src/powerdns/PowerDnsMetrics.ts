/**
 * What is measured about each PowerDNS node. Labels are bounded: nodes come
 * from the configuration, operations and statuses from the code.
 */
import { Metric } from "effect"

/**
 * Time of one HTTP request, waiting for a free connection excluded. Attributes: `node`, `operation` (a method of
 * `PowerDnsClient`), `status` (the HTTP status, or `unreachable` or `uncertain` when there was none).
 */
export const requestDurationSeconds = Metric.histogram("prism_powerdns_request_duration_seconds", {
  description: "Time of one request to the PowerDNS API.",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})

/** Attribute: `node`. */
export const up = Metric.gauge("prism_powerdns_up", {
  description: "1 when the last request to the PowerDNS API was answered, 0 when it was not, or by a failure."
})

/** Attribute: `node`, each primary. */
export const writer = Metric.gauge("prism_powerdns_writer", {
  description: "1 for the primary PowerDNS that takes the writes, 0 for the others."
})
