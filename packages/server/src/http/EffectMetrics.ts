/**
 * Effect's metrics in the form `prom-client` renders: core declares metrics of
 * `effect` alone, and the server exposes them. Pure.
 */
import type { Metric } from "effect"

/** The series of one metric, with what is said of all of them. */
export interface MetricFamily {
  readonly name: string
  readonly help: string
  readonly type: "counter" | "gauge" | "histogram" | "summary"
  readonly values: ReadonlyArray<Sample>
}

export interface Sample {
  /** Where it is not the family's name. */
  readonly metricName?: string
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
}

type Snapshot = Metric.Metric.Snapshot

const typeOf = (snapshot: Snapshot): MetricFamily["type"] => {
  switch (snapshot.type) {
    case "Counter":
      // A counter that may go down is none to Prometheus.
      return snapshot.state.incremental || snapshot.id.endsWith("_total") ? "counter" : "gauge"
    case "Frequency":
      return "counter"
    case "Gauge":
      return "gauge"
    case "Histogram":
      return "histogram"
    case "Summary":
      return "summary"
  }
}

const samplesOf = (snapshot: Snapshot): ReadonlyArray<Sample> => {
  const labels = { ...snapshot.attributes }
  const name = snapshot.id
  switch (snapshot.type) {
    case "Counter":
      return [{ labels, value: Number(snapshot.state.count) }]
    case "Gauge":
      return [{ labels, value: Number(snapshot.state.value) }]
    case "Frequency":
      return Array.from(snapshot.state.occurrences, ([key, value]) => ({ labels: { ...labels, key }, value }))
    case "Histogram": {
      const { buckets, count, sum } = snapshot.state
      return [
        // Effect's buckets are cumulative already.
        ...buckets
          .filter(([boundary]) => boundary !== Infinity)
          .map(([le, value]) => ({ metricName: `${name}_bucket`, labels: { ...labels, le }, value })),
        { metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count },
        { metricName: `${name}_sum`, labels, value: sum },
        { metricName: `${name}_count`, labels, value: count }
      ]
    }
    case "Summary": {
      const { count, quantiles, sum } = snapshot.state
      return [
        ...quantiles.flatMap(([quantile, value]) =>
          value === undefined ? [] : [{ labels: { ...labels, quantile }, value }]
        ),
        { metricName: `${name}_sum`, labels, value: sum },
        { metricName: `${name}_count`, labels, value: count }
      ]
    }
  }
}

/** The metrics of Prism among `snapshots`, the series of one name together. */
export const families = (snapshots: ReadonlyArray<Snapshot>): ReadonlyMap<string, MetricFamily> => {
  const byName = new Map<string, { family: Omit<MetricFamily, "values">; values: Array<Sample> }>()
  for (const snapshot of snapshots) {
    if (!snapshot.id.startsWith("prism_")) continue
    let entry = byName.get(snapshot.id)
    if (entry === undefined) {
      entry = {
        family: { name: snapshot.id, help: snapshot.description ?? snapshot.id, type: typeOf(snapshot) },
        values: []
      }
      byName.set(snapshot.id, entry)
    }
    entry.values.push(...samplesOf(snapshot))
  }
  return new Map(Array.from(byName, ([name, { family, values }]) => [name, { ...family, values }]))
}
