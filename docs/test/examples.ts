/** Examples in pages, made to run in a folder of their own. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Block } from "./markdown.ts"
import { root } from "./markdown.ts"

/** The configuration with each `…File` in `folder`, and there; `contents` by the file's own name. */
export const provideFiles = (yaml: string, folder: string, contents: Readonly<Record<string, string>> = {}): string =>
  yaml.replace(/(\w+File: )([^\s,}]+)/g, (_, key: string, path: string) => {
    const name = Path.basename(path)
    const file = Path.join(folder, name)
    Fs.writeFileSync(file, contents[name] ?? `content-of-${name}`, { mode: 0o600 })
    return `${key}${file}`
  })

/** A folder in which our packages and their dependencies can be imported, as in a project that has them installed. */
export const makeProject = (folder: string, files: Readonly<Record<string, string>>): void => {
  Fs.mkdirSync(folder, { recursive: true })
  Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(folder, "node_modules"))
  Fs.writeFileSync(Path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
  for (const [name, text] of Object.entries(files)) Fs.writeFileSync(Path.join(folder, name), text)
}

/** What a program prints, by the comments behind its `console.log`. */
export const promised = ({ text }: Block): ReadonlyArray<string> =>
  Array.from(text.matchAll(/console\.log\(.*\) \/\/ (.+)$/gm), ([, line]) => line!)

/** Each line behind `$`, and what stands below it. */
export const dialogue = ({ text }: Block): ReadonlyArray<{ readonly command: string; readonly answer: string }> =>
  text
    .split(/^\$ /m)
    .slice(1)
    .map((part) => {
      const [command = "", ...answer] = part.trimEnd().split("\n")
      return { command, answer: answer.join("\n") }
    })
