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

/** `result`: `delivered`, `failed`. */
export const deliveries = Metric.counter("prism_webhook_deliveries_total", {
  description: "Attempts to deliver to webhooks, by what became of them.",
  incremental: true
})

export const deadLetters = Metric.counter("prism_webhook_dead_letters_total", {
  description: "Events that were given up after as many attempts as there may be.",
  incremental: true
})

/** `reason`: `gone`, `dead-letters`. */
export const paused = Metric.counter("prism_webhook_pauses_total", {
  description: "Times that Prism paused a webhook, by why.",
  incremental: true
})

export const webhooks = Metric.gauge("prism_webhooks_active", { description: "Webhooks that are delivered to." })

export const webhooksPaused = Metric.gauge("prism_webhooks_paused", {
  description: "Webhooks that are paused, by a person or by Prism."
})

export const behind = Metric.gauge("prism_webhook_behind", {
  description: "How many events of the log the webhook that is furthest behind has before it."
})
