/**
 * Makes `prism-agent` one executable that needs no Node on the machine:
 * `packages/client-sdk/dist/executable/prism-agent`, for the system this runs
 * on (a Node single executable application).
 *
 * It is the Node that runs this script with the agent's bundle inside, so it is
 * as large as that Node. On macOS it has to be signed anew before it starts.
 */
import { build } from "esbuild"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "..")
const outfile = Path.join(root, "packages/client-sdk/dist/executable/prism-agent")

/** Where Node looks whether it has something inside; one digit behind it is turned. */
const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2"

/** Runs Node; what it says is of interest when it fails, and an error has it then. */
const run = (...args: ReadonlyArray<string>) => ChildProcess.execFileSync(process.execPath, args, { stdio: "pipe" })

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "prism-agent-executable-"))
try {
  const main = Path.join(folder, "prism-agent.cjs")
  await build({
    absWorkingDir: root,
    entryPoints: ["packages/client-sdk/src/cli/main.ts"],
    outfile: main,
    bundle: true,
    platform: "node",
    target: `node${process.versions.node}`,
    // What a single executable begins with cannot be a module.
    format: "cjs",
    conditions: ["@prism-dns/source"],
    keepNames: true,
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "inline",
    logLevel: "warning"
  })
  const config = Path.join(folder, "sea.json")
  const blob = Path.join(folder, "prism-agent.blob")
  Fs.writeFileSync(config, JSON.stringify({ main, output: blob, disableExperimentalSEAWarning: true }))
  run("--experimental-sea-config", config)

  const beside = Path.join(folder, "prism-agent")
  Fs.copyFileSync(process.execPath, beside)
  Fs.chmodSync(beside, 0o755)
  run(
    Path.join(root, "node_modules/postject/dist/cli.js"),
    beside,
    "NODE_SEA_BLOB",
    blob,
    "--sentinel-fuse",
    fuse,
    ...(process.platform === "darwin" ? ["--macho-segment-name", "NODE_SEA"] : [])
  )
  Fs.mkdirSync(Path.dirname(outfile), { recursive: true })
  Fs.copyFileSync(beside, `${outfile}.tmp`)
  Fs.renameSync(`${outfile}.tmp`, outfile)
} finally {
  Fs.rmSync(folder, { recursive: true, force: true })
}
process.stdout.write(`${outfile}\n`)
