/** The pages of the documentation, taken apart as far as tests look at them. */
import * as Fs from "node:fs"
import * as Path from "node:path"

export const root = Path.resolve(import.meta.dirname, "../..")

/** A fenced block of a page. */
export interface Block {
  /** What stands behind the fence: `ts`, `json request accepted`. */
  readonly info: string
  readonly text: string
  /** For people: the file and the line of the fence. */
  readonly place: string
}

export interface Page {
  /** Below the root of the repository. */
  readonly path: string
  readonly text: string
  /** The text without fenced blocks. */
  readonly prose: string
  readonly blocks: ReadonlyArray<Block>
  /** What a link to this page may have behind `#`. */
  readonly anchors: ReadonlySet<string>
}

const fence = /^(`{3,})(.*)$/

/** The anchor GitHub gives a heading. */
const slug = (heading: string): string =>
  heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-")

const anchorsOf = (prose: string): ReadonlySet<string> => {
  const anchors = new Set<string>()
  for (const [, heading] of prose.matchAll(/^#{1,6} (.+)$/gm)) {
    const anchor = slug(heading!)
    let unique = anchor
    for (let n = 1; anchors.has(unique); n++) unique = `${anchor}-${n}`
    anchors.add(unique)
  }
  return anchors
}

export const parse = (path: string, text: string): Page => {
  const prose: Array<string> = []
  const blocks: Array<Block> = []
  let open: { readonly ticks: string; readonly info: string; readonly place: string; lines: Array<string> } | undefined
  for (const [i, line] of text.split("\n").entries()) {
    const [, ticks, info] = fence.exec(line) ?? []
    if (open === undefined && ticks !== undefined) {
      open = { ticks, info: info!.trim(), place: `${path}:${i + 1}`, lines: [] }
    } else if (open !== undefined && line === open.ticks) {
      blocks.push({ info: open.info, place: open.place, text: open.lines.join("\n") })
      open = undefined
    } else {
      ;(open?.lines ?? prose).push(line)
    }
  }
  if (open !== undefined) throw new Error(`${open.place}: the block is not closed`)
  return { path, text, prose: prose.join("\n"), blocks, anchors: anchorsOf(prose.join("\n")) }
}

export const read = (path: string): Page => parse(path, Fs.readFileSync(Path.join(root, path), "utf8"))

/** Every page there is. */
export const pages: ReadonlyArray<Page> = [
  "README.md",
  "CHANGELOG.md",
  ...Fs.globSync("docs/**/*.md", { cwd: root }),
  ...Fs.globSync("packages/*/README.md", { cwd: root })
]
  .filter((path) => !path.includes("node_modules"))
  .map(read)

/** The blocks of all pages that have `info` behind the fence, or words that begin so. */
export const blocksOf = (info: string): ReadonlyArray<Block> =>
  pages.flatMap(({ blocks }) => blocks.filter((block) => block.info === info || block.info.startsWith(`${info} `)))
