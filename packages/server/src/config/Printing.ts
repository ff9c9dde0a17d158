/**
 * A configuration that was read, as text: every setting with its value, and
 * where it came from if asked. Secrets show as `<redacted>`.
 */
import * as Yaml from "yaml"
import type { Printed } from "./Settings.ts"
import { showOrigin } from "./Source.ts"

interface Options {
  readonly origin: boolean
}

/** YAML that could be a configuration file again, but for its secrets. */
export const toYaml = (printed: ReadonlyArray<Printed>, options: Options): string => {
  const document = new Yaml.Document({})
  for (const { origin, path, text } of printed) {
    if (text === undefined) continue
    const scalar = document.createNode(/^(?:\d+|true|false)$/.test(text) ? JSON.parse(text) : text) as Yaml.Scalar
    if (options.origin) scalar.comment = ` ${showOrigin(origin)}`
    // `setIn` makes lists only of what is one already.
    path.slice(0, -1).forEach((_, i) => {
      const here = path.slice(0, i + 1)
      if (!document.hasIn(here)) document.setIn(here, document.createNode(typeof path[i + 1] === "number" ? [] : {}))
    })
    document.setIn(path, scalar)
  }
  return document.toString({ lineWidth: 0 }).trimEnd()
}

/** One JSON object in the form of the file; with origins, `{value, origin}` in place of each value. */
export const toJson = (printed: ReadonlyArray<Printed>, options: Options): string => {
  const root: Record<string, unknown> = {}
  for (const { origin, path, text } of printed) {
    if (text === undefined) continue
    let here: Record<string | number, unknown> = root
    path.slice(0, -1).forEach((key, i) => {
      here = (here[key] ??= typeof path[i + 1] === "number" ? [] : {}) as Record<string | number, unknown>
    })
    here[path.at(-1)!] = options.origin ? { value: text, origin: showOrigin(origin) } : text
  }
  return JSON.stringify(root, null, 2)
}
