/** Writes the pages that are made from the code. With `--check`: writes nothing, and fails if one is out of date. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { pages } from "./docs/pages.ts"

const root = Path.resolve(import.meta.dirname, "..")
const check = process.argv.includes("--check")

for (const { content, path } of await pages()) {
  const file = Path.join(root, path)
  if (check) {
    if (!Fs.existsSync(file) || Fs.readFileSync(file, "utf8") !== content) {
      console.error(`${path} is out of date: npm run docs`)
      process.exitCode = 1
    }
  } else {
    Fs.mkdirSync(Path.dirname(file), { recursive: true })
    Fs.writeFileSync(file, content)
  }
}
