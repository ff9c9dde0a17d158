/**
 * Reads the text formats of Prometheus (0.0.4) and OpenMetrics 1.0 as strictly
 * as `promtool check metrics` does where it matters, and throws with the line.
 */

export interface Series {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly type: string
  readonly help: string
  readonly series: ReadonlyArray<Series>
}

const suffixes: Readonly<Record<string, ReadonlyArray<string>>> = {
  counter: ["", "_total"],
  gauge: [""],
  histogram: ["_bucket", "_sum", "_count"],
  summary: ["", "_sum", "_count"]
}

const parseLabels = (text: string, line: string): Record<string, string> => {
  const labels: Record<string, string> = {}
  const pattern = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text)
    if (match === null) throw new Error(`labels do not parse: ${line}`)
    if (labels[match[1]!] !== undefined) throw new Error(`a label twice: ${line}`)
    labels[match[1]!] = match[2]!.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c))
  }
  return labels
}

const parseValue = (text: string, line: string): number => {
  const special: Readonly<Record<string, number>> = { "+inf": Infinity, "-inf": -Infinity, nan: NaN }
  // Prometheus reads these words in any case, and prom-client writes "Nan".
  const value = special[text.toLowerCase()] ?? Number(text)
  if (Number.isNaN(value) && text.toLowerCase() !== "nan") throw new Error(`no value: ${line}`)
  return value
}

const keyOf = ({ labels, name }: Series, without?: string): string =>
  JSON.stringify([
    name,
    Object.keys(labels)
      .filter((label) => label !== without)
      .sort((a, b) => (a < b ? -1 : 1))
      .map((label) => [label, labels[label]])
  ])

const checkHistogram = (name: string, series: ReadonlyArray<Series>): void => {
  const groups = Map.groupBy(
    series.filter((each) => each.name === `${name}_bucket`),
    (each) => keyOf(each, "le")
  )
  for (const [key, buckets] of groups) {
    const bounds = buckets.map(({ labels }) => parseValue(labels["le"]!, key))
    if (bounds.some((bound, i) => i > 0 && bound <= bounds[i - 1]!)) throw new Error(`buckets out of order: ${key}`)
    if (buckets.some(({ value }, i) => i > 0 && value < buckets[i - 1]!.value))
      throw new Error(`not cumulative: ${key}`)
    const { le, ...labels } = buckets.at(-1)!.labels
    const count = series.find((each) => keyOf(each) === keyOf({ name: `${name}_count`, labels, value: 0 }))
    if (le !== "+Inf" || count?.value !== buckets.at(-1)!.value) throw new Error(`+Inf is not the count: ${key}`)
  }
}

export const parse = (text: string, format: "text" | "openmetrics"): ReadonlyMap<string, Family> => {
  if (!text.endsWith(format === "openmetrics" ? "\n# EOF\n" : "\n")) throw new Error("the end is missing")
  const families = new Map<string, { type: string; help: string; series: Array<Series> }>()
  const keys = new Set<string>()
  let current: { name: string; type: string; help: string; series: Array<Series> } | undefined
  for (const line of text.split("\n")) {
    if (line === "" || line === "# EOF") continue
    const meta = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line)
    if (meta !== null) {
      const [, kind, name, rest] = meta
      if (kind === "HELP") {
        if (families.has(name!)) throw new Error(`a family twice: ${line}`)
        current = { name: name!, type: "", help: rest!, series: [] }
        families.set(name!, current)
      } else if (current?.name !== name || suffixes[rest!] === undefined) {
        throw new Error(`TYPE out of place: ${line}`)
      } else {
        current!.type = rest!
      }
      continue
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (sample === null || current === undefined) throw new Error(`no sample: ${line}`)
    const series = { name: sample[1]!, labels: parseLabels(sample[2] ?? "", line), value: parseValue(sample[3]!, line) }
    const suffix = series.name.slice(current.name.length)
    if (!series.name.startsWith(current.name) || !suffixes[current.type]?.includes(suffix)) {
      throw new Error(`outside its family ${current.name}: ${line}`)
    }
    if (format === "openmetrics" && sample[3] === "Nan") throw new Error(`not a number in this format: ${line}`)
    if (format === "openmetrics" && current.type === "counter" && suffix !== "_total") {
      throw new Error(`a counter without _total: ${line}`)
    }
    if (keys.has(keyOf(series))) throw new Error(`a series twice: ${line}`)
    keys.add(keyOf(series))
    current.series.push(series)
  }
  for (const [name, { series, type }] of families) if (type === "histogram") checkHistogram(name, series)
  return families
}
