/** What the pages say of other pages, of metrics, of settings and of commands is so. */
import { assert, describe, it } from "@effect/vitest"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as MetricsPage from "../../scripts/docs/MetricsPage.ts"
import { pages as generated } from "../../scripts/docs/pages.ts"
import { actions } from "../../packages/core/src/audit/Actions.ts"
import { settings } from "../../packages/server/src/Config.ts"
import type { Fields } from "../../packages/server/src/config/Settings.ts"
import { pages, parse, read, root } from "./markdown.ts"

const link = /\[[^\]]*\]\(([^)\s]+)\)/g

/** What is wrong with the links of a page. */
const broken = (page: (typeof pages)[number]): ReadonlyArray<string> =>
  Array.from(page.prose.matchAll(link), ([, target]) => target!).flatMap((target) => {
    if (/^[a-z]+:/.test(target)) return []
    const [path = "", anchor] = target.split("#")
    const file = path === "" ? page.path : Path.join(Path.dirname(page.path), decodeURIComponent(path))
    if (!Fs.existsSync(Path.join(root, file))) return [`${page.path}: there is no ${target}`]
    if (anchor === undefined) return []
    return file.endsWith(".md") && read(file).anchors.has(anchor) ? [] : [`${page.path}: there is no ${target}`]
  })

const keysOf = (fields: Fields, path = ""): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([key, node]) => {
    const here = `${path}${key}`
    switch (node._tag) {
      case "Leaf":
        return node.secret ? [here, `${here}File`] : [here]
      case "Group":
        return [here, ...keysOf(node.fields, `${here}.`)]
      case "List":
        return [here, ...keysOf(node.item.fields, `${here}[].`)]
    }
  })

describe("links", () => {
  it.each(pages.map((page) => [page.path, page] as const))("every one in %s leads somewhere", (_, page) => {
    assert.deepStrictEqual(broken(page), [])
  })

  it("the check finds a file that is not there and a heading that is not there", () => {
    const page = parse(
      "docs/x.md",
      "# A `b` (c)\n# A b c\n[1](none.md) [2](#a-b-c) [3](#a-b-c-1) [4](#a-b-c-2) [5](start.md#none)"
    )
    assert.deepStrictEqual(
      Array.from(page.prose.matchAll(link), ([, target]) => target),
      ["none.md", "#a-b-c", "#a-b-c-1", "#a-b-c-2", "start.md#none"]
    )
    assert.deepStrictEqual([...page.anchors], ["a-b-c", "a-b-c-1"])
    assert.deepStrictEqual(broken(parse("docs/x.md", "[1](none.md) [2](start.md#none) [3](start.md#a-server)")), [
      "docs/x.md: there is no none.md",
      "docs/x.md: there is no start.md#none"
    ])
  })
})

describe("blocks", () => {
  it("each is of a kind that a test runs, or a picture, or commands", () => {
    const kinds =
      /^(?:yaml|ts|console|json request accepted|json request refused [a-z0-9-]+|json answer|json signed|json agent(?: [a-z]+)?|json server(?: [a-z]+)?|mermaid|sh)$/
    assert.deepStrictEqual(
      pages.flatMap(({ blocks }) =>
        blocks.filter(({ info }) => !kinds.test(info)).map(({ info, place }) => [place, info])
      ),
      []
    )
  })
})

describe("generated pages", () => {
  it("are what the code says today; `npm run docs` writes them", async () => {
    for (const { content, path } of await generated()) {
      const is = Fs.readFileSync(Path.join(root, path), "utf8")
      assert.isTrue(is === content, `${path} is out of date: npm run docs`)
    }
  })

  it("every metric that a page names is declared", async () => {
    const declared = new Set((await MetricsPage.declared()).map(({ name }) => name))
    const named = pages.flatMap(({ path, text }) =>
      Array.from(text.matchAll(/\bprism_[a-z_]+/g), ([name]) => [path, name])
    )
    assert.isAbove(named.length, declared.size)
    // A benchmark's figures have names of the same form.
    const figures = ["docs/performance.md", "docs/internals/measurements.md"]
    const others = named.filter(([path, name]) => !figures.includes(path!) && !declared.has(name!))
    assert.deepStrictEqual(others, [])
  })

  it("every metric has a description and a type, and is named after its unit where it has one", async () => {
    for (const { help, labels, name, type } of await MetricsPage.declared()) {
      assert.notStrictEqual(help, name)
      if (type === "counter") assert.match(name, /_total$/)
      if (labels.includes("hostname") || labels.includes("address")) assert.fail(`${name} has a label without bounds`)
    }
  })

  it("every configuration key that a page names exists", () => {
    // An action of the audit has the form of a key of its section.
    const keys = new Set<string>([...keysOf(settings.fields), ...actions])
    const sections = Object.keys(settings.fields).join("|")
    const key = new RegExp(`\`((?:${sections})(?:\\[\\])?\\.[A-Za-z.[\\]]+)\``, "g")
    const named = pages.flatMap(({ path, prose }) => Array.from(prose.matchAll(key), ([, name]) => `${path}: ${name}`))
    assert.isAbove(named.length, keys.size / 2)
    assert.deepStrictEqual(
      named.filter((each) => !keys.has(each.slice(each.indexOf(" ") + 1))),
      []
    )
  })
})

describe("README", () => {
  it("begins with the two commands, and ./prism knows them", () => {
    const [first] = read("README.md").blocks
    const commands = first!.text.split("\n").map((line) => /^\.\/prism (\w+)/.exec(line)?.[1])
    assert.deepStrictEqual(commands, ["dev", "test"])
    const help = ChildProcess.execFileSync(Path.join(root, "prism"), ["--help"], { encoding: "utf8" })
    for (const command of commands) assert.match(help, new RegExp(`^  ${command}\\b`, "m"))
  })

  it.each(["dns", "agent"])("`./prism %s` hands over all that is behind it, --yes too", (program) => {
    const run = (...args: ReadonlyArray<string>) =>
      ChildProcess.spawnSync(Path.join(root, "prism"), [program, ...args], { encoding: "utf8" })
    assert.match(run("--version").stdout, new RegExp(`prism-${program} v\\d`))
    const wrong = run("--yes")
    assert.include(wrong.stderr, "--yes")
    assert.strictEqual(wrong.status, 2)
  })

  it("every `./prism` command that a page names is one", () => {
    const help = ChildProcess.execFileSync(Path.join(root, "prism"), ["--help"], { encoding: "utf8" })
    const known = new Set(Array.from(help.matchAll(/^ {2}(\w+)/gm), ([, command]) => command))
    const named = pages.flatMap(({ text }) =>
      Array.from(text.matchAll(/\.\/prism ([a-z|]+)/g), ([, words]) => words!.split("|")).flat()
    )
    assert.isNotEmpty(named)
    assert.deepStrictEqual(
      named.filter((command) => !known.has(command)),
      []
    )
  })
})
