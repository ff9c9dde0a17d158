/**
 * Where `prism-dns` begins: what Node compiles of it is kept for the next start,
 * in the user's own cache folder, and then the program itself is loaded. Without
 * such a folder it starts as well, a little later.
 */
import { enableCompileCache } from "node:module"
import * as Path from "node:path"

const home = process.env["HOME"]
const caches = process.env["XDG_CACHE_HOME"] ?? (home === undefined ? undefined : Path.join(home, ".cache"))
// A folder that others may write to, as the system's temporary one, would let them choose what runs.
if (process.env["NODE_COMPILE_CACHE"] === undefined && caches !== undefined && Path.isAbsolute(caches)) {
  enableCompileCache(Path.join(caches, "prism-dns"))
}

await import("./main.ts")
