/** Metrics of the cluster. Labels are fixed words, never names of hosts or zones. */
import { Metric } from "effect"

/** Instances by state, as of the last look. */
export const instances = Metric.gauge("prism_cluster_instances", {
  description: "Servers that share the registry's database, by state (live, draining), as this one saw them last."
})

/** Leases that this instance holds. */
export const held = Metric.gauge("prism_cluster_leases_held", {
  description: "What this server does for the whole cluster: leases that it holds, by kind (zone, job)."
})

/** Leases without a holder. */
export const free = Metric.gauge("prism_cluster_leases_free", {
  description: "Leases that no server holds at the moment, by kind (zone, job)."
})

/** Leases that were got. */
export const takenTotal = Metric.counter("prism_cluster_leases_taken_total", {
  description: "Leases that this server has taken, by kind (zone, job).",
  incremental: true
})

/** Leases that were lost: not handed over, but not valid any more. */
export const lostTotal = Metric.counter("prism_cluster_leases_lost_total", {
  description:
    "Leases under which this server had to stop at once, since it could not renew them in time, by kind (zone, job).",
  incremental: true
})

/** Renewals by result. */
export const renewalsTotal = Metric.counter("prism_cluster_renewals_total", {
  description: "Proofs of life that this server has written, by result (renewed, failed, dead).",
  incremental: true
})

/** How long a renewal took. */
export const renewalSeconds = Metric.gauge("prism_cluster_renewal_seconds", {
  description: "How long the last proof of life took."
})

/** Instances that this one declared dead. */
export const declaredDeadTotal = Metric.counter("prism_cluster_declared_dead_total", {
  description:
    "Servers that this one has declared dead, since they had not proved for the length of a lease that they live.",
  incremental: true
})

/** The machine's clock against the database's. */
export const clockOffset = Metric.gauge("prism_clock_offset_seconds", {
  description: "By how much the clock of this machine is ahead of the database's, which the server goes by."
})
