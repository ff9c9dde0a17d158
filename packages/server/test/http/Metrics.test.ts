import { assert, describe, it } from "@effect/vitest"
import { Registry } from "@prism-dns/core/registry/Registry"
import * as DomainName from "@prism-dns/core/domain/DomainName"
import { PowerDnsMemory } from "@prism-dns/core/powerdns/PowerDnsMemory"
import { Context, Effect, Fiber, Layer, Metric } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { waitUntil } from "../../../core/test/harness/waitUntil.ts"
import { families } from "../../src/http/EffectMetrics.ts"
import { Metrics } from "../../src/http/Metrics.ts"
import { version } from "../../src/Version.ts"
import { parse } from "./exposition.ts"
import { ask, otherZone, register, reverseZone, server, services, zone } from "./harness.ts"

/** A registry of Effect metrics of its own, so that tests do not see each other's. */
const isolated = Layer.sync(Metric.MetricRegistry, () => new Map())

const scrape = Effect.fn(function* () {
  const { headers, status, text } = yield* ask("/metrics", { token: "" })
  assert.strictEqual(status, 200)
  assert.strictEqual(headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
  return parse(text, "text")
})

const value = (
  metrics: ReturnType<typeof parse>,
  name: string,
  labels: Readonly<Record<string, string>> = {}
): number | undefined =>
  metrics
    .get(name.replace(/_(?:count|sum|bucket)$/, ""))
    ?.series.find((each) => each.name === name && Object.entries(labels).every(([k, v]) => each.labels[k] === v))?.value

describe("/metrics", () => {
  it.live("holds the names that dashboards rely on, beside the metrics of the process", () =>
    Effect.gen(function* () {
      yield* register("metric-1", "192.0.2.1")
      yield* register("metric-2", "192.0.2.2")
      yield* ask("/v1/hosts")
      const metrics = yield* waitUntil("the names are published", scrape(), (each) => {
        return value(each, "prism_publish_rrsets_total", { zone, result: "written" }) === 2
      })
      const expected = {
        prism_build_info: ["gauge", ["node", "version"]],
        prism_event_loop_lag_seconds: ["gauge", []],
        prism_hosts: ["gauge", ["state", "zone"]],
        prism_http_request_duration_seconds: ["histogram", ["le", "method", "route", "status"]],
        prism_publish_oldest_seconds: ["gauge", ["zone"]],
        prism_publish_parked: ["gauge", ["zone"]],
        prism_publish_pending: ["gauge", ["zone"]],
        prism_publish_rrsets_total: ["counter", ["result", "zone"]],
        prism_registry_commit_size: ["histogram", ["le"]],
        prism_zone_writer: ["gauge", ["zone"]]
      }
      for (const [name, [type, labels]] of Object.entries(expected)) {
        const family = metrics.get(name)
        assert.strictEqual(family?.type, type, name)
        assert.deepStrictEqual(Object.keys(family?.series[0]?.labels ?? {}).sort(), labels, name)
        assert.notStrictEqual(family?.help, "")
      }
      for (const name of ["process_cpu_seconds_total", "process_start_time_seconds", "nodejs_heap_size_used_bytes"]) {
        assert.isTrue(metrics.has(name), name)
      }
      assert.strictEqual(value(metrics, "prism_build_info", { version }), 1)
      assert.strictEqual(value(metrics, "prism_hosts", { zone, state: "online" }), 2)
      assert.strictEqual(value(metrics, "prism_hosts", { zone, state: "retired" }), 0)
      assert.strictEqual(value(metrics, "prism_hosts", { zone: otherZone, state: "online" }), 0)
      assert.strictEqual(value(metrics, "prism_publish_pending", { zone: reverseZone }), 0)
      assert.strictEqual(value(metrics, "prism_zone_writer", { zone: reverseZone }), 1)
      assert.isAtLeast(value(metrics, "prism_event_loop_lag_seconds")!, 0)
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(isolated))))
  )

  it.live("a request is counted under its route's pattern, never under its path", () =>
    Effect.gen(function* () {
      yield* ask(`/v1/hosts/a.${zone}`)
      yield* ask(`/v1/hosts/b.${zone}`)
      yield* ask("/v1/hosts", { token: "" })
      yield* ask("/secret-path")
      yield* ask("/v1/status", { method: "POST" })
      const metrics = yield* scrape()
      const count = (labels: Record<string, string>) =>
        value(metrics, "prism_http_request_duration_seconds_count", labels)
      assert.strictEqual(count({ route: "/v1/hosts/:host", method: "GET", status: "404" }), 2)
      assert.strictEqual(count({ route: "/v1/hosts", method: "GET", status: "401" }), 1)
      assert.strictEqual(count({ route: "unmatched", method: "GET", status: "404" }), 1)
      assert.strictEqual(count({ route: "unmatched", method: "POST", status: "405" }), 1)
      const routes = new Set(
        metrics.get("prism_http_request_duration_seconds")!.series.map((each) => each.labels["route"])
      )
      assert.deepStrictEqual(routes, new Set(["/v1/hosts", "/v1/hosts/:host", "unmatched"]))
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(isolated))))
  )

  it.live("shows what waits, since when, and what is parked", () =>
    Effect.gen(function* () {
      const memory = yield* PowerDnsMemory
      yield* memory.refuseName(DomainName.make(`parked.${zone}`), "refused")
      yield* register("parked", "203.0.113.1")
      yield* waitUntil("it is parked", scrape(), (each) => value(each, "prism_publish_parked", { zone }) === 1)
      yield* memory.down
      yield* register("waiting", "203.0.113.2")
      const metrics = yield* waitUntil("it waits a while", scrape(), (each) => {
        return value(each, "prism_publish_oldest_seconds", { zone })! > 0.05
      })
      assert.strictEqual(value(metrics, "prism_publish_pending", { zone }), 1)
      assert.isBelow(value(metrics, "prism_publish_oldest_seconds", { zone })!, 60)
      yield* memory.up
      const after = yield* waitUntil("it is published", scrape(), (each) => {
        return value(each, "prism_publish_pending", { zone }) === 0
      })
      assert.strictEqual(value(after, "prism_publish_oldest_seconds", { zone }), 0)
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(isolated))))
  )

  it.live("speaks OpenMetrics to who asks for it, and text to others afterwards as before", () =>
    Effect.gen(function* () {
      yield* register("open-1", "192.0.2.1")
      yield* waitUntil("it is published", scrape(), (each) => each.has("prism_publish_rrsets_total"))
      const { headers, text } = yield* ask("/metrics", {
        headers: { accept: "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3" }
      })
      assert.strictEqual(headers.get("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8")
      const open = parse(text, "openmetrics")
      assert.strictEqual(open.get("prism_publish_rrsets")?.type, "counter")
      assert.isTrue(open.has("process_cpu_seconds"))
      const metrics = yield* scrape()
      assert.isTrue(metrics.has("prism_publish_rrsets_total"))
      assert.isTrue(metrics.has("process_cpu_seconds_total"))
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(isolated))))
  )

  it.live("answers without the database's gauges when the database fails", () =>
    Effect.gen(function* () {
      yield* register("gone", "192.0.2.1")
      assert.strictEqual(value(yield* scrape(), "prism_hosts", { zone, state: "online" }), 1)
      const sql = yield* SqlClient.SqlClient
      yield* sql`ALTER TABLE host RENAME TO elsewhere`
      // A count that was made before may be shown a little longer.
      const metrics = yield* waitUntil("the gauge is gone", scrape(), (each) => {
        return each.get("prism_hosts")?.series.length === 0
      })
      assert.strictEqual(value(metrics, "prism_build_info"), 1)
    }).pipe(Effect.provide(server().pipe(Layer.provideMerge(isolated))))
  )

  it.effect("a database that stands still takes its gauges from a scrape, which then comes all the same", () =>
    Effect.gen(function* () {
      const inner = yield* Registry
      const stuck = Layer.succeed(Registry, { ...inner, countByState: Effect.never })
      const built = yield* Layer.build(Layer.fresh(Metrics.layer()).pipe(Layer.provide(stuck)))
      const metrics = Context.get(built, Metrics)
      const rendering = yield* Effect.forkChild(metrics.render("text"), { startImmediately: true })
      yield* TestClock.adjust("6 seconds")
      const { body } = yield* Fiber.join(rendering)
      assert.include(body, "prism_build_info{")
      assert.notInclude(body, "prism_hosts{")
    }).pipe(Effect.scoped, Effect.provide(services.pipe(Layer.provideMerge(isolated))))
  )

  it.effect("hosts are counted once within the age of the count, however often someone asks", () =>
    Effect.gen(function* () {
      const inner = yield* Registry
      let counted = 0
      const countByState = Effect.tap(inner.countByState, () => Effect.sync(() => void (counted += 1)))
      const metrics = yield* Metrics.pipe(
        Effect.provide(
          Layer.fresh(Metrics.layer()).pipe(Layer.provide(Layer.succeed(Registry, { ...inner, countByState })))
        )
      )
      yield* metrics.render("text")
      yield* metrics.render("openmetrics")
      yield* TestClock.adjust("9 seconds")
      yield* metrics.render("text")
      assert.strictEqual(counted, 1)
      yield* TestClock.adjust("2 seconds")
      yield* metrics.render("text")
      assert.strictEqual(counted, 2)
    }).pipe(Effect.provide(services.pipe(Layer.provideMerge(isolated))))
  )

  it.effect("a count that takes long is kept fifty times as long", () =>
    Effect.gen(function* () {
      const inner = yield* Registry
      let counted = 0
      const countByState = Effect.andThen(
        TestClock.adjust("2 seconds"),
        Effect.tap(inner.countByState, () => Effect.sync(() => void (counted += 1)))
      )
      const metrics = yield* Metrics.pipe(
        Effect.provide(
          Layer.fresh(Metrics.layer()).pipe(Layer.provide(Layer.succeed(Registry, { ...inner, countByState })))
        )
      )
      yield* metrics.render("text")
      yield* TestClock.adjust("99 seconds")
      yield* metrics.render("text")
      assert.strictEqual(counted, 1)
      yield* TestClock.adjust("2 seconds")
      yield* metrics.render("text")
      assert.strictEqual(counted, 2)
    }).pipe(Effect.provide(services.pipe(Layer.provideMerge(isolated))))
  )
})

describe("Effect's metrics", () => {
  it.effect("each kind becomes its counterpart, and others' metrics stay out", () =>
    Effect.gen(function* () {
      const total = Metric.counter("prism_x_total", { description: "X.", incremental: true })
      yield* Metric.update(Metric.withAttributes(total, { result: "a" }), 2)
      yield* Metric.update(Metric.withAttributes(total, { result: "b" }), 3)
      yield* Metric.update(Metric.counter("prism_level"), -1)
      yield* Metric.update(Metric.gauge("prism_big", { bigint: true }), 7n)
      yield* Metric.update(Metric.frequency("prism_words"), "hello")
      const histogram = Metric.histogram("prism_h_seconds", { boundaries: [1, 2] })
      for (const each of [0.5, 1.5, 9]) yield* Metric.update(histogram, each)
      yield* Metric.update(Metric.counter("effect_fibers"), 1)
      const found = families(yield* Metric.snapshot)
      assert.deepStrictEqual([...found.keys()].sort(), [
        "prism_big",
        "prism_h_seconds",
        "prism_level",
        "prism_words",
        "prism_x_total"
      ])
      assert.deepStrictEqual(found.get("prism_x_total"), {
        name: "prism_x_total",
        help: "X.",
        type: "counter",
        values: [
          { labels: { result: "a" }, value: 2 },
          { labels: { result: "b" }, value: 3 }
        ]
      })
      assert.strictEqual(found.get("prism_level")?.type, "gauge")
      assert.deepStrictEqual(found.get("prism_big")?.values, [{ labels: {}, value: 7 }])
      assert.deepStrictEqual(found.get("prism_words")?.values, [{ labels: { key: "hello" }, value: 1 }])
      assert.deepStrictEqual(found.get("prism_h_seconds")?.values, [
        { metricName: "prism_h_seconds_bucket", labels: { le: 1 }, value: 1 },
        { metricName: "prism_h_seconds_bucket", labels: { le: 2 }, value: 2 },
        { metricName: "prism_h_seconds_bucket", labels: { le: "+Inf" }, value: 3 },
        { metricName: "prism_h_seconds_sum", labels: {}, value: 11 },
        { metricName: "prism_h_seconds_count", labels: {}, value: 3 }
      ])
    }).pipe(Effect.provide(isolated))
  )

  it.effect("labels with quotes, backslashes and line ends are escaped", () =>
    Effect.gen(function* () {
      const odd = 'a "b" \\ c\nd'
      yield* Metric.update(Metric.withAttributes(Metric.gauge("prism_odd"), { label: odd }), 1)
      const metrics = yield* Metrics
      const { body } = yield* metrics.render("text")
      assert.strictEqual(parse(body, "text").get("prism_odd")?.series[0]?.labels["label"], odd)
    }).pipe(Effect.provide(Metrics.layer().pipe(Layer.provideMerge(services), Layer.provideMerge(isolated))))
  )
})
