/**
 * What a benchmark is: a name, a sentence, and a run that gives figures.
 *
 * The result is an interface that outside programs read: figures by name with
 * their unit, ratios of figures of the same run, and targets, each a bound on
 * one of them. Yardsticks are figures like any other. Leaves to others:
 * how it is printed (`main`), and on what it ran (`Machine`).
 */
import { type Effect, Schema, type Scope } from "effect"

/** Where PowerDNS keeps its zones. */
export const backends = ["sqlite", "lmdb", "pgsql"] as const
export type Backend = (typeof backends)[number]

/** Where the registry is kept. */
export const storages = ["sqlite", "postgres"] as const
export type Storage = (typeof storages)[number]

/** What is undefined has a default of the benchmark's own. */
export interface Options {
  /** Hosts, connections or sessions. */
  readonly hosts: number | undefined
  /** Rows of history. */
  readonly rows: number | undefined
  readonly backends: ReadonlyArray<Backend> | undefined
  /** Where registries are kept. */
  readonly storages: ReadonlyArray<Storage> | undefined
  /** Names in the zones that are written or compared, or sessions. */
  readonly sizes: ReadonlyArray<number> | undefined
  /** Changes a second. */
  readonly rates: ReadonlyArray<number> | undefined
  /** Over TLS 1.3 in place of plain TCP. */
  readonly tls: boolean
  /** How long each part that has no end of its own is measured. */
  readonly seconds: number | undefined
  /** How often the short parts are repeated; their medians count. */
  readonly rounds: number
  /** Folder for a CPU profile of each server that is measured; undefined: none is taken. */
  readonly profile: string | undefined
}

export interface Figure {
  readonly value: number
  readonly unit: "s" | "1" | "1/s" | "us" | "B"
  /** Of the rounds, where there were several; `value` is then their median. */
  readonly min?: number
  readonly max?: number
}

export interface Target {
  /** The ratio or figure of the same name should be below this, or with `atLeast` not be below it. */
  readonly want: number
  readonly got: number
  readonly met: boolean
  readonly atLeast?: true
}

export interface Result {
  readonly figures: Readonly<Record<string, Figure>>
  readonly ratios: Readonly<Record<string, number>>
  readonly targets: Readonly<Record<string, Target>>
}

export interface Benchmark {
  readonly name: string
  readonly description: string
  /** Those it can run on. */
  readonly backends: ReadonlyArray<Backend>
  /** Everything it starts ends with the scope. */
  readonly run: (options: Options) => Effect.Effect<Result, BenchFailed, Scope.Scope>
}

/** A benchmark could not be carried out; nothing was measured. */
export class BenchFailed extends Schema.TaggedError<BenchFailed>()("BenchFailed", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** Turns any failure of a part into one of the benchmark. */
export const failed =
  (what: string) =>
  (cause: unknown): BenchFailed =>
    new BenchFailed({ detail: `${what}: ${cause instanceof Error ? cause.message : String(cause)}` })

/** The middle one, or the mean of the middle two. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** One figure of what each round gave. */
export const figure = (unit: Figure["unit"], values: number | ReadonlyArray<number>): Figure => {
  if (typeof values === "number") return { value: values, unit }
  if (values.length === 1) return { value: values[0]!, unit }
  return { value: median(values), unit, min: Math.min(...values), max: Math.max(...values) }
}

export const below = (want: number, got: number): Target => ({ want, got, met: got < want })

export const atLeast = (want: number, got: number): Target => ({ want, got, met: got >= want, atLeast: true })

/** The value that a share `q` of all are not above; NaN of none. */
export const quantile = (values: ReadonlyArray<number>, q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN
}

/** The first of the backends asked for, or SQLite: for a benchmark that runs on one. */
export const backendOf = (options: Options): Backend => options.backends?.[0] ?? "sqlite"
