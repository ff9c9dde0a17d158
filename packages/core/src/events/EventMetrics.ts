/** Metrics of events and webhooks. */
import { Metric } from "effect"

export const recent = Metric.gauge("prism_events_recent", {
  description: "Events in memory for those who follow; 0 while nobody does."
})

export const subscribers = Metric.gauge("prism_event_subscribers", {
  description: "Clients that follow `/v1/events` at the moment."
})

export const sent = Metric.counter("prism_events_sent_total", {
  description: "Events that were written to clients of `/v1/events`.",
  incremental: true
})

/** `reason`: `client`, `drain`, `access`, `stalled`, `storage`. */
export const ended = Metric.counter("prism_event_streams_ended_total", {
  description: "Streams of `/v1/events` that ended, by why.",
  incremental: true
})

export const gaps = Metric.counter("prism_event_gaps_total", {
  description: "Gaps that clients of `/v1/events` and webhooks were told of.",
  incremental: true
})
