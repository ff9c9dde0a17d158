/**
 * Bundles the command line into one file that plain Node runs:
 * `packages/server/dist/prism-dns.js`. A bundle starts in a fifth of the time
 * of the sources, and is what is packaged and what end-to-end tests start.
 */
import { build } from "esbuild"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")
const outfile = Path.join(root, "packages/server/dist/prism-dns.js")

const { outputFiles } = await build({
  absWorkingDir: root,
  entryPoints: ["packages/server/src/cli/main.ts"],
  outfile,
  write: false,
  bundle: true,
  platform: "node",
  target: "node24",
  format: "esm",
  // Dependencies are read as they are published, our packages as they are written.
  conditions: ["@prism-dns/source"],
  // Native and optional; it is used where it is installed beside the bundle.
  external: ["koffi"],
  // Stack traces name the functions, and metrics and spans their classes.
  keepNames: true,
  sourcemap: "linked",
  legalComments: "linked",
  // Some dependencies are CommonJS and ask for Node's own modules by `require`.
  banner: {
    js: `#!/usr/bin/env node
import { createRequire as createRequireOfBundle } from "node:module"
const require = createRequireOfBundle(import.meta.url)`
  },
  logLevel: "warning"
})

// Moved into place whole, so that whoever starts it meanwhile has the old one or the new one.
Fs.mkdirSync(Path.dirname(outfile), { recursive: true })
for (const file of outputFiles) {
  Fs.writeFileSync(`${file.path}.tmp`, file.contents, { mode: file.path === outfile ? 0o755 : 0o644 })
  Fs.renameSync(`${file.path}.tmp`, file.path)
}
