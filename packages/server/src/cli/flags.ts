/** The flags that stand for settings, made from the table of settings. */
import { Option } from "effect"
import { Flag } from "effect/cli"
import * as Config from "../Config.ts"
import type { Node } from "../config/Settings.ts"

type SettingFlag = Flag.Flag<ReadonlyArray<string>>

const settingFlag = (name: string, doc: string, metavar: string): SettingFlag =>
  Flag.String(name).pipe(Flag.withDescription(doc), Flag.withMetavar(metavar), Flag.atLeast(0))

const collect = (node: Node): ReadonlyArray<readonly [string, SettingFlag]> => {
  if (node._tag === "Group") return Object.values(node.fields).flatMap(collect)
  if (node.flag === undefined) return []
  return node._tag === "Leaf"
    ? [[node.flag, settingFlag(node.flag, `${node.doc} (${node.kind.label})`, "VALUE")]]
    : [[node.flag, settingFlag(node.flag, `${node.doc} May be given again.`, "NAME")]]
}

const all = collect(Config.settings)

/** Flags of the settings, by name; all of them unless `names` says which. */
export const settingFlags = (names?: ReadonlyArray<string>): Record<string, SettingFlag> =>
  Object.fromEntries(all.filter(([name]) => names === undefined || names.includes(name)))

/** Which flags were given, as `Config.load` wants them. The last one wins where only one value makes sense. */
export const given = (
  flags: Readonly<Record<string, ReadonlyArray<string>>>
): Record<string, string | ReadonlyArray<string>> =>
  Object.fromEntries(
    Object.entries(flags)
      .filter(([, values]) => values.length > 0)
      .map(([name, values]) => [name, name === "zone" ? values : values.at(-1)!])
  )

export const configFile = Flag.String("config").pipe(
  Flag.withDescription("Configuration file: YAML, or TOML or JSON by its ending. Default: PRISM_CONFIG."),
  Flag.withMetavar("FILE"),
  Flag.optional
)

export const readyFile = Flag.String("ready-file").pipe(
  Flag.withDescription("Write addresses and keys here as JSON once all of it answers."),
  Flag.withMetavar("PATH"),
  Flag.optional
)

/** Reads the configuration as `serve` does. */
export const load = (input: {
  readonly config: Option.Option<string>
  readonly flags: Readonly<Record<string, ReadonlyArray<string>>>
}) =>
  Config.load({
    file: Option.getOrUndefined(input.config) ?? process.env["PRISM_CONFIG"],
    environment: process.env,
    flags: given(input.flags)
  })
