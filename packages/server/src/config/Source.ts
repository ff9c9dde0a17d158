/**
 * Where settings come from: a file, the environment, flags. All become one
 * tree of text that remembers, for each value, its origin.
 *
 * YAML and JSON keep their line numbers; TOML has none once it is parsed.
 */
import { Match, Result } from "effect"
import { Toml } from "effect/encoding"
import * as Yaml from "yaml"

export type Origin =
  | { readonly _tag: "Default" }
  | { readonly _tag: "File"; readonly file: string; readonly line: number | undefined }
  | { readonly _tag: "Environment"; readonly variable: string }
  | { readonly _tag: "Flag"; readonly flag: string }
  | { readonly _tag: "Program" }

/** The origin as people look it up: `prism.yaml:12`, `PRISM_TCP_PORT`, `--tcp-port`. */
export const showOrigin = (origin: Origin): string =>
  Match.valueTags(origin, {
    Default: () => "default",
    Program: () => "set by the command",
    File: ({ file, line }) => (line === undefined ? file : `${file}:${line}`),
    Environment: ({ variable }) => variable,
    Flag: ({ flag }) => `--${flag}`
  })

/** Settings as they were written, before anyone knows what they mean. */
export type Raw =
  | { readonly _tag: "Scalar"; readonly text: string; readonly origin: Origin }
  | { readonly _tag: "List"; readonly items: ReadonlyArray<Raw>; readonly origin: Origin }
  | { readonly _tag: "Map"; readonly entries: ReadonlyMap<string, Entry>; readonly origin: Origin }
  /** Nothing stands after the key. */
  | { readonly _tag: "Empty"; readonly origin: Origin }

export interface Entry {
  readonly value: Raw
  /** Where the key stands. */
  readonly origin: Origin
}

/** One thing wrong with the configuration. */
export interface Problem {
  readonly origin: Origin
  /** `zones[0].ttl`; empty when the whole source is meant. */
  readonly path: string
  readonly reason: string
}

export const showProblem = (problem: Problem): string =>
  [
    ...(problem.origin._tag === "Default" ? [] : [showOrigin(problem.origin)]),
    ...(problem.path === "" ? [] : [problem.path]),
    problem.reason
  ].join(": ")

/** Deeper nesting than any setting has; also ends an alias that contains itself. */
const depthMax = 16

/** Reads YAML, or JSON, which is YAML too. `originAt` names the place of a line. */
const fromYamlText = (
  text: string,
  originAt: (line: number | undefined) => Origin
): Result.Result<Raw, ReadonlyArray<Problem>> => {
  const lines = new Yaml.LineCounter()
  const document = Yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const at = (offset: number | undefined) => originAt(offset === undefined ? undefined : lines.linePos(offset).line)
  const problems: Array<Problem> = document.errors.map((error) => ({
    origin: at(error.pos[0]),
    path: "",
    reason: error.code === "DUPLICATE_KEY" ? "the same key stands twice" : error.message
  }))
  if (problems.length > 0) return Result.fail(problems)
  const walk = (node: unknown, path: string, depth: number, fallback: Origin): Raw => {
    const origin = Yaml.isNode(node) && node.range ? at(node.range[0]) : fallback
    if (depth > depthMax) {
      problems.push({ origin, path, reason: `is nested deeper than ${depthMax} levels` })
      return { _tag: "Empty", origin }
    }
    if (Yaml.isAlias(node)) return walk(node.resolve(document), path, depth + 1, origin)
    if (Yaml.isMap(node)) {
      const entries = new Map<string, Entry>()
      for (const pair of node.items) {
        const key = Yaml.isScalar(pair.key) ? String(pair.key.value) : String(pair.key)
        const keyOrigin = Yaml.isNode(pair.key) && pair.key.range ? at(pair.key.range[0]) : origin
        const below = path === "" ? key : `${path}.${key}`
        entries.set(key, { value: walk(pair.value, below, depth + 1, keyOrigin), origin: keyOrigin })
      }
      return { _tag: "Map", entries, origin }
    }
    if (Yaml.isSeq(node)) {
      return {
        _tag: "List",
        items: node.items.map((item, i) => walk(item, `${path}[${i}]`, depth + 1, origin)),
        origin
      }
    }
    if (Yaml.isScalar(node) && node.value !== null) {
      // The source keeps `007` and `1e3` as they were written; a name may look like a number.
      const written = typeof node.value === "string" ? node.value : (node.source ?? JSON.stringify(node.value))
      return { _tag: "Scalar", text: written, origin }
    }
    return { _tag: "Empty", origin }
  }
  const raw = walk(document.contents, "", 0, originAt(undefined))
  return problems.length > 0 ? Result.fail(problems) : Result.succeed(raw)
}

/** Settings from a value of the program: TOML once parsed, a test, or a command that makes its own configuration. */
export const fromUnknown = (value: unknown, origin: Origin): Raw => {
  if (Array.isArray(value)) return { _tag: "List", items: value.map((item) => fromUnknown(item, origin)), origin }
  if (typeof value === "object" && value !== null) {
    const entries = new Map<string, Entry>()
    for (const [key, below] of Object.entries(value)) {
      if (below !== undefined) entries.set(key, { value: fromUnknown(below, origin), origin })
    }
    return { _tag: "Map", entries, origin }
  }
  if (value === null || value === undefined) return { _tag: "Empty", origin }
  return { _tag: "Scalar", text: typeof value === "string" ? value : JSON.stringify(value), origin }
}

/** Reads a configuration file's text; its name's ending says which language it is in. */
export const fromFile = (file: string, text: string): Result.Result<Raw, ReadonlyArray<Problem>> => {
  const origin = (line: number | undefined): Origin => ({ _tag: "File", file, line })
  return file.endsWith(".toml")
    ? Result.match(Toml.parse(text), {
        onFailure: (error) => {
          // The parser's sentence carries the place: `… at line 3, column 5`.
          const line = /line (\d+)/.exec(error.message)?.[1]
          return Result.fail([
            { origin: origin(line === undefined ? undefined : Number(line)), path: "", reason: error.message }
          ])
        },
        onSuccess: (value) => Result.succeed(fromUnknown(value, origin(undefined)))
      })
    : fromYamlText(text, origin)
}

/** Reads a value of the environment that stands for a list or a map: JSON, or items between commas. */
export const fromVariable = (variable: string, text: string): Result.Result<Raw, ReadonlyArray<Problem>> => {
  const origin: Origin = { _tag: "Environment", variable }
  if (/^\s*[[{]/.test(text)) return fromYamlText(text, () => origin)
  const items = text.split(",").map((item) => item.trim())
  return Result.succeed({
    _tag: "List",
    items: items.filter((item) => item !== "").map((item) => ({ _tag: "Scalar", text: item, origin })),
    origin
  })
}
