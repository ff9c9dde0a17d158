/**
 * Makes what `@prism-dns/client-sdk` consists of where it is installed:
 * `packages/client-sdk/dist/`.
 *
 * `index.js` and `testing.js` hold all they need, in parts that they share.
 * `effect.js` takes `effect` from the program that uses it, as it must: two
 * copies would not know each other's services. Types are those that `tsc -b`
 * has written, as far as an entry leads to them; they name no package but
 * `effect`, and that one only behind `effect.d.ts`.
 */
import { build, type BuildOptions, type Plugin } from "esbuild"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")
const source = Path.join(root, "packages/client-sdk/src")
const dist = Path.join(root, "packages/client-sdk/dist")

/**
 * `import { Schema } from "effect"` names a whole module, of which a bundler keeps all; the same as `import * as Schema
 * from "effect/Schema"` is kept as far as it is used. Core is written for servers, where it makes no difference.
 */
const deepImports: Plugin = {
  name: "deep imports of effect",
  setup: (bundler) => {
    bundler.onLoad({ filter: /packages\/[a-z-]+\/src\/.*\.ts$/ }, ({ path }) => ({
      loader: "ts",
      contents: Fs.readFileSync(path, "utf8").replaceAll(
        /^import (type )?\{([^}]*)\} from "effect(\/[a-z-]+)?"$/gm,
        (_, type: string | undefined, names: string, folder: string | undefined) =>
          names
            .split(",")
            .map((name) => name.trim())
            .filter((name) => name !== "" && type === undefined && !name.startsWith("type "))
            .map((name) => `import * as ${name} from "effect${folder ?? ""}/${name}"`)
            .join("; ")
      )
    }))
  }
}

const options: BuildOptions = {
  absWorkingDir: root,
  outdir: dist,
  write: false,
  bundle: true,
  splitting: true,
  chunkNames: "part-[hash]",
  platform: "node",
  target: "node22.19",
  format: "esm",
  conditions: ["@prism-dns/source"],
  // Names stay: a stack trace shall say where one is.
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: "none",
  plugins: [deepImports],
  logLevel: "warning"
}

const entry = (name: string) => Path.join(source, `${name}.ts`)

const built = [
  await build({ ...options, entryPoints: [entry("index"), entry("testing")] }),
  await build({ ...options, entryPoints: [entry("effect")], external: ["effect", "effect/*"] })
].flatMap(({ outputFiles }) => outputFiles ?? [])

/** The declarations that an entry leads to, by name. They import each other as sources do; published, as programs do. */
const declarations = new Map<string, string>()
const relative = /(from\s+|import\()"\.\/([A-Za-z]+)\.ts"/g

const declare = (name: string) => {
  if (declarations.has(name)) return
  const text = Fs.readFileSync(Path.join(dist, `types/${name}.d.ts`), "utf8")
  declarations.set(name, text.replace(relative, '$1"./$2.js"').replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"))
  for (const [, , other] of text.matchAll(relative)) declare(other ?? "")
}
for (const name of ["index", "testing", "effect"]) declare(name)

// What an earlier build has left goes, and each file is moved into place whole.
const files = new Map<string, string | Uint8Array>([
  ...built.map(({ contents, path }) => [path, contents] as const),
  ...[...declarations].map(([name, text]) => [Path.join(dist, `${name}.d.ts`), text] as const)
])
for (const [path, contents] of files) {
  Fs.writeFileSync(`${path}.tmp`, contents)
  Fs.renameSync(`${path}.tmp`, path)
}
for (const name of Fs.readdirSync(dist)) {
  const path = Path.join(dist, name)
  if (/^part-.*\.js$|\.d\.ts$/.test(name) && !files.has(path)) Fs.unlinkSync(path)
}
