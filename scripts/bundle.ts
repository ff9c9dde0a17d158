/**
 * Bundles each command line into files that plain Node runs:
 * `packages/server/dist/prism-dns.js`, which loads the rest from `prism-dns/`
 * beside it as it is needed, and `packages/client-sdk/dist/prism-agent.js`, which
 * is one file. A bundle starts in a fifth of the time of the sources, needs no
 * other package, and is what is packaged and what end-to-end tests start.
 */
import { build, type BuildOptions, type Plugin } from "esbuild"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")

interface Program {
  readonly entry: string
  readonly outfile: string
  /** The folder beside it for parts that are loaded when they are needed. */
  readonly parts?: string
  readonly options: BuildOptions
}

/**
 * Node's `http` as it is, without being imported: an import looks at each of its exports, and one of them, the WebSocket,
 * loads Node's whole `fetch`, which took a seventh of a start.
 */
const httpUnlooked: Plugin = {
  name: "http-unlooked",
  setup: (bundler) => {
    bundler.onResolve({ filter: /^(?:node:)?http$/ }, () => ({ path: "node:http", namespace: "unlooked" }))
    bundler.onLoad({ filter: /^/, namespace: "unlooked" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`
    }))
  }
}

const programs: ReadonlyArray<Program> = [
  {
    entry: "packages/server/src/cli/entry.ts",
    outfile: "packages/server/dist/prism-dns.js",
    parts: "prism-dns",
    // A command that asks a server starts without the server in it. Names stay.
    options: {
      target: "node24",
      sourcemap: "linked",
      legalComments: "linked",
      splitting: true,
      minifySyntax: true,
      minifyWhitespace: true,
      plugins: [httpUnlooked]
    }
  },
  {
    entry: "packages/client-sdk/src/cli/main.ts",
    outfile: "packages/client-sdk/dist/prism-agent.js",
    // Is installed with the SDK by all who embed it, so it is small; names stay, and say where one is.
    options: { target: "node22.19", minifySyntax: true, minifyWhitespace: true, legalComments: "inline" }
  }
]

/** How long parts of a former bundle are kept, for programs that run it and have not loaded all of it, in milliseconds. */
const formerMillis = 3_600_000

const bundle = async ({ entry, options, outfile, parts }: Program) => {
  const path = Path.join(root, outfile)
  const { outputFiles = [] } = await build({
    absWorkingDir: root,
    entryPoints: [{ in: entry, out: Path.basename(outfile, ".js") }],
    outdir: Path.dirname(path),
    ...(parts !== undefined && { chunkNames: `${parts}/[name]-[hash]` }),
    write: false,
    bundle: true,
    platform: "node",
    format: "esm",
    // Dependencies are read as they are published, our packages as they are written.
    conditions: ["@prism-dns/source"],
    // Native and optional; it is used where it is installed beside the bundle.
    external: ["koffi"],
    // Stack traces name the functions, and metrics and spans their classes.
    keepNames: true,
    // Some dependencies are CommonJS and ask for Node's own modules by `require`.
    banner: {
      js: `#!/usr/bin/env node
import { createRequire as createRequireOfBundle } from "node:module"
const require = createRequireOfBundle(import.meta.url)`
    },
    logLevel: "warning",
    ...options
  })

  // Moved into place whole, so that whoever starts it meanwhile has the old one or the new one.
  const folder = parts === undefined ? undefined : Path.join(Path.dirname(path), parts)
  Fs.mkdirSync(folder ?? Path.dirname(path), { recursive: true })
  // The entry comes last: it names the parts.
  for (const file of outputFiles.toSorted((a, b) => Number(a.path === path) - Number(b.path === path))) {
    // Another process may be at it too.
    const beside = `${file.path}.${process.pid}.tmp`
    Fs.writeFileSync(beside, file.contents, { mode: file.path === path ? 0o755 : 0o644 })
    Fs.renameSync(beside, file.path)
  }
  if (folder === undefined) return
  const current = new Set(outputFiles.map((file) => file.path))
  for (const name of Fs.readdirSync(folder)) {
    const file = Path.join(folder, name)
    if (!current.has(file) && Date.now() - Fs.statSync(file).mtimeMs > formerMillis) Fs.rmSync(file, { force: true })
  }
}

for (const program of programs) await bundle(program)
