/** Metrics of the publisher. Labels are zones and fixed words, never names of hosts. */
import { Metric } from "effect"

/** Record sets by zone and what became of them: `written`, `deleted`, `refused`. */
export const rrsetsTotal = Metric.counter("prism_publish_rrsets_total", {
  description: "Record sets sent to PowerDNS, by result (written, deleted, refused).",
  incremental: true
})

/** Publication attempts that failed as a whole and are tried again. */
export const failuresTotal = Metric.counter("prism_publish_failures_total", {
  description: "Publications of a batch that failed as a whole and are tried again, by zone.",
  incremental: true
})
