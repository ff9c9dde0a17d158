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

/** Names whose deletion was held back because the zone's budget does not allow it. */
export const heldTotal = Metric.counter("prism_publish_held_total", {
  description: "Names whose deletion waits for a person because of the zone's delete budget, by zone.",
  incremental: true
})

/** Tickets that were given up because more than `ticketsMax` were open. */
export const ticketsForgottenTotal = Metric.counter("prism_tickets_forgotten_total", {
  description: "Changes whose way to the name servers was followed no further because too many were followed.",
  incremental: true
})

/** Names that a node was not seen to answer as published. */
export const nodeUnserved = Metric.gauge("prism_powerdns_node_unserved", {
  description: "Names that a PowerDNS node was not seen to answer as published yet, by node."
})

/** 1 where the node answered when it was asked last. */
export const nodeAnswers = Metric.gauge("prism_powerdns_node_answers", {
  description: "1 where the PowerDNS node answered DNS when it was asked last, by node."
})

/** Questions by node and what became of them. */
export const questionsTotal = Metric.counter("prism_served_questions_total", {
  description: "Questions put to PowerDNS nodes, by node and result (as-published, stale, no-answer).",
  incremental: true
})

/** Names that every node answers as published. */
export const servedTotal = Metric.counter("prism_served_names_total", {
  description: "Names that every PowerDNS node was seen to answer as published.",
  incremental: true
})

/** From PowerDNS having taken a name to every node answering with it. */
export const servedDuration = Metric.histogram("prism_served_duration_seconds", {
  description: "Seconds from PowerDNS having taken a name to every node being seen to answer as published.",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
})
