/** The reference page of the configuration, made from the table of settings. */
import { type Fields, constantCase, type Group, type Leaf, type List, type Node } from "./Settings.ts"

const code = (text: string) => `\`${text}\``

const cell = (text: string) => text.replaceAll("|", "\\|")

const byDefault = (node: Node): string => {
  if (node._tag === "List") return node.missing === undefined ? "none" : "**must be given**"
  if (node._tag === "Group") return ""
  if (node.defaultText !== undefined) return code(node.defaultText)
  return node.optional ? node.defaultWords! : "**must be given**"
}

const sources = (node: Leaf<unknown> | List<Fields>, variable: string): string =>
  [
    code(variable),
    ...(node._tag === "Leaf" && node.secret ? [code(`${variable}_FILE`)] : []),
    ...(node.flag === undefined ? [] : [code(`--${node.flag}`)])
  ].join(", ")

const rows = (fields: Fields, path: string, variable: string): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([key, node]) => {
    const here = path === "" ? key : `${path}.${key}`
    const name = `${variable}_${constantCase(key)}`
    if (node._tag === "Group") return rows(node.fields, here, name)
    const kind = node._tag === "Leaf" ? node.kind.label : node.shorthand === undefined ? "list" : `list, or names`
    const row = `| ${code(here)} | ${cell(kind)} | ${cell(byDefault(node))} | ${cell(node.doc)} | ${sources(node, name)} |`
    const file =
      node._tag === "Leaf" && node.secret
        ? [
            `| ${code(`${here}File`)} | file name | | In place of ${code(key)}: a file that holds it. | ${code(`${name}_FILE`)} |`
          ]
        : []
    return node._tag === "List" ? [row, ...rows(node.item.fields, `${here}[]`, `${name}_0`)] : [row, ...file]
  })

const section = (key: string, node: Node): string => {
  const body =
    node._tag === "Leaf" || (node._tag === "Group" && Object.keys(node.fields).length === 0)
      ? "It has no keys yet."
      : [
          "| key | value | default | meaning | environment, flag |",
          "| --- | --- | --- | --- | --- |",
          ...(node._tag === "List"
            ? rows({ [key]: node }, "", "PRISM")
            : rows(node.fields, key, `PRISM_${constantCase(key)}`))
        ].join("\n")
  return `## ${key}\n\n${node.doc}\n\n${body}\n`
}

/** The whole page, in Markdown. */
export const page = (table: Group<Fields>): string =>
  `<!-- Made from packages/server/src/Config.ts by \`npm run docs\`. -->

# Configuration

The server reads a file (\`--config FILE\` or \`PRISM_CONFIG\`: YAML, or TOML or JSON by its ending), the environment and flags.
A flag hides an environment variable, which hides the file, which hides the default. An unknown key is an error that names
the nearest right one; all errors are listed, and the process ends with code 78. \`prism-dns config check\` looks without
starting anything, \`prism-dns config print --origin\` shows where each value comes from.

Durations have a unit (\`500ms\`, \`30s\`, \`5m\`, \`1h\`, \`7d\`), and so have sizes (\`64KiB\`). File names are relative to the working
directory. A secret may stand in a file of its own: by the key with \`File\` behind it, or the variable with \`_FILE\` behind it.
A list in the environment is JSON or, for zones, names between commas; \`_0_\`, \`_1_\` … reach single items.

A small configuration:

\`\`\`yaml
storage:
  url: sqlite:./prism.db
powerdns:
  nodes:
    - api: http://127.0.0.1:8053
      apiKeyFile: ./powerdns-api-key
      dns: 127.0.0.1:53
zones:
  - name: hosts.example.net
    ttl: 60s
  - 2.0.192.in-addr.arpa
auth:
  agentTokens:
    - name: fleet
      tokenFile: ./agent-token
\`\`\`

${Object.entries(table.fields)
  .map(([key, node]) => section(key, node))
  .join("\n")}`
