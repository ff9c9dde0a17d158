/**
 * Bundles each command line into one file that plain Node runs:
 * `packages/server/dist/prism-dns.js`, `packages/client-sdk/dist/prism-agent.js`.
 * A bundle starts in a fifth of the time of the sources, needs no other package,
 * and is what is packaged and what end-to-end tests start.
 */
import { build, type BuildOptions } from "esbuild"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")

interface Program {
  readonly entry: string
  readonly outfile: string
  readonly options: BuildOptions
}

const programs: ReadonlyArray<Program> = [
  {
    entry: "packages/server/src/cli/main.ts",
    outfile: "packages/server/dist/prism-dns.js",
    options: { target: "node24", sourcemap: "linked", legalComments: "linked" }
  },
  {
    entry: "packages/client-sdk/src/cli/main.ts",
    outfile: "packages/client-sdk/dist/prism-agent.js",
    // Is installed with the SDK by all who embed it, so it is small; names stay, and say where one is.
    options: { target: "node22.19", minifySyntax: true, minifyWhitespace: true, legalComments: "inline" }
  }
]

const bundle = async ({ entry, options, outfile }: Program) => {
  const path = Path.join(root, outfile)
  const { outputFiles = [] } = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile: path,
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
  Fs.mkdirSync(Path.dirname(path), { recursive: true })
  for (const file of outputFiles) {
    // Another process may be at it too.
    const beside = `${file.path}.${process.pid}.tmp`
    Fs.writeFileSync(beside, file.contents, { mode: file.path === path ? 0o755 : 0o644 })
    Fs.renameSync(beside, file.path)
  }
}

for (const program of programs) await bundle(program)
