/**
 * Where `prism-dns` begins: what Node compiles of it is kept for the next start,
 * in the user's own cache folder, and then the program itself is loaded. Without
 * such a folder it starts as well, a little later.
 */
import * as Module from "node:module"
import * as Path from "node:path"

/** As `engines` of the package says. */
const nodeNeeded = "24.7.0"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
const [majorNeeded = 0, minorNeeded = 0] = nodeNeeded.split(".").map(Number)
if (major < majorNeeded || (major === majorNeeded && minor < minorNeeded)) {
  process.stderr.write(`prism-dns: needs Node ${nodeNeeded} or newer, and this is ${process.versions.node}.\n`)
  process.exit(2)
}

const home = process.env["HOME"]
const caches = process.env["XDG_CACHE_HOME"] ?? (home === undefined ? undefined : Path.join(home, ".cache"))
// A folder that others may write to, as the system's temporary one, would let them choose what runs.
if (process.env["NODE_COMPILE_CACHE"] === undefined && caches !== undefined && Path.isAbsolute(caches)) {
  Module.enableCompileCache(Path.join(caches, "prism-dns"))
}

await import("./main.ts")
