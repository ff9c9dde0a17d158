/**
 * The commands of a program, in the order of its help: as a page of the
 * reference, and as a manual page (man(7)). Both are made from what the program
 * says of itself by `--help`.
 */
import { NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Option } from "effect"
import { CliOutput, Command, type HelpDoc } from "effect/cli"

type Doc = HelpDoc.HelpDoc

/** What stands below a command, by name. */
const below = ({ subcommands = [] }: Doc): ReadonlyArray<string> =>
  subcommands.flatMap(({ commands }) => commands.map(({ name }) => name))

const silent: Console.Console = new Proxy(console, { get: () => () => undefined })

/** The help of a command and of all that stand below it. */
export const collect = async <Name extends string, Input, Context, E, R>(
  command: Command.Command<Name, Input, Context, E, R>
): Promise<ReadonlyArray<Doc>> => {
  const helpOf = async (path: ReadonlyArray<string>): Promise<Doc> => {
    let found: Doc | undefined
    const { formatCliError, formatError, formatErrors, formatVersion } = CliOutput.defaultFormatter({ colors: false })
    const formatter: CliOutput.Formatter = {
      formatCliError,
      formatError,
      formatErrors,
      formatVersion,
      formatHelpDoc: (doc) => {
        found = doc
        return ""
      }
    }
    const run = Command.runWith(command, { version: "" })([...path, "--help"]) as Effect.Effect<void, unknown>
    await Effect.runPromise(
      Effect.ignore(run).pipe(
        Effect.provide(Layer.merge(NodeServices.layer, CliOutput.layer(formatter))),
        Effect.provideService(Console.Console, silent)
      )
    )
    if (found === undefined) throw new Error(`${path.join(" ")} has no help`)
    return found
  }
  const visit = async (path: ReadonlyArray<string>): Promise<ReadonlyArray<Doc>> => {
    const doc = await helpOf(path)
    const docs: Array<Doc> = [doc]
    for (const name of below(doc)) docs.push(...(await visit([...path, name])))
    return docs
  }
  return visit([])
}

/** A command by which somebody does something, not one that only holds others. */
const isDone = (doc: Doc): boolean => below(doc).length === 0

const nameOf = ({ commandPath = [] }: Doc): string => commandPath.join(" ")

const described = (description: Option.Option<string>): string => Option.getOrElse(description, () => "")

/** Flags of more commands than a few are told of once. */
const shared = new Set(["server", "token", "token-file", "json"])

const flagsOf = (doc: Doc) => doc.flags.filter(({ name }) => !shared.has(name))

const sharedOf = (docs: ReadonlyArray<Doc>) => {
  const byName = new Map(docs.flatMap(({ flags }) => flags.map((flag) => [flag.name, flag] as const)))
  return [...shared].flatMap((name) => byName.get(name) ?? [])
}

const flagText = ({ aliases, name, type }: HelpDoc.FlagDoc): string =>
  `${[...aliases, `--${name}`].join(", ")}${type === "boolean" ? "" : ` ${type}`}`

// Markdown ------------------------------------------------------------------------------------------------------------

const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("\n", " ")

const table = (head: string, rows: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> =>
  rows.length === 0
    ? []
    : ["", `| ${head} | |`, "| --- | --- |", ...rows.map(([left, right]) => `| \`${cell(left)}\` | ${cell(right)} |`)]

/** The page of the reference. */
export const page = (program: string, docs: ReadonlyArray<Doc>): string => {
  const done = docs.filter(isDone)
  return `${[
    `# Commands of \`${program}\``,
    "",
    "Made from the program's own help by `npm run docs`; `--help` behind any command says the same. Exit codes: 0 it was done, 1 it was not, 2 it was called wrongly, 78 the configuration is wrong.",
    ...table(
      "flags of the commands that ask a server",
      sharedOf(done).map((flag) => [flagText(flag), described(flag.description)])
    ),
    ...done.flatMap((doc) => [
      "",
      `## ${nameOf(doc)}`,
      "",
      doc.description,
      "",
      `Usage: \`${doc.usage}\``,
      ...table(
        "argument",
        (doc.args ?? []).map((arg) => [
          `${arg.name}${arg.variadic ? "..." : ""}${arg.required ? "" : " (optional)"}`,
          described(arg.description)
        ])
      ),
      ...table(
        "flag",
        flagsOf(doc).map((flag) => [flagText(flag), described(flag.description)])
      )
    ])
  ].join("\n")}\n`
}

// Manual page ---------------------------------------------------------------------------------------------------------

/** Characters on a line of the source, where words allow it. */
const lineMax = 78

/** Text as man(7) takes it: a hyphen that is typed stays one. */
const roff = (text: string): string => text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/\s+/g, " ").trim()

/** A paragraph: no line of it is a request. */
const paragraph = (text: string): string => {
  const lines: Array<string> = []
  for (const word of roff(text).split(" ")) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < lineMax) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines.map((line) => line.replace(/^([.'])/, "\\&$1")).join("\n")
}

const item = (term: string, text: string): ReadonlyArray<string> => [
  ".TP",
  `.B ${roff(term)}`,
  text === "" ? "\\&" : paragraph(text)
]

export interface ManualOptions {
  readonly name: string
  readonly version: string
  /** Of the last change to the form of the page; its content is the program's. */
  readonly date: string
  readonly summary: string
  readonly seeAlso: string
}

/** The manual page, section 1 (8 is for what only root runs). */
export const manual = ({ date, name, seeAlso, summary, version }: ManualOptions, docs: ReadonlyArray<Doc>): string => {
  const done = docs.filter(isDone)
  return `${[
    `.\\" Made from the program's own help by \`npm run docs\`.`,
    `.TH ${name.toUpperCase()} 1 "${date}" "${name} ${version}" "User Commands"`,
    ".SH NAME",
    `${roff(name)} \\- ${roff(summary)}`,
    ".SH SYNOPSIS",
    `.B ${roff(name)}`,
    ".I command",
    ".RI [ flags ]",
    ".SH COMMANDS",
    ...done.flatMap((doc) => [
      `.SS ${roff(nameOf(doc).split(" ").slice(1).join(" "))}`,
      paragraph(doc.description),
      ".PP",
      paragraph(`Usage: ${doc.usage}`),
      ...(doc.args ?? []).flatMap((arg) => item(arg.name, described(arg.description))),
      ...flagsOf(doc).flatMap((flag) => item(flagText(flag), described(flag.description)))
    ]),
    ".SH FLAGS OF THE COMMANDS THAT ASK A SERVER",
    ...sharedOf(done).flatMap((flag) => item(flagText(flag), described(flag.description))),
    ".SH ENVIRONMENT",
    ...item("PRISM_SERVER", "The server's HTTP address, where --server does not say it."),
    ...item("PRISM_TOKEN, PRISM_TOKEN_FILE", "The token, or a file that holds it."),
    ...item("PRISM_CONFIG", "The configuration file of the commands that read one."),
    ...item("NO_COLOR", "Set to anything: no colours."),
    ".SH EXIT STATUS",
    ...item("0", "It was done."),
    ...item("1", "It was not."),
    ...item("2", "It was called wrongly."),
    ...item("78", "The configuration is wrong."),
    ".SH SEE ALSO",
    paragraph(seeAlso)
  ].join("\n")}\n`
}
