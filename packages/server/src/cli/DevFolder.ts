/**
 * The folder of `prism-dns dev`: registry, PowerDNS's data, and keys that are
 * made once and kept, so that a restart prints the same.
 */
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { FileUnusable } from "./Failure.ts"

export interface DevFolder {
  /** Absolute. */
  readonly path: string
  readonly registry: string
  readonly powerdns: string
  readonly apiKey: Key
  readonly agentToken: Key
  readonly adminToken: Key
}

/** A secret and the file that holds it. */
export interface Key {
  readonly file: string
  readonly value: string
}

/** Reads the key in `file`, or makes one: 192 random bits as hexadecimal digits, which need no quoting anywhere. */
const key = (file: string): Key => {
  if (Fs.existsSync(file)) {
    const value = Fs.readFileSync(file, "utf8").trim()
    if (value !== "") return { file, value }
  }
  const value = randomBytes(24).toString("hex")
  Fs.writeFileSync(`${file}.tmp`, `${value}\n`, { mode: 0o600 })
  Fs.renameSync(`${file}.tmp`, file)
  return { file, value }
}

/** Opens the folder, and makes what is missing in it. */
export const open = (given: string): Effect.Effect<DevFolder, FileUnusable> =>
  Effect.try({
    try: () => {
      const path = Path.resolve(given)
      Fs.mkdirSync(path, { recursive: true, mode: 0o700 })
      return {
        path,
        registry: Path.join(path, "prism.db"),
        powerdns: Path.join(path, "powerdns"),
        apiKey: key(Path.join(path, "powerdns-api-key")),
        agentToken: key(Path.join(path, "agent-token")),
        adminToken: key(Path.join(path, "admin-token"))
      }
    },
    catch: (error) => new FileUnusable({ path: given, detail: error instanceof Error ? error.message : String(error) })
  })
