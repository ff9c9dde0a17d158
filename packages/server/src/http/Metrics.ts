/**
 * `/metrics`: one `prom-client` registry that holds its default process
 * metrics, every Effect metric whose name begins with `prism_`, and gauges that
 * are looked up when someone asks.
 *
 * Promises: a scrape answers also when the database does not (its gauges are
 * then absent, not zero), and costs the database at most one part in fifty of
 * its time, however many hosts there are: a count that takes long is kept for
 * longer.
 */
import { DnsManager } from "@prism-dns/core/dns/DnsManager"
import { Outbox } from "@prism-dns/core/dns/Outbox"
import { Zones } from "@prism-dns/core/dns/Zones"
import type { DomainName } from "@prism-dns/core/domain/DomainName"
import { hostStates } from "@prism-dns/core/domain/Host"
import { isReverse } from "@prism-dns/core/domain/Zone"
import { Registry } from "@prism-dns/core/registry/Registry"
import { Clock, Context, Duration, Effect, Exit, Layer, Metric } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Prom from "prom-client"
import { version } from "../Version.ts"
import { families, type MetricFamily, type Sample } from "./EffectMetrics.ts"
import { inTime } from "./InTime.ts"

export interface MetricsOptions {
  /** How long counts of the database are kept, at the least. */
  readonly countsAge: Duration.Input
}

export const defaultOptions: MetricsOptions = { countsAge: "10 seconds" }

/** How long a scrape waits for the counts: less than scrapers wait for us. */
const countsTimeout = "5 seconds"

/** How many times as long as a count took it is kept. */
const countsAgeFactor = 50

export type Format = "text" | "openmetrics"

export class Metrics extends Context.Service<
  Metrics,
  {
    /** For metrics that others declare with `prom-client`. Effect metrics join it at each `render`. */
    readonly registry: Prom.Registry
    /** All metrics as they are now. */
    readonly render: (format: Format) => Effect.Effect<{ readonly contentType: string; readonly body: string }>
  }
>()("@prism-dns/server/http/Metrics") {
  static readonly layer = (options: Partial<MetricsOptions> = {}) =>
    Layer.effect(Metrics, make({ ...defaultOptions, ...options }))
}

/** A query whose answer is kept, the longer the more it cost. */
const kept = <A, E, R>(query: Effect.Effect<A, E, R>, atLeast: Duration.Input) => {
  const timed = Effect.gen(function* () {
    const startMillis = yield* Clock.currentTimeMillis
    const value = yield* query
    return { value, tookMillis: (yield* Clock.currentTimeMillis) - startMillis }
  })
  return Effect.cachedWithTTL(timed, (exit) =>
    Exit.isSuccess(exit)
      ? Duration.max(Duration.fromInputUnsafe(atLeast), Duration.millis(countsAgeFactor * exit.value.tookMillis))
      : Duration.zero
  ).pipe(Effect.map(Effect.map(({ value }) => value)))
}

const eventLoopResolutionMillis = 20

/** The gauges that are looked up when someone asks, in `registry`; the reference page of the metrics lists them too. */
export const gauges = (registry: Prom.Registry) => {
  const registers = [registry]
  const gauge = <L extends string>(name: string, help: string, labelNames: ReadonlyArray<L>) =>
    new Prom.Gauge<L>({ name, help, labelNames: [...labelNames], registers })
  return {
    hosts: gauge("prism_hosts", "Hosts in the registry, by state and zone.", ["state", "zone"]),
    pending: gauge("prism_publish_pending", "Names that wait to be published.", ["zone"]),
    parked: gauge("prism_publish_parked", "Names that cannot be published until they change.", ["zone"]),
    oldest: gauge("prism_publish_oldest_seconds", "How long the longest waiting name has waited; 0 when none does.", [
      "zone"
    ]),
    writer: gauge("prism_zone_writer", "1 where this instance is the one that writes the zone.", ["zone"]),
    buildInfo: gauge("prism_build_info", "Always 1; the labels say what is running.", ["version", "node"]),
    eventLoopLag: gauge(
      "prism_event_loop_lag_seconds",
      "How late timers ran since the scrape before, 99th percentile.",
      []
    )
  }
}

const make = Effect.fnUntraced(function* (options: MetricsOptions) {
  const hosts = yield* Registry
  const outbox = yield* Outbox
  const manager = yield* DnsManager
  const zones = yield* Zones

  const registry = new Prom.Registry()
  Prom.collectDefaultMetrics({ register: registry })
  const gauge = gauges(registry)
  gauge.buildInfo.set({ version, node: process.version }, 1)

  const lag = monitorEventLoopDelay({ resolution: eventLoopResolutionMillis })
  lag.enable()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      lag.disable()
      registry.clear()
    })
  )

  const hostCounts = yield* kept(hosts.countByState, options.countsAge)
  const backlog = yield* kept(outbox.backlog, options.countsAge)

  const refresh = Effect.gen(function* () {
    const [counts, backlogs] = yield* Effect.all([hostCounts, backlog]).pipe(
      inTime(countsTimeout, () => Effect.fail({ message: "no answer in time" }))
    )
    const nowMillis = yield* Clock.currentTimeMillis
    gauge.hosts.reset()
    for (const zone of zones.all) {
      if (!isReverse(zone)) for (const state of hostStates) gauge.hosts.set({ state, zone: zone.name }, 0)
    }
    for (const { hosts, state, zone } of counts) gauge.hosts.set({ state, zone }, hosts)
    for (const each of [gauge.pending, gauge.parked, gauge.oldest]) {
      each.reset()
      for (const zone of zones.all) each.set({ zone: zone.name }, 0)
    }
    for (const { oldestMillis, parked, pending, zone } of backlogs) {
      gauge.pending.set({ zone }, pending)
      gauge.parked.set({ zone }, parked)
      gauge.oldest.set({ zone }, oldestMillis === undefined ? 0 : Math.max(0, nowMillis - oldestMillis) / 1000)
    }
  }).pipe(
    Effect.catch((error) => {
      for (const each of [gauge.hosts, gauge.pending, gauge.parked, gauge.oldest]) each.reset()
      return Effect.logWarning("gauges of the database are missing from this scrape").pipe(
        Effect.annotateLogs({ reason: error.message })
      )
    })
  )

  const refreshLocal = Effect.map(manager.status, (status) => {
    gauge.writer.reset()
    for (const { writing, zone } of status) if (writing) gauge.writer.set({ zone }, 1)
    // Each measurement contains the interval between two of them.
    const lateMillis = lag.count === 0 ? 0 : lag.percentile(99) / 1e6 - eventLoopResolutionMillis
    gauge.eventLoopLag.set(Math.max(0, lateMillis) / 1000)
    lag.reset()
  })

  let current: ReadonlyMap<string, MetricFamily> = new Map()

  /** Gives each Effect metric a place in the registry that shows its latest snapshot. */
  const join = (latest: ReadonlyMap<string, MetricFamily>): void => {
    current = latest
    for (const { help, name, type } of latest.values()) {
      if (registry.getSingleMetric(name) !== undefined) continue
      register(registry, {
        name,
        help,
        type,
        get: async () => ({ name, help, type, values: current.get(name)?.values ?? [] })
      })
    }
  }

  /** What is measured of a zone is nothing any more once it is gone; what was counted there stays counted. */
  const isCurrent = ({ attributes, type }: Metric.Metric.Snapshot): boolean => {
    const zone = type === "Gauge" ? attributes?.["zone"] : undefined
    return zone === undefined || zones.find(zone as DomainName) !== undefined
  }

  const render: Metrics["Service"]["render"] = Effect.fn("Metrics.render")(function* (format) {
    yield* refresh
    yield* refreshLocal
    join(families((yield* Metric.snapshot).filter(isCurrent)))
    const target = format === "text" ? registry : asOpenMetrics(registry)
    return { contentType: target.contentType, body: yield* Effect.promise(() => target.metrics()) }
  })

  return Metrics.of({ registry, render })
})

/** What a registry asks of the metrics it renders. */
interface Renderable {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly get: () => Promise<{ readonly values: ReadonlyArray<Sample> }>
}

/** The declared type names the library's own classes; what `Registry.metrics` uses of a metric is `Renderable`. */
const register = (registry: Prom.Registry<Prom.RegistryContentType>, metric: Renderable): void =>
  registry.registerMetric(metric as unknown as Prom.Metric)

/**
 * The same metrics for the OpenMetrics format, in which a family of counters is named without `_total`. The library would
 * rename the metrics themselves, and so spoil them for the text format; and it spells NaN in a way this format lacks.
 */
const asOpenMetrics = (registry: Prom.Registry): Prom.Registry<Prom.OpenMetricsContentType> => {
  const target = new Prom.Registry<Prom.OpenMetricsContentType>()
  target.setContentType(Prom.Registry.OPENMETRICS_CONTENT_TYPE)
  for (const metric of registry.getMetricsAsArray() as unknown as ReadonlyArray<Renderable>) {
    const { help, type } = metric
    const name = type === "counter" ? metric.name.replace(/_total$/, "") : metric.name
    const get = async () => {
      const { values, ...rest } = await metric.get()
      return { ...rest, name, values: values.filter(({ value }) => !Number.isNaN(value)) }
    }
    register(target, { name, help, type, get })
  }
  return target
}

/** Not behind authentication, like the probes. */
export const route = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const metrics = yield* Metrics
    yield* router.add(
      "GET",
      "/metrics",
      Effect.gen(function* () {
        const { accept = "" } = (yield* HttpServerRequest.HttpServerRequest).headers
        const { body, contentType } = yield* metrics.render(
          accept.includes("application/openmetrics-text") ? "openmetrics" : "text"
        )
        return HttpServerResponse.text(body, { contentType })
      })
    )
  })
)
