/**
 * A configuration as one table of settings, and what follows from the table:
 * reading, checking, the names of environment variables and flags, defaults,
 * printing.
 *
 * Promises: all problems are found in one reading, each with its place; a
 * setting of a higher layer (flags, then environment, then file) hides the
 * lower one, whichever way a secret was given. Leaves to others: what is in
 * the table (`Config.ts`) and rules that span several settings.
 */
import { Result } from "effect"
import type { Kind } from "./Kind.ts"
import * as Source from "./Source.ts"

/** One value. */
export interface Leaf<out A> {
  readonly _tag: "Leaf"
  readonly kind: Kind<unknown>
  readonly doc: string
  /** As it would be written. Undefined: the setting must be given, unless it is optional. */
  readonly defaultText: string | undefined
  /** What stands in for a missing value, in words, when that is not a fixed text. */
  readonly defaultWords: string | undefined
  readonly optional: boolean
  /** May also come from a file, by the same name with `File` (`_FILE` in the environment) behind it. */
  readonly secret: boolean
  readonly flag: string | undefined
  readonly Value?: A
}

/** Settings below one key. */
export interface Group<out F extends Fields> {
  readonly _tag: "Group"
  readonly doc: string
  readonly fields: F
}

/** Any number of groups; an item written as plain text is the field `shorthand` of a group. */
export interface List<out F extends Fields> {
  readonly _tag: "List"
  readonly doc: string
  readonly item: Group<F>
  readonly shorthand: string | undefined
  readonly flag: string | undefined
  /** What to say when there is no item at all; undefined where none is needed. */
  readonly missing: string | undefined
}

export type Node = Leaf<unknown> | Group<Fields> | List<Fields>
export interface Fields {
  readonly [key: string]: Node
}

export type ValueOf<N> =
  N extends Leaf<infer A>
    ? A
    : N extends Group<infer F>
      ? { readonly [K in keyof F]: ValueOf<F[K]> }
      : N extends List<infer F>
        ? ReadonlyArray<{ readonly [K in keyof F]: ValueOf<F[K]> }>
        : never

interface LeafOptions {
  readonly doc: string
  readonly flag?: string
  readonly secret?: boolean
}

const leaf = <A>(
  kind: Kind<unknown>,
  options: LeafOptions & { readonly default?: string; readonly words?: string; readonly optional?: boolean }
): Leaf<A> => ({
  _tag: "Leaf",
  kind,
  doc: options.doc,
  defaultText: options.default,
  defaultWords: options.words,
  optional: options.optional ?? false,
  secret: options.secret ?? false,
  flag: options.flag
})

/** A setting with a default. */
export const setting = <A>(kind: Kind<A>, options: LeafOptions & { readonly default: string }): Leaf<A> =>
  leaf(kind, options)

/** A setting that must be given. */
export const required = <A>(kind: Kind<A>, options: LeafOptions): Leaf<A> => leaf(kind, options)

/** A setting that may be missing; `words` says what is done then. */
export const optional = <A>(kind: Kind<A>, options: LeafOptions & { readonly words: string }): Leaf<A | undefined> =>
  leaf(kind, { ...options, optional: true })

export const group = <const F extends Fields>(doc: string, fields: F): Group<F> => ({ _tag: "Group", doc, fields })

export const list = <const F extends Fields>(
  doc: string,
  fields: F,
  options?: { readonly shorthand?: string; readonly flag?: string; readonly missing?: string }
): List<F> => ({
  _tag: "List",
  doc,
  item: group(doc, fields),
  shorthand: options?.shorthand,
  flag: options?.flag,
  missing: options?.missing
})

/** `drainDelay` as an environment variable spells it: `DRAIN_DELAY`. */
export const constantCase = (key: string): string => key.replace(/(?<=[a-z0-9])[A-Z]/g, "_$&").toUpperCase()

/** Levenshtein's distance, adjacent transposition counted as one step. */
const distance = (a: string, b: string): number => {
  const rows: Array<Array<number>> = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + cost)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2]![j - 2]! + 1)
      row.push(best)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}

/** The one of `names` that `wrong` was most likely meant to be, or undefined when none is near. */
export const nearest = (wrong: string, names: Iterable<string>): string | undefined => {
  let best: { readonly name: string; readonly steps: number } | undefined
  for (const name of names) {
    const steps = distance(wrong.toLowerCase(), name.toLowerCase())
    if (best === undefined || steps < best.steps) best = { name, steps }
  }
  return best !== undefined && best.steps <= Math.max(2, Math.floor(wrong.length / 3)) ? best.name : undefined
}

const join = (path: string, key: string) => (path === "" ? key : `${path}.${key}`)

const keysOf = (fields: Fields): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([key, node]) => (node._tag === "Leaf" && node.secret ? [key, `${key}File`] : [key]))

/** All dotted paths of the table, for a key that stands in the wrong section. */
const pathsOf = (node: Node, path: string): ReadonlyArray<string> =>
  node._tag === "Leaf"
    ? [path]
    : node._tag === "List"
      ? [path, ...pathsOf(node.item, `${path}[]`)]
      : Object.entries(node.fields).flatMap(([key, below]) => pathsOf(below, join(path, key)))

/** A setting as it stands after reading, for `config print`. */
export interface Printed {
  readonly path: ReadonlyArray<string | number>
  /** Without secrets. Undefined: not set, and there is no default. */
  readonly text: string | undefined
  readonly origin: Source.Origin
}

export interface Sources {
  /** Lowest layer above the defaults. */
  readonly base: Source.Raw | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly flags: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly readFile: (path: string) => Result.Result<string, string>
}

/** What the environment may hold under our prefix that is no setting: names other programs of ours read. */
const otherVariables = new Set(["PRISM_TOKEN", "PRISM_TOKEN_FILE", "PRISM_CONFIG", "PRISM_SERVER"])

/** What Kubernetes sets for each Service; one named `prism-http` makes PRISM_HTTP_PORT=tcp://…. */
const isServiceLink = (variable: string, value: string) =>
  /_SERVICE_(?:HOST|PORT(?:_\w+)?)$|_PORT_\d+_(?:TCP|UDP)(?:_\w+)?$/.test(variable) || /^(?:tcp|udp):\/\//.test(value)

const emptyMap: Source.Raw = { _tag: "Map", entries: new Map(), origin: { _tag: "Default" } }

const put = (raw: Source.Raw | undefined, key: string, value: Source.Raw | undefined): Source.Raw => {
  const map = raw?._tag === "Map" ? raw : emptyMap
  if (value === undefined) return map
  return { ...map, entries: new Map(map.entries).set(key, { value, origin: value.origin }) }
}

const drop = (raw: Source.Raw | undefined, key: string): Source.Raw | undefined => {
  if (raw?._tag !== "Map" || !raw.entries.has(key)) return raw
  const entries = new Map(raw.entries)
  entries.delete(key)
  return { ...raw, entries }
}

/** Problems of the file come in its order, then the others in the order they were found. */
const lineOf = ({ origin }: Source.Problem): number =>
  origin._tag === "File" ? (origin.line ?? 0) : Number.MAX_SAFE_INTEGER

/** Reads and checks everything in `table`. Fails with all that is wrong. */
export const read = <F extends Fields>(
  table: Group<F>,
  sources: Sources
): Result.Result<
  { readonly values: ValueOf<Group<F>>; readonly printed: ReadonlyArray<Printed> },
  ReadonlyArray<Source.Problem>
> => {
  const problems: Array<Source.Problem> = []
  const printed: Array<Printed> = []
  const variablesUsed = new Set<string>()
  const variablesKnown = new Set<string>()

  const variable = (name: string): string | undefined => {
    variablesKnown.add(name)
    const value = sources.environment[name]
    if (value === undefined || value === "") return undefined
    variablesUsed.add(name)
    // A link to a Service is not what anyone wrote down as a port.
    return isServiceLink(name, value) ? undefined : value
  }

  /** Lays the environment, then the flags, over what the file says. */
  const overlay = (node: Node, raw: Source.Raw | undefined, name: string): Source.Raw | undefined => {
    if (node._tag === "Leaf") {
      const value = variable(name)
      const flag = node.flag === undefined ? undefined : sources.flags[node.flag]
      if (flag !== undefined) {
        return { _tag: "Scalar", text: String(flag), origin: { _tag: "Flag", flag: node.flag! } }
      }
      return value === undefined
        ? raw
        : { _tag: "Scalar", text: value, origin: { _tag: "Environment", variable: name } }
    }
    if (node._tag === "List") {
      const whole = variable(name)
      const flag = node.flag === undefined ? undefined : sources.flags[node.flag]
      const origin: Source.Origin = { _tag: "Flag", flag: node.flag ?? "" }
      if (flag !== undefined && flag.length > 0) {
        return {
          _tag: "List",
          items: [flag].flat().map((text) => ({ _tag: "Scalar", text, origin })),
          origin
        }
      }
      let result = raw
      if (whole !== undefined) {
        const parsed = Source.fromVariable(name, whole)
        if (Result.isFailure(parsed)) problems.push(...parsed.failure)
        else result = parsed.success
      }
      const items = result?._tag === "List" ? [...result.items] : []
      const count = items.length
      for (let i = 0; ; i++) {
        const prefix = `${name}_${i}`
        if (!Object.keys(sources.environment).some((key) => key.startsWith(`${prefix}_`)) && i >= count) break
        const item = items[i]
        const expanded =
          item?._tag === "Scalar" && node.shorthand !== undefined ? put(undefined, node.shorthand, item) : item
        const laid = overlay(node.item, expanded, prefix)
        if (laid !== undefined && laid !== expanded) items[i] = laid
      }
      return items.length === 0 ? result : { _tag: "List", items, origin: result?.origin ?? items[0]!.origin }
    }
    let result = raw
    for (const [key, below] of Object.entries(node.fields)) {
      const before = result?._tag === "Map" ? result.entries.get(key)?.value : undefined
      const after = overlay(below, before, `${name}_${constantCase(key)}`)
      if (after !== undefined && after !== before) {
        result = put(result, key, after)
        if (below._tag === "Leaf" && below.secret) result = drop(result, `${key}File`)
      }
      if (below._tag === "Leaf" && below.secret) {
        const fileVariable = `${name}_${constantCase(key)}_FILE`
        const file = variable(fileVariable)
        if (file !== undefined) {
          const origin: Source.Origin = { _tag: "Environment", variable: fileVariable }
          const given = result?._tag === "Map" ? result.entries.get(key)?.value : undefined
          if (given?.origin._tag === "Environment") {
            problems.push({ origin, path: "", reason: `${given.origin.variable} is set too; give one of the two` })
          } else if (given?.origin._tag !== "Flag") {
            result = put(drop(result, key), `${key}File`, { _tag: "Scalar", text: file, origin })
          }
        }
      }
    }
    return result
  }

  const unknownKey = (key: string, fields: Fields, origin: Source.Origin, path: string) => {
    const near = nearest(key, keysOf(fields))
    const elsewhere = pathsOf(table, "").filter((known) => known.endsWith(`.${key}`) && !known.includes("[]"))
    const advice =
      near !== undefined
        ? `did you mean ${near}?`
        : elsewhere.length > 0
          ? `did you mean ${elsewhere.join(" or ")}?`
          : keysOf(fields).length === 0
            ? "this section has no keys yet"
            : `known here: ${keysOf(fields).join(", ")}`
    problems.push({ origin, path: join(path, key), reason: `unknown key, ${advice}` })
  }

  const readLeaf = (
    node: Leaf<unknown>,
    raw: Source.Raw | undefined,
    path: string,
    keys: ReadonlyArray<string | number>,
    parent: Source.Origin
  ): unknown => {
    if (raw === undefined) {
      if (node.defaultText === undefined) {
        if (!node.optional) problems.push({ origin: parent, path, reason: "is missing" })
        if (node.optional) printed.push({ path: keys, text: undefined, origin: { _tag: "Default" } })
        return undefined
      }
      printed.push({ path: keys, text: node.kind.print(node.defaultText), origin: { _tag: "Default" } })
      return Result.getOrThrowWith(node.kind.parse(node.defaultText), (reason) => new Error(`${path}: ${reason}`))
    }
    if (raw._tag !== "Scalar") {
      const found = raw._tag === "Empty" ? "has no value" : `must be one value (${node.kind.label})`
      problems.push({ origin: raw.origin, path, reason: found })
      return undefined
    }
    const parsed = node.kind.parse(raw.text)
    if (Result.isFailure(parsed)) {
      problems.push({ origin: raw.origin, path, reason: parsed.failure })
      return undefined
    }
    printed.push({ path: keys, text: node.kind.print(raw.text), origin: raw.origin })
    return parsed.success
  }

  /** The text of a secret that was given as the name of a file. */
  const readSecretFile = (raw: Source.Raw, path: string): Source.Raw | undefined => {
    if (raw._tag !== "Scalar") {
      problems.push({ origin: raw.origin, path, reason: "must be the name of a file" })
      return undefined
    }
    const content = sources.readFile(raw.text)
    if (Result.isFailure(content)) {
      problems.push({ origin: raw.origin, path, reason: `cannot read ${raw.text}: ${content.failure}` })
      return undefined
    }
    return { _tag: "Scalar", text: content.success.trim(), origin: raw.origin }
  }

  const readGroup = (
    node: Group<Fields>,
    raw: Source.Raw | undefined,
    path: string,
    keys: ReadonlyArray<string | number>,
    parent: Source.Origin
  ): Record<string, unknown> => {
    if (raw !== undefined && raw._tag !== "Map" && raw._tag !== "Empty") {
      problems.push({ origin: raw.origin, path, reason: `must have keys: ${keysOf(node.fields).join(", ")}` })
      return {}
    }
    const entries = raw?._tag === "Map" ? raw.entries : new Map<string, Source.Entry>()
    const known = new Set(keysOf(node.fields))
    for (const [key, entry] of entries) if (!known.has(key)) unknownKey(key, node.fields, entry.origin, path)
    const values: Record<string, unknown> = {}
    for (const [key, below] of Object.entries(node.fields)) {
      const here = join(path, key)
      let value = entries.get(key)?.value
      const file = below._tag === "Leaf" && below.secret ? entries.get(`${key}File`)?.value : undefined
      if (file !== undefined) {
        if (value !== undefined) {
          problems.push({ origin: file.origin, path: `${here}File`, reason: `${key} is set too; give one of the two` })
          continue
        }
        value = readSecretFile(file, `${here}File`)
        if (value === undefined) continue
      }
      values[key] = readNode(below, value, here, [...keys, key], raw?.origin ?? parent)
    }
    return values
  }

  const readNode = (
    node: Node,
    raw: Source.Raw | undefined,
    path: string,
    keys: ReadonlyArray<string | number>,
    parent: Source.Origin
  ): unknown => {
    if (node._tag === "Leaf") return readLeaf(node, raw, path, keys, parent)
    if (node._tag === "Group") return readGroup(node, raw, path, keys, parent)
    if (raw === undefined || raw._tag === "Empty" || (raw._tag === "List" && raw.items.length === 0)) {
      if (node.missing !== undefined) problems.push({ origin: raw?.origin ?? parent, path, reason: node.missing })
      return []
    }
    if (raw._tag !== "List") {
      problems.push({ origin: raw.origin, path, reason: "must be a list" })
      return []
    }
    return raw.items.map((item, i) => {
      const expanded =
        item._tag === "Scalar" && node.shorthand !== undefined ? put(undefined, node.shorthand, item) : item
      return readGroup(node.item, expanded, `${path}[${i}]`, [...keys, i], item.origin)
    })
  }

  const laid = overlay(table, sources.base, "PRISM")
  const values = readNode(table, laid, "", [], { _tag: "Default" })

  for (const [name, value] of Object.entries(sources.environment)) {
    if (!name.startsWith("PRISM_") || variablesUsed.has(name) || otherVariables.has(name)) continue
    if (value === undefined || value === "" || isServiceLink(name, value)) continue
    const near = nearest(name, variablesKnown)
    const section = Object.keys(table.fields).some((key) => name.startsWith(`PRISM_${constantCase(key)}_`))
    // Other variables of ours may come to be; one that looks like a setting is a mistake.
    if (near !== undefined || section) {
      problems.push({
        origin: { _tag: "Environment", variable: name },
        path: "",
        reason: near === undefined ? "unknown variable" : `unknown variable, did you mean ${near}?`
      })
    }
  }

  return problems.length > 0
    ? Result.fail(problems.sort((a, b) => lineOf(a) - lineOf(b)))
    : Result.succeed({ values: values as ValueOf<Group<F>>, printed })
}
