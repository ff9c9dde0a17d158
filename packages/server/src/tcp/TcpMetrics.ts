/** Metrics of the agents' port. Names are fixed: dashboards rely on them. */
import { Metric } from "effect"

export const connections = Metric.gauge("prism_tcp_connections", {
  description: "Connections of agents open now."
})

/** Attribute: `kind`, how it was proven who speaks. */
export const sessions = Metric.gauge("prism_sessions", {
  description: "Sessions of protocol 2 open now, by how it was proven who speaks: key, certificate, token, anonymous."
})

export const registrations = Metric.counter("prism_registrations_total", {
  description:
    "Registrations by result: created, changed, returned, renewed, refused, failed, abandoned (its agent had gone before its turn came, or before it failed; nothing was written).",
  incremental: true
})

export const heartbeats = Metric.counter("prism_heartbeats_total", {
  description: "Beats that renewed a lease and changed nothing.",
  incremental: true
})

/** Attribute: `group`. */
export const redirects = Metric.counter("prism_redirects_total", {
  description: "Agents that were told at hello to go to the servers of another group, by that group.",
  incremental: true
})

/** From the frame being read to the level being reached, however long after the answer that is. */
export const registrationDuration = Metric.histogram("prism_registration_duration_seconds", {
  description: "Seconds from a registration being read to the level being reached.",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})

export const tlsHandshakes = Metric.counter("prism_tls_handshakes_total", {
  description: "TLS handshakes of agents by result: completed, refused (the client's certificate), failed, timeout.",
  incremental: true
})

export const tlsCertificateExpiry = Metric.gauge("prism_tls_certificate_expiry_timestamp_seconds", {
  description: "When the certificate of the TLS port runs out."
})
