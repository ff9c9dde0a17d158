/**
 * The reference page of the metrics, made from where they are declared.
 *
 * Core and server declare metrics of `effect` in files named `…Metrics.ts`, and
 * `http/Metrics.ts` adds gauges of `prom-client`. Labels of the latter are
 * declared with them; those of the former are where a value is given, so they
 * are read from the sources. Promises: a metric that is declared anywhere else,
 * or whose labels cannot be read, is an error and not a gap in the page.
 */
import { Effect, Metric } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Prom from "prom-client"
import { families } from "../../packages/server/src/http/EffectMetrics.ts"
import { gauges } from "../../packages/server/src/http/Metrics.ts"

export interface Declaration {
  readonly name: string
  readonly type: string
  readonly labels: ReadonlyArray<string>
  readonly help: string
}

const root = Path.resolve(import.meta.dirname, "../..")

const sources = ["packages/core/src", "packages/server/src"].flatMap((folder) =>
  Fs.readdirSync(Path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => {
      const path = Path.join(root, folder, file)
      return { path, text: Fs.readFileSync(path, "utf8") }
    })
)

const declaration = /Metric\.(?:counter|gauge|histogram|summary|frequency|timer)\(/
/** These two only carry what others declare. */
const carriers = ["http/EffectMetrics.ts", "http/Metrics.ts"]
const declares = (path: string) => path.endsWith("Metrics.ts") && !carriers.some((carrier) => path.endsWith(carrier))

type AnyMetric = Metric.Metric<never, unknown>

/** Each exported metric by the file and the name it is exported under. */
const exported = async (): Promise<ReadonlyMap<string, AnyMetric>> => {
  const found = new Map<string, AnyMetric>()
  for (const { path, text } of sources) {
    if (!declares(path)) {
      if (declaration.test(text)) throw new Error(`${path} declares a metric; that belongs into a file …Metrics.ts`)
      continue
    }
    for (const [name, value] of Object.entries((await import(path)) as Record<string, unknown>)) {
      if (Metric.isMetric(value)) found.set(`${path}#${name}`, value)
    }
  }
  return found
}

const nameSpaces = /import \* as (\w+) from "([^"]+)"/g
const named = /import \{ ([^}]+) \} from "([^"]+)"/g
const attributes = /Metric\.withAttributes\(\s*([\w.]+),\s*\{([^}]*)\}/g

/** The labels with which each metric is given values, by the same keys. */
const labelsOf = (): ReadonlyMap<string, ReadonlySet<string>> => {
  const labels = new Map<string, Set<string>>()
  for (const { path, text } of sources) {
    const origin = (module: string, name: string) =>
      module.startsWith("@prism-dns/core/")
        ? `${Path.join(root, "packages/core/src", module.slice("@prism-dns/core/".length))}.ts#${name}`
        : `${Path.resolve(Path.dirname(path), module)}#${name}`
    const spaces = new Map(Array.from(text.matchAll(nameSpaces), ([, name, module]) => [name!, module!]))
    const names = new Map(
      Array.from(text.matchAll(named), ([, list, module]) =>
        list!.split(",").map((name) => [name.trim(), module!] as const)
      ).flat()
    )
    for (const [all, metric, body] of text.matchAll(attributes)) {
      const [first, second] = metric!.split(".") as [string, string | undefined]
      const module = second === undefined ? names.get(first) : spaces.get(first)
      if (module === undefined) throw new Error(`${path}: which metric is meant by ${all}?`)
      const key = origin(module, second ?? first)
      const known = labels.get(key) ?? new Set()
      labels.set(key, known)
      for (const part of body!.split(",")) known.add(part.split(":")[0]!.trim())
    }
  }
  return labels
}

/** Every metric of ours, by name. */
export const declared = async (): Promise<ReadonlyArray<Declaration>> => {
  const metrics = await exported()
  const labels = labelsOf()
  for (const key of labels.keys()) if (!metrics.has(key)) throw new Error(`${key} is no exported metric`)

  // As the server shows them: it, too, takes a snapshot.
  const shown = families(
    await Effect.runPromise(
      Effect.forEach(metrics.values(), (metric) => Metric.value(metric)).pipe(
        Effect.andThen(Metric.snapshot),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )
  )
  const ofEffect = Array.from(metrics, ([key, { id }]): Declaration => {
    const { help, name, type } = shown.get(id)!
    return { name, type, help, labels: [...(labels.get(key) ?? [])].sort() }
  })

  const registry = new Prom.Registry()
  gauges(registry)
  const ofProm = (registry.getMetricsAsArray() as unknown as ReadonlyArray<Declaration & { labelNames: string[] }>).map(
    ({ help, labelNames, name, type }): Declaration => ({ name, type, help, labels: [...labelNames].sort() })
  )
  return [...ofEffect, ...ofProm].sort((a, b) => (a.name < b.name ? -1 : 1))
}

const code = (text: string) => `\`${text}\``

/** The whole page, in Markdown. */
export const page = (metrics: ReadonlyArray<Declaration>): string =>
  `<!-- Made from the metrics that packages/core and packages/server declare, by \`npm run docs\`. -->

# Metrics

\`GET /metrics\` on the HTTP port, without a token: Prometheus text, or OpenMetrics for whoever accepts that. Names, types and
labels stay as they are; labels never hold the name of a host, an address or a token. A series appears with its first value.
Beside these there are the default metrics of \`prom-client\` about the process (\`process_…\`, \`nodejs_…\`).

| name | type | labels | meaning |
| --- | --- | --- | --- |
${metrics.map(({ help, labels, name, type }) => `| ${code(name)} | ${type} | ${labels.map(code).join(", ")} | ${help.replaceAll("|", "\\|")} |`).join("\n")}
`
